"""Where a pod may go: tolerations, node selectors, affinity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flyball.localcluster.schema.validation.causes import FORBIDDEN, Cause, Object, invalid, required, unsupported
from flyball.localcluster.schema.validation.names import (
    check_labels,
    check_selector,
    label_value_problems,
    qualified_problems,
    subdomain_problems,
)

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def check_placement(spec: Object, field: str) -> list[Cause]:
    """The parts of a pod's spec that the scheduler reads."""
    causes = check_labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    causes += _affinity(spec.get("affinity") or {}, f"{field}.affinity")
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        causes += _toleration(toleration, f"{field}.tolerations[{index}]")
    return causes


def _toleration(one: Object, field: str) -> Iterator[Cause]:
    key, operator, value = (one.get(name) or "" for name in ("key", "operator", "value"))
    effect = one.get("effect") or ""
    if key:
        yield from (invalid(f"{field}.key", key, text) for text in qualified_problems(key))
    elif operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid(f"{field}.operator", operator, why)
    if one.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield invalid(f"{field}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator in ("", "Equal"):
        problems = label_value_problems(value)
        if problems:
            yield invalid(f"{field}.operator", value, ";".join(problems))
    elif operator == "Exists":
        if value:
            yield invalid(f"{field}.operator", value, "value must be empty when `operator` is 'Exists'")
    else:
        known = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
        yield unsupported(f"{field}.operator", operator, known, in_order=True)
    if effect and effect not in _EFFECTS:
        yield unsupported(f"{field}.effect", effect, _EFFECTS, in_order=True)


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _affinity(affinity: Object, field: str) -> Iterator[Cause]:
    node = affinity.get("nodeAffinity") or {}
    where = f"{field}.nodeAffinity"
    if node.get(_REQUIRED) is not None:
        terms, at = node[_REQUIRED].get("nodeSelectorTerms") or (), f"{where}.{_REQUIRED}.nodeSelectorTerms"
        if not terms:
            yield required(at, "must have at least one node selector term")
        for index, term in enumerate(terms):
            yield from _node_term(term, f"{at}[{index}]")
    for index, weighted in enumerate(node.get(_PREFERRED) or ()):
        at = f"{where}.{_PREFERRED}[{index}]"
        yield from _weight(weighted, at)
        yield from _node_term(weighted.get("preference") or {}, f"{at}.preference")
    for name in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(name) or {}
        for index, term in enumerate(pods.get(_REQUIRED) or ()):
            yield from _pod_term(term, f"{field}.{name}.{_REQUIRED}[{index}]")
        for index, weighted in enumerate(pods.get(_PREFERRED) or ()):
            at = f"{field}.{name}.{_PREFERRED}[{index}]"
            yield from _weight(weighted, at)
            yield from _pod_term(weighted.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm")


def _weight(weighted: Object, field: str) -> Iterator[Cause]:
    weight = weighted.get("weight") or 0
    if not 1 <= weight <= 100:
        yield invalid(f"{field}.weight", weight, "must be in the range 1-100")


def _pod_term(term: Object, field: str) -> Iterator[Cause]:
    yield from check_selector(term.get("labelSelector"), f"{field}.labelSelector")
    topology = term.get("topologyKey") or ""
    if not topology:
        yield required(f"{field}.topologyKey", "can not be empty")
    yield from (invalid(f"{field}.topologyKey", topology, text) for text in qualified_problems(topology))


def _node_term(term: Object, field: str) -> Iterator[Cause]:
    for index, one in enumerate(term.get("matchExpressions") or ()):
        yield from _node_expression(one, f"{field}.matchExpressions[{index}]")
    for index, one in enumerate(term.get("matchFields") or ()):
        yield from _node_field(one, f"{field}.matchFields[{index}]")


def _node_expression(one: Object, field: str) -> Iterator[Cause]:
    key, operator, values = one.get("key") or "", one.get("operator") or "", one.get("values") or []
    at = f"{field}.values"
    if operator in ("In", "NotIn"):
        if not values:
            yield required(at, "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield Cause(at, FORBIDDEN, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            yield required(at, "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        yield invalid(f"{field}.operator", operator, "not a valid selector operator")
    yield from (invalid(f"{field}.key", key, text) for text in qualified_problems(key))
    for index, value in enumerate(values):
        yield from (invalid(f"{at}[{index}]", value, text) for text in label_value_problems(value))


def _node_field(one: Object, field: str) -> Iterator[Cause]:
    key, operator, values = one.get("key"), one.get("operator") or "", one.get("values") or []
    if operator not in ("In", "NotIn"):
        yield invalid(f"{field}.operator", operator, "not a valid selector operator")
    elif len(values) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        yield required(f"{field}.values", why)
    if key != "metadata.name":
        yield invalid(f"{field}.key", key, "not a valid field selector key")
        return
    for index, value in enumerate(values):
        yield from (invalid(f"{field}.values[{index}]", value, text) for text in subdomain_problems(_text(value)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
