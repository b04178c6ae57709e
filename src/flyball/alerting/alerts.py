"""Alerts as values: what a sender said last of one label set.

Instants of alerts are nanoseconds since the epoch, as senders write them and receivers read them; 0 is none. The time
of an evaluation is in ms, as everywhere.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flyball.alerting.matchers import Mode, is_label_name
from flyball.errors import QueryError
from flyball.model.labels import Labels, labels_of

MS = 1_000_000
_FNV_OFFSET, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


@functools.lru_cache(maxsize=65_536)
def fingerprint(labels: Labels) -> str:
    """Sixteen hexadecimal digits that name a label set. Source: prometheus/common model, labelSetToFingerprint."""
    value = _FNV_OFFSET
    for name, text in labels:
        for byte in b"%b\xff%b\xff" % (name.encode(), text.encode()):
            value = ((value ^ byte) * _FNV_PRIME) & _MASK
    return f"{value:016x}"


@dataclass(frozen=True, slots=True)
class Alert:
    """Attributes:
    ends_ns: when it is over, or will be taken for over; 0 where it is known to fire (in a notification).
    updated_ms: when it was heard of last.
    timeout: whether the end was set here, as the sender gave none.
    """

    labels: Labels
    annotations: Labels = ()
    starts_ns: int = 0
    ends_ns: int = 0
    updated_ms: int = 0
    timeout: bool = False
    generator_url: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.labels)

    @property
    def name(self) -> str:
        return dict(self.labels).get("alertname", "")

    def resolved_at(self, at_ms: int) -> bool:
        return 0 < self.ends_ns <= at_ms * MS


def merge(old: Alert, new: Alert, at_ms: int) -> Alert:
    """What two reports of one alert say together, where their times overlap; else the newer one alone.

    Source: Alertmanager provider/mem (Put) and alert (Merge).
    """
    if not (old.starts_ns < new.ends_ns < old.ends_ns or old.starts_ns < new.starts_ns < old.ends_ns):
        return new
    if new.updated_ms < old.updated_ms:
        old, new = new, old
    ends_ns = new.ends_ns
    if old.ends_ns > new.ends_ns and (old.resolved_at(at_ms) if new.resolved_at(at_ms) else not old.timeout):
        ends_ns = old.ends_ns
    return replace(new, starts_ns=min(old.starts_ns, new.starts_ns), ends_ns=ends_ns)


def read_alert(document: Any, at_ms: int, resolve_timeout_ms: int, mode: Mode = Mode.FALLBACK) -> Alert:
    """A posted alert, with the times that its sender left out.

    Raises:
        QueryError: it has no labels, or a name, value or time is not valid.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("labels"), Mapping):
        raise QueryError("an alert must have labels")
    labels, annotations = _labels(document["labels"], mode), _labels(document.get("annotations") or {}, mode)
    if not labels:
        raise QueryError("at least one label pair required")
    starts_ns, ends_ns = (parse_time_ns(document.get(name) or "") for name in ("startsAt", "endsAt"))
    starts_ns = starts_ns or ends_ns or at_ms * MS
    if ends_ns and ends_ns < starts_ns:
        raise QueryError("start time must be before end time")
    return Alert(
        labels=labels,
        annotations=annotations,
        starts_ns=starts_ns,
        ends_ns=ends_ns or (at_ms + resolve_timeout_ms) * MS,
        updated_ms=at_ms,
        timeout=not ends_ns,
        generator_url=str(document.get("generatorURL") or ""),
    )


def _labels(pairs: Any, mode: Mode) -> Labels:
    if not isinstance(pairs, Mapping):
        raise QueryError("labels and annotations must be mappings of text")
    for name, value in pairs.items():
        if not is_label_name(name, mode):
            raise QueryError(f'invalid label set: invalid name "{name}"')
        if not isinstance(value, str):
            raise QueryError(f'invalid label set: the value of "{name}" must be text')
    return labels_of(pairs)


def parse_time_ns(text: Any) -> int:
    """An RFC 3339 time in ns; 0 for an empty text and for Go's zero time.

    Raises:
        QueryError: the text is not a time.
    """
    if not text:
        return 0
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    try:
        if found is None:
            raise ValueError(text)
        at = datetime.fromisoformat(found[1].upper().replace(" ", "T") + found[3].upper().replace("Z", "+00:00"))
    except ValueError as exc:
        raise QueryError(f'"{text}" is not a time; write one like 2026-01-02T03:04:05Z') from exc
    if at.year == 1:
        return 0
    return int((at - _EPOCH).total_seconds()) * 1_000_000_000 + int((found[2] or "0").ljust(9, "0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def in_order(alerts: Iterable[Alert]) -> list[Alert]:
    """By job, instance and then all labels, as notifications list them."""
    return sorted(alerts, key=functools.cmp_to_key(_compare))


def _compare(first_alert: Alert, second_alert: Alert) -> int:
    one, two = dict(first_alert.labels), dict(second_alert.labels)
    for name in ("job", "instance"):
        first, second = one.get(name), two.get(name)
        if first != second:
            return (first is None) - (second is None) or (-1 if str(first) < str(second) else 1)
    return compare_labels(one, two)


def compare_labels(one: Mapping[str, str], two: Mapping[str, str]) -> int:
    """-1, 0 or 1: fewer labels first, then by name and value. Source: prometheus/common model, LabelSet.Before."""
    if len(one) != len(two):
        return -1 if len(one) < len(two) else 1
    for name in sorted({*one, *two}):
        if name not in one or name not in two:
            return -1 if name not in one else 1
        if one[name] != two[name]:
            return -1 if one[name] < two[name] else 1
    return 0
