{{- define "observability.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: isa-cloud
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}
