{{/* Whether an engine runs here: as said, else what no cloud gives everywhere, and the rest on a bare cluster only. */}}
{{- define "data.runs" -}}
{{- $engine := index .root.Values .name -}}
{{- if hasKey $engine "enabled" -}}
{{- if $engine.enabled }}yes{{ end -}}
{{- else if eq .name "kafka" -}}
{{- if eq .root.Values.global.kafka.auth "none" }}yes{{ end -}}
{{- else if has .name (list "postgres" "redis") -}}
{{- if eq .root.Values.global.cloud "local" }}yes{{ end -}}
{{- else -}}yes
{{- end -}}
{{- end }}

{{- define "data.replicas" -}}
{{- index (index .root.Values .name).replicas .root.Values.global.environment -}}
{{- end }}

{{- define "data.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: isa-cloud
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "data.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .group }}
fsGroup: {{ .group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "data.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A port that others may use: `from` lists namespaces, each with the names of its pods or all of them. */}}
{{- define "data.ingress" -}}
{{- range .access }}
- ports:
    - port: {{ .port }}
  from:
    {{- range .from }}
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .namespace | default $.root.Release.Namespace }}}
      {{- with .names }}
      podSelector:
        matchExpressions:
          - {key: app.kubernetes.io/name, operator: In, values: {{ toJson . }}}
      {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{/*
Everything that an engine is in Kubernetes, from what its own file says of it:
  user, group     whom it runs as            ports      name -> number
  container       the rest of its container  volumes    beside /tmp and its data
  data            where its disk is mounted; without one it is a Deployment
  peers           true: its replicas know each other by name
  access, egress  who may reach it, and whom it reaches beside DNS
  metrics         {port, path} for Prometheus
  grace           seconds that it may take to stop
  identity        the cloud's identity of its service account
  wave            when ArgoCD applies it
*/}}
{{- define "data.engine" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $engine := fromYaml .engine -}}
{{- if hasKey $engine "Error" }}{{ fail (printf "%s: %s" $name $engine.Error) }}{{ end -}}
{{- $values := index $root.Values $name -}}
{{- $replicas := include "data.replicas" . | int -}}
{{- $labels := include "data.labels" . -}}
{{- $container := $engine.container -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations:
    argocd.argoproj.io/sync-wave: "-20"
    {{- if $engine.identity }}
    {{ $root.Values.global.identityAnnotation }}: {{ $engine.identity | quote }}
    {{- end }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "-20"}
spec:
  selector: {app.kubernetes.io/name: {{ $name }}}
  ports:
    {{- range $port, $number := $engine.ports }}
    - {name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}}
    {{- end }}
{{- if $engine.peers }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}-pods
  labels: {{- $labels | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "-20"}
spec:
  clusterIP: None
  publishNotReadyAddresses: true # they have to meet before they can be ready
  selector: {app.kubernetes.io/name: {{ $name }}}
  ports:
    {{- range $port, $number := $engine.ports }}
    - {name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}}
    {{- end }}
{{- end }}
---
apiVersion: apps/v1
kind: {{ ternary "StatefulSet" "Deployment" (hasKey $engine "data") }}
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations:
    argocd.argoproj.io/sync-wave: {{ $engine.wave | default "-10" | quote }}
    {{- if $engine.data }}
    argocd.argoproj.io/sync-options: Prune=confirm,Delete=false # there is data behind it
    {{- end }}
spec:
  replicas: {{ $replicas }}
  selector:
    matchLabels: {app.kubernetes.io/name: {{ $name }}}
  {{- if $engine.data }}
  serviceName: {{ $name }}{{ if $engine.peers }}-pods{{ end }}
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  {{- end }}
  template:
    metadata:
      labels:
        {{- $labels | nindent 8 }}
        {{- if and $engine.identity (eq $root.Values.global.cloud "azure") }}
        azure.workload.identity/use: "true"
        {{- end }}
      {{- with $engine.checksum }}
      annotations: {checksum/configuration: {{ . }}}
      {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $engine.grace | default 40 }}
      securityContext: {{- include "data.podSecurity" $engine | nindent 8 }}
      {{- if gt $replicas 1 }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {app.kubernetes.io/name: {{ $name }}}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ $name }}
          image: {{ $values.image }}
          {{- toYaml (omit $container "volumeMounts") | nindent 10 }}
          ports:
            {{- range $port, $number := $engine.ports }}
            - {name: {{ $port }}, containerPort: {{ $number }}}
            {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext: {{- include "data.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with $engine.data }}
            - {name: data, mountPath: {{ . }}}
            {{- end }}
            {{- with $container.volumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
        {{- with $engine.volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- if $engine.data }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels: {app.kubernetes.io/name: {{ $name }}, app.kubernetes.io/part-of: isa-cloud}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $root.Values.global.platform.storageClass | default $root.Values.global.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ index $values.storage $root.Values.global.environment }}}}
  {{- end }}
{{- if gt $replicas 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "-10"}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {app.kubernetes.io/name: {{ $name }}}
{{- end }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "-20"}
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/name: {{ $name }}}
  policyTypes: [Ingress, Egress]
  ingress: {{- include "data.ingress" (dict "root" $root "access" $engine.access) | nindent 4 }}
    {{- if and $engine.metrics $root.Values.serviceMonitors }}
    - ports:
        - port: {{ index $engine.ports $engine.metrics.port }}
      from:
        - namespaceSelector:
            matchLabels: {kubernetes.io/metadata.name: observability}
    {{- end }}
  {{- with $engine.egress }}
  egress: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if and $engine.metrics $root.Values.serviceMonitors }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {argocd.argoproj.io/sync-wave: "-10"}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: {{ $name }}}
  endpoints:
    - {{- toYaml $engine.metrics | nindent 6 }}
      interval: 30s
{{- end }}
{{- end }}
