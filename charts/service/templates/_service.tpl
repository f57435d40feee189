{{- define "service.labels" -}}
{{ include "isa.labels" (dict "root" . "name" .Values.service.name "component" "service" "version" .Values.image.tag) }}
{{- end }}

{{- define "service.selector" -}}
{{ include "isa.selector" (dict "name" .Values.service.name "component" "service") }}
{{- end }}

{{- define "service.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "service.labels" .root | nindent 2 }}
{{- with .wave }}
annotations: {{- include "isa.wave" . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What autoscalers and recommenders act on. */}}
{{- define "service.target" -}}
{{- if .Values.rollout.enabled -}}
{apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: {{ .Values.service.name }}}
{{- else -}}
{apiVersion: apps/v1, kind: Deployment, name: {{ .Values.service.name }}}
{{- end }}
{{- end }}

{{- define "service.minReplicas" -}}
{{- if eq .Values.scaling.class "fixed" }}{{ .Values.scaling.replicas }}
{{- else }}{{ .Values.scaling.minReplicas | default .Values.global.minReplicas }}{{ end }}
{{- end }}

{{- define "service.isAtEdge" -}}
{{- if or .Values.edge.open .Values.edge.protected .Values.edge.grpc }}yes{{ end }}
{{- end }}

{{/* Fewest partitions among the topics that it consumes: more replicas than that would stand idle. */}}
{{- define "service.partitions" -}}
{{- $fewest := 0 }}
{{- range .Values.service.consumes }}
{{- if or (eq $fewest 0) (lt (int .partitions) $fewest) }}{{ $fewest = int .partitions }}{{ end }}
{{- end }}
{{- $fewest }}
{{- end }}

{{/* host:port of everything that its pods reach outside of their namespace, with commas between. */}}
{{- define "service.addresses" -}}
{{- $platform := .Values.global.platform }}
{{- $engines := .Values.global.engines }}
{{- $addresses := list $platform.kafkaBrokers $engines.registryUrl }}
{{- range .Values.engines }}
{{- if eq . "postgres" }}{{ $addresses = append $addresses (printf "%s:%s" $platform.postgresHost $platform.postgresPort) }}
{{- else if eq . "redis" }}{{ $addresses = append $addresses (printf "%s:%s" $platform.redisHost $platform.redisPort) }}
{{- else if eq . "nats" }}{{ $addresses = append $addresses $engines.natsUrl }}
{{- else }}{{ $addresses = append $addresses (get $engines (printf "%sUrl" .)) }}
{{- end }}
{{- end }}
{{- with .Values.global.otlpEndpoint }}{{ $addresses = append $addresses . }}{{ end }}
{{- join "," $addresses }}
{{- end }}

{{/* How a consumer measures its lag; events themselves go through Dapr. Words of Kafka's own clients for global.kafka. */}}
{{- define "service.kafka" -}}
{{- $kafka := .Values.global.kafka }}
{{- $sasl := ne $kafka.auth "none" }}
KAFKA_BROKERS: {{ .Values.global.platform.kafkaBrokers | quote }}
KAFKA_SECURITY_PROTOCOL: {{ printf "%s%s" (ternary "SASL_" "" $sasl) (ternary "SSL" "PLAINTEXT" $kafka.tls) }}
{{- if $sasl }}
KAFKA_SASL_MECHANISM: {{ get (dict "scram" "SCRAM-SHA-512" "aws-iam" "OAUTHBEARER" "gcp" "PLAIN" "event-hubs" "PLAIN") $kafka.auth }}
{{- if ne $kafka.auth "aws-iam" }}
KAFKA_SASL_USERNAME: {{ .Values.global.platform.kafkaUsername | default .Values.service.name | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether Redis is an authority of its own: Memorystore is, and dapr-resources brings its certificate. */}}
{{- define "service.ownRedisAuthority" -}}
{{- if and (has "redis" .Values.engines) (eq .Values.global.cloud "gcp") }}true{{ end }}
{{- end }}

{{/* The room's environment, as a map: docs/reference/configuration.md. */}}
{{- define "service.environment" -}}
{{- $global := .Values.global }}
APP_ID: {{ .Values.service.name }}
APP_PORT: {{ .Values.service.port | quote }}
APP_HOST: 0.0.0.0
{{- if eq .Values.service.protocol "grpc" }}
METRICS_PORT: {{ .Values.service.metricsPort | quote }}
{{- end }}
LOG_LEVEL: {{ $global.logLevel }}
OTEL_TRACES_SAMPLER_ARG: {{ $global.traceSampling | quote }}
{{- with $global.otlpEndpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: http://{{ . }}
{{- end }}
ISA_SPOOL_DIR: /var/lib/isa/spool
ISA_DRAIN_SECONDS: {{ .Values.shutdown.drain | quote }}
REGISTRY_URL: {{ $global.engines.registryUrl }}
{{- if .Values.service.consumes }}
{{ include "service.kafka" . }}
{{- end }}
{{- range .Values.engines }}
{{- if and (eq . "postgres") (eq $.Values.service.protocol "grpc") }}
POSTGRES_HOST: {{ $global.platform.postgresHost }}
POSTGRES_PORT: {{ $global.platform.postgresPort | quote }}
POSTGRES_SSLMODE: {{ $global.postgresSslmode }}
POSTGRES_ADVERTISE: $(POD_IP):{{ $.Values.service.port }}
{{- else if eq . "redis" }}
REDIS_HOST: {{ $global.platform.redisHost }}
REDIS_PORT: {{ $global.platform.redisPort | quote }}
REDIS_TLS: {{ ne $global.cloud "local" | quote }}
{{- if include "service.ownRedisAuthority" $ }}
REDIS_TLS_CA: /etc/isa/redis/redis-ca
{{- end }}
{{- else if eq . "nats" }}
NATS_URL: {{ $global.engines.natsUrl }}
{{- else if eq . "loki" }}
LOKI_URL: {{ $global.engines.lokiUrl }}
{{- else if eq . "minio" }}
MINIO_URL: {{ $global.engines.minioUrl }}
MINIO_PUBLIC_URL: https://objects.{{ $global.platform.domain }}
{{- else if eq . "qdrant" }}
QDRANT_URL: {{ $global.engines.qdrantUrl }}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Names of the Secrets that its sidecar reads: those of the derived list, and what Kafka asks for. */}}
{{- define "service.secrets" -}}
{{- $names := .Values.service.secrets }}
{{- $auth := .Values.global.kafka.auth }}
{{- if eq $auth "scram" }}{{ $names = append $names "kafka-ca" }}{{ end }}
{{- if has $auth (list "gcp" "event-hubs") }}{{ $names = append $names "kafka-password" }}{{ end }}
{{- toYaml $names }}
{{- end }}

{{/* Where Kafka's password of this service is, as Secret:key. Strimzi gives each its own user, a cloud one to all. */}}
{{- define "service.kafkaPassword" -}}
{{- if eq .Values.global.kafka.auth "scram" }}{{ .Values.service.name }}-kafka:password
{{- else if has .Values.global.kafka.auth (list "gcp" "event-hubs") }}kafka-password:kafka-password
{{- end }}
{{- end }}

{{- define "service.ports" -}}
- name: app
  port: {{ .Values.service.port }}
  targetPort: app
  appProtocol: {{ ternary "kubernetes.io/h2c" "http" (eq .Values.service.protocol "grpc") }}
{{- if eq .Values.service.protocol "grpc" }}
- {name: metrics, port: {{ .Values.service.metricsPort }}, targetPort: metrics, appProtocol: http}
{{- end }}
{{- end }}
