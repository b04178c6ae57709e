"""HorizontalPodAutoscalers."""

from __future__ import annotations

from typing import Any

from flyball.localcluster.schema import quantity
from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import FORBIDDEN, Cause, Object, invalid, required, unsupported
from flyball.localcluster.schema.validation.names import label_name_problems, path_segment_problems

_METRIC_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_ONE_TO_ZERO = "must specify at least one Object or External metric to support scaling to zero replicas"


def check_hpa(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    # Zero is allowed since 1.37, where HPAScaleToZero is on by default.
    if isinstance(least, int) and least < 0:
        causes.append(invalid("spec.minReplicas", least, "must be greater than or equal to 0"))
    if isinstance(least, int) and isinstance(most, int) and most < least:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    if not most:
        causes.append(required("spec.maxReplicas"))
    elif most < 0:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than or equal to 1"))
    target = spec.get("scaleTargetRef") or {}
    causes += _reference(target, "spec.scaleTargetRef")
    causes += _target_group(target, ((old or {}).get("spec") or {}).get("scaleTargetRef") or {})
    metrics = spec.get("metrics") or []
    for index, metric in enumerate(metrics):
        field = f"spec.metrics[{index}]"
        causes += _metric(metric, field)
    if least == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        causes.append(Cause("spec.metrics", FORBIDDEN, _ONE_TO_ZERO))
    behavior = spec.get("behavior")
    if isinstance(behavior, dict):
        for side in ("scaleUp", "scaleDown"):
            if isinstance(behavior.get(side), dict):
                causes += _rules(behavior[side], f"spec.behavior.{side}")
    return causes


def _reference(reference: Any, field: str) -> list[Cause]:
    reference = reference if isinstance(reference, dict) else {}
    causes = []
    for name in ("kind", "name"):
        value = reference.get(name) or ""
        if not value:
            causes.append(required(f"{field}.{name}"))
        else:
            causes += [invalid(f"{field}.{name}", value, one) for one in path_segment_problems(value)]
    return causes


def _target_group(target: Object, before: Object) -> list[Cause]:
    """A scale target needs an API group, but a core ReplicationController and what was stored without one."""
    version = target.get("apiVersion") or ""
    stored = before and (before.get("apiVersion"), before.get("kind")) == (target.get("apiVersion"), target.get("kind"))
    if stored or version.count("/") == 1 or target.get("kind") == "ReplicationController":
        return []
    why = f"unexpected GroupVersion string: {version}" if "/" in version else "apiVersion must specify API group"
    return [invalid("spec.scaleTargetRef.apiVersion", version, why)]


def _metric(metric: Object, field: str) -> list[Cause]:
    kind = metric.get("type") or ""
    if not kind:
        missing = required(f"{field}.type", "must specify a metric source type")
        return [missing, unsupported(f"{field}.type", kind, _METRIC_SOURCES)]
    if kind not in _METRIC_SOURCES:
        return [unsupported(f"{field}.type", kind, _METRIC_SOURCES)]
    given = [name for name in sorted(_METRIC_SOURCES.values()) if metric.get(name) is not None]
    wanted = _METRIC_SOURCES[kind]
    if wanted not in given:
        return [required(f"{field}.{wanted}", "must populate information for the given metric source")]
    causes = [
        Cause(f"{field}.{name}", FORBIDDEN, "must populate the given metric source only")
        for name in given
        if name != wanted
    ]
    source, where = metric[wanted], f"{field}.{wanted}"
    target = source.get("target") or {}
    if kind in ("Resource", "ContainerResource"):
        name = source.get("name") or ""
        causes += [] if name else [required(f"{where}.name", "must specify a resource name")]
        if kind == "ContainerResource":
            container = source.get("container") or ""
            if not container:
                causes.append(required(f"{where}.container", "must specify a container"))
            else:
                causes += [invalid(f"{where}.container", container, one) for one in label_name_problems(container)]
    else:
        if kind == "Object":
            causes += _reference(source.get("describedObject"), f"{where}.describedObject")
        identifier = source.get("metric") or {}
        name = identifier.get("name") or ""
        if not name:
            causes.append(required(f"{where}.metric.name", "must specify a metric name"))
        else:
            causes += [invalid(f"{where}.metric.name", name, one) for one in path_segment_problems(name)]
    return causes + _target(kind, target, f"{where}.target")


def _target(kind: str, target: Object, field: str) -> list[Cause]:
    causes = []
    form = target.get("type") or ""
    if not form:
        causes.append(required(f"{field}.type", "must specify a metric target type"))
    if form not in ("Utilization", "Value", "AverageValue"):
        causes.append(invalid(f"{field}.type", form, "must be either Utilization, Value, or AverageValue"))
    for name in ("value", "averageValue"):
        amount = target.get(name)
        if amount is not None:
            try:
                positive = quantity.parse(amount) > 0
            except ValueError as error:
                causes.append(invalid(f"{field}.{name}", amount, str(error)))
                continue
            if not positive:
                causes.append(invalid(f"{field}.{name}", str(amount), "must be positive"))
    utilization = target.get("averageUtilization")
    if isinstance(utilization, int) and utilization < 1:
        causes.append(invalid(f"{field}.averageUtilization", utilization, "must be greater than 0"))
    has_value, has_average = target.get("value") is not None, target.get("averageValue") is not None
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and not has_average:
            causes.append(
                required(f"{field}.averageUtilization", "must set either a target raw value or a target utilization")
            )
        if utilization is not None and has_average:
            causes.append(
                Cause(
                    f"{field}.averageValue",
                    FORBIDDEN,
                    "may not set both a target raw value and a target utilization",
                )
            )
    elif kind == "Pods":
        if not has_average:
            causes.append(required(f"{field}.averageValue", "must specify a positive target averageValue"))
    elif kind == "Object":
        if not has_value and not has_average:
            causes.append(required(f"{field}.averageValue", "must set either a target value or averageValue"))
    elif kind == "External":
        if not has_value and not has_average:
            causes.append(
                required(f"{field}.averageValue", "must set either a target value for metric or a per-pod target")
            )
        if has_value and has_average:
            causes.append(
                Cause(f"{field}.value", FORBIDDEN, "may not set both a target value for metric and a per-pod target")
            )
    return causes


def _rules(rules: Object, field: str) -> list[Cause]:
    causes = []
    window = rules.get("stabilizationWindowSeconds")
    if isinstance(window, int):
        if window < 0:
            causes.append(
                invalid(f"{field}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
            )
        elif window > 3600:
            causes.append(invalid(f"{field}.stabilizationWindowSeconds", window, "must be less than or equal to 3600"))
    choice = rules.get("selectPolicy")
    if choice is not None and choice not in ("Max", "Min", "Disabled"):
        causes.append(unsupported(f"{field}.selectPolicy", choice, ("Disabled", "Max", "Min")))
    policies = rules.get("policies")
    if not policies:
        causes.append(required(f"{field}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies or ()):
        where = f"{field}.policies[{index}]"
        if policy.get("type") not in ("Pods", "Percent"):
            causes.append(unsupported(f"{where}.type", policy.get("type") or "", ("Percent", "Pods")))
        value, period = policy.get("value", 0), policy.get("periodSeconds", 0)
        if not isinstance(value, int) or value <= 0:
            causes.append(invalid(f"{where}.value", value, "must be greater than zero"))
        if not isinstance(period, int) or period <= 0:
            causes.append(invalid(f"{where}.periodSeconds", period, "must be greater than zero"))
        elif period > 1800:
            causes.append(invalid(f"{where}.periodSeconds", period, "must be less than or equal to 1800"))
    tolerance = rules.get("tolerance")
    if tolerance is not None:
        try:
            negative = quantity.parse(tolerance) < 0
        except ValueError as error:
            causes.append(invalid(f"{field}.tolerance", tolerance, str(error)))
        else:
            if negative:
                causes.append(invalid(f"{field}.tolerance", str(tolerance), "must be greater than or equal to 0"))
    return causes
