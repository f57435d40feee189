# Stand-in for minio/minio: the binary and nothing else; the image's entrypoint puts its name before the command, too.
FROM scratch
COPY engine/bin/minio /usr/bin/minio
EXPOSE 9000
ENTRYPOINT ["/usr/bin/minio"]
