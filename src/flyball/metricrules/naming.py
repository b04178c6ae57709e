"""Metric names: filters, and Go's ``regexp.Expand`` for ``name.as`` (reference/adapter.md 1.2)."""

import re
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")


def expand(template: str, match: Any) -> str:
    """Go's ``regexp.Expand``: ``$1``, ``${1}``, ``$name``, ``$$``; an unknown group is empty.

    ``$1_x`` names the group "1_x", which is unknown; write ``${1}_x``.
    """

    def one(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name is None:
            return "$"
        if name.isdigit():
            number = int(name)
            return (match.group(number) or "") if number <= match.re.groups else ""
        return (match.group(name) or "") if name in match.re.groupindex else ""

    return _REFERENCE.sub(one, template)


@dataclass(frozen=True, slots=True)
class NameFilter:
    """One ``seriesFilters`` entry; the expression is not anchored."""

    regex: Any
    negate: bool = False

    def keeps(self, name: str) -> bool:
        return (self.regex.search(name) is None) == self.negate


@dataclass(frozen=True, slots=True)
class Namer:
    """``name`` of a rule with its filters."""

    filters: tuple[NameFilter, ...]
    regex: Any
    template: str

    def metric_name(self, series_name: str) -> str | None:
        """The API's name of a Prometheus metric; None when the rule does not take it (or the name is empty)."""
        if not all(name_filter.keeps(series_name) for name_filter in self.filters):
            return None
        match = self.regex.search(series_name)
        return (expand(self.template, match) or None) if match is not None else None
