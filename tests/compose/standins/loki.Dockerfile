# Stand-in for grafana/loki: the binary and its folder, no shell, as there since 3.6.
FROM scratch
COPY engine/bin/loki /usr/bin/loki
COPY --chown=10001:10001 empty /loki
USER 10001
EXPOSE 3100
ENTRYPOINT ["/usr/bin/loki"]
CMD ["-config.file=/etc/loki/local-config.yaml"]
