"""Functions that change labels, or sort by them."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

import numpy as np
import re2

from flyball.errors import QueryLimitError
from flyball.model.frames import Mask
from flyball.model.labels import METRIC_NAME, Labels
from flyball.promql.functions.scalars import warn_of_sorting
from flyball.promql.syntax import Call
from flyball.promql.values import EvaluationError
from flyball.promql.vectors import Vec, label_value, merge, remember, with_label

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

_QUIET = re2.Options()
_QUIET.log_errors = False  # RE2 would also write to stderr
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")
#: Groups of a regular expression: each costs memory with every match.
_GROUPS_MAX = 1000
#: Characters that a query's label_join() or label_replace() may make.
_TEXT_MAX = 100_000_000
_DIGITS = re.compile(r"(\d+|\D+)")


def _is_label_name(name: str) -> bool:
    return bool(name) and not any(0xDC80 <= ord(ch) <= 0xDCFF for ch in name)


def label_replace(ev: "Evaluator", call: Call) -> Vec:
    target, template, source, pattern = (ev.string(arg) for arg in call.args[1:])
    try:
        regex = re2.compile(f"^(?s:{pattern})$", _QUIET)
    except (re2.error, UnicodeEncodeError) as exc:
        raise EvaluationError(f"invalid regular expression in label_replace(): {pattern}") from exc
    if regex.groups > _GROUPS_MAX:
        raise QueryLimitError(
            f"the regular expression in label_replace() has {regex.groups} groups; {_GROUPS_MAX} are most"
        )
    if not _is_label_name(target):
        raise EvaluationError(f"invalid destination label name in label_replace(): {target}")
    vec = ev.vector(call.args[0])

    def make() -> tuple[tuple[Labels, ...], Mask]:
        return _replaced(vec.labels, target, template, source, regex)

    labels, matched = remember((vec.labels,), ("label_replace", target, template, source, pattern), make)
    drop = vec.drop
    if drop is not None and target == METRIC_NAME:
        drop = drop & ~matched
    return merge(replace(vec, labels=labels, drop=drop if drop is not None and drop.any() else None))


def _replaced(
    given: tuple[Labels, ...], target: str, template: str, source: str, regex: Any
) -> tuple[tuple[Labels, ...], Mask]:
    """The new label sets, and where the expression matched."""
    expanded: dict[str, str | None] = {}
    labels: list[Labels] = []
    made = 0
    matched = np.zeros(len(given), bool)
    for i, series in enumerate(given):
        value = label_value(series, source)
        if value not in expanded:
            found = regex.search(value)
            expanded[value] = None if found is None else _expand(template, found, regex)
        text = expanded[value]
        labels.append(series if text is None else with_label(series, target, text))
        matched[i] = text is not None
        made += len(text or "")
        if made > _TEXT_MAX:
            raise QueryLimitError(
                f"label_replace() would make more than {_TEXT_MAX} characters; use a shorter template"
            )
    return tuple(labels), matched


def _expand(template: str, found: Any, regex: Any) -> str:
    """Go's Regexp.Expand: $1, ${1}, $name, ${name}, $$; unknown groups are empty."""

    def value(reference: "re.Match[str]") -> str:
        if reference.group(1):
            return "$"
        name = reference.group(2) or reference.group(3)
        if name.isdigit():
            return (found.group(int(name)) or "") if int(name) <= regex.groups else ""
        return (found.group(name) or "") if name in regex.groupindex else ""

    return _REFERENCE.sub(value, template)


def label_join(ev: "Evaluator", call: Call) -> Vec:
    target, separator, *sources = (ev.string(arg) for arg in call.args[1:])
    for what, name in (*(("source", name) for name in sources), ("destination", target)):
        if not _is_label_name(name):
            raise EvaluationError(f"invalid {what} label name in label_join(): {name}")
    vec = ev.vector(call.args[0])
    if len(separator) * len(sources) * len(vec.labels) > _TEXT_MAX:
        raise QueryLimitError(
            f"label_join() would make more than {_TEXT_MAX} characters; join with a shorter separator"
        )
    labels = tuple(
        with_label(series, target, separator.join(label_value(series, name) for name in sources))
        for series in vec.labels
    )
    return merge(replace(vec, labels=labels, drop=None if target == METRIC_NAME else vec.drop))


# --- order


def _natural(a: str, b: str) -> int:
    """Digits compare as numbers: a2 before a10."""
    for x, y in zip(_DIGITS.findall(a), _DIGITS.findall(b), strict=False):
        if x == y:
            continue
        if x.isdigit() and y.isdigit() and int(x) != int(y):
            return -1 if int(x) < int(y) else 1
        return -1 if x < y else 1
    return (len(a) > len(b)) - (len(a) < len(b))


def _by_label(ev: "Evaluator", call: Call, *, descending: bool) -> Vec:
    vec = ev.vector(call.args[0])
    if warn_of_sorting(ev, call):
        return vec
    names = [ev.string(arg) for arg in call.args[1:]]

    def compare(a: int, b: int) -> int:
        left, right = vec.labels[a], vec.labels[b]
        for name in names:
            order = _natural(label_value(left, name), label_value(right, name))
            if order:
                return order
        return (left > right) - (left < right)

    order = sorted(range(len(vec.labels)), key=cmp_to_key(compare), reverse=descending)
    return vec.rows(np.array(order, np.int64))


def sort_by_label(ev: "Evaluator", call: Call) -> Vec:
    return _by_label(ev, call, descending=False)


def sort_by_label_desc(ev: "Evaluator", call: Call) -> Vec:
    return _by_label(ev, call, descending=True)


FUNCTIONS: "dict[str, Callable[[Evaluator, Call], Vec]]" = {
    "label_join": label_join,
    "label_replace": label_replace,
    "sort_by_label": sort_by_label,
    "sort_by_label_desc": sort_by_label_desc,
}
