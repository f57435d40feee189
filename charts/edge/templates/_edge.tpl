{{- define "edge.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels: {{- include "isa.labels" (dict "root" .root "name" "edge" "component" "gateway") | nindent 2 }}
annotations:
  {{- include "isa.wave" .wave | nindent 2 }}
  {{- range $key, $value := .annotations }}
  {{ $key }}: {{ $value | quote }}
  {{- end }}
{{- end }}
