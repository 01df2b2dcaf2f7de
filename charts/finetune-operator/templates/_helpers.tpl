{{- define "finetune-operator.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "finetune-operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "finetune-operator.name" .) }}
{{- end }}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: controller
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "finetune-operator.rules" -}}
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs, finetunetemplates]
  verbs: [get, list, watch]
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs/status]
  verbs: [patch]
# Owner references that block deletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [finetune-operator.io]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# A gang in a queue keeps its Job, and with it its quota, when it restarts: its pods are deleted.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch{{ if .Values.kueue.enabled }}, delete{{ end }}]
# Progress of pods whose address the operator cannot reach goes through the API server.
- apiGroups: [""]
  resources: [pods/proxy]
  verbs: [get]
# What is made is never changed, and goes with its owner.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create]
- apiGroups: [""]
  resources: [services, persistentvolumeclaims]
  verbs: [get, create]
# Events of pods and Jobs say what quota, admission or volumes hold up; its own are counted up when repeated.
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- if .Values.rbac.readSecrets }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
{{- end }}
