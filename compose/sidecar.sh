# Start daprd with this pod's ports, as dapr.yaml and the Dapr CLI would.
set -eu
set -a
. "/run/isa/secrets/tokens/$APP_ID.env"
set +a
DAPR_TRUST_ANCHORS=$(/tools/busybox cat /run/isa/trust/ca.crt)
NAMESPACE=default
export DAPR_TRUST_ANCHORS NAMESPACE
resources="--resources-path /components/local --resources-path /components/local/subscriptions"
if [ -n "${SMTP_HOST:-}" ]; then
  resources="$resources --resources-path /components/optional"
fi
consul=""
if [ "${ISA_CLOUD_CONSUL_ENABLED:-}" = true ]; then
  DAPR_HOST_IP=$(/tools/busybox hostname -i)
  export DAPR_HOST_IP
  consul="--config /components/consul/config.yaml"
fi
exec /daprd \
  --app-id "$APP_ID" \
  --app-port "$APP_PORT" \
  --app-protocol "$APP_PROTOCOL" \
  --dapr-http-port "$DAPR_HTTP_PORT" \
  --dapr-grpc-port "$DAPR_GRPC_PORT" \
  --dapr-internal-grpc-port "$DAPR_INTERNAL_GRPC_PORT" \
  --metrics-port "$DAPR_METRICS_PORT" \
  --dapr-listen-addresses 127.0.0.1 \
  --config "/components/local/config/$APP_ID.yaml" \
  --config "/compose/access/$APP_ID.yaml" \
  $consul \
  $resources \
  --enable-mtls \
  --sentry-address "$SENTRY" \
  --control-plane-trust-domain localhost \
  --control-plane-namespace default \
  --scheduler-host-address "$SCHEDULER" \
  --max-body-size 16Mi \
  --read-buffer-size 64Ki \
  --enable-app-health-check \
  --app-health-check-path /healthz \
  --app-health-probe-interval 2 \
  --app-health-probe-timeout 2000 \
  --app-health-threshold 3 \
  --dapr-graceful-shutdown-seconds 30 \
  --log-as-json \
  --log-level "$DAPR_LOG_LEVEL"
