"""Label sets and matchers, in Prometheus' words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import re2
from numpy.typing import NDArray

#: A label set: (name, value) pairs sorted by name, no empty values. Hashable, so it is its own identity.
Labels = tuple[tuple[str, str], ...]

METRIC_NAME = "__name__"

#: Nobody asks a matcher for groups, and keeping track of thousands takes gigabytes.
_WITHOUT_GROUPS = re2.Options()
_WITHOUT_GROUPS.never_capture = True
_WITHOUT_GROUPS.log_errors = False  # RE2 would also write to stderr


def labels_of(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> Labels:
    """The canonical label set: sorted by name, empty values dropped (an empty label is an absent label)."""
    # A dict's type is looked at first, and a list built: this runs for every sample of every answer.
    items = pairs.items() if type(pairs) is dict or isinstance(pairs, Mapping) else pairs
    return tuple(sorted([pair for pair in items if pair[1]]))


class MetricLabels(tuple[Labels, ...]):
    """Distinct label sets of one metric, of which an index has each label as numbers: so that they can be grouped
    without a look at each of them.

    Attributes:
        codes: label name -> numbers [m], one for each distinct value and 0 where the label is absent; of all labels but
            the metric name. Any thread may look at them: what is in use does not change.
        rows: [n] which of these numbers are of these label sets.
    """

    codes: Mapping[str, NDArray[Any]]
    rows: NDArray[np.intp]

    @classmethod
    def of(
        cls, label_sets: Iterable[Labels], codes: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]
    ) -> "MetricLabels":
        made = cls(label_sets)
        made.codes, made.rows = codes, rows
        return made

    def groups(self, names: Iterable[str], without: bool) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Those that are equal in some labels (or in all but these).

        Returns:
            The first label set of each group, in order, and the group of each label set [n].
        """
        wanted = set(names)
        code = np.zeros(len(self), np.int64)
        span = 1
        for name, numbers in self.codes.items():
            if (name in wanted) is without:
                continue
            own = numbers[self.rows]
            most = int(own.max(initial=0)) + 1
            if span * most > 1 << 62:
                code = np.unique(code, return_inverse=True)[1].astype(np.int64)
                span = len(self)
            code = code * most + own
            span *= most
        if span > 4 * len(self):
            code = np.unique(code, return_inverse=True)[1]
            span = int(code.max(initial=0)) + 1
        rows = np.arange(len(self))
        first = np.full(span, -1)
        first[code[::-1]] = rows[::-1]  # of several, what is written last stays
        firsts = np.sort(first[first >= 0])
        number = np.empty(span, np.int64)
        number[code[firsts]] = np.arange(firsts.size)
        return firsts, number[code]


class MatchType(StrEnum):
    """The four matching operators of a selector."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher; regular expressions are RE2, anchored at both ends.

    Raises:
        re2.error: the regular expression does not compile.
    """

    type: MatchType
    name: str
    value: str
    _regex: Any = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.type in (MatchType.REGEX, MatchType.NOT_REGEX):
            object.__setattr__(self, "_regex", re2.compile(f"(?s)^(?:{self.value})$", _WITHOUT_GROUPS))

    def matches(self, value: str) -> bool:
        """Whether a label value (``""`` when the label is absent) satisfies the matcher."""
        if self.type is MatchType.EQUAL:
            return value == self.value
        if self.type is MatchType.NOT_EQUAL:
            return value != self.value
        found = self._regex.search(value) is not None
        return found if self.type is MatchType.REGEX else not found

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.type}"{escaped}"'
