{{/* The pod's spec. The argument: {root, job}. */}}
{{- define "defectbench.pod" -}}
{{- $values := .root.Values -}}
restartPolicy: Never
automountServiceAccountToken: false
{{- with $values.serviceAccountName }}
serviceAccountName: {{ . | quote }}
{{- end }}
# A Service called mlflow would otherwise set MLFLOW_PORT.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | int64 }}
securityContext:
  runAsNonRoot: true
  {{- if $values.user }}
  runAsUser: {{ $values.user | int64 }}
  {{- end }}
  {{- if $values.group }}
  runAsGroup: {{ $values.group | int64 }}
  {{- end }}
  {{- if and $values.group (include "defectbench.claims" .root) }}
  fsGroup: {{ $values.group | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: worker
    image: {{ include "defectbench.image" .root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      - job
      - --store
      - {{ include "defectbench.store" .root | quote }}
      {{- range .job.cells }}
      - --cell
      - {{ . | quote }}
      {{- end }}
      {{- range $values.extraArgs }}
      - {{ . | quote }}
      {{- end }}
    env:
      {{- include "defectbench.env" .root | nindent 6 }}
    {{- with $values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $values.stuckSeconds }}
    # The worker ends itself where a fit hangs; this ends one that is paused as a whole.
    livenessProbe:
      exec:
        command: [sh, -c, 'test -n "$(find /tmp/alive -mmin -{{ add 5 (div $values.stuckSeconds 60) }})"']
      initialDelaySeconds: 60
      periodSeconds: 60
      timeoutSeconds: 30
      failureThreshold: 3
    {{- end }}
    resources:
      {{- include "defectbench.resources" . | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      - name: cache
        mountPath: /cache
      - name: shm
        mountPath: /dev/shm
      {{- if and $values.store.volume (include "defectbench.directory" .root) }}
      - name: store
        mountPath: {{ $values.store.mountPath | quote }}
      {{- end }}
      {{- if include "defectbench.credentialsFile" .root }}
      - name: store-credentials
        mountPath: /var/run/defectbench/store
        readOnly: true
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ $values.tmp.sizeLimit }}
  - name: cache
    {{- if $values.cache.volume }}
    {{- toYaml $values.cache.volume | nindent 4 }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ $values.cache.sizeLimit }}
    {{- end }}
  - name: shm # in memory: it counts into the memory limit
    emptyDir:
      medium: Memory
      sizeLimit: {{ .job.resources.shm | default $values.shm }}
  {{- if and $values.store.volume (include "defectbench.directory" .root) }}
  - name: store
    {{- toYaml $values.store.volume | nindent 4 }}
  {{- end }}
  {{- if include "defectbench.credentialsFile" .root }}
  - name: store-credentials # a volume, not variables: keys that are rotated reach a running pod
    secret:
      secretName: {{ $values.store.secret }}
      items:
        - key: {{ $values.store.credentialsKey }}
          path: {{ $values.store.credentialsKey }}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The worker's variables. The argument: the root. */}}
{{- define "defectbench.env" -}}
{{- $store := .Values.store -}}
{{- $tracker := .Values.tracker -}}
{{- $places := dict
  "HOME" "/tmp" "TMPDIR" "/tmp" "XDG_CONFIG_HOME" "/tmp/config" "XDG_CACHE_HOME" "/cache/xdg"
  "DEFECTBENCH_CACHE" "/cache/defectbench"
  "HF_HOME" "/cache/huggingface" "TORCH_HOME" "/cache/torch" "MPLCONFIGDIR" "/cache/matplotlib"
  "TRITON_CACHE_DIR" "/cache/triton" "TORCHINDUCTOR_CACHE_DIR" "/cache/inductor"
  "CUDA_CACHE_PATH" "/cache/cuda" "NUMBA_CACHE_DIR" "/cache/numba" -}}
- name: DEFECTBENCH_CHECKPOINT_SECONDS
  value: {{ .Values.checkpointSeconds | toString | quote }}
- name: DEFECTBENCH_STORE_PATIENCE
  value: {{ .Values.store.patienceSeconds | toString | quote }}
- name: DEFECTBENCH_STUCK_SECONDS
  value: {{ .Values.stuckSeconds | toString | quote }}
- name: DEFECTBENCH_ALIVE_FILE
  value: /tmp/alive
- name: DEFECTBENCH_JOB_UID # by which a new pod knows the lease of the one before
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['batch.kubernetes.io/controller-uid']
- name: DEFECTBENCH_CACHE_BYTES
  value: {{ include "defectbench.cacheBytes" .Values.cache.sizeLimit | quote }}
{{- range $name, $value := $places }}
- name: {{ $name }}
  value: {{ $value }}
{{- end }}
{{- range $name, $value := .Values.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if include "defectbench.s3" . }}
{{- with $store.endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- with $store.region }}
- name: AWS_DEFAULT_REGION
  value: {{ . | quote }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- if and $store.secret $store.credentialsKey }}
- name: AWS_SHARED_CREDENTIALS_FILE
  value: {{ printf "/var/run/defectbench/store/%s" $store.credentialsKey | quote }}
{{- else if $store.secret }}
{{- include "defectbench.secretEnv" (dict "secret" $store.secret "key" "AWS_ACCESS_KEY_ID") }}
{{- include "defectbench.secretEnv" (dict "secret" $store.secret "key" "AWS_SECRET_ACCESS_KEY") }}
{{- include "defectbench.secretEnv" (dict "secret" $store.secret "key" "AWS_SESSION_TOKEN" "optional" true) }}
{{- end }}
{{- end }}
{{- with $tracker.uri }}
- name: MLFLOW_TRACKING_URI
  value: {{ . | quote }}
{{- end }}
{{- if and $tracker.uri $tracker.secret }}
{{- include "defectbench.secretEnv" (dict "secret" $tracker.secret "key" "MLFLOW_TRACKING_USERNAME") }}
{{- include "defectbench.secretEnv" (dict "secret" $tracker.secret "key" "MLFLOW_TRACKING_PASSWORD") }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A variable from a key of the same name in a Secret. The argument: {secret, key, optional}. */}}
{{- define "defectbench.secretEnv" }}
- name: {{ .key }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}

{{/* Requests and limits. The argument: {root, job}. Memory is limited to what is requested. */}}
{{- define "defectbench.resources" -}}
{{- $values := .root.Values -}}
{{- $wanted := .job.resources -}}
requests:
  cpu: {{ $wanted.cpu | toString | quote }}
  memory: {{ $wanted.memory | quote }}
  ephemeral-storage: {{ $values.ephemeralStorage.request | quote }}
  {{- if $wanted.gpu }}
  {{ $values.gpuResource }}: {{ $wanted.gpu | int64 | toString | quote }}
  {{- end }}
limits:
  {{- if $values.cpuLimit }}
  cpu: {{ $wanted.cpu | toString | quote }}
  {{- end }}
  memory: {{ $wanted.memory | quote }}
  {{- with $values.ephemeralStorage.limit }}
  ephemeral-storage: {{ . | quote }}
  {{- end }}
  {{- if $wanted.gpu }}
  {{ $values.gpuResource }}: {{ $wanted.gpu | int64 | toString | quote }}
  {{- end }}
{{- end }}
