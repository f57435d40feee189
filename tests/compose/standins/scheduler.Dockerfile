# Stand-in for daprio/scheduler: the binary and nothing else, as there.
FROM scratch
COPY engine/bin/scheduler /scheduler
WORKDIR /
USER 65532:65532
