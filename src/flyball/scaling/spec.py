"""HPA and pod objects (JSON dicts) into the values that the arithmetic takes.

Defaults are filled in here once more, as autoscaling/v2 defaulting does (reference/hpa.md 1.15), so that an
object that never passed an API server decides the same.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from flyball.errors import ConfigError
from flyball.model.quantities import parse_quantity
from flyball.scaling.types import Behavior, Metric, Pod, Policy, Rules, Settings, Spec, Target

_DEFAULT_UP = (Policy("Pods", 4, 15), Policy("Percent", 100, 15))
_DEFAULT_DOWN = (Policy("Percent", 100, 15),)
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def spec_from_hpa(obj: Mapping[str, Any], settings: Settings | None = None) -> Spec:
    """The Spec of an autoscaling/v2 HorizontalPodAutoscaler.

    Raises:
        ConfigError: a field that the arithmetic needs is missing or no quantity; the message names it.
    """
    settings = settings or Settings()
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    name = f"{meta.get('namespace', '')}/{meta.get('name', '')}"
    ref = spec.get("scaleTargetRef") or {}
    if not ref.get("kind") or not ref.get("name"):
        raise ConfigError(f"HPA {name}: spec.scaleTargetRef needs a kind and a name")
    if not isinstance(spec.get("maxReplicas"), int):
        raise ConfigError(f"HPA {name}: spec.maxReplicas is required and must be a whole number")
    min_replicas = spec.get("minReplicas")
    try:
        metrics = tuple(_metric(metric) for metric in spec.get("metrics") or [])
        behavior = _behavior(spec["behavior"], settings) if spec.get("behavior") is not None else None
    except ConfigError as error:
        raise ConfigError(f"HPA {name}: {error}") from error
    return Spec(
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        target_api_version=str(ref.get("apiVersion") or ""),
        target_kind=str(ref["kind"]),
        target_name=str(ref["name"]),
        min_replicas=1 if min_replicas is None else int(min_replicas),
        max_replicas=int(spec["maxReplicas"]),
        metrics=metrics or (Metric("Resource", "cpu", Target("Utilization", average_utilization=80)),),
        behavior=behavior,
        settings=settings,
    )


def _metric(entry: Mapping[str, Any]) -> Metric:
    kind = str(entry.get("type", ""))
    source = entry.get(_SOURCES.get(kind, "")) or {}
    target = source.get("target") or {}
    utilization = target.get("averageUtilization")
    parsed = Target(
        type=str(target.get("type", "")),
        value=_milli(target.get("value")),
        average_value=_milli(target.get("averageValue")),
        average_utilization=None if utilization is None else int(utilization),
    )
    if kind == "Pods" and parsed.average_value is None:
        raise ConfigError("a Pods metric needs target.averageValue")
    if kind in ("Resource", "ContainerResource"):
        return Metric(kind, str(source.get("name", "")), parsed, container=str(source.get("container") or ""))
    metric = source.get("metric") or {}
    return Metric(
        kind,
        str(metric.get("name", "")),
        parsed,
        selector=metric.get("selector"),
        described=source.get("describedObject"),
    )


def _behavior(behavior: Mapping[str, Any], settings: Settings) -> Behavior:
    up, down = behavior.get("scaleUp") or {}, behavior.get("scaleDown") or {}
    return Behavior(
        up=_rules(up, 0, _DEFAULT_UP, settings),
        down=_rules(down, settings.downscale_stabilization_s, _DEFAULT_DOWN, settings),
    )


def _rules(rules: Mapping[str, Any], window_s: int, policies: tuple[Policy, ...], settings: Settings) -> Rules:
    given = rules.get("policies")
    window = rules.get("stabilizationWindowSeconds")
    tolerance = rules.get("tolerance")
    return Rules(
        window_s=window_s if window is None else int(window),
        select=str(rules.get("selectPolicy") or "Max"),
        policies=policies
        if given is None
        else tuple(Policy(str(p["type"]), int(p["value"]), int(p["periodSeconds"])) for p in given),
        tolerance=None if tolerance is None or settings.before_1_33 else parse_quantity(tolerance).as_float(),
    )


def pod_from_object(obj: Mapping[str, Any]) -> Pod:
    """The Pod of a core/v1 Pod. A quantity or time that cannot be read counts as not there."""
    meta, spec, status = obj.get("metadata") or {}, obj.get("spec") or {}, obj.get("status") or {}
    ready = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), None)
    containers = [(str(c.get("name", "")), _requests(c)) for c in spec.get("containers") or []]
    inits = spec.get("initContainers") or []
    containers += [(str(c.get("name", "")), _requests(c)) for c in inits if c.get("restartPolicy") == "Always"]
    started = status.get("startTime")
    return Pod(
        name=str(meta.get("name", "")),
        phase=str(status.get("phase") or ""),
        deleting=meta.get("deletionTimestamp") is not None,
        start_ms=None if started is None else _ms(started),
        ready=None if ready is None else str(ready.get("status", "")),
        ready_since_ms=0 if ready is None else _ms(ready.get("lastTransitionTime")) or 0,
        containers=tuple(containers),
        pod_requests=_pod_level(spec, containers),
    )


def _pod_level(spec: Mapping[str, Any], containers: list[tuple[str, dict[str, int]]]) -> dict[str, int] | None:
    """component-helpers' PodRequests where pod-level requests are set (KEP-2837), else None."""
    own = {
        name: value
        for name, value in _requests(spec).items()
        if name in ("cpu", "memory") or name.startswith("hugepages-")
    }
    if not own:
        return None
    total: dict[str, int] = {}
    for _, requests in containers:
        for name, value in requests.items():
            total[name] = total.get(name, 0) + value
    for init in spec.get("initContainers") or []:
        if init.get("restartPolicy") != "Always":
            for name, value in _requests(init).items():
                total[name] = max(total.get(name, 0), value)
    total.update(own)
    for name, text in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, 0) + (_milli(text) or 0)
    return total


def _requests(holder: Mapping[str, Any]) -> dict[str, int]:
    requests: dict[str, int] = {}
    for name, text in ((holder.get("resources") or {}).get("requests") or {}).items():
        try:
            value = _milli(text)
        except ConfigError:
            continue
        if value is not None:
            requests[str(name)] = value
    return requests


def _milli(text: str | int | float | None) -> int | None:
    return None if text is None else _milli_of(str(text))


@lru_cache(maxsize=4096)
def _milli_of(text: str) -> int:
    return parse_quantity(text).milli_value()


def _ms(text: str | None) -> int | None:
    try:
        return None if text is None else int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """Go's ``%+v`` of a *metav1.LabelSelector, which is part of upstream's messages."""
    if selector is None:
        return "nil"
    labels = selector.get("matchLabels")
    pairs = "".join(f"{key}: {labels[key]}," for key in sorted(labels)) if labels else ""
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{e.get('key', '')},Operator:{e.get('operator', '')},"
        f"Values:[{' '.join(e.get('values') or [])}],}},"
        for e in selector.get("matchExpressions") or []
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
