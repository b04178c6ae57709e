"""Silences: people's word that alerts need not be told of for a while.

Source: Alertmanager silence. A silence that was once active is never altered, but for its end and comment: what
changes its matchers ends it and makes another.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flyball.alerting.matchers import Mode, is_label_name, matches_all, new_matcher
from flyball.errors import NotFoundError, QueryError
from flyball.model.labels import Labels, Matcher, MatchType

RETENTION_MS = 120 * 3_600_000


class State(StrEnum):
    """Of a silence at a time."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Silence:
    """Times in ms. ``id`` is empty until it is set."""

    matchers: tuple[Matcher, ...]
    starts_ms: int
    ends_ms: int
    created_by: str = ""
    comment: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    updated_ms: int = 0

    def state(self, at_ms: int) -> State:
        if at_ms < self.starts_ms:
            return State.PENDING
        return State.EXPIRED if at_ms > self.ends_ms else State.ACTIVE


def check(silence: Silence, mode: Mode = Mode.FALLBACK) -> None:
    """
    Raises:
        QueryError: it has no matcher, only matchers that match all, a wrong name, or ends before it starts.
    """
    if not silence.matchers:
        raise QueryError("invalid silence: at least one matcher required")
    for index, matcher in enumerate(silence.matchers):
        if not is_label_name(matcher.name, mode):
            raise QueryError(f'invalid silence: invalid label matcher {index}: invalid label name "{matcher.name}"')
    negative = (MatchType.NOT_EQUAL, MatchType.NOT_REGEX)
    if all(matcher.type not in negative and matcher.matches("") for matcher in silence.matchers):
        raise QueryError("invalid silence: at least one matcher must not match the empty string")
    if silence.ends_ms < silence.starts_ms:
        raise QueryError("invalid silence: end time must not be before start time")


def can_update(old: Silence, new: Silence, at_ms: int) -> bool:
    """Whether the old one may become the new one without a new id."""
    if old.matchers != new.matchers:
        return False
    match old.state(at_ms):
        case State.ACTIVE:
            return old.starts_ms // 1000 == new.starts_ms // 1000 and new.ends_ms >= at_ms
        case State.PENDING:
            return new.starts_ms >= at_ms
    return False


class Silences:
    """All silences that are kept. Whatever changes one returns what changed, which the caller makes last."""

    def __init__(self, retention_ms: int = RETENTION_MS, new_id: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self.retention_ms = retention_ms
        self._new_id = new_id
        self._silences: dict[str, Silence] = {}
        self._version = 0
        self._matching: dict[Labels, tuple[int, tuple[str, ...]]] = {}

    def __iter__(self) -> Iterator[Silence]:
        return iter(self._silences.values())

    def __len__(self) -> int:
        return len(self._silences)

    def kept(self, at_ms: int) -> list[Silence]:
        """Those within their retention."""
        return [silence for silence in self if not self._is_past(silence, at_ms)]

    def get(self, id_: str) -> Silence:
        """
        Raises:
            NotFoundError: there is none of this id.
        """
        if id_ not in self._silences:
            raise NotFoundError(f"silence {id_} not found; it may be past its retention")
        return self._silences[id_]

    def put(self, silence: Silence, at_ms: int, mode: Mode = Mode.FALLBACK) -> list[Silence]:
        """Sets a new one, or alters the one of its id; the last of what is returned is the result.

        Raises:
            QueryError: it is not valid.
            NotFoundError: there is none of the id given.
        """
        check(silence, mode)
        old = self.get(silence.id) if silence.id else None
        if old is not None and can_update(old, silence, at_ms):
            return self._keep(replace(silence, updated_ms=at_ms))
        ended = self.expire(old.id, at_ms) if old is not None else []
        starts_ms = max(silence.starts_ms, at_ms)
        return ended + self._keep(replace(silence, id=self._new_id(), starts_ms=starts_ms, updated_ms=at_ms))

    def expire(self, id_: str, at_ms: int) -> list[Silence]:
        """Ends one at once; nothing changes when it was over.

        Raises:
            NotFoundError: there is none of this id.
        """
        silence = self.get(id_)
        state = silence.state(at_ms)
        if state is State.EXPIRED:
            return []
        starts_ms = at_ms if state is State.PENDING else silence.starts_ms
        return self._keep(replace(silence, starts_ms=starts_ms, ends_ms=at_ms, updated_ms=at_ms))

    def _keep(self, silence: Silence) -> list[Silence]:
        self._silences[silence.id] = silence
        self._version += 1
        return [silence]

    def merge(self, heard: Iterable[Silence], at_ms: int) -> list[Silence]:
        """What peers, or the disk, know: the newer of two wins, what is past its retention is left out."""
        changed = []
        for silence in heard:
            old = self._silences.get(silence.id)
            if self._is_past(silence, at_ms) or (old is not None and old.updated_ms >= silence.updated_ms):
                continue
            changed += self._keep(silence)
        return changed

    def drop_past(self, at_ms: int) -> list[str]:
        """Forgets those past their retention; returns their ids."""
        gone = [silence.id for silence in self if self._is_past(silence, at_ms)]
        for id_ in gone:
            del self._silences[id_]
        self._version += bool(gone)
        self._matching.clear()
        return gone

    def _is_past(self, silence: Silence, at_ms: int) -> bool:
        return silence.ends_ms + self.retention_ms <= at_ms

    def silenced_by(self, labels: Labels, at_ms: int) -> tuple[str, ...]:
        """The ids of the active ones that match a label set, in order."""
        version, ids = self._matching.get(labels, (-1, ()))
        if version != self._version:
            found = dict(labels)
            ids = tuple(sorted(one.id for one in self if matches_all(one.matchers, found)))
            self._matching[labels] = (self._version, ids)
        return tuple(id_ for id_ in ids if self._silences[id_].state(at_ms) is State.ACTIVE)


_TYPES = {
    (True, False): MatchType.EQUAL,
    (False, False): MatchType.NOT_EQUAL,
    (True, True): MatchType.REGEX,
    (False, True): MatchType.NOT_REGEX,
}


def read_matcher(document: Any) -> Matcher:
    """A matcher of the API.

    Raises:
        QueryError, ConfigError: a field is missing or the regular expression is wrong.
    """
    if not isinstance(document, Mapping) or not all(isinstance(document.get(one), str) for one in ("name", "value")):
        raise QueryError("a matcher must have name, value and isRegex")
    type_ = _TYPES[document.get("isEqual") is not False, bool(document.get("isRegex"))]
    return new_matcher(type_, document["name"], document["value"])


def matcher_document(matcher: Matcher) -> dict[str, Any]:
    """A matcher as the API shows it."""
    equal, regex = next(key for key, type_ in _TYPES.items() if type_ is matcher.type)
    return {"name": matcher.name, "value": matcher.value, "isRegex": regex, "isEqual": equal}
