{{/* Metadata of an object. Takes {root, name, wave}. */}}
{{- define "dr.metadata" -}}
name: {{ .name }}
labels: {{- include "isa.labels" (dict "root" .root "name" .name "component" "backup") | nindent 2 }}
annotations:
  {{- include "isa.wave" .wave | nindent 2 }}
{{- end }}

{{/* The stores that are backed up over the network, as options of the command. */}}
{{- define "dr.only" -}}
--only=kafka, --only=nats, --only=redis, --only=vectors, --only=objects
{{- end }}

{{/* Environment: where the engines are. What opens them is apart: the engines of a drill have the same. */}}
{{- define "dr.addresses" -}}
{{- $global := .Values.global }}
{{- $platform := $global.platform }}
{{- $sasl := ne $global.kafka.auth "none" }}
- {name: KAFKA_BROKERS, value: {{ $platform.kafkaBrokers | quote }}}
- {name: KAFKA_SECURITY_PROTOCOL, value: {{ printf "%s%s" (ternary "SASL_" "" $sasl) (ternary "SSL" "PLAINTEXT" $global.kafka.tls) }}}
{{- if $sasl }}
- {name: KAFKA_SASL_MECHANISM, value: {{ get (dict "scram" "SCRAM-SHA-512" "aws-iam" "OAUTHBEARER" "gcp" "PLAIN" "event-hubs" "PLAIN") $global.kafka.auth }}}
- {name: KAFKA_SASL_USERNAME, value: {{ $platform.kafkaUsername | default "backup" | quote }}}
{{- end }}
{{- if has $global.kafka.auth (list "gcp" "event-hubs") }}
- name: KAFKA_PASSWORD
  valueFrom: {secretKeyRef: {name: kafka-password, key: kafka-password}}
{{- else if eq $global.kafka.auth "scram" }}
- name: KAFKA_PASSWORD
  valueFrom: {secretKeyRef: {name: backup-kafka, key: password}}
- name: KAFKA_CA
  valueFrom: {secretKeyRef: {name: backup-kafka-ca, key: backup-kafka-ca}}
{{- end }}
- {name: REDIS_HOST, value: {{ $platform.redisHost | quote }}}
- {name: REDIS_PORT, value: {{ $platform.redisPort | quote }}}
- {name: REDIS_TLS, value: {{ ne $global.cloud "local" | quote }}}
- {name: NATS_URL, value: {{ $global.engines.natsUrl }}}
- {name: MINIO_URL, value: {{ $global.engines.minioUrl }}}
- {name: QDRANT_URL, value: {{ $global.engines.qdrantUrl }}}
- {name: AWS_REGION, value: {{ $platform.region }}}
{{- end }}

{{- define "dr.secrets" -}}
- {name: ISA_HOME, value: /tmp}
- name: NATS_PASSWORD
  valueFrom: {secretKeyRef: {name: nats-password, key: nats-password}}
- name: MINIO_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: minio-access-key, key: minio-access-key}}
- name: MINIO_SECRET_KEY
  valueFrom: {secretKeyRef: {name: minio-secret-key, key: minio-secret-key}}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: redis-password, key: redis-password}}
- name: QDRANT_API_KEY # only where charts/data wants one
  valueFrom: {secretKeyRef: {name: qdrant-api-key, key: qdrant-api-key, optional: true}}
{{- end }}

{{/* Environment of rclone: the remote `cloud`, by the identity of the pod. */}}
{{- define "dr.remote" -}}
{{- $global := .Values.global }}
- {name: HOME, value: /tmp}
{{- if eq $global.cloud "aws" }}
- {name: RCLONE_CONFIG_CLOUD_TYPE, value: s3}
- {name: RCLONE_CONFIG_CLOUD_PROVIDER, value: AWS}
- {name: RCLONE_CONFIG_CLOUD_REGION, value: {{ $global.platform.region }}}
{{- else if eq $global.cloud "gcp" }}
- {name: RCLONE_CONFIG_CLOUD_TYPE, value: google cloud storage}
- {name: RCLONE_CONFIG_CLOUD_BUCKET_POLICY_ONLY, value: "true"}
{{- else }}
- {name: RCLONE_CONFIG_CLOUD_TYPE, value: azureblob}
- {name: RCLONE_CONFIG_CLOUD_ACCOUNT, value: {{ $global.platform.objectStoreEndpoint | trimPrefix "https://" | splitList "." | first }}}
{{- end }}
- {name: RCLONE_CONFIG_CLOUD_ENV_AUTH, value: "true"}
- {name: BUCKET, value: {{ $global.platform.backupBucket }}}
{{- end }}

{{/* What a pod of ours has whatever it does. Takes the root. */}}
{{- define "dr.pod" -}}
restartPolicy: Never
serviceAccountName: backup
automountServiceAccountToken: false # the cloud's identity is mounted apart
enableServiceLinks: false
securityContext: {{- include "isa.podSecurity" . | nindent 2 }}
{{- end }}

{{- define "dr.podLabels" -}}
{{ include "isa.labels" (dict "root" .root "name" .name "component" "backup") }}
{{- if eq .root.Values.global.cloud "azure" }}
azure.workload.identity/use: "true"
{{- end }}
{{- end }}

{{/* The cloud's object store and its tokens: at public addresses, or at those of the node. */}}
{{- define "dr.egressCloud" -}}
- to: [{ipBlock: {cidr: 0.0.0.0/0}}]
  ports: [{port: 443, protocol: TCP}]
- to:
    - ipBlock: {cidr: 169.254.170.23/32} # tokens on EKS
    - ipBlock: {cidr: 169.254.169.254/32} # and on GKE
    - ipBlock: {cidr: 169.254.169.252/32}
  ports: [{port: 80, protocol: TCP}, {port: 988, protocol: TCP}]
{{- end }}
