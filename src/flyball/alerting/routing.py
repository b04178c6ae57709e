"""The routing tree: which receivers an alert goes to, and in which group.

Source: Alertmanager dispatch/route.go. Children inherit what they do not set, but for the time intervals.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flyball.alerting.matchers import matches_all, show
from flyball.model.gofunctions import go_quote
from flyball.model.labels import Labels, Matcher


@dataclass(frozen=True, slots=True)
class Route:
    """One node, with what it inherited.

    Attributes:
        group_by: names of labels; None for all of them (``'...'``).
        key: the matchers from the root to here; part of a group's key, which outlives a restart.
        id: as ``key``, with the places among siblings, so that it is unique.
    """

    receiver: str
    matchers: tuple[Matcher, ...] = ()
    group_by: frozenset[str] | None = frozenset()
    group_wait_ms: int = 30_000
    group_interval_ms: int = 300_000
    repeat_interval_ms: int = 14_400_000
    mute_time_intervals: tuple[str, ...] = ()
    active_time_intervals: tuple[str, ...] = ()
    continues: bool = False
    key: str = "{}"
    id: str = "{}"
    routes: tuple["Route", ...] = field(default=(), repr=False)

    def matching(self, labels: Mapping[str, str]) -> list["Route"]:
        """The routes an alert takes: depth first, the first child that matches and those after it if it continues."""
        if not matches_all(self.matchers, labels):
            return []
        found: list[Route] = []
        for child in self.routes:
            taken = child.matching(labels)
            found += taken
            if taken and not child.continues:
                break
        return found or [self]

    def walk(self) -> Iterator["Route"]:
        """This route and all below it."""
        yield self
        for child in self.routes:
            yield from child.walk()

    def group_labels(self, labels: Labels) -> Labels:
        """Those labels of an alert that name its group."""
        return labels if self.group_by is None else tuple(pair for pair in labels if pair[0] in self.group_by)


def key_below(parent: str, matchers: tuple[Matcher, ...]) -> str:
    """The key of a child."""
    return f"{parent}/{show(matchers)}"


def group_key(route: Route, labels: Labels) -> str:
    """``{}/{severity="critical"}:{alertname="Down"}``."""
    shown = ", ".join(f"{name}={go_quote(value)}" for name, value in labels)
    return f"{route.key}:{{{shown}}}"
