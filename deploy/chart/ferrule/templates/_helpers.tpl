{{- define "ferrule.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "ferrule.fullname" -}}
{{- $name := include "ferrule.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ferrule.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ferrule.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "ferrule.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "ferrule.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ferrule.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of pods: without what changes although the pod does not. */}}
{{- define "ferrule.podLabels" -}}
{{ include "ferrule.selectorLabels" . }}
app.kubernetes.io/component: network
app.kubernetes.io/part-of: ferrule
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "ferrule.labels" -}}
{{ include "ferrule.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (replace "+" "_" .Chart.Version) }}
{{- end -}}

{{/*
An object of deploy/ with the names, the namespace and the labels of this release. {root, object}: changes object.
*/}}
{{- define "ferrule.adopt" -}}
{{- $metadata := .object.metadata -}}
{{- $_ := set $metadata "name" (regexReplaceAll "^ferrule" $metadata.name (include "ferrule.fullname" .root)) -}}
{{- $clusterWide := list "ClusterRole" "ClusterRoleBinding" "FlowSchema" "PriorityLevelConfiguration"
    "ValidatingAdmissionPolicy" "ValidatingAdmissionPolicyBinding" -}}
{{- if not (has .object.kind $clusterWide) -}}
{{- $_ := set $metadata "namespace" .root.Release.Namespace -}}
{{- end -}}
{{- $labels := include "ferrule.labels" .root | fromYaml -}}
{{- $_ := set $metadata "labels" (merge $labels (deepCopy .root.Values.commonLabels)) -}}
{{- end -}}

{{/* The DaemonSet of deploy/base with the values in their places. {root, object}: changes object. */}}
{{- define "ferrule.daemonset" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $spec := .object.spec -}}
{{- $_ := set $spec.selector "matchLabels" (include "ferrule.selectorLabels" $root | fromYaml) -}}
{{/* helm adds the default's rollingUpdate to what the user says, and Kubernetes refuses it with OnDelete. */}}
{{- $strategy := deepCopy $values.updateStrategy -}}
{{- if eq (default "" $strategy.type) "OnDelete" -}}
{{- $strategy = omit $strategy "rollingUpdate" -}}
{{- end -}}
{{- $_ := set $spec "updateStrategy" $strategy -}}

{{- $metadata := $spec.template.metadata -}}
{{- $own := include "ferrule.podLabels" $root | fromYaml -}}
{{- $_ := set $metadata "labels" (merge $own (deepCopy $values.podLabels) (deepCopy $values.commonLabels)) -}}
{{- $annotations := deepCopy $values.podAnnotations -}}
{{- if $values.settings -}}
{{- $_ := set $annotations "checksum/settings" (include "ferrule.settings" $root | sha256sum) -}}
{{- end -}}
{{- if $annotations -}}
{{- $_ := set $metadata "annotations" $annotations -}}
{{- end -}}

{{- $pod := $spec.template.spec -}}
{{- $_ := set $pod "serviceAccountName" (include "ferrule.serviceAccountName" $root) -}}
{{- range $key := list "priorityClassName" "nodeSelector" "tolerations" "affinity" "imagePullSecrets" -}}
{{- $value := get $values $key -}}
{{- if $value -}}
{{- $_ := set $pod $key $value -}}
{{- else -}}
{{- $_ := unset $pod $key -}}
{{- end -}}
{{- end -}}
{{- range $volume := $pod.volumes -}}
{{- $path := get $values.hostPaths $volume.name -}}
{{- if $path -}}
{{- $_ := set $volume.hostPath "path" $path -}}
{{- end -}}
{{- end -}}

{{- $container := first $pod.containers -}}
{{- $_ := set $container "image" (include "ferrule.image" $root) -}}
{{- $_ := set $container "imagePullPolicy" $values.image.pullPolicy -}}
{{- $_ := set $container "resources" $values.resources -}}
{{- range $source := $container.envFrom -}}
{{- $_ := set $source.configMapRef "name" (include "ferrule.fullname" $root) -}}
{{- end -}}
{{- $dropIns := dict "env" list "volumeMounts" list "volumes" list -}}
{{- if $values.dropIns.enabled -}}
{{- $dropIns = .dropIns -}}
{{- end -}}
{{- $_ := set $container "envFrom" (concat $container.envFrom $values.extraEnvFrom) -}}
{{- $_ := set $container "env" (concat $container.env $dropIns.env $values.extraEnv) -}}
{{- $_ := set $container "volumeMounts" (concat $container.volumeMounts $dropIns.volumeMounts $values.extraVolumeMounts) -}}
{{- $_ := set $pod "volumes" (concat $pod.volumes $dropIns.volumes $values.extraVolumes) -}}
{{- if $values.extraArgs -}}
{{- $_ := set $container "args" (concat (default list $container.args) $values.extraArgs) -}}
{{- end -}}
{{- end -}}

{{/* Numbers as they were written: 10000000 would be 1e+07. */}}
{{- define "ferrule.settings" -}}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ if kindIs "float64" $value }}{{ $value | int64 | toString | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end -}}
