{{/* The daemon's rights: each verb here is one that it uses. */}}

{{/* Rights in the namespace of an Airflow release. */}}
{{- define "groundcrew.rulesForAirflow" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [list, watch, patch]
{{- end }}

{{/* Rights in the namespace of the build Jobs. */}}
{{- define "groundcrew.rulesForBuilds" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- end }}

{{/* In the namespace of an Airflow release: for the Jobs that parse its DAGs. */}}
{{- define "groundcrew.rulesForDags" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, delete]
{{- end }}

{{/* A Role and its binding. Takes root, namespace, name and rules (text). */}}
{{- define "groundcrew.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{- include "groundcrew.labels" .root | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{- include "groundcrew.labels" .root | nindent 4 }}
subjects:
  - kind: ServiceAccount
    name: {{ include "groundcrew.account" .root }}
    namespace: {{ .root.Release.Namespace }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
{{- end }}
