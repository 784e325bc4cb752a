{{/* The image: by digest where one is given, else by tag, else the chart's appVersion. */}}
{{- define "defectbench.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* "true" where the store is S3. */}}
{{- define "defectbench.s3" -}}
{{- if hasPrefix "s3://" (lower .Values.store.url) }}true{{ end -}}
{{- end }}

{{/* "true" where the store is a directory: no URL, or a file's. */}}
{{- define "defectbench.directory" -}}
{{- if or (hasPrefix "file:" (lower .Values.store.url)) (not (contains "://" .Values.store.url)) }}true{{ end -}}
{{- end }}

{{/* "true" where the store's credentials are a mounted file. */}}
{{- define "defectbench.credentialsFile" -}}
{{- if and (include "defectbench.s3" .) .Values.store.secret .Values.store.credentialsKey }}true{{ end -}}
{{- end }}

{{/* What pods call the store: a directory store on a volume lies where the volume is mounted. */}}
{{- define "defectbench.store" -}}
{{- if and .Values.store.volume (include "defectbench.directory" .) -}}
{{ .Values.store.mountPath }}
{{- else -}}
{{ .Values.store.url }}
{{- end -}}
{{- end }}

{{/* "true" where a volume is mounted that outlives a container and may belong to somebody else. */}}
{{- define "defectbench.claims" -}}
{{- $found := or .Values.cache.volume (and .Values.store.volume (include "defectbench.directory" .)) -}}
{{- range .Values.extraVolumes -}}
{{- if or .persistentVolumeClaim .ephemeral .csi }}{{ $found = true }}{{ end -}}
{{- end -}}
{{- if $found }}true{{ end -}}
{{- end }}

{{/* Seconds of a time such as 7d. */}}
{{- define "defectbench.seconds" -}}
{{- $units := dict "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[smhd]$" .)) -}}
{{- end }}

{{/* Four fifths of an amount such as 25Gi, in bytes. */}}
{{- define "defectbench.cacheBytes" -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- div (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[MGT]i$" .)) 4) 5 -}}
{{- end }}

{{/* Labels that select a sweep's Jobs and pods. The argument: {root, job}. */}}
{{- define "defectbench.labels" -}}
app.kubernetes.io/name: defectbench
app.kubernetes.io/instance: {{ .root.Values.sweep | quote }}
app.kubernetes.io/component: worker
app.kubernetes.io/managed-by: defectbench
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
defectbench.dev/sweep: {{ .root.Values.sweep | quote }}
defectbench.dev/model: {{ .job.model | quote }}
defectbench.dev/category: {{ .job.category | quote }}
{{- if eq (len .job.cells) 1 }}
defectbench.dev/cell: {{ first .job.cells | quote }}
{{- end }}
{{- end }}

{{/* What retries, what fails at once. The codes are those of errors.PERMANENT; a test keeps them equal. */}}
{{- define "defectbench.podFailurePolicy" -}}
rules:
  - action: Ignore # drained, pre-empted, its node gone
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
  - action: Ignore # the store was away (74), or stopped by SIGTERM after a checkpoint (143)
    onExitCodes:
      containerName: worker
      operator: In
      values: [74, 143]
  - action: FailJob # a second try cannot mend these
    onExitCodes:
      containerName: worker
      operator: In
      values: [64, 65, 66, 69, 70, 77, 78, 124]
{{- end }}
