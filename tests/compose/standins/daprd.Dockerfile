# Stand-in for daprio/daprd: the binary and nothing else, as there.
FROM scratch
COPY engine/bin/daprd /daprd
WORKDIR /
USER 65532:65532
