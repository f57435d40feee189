{{/*
What the chosen gateway does before a request reaches the service: so many a second from one address, and for protected paths a token
that `users` signed. Each gateway has its own objects for it; a route names them by a filter (APISIX, Traefik, NGINX's tokens) or an
annotation (Kong), or they name the route (NGINX's rates). Every room checks tokens itself, whatever the gateway does.
*/}}

{{/* Where `users` tells its keys, inside the cluster. */}}
{{- define "service.users" -}}
http://users.{{ .Release.Namespace }}.svc:8001/.well-known
{{- end }}

{{- define "service.checksTokens" -}}
{{- if and .root.Values.gateway.jwt (eq .kind "protected") }}yes{{ end }}
{{- end }}

{{- define "service.routeAnnotations" -}}
{{- if eq .root.Values.global.gateway "kong" -}}
{{- $name := .root.Values.service.name }}
konghq.com/plugins: {{ $name }}-rate{{ if include "service.checksTokens" . }},{{ $name }}-jwt{{ end }}
{{- end }}
{{- end }}

{{- define "service.routeFilters" -}}
{{- $name := .root.Values.service.name }}
{{- $checksTokens := include "service.checksTokens" . }}
{{- if eq .root.Values.global.gateway "apisix" -}}
filters:
  - type: ExtensionRef
    extensionRef: {group: apisix.apache.org, kind: PluginConfig, name: {{ $name }}-{{ ternary "protected" "open" (eq $checksTokens "yes") }}}
{{- else if eq .root.Values.global.gateway "traefik" -}}
filters:
  - type: ExtensionRef
    extensionRef: {group: traefik.io, kind: Middleware, name: {{ $name }}-rate}
  {{- if $checksTokens }}
  - type: ExtensionRef
    extensionRef: {group: traefik.io, kind: Middleware, name: {{ $name }}-jwt}
  {{- end }}
{{- else if and (eq .root.Values.global.gateway "nginx") $checksTokens -}}
filters:
  - type: ExtensionRef
    extensionRef: {group: gateway.nginx.org, kind: AuthenticationFilter, name: {{ $name }}-jwt}
{{- end }}
{{- end }}
