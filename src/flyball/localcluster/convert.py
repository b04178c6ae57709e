"""Conversion between the served versions of one stored kind: HorizontalPodAutoscaler v1/v2, the two Events,
AlertmanagerConfig v1alpha1/v1beta1, whose webhook this stands for.

Source of the rules: kubernetes pkg/apis/autoscaling/v1/conversion.go and pkg/apis/events/v1/conversion.go;
prometheus-operator pkg/apis/monitoring/v1beta1/conversion_from.go and conversion_to.go.
The autoscaling/v1 annotations hold metrics in the flat form of v2beta1.
"""

import copy
import json
from typing import Any

Object = dict[str, Any]

_HPA_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_HPA_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_HPA_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_HPA_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_HPA_ANNOTATIONS = (_HPA_METRICS, _HPA_CURRENT, _HPA_CONDITIONS, _HPA_BEHAVIOR)


def convert(obj: Object, api_version: str) -> Object:
    """The object in another version of its kind; the same object when there is nothing to convert."""
    before = obj.get("apiVersion", "")
    if before == api_version:
        return obj
    pair = (before, api_version)
    if obj.get("kind") == "HorizontalPodAutoscaler":
        if pair == ("autoscaling/v1", "autoscaling/v2"):
            return hpa_v1_to_v2(obj)
        if pair == ("autoscaling/v2", "autoscaling/v1"):
            return hpa_v2_to_v1(obj)
    if obj.get("kind") == "Event":
        if pair == ("events.k8s.io/v1", "v1"):
            return _rename(obj, api_version, {new: old for old, new in _EVENT_FIELDS.items()})
        if pair == ("v1", "events.k8s.io/v1"):
            # Only the core writes these two when they are empty.
            kept = {key: value for key, value in obj.items() if value or not key.startswith("reporting")}
            return _rename(kept, api_version, _EVENT_FIELDS)
    if obj.get("kind") == "AlertmanagerConfig" and before.startswith(_MONITORING) and obj.get("spec"):
        newer = api_version == f"{_MONITORING}v1beta1"
        return {**obj, "apiVersion": api_version, "spec": _alertmanager_config(obj["spec"], newer=newer)}
    return {**obj, "apiVersion": api_version}


_MONITORING = "monitoring.coreos.com/"


def _alertmanager_config(spec: Object, *, newer: bool) -> Object:
    """v1beta1 calls its intervals otherwise, has no ``regex`` in matchers and no ``updateAlerts``."""
    renamed = {"muteTimeIntervals": "timeIntervals"}
    found = _renamed(spec, renamed if newer else {new: old for old, new in renamed.items()})
    return _newer_fields(found) if newer else found


def _newer_fields(value: Any, place: str = "") -> Any:
    if isinstance(value, list):
        return [_newer_fields(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    if place in ("matchers", "sourceMatch", "targetMatch"):
        kept = {name: item for name, item in value.items() if name != "regex"}
        return {**kept, "matchType": value.get("matchType") or ("=~" if value.get("regex") else "=")}
    without = "updateAlerts" if place == "opsgenieConfigs" else ""
    return {name: _newer_fields(item, name) for name, item in value.items() if name != without}


def _renamed(obj: Object, names: dict[str, str]) -> Object:
    return {names.get(key, key): value for key, value in obj.items()}


_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}


def _rename(obj: Object, api_version: str, names: dict[str, str]) -> Object:
    return {**_renamed(obj, names), "apiVersion": api_version}


def _metadata(obj: Object, annotations: dict[str, str]) -> Object:
    metadata = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    return metadata


def _load(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None  # upstream drops an annotation that it cannot read


def hpa_v1_to_v2(obj: Object) -> Object:
    """Metrics from the annotation first, the CPU target appended last; statuses from the annotation win."""
    kept = dict((obj.get("metadata") or {}).get("annotations") or {})
    taken = {name: kept.pop(name, None) for name in _HPA_ANNOTATIONS}
    old = obj.get("spec") or {}
    spec: Object = {k: copy.deepcopy(v) for k, v in old.items() if k != "targetCPUUtilizationPercentage"}
    metrics = [_spec_from_flat(metric) for metric in _load(taken[_HPA_METRICS]) or []]
    target = old.get("targetCPUUtilizationPercentage")
    if target is not None:
        resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}
        metrics.append({"type": "Resource", "resource": resource})
    if metrics:
        spec["metrics"] = metrics
    behavior = _from_go(_load(taken[_HPA_BEHAVIOR]))
    if behavior:
        spec["behavior"] = behavior
    result: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(obj, kept),
        "spec": spec,
    }
    if "status" in obj:
        before = obj["status"] or {}
        status = {k: v for k, v in before.items() if k != "currentCPUUtilizationPercentage"}
        current = [_status_from_flat(metric) for metric in _load(taken[_HPA_CURRENT]) or []]
        percentage = before.get("currentCPUUtilizationPercentage")
        if percentage is not None and not current:
            resource = {"name": "cpu", "current": {"averageUtilization": percentage}}
            current = [{"type": "Resource", "resource": resource}]
        if current:
            status["currentMetrics"] = current
        conditions = _load(taken[_HPA_CONDITIONS])
        if conditions:
            status["conditions"] = conditions
        result["status"] = status
    return result


def hpa_v2_to_v1(obj: Object) -> Object:
    """The first CPU utilization metric becomes the percentage; everything v1 cannot say goes into annotations."""
    old = obj.get("spec") or {}
    annotations = {
        k: v for k, v in ((obj.get("metadata") or {}).get("annotations") or {}).items() if k not in _HPA_ANNOTATIONS
    }
    spec: Object = {k: v for k, v in old.items() if k not in ("metrics", "behavior")}
    metrics = old.get("metrics") or []
    for metric in metrics:
        if _is_cpu(metric):
            percentage = metric["resource"].get("target", {}).get("averageUtilization")
            if percentage is not None:
                spec["targetCPUUtilizationPercentage"] = percentage
            break
    others = [m for m in metrics if not (_is_cpu(m) and "averageUtilization" in m["resource"].get("target", {}))]
    if others:
        annotations[_HPA_METRICS] = _dump([_spec_to_flat(metric) for metric in others])
    if old.get("behavior"):
        behavior = old["behavior"]
        sides = {"ScaleUp": behavior.get("scaleUp"), "ScaleDown": behavior.get("scaleDown")}
        annotations[_HPA_BEHAVIOR] = _dump({side: rules and _rules_to_go(rules) for side, rules in sides.items()})
    result: Object = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}
    if "status" in obj:
        before = obj["status"] or {}
        status = {k: v for k, v in before.items() if k not in ("currentMetrics", "conditions")}
        status.setdefault("currentReplicas", 0)  # v1 always writes it
        current = before.get("currentMetrics") or []
        for metric in current:
            if _is_cpu(metric):
                percentage = metric["resource"].get("current", {}).get("averageUtilization")
                if percentage is not None:
                    status["currentCPUUtilizationPercentage"] = percentage
                break
        if current:
            annotations[_HPA_CURRENT] = _dump([_status_to_flat(metric) for metric in current])
        if before.get("conditions"):
            annotations[_HPA_CONDITIONS] = _dump([_ordered(one, _CONDITION) for one in before["conditions"]])
        result["status"] = status
    result["metadata"] = _metadata(obj, annotations)
    result["spec"] = spec
    return {key: result[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in result}


_CONDITION = ("type", "status", "lastTransitionTime", "reason", "message")
_REFERENCE = ("kind", "name", "apiVersion")


def _ordered(obj: Object, names: tuple[str, ...]) -> Object:
    """Go writes a struct's fields in their order there; in an annotation that can be seen."""
    return {name: obj[name] for name in names if name in obj}


def _rules_to_go(rules: Object) -> Object:
    """The annotation holds upstream's internal struct: Go's names, and null for what is not set."""
    policies = rules.get("policies")
    return {
        "StabilizationWindowSeconds": rules.get("stabilizationWindowSeconds"),
        "SelectPolicy": rules.get("selectPolicy"),
        "Policies": policies
        and [
            {"Type": one.get("type"), "Value": one.get("value"), "PeriodSeconds": one.get("periodSeconds")}
            for one in policies
        ],
        "Tolerance": rules.get("tolerance"),
    }


def _from_go(value: Any) -> Any:
    """Names as JSON has them, nulls left out."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _from_go(item) for key, item in value.items() if item is not None}
    return [_from_go(item) for item in value] if isinstance(value, list) else value


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _is_cpu(metric: Object) -> bool:
    return metric.get("type") == "Resource" and (metric.get("resource") or {}).get("name") == "cpu"


_FLAT_TARGETS = (
    ("targetAverageUtilization", "averageUtilization", "Utilization"),
    ("targetAverageValue", "averageValue", "AverageValue"),
    ("targetValue", "value", "Value"),
)
_FLAT_CURRENTS = (
    ("currentAverageUtilization", "averageUtilization"),
    ("currentAverageValue", "averageValue"),
    ("currentValue", "value"),
)
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def _flat_identity(kind: str, source: Object) -> Object:
    """Name, container, selector and described object as v2beta1 writes them."""
    flat: Object = {}
    if kind in ("Resource", "ContainerResource"):
        flat["name"] = source.get("name", "")
        if kind == "ContainerResource":
            flat["container"] = source.get("container", "")
        return flat
    metric = source.get("metric") or {}
    if kind == "Object":
        flat["target"] = _ordered(source.get("describedObject") or {}, _REFERENCE)
    flat["metricName"] = metric.get("name", "")
    if metric.get("selector") is not None:
        flat["metricSelector" if kind == "External" else "selector"] = metric["selector"]
    return flat


def _unflat_identity(kind: str, flat: Object) -> Object:
    if kind in ("Resource", "ContainerResource"):
        source: Object = {"name": flat.get("name", "")}
        if kind == "ContainerResource":
            source["container"] = flat.get("container", "")
        return source
    metric: Object = {"name": flat.get("metricName", "")}
    selector = flat.get("metricSelector" if kind == "External" else "selector")
    if selector is not None:
        metric["selector"] = selector
    source = {"metric": metric}
    if kind == "Object":
        source["describedObject"] = flat.get("target") or {}
    return source


def _spec_to_flat(metric: Object) -> Object:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "")
    source = metric.get(field) or {}
    flat = _flat_identity(kind, source)
    target = source.get("target") or {}
    for name, key, _ in _FLAT_TARGETS:
        if target.get(key) is not None:
            flat["averageValue" if kind == "Object" and key == "averageValue" else name] = target[key]
    if kind == "Object" and "targetValue" not in flat:
        flat["targetValue"] = "0"  # the flat form has no absent value here
    return {"type": kind, field: _container_last(flat)}


def _spec_from_flat(metric: Object) -> Object:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "")
    flat = metric.get(field) or {}
    source = _unflat_identity(kind, flat)
    target: Object = {}
    average = flat.get("averageValue") if kind == "Object" else None
    if average is not None:
        target = {"type": "AverageValue", "averageValue": average}
    else:
        for name, key, type_ in _FLAT_TARGETS:
            if flat.get(name) is not None:
                target = {"type": type_, key: flat[name]}
                break
    source["target"] = target
    return {"type": kind, field: source}


def _status_to_flat(metric: Object) -> Object:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "")
    source = metric.get(field) or {}
    flat = _flat_identity(kind, source)
    current = source.get("current") or {}
    for name, key in _FLAT_CURRENTS:
        if current.get(key) is not None:
            flat["averageValue" if kind == "Object" and key == "averageValue" else name] = current[key]
    return {"type": kind, field: _container_last(flat)}


def _container_last(flat: Object) -> Object:
    """As the struct has it."""
    return {key: value for key, value in flat.items() if key != "container"} | {
        key: value for key, value in flat.items() if key == "container"
    }


def _status_from_flat(metric: Object) -> Object:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "")
    flat = metric.get(field) or {}
    source = _unflat_identity(kind, flat)
    current: Object = {}
    for name, key in _FLAT_CURRENTS:
        if flat.get(name) is not None:
            current[key] = flat[name]
    if kind == "Object" and flat.get("averageValue") is not None:
        current["averageValue"] = flat["averageValue"]
    source["current"] = current
    return {"type": kind, field: source}
