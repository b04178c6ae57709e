"""Evaluation of a tree over a storage: every node gives arrays for all steps at once, instant queries have one."""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import re2
from numpy.typing import NDArray

from flyball.errors import QueryLimitError
from flyball.model.frames import ABSENT, Floats, Frame, Mask, Times, is_stale
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType
from flyball.promql import windows as kernels
from flyball.promql.aggregation import Groups, aggregate, counts, quantile, ranks
from flyball.promql.buckets import bucket_fraction, bucket_quantile, coalesce
from flyball.promql.catalog import words
from flyball.promql.parser import line_column
from flyball.promql.syntax import (
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Timing,
    Unary,
    ValueType,
    VectorMatching,
    VectorSelector,
    quote,
    unwrap,
)
from flyball.promql.values import EvaluationError, Matrix, Scalar, String, Value, Vector, format_value
from flyball.promql.windows import Windows, cut

STEPS_MAX = 11_000
SAMPLES_MAX = 50_000_000
LOOKBACK_MS = 300_000
SUBQUERY_STEP_MS = 60_000
DUPLICATES = "vector cannot contain metrics with the same labelset"

Index = NDArray[np.int64]
T = TypeVar("T")


class Storage(Protocol):
    """Where samples come from."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """Samples with start_ms < t <= end_ms of the matching series; more is allowed, it is cut away."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """Limits and switches of an evaluation. ``cancelled`` is asked between nodes; True ends the evaluation."""

    lookback_ms: int = LOOKBACK_MS
    subquery_step_ms: int = SUBQUERY_STEP_MS
    samples_max: int = SAMPLES_MAX
    steps_max: int = STEPS_MAX
    delayed_name_removal: bool = False
    cancelled: Callable[[], bool] | None = None


@dataclass(slots=True, eq=False)
class Vec:
    """An instant vector at every step: ``values`` and ``ok`` [n, T]; ``drop`` [n], whose name is to be removed."""

    labels: tuple[Labels, ...]
    values: Floats
    ok: Mask
    drop: Mask | None = None

    def rows(self, index: Any) -> "Vec":
        picked = np.asarray(index)
        if picked.dtype == bool:
            picked = np.flatnonzero(picked)
        labels = tuple(map(self.labels.__getitem__, picked.tolist()))
        return Vec(labels, self.values[picked], self.ok[picked], None if self.drop is None else self.drop[picked])

    def compact(self) -> "Vec":
        """Without the rows that have no point."""
        present = self.ok.any(axis=1)
        return self if present.all() else self.rows(present)


Result = Vec | Floats | str  # vector, scalar [T], string


# --- label set arithmetic, remembered by the identity of the label tuples that the store hands out

_MEMO_MAX = 512
_memo: OrderedDict[Hashable, tuple[tuple[object, ...], Any]] = OrderedDict()
_memo_lock = Lock()


def _remember(over: tuple[object, ...], what: Hashable, make: Callable[[], T]) -> T:
    key = (tuple(map(id, over)), what)
    with _memo_lock:
        found = _memo.get(key)
        if found is not None:
            _memo.move_to_end(key)
            return cast(T, found[1])
    made = make()
    with _memo_lock:
        _memo[key] = (over, made)  # keeps the tuples alive, so that their ids stay theirs
        while len(_memo) > _MEMO_MAX:
            _memo.popitem(last=False)
    return made


def _grouping(labels: tuple[Labels, ...], names: tuple[str, ...], without: bool) -> tuple[tuple[Labels, ...], Index]:
    """The distinct projections in order of appearance, and each label set's number among them."""

    def make() -> tuple[tuple[Labels, ...], Index]:
        codes: dict[Labels, int] = {}
        wanted = frozenset(names)
        out = np.empty(len(labels), np.int64)
        for i, series in enumerate(labels):
            if without:
                key = tuple([pair for pair in series if pair[0] not in wanted])
            else:
                key = tuple([pair for pair in series if pair[0] in wanted]) if wanted else ()
            out[i] = codes.setdefault(key, len(codes))
        return tuple(codes), out

    return _remember((labels,), (names, without), make)


def _unnamed(labels: tuple[Labels, ...]) -> tuple[tuple[Labels, ...], bool]:
    """Without metric names, and whether two became the same."""

    def make() -> tuple[tuple[Labels, ...], bool]:
        bare = tuple([tuple([pair for pair in series if pair[0] != METRIC_NAME]) for series in labels])
        return bare, len(set(bare)) != len(bare)

    return _remember((labels,), "unnamed", make)


def _joined(parts: tuple[tuple[Labels, ...], ...]) -> tuple[Labels, ...]:
    if len(parts) == 1:
        return parts[0]
    return _remember(parts, "joined", lambda: tuple([series for part in parts for series in part]))


def _get(labels: Labels, name: str) -> str:
    for key, value in labels:
        if key == name:
            return value
    return ""


def _text(labels: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels) + "}"


def _with(labels: Labels, name: str, value: str) -> Labels:
    kept = [pair for pair in labels if pair[0] != name]
    if value:
        kept.append((name, value))
        kept.sort()
    return tuple(kept)


def _go_round(values: Floats, nearest: Floats) -> Floats:
    inverse = 1.0 / nearest
    return np.floor(values * inverse + 0.5) / inverse


_MATH: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh,
    "atan": np.arctan, "atanh": np.arctanh, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh,
    "deg": lambda v: v * 180 / math.pi, "exp": np.exp, "floor": np.floor, "ln": np.log, "log10": np.log10,
    "log2": np.log2, "rad": lambda v: v * math.pi / 180, "sgn": np.sign, "sin": np.sin, "sinh": np.sinh,
    "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod, "^": np.power, "atan2": np.arctan2,
}  # fmt: skip
_COMPARE: dict[str, Callable[[Floats, Floats], Mask]] = {
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip
_QUIET = re2.Options()
_QUIET.log_errors = False  # RE2 would also write to stderr
_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")
_KEEPS_NAME = frozenset({"last_over_time", "first_over_time"})
_TIME_DEPENDENT = frozenset(
    words("days_in_month day_of_month day_of_week day_of_year hour minute month year predict_linear time timestamp")
)


def _date_part(name: str, values: Floats) -> Floats:
    finite = np.isfinite(values) & (np.abs(values) < 1e17)
    seconds = np.where(finite, values, 0.0).astype(np.int64)
    moment = seconds.astype("datetime64[s]")
    day = moment.astype("datetime64[D]")
    month = moment.astype("datetime64[M]")
    if name == "minute":
        part = seconds // 60 % 60
    elif name == "hour":
        part = seconds // 3600 % 24
    elif name == "day_of_week":
        part = (day.astype(np.int64) + 4) % 7
    elif name == "day_of_month":
        part = (day - month.astype("datetime64[D]")).astype(np.int64) + 1
    elif name == "day_of_year":
        part = (day - moment.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1
    elif name == "days_in_month":
        part = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
    elif name == "month":
        part = month.astype(np.int64) % 12 + 1
    else:
        part = moment.astype("datetime64[Y]").astype(np.int64) + 1970
    return np.where(finite, part.astype(np.float64), np.nan)


@dataclass(slots=True)
class _Run:
    """What one evaluation shares: limits, annotations, the text for positions."""

    storage: Storage
    options: Options
    text: str
    start_ms: int
    end_ms: int
    is_range: bool
    warnings: dict[str, None] = field(default_factory=dict)
    infos: dict[str, None] = field(default_factory=dict)
    samples: int = 0
    invariant: dict[int, bool] = field(default_factory=dict)

    def count(self, samples: int) -> None:
        self.samples += samples
        if self.samples > self.options.samples_max:
            raise QueryLimitError(
                f"query processing would load too many samples into memory in query execution (over "
                f"{self.options.samples_max}); select fewer series, a shorter range or a longer step"
            )

    def check_cancelled(self) -> None:
        if self.options.cancelled is not None and self.options.cancelled():
            raise QueryLimitError("query timed out in expression evaluation; select less or allow more time")

    def where(self, expr: Expr) -> str:
        return f"({line_column(self.text, expr.pos)})"

    def warn(self, message: str, expr: Expr) -> None:
        self.warnings[f"PromQL warning: {message} {self.where(expr)}"] = None

    def info(self, message: str, expr: Expr) -> None:
        self.infos[f"PromQL info: {message} {self.where(expr)}"] = None


@dataclass(slots=True)
class _Evaluator:
    run: _Run
    ts: Times  # [T] the steps
    step_ms: int

    # --- nodes

    def eval(self, expr: Expr) -> Result:
        self.run.check_cancelled()
        if self.ts.size > 1 and not isinstance(expr, NumberLiteral | StringLiteral) and self.is_invariant(expr):
            once = replace(self, ts=self.ts[:1]).eval(expr)
            if isinstance(once, str):
                return once
            if isinstance(once, np.ndarray):
                return np.repeat(once, self.ts.size)
            shape = (len(once.labels), self.ts.size)
            self.run.count(shape[0] * shape[1])
            return replace(once, values=np.broadcast_to(once.values, shape), ok=np.broadcast_to(once.ok, shape))
        if isinstance(expr, NumberLiteral):
            return np.full(self.ts.size, expr.value)
        if isinstance(expr, StringLiteral):
            return expr.value
        if isinstance(expr, Paren):
            return self.eval(expr.expr)
        if isinstance(expr, VectorSelector):
            return self.instant(expr)[0]
        if isinstance(expr, Unary):
            return self.unary(expr)
        if isinstance(expr, Binary):
            return self.binary(expr)
        if isinstance(expr, Aggregate):
            return self.aggregate(expr)
        if isinstance(expr, Call):
            return self.call(expr)
        raise EvaluationError(f"unhandled expression of type {type(expr).__name__}: {expr}")

    def vector(self, expr: Expr) -> Vec:
        found = self.eval(expr)
        assert isinstance(found, Vec)
        return found

    def scalar(self, expr: Expr) -> Floats:
        found = self.eval(expr)
        assert isinstance(found, np.ndarray)
        return found

    def string(self, expr: Expr) -> str:
        found = self.eval(expr)
        assert isinstance(found, str)
        return found

    def is_invariant(self, expr: Expr) -> bool:
        """Whether the value is the same at every step, because every selector below is pinned by ``@``."""
        known = self.run.invariant.get(id(expr))
        if known is not None:
            return known
        if isinstance(expr, Timing):
            result = expr.at is not None
        elif isinstance(expr, Call) and (expr.name in _TIME_DEPENDENT):
            result = False
        else:
            result = all(self.is_invariant(child) for child in expr.children())
        self.run.invariant[id(expr)] = result
        return result

    def pinned(self, node: Timing) -> Times:
        """The time that each step looks at: the step, or ``@``, less the offset."""
        at = {"start": self.run.start_ms, "end": self.run.end_ms}.get(node.at, node.at) if node.at is not None else None  # type: ignore[arg-type]
        base = self.ts if at is None else np.full(self.ts.size, int(at), np.int64)
        return base - node.offset_ms

    # --- selectors

    def select(self, node: VectorSelector, start_ms: int, end_ms: int) -> list[Frame]:
        frames = self.run.storage.select(node.matchers, start_ms, end_ms)
        for frame in frames:
            rows = frame.values.shape[0]
            if rows > 1 and frame.times_ms.shape[1] == 1:  # count only what lies in the window
                times = frame.times_ms[:, 0]
                rows = int(((times > start_ms) & (times <= end_ms)).sum())
            self.run.count(rows * len(frame.labels))
        return [frame for frame in frames if frame.labels]

    def instant(self, node: VectorSelector) -> tuple[Vec, Floats]:
        """The selector's vector and the times (ms) of its samples."""
        ends = self.pinned(node)
        starts = ends - self.run.options.lookback_ms
        frames = self.select(node, int(starts.min()), int(ends.max()))
        values, oks, times = [], [], []
        for frame in frames:
            w = cut(frame, starts, ends, keep_stale=True)
            last = w.hi - 1
            found = w.take(last)
            ok = w.full(w.hi > w.lo)
            if np.isnan(found).any():
                ok = ok & ~is_stale(np.ascontiguousarray(found))
            values.append(found)
            oks.append(ok)
            times.append(np.broadcast_to(w.time(last), w.shape))
        result = self.gather([frame.labels for frame in frames], values, oks)
        stamps = np.concatenate(times) if times else np.zeros(result.values.shape)
        present = result.ok.any(axis=1)
        if not present.all():
            result, stamps = result.rows(present), stamps[present]
        return result, stamps

    def gather(self, labels: list[tuple[Labels, ...]], values: list[Floats], oks: list[Mask]) -> Vec:
        if not labels:
            return self.empty()
        if len(labels) == 1:
            return Vec(labels[0], values[0], oks[0])
        return merge(Vec(_joined(tuple(labels)), np.concatenate(values), np.concatenate(oks)))

    def empty(self) -> Vec:
        return Vec((), np.zeros((0, self.ts.size)), np.zeros((0, self.ts.size), bool))

    def windows(self, expr: Expr) -> tuple[list[Windows], Mask | None]:
        """The windows of a range vector, and the drop flags of its series when it is a subquery."""
        expr = unwrap(expr)
        if isinstance(expr, MatrixSelector):
            ends = self.pinned(expr.vector)
            starts = ends - expr.range_ms
            frames = self.select(expr.vector, int(starts.min()), int(ends.max()))
            return [cut(frame, starts, ends) for frame in frames], None
        assert isinstance(expr, Subquery)
        ends = self.pinned(expr)
        starts = ends - expr.range_ms
        inner, grid = self.subquery(expr, starts, ends)
        if not inner.labels:
            return [], None
        held = np.where(inner.ok, inner.values, ABSENT).T
        frame = Frame(inner.labels, grid[:, None], np.zeros(len(inner.labels), np.int32), held)
        return [cut(frame, starts, ends)], inner.drop

    def subquery(self, expr: Subquery, starts: Times, ends: Times) -> tuple[Vec, Times]:
        step = expr.step_ms or self.run.options.subquery_step_ms
        low = int(starts.min())
        first = low // step * step + step
        grid = np.arange(first, int(ends.max()) + 1, step, dtype=np.int64)
        if grid.size > 10 * self.run.options.steps_max * 100:
            raise QueryLimitError(f"the subquery has {grid.size} steps; take a shorter range or a longer step")
        if grid.size == 0:
            return self.empty(), grid
        inner = replace(self, ts=grid, step_ms=step).eval(expr.expr)
        if isinstance(inner, np.ndarray):
            return Vec(((),), inner[None, :], np.ones((1, grid.size), bool)), grid
        assert isinstance(inner, Vec)
        return inner, grid

    # --- names

    def unname(self, vec: Vec) -> Vec:
        """Marks the metric names for removal, or removes them at once."""
        if self.run.options.delayed_name_removal:
            return replace(vec, drop=np.ones(len(vec.labels), bool))
        bare, clash = _unnamed(vec.labels)
        vec = replace(vec, labels=bare, drop=None)
        return merge(vec) if clash else vec

    # --- operators

    def unary(self, expr: Unary) -> Result:
        inner = self.eval(expr.expr)
        if isinstance(inner, np.ndarray):
            return -inner if expr.op == "-" else inner
        assert isinstance(inner, Vec)
        return self.unname(replace(inner, values=-inner.values)) if expr.op == "-" else inner

    def binary(self, expr: Binary) -> Result:
        left, right = self.eval(expr.left), self.eval(expr.right)
        op = expr.op
        if isinstance(left, Vec) and isinstance(right, Vec):
            assert expr.matching is not None
            if op in SET_OPERATORS:
                return self.set_operation(op, left, right, expr.matching)
            return self.match(expr, left, right, expr.matching)
        if isinstance(left, Vec) or isinstance(right, Vec):
            vec = left if isinstance(left, Vec) else right
            assert isinstance(vec, Vec)
            a = left.values if isinstance(left, Vec) else cast(Floats, left)[None, :]
            b = right.values if isinstance(right, Vec) else cast(Floats, right)[None, :]
            if op in COMPARISONS:
                keep = _COMPARE[op](a, b)
                if expr.bool:
                    return self.unname(replace(vec, values=keep.astype(np.float64)))
                return replace(vec, ok=vec.ok & keep)
            return self.unname(replace(vec, values=_ARITHMETIC[op](a, b)))
        a, b = cast(Floats, left), cast(Floats, right)
        if op in COMPARISONS:
            return _COMPARE[op](a, b).astype(np.float64)
        return _ARITHMETIC[op](a, b)

    def signatures(self, left: Vec, right: Vec, m: VectorMatching) -> tuple[Index, Index, int, list[Labels]]:
        """Match group numbers of both sides, how many there are, and their labels."""
        names = m.labels if m.on else (*m.labels, METRIC_NAME)
        sets_l, codes_l = _grouping(left.labels, names, not m.on)
        sets_r, codes_r = _grouping(right.labels, names, not m.on)
        numbers = {labels: i for i, labels in enumerate(sets_l)}
        to = np.array([numbers.setdefault(labels, len(numbers)) for labels in sets_r], np.int64)
        return codes_l, to[codes_r] if len(sets_r) else codes_r, len(numbers), list(numbers)

    def set_operation(self, op: str, left: Vec, right: Vec, m: VectorMatching) -> Vec:
        codes_l, codes_r, number, _ = self.signatures(left, right, m)
        steps = self.ts.size

        def seen(codes: Index, ok: Mask) -> Mask:
            found = np.zeros((number, steps), bool)
            if codes.size:
                groups = Groups(codes, number)
                used = groups.sizes > 0
                found[used] = np.logical_or.reduceat(groups.arrange(ok), groups.starts[used], axis=0)
            return found

        if op == "or":
            rest = right.ok & ~seen(codes_l, left.ok)[codes_r]
            return merge(stack(left, replace(right, ok=rest).compact()))
        there = seen(codes_r, right.ok)[codes_l]
        return replace(left, ok=left.ok & (there if op == "and" else ~there)).compact()

    def match(self, expr: Binary, left: Vec, right: Vec, m: VectorMatching) -> Vec:
        if not left.labels or not right.labels:
            return self.empty()
        swapped = m.card == "one-to-many"
        many, one = (right, left) if swapped else (left, right)
        codes_m, codes_o, number, sets = self.signatures(many, one, m)
        self.check_one_side(codes_o, number, one, sets, "left" if swapped else "right")
        # all pairs of one group, as runs of the one side sorted by group
        groups = Groups(codes_o, number)
        width = groups.sizes[codes_m]
        at_many = np.repeat(np.arange(codes_m.size), width)
        inside = np.arange(at_many.size) - np.repeat(np.cumsum(width) - width, width)
        at_one = groups.order[np.repeat(groups.starts[codes_m], width) + inside]
        self.run.count(at_many.size * self.ts.size)
        value_m, value_o = many.values[at_many], one.values[at_one]
        a, b = (value_o, value_m) if swapped else (value_m, value_o)
        paired = ok = many.ok[at_many] & one.ok[at_one]
        comparison = expr.op in COMPARISONS
        if comparison:
            keep = _COMPARE[expr.op](a, b)
            # a filter gives the left-hand value, whichever side is "many"
            values = keep.astype(np.float64) if expr.bool else a
            if not expr.bool:
                ok = ok & keep
        else:
            values = _ARITHMETIC[expr.op](a, b)
        if m.card == "one-to-one" and at_many.size:
            # before the filter: a pair that it removes is a match, too
            several = counts(paired, Groups(*_dense(codes_m[at_many]))) > 1
            if several.any():
                raise EvaluationError(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                )
        unnamed = not comparison or expr.bool
        delayed = self.run.options.delayed_name_removal
        key = (m.on, m.labels, m.card, m.include, unnamed and not delayed, at_many.tobytes(), at_one.tobytes())
        labels = _remember(
            (many.labels, one.labels),
            ("match", key) if at_many.size < 100_000 else object(),
            lambda: _matched_labels(many.labels, one.labels, at_many, at_one, m, unnamed and not delayed),
        )
        drop = None
        if delayed:
            drop = np.full(at_many.size, unnamed)
            if many.drop is not None:
                drop |= many.drop[at_many]
        message = "multiple matches for labels: grouping labels must ensure unique matches"
        filtered = m.card != "one-to-one" and comparison and not expr.bool
        if filtered and len(set(labels)) < len(labels):
            codes: dict[tuple[Labels, int], int] = {}
            pairs = zip(labels, codes_m[at_many].tolist(), strict=True)
            code = [codes.setdefault(pair, len(codes)) for pair in pairs]
            if (counts(paired, Groups(np.array(code, np.int64), len(codes))) > 1).any():
                raise EvaluationError(message)
        return merge(Vec(labels, values, ok, drop).compact(), message)

    def check_one_side(self, codes: Index, number: int, one: Vec, sets: list[Labels], side: str) -> None:
        if np.unique(codes).size == codes.size:
            return
        groups = Groups(*_dense(codes))
        several = counts(one.ok, groups) > 1
        if not several.any():
            return
        group, step = map(int, np.argwhere(several)[0])
        rows = [i for i in np.flatnonzero(groups.code == group).tolist() if one.ok[i, step]]
        pair = ", ".join(_text(one.labels[i]) for i in (rows[1], rows[0])[::-1])
        raise EvaluationError(
            f"found duplicate series for the match group {_text(sets[int(codes[rows[0]])])} on the {side} hand-side "
            f"of the operation: [{pair}];many-to-many matching not allowed: matching labels must be unique on one side"
        )

    # --- aggregation

    def aggregate(self, expr: Aggregate) -> Vec:
        op = expr.op
        text, param = "", np.zeros(0)
        if expr.param is not None:
            if op == "count_values":
                text = self.string(expr.param)
                if not text or any(0xDC80 <= ord(ch) <= 0xDCFF for ch in text):
                    raise EvaluationError(f"invalid label name {quote(text)}")
            else:
                param = self.scalar(expr.param)
        vec = self.vector(expr.expr)
        if op in ("topk", "bottomk"):
            if np.isnan(param).any():
                raise EvaluationError("Parameter value is NaN")
            if (np.abs(param) >= 2.0**63).any():
                raise EvaluationError(f"Scalar value {format_value(float(param[0]))} overflows int64")
        elif op == "quantile":
            for q in np.unique(param[~((param >= 0) & (param <= 1))]).tolist():
                assert expr.param is not None
                self.run.warn(f"quantile value should be between 0 and 1, got {format_value(q)}", expr.param)
        names = expr.grouping
        if expr.without:
            names = (*names, METRIC_NAME)
        labels, codes = _grouping(vec.labels, names, expr.without)
        groups = Groups(codes, len(labels))
        if op == "count_values":
            return self.count_values(expr, vec, labels, groups, text)
        if op in ("topk", "bottomk"):
            return self.top(vec, groups, param, descending=op == "topk")
        if op == "quantile":
            values, ok = quantile(param, vec.values, vec.ok, groups)
        else:
            values, ok = aggregate(op, vec.values, vec.ok, groups)
        return Vec(labels, values, ok, self.group_drop(vec, groups))

    def group_drop(self, vec: Vec, groups: Groups) -> Mask | None:
        if vec.drop is None:
            return None
        drop = np.zeros(groups.count, bool)
        drop[groups.code[vec.drop]] = True
        return drop

    def top(self, vec: Vec, groups: Groups, k: Floats, *, descending: bool) -> Vec:
        if not vec.labels:
            return vec
        place = ranks(vec.values, vec.ok, groups, descending=descending)
        result = replace(vec, ok=vec.ok & (place < np.trunc(k)))
        if self.ts.size == 1:
            order = np.lexsort((place[:, 0], groups.code))
            return result.rows(order[result.ok[order, 0]])
        return result.compact()

    def count_values(self, expr: Aggregate, vec: Vec, labels: tuple[Labels, ...], groups: Groups, name: str) -> Vec:
        found: dict[Labels, Floats] = {}
        for i, k in np.argwhere(vec.ok).tolist():
            base = labels[int(groups.code[i])]
            key = _with(base, name, format_value(float(vec.values[i, k])))
            found.setdefault(key, np.zeros(self.ts.size))[k] += 1
        if not found:
            return self.empty()
        values = np.stack(list(found.values()))
        drop = None if vec.drop is None or not vec.drop.any() else np.full(len(found), name != METRIC_NAME)
        return Vec(tuple(found), values, values > 0, drop)

    # --- functions

    def call(self, expr: Call) -> Result:
        name = expr.name
        if name in _MATH:
            vec = self.vector(expr.args[0])
            return self.unname(replace(vec, values=_MATH[name](vec.values)))
        if name in kernels.KERNELS:
            kernel = kernels.KERNELS[name]
            return self.over_windows(expr, expr.args[0], kernel)
        if name in ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"):
            if not expr.args:
                return Vec(((),), _date_part(name, self.ts / 1000)[None, :], np.ones((1, self.ts.size), bool))
            vec = self.vector(expr.args[0])
            return self.unname(replace(vec, values=_date_part(name, vec.values)))
        if name.startswith("histogram_") and name not in ("histogram_quantile", "histogram_fraction"):
            self.vector(expr.args[0])
            return self.empty()
        method: Callable[[Call], Result] = getattr(self, f"call_{name}")
        return method(expr)

    def over_windows(self, expr: Call, arg: Expr, kernel: Callable[[Windows], tuple[Floats, Mask]]) -> Vec:
        cuts, drop = self.windows(arg)
        labels, values, oks = [], [], []
        for w in cuts:
            self.run.count(w.shape[0] * w.shape[1])
            value, ok = kernel(w)
            labels.append(w.labels)
            values.append(value)
            oks.append(ok)
        if len(labels) > 1:
            result = Vec(_joined(tuple(labels)), np.concatenate(values), np.concatenate(oks))
        elif labels:
            result = Vec(labels[0], values[0], oks[0], drop)
        else:
            return self.empty()
        if expr.name in ("rate", "increase", "irate"):
            self.hint_counter(expr, arg, cuts)
        result = result.compact()
        return result if expr.name in _KEEPS_NAME else self.unname(result)

    def hint_counter(self, expr: Call, arg: Expr, cuts: list[Windows]) -> None:
        if not cuts:
            return
        sets, codes = _grouping(cuts[0].labels, (METRIC_NAME,), False)
        for i, labels in enumerate(sets):
            metric = _get(labels, METRIC_NAME)
            if metric and not metric.endswith(_COUNTER_SUFFIXES):
                number = np.broadcast_to(cuts[0].count(), cuts[0].shape)[codes == i]
                if (number >= 2).any():
                    self.run.info(
                        "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
                        + quote(metric),
                        arg,
                    )

    def call_absent_over_time(self, expr: Call) -> Vec:
        cuts, _ = self.windows(expr.args[0])
        there = np.zeros(self.ts.size, bool)
        for w in cuts:
            there |= w.full(w.count() > 0).any(axis=0)
        return self.absence(expr, there)

    def call_absent(self, expr: Call) -> Vec:
        return self.absence(expr, np.asarray(self.vector(expr.args[0]).ok.any(axis=0)))

    def absence(self, expr: Call, there: Mask) -> Vec:
        arg = unwrap(expr.args[0])
        selector = arg.vector if isinstance(arg, MatrixSelector) else arg
        labels: dict[str, str] = {}
        if isinstance(selector, VectorSelector):
            seen: set[str] = set()
            for m in selector.matchers:
                if m.name == METRIC_NAME:
                    continue
                if m.type is MatchType.EQUAL and m.name not in seen:
                    labels[m.name] = m.value
                else:
                    labels.pop(m.name, None)
                seen.add(m.name)
        key = tuple(sorted((name, value) for name, value in labels.items() if value))
        return Vec((key,), np.ones((1, self.ts.size)), ~there[None, :]).compact()

    def call_quantile_over_time(self, expr: Call) -> Vec:
        q = self.scalar(expr.args[0])
        cuts = expr.args[1]
        for bad in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
            self.run.warn(f"quantile value should be between 0 and 1, got {format_value(bad)}", expr.args[0])
        return self.over_windows(expr, cuts, lambda w: kernels.quantile_over_time(w, q))

    def call_predict_linear(self, expr: Call) -> Vec:
        ahead = self.scalar(expr.args[1])
        return self.over_windows(expr, expr.args[0], lambda w: kernels.predict_linear(w, self.ts, ahead))

    def call_double_exponential_smoothing(self, expr: Call) -> Vec:
        smoothing, trend = self.scalar(expr.args[1]), self.scalar(expr.args[2])
        for what, factor in (("smoothing", smoothing), ("trend", trend)):
            if not ((factor > 0) & (factor < 1)).all():
                got = format_value(float(factor[0]))
                raise EvaluationError(f"invalid {what} factor. Expected: 0 < factor < 1, got: {got}")
        smooth = kernels.double_exponential_smoothing
        return self.over_windows(expr, expr.args[0], lambda w: smooth(w, smoothing, trend))

    def call_clamp(self, expr: Call) -> Vec:
        vec, low, high = self.vector(expr.args[0]), self.scalar(expr.args[1]), self.scalar(expr.args[2])
        result = replace(vec, values=np.maximum(low, np.minimum(high, vec.values)), ok=vec.ok & ~(high < low))
        return self.unname(result.compact())

    def call_clamp_max(self, expr: Call) -> Vec:
        vec = self.vector(expr.args[0])
        return self.unname(replace(vec, values=np.minimum(self.scalar(expr.args[1]), vec.values)))

    def call_clamp_min(self, expr: Call) -> Vec:
        vec = self.vector(expr.args[0])
        return self.unname(replace(vec, values=np.maximum(self.scalar(expr.args[1]), vec.values)))

    def call_round(self, expr: Call) -> Vec:
        vec = self.vector(expr.args[0])
        nearest = self.scalar(expr.args[1]) if len(expr.args) > 1 else np.ones(self.ts.size)
        return self.unname(replace(vec, values=_go_round(vec.values, nearest)))

    def call_pi(self, expr: Call) -> Floats:
        return np.full(self.ts.size, math.pi)

    def call_time(self, expr: Call) -> Floats:
        return self.ts / 1000

    def call_vector(self, expr: Call) -> Vec:
        return Vec(((),), self.scalar(expr.args[0])[None, :], np.ones((1, self.ts.size), bool))

    def call_scalar(self, expr: Call) -> Floats:
        vec = self.vector(expr.args[0])
        one = vec.ok.sum(axis=0) == 1
        total = np.where(vec.ok, vec.values, 0.0).sum(axis=0)
        return np.where(one, total, np.nan)

    def call_timestamp(self, expr: Call) -> Vec:
        arg = unwrap(expr.args[0])
        if isinstance(arg, VectorSelector):
            vec, times = self.instant(arg)
            return self.unname(replace(vec, values=times / 1000))
        vec = self.vector(arg)
        return self.unname(replace(vec, values=np.broadcast_to(self.ts / 1000, vec.values.shape)))

    def sorted(self, expr: Call, *, descending: bool) -> Vec:
        vec = self.vector(expr.args[0])
        if self.run.is_range:
            self.warn_sort(expr)
            return vec
        key = -vec.values[:, 0] if descending else vec.values[:, 0]
        return vec.rows(np.argsort(key, kind="stable"))

    def warn_sort(self, expr: Call) -> None:
        self.run.warn("sort is ineffective for range queries since results are always ordered by labels", expr)

    def call_sort(self, expr: Call) -> Vec:
        return self.sorted(expr, descending=False)

    def call_sort_desc(self, expr: Call) -> Vec:
        return self.sorted(expr, descending=True)

    def by_label(self, expr: Call, *, descending: bool) -> Vec:
        vec = self.vector(expr.args[0])
        if self.run.is_range:
            self.warn_sort(expr)
            return vec
        names = [self.string(arg) for arg in expr.args[1:]]

        def key(i: int) -> tuple[Any, ...]:
            return (*(_natural(_get(vec.labels[i], name)) for name in names), vec.labels[i])

        return vec.rows(np.array(sorted(range(len(vec.labels)), key=key, reverse=descending), np.int64))

    def call_sort_by_label(self, expr: Call) -> Vec:
        return self.by_label(expr, descending=False)

    def call_sort_by_label_desc(self, expr: Call) -> Vec:
        return self.by_label(expr, descending=True)

    def call_label_replace(self, expr: Call) -> Vec:
        vec = self.vector(expr.args[0])
        target, template, source, pattern = (self.string(arg) for arg in expr.args[1:])
        try:
            regex = re2.compile(f"^(?s:{pattern})$", _QUIET)
        except (re2.error, UnicodeEncodeError) as exc:
            raise EvaluationError(f"invalid regular expression in label_replace(): {pattern}") from exc
        if not target or any(0xDC80 <= ord(ch) <= 0xDCFF for ch in target):
            raise EvaluationError(f"invalid destination label name in label_replace(): {target}")
        expanded: dict[str, str | None] = {}
        labels, drop = [], vec.drop.copy() if vec.drop is not None else np.zeros(len(vec.labels), bool)
        for i, series in enumerate(vec.labels):
            value = _get(series, source)
            if value not in expanded:
                found = regex.search(value)
                expanded[value] = None if found is None else _expand(template, found, regex)
            text = expanded[value]
            labels.append(series if text is None else _with(series, target, text))
            if text is not None and target == METRIC_NAME:
                drop[i] = False
        return merge(replace(vec, labels=tuple(labels), drop=drop if drop.any() else None))

    def call_label_join(self, expr: Call) -> Vec:
        vec = self.vector(expr.args[0])
        target, separator, *sources = (self.string(arg) for arg in expr.args[1:])
        for what, name in (("destination", target), *(("source", name) for name in sources)):
            if not name or any(0xDC80 <= ord(ch) <= 0xDCFF for ch in name):
                raise EvaluationError(f"invalid {what} label name in label_join(): {name}")
        labels = tuple(_with(s, target, separator.join(_get(s, name) for name in sources)) for s in vec.labels)
        drop = None if target == METRIC_NAME else vec.drop
        return merge(replace(vec, labels=labels, drop=drop))

    # --- classic histograms

    def buckets(self, expr: Call, vec: Vec) -> list[tuple[Labels, list[int], Floats]]:
        """For each histogram: its labels, rows and bounds."""
        found: dict[Labels, tuple[list[int], list[float]]] = {}
        for i, series in enumerate(vec.labels):
            bound = _get(series, "le")
            try:
                value = float(bound) if bound.strip() == bound and "_" not in bound else math.nan
                malformed = bound == ""
            except ValueError:
                malformed = True
            if malformed:
                if vec.ok[i].any():
                    self.run.warn(
                        f'bucket label "le" is missing or has a malformed value of {quote(bound)} '
                        f"for metric name {quote(_get(series, METRIC_NAME))}",
                        expr.args[-1],
                    )
                continue
            delayed = self.run.options.delayed_name_removal
            bare = tuple([p for p in series if p[0] != "le" and (delayed or p[0] != METRIC_NAME)])
            rows, bounds = found.setdefault(bare, ([], []))
            rows.append(i)
            bounds.append(value)
        return [(labels, rows, np.array(bounds)) for labels, (rows, bounds) in found.items()]

    def call_histogram_quantile(self, expr: Call) -> Vec:
        q = self.scalar(expr.args[0])
        vec = self.vector(expr.args[1])
        for bad in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
            self.run.warn(f"quantile value should be between 0 and 1, got {format_value(bad)}", expr.args[0])
        alike: dict[tuple[float, ...], list[tuple[Labels, list[int]]]] = {}
        for labels, rows, bounds in self.buckets(expr, vec):
            alike.setdefault(tuple(bounds.tolist()), []).append((labels, rows))
        out_labels: list[Labels] = []
        out_values: list[Floats] = []
        out_ok: list[Mask] = []
        for key, members in alike.items():
            bounds = np.array(key)
            index = np.array([rows for _, rows in members]).T  # [B, G]
            counts_all, ok = vec.values[index], vec.ok[index]
            present = ok.any(axis=0)
            merged, filled, held = coalesce(bounds, counts_all, ok)
            if (held.all(axis=0) == present).all():
                value, forced = bucket_quantile(q, merged, filled)
                forced = forced & present
            else:  # buckets that come and go: each point has bounds of its own
                value, forced = np.zeros(present.shape), np.zeros(present.shape, bool)
                for g, k in np.argwhere(present).tolist():
                    here = held[:, g, k]
                    one, force = bucket_quantile(q[k : k + 1], merged[here], filled[here, g, k][:, None, None])
                    value[g, k], forced[g, k] = one[0, 0], force[0, 0]
            for g in np.flatnonzero(forced.any(axis=1)).tolist():
                metric = _get(vec.labels[members[g][1][0]], METRIC_NAME)
                self.run.info(
                    "input to histogram_quantile needed to be fixed for monotonicity (see "
                    "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) "
                    f"for metric name {quote(metric)}",
                    expr.args[1],
                )
            out_labels += [labels for labels, _ in members]
            out_values.append(value)
            out_ok.append(present)
        if not out_labels:
            return self.empty()
        return self.unname(Vec(tuple(out_labels), np.concatenate(out_values), np.concatenate(out_ok)).compact())

    def call_histogram_fraction(self, expr: Call) -> Vec:
        lower, upper = self.scalar(expr.args[0]), self.scalar(expr.args[1])
        vec = self.vector(expr.args[2])
        labels, values, oks = [], [], []
        for key, rows, bounds in self.buckets(expr, vec):
            merged, filled, held = coalesce(bounds, vec.values[rows], vec.ok[rows])
            row, ok = np.zeros(self.ts.size), held.any(axis=0)
            for k in np.flatnonzero(ok).tolist():
                here = held[:, k]
                row[k] = bucket_fraction(float(lower[k]), float(upper[k]), merged[here], filled[here, k])
            labels.append(key)
            values.append(row)
            oks.append(ok)
        if not labels:
            return self.empty()
        return self.unname(Vec(tuple(labels), np.stack(values), np.stack(oks)).compact())


# --- rows


def _dense(codes: Index) -> tuple[Index, int]:
    distinct, dense = np.unique(codes, return_inverse=True)
    return dense.astype(np.int64), int(distinct.size)


def stack(top: Vec, bottom: Vec) -> Vec:
    if not bottom.labels:
        return top
    drop = None
    if top.drop is not None or bottom.drop is not None:
        drop = np.concatenate([v.drop if v.drop is not None else np.zeros(len(v.labels), bool) for v in (top, bottom)])
    return Vec(
        top.labels + bottom.labels,
        np.concatenate([top.values, bottom.values]),
        np.concatenate([top.ok, bottom.ok]),
        drop,
    )


def merge(vec: Vec, message: str = DUPLICATES) -> Vec:
    """Rows with one label set become one row.

    Raises:
        EvaluationError: two of them have a point at the same step.
    """
    if len(vec.labels) < 2 or _remember((vec.labels,), "distinct", lambda: len(set(vec.labels)) == len(vec.labels)):
        return vec
    codes: dict[Labels, int] = {}
    code = np.array([codes.setdefault(labels, len(codes)) for labels in vec.labels], np.int64)
    groups = Groups(code, len(codes))
    number = counts(vec.ok, groups)
    if (number > 1).any():
        raise EvaluationError(message)
    values = np.add.reduceat(groups.arrange(np.where(vec.ok, vec.values, 0.0)), groups.starts, axis=0)
    drop = None
    if vec.drop is not None:
        drop = np.zeros(len(codes), bool)
        drop[code[vec.drop]] = True
    return Vec(tuple(codes), np.asarray(values, np.float64), number > 0, drop)


def _matched_labels(
    many: tuple[Labels, ...], one: tuple[Labels, ...], at_many: Index, at_one: Index, m: VectorMatching, unnamed: bool
) -> tuple[Labels, ...]:
    names = frozenset(m.labels)
    include = frozenset(m.include)
    result = []
    for i, k in zip(at_many.tolist(), at_one.tolist(), strict=True):
        labels = many[i]
        if m.card == "one-to-one":
            labels = tuple([p for p in labels if (p[0] in names) == m.on])
        if unnamed:
            labels = tuple([p for p in labels if p[0] != METRIC_NAME])
        if include:
            kept = [p for p in labels if p[0] not in include]
            labels = tuple(sorted(kept + [p for p in one[k] if p[0] in include]))
        result.append(labels)
    return tuple(result)


_NATURAL = re.compile(r"(\d+)")


def _natural(text: str) -> tuple[Any, ...]:
    """Digits compare as numbers: a2 before a10."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in _NATURAL.split(text) if part)


_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


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


# --- entry


def evaluate(
    expr: Expr,
    storage: Storage,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    lookback_ms: int = LOOKBACK_MS,
    *,
    options: Options | None = None,
    text: str = "",
) -> Value:
    """The value of an expression at one instant (start = end, step 0) or over a range.

    A range gives a Matrix with rows sorted by labels. An instant gives a Vector, Scalar or String, and a Matrix of
    the raw samples for a range selector.

    Args:
        text: the expression's text, for the positions in annotations; default ``str(expr)``.

    Raises:
        EvaluationError: the evaluation failed.
        QueryLimitError: too many steps or samples, or ``options.cancelled`` said so.
        QueryError: a range query of a range vector or a string.
    """
    chosen = replace(options or Options(), lookback_ms=lookback_ms)
    is_range = step_ms > 0
    if is_range and expr.type not in (ValueType.SCALAR, ValueType.VECTOR):
        raise EvaluationError(
            f'invalid expression type "{expr.type.documented}" for range query, must be Scalar or instant Vector'
        )
    if end_ms < start_ms:
        raise EvaluationError("end timestamp must not be before start time")
    steps = (end_ms - start_ms) // step_ms + 1 if is_range else 1
    if steps > chosen.steps_max:
        raise QueryLimitError(
            f"exceeded maximum resolution of {chosen.steps_max} points per timeseries. Try decreasing the query "
            "resolution (?step=XX)"
        )
    ts = start_ms + step_ms * np.arange(steps, dtype=np.int64)
    run = _Run(storage, chosen, text or str(expr), start_ms, end_ms, is_range)
    evaluator = _Evaluator(run, ts, step_ms)
    with np.errstate(all="ignore"):
        if expr.type is ValueType.MATRIX:
            return _raw(evaluator, expr)
        found = evaluator.eval(expr)
    notes: dict[str, tuple[str, ...]] = {"warnings": tuple(run.warnings), "infos": tuple(run.infos)}
    if isinstance(found, str):
        return String(ts, found, **notes)
    if isinstance(found, np.ndarray):
        if not is_range:
            return Scalar(ts, found, **notes)
        return Matrix(((),), ts, found[None, :], **notes)
    vec = _cleaned(found)
    if not is_range:
        return Vector(vec.labels, ts, np.where(vec.ok, vec.values, ABSENT), **notes)
    order = sorted(range(len(vec.labels)), key=vec.labels.__getitem__)
    index = np.array(order, np.int64)
    values = vec.values if vec.ok.all() else np.where(vec.ok, vec.values, ABSENT)
    return Matrix(tuple(map(vec.labels.__getitem__, order)), ts, values[index], **notes)


def _cleaned(vec: Vec) -> Vec:
    """Marked names removed, rows without points left out, label sets distinct."""
    vec = vec.compact()
    if vec.drop is not None and vec.drop.any():
        bare, _ = _unnamed(vec.labels)
        labels = tuple(b if d else full for b, full, d in zip(bare, vec.labels, vec.drop.tolist(), strict=True))
        vec = replace(vec, labels=labels, drop=None)
    return merge(vec)


def _raw(evaluator: _Evaluator, expr: Expr) -> Matrix:
    """The samples in the one window of a range vector, on the union of their times."""
    cuts, drop = evaluator.windows(expr)
    found: dict[Labels, tuple[Times, Floats]] = {}
    for w in cuts:
        lo, hi = np.broadcast_to(w.lo, w.shape)[:, 0], np.broadcast_to(w.hi, w.shape)[:, 0]
        for i, labels in enumerate(w.labels):
            if hi[i] > lo[i]:
                rows = slice(int(lo[i]), int(hi[i]))
                if drop is not None and drop[i]:
                    labels = tuple(p for p in labels if p[0] != METRIC_NAME)
                found[labels] = (w.times[rows, w.target[i]], w.values[rows, i])
    order = sorted(found)
    times = np.unique(np.concatenate([found[s][0] for s in order])) if order else np.zeros(0, np.int64)
    values = np.full((len(order), times.size), ABSENT)
    for row, labels in enumerate(order):
        values[row, np.searchsorted(times, found[labels][0])] = found[labels][1]
    notes = tuple(evaluator.run.warnings), tuple(evaluator.run.infos)
    return Matrix(tuple(order), times, values, warnings=notes[0], infos=notes[1])
