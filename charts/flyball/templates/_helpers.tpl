{{- /* The name of a part's objects: (list . "adapter"). */ -}}
{{- define "flyball.name" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s" $root.Release.Name (index . 1) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
