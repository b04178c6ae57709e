"""Runs Prometheus' promqltest scenarios on an in-memory storage, with every re-run that upstream's runner does.

An instant query is evaluated as it is, then with ``@`` its time on every selector at five other times, and each of
these again as the middle step of a range query.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace

import numpy as np

from flyball.errors import FlyballError
from flyball.model.frames import ABSENT, Frame
from flyball.model.histograms import CUSTOM_BUCKETS, Histogram, ResetHint
from flyball.model.labels import METRIC_NAME, Labels, Matcher, labels_of
from flyball.promql.catalog import TIME_DEPENDENT
from flyball.promql.engine import evaluate
from flyball.promql.evaluator import Options
from flyball.promql.features import SCENARIOS
from flyball.promql.histograms import compact, is_reset, with_hint
from flyball.promql.histograms import text as histogram_text
from flyball.promql.parser import parse
from flyball.promql.scenario_language import (
    Clear,
    Eval,
    Load,
    Point,
    commands,
    labels_in,
    parse_series,
    parse_values,
    points_in,
    split_line,
)
from flyball.promql.syntax import (
    Call,
    Expr,
    NumberLiteral,
    Subquery,
    Timing,
    Unary,
    unwrap,
)
from flyball.promql.values import Matrix, Scalar, String, Value, Vector, almost_equal, points_at

EPSILON = 1e-6
SAMPLES_MAX = 10_000
_OPTIONS = Options(features=SCENARIOS, samples_max=10 * SAMPLES_MAX)
_QUERY_CONTEXT = re.compile(r"(start|end|range|step)\(\)")
_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class _Sample:
    value: float | Histogram
    start_ms: int = 0


class MemoryStorage:
    """Series in memory, as Prometheus' own store would give them back."""

    def __init__(self) -> None:
        self.series: dict[Labels, dict[int, _Sample]] = {}
        self._frames: dict[Labels, Frame] = {}

    def add(self, labels: Labels, at_ms: int, value: float | Histogram, start_ms: int = 0) -> None:
        self.series.setdefault(labels, {})[at_ms] = _Sample(value, start_ms)
        self._frames.pop(labels, None)

    def _frame(self, labels: Labels) -> Frame:
        if labels not in self._frames:
            points = sorted(self.series[labels].items())
            times = np.array([at for at, _ in points], np.int64)[:, None]
            stored = _as_stored([sample.value for _, sample in points])
            values = np.array([v.count if isinstance(v, Histogram) else v for v in stored])[:, None]
            histograms = starts = None
            if any(isinstance(v, Histogram) for v in stored):
                histograms = np.full((len(stored), 1), None, object)
                histograms[:, 0] = [v if isinstance(v, Histogram) else None for v in stored]
            if any(sample.start_ms for _, sample in points):
                starts = np.array([sample.start_ms for _, sample in points], np.int64)[:, None]
            self._frames[labels] = Frame((labels,), times, np.zeros(1, np.int32), values, histograms, starts)
        return self._frames[labels]

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """Matching series as one frame on the union of their times."""
        found = [
            self._frame(labels)
            for labels in self.series
            if (pairs := dict(labels)) is not None and all(m.matches(pairs.get(m.name, "")) for m in matchers)
        ]
        if not found:
            return []
        times = np.unique(np.concatenate([frame.times_ms[:, 0] for frame in found]))
        times = times[(times > start_ms) & (times <= end_ms)]
        shape = (times.size, len(found))
        values = np.full(shape, ABSENT)
        histograms = np.full(shape, None, object) if any(frame.histograms is not None for frame in found) else None
        starts = np.zeros(shape, np.int64) if any(frame.starts_ms is not None for frame in found) else None
        for column, frame in enumerate(found):
            own = frame.times_ms[:, 0]
            keep = (own > start_ms) & (own <= end_ms)
            rows = np.searchsorted(times, own[keep])
            values[rows, column] = frame.values[keep, 0]
            if histograms is not None and frame.histograms is not None:
                histograms[rows, column] = frame.histograms[keep, 0]
            if starts is not None and frame.starts_ms is not None:
                starts[rows, column] = frame.starts_ms[keep, 0]
        labels = tuple(frame.labels[0] for frame in found)
        return [Frame(labels, times[:, None], np.zeros(len(found), np.int32), values, histograms, starts)]


def _as_stored(values: Sequence[float | Histogram]) -> list[float | Histogram]:
    """Histograms with the reset hints that a store knows: within a chunk there are none, before one who knows."""
    out: list[float | Histogram] = []
    before: Histogram | None = None
    for value in values:
        if not isinstance(value, Histogram):
            before = None
            out.append(value)
            continue
        hint = value.hint
        if hint is not ResetHint.GAUGE:
            plain = with_hint(value, ResetHint.UNKNOWN)
            follows = (
                hint is not ResetHint.RESET
                and before is not None
                and (value.schema, value.zero_threshold, value.custom_values)
                == (before.schema, before.zero_threshold, before.custom_values)
                and not is_reset(plain, before)
            )
            hint = ResetHint.NOT_RESET if follows else ResetHint.UNKNOWN
        out.append(with_hint(value, hint))
        before = None if hint is ResetHint.GAUGE else value
    return out


@dataclass(slots=True)
class Outcome:
    """What a file gave. ``failures`` are (line, query, reason)."""

    passed: int = 0
    failures: list[tuple[int, str, str]] = field(default_factory=list)


class _MismatchError(Exception):
    pass


class Runner:
    """Runs one file."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.outcome = Outcome()

    def run(self, text: str) -> Outcome:
        for command in commands(text):
            if isinstance(command, Clear):
                self.storage = MemoryStorage()
            elif isinstance(command, Load):
                self.load(command)
            else:
                self.evaluate(command)
        return self.outcome

    def load(self, command: Load) -> None:
        for line in command.series:
            for i, point in enumerate(line.points):
                if point.value is not None:
                    at = i * command.step_ms
                    start = line.starts_ms[i] if line.starts_ms else None
                    self.storage.add(line.labels, at, point.value, 0 if start is None else at + start)
        if command.with_nhcb:
            for labels, at, h in _custom_bucket_histograms(command):
                self.storage.add(labels, at, h)

    def evaluate(self, command: Eval) -> None:
        try:
            self.check(command)
            self.outcome.passed += 1
        except (_MismatchError, FlyballError, ValueError, AssertionError, IndexError, KeyError) as exc:
            self.outcome.failures.append((command.line, command.query, f"{type(exc).__name__}: {exc}"))

    def check(self, command: Eval) -> None:
        """All runs of one command."""
        if command.step_ms:
            self.one_run(command, command.query, command.start_ms, command.end_ms, command.step_ms)
            return
        self.instant(command, command.query, command.start_ms)
        try:
            expr = parse(command.query, SCENARIOS)
        except FlyballError:
            return
        if str(parse(str(expr), SCENARIOS)) != str(expr):
            raise _MismatchError(f"printed as {expr}, which does not parse back")
        if any(isinstance(node, Call) and node.name in TIME_DEPENDENT for node in expr.walk()):
            return
        at = command.start_ms
        query = str(_pinned(expr, at))
        for other in (-10 * at, 0, int(at / 5), at, 10 * at) if at else (-1000, 0, 1000):
            self.instant(command, query, other)

    def instant(self, command: Eval, query: str, at_ms: int) -> None:
        """At one time, and again as the middle step of a range."""
        value = self.one_run(command, query, at_ms, at_ms, 0)
        if value is None or command.grid or command.string is not None or _QUERY_CONTEXT.search(query):
            return
        again = evaluate(
            parse(query, SCENARIOS), self.storage, at_ms - _MINUTE_MS, at_ms + _MINUTE_MS, _MINUTE_MS, options=_OPTIONS
        )
        if "ordered" in command.flags:
            return
        assert isinstance(again, Matrix)
        found = points_at(again, at_ms)
        if isinstance(value, Scalar):
            self.compare_scalar(found[()], command)
        else:
            self.same(_expected(command, 0), found, f"in range mode, {query} at {at_ms} ms: ")

    def one_run(self, command: Eval, query: str, start_ms: int, end_ms: int, step_ms: int) -> Value | None:
        try:
            expr = parse(query, SCENARIOS)
            value = evaluate(expr, self.storage, start_ms, end_ms, step_ms, options=_OPTIONS, text=query)
        except FlyballError as exc:
            if "fail" not in command.flags:
                raise
            self.check_messages("fail", [str(exc)], command)
            return None
        if "fail" in command.flags:
            raise _MismatchError("succeeded, a failure was expected")
        for kind, notes in (("warn", value.warnings), ("info", value.infos)):
            if kind in command.flags and not notes:
                raise _MismatchError(f"no {kind} annotation: {query}")
            if "no_" + kind in command.flags and notes:
                raise _MismatchError(f"unexpected {kind}: {notes}")
            self.check_messages(kind, list(notes), command)
        self.compare(value, command, f"{query} at {start_ms} ms: ")
        return value

    def check_messages(self, kind: str, notes: list[str], command: Eval) -> None:
        """Each expected message is among the notes, and each note is expected."""
        wanted = [(how, text) for k, how, text in command.messages if k == kind]

        def matches(how: str, text: str, note: str) -> bool:
            return text == note if how == "msg" else re.search(text, note) is not None

        if not wanted:
            return
        for how, text in wanted:
            if not any(matches(how, text, note) for note in notes):
                raise _MismatchError(f'{kind} "{text}" is missing; there are {notes}')
        for note in notes:
            if not any(matches(how, text, note) for how, text in wanted):
                raise _MismatchError(f'{kind} "{note}" was not expected')

    def compare(self, value: Value, command: Eval, where: str) -> None:
        if isinstance(value, String):
            if value.text != command.string:
                raise _MismatchError(f'"{value.text}", expected "{command.string}"')
            return
        if isinstance(value, Scalar):
            self.compare_scalar(float(value.values[0]), command)
            return
        assert isinstance(value, Matrix)
        if "ordered" in command.flags:
            wanted = [labels for labels, _ in _series_lines(command)]
            if list(value.labels) != wanted:
                raise _MismatchError(f"order {value.labels}, expected {wanted}")
        if isinstance(value, Vector):
            self.same(_expected(command, 0), points_at(value, int(value.times_ms[0])), where)
            return
        start, end, step = command.grid or (command.start_ms, command.end_ms, command.step_ms)
        grid = list(range(start, end + 1, step))
        longest = max((len(points) for _, points in _series_lines(command)), default=0)
        if longest > len(grid):
            raise _MismatchError(f"{longest} points in a line, {len(grid)} steps")
        times = value.times_ms.tolist()
        for k, at in enumerate(grid):
            self.same(_expected(command, k), points_at(value, at) if at in times else {}, f"{where}at {at} ms ")
        extra = set(times) - set(grid)
        if extra and value.labels:
            raise _MismatchError(f"points at {sorted(extra)}")

    def compare_scalar(self, found: float | Histogram, command: Eval) -> None:
        literal = unwrap(parse(command.lines[0]))
        sign = 1.0
        if isinstance(literal, Unary):
            sign, literal = (-1.0 if literal.op == "-" else 1.0), literal.expr
        assert isinstance(literal, NumberLiteral) and isinstance(found, float)
        if not almost_equal(found, sign * literal.value, EPSILON):
            raise _MismatchError(f"{found}, expected {command.lines[0]}")

    def same(self, wanted: dict[Labels, Point], found: dict[Labels, float | Histogram], where: str) -> None:
        if wanted.keys() != found.keys():
            raise _MismatchError(f"{where}series {sorted(found)}, expected {sorted(wanted)}")
        for series, point in wanted.items():
            if not _same_value(point, found[series]):
                raise _MismatchError(f"{where}{dict(series)} is {_text(found[series])}, expected {_text(point.value)}")


def _text(value: float | Histogram | None) -> str:
    return f"{histogram_text(value)} {value.hint.name}" if isinstance(value, Histogram) else str(value)


def _series_lines(command: Eval) -> list[tuple[Labels, list[Point]]]:
    found = []
    for line in command.lines:
        series, items = split_line(line)
        found.append((labels_in(series), points_in(items)))
    return found


def _expected(command: Eval, k: int) -> dict[Labels, Point]:
    """The points of one step."""
    return {
        labels: points[k]
        for labels, points in _series_lines(command)
        if k < len(points) and points[k].value is not None
    }


def _same_value(wanted: Point, found: float | Histogram) -> bool:
    if not isinstance(wanted.value, Histogram) or not isinstance(found, Histogram):
        if isinstance(wanted.value, Histogram) or isinstance(found, Histogram) or wanted.value is None:
            return False
        return almost_equal(found, wanted.value, EPSILON)
    a, b = compact(wanted.value), compact(found)
    figures = (a.count, b.count), (a.sum, b.sum), (a.zero_count, b.zero_count)
    sides = (a.positive, b.positive), (a.negative, b.negative)
    return (
        a.schema == b.schema
        and a.zero_threshold == b.zero_threshold
        and a.custom_values == b.custom_values
        and all(almost_equal(x, y, EPSILON) for x, y in figures)
        and all(x.keys() == y.keys() and all(almost_equal(x[i], y[i], EPSILON) for i in x) for x, y in sides)
        and (not wanted.hint_given or a.hint is b.hint)
    )


def _pinned(expr: Expr, at_ms: int) -> Expr:
    """A copy with ``@`` the time on every selector and subquery that has none; a subquery's inside stays."""

    def copied(node: Expr) -> Expr:
        changes: dict[str, object] = {}
        if isinstance(node, Timing) and node.at is None:
            changes["at"] = at_ms
        for f in fields(node) if not isinstance(node, Subquery) else ():
            value = getattr(node, f.name)
            if isinstance(value, Expr):
                changes[f.name] = copied(value)
            elif isinstance(value, tuple):
                changes[f.name] = tuple(copied(v) if isinstance(v, Expr) else v for v in value)
        return replace(node, **changes)  # type: ignore[arg-type]

    assert is_dataclass(expr)
    return copied(expr)


def _custom_bucket_histograms(command: Load) -> Iterator[tuple[Labels, int, Histogram]]:
    """The classic histograms of a load as native ones with custom buckets.

    Source: util/convertnhcb of Prometheus.
    """
    buckets: dict[tuple[Labels, int], dict[float, float]] = {}
    sums: dict[tuple[Labels, int], float] = {}
    counts: dict[tuple[Labels, int], float] = {}
    for line in command.series:
        pairs = dict(line.labels)
        base, _, suffix = pairs.get(METRIC_NAME, "").rpartition("_")
        if suffix not in ("bucket", "sum", "count"):
            continue
        pairs[METRIC_NAME] = base
        bound = pairs.pop("le", "")
        labels = labels_of(pairs)
        for i, point in enumerate(line.points):
            if not isinstance(point.value, float):
                continue
            key = (labels, i * command.step_ms)
            if suffix == "bucket":
                try:
                    upper = float(bound)
                except ValueError:
                    continue
                buckets.setdefault(key, {})[upper] = point.value
            else:
                (sums if suffix == "sum" else counts)[key] = point.value
    for key in sorted({*buckets, *sums, *counts}):
        found = buckets.get(key, {})
        count = counts.get(key, found[max(found)] if found else 0.0)
        found.setdefault(float("inf"), count)
        edges = sorted(found)
        per_bucket = np.diff([found[edge] for edge in edges], prepend=0.0).tolist()
        yield (
            *key,
            Histogram(
                schema=CUSTOM_BUCKETS,
                count=count,
                sum=sums.get(key, 0.0),
                positive=dict(enumerate(per_bucket)),
                custom_values=tuple(edges[:-1]),
            ),
        )


def run(text: str) -> Outcome:
    """Runs the text of one scenario file.

    Raises:
        ScenarioError: the text is not in the language.
    """
    return Runner().run(text)


__all__ = ["MemoryStorage", "Outcome", "Runner", "parse_series", "parse_values", "run"]
