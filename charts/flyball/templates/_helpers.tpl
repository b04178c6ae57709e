{{- define "flyball.adapter" -}}
{{- printf "%s-adapter" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
