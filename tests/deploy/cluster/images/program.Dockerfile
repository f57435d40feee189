# A Go program and nothing else, as upstream's distroless images: the manifest gives its arguments, or names it.
FROM scratch
COPY bin /
COPY --chown=65532:65532 empty /tmp
USER 65532:65532
ENTRYPOINT ["/entrypoint"]
