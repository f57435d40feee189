# The next release of a room: another image of the same code.
ARG FROM
FROM ${FROM}
ARG RELEASE
LABEL isa.release=${RELEASE}
ENV ISA_RELEASE=${RELEASE}
