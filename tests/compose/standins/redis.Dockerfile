# Stand-in for redis: the runtime's server, which is older than the image's.
ARG BASE
FROM ${BASE}
COPY redis-server /usr/local/bin/redis-server
WORKDIR /data
EXPOSE 6379
CMD ["redis-server"]
