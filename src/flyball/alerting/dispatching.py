"""Groups of alerts and their timers: which group is to be told of, and when.

Source: Alertmanager dispatch. A group is told of first after ``group_wait`` (at once, when its first alert began before
that), then every ``group_interval``. Time is an argument: nothing here waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from flyball.alerting.alerts import MS, Alert, in_order
from flyball.alerting.routing import Route, group_key
from flyball.model.labels import Labels


@dataclass(frozen=True, slots=True)
class Flush:
    """A group's alerts as they are at one time; those that fire have no end.

    Attributes:
        until_ms: when the next flush is due: what was not told by then is told by that one.
    """

    route: Route
    group_labels: Labels
    group_key: str
    alerts: tuple[Alert, ...]
    at_ms: int
    until_ms: int


@dataclass(slots=True)
class Group:
    """Alerts that are told of together."""

    route: Route
    labels: Labels
    key: str
    next_ms: int
    alerts: dict[Labels, Alert] = field(default_factory=dict)
    flushing: bool = False


class Dispatcher:
    """Sorts alerts into groups and says which are due.

    Args:
        not_before_ms: no group is due before, so that senders can repeat their alerts after a restart.
        groups_max: alerts that would open a group beyond are refused; 0 for no limit.
    """

    def __init__(self, root: Route, not_before_ms: int = 0, groups_max: int = 100_000) -> None:
        self.root = root
        self.refused = 0
        self._not_before_ms, self._groups_max = not_before_ms, groups_max
        self._groups: dict[tuple[str, Labels], Group] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def put(self, alert: Alert, at_ms: int) -> None:
        """Puts an alert into a group of each route that it takes."""
        for route in self.root.matching(dict(alert.labels)):
            labels = route.group_labels(alert.labels)
            group = self._groups.get((route.id, labels))
            if group is None:
                if 0 < self._groups_max <= len(self._groups):
                    self.refused += 1
                    continue
                is_old = alert.starts_ns + route.group_wait_ms * MS < at_ms * MS
                next_ms = max(self._not_before_ms, at_ms if is_old else at_ms + route.group_wait_ms)
                group = self._groups[route.id, labels] = Group(route, labels, group_key(route, labels), next_ms)
            group.alerts[alert.labels] = alert

    def clock_went_back(self, by_ms: int) -> None:
        """Keeps what is due as far away as it was."""
        for group in self:
            group.next_ms -= by_ms

    def next_ms(self) -> int | None:
        """When the next group is due; None when no group waits."""
        return min((group.next_ms for group in self if not group.flushing), default=None)

    def due(self, at_ms: int) -> list[Flush]:
        """The flushes of the groups whose time has come. Each must be ended with ``done``."""
        found = []
        for group in self:
            if group.flushing or group.next_ms > at_ms:
                continue
            group.flushing, group.next_ms = True, at_ms + group.route.group_interval_ms
            alerts = in_order(
                one if one.resolved_at(at_ms) else replace(one, ends_ns=0) for one in group.alerts.values()
            )
            found.append(Flush(group.route, group.labels, group.key, tuple(alerts), at_ms, group.next_ms))
        return found

    def done(self, flush: Flush, told: bool) -> None:
        """Ends a flush; alerts that it told to be over leave the group, unless they were heard of since."""
        group = self._groups.get((flush.route.id, flush.group_labels))
        if group is None:
            return
        group.flushing = False
        if told:
            for alert in flush.alerts:
                if alert.ends_ns and group.alerts.get(alert.labels) == alert:
                    del group.alerts[alert.labels]
        if not group.alerts:
            del self._groups[flush.route.id, flush.group_labels]
