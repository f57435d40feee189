# One image a room: `docker build --build-arg ROOM=services.tasks -t isa-cloud/tasks:0.1.0 .`
# The rooms differ in their last layer only.
#
# The base is pinned by tag. For a release, pin its digest as well: `--build-arg PYTHON=3.11.14-slim-bookworm@sha256:...`.
# Behind a proxy: `--build-arg HTTPS_PROXY=...`. Behind a company's certificate authority: `--secret id=ca,src=bundle.pem`.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /app

COPY runtime/bootstrap.txt runtime/
RUN --mount=type=secret,id=ca \
    if grep -qs 'BEGIN CERTIFICATE' /run/secrets/ca; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r runtime/bootstrap.txt

# What others wrote changes less often than what we write: a layer of its own.
COPY pyproject.toml uv.lock README.md ./
COPY client/pyproject.toml client/
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/uv \
    if grep -qs 'BEGIN CERTIFICATE' /run/secrets/ca; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    /opt/uv/bin/uv sync --frozen --no-dev --no-install-workspace --python python3

COPY . .
RUN --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/uv \
    if grep -qs 'BEGIN CERTIFICATE' /run/secrets/ca; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    /opt/uv/bin/uv sync --frozen --no-dev --python python3 \
    && .venv/bin/python -m compileall -q cli client kernel runtime schemas services \
    && chmod -R a+rX,go-w . # whatever the umask of whoever builds

FROM python:${PYTHON}
# 65532 is the unprivileged user of Dapr's images too, so that a room and its sidecar can share files that nobody else reads.
RUN groupadd --gid 65532 isa \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/isa isa \
    && install -d -o isa -g isa -m 0700 /var/lib/isa /var/lib/isa/spool
COPY --from=build /app /app
WORKDIR /app
# Nothing is written below /app, so the root file system may be read-only; the audit spool is a volume.
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRPC_ENABLE_FORK_SUPPORT=0 \
    APP_HOST=0.0.0.0 \
    ISA_HOME=/var/lib/isa \
    ISA_SPOOL_DIR=/var/lib/isa/spool
VOLUME /var/lib/isa/spool
USER 65532:65532
ARG ROOM=services.users
ENV ROOM=${ROOM}
# An HTTP room answers at APP_PORT; a gRPC room at METRICS_PORT, beside its metrics.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"METRICS_PORT\") or os.environ[\"APP_PORT\"]}/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["sh", "-c", "exec python -m kernel \"$ROOM\""]
