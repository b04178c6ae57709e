"""What families are made of: functions from an object to series, and shorthands for the usual ones.

Names, labels and values are those of kube-state-metrics (reference/stack.md section 5). A field that the API leaves
out counts as its Go zero value only where upstream's field is no pointer: ``zero`` says so.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from flyball.kube import Resource
from flyball.model.quantities import parse_quantity

Object = Mapping[str, Any]
Pairs = tuple[tuple[str, str], ...]
Series = Iterable[tuple[Pairs, float]]

STATUSES = ("true", "false", "unknown")
_BYTES = ("memory", "storage", "ephemeral-storage")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric of a kind of object; ``series`` gives the labels beyond the object's own."""

    name: str
    help: str
    series: Callable[[Object], Series]
    type: Literal["gauge", "counter"] = "gauge"


@dataclass(frozen=True, slots=True)
class Kind:
    """A watched resource; ``own`` gives the labels that every series of an object begins with."""

    resource: Resource
    own: Callable[[Object], Pairs]
    families: tuple[Family, ...]


def own_labels(*labels: tuple[str, str]) -> Callable[[Object], Pairs]:
    """From (label, field of metadata)."""
    return lambda obj: tuple((label, str(obj["metadata"].get(field, ""))) for label, field in labels)


def namespaced(label: str) -> Callable[[Object], Pairs]:
    return own_labels(("namespace", "namespace"), (label, "name"))


def at(obj: Any, path: str) -> Any:
    """The value at a dotted path; None when it is not there."""
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, Mapping) else None
    return obj


def number(path: str, *, zero: bool = False) -> Callable[[Object], Series]:
    """The number or boolean at a path."""

    def series(obj: Object) -> Series:
        value = at(obj, path)
        if isinstance(value, str) and not value.isdigit():
            return ()
        return () if value is None and not zero else [((), float(value or 0))]

    return series


def time(path: str) -> Callable[[Object], Series]:
    """The time at a path, in unix seconds."""

    def series(obj: Object) -> Series:
        value = at(obj, path)
        return [((), unix_s(value))] if value else ()

    return series


def info(*labels: tuple[str, str]) -> Callable[[Object], Series]:
    """1, with (label, path) pairs; what is absent is an empty label."""
    return lambda obj: [(tuple((label, text(at(obj, path))) for label, path in labels), 1.0)]


def one_of(label: str, path: str, values: tuple[str, ...]) -> Callable[[Object], Series]:
    """A series a value, 1 for the present one; none at all while the field is empty."""

    def series(obj: Object) -> Series:
        now = at(obj, path)
        return [(((label, value),), float(value == now)) for value in values] if now else ()

    return series


def conditions(path: str, label: str = "condition") -> Callable[[Object], Series]:
    """A series a condition and status."""

    def series(obj: Object) -> Iterator[tuple[Pairs, float]]:
        for condition in at(obj, path) or ():
            for pairs, value in statuses(condition.get("status"), "status"):
                yield ((label, condition["type"]), *pairs), value

    return series


def statuses(now: object, label: str) -> Series:
    """true, false and unknown; 1 for the present one."""
    return [(((label, status),), float(status == str(now).lower())) for status in STATUSES]


def owners(*, controller: bool = True) -> Callable[[Object], Series]:
    """A series an owner; one with empty labels when there is none."""

    def series(obj: Object) -> Iterator[tuple[Pairs, float]]:
        none: list[dict[str, Any]] = [{}]
        for owner in obj["metadata"].get("ownerReferences") or none:
            is_controller = text(owner.get("controller", False)) if owner else ""
            flag = (("owner_is_controller", is_controller),) if controller else ()
            yield (("owner_kind", owner.get("kind", "")), ("owner_name", owner.get("name", "")), *flag), 1.0

    return series


def resources(amounts: Mapping[str, object] | None, before: Pairs = ()) -> Iterator[tuple[Pairs, float]]:
    """Amounts with their unit: cores, bytes, or integers of extended resources."""
    for name, amount in sorted((amounts or {}).items()):
        value = quantity(amount)
        if name == "cpu":
            unit = "core"
        elif name in _BYTES or name.startswith(("hugepages-", "attachable-volumes-")):
            unit, value = "byte", float(-(-value // 1))
        elif name == "pods" or "/" in name:
            unit, value = "integer", float(-(-value // 1))
        else:
            continue
        yield (*before, ("resource", sanitized(name)), ("unit", unit)), value


def quantity(amount: object) -> float:
    """In its unit, to a thousandth, rounded up as the API's own reading of milli-units is."""
    found = parse_quantity(str(amount))
    whole = found.value()
    return float(whole) if abs(whole) > 2**63 // 1000 else found.scaled_value(-3) / 1000


def sanitized(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def unix_s(value: str) -> float:
    """Whole seconds, as Go's ``Unix()``."""
    return float(int(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() // 1))


def text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
