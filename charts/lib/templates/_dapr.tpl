{{/*
Annotations by which Dapr's injector makes the sidecar. All are strings. Takes the service chart's root.
The health check's numbers are those of dapr.yaml; a test compares them.
*/}}
{{- define "isa.daprAnnotations" -}}
{{- $service := .Values.service }}
{{- $sidecar := .Values.sidecar }}
dapr.io/enabled: "true"
dapr.io/app-id: {{ $service.name }}
dapr.io/app-port: {{ $service.port | quote }}
dapr.io/app-protocol: {{ $service.protocol }}
dapr.io/config: {{ $service.name }}
dapr.io/log-level: {{ .Values.global.logLevel | lower | replace "warning" "warn" | replace "critical" "error" }}
dapr.io/log-as-json: "true"
# No native sidecar: that one stops after the room, and a batch that is on its way to a room that is gone ends as dead letters.
dapr.io/enable-native-sidecar: "false"
dapr.io/sidecar-cpu-request: {{ $sidecar.cpu.request | quote }}
dapr.io/sidecar-cpu-limit: {{ $sidecar.cpu.limit | quote }}
dapr.io/sidecar-memory-request: {{ $sidecar.memory.request | quote }}
dapr.io/sidecar-memory-limit: {{ $sidecar.memory.limit | quote }}
# Go collects before the limit kills: four fifths of it.
dapr.io/env: GOMEMLIMIT={{ div (mul (trimSuffix "Mi" $sidecar.memory.limit | int) 4) 5 }}MiB
{{- if eq .Values.global.kafka.auth "scram" }}
dapr.io/env-from-secret: KAFKA_PASSWORD={{ $service.name }}-kafka:password
{{- end }}
dapr.io/enable-app-health-check: "true"
dapr.io/app-health-check-path: /healthz
dapr.io/app-health-probe-interval: "2"
dapr.io/app-health-probe-timeout: "2000"
dapr.io/app-health-threshold: "3"
dapr.io/block-shutdown-duration: {{ (get .Values.shutdown $service.protocol).sidecarWaits }}s
dapr.io/graceful-shutdown-seconds: {{ .Values.shutdown.sidecarDrains | quote }}
dapr.io/api-token-secret: {{ $service.name }}-dapr-api-token
dapr.io/app-token-secret: {{ $service.name }}-app-api-token
dapr.io/max-body-size: 16Mi
dapr.io/read-buffer-size: 64Ki
# Its APIs; the internal port, metrics and the public health port are others and stay reachable.
dapr.io/sidecar-listen-addresses: 127.0.0.1
# The component `secrets` stands in its place, behind the allow-list of the Configuration.
dapr.io/disable-builtin-k8s-secret-store: "true"
# The component reads with this token; the room has none.
dapr.io/volume-mounts: sidecar-token:/var/run/secrets/kubernetes.io/serviceaccount
{{- if not $service.jobs }}
dapr.io/scheduler-host-address: ""
{{- end }}
dapr.io/placement-host-address: ""
{{- end }}
