"""Writes charts/flyball/templates and deploy/adapter from the manifests that ``flyball install`` prints: one source.

The manifests are made with placeholders for what a user may choose; the placeholders become template actions.
"""

import sys
from pathlib import Path

import yaml

from flyball.adapter.manifests import Installation, manifests

ROOT = Path(__file__).parents[1]
_REPLICAS = 987654

_ACTIONS = {
    "chart-namespace": "{{ .Release.Namespace }}",
    "chart-name": '{{ include "flyball.adapter" . }}',
    "chart-image": "{{ .Values.image }}",
    "http://chart-prometheus-url": "{{ .Values.adapter.prometheusUrl }}",
    str(_REPLICAS): "{{ .Values.adapter.replicas }}",
}
_CONFIG = "  config.yaml: chart-config"
_DESCRIBED = "- apiGroups:\n  - chart-group\n  resources:\n  - chart-resource\n  verbs:\n  - list\n  - watch\n"
_HEAD = (
    "{{- /* Written by tools/chart.py from flyball.adapter.manifests; change it there. */ -}}\n"
    "{{- if .Values.adapter.enabled }}\n"
)


def template() -> str:
    """The adapter's template."""
    chosen = Installation(
        namespace="chart-namespace",
        name="chart-name",
        image="chart-image",
        replicas=_REPLICAS,
        prometheus_url="http://chart-prometheus-url",
        config="chart-config",
        described=(("chart-group", "chart-resource"),),
        resource_metrics=True,
    )
    parts = []
    for obj in manifests(chosen):
        if obj["kind"] in ("Namespace", "CustomResourceDefinition"):
            continue  # helm makes the first, and takes the second from crds/
        text = yaml.safe_dump(obj, sort_keys=False, width=1000)
        text = text.replace(_CONFIG, "  config.yaml: |-\n{{ .Values.adapter.config | indent 4 }}")
        text = text.replace(_DESCRIBED, _ACTIONS_DESCRIBED)
        for placeholder, action in _ACTIONS.items():
            text = text.replace(placeholder, action)
        if obj["kind"] == "APIService" and obj["spec"]["group"] == "metrics.k8s.io":
            text = "{{- if .Values.adapter.resourceMetrics }}\n" + text + "{{- end }}\n"
        parts.append(text)
    return _HEAD + "---\n".join(parts) + "{{- end }}\n"


_ACTIONS_DESCRIBED = (
    "{{- range .Values.adapter.described }}\n"
    "- apiGroups:\n  - {{ .group | quote }}\n  resources:\n  - {{ .resource }}\n  verbs:\n  - list\n  - watch\n"
    "{{- end }}\n"
)


def definition() -> str:
    """The CustomResourceDefinition of MetricRules."""
    found = next(obj for obj in manifests(Installation()) if obj["kind"] == "CustomResourceDefinition")
    return yaml.safe_dump(found, sort_keys=False, width=1000)


def plain() -> str:
    """The manifests as they are, a base for kustomize."""
    return yaml.safe_dump_all(manifests(Installation()), sort_keys=False, width=1000)


FILES = {
    "charts/flyball/templates/adapter.yaml": template,
    "charts/flyball/crds/metricrules.yaml": definition,
    "deploy/adapter/adapter.yaml": plain,
}


if __name__ == "__main__":
    for name, text in FILES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "--check" in sys.argv and path.read_text() != text():
            sys.exit(f"{path} is not what tools/chart.py writes; run it")
        path.write_text(text())
