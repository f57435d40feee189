{{/* A NetworkPolicy peer: pods of a namespace of ours, by the label that Kubernetes itself puts on namespaces. */}}
{{- define "isa.namespace" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
{{- end }}

{{/*
An egress rule to each host:port of a list with commas between. `name.isa-data` or `name.namespace.svc...` is in the cluster: then its
namespace is the peer. Anything else is managed by the cloud and reached at a private address. Takes {addresses, ranges}.
*/}}
{{- define "isa.egress" -}}
{{- $rules := dict }}
{{- range splitList "," .addresses }}
{{- $address := . | trim | regexFind "[^/@]+:[0-9]+" }}
{{- if not $address }}{{ fail (printf "%q is no host:port; a NetworkPolicy needs both. Give global.platform and global.engines addresses with ports." .) }}{{ end }}
{{- $host := regexReplaceAll ":[0-9]+$" $address "" }}
{{- $port := regexFind "[0-9]+$" $address }}
{{- $labels := splitList "." $host }}
{{- $space := "" }}
{{- if and (gt (len $labels) 1) (or (hasPrefix "isa-" (index $labels 1)) (and (gt (len $labels) 2) (eq (index $labels 2) "svc"))) }}
{{- $space = index $labels 1 }}
{{- end }}
{{- $_ := set $rules (printf "%s %s" $space $port) (dict "space" $space "port" $port) }}
{{- end }}
{{- $ranges := .ranges }}
{{- range $rules }}
- to:
    {{- if .space }}
    - {{ include "isa.namespace" .space }}
    {{- else }}
    {{- range $ranges }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
    {{- end }}
  ports: [{port: {{ .port }}, protocol: TCP}]
{{- end }}
{{- end }}

{{/* Egress to the cluster's DNS: its pods, and the address at which a cache on the node answers. */}}
{{- define "isa.egressDns" -}}
- to:
    - {{ include "isa.namespace" "kube-system" }}
    - ipBlock: {cidr: 169.254.20.10/32}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}
