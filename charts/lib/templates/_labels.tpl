{{/* Labels of every object. Takes {root, name, component}. */}}
{{- define "isa.labels" -}}
{{ include "isa.selector" . }}
app.kubernetes.io/part-of: isa-cloud
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .version }}
app.kubernetes.io/version: {{ . | trunc 63 | quote }}
{{- end }}
{{- end }}

{{/* Labels that select pods: they never change, as a Deployment's selector is immutable. */}}
{{- define "isa.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Wave of an object inside its release: ArgoCD waits for one before it begins the next. */}}
{{- define "isa.wave" -}}
argocd.argoproj.io/sync-wave: {{ . | quote }}
{{- end }}
