{{- /* Name, namespace, labels and annotations: the wave, and with `keep` that a person has to confirm when it goes. */}}
{{- define "messaging.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "isa.labels" (dict "root" .root "name" .name "component" "kafka") | nindent 2 }}
  {{- if .belongs }}
  strimzi.io/cluster: {{ .root.Values.name }}
  {{- end }}
annotations:
  {{- include "isa.wave" .wave | nindent 2 }}
  {{- if .keep }}
  argocd.argoproj.io/sync-options: Prune=confirm,Delete=false
  {{- end }}
{{- end }}

{{- define "messaging.brokers" -}}
{{- index .Values.brokers .Values.global.environment }}
{{- end }}
