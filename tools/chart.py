"""Writes charts/flyball/templates and deploy/ from the manifests that ``flyball install`` prints: one source.

The manifests are made with placeholders for what a user may choose; the placeholders become template actions.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flyball import agentmanifests as agent
from flyball import servermanifests as server
from flyball.adapter import manifests as adapter
from flyball.alerting import manifests as alertmanager
from flyball.autoscaler import manifests as autoscaler
from flyball.exporters import manifests as exporters
from flyball.kube.manifests import written
from flyball.operator import manifests as operator

ROOT = Path(__file__).parents[1]
_OF_NODES = (
    "- apiGroups:\n  - ''\n  resources:\n  - nodes\n  verbs:\n  - list\n  - watch\n"
    "- apiGroups:\n  - ''\n  resources:\n  - nodes/metrics\n  verbs:\n  - get\n"
)
_WRITE = (
    '{{ if .Values.server.enabled }}http://{{ include "flyball.name" (list . "server") }}.{{ .Release.Namespace }}'
    ".svc:9090{{ else }}http://prometheus-k8s.monitoring.svc:9090{{ end }}/api/v1/write"
)
Objects = Sequence[Mapping[str, Any]]
_REPLICAS = 987654
#: Of every part.
_COMMON: Mapping[str, Any] = {
    "name": "chart-name",
    "namespace": "chart-namespace",
    "image": "chart-image",
    "arguments": ("chart-arguments",),
}
_REPLICATED = {**_COMMON, "replicas": _REPLICAS}
_DESCRIBED = "- apiGroups:\n  - chart-group\n  resources:\n  - chart-resource\n  verbs:\n  - list\n  - watch\n"
_ACTIONS_DESCRIBED = (
    "{{- range .Values.adapter.described }}\n"
    "- apiGroups:\n  - {{ .group | quote }}\n  resources:\n  - {{ .resource }}\n  verbs:\n  - list\n  - watch\n"
    "{{- end }}\n"
)
_TARGETS = (
    "{{ range $number := until (int .Values.alertmanager.replicas) }}{{ if $number }}, {{ end }}"
    '"{{ include "flyball.name" (list $ "alertmanager") }}-{{ $number }}.'
    '{{ include "flyball.name" (list $ "alertmanager") }}-peers.{{ $.Release.Namespace }}.svc:9093"{{ end }}'
)
_SERVER = '{{ include "flyball.name" (list . "server") }}.{{ .Release.Namespace }}.svc:9090'


def adapter_template() -> str:
    """The adapter's template."""
    chosen = adapter.Installation(
        **_REPLICATED,
        prometheus_url="http://chart-prometheus-url",
        config="chart-config",
        described=(("chart-group", "chart-resource"),),
        resource_metrics=True,
    )
    actions = {
        "  config.yaml: chart-config": "  config.yaml: |\n{{ .Values.adapter.config | indent 4 }}",
        _DESCRIBED: _ACTIONS_DESCRIBED,
        "http://chart-prometheus-url": (
            f"{{{{ if .Values.adapter.prometheusUrl }}}}{{{{ .Values.adapter.prometheusUrl }}}}"
            f"{{{{ else if .Values.server.enabled }}}}http://{_SERVER}"
            "{{ else }}http://prometheus-k8s.monitoring.svc:9090{{ end }}"
        ),
    }
    objects = adapter.manifests(chosen)
    resource = ("adapter.resourceMetrics", "adapter.apiServices")
    switches = {
        _key(obj): resource if obj["spec"]["group"] == "metrics.k8s.io" else ("adapter.apiServices",)
        for obj in objects
        if obj["kind"] == "APIService"
    }
    return _template("adapter", "flyball.adapter.manifests", objects, actions, switches)


def autoscaler_template() -> str:
    """The autoscaler's template."""
    chosen = autoscaler.Installation(**_REPLICATED)
    return _template("autoscaler", "flyball.autoscaler.manifests", autoscaler.manifests(chosen))


def operator_template() -> str:
    """The operator's template."""
    return _template("operator", "flyball.operator.manifests", operator.manifests(operator.Installation(**_REPLICATED)))


def server_template() -> str:
    """The server's template; its own configuration is the default one unless another is given."""
    chosen = server.Installation(
        **_COMMON,
        config="chart-config",
        rules={"chart-rules": ""},
        storage="chart-storage",
        operator=True,
        agents=True,
    )
    alerting = _when("alertmanager.enabled", _indented(server.ALERTING.format(alertmanagers=_TARGETS)))
    late = _when("agent.enabled", _indented(server.LATE))
    kubelets = f"{{{{- if not .Values.agent.enabled }}}}\n{_indented(server.KUBELETS)}{{{{- end }}}}\n"
    own = alerting + late + _indented(server.CONFIG) + kubelets
    actions = {
        "  prometheus.yml: chart-config\n": (
            "  prometheus.yml: |\n{{- if .Values.server.config }}\n{{ .Values.server.config | indent 4 }}\n"
            f"{{{{- else }}}}\n{own}{{{{- end }}}}\n"
        ),
        "data:\n  chart-rules: ''\n": (
            "{{- with .Values.server.rules }}\ndata:\n  {{- toYaml . | nindent 2 }}\n{{- end }}\n"
        ),
        "        - --operator-namespace=chart-namespace\n": _when(
            "operator.enabled", "        - --operator-namespace={{ .Release.Namespace }}\n"
        ),
        _OF_NODES: f"{{{{- if or .Values.server.config (not .Values.agent.enabled) }}}}\n{_OF_NODES}{{{{- end }}}}\n",
        "        - --web.enable-remote-write-receiver\n": _when(
            "agent.enabled", "        - --web.enable-remote-write-receiver\n"
        ),
    }
    objects = server.manifests(chosen)
    switches = {_key(obj): ("operator.enabled",) for obj in objects if obj["kind"] in ("Role", "RoleBinding")}
    return _template("server", "flyball.servermanifests", objects, actions, switches)


def alertmanager_template() -> str:
    """Alertmanager's template."""
    chosen = alertmanager.Installation(**_REPLICATED, config="chart-config", storage="chart-storage")
    config = "  alertmanager.yml: |\n{{ .Values.alertmanager.config | indent 4 }}"
    actions = {"  alertmanager.yml: chart-config": config}
    return _template("alertmanager", "flyball.alerting.manifests", alertmanager.manifests(chosen), actions)


def agent_template() -> str:
    """The agent's template; beside the node exporter it leaves the node's figures to that."""
    chosen = agent.Installation(**_COMMON, config="chart-config", storage="chart-storage", figures=False)
    no_figures = f"        - {agent.NO_FIGURES}\n"
    actions = {
        "  agent.yml: chart-config\n": (
            "  agent.yml: |\n{{- if .Values.agent.config }}\n{{ .Values.agent.config | indent 4 }}\n{{- else }}\n"
            f"{_indented(agent.CONFIG.format(url=_WRITE))}{{{{- end }}}}\n"
        ),
        no_figures: _when("nodeExporter.enabled", no_figures),
    }
    return _template("agent", "flyball.agentmanifests", agent.manifests(chosen), actions)


def node_exporter_template() -> str:
    """The node exporter's template."""
    objects = exporters.node_exporter(replace(exporters.NODE, **_COMMON))
    return _template("nodeExporter", "flyball.exporters.manifests", objects)


def kube_state_metrics_template() -> str:
    """The template of the exporter of the cluster's objects."""
    objects = exporters.kube_state_metrics(replace(exporters.KUBE_STATE, **_COMMON))
    return _template("kubeStateMetrics", "flyball.exporters.manifests", objects)


def blackbox_exporter_template() -> str:
    """The blackbox exporter's template; its pods are replaced when its configuration changes."""
    objects = exporters.blackbox_exporter(exporters.BlackboxInstallation(**_COMMON, config="chart-config"))
    config = "  config.yaml: |\n{{ .Values.blackboxExporter.config | indent 4 }}"
    actions = {"  config.yaml: chart-config": config}
    return _template("blackboxExporter", "flyball.exporters.manifests", objects, actions)


def _template(
    part: str,
    source: str,
    objects: Objects,
    actions: Mapping[str, str] | None = None,
    switches: Mapping[tuple[str, str], Sequence[str]] | None = None,
) -> str:
    """The objects of one part, which its ``enabled`` switches on; placeholders become actions.

    Args:
        part: its name in the values.
        source: the module that the objects come from.
        switches: by kind and name of an object, the values that must be true, too.
    """
    values = f".Values.{part}"
    replaced = {
        **(actions or {}),
        "chart-namespace": "{{ .Release.Namespace }}",
        "chart-image": "{{ .Values.image }}",
        "chart-storage": f"{{{{ {values}.storage }}}}",
        "chart-name": f'{{{{ include "flyball.name" (list . "{_kebab(part)}") }}}}',
        str(_REPLICAS): f"{{{{ {values}.replicas }}}}",
        "        - chart-arguments\n": (
            f"{{{{- range {values}.arguments }}}}\n        - {{{{ . | quote }}}}\n{{{{- end }}}}\n"
        ),
        "        resources: chart-resources\n": (
            f"        resources:\n          {{{{- toYaml {values}.resources | nindent 10 }}}}\n"
        ),
    }
    for field in ("nodeSelector", "tolerations", "affinity"):
        given = f"      {field}:\n        {{{{- toYaml . | nindent 8 }}}}\n"
        replaced[f"      {field}: chart-{field}\n"] = f"{{{{- with {values}.{field} }}}}\n{given}{{{{- end }}}}\n"
    replaced["      storageClassName: chart-class\n"] = (
        f"{{{{- with {values}.storageClass }}}}\n      storageClassName: {{{{ . | quote }}}}\n{{{{- end }}}}\n"
    )
    texts = []
    for obj in objects:
        if obj["kind"] in ("Namespace", "CustomResourceDefinition"):
            continue  # helm makes the first, and takes the second from crds/
        text = written([_open(obj)])
        for placeholder, action in replaced.items():
            text = text.replace(placeholder, action)
        for value in (switches or {}).get(_key(obj), ()):
            text = _when(value, text)
        texts.append(text)
    head = (
        f"{{{{- /* Written by tools/chart.py from {source}; change it there. */ -}}}}\n{{{{- if {values}.enabled }}}}\n"
    )
    return head + "---\n".join(texts) + "{{- end }}\n"


def _when(value: str, text: str) -> str:
    """The text where a value is true."""
    return f"{{{{- if .Values.{value} }}}}\n{text}{{{{- end }}}}\n"


def _open(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object with placeholders where values may say where its pods run and what they may take."""
    copy: dict[str, Any] = json.loads(json.dumps(obj))
    if copy["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
        pod = copy["spec"]["template"]["spec"]
        pod["containers"][0]["resources"] = "chart-resources"
        pod |= {field: f"chart-{field}" for field in ("nodeSelector", "tolerations", "affinity")}
        for claim in copy["spec"].get("volumeClaimTemplates", ()):
            claim["spec"] = {"storageClassName": "chart-class", **claim["spec"]}
    return copy


def _key(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _kebab(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"-{found.group().lower()}", name)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _definition(objects: Objects) -> str:
    found = next(obj for obj in objects if obj["kind"] == "CustomResourceDefinition")
    return written([found])


_TEMPLATES = {
    "adapter": (adapter_template, lambda: adapter.manifests(adapter.Installation())),
    "autoscaler": (autoscaler_template, lambda: autoscaler.manifests(autoscaler.Installation())),
    "operator": (operator_template, lambda: operator.manifests(operator.Installation())),
    "server": (server_template, lambda: server.manifests(server.Installation())),
    "alertmanager": (alertmanager_template, lambda: alertmanager.manifests(alertmanager.Installation())),
    "agent": (agent_template, lambda: agent.manifests(agent.Installation())),
    "node-exporter": (node_exporter_template, exporters.node_exporter),
    "kube-state-metrics": (kube_state_metrics_template, exporters.kube_state_metrics),
    "blackbox-exporter": (
        blackbox_exporter_template,
        lambda: exporters.blackbox_exporter(exporters.BlackboxInstallation()),
    ),
}


def _kustomization(part: str) -> str:
    return (
        "# A base: kubectl apply -k, or a kustomization of your own with patches on it.\n"
        f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- {part}.yaml\n"
    )


def files() -> dict[str, str]:
    """Everything that is written, by its path."""
    found = {
        "charts/flyball/crds/metricrules.yaml": _definition(adapter.manifests(adapter.Installation())),
        "charts/flyball/crds/governors.yaml": _definition(autoscaler.manifests(autoscaler.Installation())),
    }
    for part, (template, plain) in _TEMPLATES.items():
        found[f"charts/flyball/templates/{part}.yaml"] = template()
        found[f"deploy/{part}/{part}.yaml"] = written(plain())
        found[f"deploy/{part}/kustomization.yaml"] = _kustomization(part)
    return found


if __name__ == "__main__":
    for name, text in files().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
