{{- /* What `admissionPolicy.allow` allows, and what the administrator's own pod templates ask for. */}}
{{- define "finetune-operator.allowedToOperator" -}}
{{- $allow := deepCopy .Values.admissionPolicy.allow }}
{{- range $template := list .Values.trainer.podTemplate .Values.trainer.enforcedPodTemplate }}
{{- $pod := $template.spec | default dict }}
{{- range $field := list "hostNetwork" "hostPID" "hostIPC" "nodeName" }}
{{- if index $pod $field }}{{ $_ := set $allow $field true }}{{ end }}
{{- end }}
{{- if $pod.automountServiceAccountToken }}{{ $_ := set $allow "serviceAccountToken" true }}{{ end }}
{{- with $pod.serviceAccountName }}{{ $_ := set $allow "serviceAccounts" (append $allow.serviceAccounts .) }}{{ end }}
{{- range (($pod.securityContext | default dict).sysctls | default list) }}
{{- $_ := set $allow "sysctls" (append $allow.sysctls .name) }}
{{- end }}
{{- range $volume := $pod.volumes | default list }}
{{- with $volume.hostPath }}{{ $_ := set $allow "hostPaths" (append $allow.hostPaths .path) }}{{ end }}
{{- range (($volume.projected | default dict).sources | default list) }}
{{- if .serviceAccountToken }}{{ $_ := set $allow "serviceAccountToken" true }}{{ end }}
{{- end }}
{{- end }}
{{- range $container := concat ($pod.containers | default list) ($pod.initContainers | default list) }}
{{- $security := $container.securityContext | default dict }}
{{- if or $security.privileged $security.allowPrivilegeEscalation }}{{ $_ := set $allow "privileged" true }}{{ end }}
{{- range (($security.capabilities | default dict).add | default list) }}
{{- $_ := set $allow "capabilities" (append $allow.capabilities .) }}
{{- end }}
{{- range $container.ports | default list }}{{ if .hostPort }}{{ $_ := set $allow "hostPorts" true }}{{ end }}{{ end }}
{{- with $container.image }}{{ $_ := set $allow "images" (append ($allow.images | default list) .) }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $allow }}
{{- end }}

{{- /* Variables and validations of a policy. `pod` is CEL for a PodSpec, `token` what its automountServiceAccountToken
is when it says nothing, `allow` and `images` what is allowed. What a podTemplate holds has no schema, so each field is
looked for with `.?`; what is not of the type that a pod has there is refused, because the expression fails. */}}
{{- define "finetune-operator.podFence" -}}
{{- $allow := .allow }}
variables:
- name: pod
  expression: {{ .pod | quote }}
- name: containers
  expression: >-
    (variables.pod.?containers.orValue(null) == null ? [] : variables.pod.containers)
    + (variables.pod.?initContainers.orValue(null) == null ? [] : variables.pod.initContainers)
    + (variables.pod.?ephemeralContainers.orValue(null) == null ? [] : variables.pod.ephemeralContainers)
- name: volumes
  expression: "variables.pod.?volumes.orValue(null) == null ? [] : variables.pod.volumes"
- name: contexts
  expression: >-
    [variables.pod.?securityContext.orValue(null)].filter(s, s != null)
    + variables.containers.map(c, c.?securityContext.orValue(null)).filter(s, s != null)
validations:
{{- range $field := list "hostNetwork" "hostPID" "hostIPC" }}
{{- if not (index $allow $field) }}
- expression: "variables.pod.?{{ $field }}.orValue(false) != true"
  reason: Forbidden
  message: "a pod must not share its node's namespaces: remove podTemplate.spec.{{ $field }} (the administrator can allow it: admissionPolicy.allow.{{ $field }})"
{{- end }}
{{- end }}
- expression: >-
    variables.volumes.all(v, v.?hostPath.orValue(null) == null || {{ toJson (uniq $allow.hostPaths) }}.exists(p,
    v.hostPath.path == p || v.hostPath.path.startsWith(p.endsWith("/") ? p : p + "/")))
  reason: Forbidden
  message: "a pod must not mount its node's files: use a PersistentVolumeClaim in place of podTemplate.spec.volumes[].hostPath (the administrator can allow paths: admissionPolicy.allow.hostPaths)"
{{- if not $allow.privileged }}
- expression: >-
    variables.contexts.all(s, s.?privileged.orValue(false) != true && s.?allowPrivilegeEscalation.orValue(false) != true
    && s.?windowsOptions.?hostProcess.orValue(false) != true)
  reason: Forbidden
  message: "a container must not be privileged, become so, or be the host's process: remove privileged, allowPrivilegeEscalation and hostProcess from podTemplate (the administrator can allow it: admissionPolicy.allow.privileged)"
- expression: >-
    variables.contexts.all(s, s.?procMount.orValue("Default") == "Default"
    && s.?seccompProfile.?type.orValue("") != "Unconfined" && s.?appArmorProfile.?type.orValue("") != "Unconfined"
    && s.?seLinuxOptions.?type.orValue("") in ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"]
    && s.?seLinuxOptions.?user.orValue("") == "" && s.?seLinuxOptions.?role.orValue("") == "")
  reason: Forbidden
  message: "a container must keep the runtime's confinement: remove procMount, seccompProfile, appArmorProfile and seLinuxOptions from podTemplate (the administrator can allow it: admissionPolicy.allow.privileged)"
{{- end }}
- expression: >-
    variables.contexts.all(s, s.?capabilities.?add.orValue(null) == null
    || s.capabilities.add.all(c, c in {{ toJson (uniq $allow.capabilities) }}))
  reason: Forbidden
  message: "a container must not add capabilities: remove securityContext.capabilities.add from podTemplate (the administrator can allow some: admissionPolicy.allow.capabilities)"
- expression: >-
    [variables.pod.?serviceAccountName.orValue(""), variables.pod.?serviceAccount.orValue("")].all(a,
    a == null || a in {{ toJson (uniq (concat (list "" "default") $allow.serviceAccounts)) }})
  reason: Forbidden
  message: "training needs no service account: remove podTemplate.spec.serviceAccountName (the administrator can allow some: admissionPolicy.allow.serviceAccounts)"
{{- if not $allow.serviceAccountToken }}
- expression: >-
    variables.pod.?automountServiceAccountToken.orValue({{ .token }}) == false && variables.volumes.all(v,
    v.?projected.?sources.orValue(null) == null || v.projected.sources.all(s, !has(s.serviceAccountToken)))
  reason: Forbidden
  message: "training needs no token of the API server: remove automountServiceAccountToken and projected serviceAccountToken from podTemplate (the administrator can allow it: admissionPolicy.allow.serviceAccountToken)"
{{- end }}
{{- if not $allow.hostPorts }}
- expression: >-
    variables.containers.all(c, c.?ports.orValue(null) == null || c.ports.all(p, p.?hostPort.orValue(0) == 0))
  reason: Forbidden
  message: "a pod must not take ports of its node: remove hostPort from podTemplate (the administrator can allow it: admissionPolicy.allow.hostPorts)"
{{- end }}
{{- if not $allow.nodeName }}
- expression: "variables.pod.?nodeName.orValue(\"\") == \"\""
  reason: Forbidden
  message: "a pod must not pass by the scheduler: use nodeSelector in place of podTemplate.spec.nodeName (the administrator can allow it: admissionPolicy.allow.nodeName)"
{{- end }}
- expression: >-
    variables.pod.?securityContext.?sysctls.orValue(null) == null
    || variables.pod.securityContext.sysctls.all(s, s.name in {{ toJson (uniq $allow.sysctls) }})
  reason: Forbidden
  message: "a pod must not set kernel parameters: remove podTemplate.spec.securityContext.sysctls (the administrator can allow some: admissionPolicy.allow.sysctls)"
{{- with .images }}
- expression: >-
    (variables.containers.filter(c, c.?image.orValue(null) != null).map(c, c.image)
    + variables.volumes.filter(v, v.?image.?reference.orValue(null) != null).map(v, v.image.reference)).all(i,
    {{ toJson (uniq .) }}.exists(p, i == p || i.startsWith(p.endsWith("/") ? p : p + "/") || i.startsWith(p + ":")
    || i.startsWith(p + "@")))
  reason: Forbidden
  message: {{ printf "images must begin with one of %s: change image in podTemplate (the administrator's list: admissionPolicy.allowedImages)" (join ", " (uniq .)) | quote }}
{{- end }}
{{- end }}
