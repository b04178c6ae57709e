"""The walk over the tree: every node gives arrays for all steps at once, instant queries have one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from flyball.errors import QueryLimitError
from flyball.model.frames import Floats, Frame, Times
from flyball.model.labels import Matcher
from flyball.promql import aggregating, functions, operators, selecting
from flyball.promql.annotations import Annotations
from flyball.promql.catalog import TIME_DEPENDENT
from flyball.promql.features import STABLE, Features
from flyball.promql.stopping import Stop
from flyball.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    Duration,
    Expr,
    NumberLiteral,
    Paren,
    StringLiteral,
    Timing,
    Unary,
    VectorSelector,
    unwrap,
)
from flyball.promql.timing import duration_ms
from flyball.promql.values import EvaluationError
from flyball.promql.vectors import Vec, merge, unnamed

STEPS_MAX = 11_000
SAMPLES_MAX = 50_000_000
LOOKBACK_MS = 300_000
SUBQUERY_STEP_MS = 60_000

Result = Vec | Floats | str  # vector, scalar [T], string


class Storage(Protocol):
    """Where samples come from."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """Samples with start_ms < t <= end_ms of the matching series; more is allowed, it is cut away."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """Limits and switches of an evaluation."""

    lookback_ms: int = LOOKBACK_MS
    subquery_step_ms: int = SUBQUERY_STEP_MS
    samples_max: int = SAMPLES_MAX
    steps_max: int = STEPS_MAX
    features: Features = STABLE
    stop: Stop = field(default_factory=Stop)


@dataclass(slots=True)
class Run:
    """What one evaluation shares: the storage, limits, annotations."""

    storage: Storage
    options: Options
    start_ms: int
    end_ms: int
    step_ms: int  # 0 for an instant
    notes: Annotations
    figures_only: set[int]  # ids of selectors, see selecting.figures_only
    samples: int = 0
    selected: "dict[int, selecting.RangeVector]" = field(default_factory=dict)  # see selecting.look_at
    invariant: dict[int, bool] = field(default_factory=dict)

    def count(self, samples: int) -> None:
        """
        Raises:
            QueryLimitError: the query holds more samples than it may, or the caller wants no answer any more.
        """
        self.check_stopped()
        self.samples += samples
        if self.samples > self.options.samples_max:
            raise QueryLimitError(
                f"query processing would load too many samples into memory in query execution (over "
                f"{self.options.samples_max}); select fewer series, a shorter range or a longer step"
            )

    def check_stopped(self) -> None:
        """
        Raises:
            QueryLimitError: the caller wants no answer any more.
        """
        self.options.stop.check()

    @property
    def is_range(self) -> bool:
        return self.step_ms > 0

    def duration(self, value: Duration, *, signed: bool = False) -> int:
        """A duration of the tree, ms; only an offset may be ``signed``."""
        return (
            value if isinstance(value, int) else duration_ms(value, self.step_ms, self.end_ms - self.start_ms, signed)
        )


@dataclass(slots=True)
class Evaluator:
    """Evaluates nodes at the steps ``ts`` [T]; subqueries have an evaluator of their own."""

    run: Run
    ts: Times
    step_ms: int

    def eval(self, expr: Expr) -> Result:
        self.run.check_stopped()
        if self.ts.size > 1 and not isinstance(expr, NumberLiteral | StringLiteral) and self.is_invariant(expr):
            return self.repeated(replace(self, ts=self.ts[:1]).eval(expr))
        if isinstance(expr, NumberLiteral):
            return np.full(self.ts.size, expr.value)
        if isinstance(expr, StringLiteral):
            return expr.value
        if isinstance(expr, Paren):
            return self.eval(expr.expr)
        if isinstance(expr, VectorSelector):
            return selecting.instant(self, expr)
        if isinstance(expr, Unary):
            return operators.unary(self, expr)
        if isinstance(expr, Binary):
            return operators.binary(self, expr)
        if isinstance(expr, Aggregate):
            return aggregating.aggregate(self, expr)
        if isinstance(expr, Call):
            found: Result = functions.FUNCTIONS[expr.name](self, expr)
            return found
        raise EvaluationError(f"unhandled expression of type {type(expr).__name__}: {expr}")

    def repeated(self, once: Result) -> Result:
        """A value of one step at all steps."""
        if isinstance(once, str):
            return once
        if isinstance(once, np.ndarray):
            return np.repeat(once, self.ts.size)
        shape = (len(once.labels), self.ts.size)
        self.run.count(shape[0] * shape[1])
        table = None if once.histograms is None else np.repeat(once.histograms, self.ts.size, axis=1)
        return replace(
            once, values=np.broadcast_to(once.values, shape), ok=np.broadcast_to(once.ok, shape), histograms=table
        )

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

    def empty(self) -> Vec:
        return Vec((), np.zeros((0, self.ts.size)), np.zeros((0, self.ts.size), bool))

    def is_invariant(self, expr: Expr) -> bool:
        """Whether the value is the same at every step, because every selector below is pinned by ``@``."""
        known = self.run.invariant.get(id(expr))
        if known is not None:
            return known
        if isinstance(expr, Timing):
            result = expr.at is not None
        elif isinstance(expr, Call) and expr.name in TIME_DEPENDENT:
            pinned = expr.name == "timestamp" and isinstance(unwrap(expr.args[0]), VectorSelector)
            result = pinned and self.is_invariant(unwrap(expr.args[0]))
        else:
            result = all(self.is_invariant(child) for child in expr.children())
        self.run.invariant[id(expr)] = result
        return result

    def unname(self, vec: Vec) -> Vec:
        """Marks the metadata labels for removal, or removes them at once."""
        if self.run.options.features.delayed_name_removal:
            return replace(vec, drop=np.ones(len(vec.labels), bool))
        bare, clash = unnamed(vec.labels)
        vec = Vec(bare, vec.values, vec.ok, None, vec.histograms)
        return merge(vec) if clash else vec
