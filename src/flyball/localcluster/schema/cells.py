"""Cells of a printed row: ages, texts and numbers as upstream writes them, absent ones included."""

from __future__ import annotations

from datetime import datetime
from typing import Any

Object = dict[str, Any]
Cell = str | int
Row = list[Cell]


def human_duration(seconds: float) -> str:
    """Upstream's ``duration.HumanDuration``: two units at most ("9m5s", "3h", "2d4h"); ``seconds`` may be negative."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    if hours < 24 * 365 * 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def time_s(stamp: Any) -> float | None:
    if not isinstance(stamp, str) or not stamp:
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None


def since(stamp: Any, now_ms: int) -> str:
    at = time_s(stamp)
    return "<unknown>" if at is None else human_duration(now_ms / 1000 - at)


def age_of(obj: Object, now_ms: int) -> str:
    return since(value_at(obj, "metadata", "creationTimestamp"), now_ms)


def value_at(obj: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(name)
    return obj


def list_at(obj: Any, *path: str) -> list[Any]:
    found = value_at(obj, *path)
    return found if isinstance(found, list) else []


def int_at(obj: Any, *path: str) -> int:
    """An integer that upstream prints as 0 when absent (Go's zero value in a status)."""
    found = value_at(obj, *path)
    return found if isinstance(found, int) else 0


def text_at(obj: Any, *path: str, absent: str = "<none>") -> str:
    found = value_at(obj, *path)
    return absent if found is None or found == "" else str(found)


def name_of(obj: Object) -> str:
    return str(value_at(obj, "metadata", "name") or "")


def selector_text(selector: Any) -> str:
    """A LabelSelector or a plain map, as ``metav1.FormatLabelSelector`` prints it."""
    if not isinstance(selector, dict):
        return "<none>"
    plain = selector
    expressions: list[Any] = []
    if "matchLabels" in selector or "matchExpressions" in selector:
        plain, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    parts = [(str(key), f"{key}={value}") for key, value in plain.items()]
    for one in expressions:
        key, values = str(one.get("key")), ",".join(sorted(map(str, one.get("values") or [])))
        shape = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append((key, shape.get(str(one.get("operator")), key)))
    return ",".join(text for _, text in sorted(parts)) or "<none>"


def containers_of(spec: Any) -> tuple[str, str]:
    containers = [c for c in list_at(spec, "containers") if isinstance(c, dict)]
    return ",".join(str(c.get("name", "")) for c in containers), ",".join(str(c.get("image", "")) for c in containers)


def condition_of(obj: Object, kind: str) -> Object | None:
    for one in list_at(obj, "status", "conditions"):
        if isinstance(one, dict) and one.get("type") == kind:
            return one
    return None
