"""Inhibition: while one alert fires, others that have labels in common with it are not told of.

Source: Alertmanager inhibit; there one source is kept for each set of equal labels, here all of them are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flyball.alerting.alerts import Alert
from flyball.alerting.matchers import matches_all
from flyball.model.labels import Labels, Matcher


@dataclass(frozen=True, slots=True)
class InhibitRule:
    """Sources that fire mute the targets whose ``equal`` labels are theirs; a missing label equals an empty one."""

    source_matchers: tuple[Matcher, ...] = ()
    target_matchers: tuple[Matcher, ...] = ()
    equal: tuple[str, ...] = ()
    name: str = ""


@dataclass(slots=True)
class Inhibitor:
    """The alerts that can mute others, by rule and equal labels."""

    rules: tuple[InhibitRule, ...]
    _sources: list[dict[tuple[str, ...], dict[Labels, Alert]]] = field(init=False)

    def __post_init__(self) -> None:
        self._sources = [{} for _ in self.rules]

    def put(self, alert: Alert) -> None:
        """An alert as it is known now."""
        labels = dict(alert.labels)
        for rule, sources in zip(self.rules, self._sources, strict=True):
            if matches_all(rule.source_matchers, labels):
                sources.setdefault(_equal(rule, labels), {})[alert.labels] = alert

    def inhibited_by(self, labels: Labels, at_ms: int) -> str:
        """The fingerprint of an alert that mutes this one; empty when none does.

        What matches both sides of a rule is not muted by another such alert, itself included.
        """
        found = dict(labels)
        for rule, sources in zip(self.rules, self._sources, strict=True):
            if not sources or not matches_all(rule.target_matchers, found):
                continue
            both_sides = matches_all(rule.source_matchers, found)
            firing = [
                source
                for source in sources.get(_equal(rule, found), {}).values()
                if not source.resolved_at(at_ms)
                and not (both_sides and matches_all(rule.target_matchers, dict(source.labels)))
            ]
            if firing:
                return max(reversed(firing), key=lambda source: source.ends_ns).fingerprint  # the last to end
        return ""

    def forget(self, gone: Iterable[Labels]) -> None:
        """Alerts that are kept no longer."""
        for labels in gone:
            for rule, sources in zip(self.rules, self._sources, strict=True):
                key = _equal(rule, dict(labels))
                if key in sources and sources[key].pop(labels, None) is not None and not sources[key]:
                    del sources[key]


def _equal(rule: InhibitRule, labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(name, "") for name in rule.equal)
