"""What is evaluated: an HPA or a Governor, decoded."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import msgspec

from flyball.autoscaler.pods import Key
from flyball.kube import Resource
from flyball.kube.kinds import GOVERNORS
from flyball.scaling import Observation, Settings, Spec, spec_from_hpa
from flyball.scaling.governor import NAME_PREFIX, Governor, governor_from_object

Object = dict[str, Any]

_MEASURED_FROM = 3  # pods, before their start-up time is believed


class Subject(msgspec.Struct, frozen=True):
    """An HPA (``governor`` None) or a Governor with its object."""

    resource: Resource
    obj: Object
    spec: Spec
    governor: Governor | None = None

    @classmethod
    def of(cls, resource: Resource, obj: Object, settings: Settings) -> "Subject":
        """Decode.

        Raises:
            ConfigError: a field is wrong.
        """
        if resource is GOVERNORS:
            governor = governor_from_object(obj, settings)
            return cls(resource, obj, governor.spec, governor)
        return cls(resource, obj, spec_from_hpa(obj, settings))

    @classmethod
    def unreadable(cls, resource: Resource, obj: Object) -> "Subject":
        """Of an object with a wrong field: who it is, and nothing to do."""
        meta = obj.get("metadata") or {}
        namespace, name = key_of(resource, obj)
        spec = Spec(namespace, name, str(meta.get("uid", "")), "", "", "", 0, 0, ())
        return cls(resource, obj, spec, Governor(spec) if resource is GOVERNORS else None)

    def acts(self, on_hpas: bool) -> bool:
        """Whether its decisions are written."""
        return on_hpas if self.governor is None else not self.governor.shadow

    @property
    def scaled_to_zero(self) -> bool:
        """Whether no replicas is a size to wake from; a Governor says so by its minimum, and pauses by a field."""
        if self.governor is not None:
            return self.spec.min_replicas == 0
        return any(
            condition.get("type") == "ScaledToZero" and condition.get("status") == "True"
            for condition in (self.obj.get("status") or {}).get("conditions") or []
        )


def key_of(resource: Resource, obj: Mapping[str, Any]) -> Key:
    """Under which it is known: a Governor's name has a prefix that no object's name can have."""
    meta = obj.get("metadata") or {}
    prefix = NAME_PREFIX if resource is GOVERNORS else ""
    return str(meta.get("namespace", "")), prefix + str(meta.get("name", ""))


def refusal(subject: Subject, hpas: Iterable[Object], governors: Iterable[Object]) -> str:
    """Why a Governor must not act, "" when it may: two writers of one scale undo each other's work."""
    governor = subject.governor
    if governor is None or governor.shadow:
        return ""
    mine = _target(subject.obj)
    for hpa in hpas:
        if _target(hpa) == mine:
            return (
                f"{governor.spec.reference} is also the target of HorizontalPodAutoscaler "
                f"{hpa['metadata']['name']}; delete that, or set spec.shadow: true to decide beside it without acting"
            )
    for other in governors:
        shadow = bool((other.get("spec") or {}).get("shadow"))
        if not shadow and _target(other) == mine and _age(other) < _age(subject.obj):
            return (
                f"{governor.spec.reference} is also the target of the older Governor {other['metadata']['name']}; "
                "delete one of them, or set spec.shadow: true"
            )
    return ""


def _target(obj: Mapping[str, Any]) -> tuple[str, str, str, str]:
    ref = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    group = str(ref.get("apiVersion") or "").rpartition("/")[0]
    namespace = str((obj.get("metadata") or {}).get("namespace", ""))
    return namespace, group, str(ref.get("kind", "")), str(ref.get("name", ""))


def _age(obj: Mapping[str, Any]) -> tuple[str, str]:
    meta = obj.get("metadata") or {}
    return str(meta.get("creationTimestamp") or ""), str(meta.get("name", ""))


def startup_s(governor: Governor, seen: Observation) -> float:
    """How long a pod takes to be ready: as declared, else as its pods have taken (median), else the default."""
    if governor.forecast is not None and governor.forecast.declared:
        return governor.forecast.startup_s
    taken_s = [
        (pod.ready_since_ms - pod.start_ms) / 1000
        for pod in seen.pods
        if pod.ready == "True" and pod.start_ms is not None and pod.ready_since_ms >= pod.start_ms
    ]
    return max(1.0, median(taken_s)) if len(taken_s) >= _MEASURED_FROM else governor.lead_s
