"""Prometheus' switches for what it calls experimental, by the names of its ``--enable-feature`` flag."""

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Features:
    """All off, except duration expressions, which Prometheus 3.14 has always on."""

    experimental_functions: bool = False
    extended_range_selectors: bool = False
    binop_fill_modifiers: bool = False
    delayed_name_removal: bool = False
    start_timestamps: bool = False
    type_and_unit_labels: bool = False
    duration_expr: bool = True


_BY_FLAG = {
    "promql-experimental-functions": "experimental_functions",
    "promql-extended-range-selectors": "extended_range_selectors",
    "promql-binop-fill-modifiers": "binop_fill_modifiers",
    "promql-delayed-name-removal": "delayed_name_removal",
    "promql-duration-expr": "duration_expr",
    "use-start-timestamps": "start_timestamps",
    "type-and-unit-labels": "type_and_unit_labels",
}

STABLE = Features()
#: What Prometheus' own scenario runner has on; type and unit labels are off there.
SCENARIOS = Features(**{f.name: f.name != "type_and_unit_labels" for f in fields(Features)})


def features_of(flags: Iterable[str]) -> Features:
    """The switches among some flags; flags that do not concern PromQL are passed over."""
    return Features(**{_BY_FLAG[flag]: True for flag in flags if flag in _BY_FLAG})
