"""flyball adapter migrate."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flyball.adapter.migration import Migration, migrate
from flyball.cli.adapter import command
from flyball.errors import ConfigError
from flyball.metricrules import KindTable, parse_config
from flyball.metricrules.resources import BUILT_IN_KINDS
from flyball.model.yaml_loader import load_all_yaml

from .test_deployment import CONFIG

SCALED_OBJECT = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: orders, namespace: shop}
spec:
  scaleTargetRef: {name: orders}
  maxReplicaCount: 20
  cooldownPeriod: 300
  fallback: {failureThreshold: 3, replicas: 6}
  advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleDown: {stabilizationWindowSeconds: 60}}}}
  triggers:
  - type: prometheus
    metadata:
      serverAddress: http://prometheus.monitoring.svc:9090
      query: sum(rate(http_requests_total{service="orders"}[2m]))
      threshold: "100"
  - type: prometheus
    name: depth
    metricType: Value
    metadata: {serverAddress: "http://prometheus.monitoring.svc:9090", query: "max(queue_depth)", threshold: "5"}
  - {type: cpu, metricType: Utilization, metadata: {value: "70"}}
  - {type: kafka, metadata: {topic: orders}}
"""


def migrated(text: str) -> Migration:
    objects: Any = load_all_yaml(text)
    return migrate(objects, KindTable(BUILT_IN_KINDS))


def test_a_scaled_object_becomes_rules_and_a_stock_hpa() -> None:
    done = migrated(SCALED_OBJECT)
    (hpa,) = done.manifests
    assert hpa["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders"}
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (1, 20)
    assert hpa["spec"]["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 60}}
    first, second, cpu = hpa["spec"]["metrics"]
    assert first["external"] == {
        "metric": {"name": "shop-orders-0"},
        "target": {"type": "AverageValue", "averageValue": "100"},
    }
    assert second["external"]["target"] == {"type": "Value", "value": "5"}
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    config = parse_config(yaml.safe_dump(done.config))
    assert not config.refusals and [source.name for source in config.sources] == ["prometheus"]
    rule = config.external_rules[0]
    assert rule.series_query == 'http_requests_total{service="orders"}'
    assert rule.namer.metric_name("http_requests_total") == "shop-orders-0"
    assert rule.metrics_query.text == 'sum(rate(http_requests_total{service="orders"}[2m]))'
    assert rule.options.source == "prometheus"
    report = "\n".join(done.report)
    for word in ("kafka", "fallback", "cooldownPeriod", "minReplicaCount 0", "was 0 to KEDA", "delete scaledobject"):
        assert word in report


def test_what_has_no_prometheus_trigger_stays() -> None:
    done = migrated(SCALED_OBJECT.split("  - type: prometheus")[0] + "  - {type: kafka, metadata: {}}\n")
    assert done.manifests == [] and done.config == {}
    assert "stays with KEDA" in done.report[-1]


def test_a_config_map_is_taken_as_it_is_with_its_differences() -> None:
    indented = CONFIG.strip().replace("\n", "\n    ")
    text = f"kind: ConfigMap\nmetadata: {{name: adapter-config}}\ndata:\n  config.yaml: |\n    {indented}\n"
    done = migrated(text)
    assert done.config == yaml.safe_load(CONFIG)
    assert "2 rules are taken as they are, 0 are refused" in done.report[-1]
    assert any("compatibility.nanIsZero" in line for line in done.report)


def test_the_command_reads_lists_and_writes_manifests() -> None:
    listed = yaml.safe_dump({"kind": "List", "items": [yaml.safe_load(SCALED_OBJECT)]})
    result = CliRunner().invoke(command, ["migrate", "-"], input=listed)
    assert result.exit_code == 0, result.output
    config_map, hpa = yaml.safe_load_all(result.stdout)
    assert (config_map["kind"], hpa["kind"]) == ("ConfigMap", "HorizontalPodAutoscaler")
    assert parse_config(config_map["data"]["config.yaml"]).external_rules
    assert "kafka" in result.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 5", '"[5]" is no object'),
        ("kind: 5", "5 default/: nothing to do"),
        ("kind: List\nitems: [5]", '"5" is no object'),
        ("kind: ScaledObject\nspec: {triggers: [5]}", "at `$.spec.triggers[0]`"),
        ("kind: ScaledObject\nmetadata: 5\nspec: {triggers: [{type: cpu}]}", 'value: "" is not a whole number'),
        (
            "kind: ScaledObject\nspec: {triggers: [{type: cpu, metadata: {value: 80.5}}]}",
            '"80.5" is not a whole number',
        ),
        (
            "kind: ScaledObject\nspec: {triggers: [{type: prometheus, metadata: {query: x, threshold: 5, "
            "serverAddress: 'http://[::1'}}]}",
            "is not the URL of a Prometheus API",
        ),
        ("kind: ConfigMap\ndata: {config.yaml: 5}", "ConfigMap default/: Expected `str`"),
    ],
)
def test_what_is_malformed_is_in_the_report_and_nowhere_else(text: str, says: str) -> None:
    done = migrated(text)
    assert done.manifests == [] and done.config == {}
    assert any(says in line for line in done.report), done.report


@pytest.mark.parametrize("name", ["check", "migrate"])
def test_a_file_that_is_not_utf_8_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"rules: [] # \xff")
    result = CliRunner().invoke(command, [name, str(tmp_path / "latin.yaml")])
    assert isinstance(result.exception, ConfigError) and "latin.yaml: byte 12 is not UTF-8" in str(result.exception)
