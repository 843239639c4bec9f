{{/* The secrets to mount, as a JSON list of {volume, name, path, items}. */}}
{{- define "groundcrew.secrets" -}}
{{- $found := list }}
{{- range $part := list "git" "slack" "hooks" "api" "forge" }}
{{- with get $.Values.secrets $part }}
{{- $found = append $found (dict "volume" (printf "secret-%s" $part) "name" . "path" (printf "/etc/groundcrew/secrets/%s" $part)) }}
{{- end }}
{{- end }}
{{- range $team, $names := .Values.secrets.teams }}
{{- range $name, $secret := $names }}
{{- $path := printf "%s/%s" $team $name }}
{{- $found = append $found (dict "volume" (printf "team-%s" ($path | sha256sum | trunc 12)) "name" $secret "path" (printf "/etc/groundcrew/secrets/%s" $path)) }}
{{- end }}
{{- end }}
{{- with .Values.kubeconfig }}
{{- if .existingSecret }}
{{- $found = append $found (dict "volume" "kubeconfig" "name" .existingSecret "path" "/etc/groundcrew/kubeconfig" "items" (list (dict "key" .key "path" "config"))) }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}
