{{- define "carillon.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The longest that is appended is -publisher-admin. */}}
{{- define "carillon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- else if contains (include "carillon.name" .) .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "carillon.name" .) | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "carillon.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: carillon
{{ include "carillon.selector" . }}
{{- end -}}

{{- define "carillon.selector" -}}
app.kubernetes.io/name: {{ include "carillon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "carillon.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "carillon.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "carillon.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "carillon.secret" -}}
{{- if .Values.secret.existing -}}
{{- .Values.secret.existing -}}
{{- else if .Values.secret.create -}}
{{- include "carillon.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the services use the servers of the dependency. */}}
{{- define "carillon.ownNats" -}}
{{- if and .Values.nats.enabled (not (or .Values.natsClient.url .Values.natsClient.urlKey)) -}}true{{- end -}}
{{- end -}}

{{/* The Service of the dependency, as its chart names it. */}}
{{- define "carillon.natsService" -}}
{{- $nats := .Values.nats -}}
{{- $name := $nats.nameOverride | default "nats" -}}
{{- $own := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- dig "service" "name" "" $nats | default (($nats.fullnameOverride | default $own) | trunc 63 | trimSuffix "-") -}}
{{- end -}}

{{- define "carillon.natsSelector" -}}
app.kubernetes.io/name: {{ .Values.nats.nameOverride | default "nats" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "carillon.natsPort" -}}
{{- if include "carillon.ownNats" . -}}
{{- dig "config" "nats" "port" 4222 .Values.nats -}}
{{- else -}}
{{- .Values.networkPolicy.natsPort -}}
{{- end -}}
{{- end -}}

{{- define "carillon.natsUrl" -}}
{{- .Values.natsClient.url | default (printf "nats://%s:%s" (include "carillon.natsService" .) (include "carillon.natsPort" .)) -}}
{{- end -}}

{{/* What the servers of the dependency would refuse only once they run. */}}
{{- define "carillon.checkNats" -}}
{{- if include "carillon.ownNats" . -}}
{{- if .Values.nats.namespaceOverride -}}
{{- fail "nats.namespaceOverride is not supported: install NATS by itself, and set nats.enabled to false and natsClient.url" -}}
{{- end -}}
{{- $cluster := .Values.nats.config.cluster -}}
{{- $servers := ternary $cluster.replicas 1 $cluster.enabled | int -}}
{{- if gt (int .Values.natsClient.replicas) $servers -}}
{{- fail (printf "natsClient.replicas is %v, and nats.config.cluster has %d: a stream has each copy on a server of its own" .Values.natsClient.replicas $servers) -}}
{{- end -}}
{{- if and (regexMatch `(?m)(^|[{,])\s*storage\s*=\s*["']memory["']` .Values.config) (not (dig "config" "jetstream" "memoryStore" "enabled" false .Values.nats)) -}}
{{- fail "history.storage = \"memory\" needs nats.config.jetstream.memoryStore.enabled with a maxSize" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Text in a ConfigMap can be read by many. A path and a reference to a variable are no secrets. */}}
{{- define "carillon.checkConfig" -}}
{{- if regexMatch `(?m)(^|[{,])\s*(secret|password)\s*=\s*("[^"$]|'[^'$])` .Values.config -}}
{{- fail "config holds a secret in plain text: write \"${NAME}\" there and put NAME into the Secret that `secret` names" -}}
{{- end -}}
{{- if regexMatch `(?m)(^|[{,])\s*key\s*=\s*("[^"$/]|'[^'$/])` .Values.config -}}
{{- fail "config holds an API key in plain text: use key_sha256, or write \"${NAME}\" and put NAME into the Secret that `secret` names" -}}
{{- end -}}
{{- if regexMatch `://[^/\s"'$]+:[^/\s"'$]+@` .Values.config -}}
{{- fail "config holds a password in a URL: write \"${NAME}\" there and put NAME into the Secret that `secret` names" -}}
{{- end -}}
{{- end -}}
