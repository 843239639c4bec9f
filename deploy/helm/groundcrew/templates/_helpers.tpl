{{- define "groundcrew.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "groundcrew.fullname" -}}
{{- $name := include "groundcrew.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "groundcrew.selector" -}}
app.kubernetes.io/name: {{ include "groundcrew.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: daemon
{{- end }}

{{- define "groundcrew.labels" -}}
app.kubernetes.io/name: {{ include "groundcrew.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: groundcrew
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "groundcrew.account" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "groundcrew.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "groundcrew.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "groundcrew.podSecurityContext" -}}
{{- toYaml .Values.podSecurityContext }}
{{- end }}

{{- define "groundcrew.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The namespaces that need the share, as a JSON list without duplicates, the daemon's first. */}}
{{- define "groundcrew.shareNamespaces" -}}
{{- concat (list .Release.Namespace .Values.builds.namespace) .Values.airflowNamespaces | uniq | toJson }}
{{- end }}

{{/* The share as a volume source, the same in every namespace. */}}
{{- define "groundcrew.shareSource" -}}
{{- if .Values.share.volume }}
{{- toJson .Values.share.volume }}
{{- else }}
{{- dict "persistentVolumeClaim" (dict "claimName" .Values.share.claim) | toJson }}
{{- end }}
{{- end }}

{{/* The PriorityClass of the Jobs; "" for the cluster's default. */}}
{{- define "groundcrew.priorityClass" -}}
{{- $class := .Values.builds.priorityClass }}
{{- if $class.name }}
{{- $class.name }}
{{- else if $class.create }}
{{- include "groundcrew.fullname" . }}-builds
{{- end }}
{{- end }}

{{- define "groundcrew.stateClaim" -}}
{{- default (printf "%s-state" (include "groundcrew.fullname" .)) .Values.state.existingClaim }}
{{- end }}

{{/* The settings as groundcrew.toml: the user's, overridden by those that other values imply. */}}
{{- define "groundcrew.settings" -}}
{{- $own := dict
  "share" .Values.share.path
  "state_dir" "/var/lib/groundcrew"
  "secrets_dir" "/etc/groundcrew/secrets"
  "kubernetes" (dict
    "volume" (include "groundcrew.shareSource" . | fromJson)
    "verify_dags" .Values.verifyDags
    "jobs" (dict
      "namespace" .Values.builds.namespace
      "index_port" (int .Values.indexPort)
      "priority_class" (include "groundcrew.priorityClass" .)))
}}
{{- if .Values.kubeconfig.existingSecret }}
{{- $_ := set $own.kubernetes "kubeconfig" "/etc/groundcrew/kubeconfig/config" }}
{{- end }}
{{- /* Helm passes numbers as floats; whole ones are written as integers. */}}
{{- regexReplaceAll "(?m)= (-?[0-9]+)\\.0$" (mergeOverwrite (deepCopy .Values.config) $own | toToml) "= ${1}" }}
{{- end }}

{{/* Fails with a message if values contradict each other. */}}
{{- define "groundcrew.check" -}}
{{- $share := .Values.share }}
{{- if not (dig "git" "url" "" .Values.config) }}
{{- fail "config.git.url is empty: set the address of the environments repo" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.existingSecret) }}
{{- fail "replicas is more than 1, and SQLite is for one daemon: set database.existingSecret to a secret with a PostgreSQL URL" }}
{{- end }}
{{- if gt (int .Values.replicas) 1 }}
{{- range $context, $cluster := dig "kubernetes" "clusters" dict .Values.config }}
{{- if $cluster.index_host }}
{{- fail (printf "config.kubernetes.clusters.%s.index_host is one address, and of %d replicas only the one that leads has the packages of builds: set replicas to 1, or leave index_host out where that cluster's pods reach the daemon's by their own addresses" $context (int $.Values.replicas)) }}
{{- end }}
{{- end }}
{{- if .Values.indexService.enabled }}
{{- fail "indexService leads to every replica, and only the one that leads has the packages of builds: set replicas to 1, or indexService.enabled to false" }}
{{- end }}
{{- end }}
{{- $ways := 0 }}
{{- range list $share.volume $share.persistentVolume $share.storageClass $share.existing }}
{{- if . }}{{ $ways = add1 $ways }}{{ end }}
{{- end }}
{{- if ne (int $ways) 1 }}
{{- fail "share: set exactly one of share.volume, share.persistentVolume, share.storageClass and share.existing" }}
{{- end }}
{{- $spaces := include "groundcrew.shareNamespaces" . | fromJsonArray }}
{{- if and $share.storageClass (gt (len $spaces) 1) }}
{{- fail (printf "share.storageClass makes a claim for one namespace, but %s need the share: use share.persistentVolume or share.volume, or make the claims yourself and set share.existing" (join ", " $spaces)) }}
{{- end }}
{{- if and $share.volume (eq .Values.builds.podSecurity "restricted") (not (or (hasKey $share.volume "csi") (hasKey $share.volume "persistentVolumeClaim"))) }}
{{- fail (printf "share.volume: pods under Pod Security restricted may not name %s directly: use share.persistentVolume, or set builds.podSecurity to baseline" (keys $share.volume | join ", ")) }}
{{- end }}
{{- end }}
