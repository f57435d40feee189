{{/* Rules between values, which a schema cannot say. Each message names what to change. */}}
{{- define "service.checks" -}}
{{- $s := .Values.scaling }}
{{- $name := .Values.service.name }}
{{- $min := include "service.minReplicas" . | int }}
{{- $partitions := include "service.partitions" . | int }}
{{- if eq $s.class "consumer" }}
{{- if not .Values.service.consumes }}
{{- fail (printf "%s consumes no topic: set scaling.class to http in charts/values/%s.yaml." $name $name) }}
{{- end }}
{{- if gt (int $s.maxReplicas) $partitions }}
{{- fail (printf "%s: scaling.maxReplicas %d is more than the %d partitions of its topics, so replicas would stand idle. Lower it to %d in charts/values/%s.yaml, or raise `partitions` in schemas/avro/topics.yaml and run `make generate`." $name (int $s.maxReplicas) $partitions $partitions $name) }}
{{- end }}
{{- if $s.metrics }}
{{- fail (printf "%s: scaling.metrics are the autoscaler's of class http; KEDA makes its own for class consumer. Remove them from charts/values/%s.yaml." $name $name) }}
{{- end }}
{{- end }}
{{- if and (ne $s.class "fixed") (gt $min (int $s.maxReplicas)) }}
{{- fail (printf "%s: %d replicas at least are more than scaling.maxReplicas %d. Lower scaling.minReplicas (or global.minReplicas in charts/envs/%s/environment.yaml), or raise scaling.maxReplicas." $name $min (int $s.maxReplicas) .Values.global.environment) }}
{{- end }}
{{- $d := .Values.shutdown }}
{{- $own := get $d .Values.service.protocol }}
{{- $sum := add $own.preStop $d.drain $own.sidecarWaits $d.sidecarDrains | int }}
{{- if lt (int $d.grace) $sum }}
{{- fail (printf "%s: shutdown.grace %d s is less than the %d s that stopping takes (preStop %d + drain %d + sidecarWaits %d + sidecarDrains %d): Kubernetes would kill it in the middle. Raise shutdown.grace to %d." $name (int $d.grace) $sum (int $own.preStop) (int $d.drain) (int $own.sidecarWaits) (int $d.sidecarDrains) $sum) }}
{{- end }}
{{- if .Values.rollout.enabled }}
{{- if or (ne $s.class "http") (not .Values.edge.protected) }}
{{- fail (printf "%s: a canary weighs requests at the edge. It needs scaling.class http and paths in edge.protected; a consumer's records cannot be weighed. Set rollout.enabled to false." $name) }}
{{- end }}
{{- end }}
{{- if eq .Values.image.tag "latest" }}
{{- fail (printf "%s: image.tag latest is another image tomorrow, and nobody can go back to it. Name a version in charts/envs/%s/image-tags/%s.yaml." $name .Values.global.environment $name) }}
{{- end }}
{{- if and (eq .Values.global.environment "prod") (not (regexMatch "^v?[0-9]+\\.[0-9]+\\.[0-9]+" .Values.image.tag)) (not .Values.image.digest) }}
{{- fail (printf "%s: production runs a released version. Set image.tag to one (1.2.3), or image.digest, in charts/envs/prod/image-tags/%s.yaml; it is %q." $name $name .Values.image.tag) }}
{{- end }}
{{- if and (include "service.isAtEdge" .) (not .Values.gateway.className) }}
{{- fail (printf "%s is reached from outside, but no gateway is chosen: add `-f charts/gateways/<gateway>.yaml`." $name) }}
{{- end }}
{{- end }}
