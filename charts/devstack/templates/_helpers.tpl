{{- define "devstack.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "devstack.selector" -}}
app.kubernetes.io/name: {{ .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "devstack.labels" -}}
{{ include "devstack.selector" . }}
app.kubernetes.io/part-of: defectbench-devstack
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "devstack.secret" -}}
{{- .Values.s3.existingSecret | default .Values.s3.secretName -}}
{{- end }}

{{- define "devstack.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{/* What both pods have in common, up to their containers. */}}
{{- define "devstack.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.user }}
  runAsGroup: {{ .Values.user }}
  fsGroup: {{ .Values.user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" }}
{{- with index $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "devstack.locked" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* The volume of a part: a claim, or what goes with the pod. */}}
{{- define "devstack.data" -}}
- name: data
{{- if .persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ .persistence.existingClaim | default .name }}
{{- else }}
  emptyDir: {sizeLimit: {{ .persistence.size }}}
{{- end }}
{{- end }}

{{- define "devstack.claim" -}}
{{- if and .persistence.enabled (not .persistence.existingClaim) }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  labels:
    {{- include "devstack.labels" . | nindent 4 }}
  # `helm uninstall` must not take the results along.
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .persistence.size }}
{{- end }}
{{- end }}

{{- define "devstack.service" -}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels:
    {{- include "devstack.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "devstack.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http}
{{- end }}

{{- define "devstack.metadata" -}}
metadata:
  labels:
    {{- include "devstack.labels" . | nindent 4 }}
    {{- with .root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The names that MLflow answers to, each with and without its port: naming any replaces MLflow's own list. */}}
{{- define "devstack.hosts" -}}
{{- $hosts := list "localhost" "127.0.0.1" .name -}}
{{- $space := .root.Release.Namespace -}}
{{- range list "" ".svc" ".svc.cluster.local" -}}
{{- $hosts = append $hosts (printf "%s.%s%s" $.name $space .) -}}
{{- end -}}
{{- range .root.Values.mlflow.allowedHosts -}}
{{- $hosts = append $hosts . -}}
{{- end -}}
{{- $all := list -}}
{{- range $hosts -}}
{{- $all = append (append $all .) (printf "%s:*" .) -}}
{{- end -}}
{{- join "," $all -}}
{{- end }}

{{/* The addresses of its page at those names: elsewhere MLflow refuses what the page itself asks for. */}}
{{- define "devstack.origins" -}}
{{- $all := list -}}
{{- range splitList "," (include "devstack.hosts" .) -}}
{{- $all = append (append $all (printf "http://%s" .)) (printf "https://%s" .) -}}
{{- end -}}
{{- join "," $all -}}
{{- end }}
