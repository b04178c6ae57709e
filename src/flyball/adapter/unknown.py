"""Metrics that somebody asks for and no rule gives: when it is worth to list the series again for them."""

from collections.abc import Set
from dataclasses import dataclass, field

NAMES_MAX = 1_000


@dataclass(slots=True)
class UnknownMetrics:
    """A name is a reason at once, then after ``min_s``, twice that and so on; times in s.

    Attributes:
        min_s: the shortest time between two reasons of any name.
        max_s: the longest of one name.
    """

    min_s: float
    max_s: float
    _waits: dict[str, tuple[float, float]] = field(default_factory=dict)  # name -> (not before, then wait)
    _not_before_s: float = 0.0

    def is_reason(self, name: str, now_s: float) -> bool:
        """Told of each asking; whether the series should be listed now because of it."""
        if name not in self._waits and len(self._waits) >= NAMES_MAX:
            name = ""  # those beyond share one place: nobody gets listings by inventing names
        not_before_s, wait_s = self._waits.get(name, (0.0, self.min_s))
        if now_s < max(not_before_s, self._not_before_s):
            return False
        self._waits[name] = (now_s + wait_s, min(2 * wait_s, self.max_s))
        self._not_before_s = now_s + self.min_s
        return True

    def forget(self) -> None:
        """The rules have changed."""
        self._waits.clear()

    def known(self, names: Set[str]) -> None:
        """These are given now: should one go away, it is asked for anew."""
        for name in self._waits.keys() & names:
            del self._waits[name]
