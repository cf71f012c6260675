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

{{/* The Service of the dependency, as its chart names it. */}}
{{- define "carillon.natsService" -}}
{{- $nats := .Values.nats -}}
{{- $name := $nats.nameOverride | default "nats" -}}
{{- $own := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- ($nats.fullnameOverride | default $own) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "carillon.natsUrl" -}}
{{- .Values.natsClient.url | default (printf "nats://%s:%v" (include "carillon.natsService" .) .Values.networkPolicy.natsPort) -}}
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
