"""From prometheus-adapter's ConfigMap, or KEDA's ScaledObjects with Prometheus triggers, to what Flyball needs.

Pure: objects in; a configuration, manifests and a report out. What cannot be carried over is in the report, never
silently dropped.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

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


def migrate(documents: Iterable[object], mapper: RestMapper) -> Migration:
    """Takes what it knows among objects and lists of them; the rest is named in the report.

    Raises:
        ConfigError: a configuration as a whole cannot be read.
    """
    done = Migration()
    for obj in _objects(documents):
        if not isinstance(obj, dict):
            done.report.append(f'"{str(obj)[:50]}" is no object; nothing to do')
        elif {"rules", "externalRules", "resourceRules"} & set(obj):
            import yaml

            _configuration(yaml.safe_dump(obj, sort_keys=False), "configuration", done, mapper)
        elif obj.get("kind") in ("ConfigMap", "ScaledObject"):
            take = _config_map if obj["kind"] == "ConfigMap" else _scaled_object
            try:
                take(obj, done, mapper)
            except msgspec.ValidationError as exc:
                done.report.append(f"{obj['kind']} {_name(obj)}: {exc}; it is left as it is")
        else:
            done.report.append(f"{obj.get('kind')} {_name(obj)}: nothing to do")
    return done


def _objects(documents: Iterable[object]) -> Iterator[object]:
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else None
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and isinstance(items, list):
            yield from items
        else:
            yield document


def _name(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata")
    given = metadata if isinstance(metadata, dict) else {}
    return f"{given.get('namespace') or 'default'}/{given.get('name', '')}"


# -- prometheus-adapter ------------------------------------------------------------------------------------------------


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] | None = None


def _config_map(obj: Object, done: Migration, mapper: RestMapper) -> None:
    where, data = f"ConfigMap {_name(obj)}", msgspec.convert(obj, _ConfigMap).data or {}
    texts = [text for key, text in data.items() if key.endswith((".yaml", ".yml"))]
    if not texts:
        done.report.append(f"{where}: has no .yaml key, so it is no adapter configuration")
    for text in texts:
        _configuration(text, where, done, mapper)


def _configuration(text: str, where: str, done: Migration, mapper: RestMapper) -> None:
    config = parse_config(text, where)
    done.report += [f"{finding.level}: {finding.where}: {finding.message}" for finding in check(config, mapper)]
    done.report += [f"{where}: {line}" for line in differences(config)]
    document = load_yaml(text, where) or {}
    assert isinstance(document, dict)  # parse_config has taken it
    for section, value in document.items():
        if isinstance(value, list) and isinstance(done.config.get(section), list):
            done.config[section] += value
        else:
            done.config[section] = value
    rules = len(config.rules) + len(config.external_rules)
    done.report.append(f"{where}: {rules} rules are taken as they are, {len(config.refusals)} are refused")


# -- KEDA --------------------------------------------------------------------------------------------------------------


class _Trigger(msgspec.Struct, rename="camel"):
    type: str = ""
    name: str = ""
    metadata: dict[str, str | int | float | bool] = {}
    metric_type: str = ""
    authentication_ref: Object | None = None

    def text(self, key: str, default: str = "") -> str:
        """A field of the metadata; KEDA's own are all text, but hand-written ones may be numbers."""
        value = self.metadata.get(key, default)
        return str(value).lower() if isinstance(value, bool) else str(value)


class _Target(msgspec.Struct, rename="camel"):
    api_version: str = "apps/v1"
    kind: str = "Deployment"
    name: str = ""


class _HpaConfig(msgspec.Struct):
    behavior: Object | None = None


class _Advanced(msgspec.Struct, rename="camel"):
    horizontal_pod_autoscaler_config: _HpaConfig | None = None
    scaling_modifiers: Object | None = None


class _Spec(msgspec.Struct, rename="camel"):
    triggers: list[_Trigger] = []
    scale_target_ref: _Target = msgspec.field(default_factory=_Target)
    min_replica_count: int | None = None
    max_replica_count: int | None = None
    advanced: _Advanced | None = None


class _ScaledObject(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


def _scaled_object(obj: Object, done: Migration, _mapper: RestMapper) -> None:
    where, spec = f"ScaledObject {_name(obj)}", msgspec.convert(obj, _ScaledObject).spec
    namespace, _, name = _name(obj).partition("/")
    metrics = []
    for index, trigger in enumerate(spec.triggers):
        here = f"{where}: triggers[{index}]"
        try:
            metric = _metric(trigger, f"{namespace}-{name}-{trigger.name or index}", here, done)
        except ConfigError as exc:
            done.report.append(f"{here}: {exc}")
            continue
        if metric is not None:
            metrics.append(metric)
    if not metrics:
        done.report.append(f"{where}: no trigger can be carried over; it stays with KEDA")
        return
    low = spec.min_replica_count or 0
    advanced = spec.advanced or _Advanced()
    behavior = (advanced.horizontal_pod_autoscaler_config or _HpaConfig()).behavior
    target = spec.scale_target_ref
    hpa: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": target.api_version, "kind": target.kind, "name": target.name},
            "minReplicas": max(1, low),
            "maxReplicas": KEDA_MAX_REPLICAS if spec.max_replica_count is None else spec.max_replica_count,
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
        if key in obj["spec"]:
            done.report.append(f"{where}: {key}: {why}")
    if advanced.scaling_modifiers:
        done.report.append(f"{where}: scalingModifiers: write the formula as one PromQL query")
    done.report.append(
        f'{where}: apply the HPA after "kubectl delete scaledobject -n {namespace} {name}": two HPAs would fight'
    )


def _metric(trigger: _Trigger, name: str, here: str, done: Migration) -> Object | None:
    """The HPA's metric for one trigger; None where there is none, which the report says.

    Raises:
        ConfigError: the trigger is wrong.
    """
    if trigger.type in ("cpu", "memory"):
        return _resource_metric(trigger)
    if trigger.type != "prometheus":
        done.report.append(
            f"{here}: type {trigger.type} is not Prometheus; it stays with KEDA, or export it to Prometheus"
        )
        return None
    rule = _external_rule(trigger, name)
    source = _source(trigger.text("serverAddress"), done)
    if source:
        rule["source"] = source
    done.config.setdefault("externalRules", []).append(rule)
    if trigger.text("ignoreNullValues", "true") != "false":
        done.report.append(f"{here}: an empty result was 0 to KEDA; here it is no value, and the HPA holds")
    for key in ("activationThreshold", "customHeaders", "authModes", "queryParameters", "unsafeSsl"):
        if trigger.text(key):
            done.report.append(f"{here}: {key} is not carried over; see sources in the adapter's configuration")
    if trigger.authentication_ref:
        done.report.append(f"{here}: authenticationRef: give the source its credentials in the adapter's configuration")
    kind = trigger.metric_type or "AverageValue"
    target = {"type": kind, "averageValue" if kind == "AverageValue" else "value": trigger.text("threshold")}
    return {"type": "External", "external": {"metric": {"name": name}, "target": target}}


def _resource_metric(trigger: _Trigger) -> Object:
    kind, value = trigger.metric_type or trigger.text("type") or "Utilization", trigger.text("value")
    target: Object = {"type": kind, "averageValue": value}
    if kind == "Utilization":
        if not value.isdigit():
            raise ConfigError(f'value: "{value}" is not a whole number of percent; KEDA would refuse it too')
        target = {"type": kind, "averageUtilization": int(value)}
    return {"type": "Resource", "resource": {"name": trigger.type, "target": target}}


def _external_rule(trigger: _Trigger, name: str) -> Object:
    query = trigger.text("query")
    if not trigger.text("threshold"):
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


def _source(url: str, done: Migration) -> str:
    """The name of the trigger's server among ``sources``.

    Raises:
        ConfigError: the address is no URL.
    """
    if not url:
        return ""
    try:
        name = (urlsplit(url).hostname or "").split(".")[0]
    except ValueError:
        name = ""
    if not name or not url.startswith(("http://", "https://")):
        raise ConfigError(f'serverAddress: "{url}" is not the URL of a Prometheus API; write http://host:9090')
    sources: list[Object] = done.config.setdefault("sources", [])
    for known in sources:
        if known["url"] == url:
            return str(known["name"])
    names = {known["name"] for known in sources}
    name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1000))) if n not in names)
    sources.append({"name": name, "url": url})
    return name
