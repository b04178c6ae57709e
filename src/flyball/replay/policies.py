"""Policies from manifests, checked as an API server checks them."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from flyball.errors import ConfigError
from flyball.kube.applying import read_manifests
from flyball.kube.kinds import GOVERNORS, HPAS_V2
from flyball.localcluster import schema
from flyball.scaling import spec_from_hpa
from flyball.scaling.governor import Governor, governor_from_object, need_extra

_HPA_FIELDS = {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"}
#: What a Governor adds, with the fields inside where there are any.
_GOVERNOR_FIELDS: dict[str, set[str]] = {
    "profile": set(),
    "schedule": {"name", "timeZone", "start", "end", "minReplicas", "maxReplicas", "dates", "exceptions"},
    "forecast": {"startupSeconds", "maxReplicas", "model"},
    "fallback": {"afterSeconds", "replicas"},
    "override": {"replicas", "until"},
    "pause": set(),
    "shadow": set(),
}


class Policy(msgspec.Struct, frozen=True):
    """What is tried: an HPA is a Governor of profile parity; a peer is an algorithm by name."""

    name: str
    governor: Governor | None = None
    peer: str = ""


def read_policies(paths: Sequence[Path]) -> list[Policy]:
    """The HPAs and Governors of manifests, in order.

    Raises:
        ConfigError: a manifest cannot be read, or holds neither.
    """
    found: list[Policy] = []
    for path in paths:
        before, kinds = len(found), []
        for where, obj in read_manifests(path):
            if isinstance(obj, ConfigError):
                raise obj
            kinds.append(str(obj.get("kind")))
            if obj.get("kind") in ("HorizontalPodAutoscaler", GOVERNORS.kind):
                try:
                    policy = policy_of(obj)
                except ConfigError as error:
                    raise ConfigError(f"{where}: {error}") from error
                taken = any(policy.name == other.name for other in found)
                found.append(replace(policy, name=f"{path.stem}/{policy.name}") if taken else policy)
        if len(found) == before:
            holds = f"; it holds {', '.join(kinds)}" if kinds else ""
            raise ConfigError(f"{path} holds no HorizontalPodAutoscaler (autoscaling/v2) and no Governor to try{holds}")
    return found


def policy_of(obj: Mapping[str, Any]) -> Policy:
    """The HPA or Governor of a manifest.

    Raises:
        ConfigError: a field is unknown or wrong, or it has a metric that cannot be replayed.
    """
    name, governs = str(obj["metadata"]["name"]), obj["kind"] == GOVERNORS.kind
    if not governs and obj.get("apiVersion") != HPAS_V2.api_version:
        raise ConfigError(f"HPA {name} is {obj.get('apiVersion')}; write it as autoscaling/v2 (kubectl convert)")
    try:
        _check(obj, governs)
        governor = governor_from_object(obj) if governs else Governor(spec_from_hpa(obj))
        if governor.forecast is not None:
            need_extra(governor.forecast.model)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    for metric in governor.spec.metrics:
        if metric.target.average_utilization is None and metric.type in ("Resource", "ContainerResource"):
            what, instead = "a resource's averageValue", "averageUtilization"
        elif metric.target.average_utilization is None and metric.target.average_value is None:
            what, instead = "a target of type Value", "averageValue"
        else:
            continue
        raise ConfigError(
            f"{name}: metric {metric.name} has {what}: how it follows the load is not known here; try {instead}"
        )
    return Policy(name, governor)


def _check(obj: Mapping[str, Any], governs: bool) -> None:
    """Raises ConfigError for the first thing that an API server would refuse, or that it would drop without a word."""
    spec = obj.get("spec") or {}
    known = _HPA_FIELDS | (_GOVERNOR_FIELDS.keys() if governs else set())
    _only(spec, known, "spec")
    for field, inside in _GOVERNOR_FIELDS.items() if governs else ():
        parts = spec.get(field) if isinstance(spec.get(field), list) else [spec.get(field)]
        for at, part in enumerate(parts or []):
            if isinstance(part, dict):
                _only(part, inside, f"spec.{field}[{at}]" if field == "schedule" else f"spec.{field}")
    hpa = {"apiVersion": HPAS_V2.api_version, "kind": HPAS_V2.kind, "metadata": dict(obj["metadata"])}
    hpa["spec"] = copy.deepcopy({field: value for field, value in spec.items() if field in _HPA_FIELDS})
    kind = schema.find_kind("autoscaling", "v2", HPAS_V2.kind)
    assert kind is not None
    problems = schema.type_errors(kind, hpa) or schema.validate_fields(kind, hpa)
    if problems:
        raise ConfigError(f"{problems[0]}; kubectl explain hpa.spec --api-version=autoscaling/v2 --recursive has them")
    schema.default(kind, hpa)
    for cause in schema.validate(kind, hpa, None):
        if cause.field.startswith("spec"):  # its namespace is nobody's business here
            raise ConfigError(cause.message)


def _only(given: Mapping[str, Any], known: set[str], path: str) -> None:
    for field in given.keys() - known:
        near = difflib.get_close_matches(field, known, 1)
        raise ConfigError(f'unknown field "{path}.{field}"' + (f"; {path}.{near[0]} is meant?" if near else ""))
