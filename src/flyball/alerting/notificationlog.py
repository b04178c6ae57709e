"""The notification log: what each receiver was told last of each group, and whether it must be told again.

Source: Alertmanager nflog, notify/dedup_stage.go. Without it a restart, or a second replica, repeats every group.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

RETENTION_MS = 120 * 3_600_000


class Reason(StrEnum):
    """Why a notification is sent."""

    NONE = "none"
    FIRST = "first notification"
    NEW_ALERTS = "new alerts added"
    NEW_RESOLVED = "some alerts resolved"
    ALL_RESOLVED = "all alerts resolved"
    REPEAT = "repeat interval elapsed"


@dataclass(frozen=True, slots=True)
class Entry:
    """Attributes:
    receiver: the receiver, kind and place of the integration that was told.
    firing, resolved: fingerprints of the alerts it was told of.
    data: what the integration keeps for its next message, such as the place of the last one.
    """

    receiver: str
    group_key: str
    at_ms: int
    expires_ms: int
    firing: frozenset[str] = frozenset()
    resolved: frozenset[str] = frozenset()
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.group_key}\0{self.receiver}"


@dataclass(frozen=True, slots=True)
class Telling:
    """The question that the log answers.

    Attributes:
        firing, resolved: fingerprints of the group's alerts.
        at_ms: when the flush began, which repeats count from.
    """

    firing: frozenset[str]
    resolved: frozenset[str]
    send_resolved: bool
    repeat_interval_ms: int
    at_ms: int


def why(entry: Entry | None, telling: Telling) -> Reason:
    """Whether an integration must be told, given what it was told last."""
    if entry is None:
        return Reason.FIRST if telling.firing else Reason.NONE
    if not telling.firing <= entry.firing:
        return Reason.NEW_ALERTS if entry.firing else Reason.FIRST
    if not telling.firing:
        # Said whether or not resolved alerts are sent, so that the log no longer holds them as firing.
        return Reason.ALL_RESOLVED if entry.firing else Reason.NONE
    if telling.send_resolved and not telling.resolved <= entry.resolved:
        return Reason.NEW_RESOLVED
    return Reason.REPEAT if entry.at_ms < telling.at_ms - telling.repeat_interval_ms else Reason.NONE


class NotificationLog:
    """Entries by group and integration. What changes is returned, so that the caller makes it last."""

    def __init__(self, retention_ms: int = RETENTION_MS) -> None:
        self.retention_ms = retention_ms
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, receiver: str, group_key: str) -> Entry | None:
        return self._entries.get(f"{group_key}\0{receiver}")

    def expiry_ms(self, at_ms: int, repeat_interval_ms: int) -> int:
        """Until when an entry written now is kept."""
        return at_ms + min(self.retention_ms, 2 * repeat_interval_ms)

    def put(self, entry: Entry) -> list[Entry]:
        """Empty when what is there is newer."""
        old = self._entries.get(entry.key)
        if old is not None and old.at_ms > entry.at_ms:
            return []
        self._entries[entry.key] = entry
        return [entry]

    def merge(self, heard: Iterable[Entry], at_ms: int) -> list[Entry]:
        """What peers, or the disk, know: the newer of two wins, what has expired is left out."""
        changed = []
        for entry in heard:
            old = self._entries.get(entry.key)
            if entry.expires_ms > at_ms and (old is None or old.at_ms < entry.at_ms):
                changed += self.put(entry)
        return changed

    def drop_past(self, at_ms: int) -> list[str]:
        """Forgets what has expired; returns the keys."""
        gone = [entry.key for entry in self if entry.expires_ms <= at_ms]
        for key in gone:
            del self._entries[key]
        return gone
