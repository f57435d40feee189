{{- /* Name, namespace, labels and, where it is not the release's own, the wave. Takes {root, name, wave}. */}}
{{- define "dapr-resources.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "isa.labels" (dict "root" .root "name" .name "component" "dapr-resources") | nindent 2 }}
{{- with .wave }}
annotations: {{- include "isa.wave" . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Every app of the set: what all of them need is theirs by name, as an empty scope would mean everybody. */}}
{{- define "dapr-resources.everybody" -}}
{{- keys .Values.dapr.apps | sortAlpha | toJson }}
{{- end }}

{{- /* Where Kafka is and how a sidecar logs in, as metadata of a component. */}}
{{- define "dapr-resources.kafka" -}}
{{- $kafka := .Values.global.kafka }}
{{- $platform := .Values.global.platform -}}
- name: brokers
  value: {{ required "global.platform.kafkaBrokers is missing: where Kafka is." $platform.kafkaBrokers | quote }}
{{- if eq $kafka.auth "none" }}
- name: authType
  value: none
{{- else if eq $kafka.auth "aws-iam" }}
- name: authType
  value: awsiam
- name: region
  value: {{ required "global.platform.region is missing: whose IAM signs for MSK." $platform.region | quote }}
{{- else }}
- name: authType
  value: password
{{- if eq $kafka.auth "scram" }}
- name: saslMechanism
  value: SHA-512
- name: saslUsername # charts/messaging makes a user a service
  value: "{appID}"
- name: saslPassword # the pod's own, by dapr.io/env-from-secret: a component has one secret for all its apps
  envRef: KAFKA_PASSWORD
- name: caCert # Strimzi's own authority
  secretKeyRef:
    name: kafka-ca
    key: kafka-ca
{{- else }}
- name: saslMechanism # PLAIN inside TLS, in Dapr's spelling: it has no source of tokens for the identities of Google and Azure
  value: PLAINTEXT
- name: saslUsername
  value: {{ required "global.platform.kafkaUsername is missing: as whom Kafka knows us." $platform.kafkaUsername | quote }}
- name: saslPassword
  secretKeyRef:
    name: kafka-password
    key: kafka-password
{{- end }}
{{- end }}
{{- if eq $kafka.auth "event-hubs" }}
- name: version # with Dapr's default of 2.0 Event Hubs refuses the login
  value: 1.0.0
{{- end }}
{{- end }}

{{- /*
An entry of a store as a Secret: {root, store, name, from, property, as, template}. With nothing else said, the Secret has one key, of
its own name, which is what Dapr's secret store hands to apps. An entry that vanishes by mistake takes no running service down.
What the API server would fill in is said, so that nothing differs.
*/}}
{{- define "dapr-resources.external-secret" }}
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {{- include "dapr-resources.metadata" (dict "root" .root "name" .name "wave" "-19") | nindent 2 }}
spec:
  refreshInterval: 1h0m0s
  secretStoreRef:
    kind: SecretStore
    name: {{ .store }}
  target:
    name: {{ .name }}
    creationPolicy: Owner
    deletionPolicy: Retain
    {{- with .template }}
    template:
      engineVersion: v2
      mergePolicy: Replace
      data:
        {{ $.name }}: {{ . | quote }}
    {{- end }}
  data:
    - secretKey: {{ .as | default .name }}
      remoteRef:
        key: {{ .from }}
        {{- with .property }}
        property: {{ . }}
        {{- end }}
        conversionStrategy: Default
        decodingStrategy: None
        metadataPolicy: None
{{- end }}
