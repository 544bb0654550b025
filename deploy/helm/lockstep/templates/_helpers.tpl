{{- define "lockstep.fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- /* Pods add an ordinal and Services a word; a name has 63 characters at most. */ -}}
{{- $name | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{- define "lockstep.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lockstep.labels" -}}
{{ include "lockstep.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "lockstep.peers" -}}
{{ include "lockstep.fullname" . }}-peers
{{- end }}

{{- define "lockstep.joinSecret" -}}
{{ .Values.fleet.joinToken.existingSecret | default (printf "%s-join" (include "lockstep.fullname" .)) }}
{{- end }}

{{- /* Names under which pods are known whatever address they have, without the pod's own. */ -}}
{{- define "lockstep.domain" -}}
{{ include "lockstep.peers" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}
