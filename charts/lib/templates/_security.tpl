{{/* What the namespace's level `restricted` asks of a pod. 65532 is the user of our image and of daprd's. */}}
{{- define "isa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "isa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* registry/name:tag, and the digest that decides when there is one. Takes {image, name}. */}}
{{- define "isa.image" -}}
{{ .image.registry }}/{{ .name }}:{{ .image.tag }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Requests and limits. Takes {cpu: {request, limit}, memory: {request, limit}}. */}}
{{- define "isa.resources" -}}
requests: {cpu: {{ .cpu.request | quote }}, memory: {{ .memory.request | quote }}}
limits: {cpu: {{ .cpu.limit | quote }}, memory: {{ .memory.limit | quote }}}
{{- end }}
