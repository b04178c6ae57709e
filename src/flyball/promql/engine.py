"""The entry: an expression over a storage, at an instant or over a range."""

from dataclasses import replace

import numpy as np

from flyball.errors import QueryLimitError
from flyball.model.frames import ABSENT
from flyball.promql.annotations import INFO, WARNING, Annotations
from flyball.promql.evaluator import LOOKBACK_MS, Evaluator, Options, Run, Storage
from flyball.promql.selecting import figures_only, raw_samples
from flyball.promql.syntax import Expr, ValueType
from flyball.promql.values import EvaluationError, Matrix, Scalar, String, Value, Vector
from flyball.promql.vectors import Vec, in_order, merge, unnamed


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
        QueryLimitError: too many steps or samples, or ``options.stop`` was set.
        QueryError: a range query of a range vector or a string.
    """
    chosen = options or Options()
    if chosen.lookback_ms != lookback_ms:
        chosen = replace(chosen, lookback_ms=lookback_ms)
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
    run = Run(storage, chosen, start_ms, end_ms, step_ms, Annotations(text or expr), figures_only(expr))
    evaluator = Evaluator(run, ts, step_ms)
    with np.errstate(all="ignore"):
        if expr.type is ValueType.MATRIX:
            return _raw(evaluator, expr)
        found = evaluator.eval(expr)
    warnings, infos = run.notes.texts(WARNING), run.notes.texts(INFO)
    if isinstance(found, str):
        return String(ts, found, warnings=warnings, infos=infos)
    if isinstance(found, np.ndarray):
        if not is_range:
            return Scalar(ts, found, warnings=warnings, infos=infos)
        return Matrix(((),), ts, found[None, :], warnings=warnings, infos=infos)
    vec = _cleaned(found)
    if not is_range:
        values = np.where(vec.ok, vec.values, ABSENT)
        return Vector(vec.labels, ts, values, vec.histograms, warnings=warnings, infos=infos)
    index, labels = in_order(vec.labels)
    values = vec.values if vec.ok.all() else np.where(vec.ok, vec.values, ABSENT)
    histograms = None if vec.histograms is None else vec.histograms[index]
    return Matrix(labels, ts, values[index], histograms, warnings=warnings, infos=infos)


def _cleaned(vec: Vec) -> Vec:
    """Marked names removed, rows without points left out, label sets distinct."""
    vec = vec.compact()
    if vec.drop is not None and vec.drop.any():
        bare, _ = unnamed(vec.labels)
        labels = tuple(b if d else full for b, full, d in zip(bare, vec.labels, vec.drop.tolist(), strict=True))
        vec = replace(vec, labels=labels, drop=None)
    return merge(vec)


def _raw(evaluator: Evaluator, expr: Expr) -> Matrix:
    """The samples in the one window of a range vector, on the union of their times."""
    found = raw_samples(evaluator, expr)
    order = sorted(found)
    times = np.unique(np.concatenate([found[s][0] for s in order])) if order else np.zeros(0, np.int64)
    values = np.full((len(order), times.size), ABSENT)
    histograms = None
    if any(found[s][2] is not None for s in order):
        histograms = np.full(values.shape, None, object)
    for row, labels in enumerate(order):
        at = np.searchsorted(times, found[labels][0])
        values[row, at] = found[labels][1]
        table = found[labels][2]
        if histograms is not None and table is not None:
            histograms[row, at] = table
    notes = evaluator.run.notes
    return Matrix(tuple(order), times, values, histograms, warnings=notes.texts(WARNING), infos=notes.texts(INFO))
