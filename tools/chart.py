"""Writes charts/flyball/templates and deploy/ from the manifests that ``flyball install`` prints: one source.

The manifests are made with placeholders for what a user may choose; the placeholders become template actions.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flyball.adapter import manifests as adapter
from flyball.autoscaler import manifests as autoscaler

ROOT = Path(__file__).parents[1]
_REPLICAS = 987654
_COMMON = {"chart-namespace": "{{ .Release.Namespace }}", "chart-image": "{{ .Values.image }}"}
_CONFIG = "  config.yaml: chart-config"
_DESCRIBED = "- apiGroups:\n  - chart-group\n  resources:\n  - chart-resource\n  verbs:\n  - list\n  - watch\n"
_ACTIONS_DESCRIBED = (
    "{{- range .Values.adapter.described }}\n"
    "- apiGroups:\n  - {{ .group | quote }}\n  resources:\n  - {{ .resource }}\n  verbs:\n  - list\n  - watch\n"
    "{{- end }}\n"
)


def adapter_template() -> str:
    """The adapter's template."""
    chosen = adapter.Installation(
        namespace="chart-namespace",
        name="chart-name",
        image="chart-image",
        replicas=_REPLICAS,
        prometheus_url="http://chart-prometheus-url",
        config="chart-config",
        described=(("chart-group", "chart-resource"),),
        resource_metrics=True,
    )
    actions = {
        _CONFIG: "  config.yaml: |-\n{{ .Values.adapter.config | indent 4 }}",
        _DESCRIBED: _ACTIONS_DESCRIBED,
        "http://chart-prometheus-url": "{{ .Values.adapter.prometheusUrl }}",
    }
    return _template("adapter", adapter.manifests(chosen), actions)


def autoscaler_template() -> str:
    """The autoscaler's template."""
    chosen = autoscaler.Installation("chart-namespace", "chart-name", "chart-image", _REPLICAS)
    return _template("autoscaler", autoscaler.manifests(chosen), {})


def _template(part: str, objects: Sequence[Mapping[str, Any]], actions: Mapping[str, str]) -> str:
    """The objects of one part, which its ``enabled`` switches on; placeholders become actions."""
    own = {"chart-name": f'{{{{ include "flyball.name" (list . "{part}") }}}}'}
    own[str(_REPLICAS)] = f"{{{{ .Values.{part}.replicas }}}}"
    texts = []
    for obj in objects:
        if obj["kind"] in ("Namespace", "CustomResourceDefinition"):
            continue  # helm makes the first, and takes the second from crds/
        text = yaml.safe_dump(obj, sort_keys=False, width=1000)
        for placeholder, action in (_COMMON | own | dict(actions)).items():
            text = text.replace(placeholder, action)
        if obj["kind"] == "APIService" and obj["spec"]["group"] == "metrics.k8s.io":
            text = f"{{{{- if .Values.{part}.resourceMetrics }}}}\n{text}{{{{- end }}}}\n"
        texts.append(text)
    head = (
        f"{{{{- /* Written by tools/chart.py from flyball.{part}.manifests; change it there. */ -}}}}\n"
        f"{{{{- if .Values.{part}.enabled }}}}\n"
    )
    return head + "---\n".join(texts) + "{{- end }}\n"


def _definition(objects: Sequence[Mapping[str, Any]]) -> str:
    found = next(obj for obj in objects if obj["kind"] == "CustomResourceDefinition")
    return _plain([found])


def _plain(objects: Sequence[Mapping[str, Any]]) -> str:
    """The objects as they are; shared parts are written out, since our own loader refuses aliases."""
    return yaml.safe_dump_all(json.loads(json.dumps(objects)), sort_keys=False, width=1000)


FILES = {
    "charts/flyball/templates/adapter.yaml": adapter_template,
    "charts/flyball/templates/autoscaler.yaml": autoscaler_template,
    "charts/flyball/crds/metricrules.yaml": lambda: _definition(adapter.manifests(adapter.Installation())),
    "charts/flyball/crds/governors.yaml": lambda: _definition(autoscaler.manifests(autoscaler.Installation())),
    "deploy/adapter/adapter.yaml": lambda: _plain(adapter.manifests(adapter.Installation())),
    "deploy/autoscaler/autoscaler.yaml": lambda: _plain(autoscaler.manifests(autoscaler.Installation())),
}


if __name__ == "__main__":
    for name, text in FILES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "--check" in sys.argv and path.read_text() != text():
            sys.exit(f"{path} is not what tools/chart.py writes; run it")
        path.write_text(text())
