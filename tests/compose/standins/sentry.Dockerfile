# Stand-in for daprio/sentry: the binary and nothing else, as there.
FROM scratch
COPY sentry /sentry
WORKDIR /
USER 65532:65532
