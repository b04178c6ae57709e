"""From prometheus-adapter's ConfigMap, or KEDA's ScaledObjects with Prometheus triggers, to what Flyball needs.

Pure: objects in; a configuration, manifests and a report out. What cannot be carried over is in the report, never
silently dropped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from flyball.adapter.checking import check
from flyball.errors import ConfigError, QueryError
from flyball.metricrules import RestMapper, differences, parse_config
from flyball.model.yaml_loader import load_yaml
from flyball.promql.parser import parse
from flyball.promql.syntax import VectorSelector

Object = dict[str, Any]
KEDA_MAX_REPLICAS = 100


@dataclass
class Migration:
    """``config`` is the adapter's configuration, ``manifests`` what to apply, ``report`` what to know."""

    config: Object = field(default_factory=dict)
    manifests: list[Object] = field(default_factory=list)
    report: list[str] = field(default_factory=list)


def migrate(objects: Iterable[Object], mapper: RestMapper) -> Migration:
    """Takes what it knows among the objects; the rest is named in the report.

    Raises:
        ConfigError: a configuration as a whole cannot be read.
    """
    done = Migration()
    for obj in objects:
        kind = obj.get("kind", "")
        if kind == "ConfigMap" or {"rules", "externalRules", "resourceRules"} & set(obj):
            _configuration(obj, done, mapper)
        elif kind == "ScaledObject":
            _scaled_object(obj, done)
        elif kind:
            done.report.append(f"{kind} {_name(obj)}: nothing to do")
    return done


def _name(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata") or {}
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name', '')}"


# -- prometheus-adapter ------------------------------------------------------------------------------------------------


def _configuration(obj: Object, done: Migration, mapper: RestMapper) -> None:
    import yaml

    if obj.get("kind") == "ConfigMap":
        where = f"ConfigMap {_name(obj)}"
        texts = [text for key, text in (obj.get("data") or {}).items() if key.endswith((".yaml", ".yml"))]
        if not texts:
            done.report.append(f"{where}: has no .yaml key, so it is no adapter configuration")
            return
    else:
        where, texts = "configuration", [yaml.safe_dump(obj, sort_keys=False)]
    for text in texts:
        config = parse_config(text, where)
        done.report += [f"{finding.level}: {finding.where}: {finding.message}" for finding in check(config, mapper)]
        done.report += [f"{where}: {line}" for line in differences(config)]
        document = load_yaml(text, where)
        assert isinstance(document, dict)
        for section, value in document.items():
            if isinstance(value, list) and isinstance(done.config.get(section), list):
                done.config[section] += value
            else:
                done.config[section] = value
        rules = len(config.rules) + len(config.external_rules)
        done.report.append(f"{where}: {rules} rules are taken as they are, {len(config.refusals)} are refused")


# -- KEDA --------------------------------------------------------------------------------------------------------------


def _scaled_object(obj: Object, done: Migration) -> None:
    where, spec = f"ScaledObject {_name(obj)}", obj.get("spec") or {}
    namespace, name = _name(obj).split("/")
    metrics = []
    for index, trigger in enumerate(spec.get("triggers") or []):
        here = f"{where}: triggers[{index}]"
        metric = _trigger(trigger, f"{namespace}-{name}-{trigger.get('name') or index}", here, done)
        if metric is not None:
            metrics.append(metric)
    if not metrics:
        done.report.append(f"{where}: no trigger can be carried over; it stays with KEDA")
        return
    target = spec.get("scaleTargetRef") or {}
    low = spec.get("minReplicaCount", 0)
    advanced = spec.get("advanced") or {}
    behavior = (advanced.get("horizontalPodAutoscalerConfig") or {}).get("behavior")
    hpa: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": target.get("apiVersion", "apps/v1"),
                "kind": target.get("kind", "Deployment"),
                "name": target.get("name", ""),
            },
            "minReplicas": max(1, low),
            "maxReplicas": spec.get("maxReplicaCount", KEDA_MAX_REPLICAS),
            "metrics": metrics,
            **({"behavior": behavior} if behavior else {}),
        },
    }
    done.manifests.append(hpa)
    if low < 1:
        done.report.append(
            f"{where}: minReplicaCount {low}: the HPA keeps 1; set minReplicas 0 where HPAScaleToZero is on, or use a "
            "Governor"
        )
    for key, why in (
        ("idleReplicaCount", "an HPA has none"),
        ("fallback", "use a Governor's fallback; without one an HPA holds when the metric is lost"),
        ("pollingInterval", "the HPA's own sync period holds"),
        ("cooldownPeriod", "only for zero replicas; behavior.scaleDown holds above"),
    ):
        if key in spec:
            done.report.append(f"{where}: {key}: {why}")
    if advanced.get("scalingModifiers"):
        done.report.append(f"{where}: scalingModifiers: write the formula as one PromQL query")
    done.report.append(
        f'{where}: apply the HPA after "kubectl delete scaledobject -n {namespace} {name}": two HPAs would fight'
    )


def _trigger(trigger: Object, name: str, here: str, done: Migration) -> Object | None:
    kind, metadata = trigger.get("type"), trigger.get("metadata") or {}
    if kind in ("cpu", "memory"):
        target_type = trigger.get("metricType") or metadata.get("type") or "Utilization"
        key = "averageUtilization" if target_type == "Utilization" else "averageValue"
        value = metadata.get("value", "")
        target = {"type": target_type, key: int(value) if key == "averageUtilization" else value}
        return {"type": "Resource", "resource": {"name": kind, "target": target}}
    if kind != "prometheus":
        done.report.append(f"{here}: type {kind} is not Prometheus; it stays with KEDA, or export it to Prometheus")
        return None
    try:
        rule = _external_rule(metadata, name)
    except ConfigError as exc:
        done.report.append(f"{here}: {exc}")
        return None
    source = _source(metadata, done)
    if source:
        rule["source"] = source
    done.config.setdefault("externalRules", []).append(rule)
    if metadata.get("ignoreNullValues", "true") != "false":
        done.report.append(f"{here}: an empty result was 0 to KEDA; here it is no value, and the HPA holds")
    for key in ("activationThreshold", "customHeaders", "authModes", "queryParameters", "unsafeSsl"):
        if metadata.get(key):
            done.report.append(f"{here}: {key} is not carried over; see sources in the adapter's configuration")
    if trigger.get("authenticationRef"):
        done.report.append(f"{here}: authenticationRef: give the source its credentials in the adapter's configuration")
    target_type = trigger.get("metricType", "AverageValue")
    target = {"type": target_type, "averageValue" if target_type == "AverageValue" else "value": metadata["threshold"]}
    return {"type": "External", "external": {"metric": {"name": name}, "target": target}}


def _external_rule(metadata: Mapping[str, Any], name: str) -> Object:
    query = metadata.get("query", "")
    if "threshold" not in metadata:
        raise ConfigError("threshold is missing")
    if "<<" in query:
        raise ConfigError("the query has << in it, which is a template's delimiter; write the rule by hand")
    try:
        tree = parse(query)
    except QueryError as exc:
        raise ConfigError(f"the query cannot be read: {exc}") from exc
    selector = next((node for node in tree.walk() if isinstance(node, VectorSelector)), None)
    if selector is None:
        raise ConfigError("the query reads no series")
    # The metric exists while its first series does. Its name is the rule's, whatever the series is called.
    plain = VectorSelector(selector.name, selector.matchers)
    return {
        "seriesQuery": str(plain),
        "resources": {"namespaced": False},
        "name": {"matches": "^.*$", "as": name.replace("$", "$$")},
        "metricsQuery": query,
    }


def _source(metadata: Mapping[str, Any], done: Migration) -> str:
    """The name of the trigger's server among ``sources``."""
    url = metadata.get("serverAddress", "")
    if not url:
        return ""
    name = (urlsplit(url).hostname or "prometheus").split(".")[0]
    sources: list[Object] = done.config.setdefault("sources", [])
    for known in sources:
        if known["url"] == url:
            return str(known["name"])
    names = {known["name"] for known in sources}
    name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1000))) if n not in names)
    sources.append({"name": name, "url": url})
    return name
