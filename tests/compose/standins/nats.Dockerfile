# Stand-in for nats: the binary and nothing else, as there.
FROM scratch
COPY engine/bin/nats-server /nats-server
EXPOSE 4222 8222
ENTRYPOINT ["/nats-server"]
CMD ["--config", "nats-server.conf"]
