{{/*
The pod of a service. Takes a dict: root, component, values (its part of the values), port, grace (seconds), env
(further variables), preStop (seconds), volumes and mounts.
*/}}
{{- define "carillon.pod" -}}
{{- $root := .root -}}
{{- $nats := $root.Values.natsClient -}}
metadata:
  labels:
    {{- include "carillon.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  annotations:
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    checksum/secret: {{ toJson $root.Values.secret | sha256sum }}
    {{- if not .values.keepOnConfigChange }}
    checksum/config: {{ $root.Values.config | sha256sum }}
    {{- end }}
spec:
  serviceAccountName: {{ include "carillon.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- if $root.Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- $spread := $root.Values.topologySpread }}
    {{- range $key := list $spread.topologyKey "kubernetes.io/hostname" }}
    - maxSkew: {{ $spread.maxSkew }}
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $spread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "carillon.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.component }}
    {{- end }}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "carillon.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .component }}, --config, /etc/carillon/config/carillon.toml]
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      ports:
        - name: http
          containerPort: {{ .port }}
        - name: admin
          containerPort: {{ add .port 1000 }}
      env:
        - name: {{ printf "CARILLON_%s__LISTEN" (upper .component) }}
          value: {{ printf "0.0.0.0:%v" .port | quote }}
        - name: NATS_URL
          {{- if $nats.urlKey }}
          valueFrom:
            secretKeyRef: {name: {{ include "carillon.secret" $root }}, key: {{ $nats.urlKey }}}
          {{- else }}
          value: {{ include "carillon.natsUrl" $root | quote }}
          {{- end }}
        - name: CARILLON_NATS__REPLICAS
          value: {{ $nats.replicas | quote }}
        {{- if $nats.credentials.existingSecret }}
        - name: CARILLON_NATS__CREDENTIALS
          value: {{ printf "/etc/carillon/nats-credentials/%s" $nats.credentials.key }}
        {{- end }}
        {{- if $nats.nkey.existingSecret }}
        - name: CARILLON_NATS__NKEY
          value: {{ printf "/etc/carillon/nats-nkey/%s" $nats.nkey.key }}
        {{- end }}
        {{- if $nats.tls.required }}
        - name: CARILLON_NATS__TLS__REQUIRED
          value: "true"
        {{- end }}
        {{- if $nats.tls.caSecret }}
        - name: CARILLON_NATS__TLS__CA
          value: {{ printf "/etc/carillon/nats-ca/%s" $nats.tls.caKey }}
        {{- end }}
        {{- if $nats.tls.clientSecret }}
        - name: CARILLON_NATS__TLS__CERTIFICATE
          value: /etc/carillon/nats-client/tls.crt
        - name: CARILLON_NATS__TLS__KEY
          value: /etc/carillon/nats-client/tls.key
        {{- end }}
        - name: CARILLON_TELEMETRY__LOG
          value: {{ $root.Values.log.level | quote }}
        - name: CARILLON_TELEMETRY__FORMAT
          value: {{ $root.Values.log.format }}
        {{- with $root.Values.otlpEndpoint }}
        - name: CARILLON_TELEMETRY__OTLP_ENDPOINT
          value: {{ . | quote }}
        {{- end }}
        {{- range .env }}
        - name: {{ .name }}
          value: {{ .value | quote }}
        {{- end }}
        {{- with $root.Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with include "carillon.secret" $root }}
      envFrom:
        - secretRef:
            name: {{ . }}
      {{- end }}
      # Alive as long as the process works; restarting it would not bring NATS back.
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 2
        failureThreshold: 30
      {{- if .preStop }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .preStop }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/carillon/config
          readOnly: true
        {{- if $nats.credentials.existingSecret }}
        - name: nats-credentials
          mountPath: /etc/carillon/nats-credentials
          readOnly: true
        {{- end }}
        {{- if $nats.nkey.existingSecret }}
        - name: nats-nkey
          mountPath: /etc/carillon/nats-nkey
          readOnly: true
        {{- end }}
        {{- if $nats.tls.caSecret }}
        - name: nats-ca
          mountPath: /etc/carillon/nats-ca
          readOnly: true
        {{- end }}
        {{- if $nats.tls.clientSecret }}
        - name: nats-client
          mountPath: /etc/carillon/nats-client
          readOnly: true
        {{- end }}
        {{- if .tlsSecret }}
        - name: tls
          mountPath: /etc/carillon/tls
          readOnly: true
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "carillon.fullname" $root }}
    {{- if $nats.credentials.existingSecret }}
    - name: nats-credentials
      secret:
        secretName: {{ $nats.credentials.existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if $nats.nkey.existingSecret }}
    - name: nats-nkey
      secret:
        secretName: {{ $nats.nkey.existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if $nats.tls.caSecret }}
    - name: nats-ca
      secret:
        secretName: {{ $nats.tls.caSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if $nats.tls.clientSecret }}
    - name: nats-client
      secret:
        secretName: {{ $nats.tls.clientSecret }}
        defaultMode: 0440
    {{- end }}
    {{- with .tlsSecret }}
    - name: tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
{{- end -}}

{{/* The Service of a component: the same dict. */}}
{{- define "carillon.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with .values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .values.service.type }}
  # Any pod takes any request.
  sessionAffinity: None
  selector:
    {{- include "carillon.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  ports:
    - name: http
      port: {{ .values.service.port }}
      targetPort: http
      protocol: TCP
{{- end -}}

{{/* A headless Service for scrapes, so that health and metrics are never at the address that clients use. */}}
{{- define "carillon.adminService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .component }}-admin
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    carillon/metrics: "true"
spec:
  clusterIP: None
  # A pod that drains or waits for NATS is scraped too.
  publishNotReadyAddresses: true
  selector:
    {{- include "carillon.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  ports:
    - name: admin
      port: {{ add .port 1000 }}
      targetPort: admin
      protocol: TCP
{{- end -}}

{{- define "carillon.disruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "carillon.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end -}}
{{- end -}}
