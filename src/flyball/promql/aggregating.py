"""Aggregation operators: ``sum by (...)`` and its kin."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flyball.model.frames import Floats, Mask
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels
from flyball.promql import compiled
from flyball.promql.aggregation import Groups, chosen_among_equals, quantile, ranks
from flyball.promql.aggregation import aggregate as aggregate_floats
from flyball.promql.functions.over_ranges import KEEPS_NAME, Kernel, hint_counter, plain_range
from flyball.promql.hashing import label_hash
from flyball.promql.histograms import IncompatibleError, Total, compact, format_g, mean
from flyball.promql.histograms import text as histogram_text
from flyball.promql.over_time import KERNELS
from flyball.promql.rate_sums import RateSums
from flyball.promql.selecting import RangeVector
from flyball.promql.syntax import Aggregate, Call, quote, unwrap
from flyball.promql.values import EvaluationError, format_value
from flyball.promql.vectors import (
    Vec,
    distinct,
    groups_of,
    joined,
    metric_name,
    remember,
    unnamed_groups_of,
    with_label,
)
from flyball.promql.windows import cut

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

_INT64 = 2.0**63
_IN_BLOCKS = frozenset({"sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"})
_BLOCK_CELLS = 1 << 17
_RATES = frozenset({"rate", "increase", "delta"})
#: Those that histograms take no part in.
_OF_FLOATS = frozenset({"min", "max", "stddev", "stdvar", "quantile", "topk", "bottomk"})


def aggregate(ev: "Evaluator", expr: Aggregate) -> Vec:
    if expr.op == "count_values":
        return _count_values(ev, expr)
    param = ev.scalar(expr.param) if expr.param is not None else np.zeros(0)
    if expr.op in _IN_BLOCKS and (found := _in_blocks(ev, expr)) is not None:
        return found
    vec = ev.vector(expr.expr)
    labels, groups = groups_of(vec.labels, _names(expr), expr.without)
    if expr.op in _OF_FLOATS and vec.histograms is not None:
        if vec.is_histogram().any():
            ev.run.notes.ignored_in_aggregation(expr.op, expr if expr.op in ("topk", "bottomk") else expr.expr)
        vec = vec.floats()
    if expr.op in ("topk", "bottomk", "limitk", "limit_ratio"):
        return _selection(ev, expr, vec, groups, param)
    if expr.op == "quantile":
        _check_quantile(ev, expr, param)
        values, ok = quantile(param, vec.values, vec.ok, groups)
    elif expr.op in ("sum", "avg") and vec.histograms is not None:
        return _with_histograms(ev, expr, vec, labels, groups)
    else:
        values, ok = aggregate_floats(expr.op, vec.values, vec.ok, groups)
    return Vec(labels, values, ok, _drop(vec, groups))


def _in_blocks(ev: "Evaluator", expr: Aggregate) -> Vec | None:
    """An aggregation over a function of windows, some steps at a time, so that what lies between stays in the
    cache; None when there is little of it or it is not that simple."""
    call = unwrap(expr.expr)
    if not isinstance(call, Call) or call.name not in KERNELS or (ev.ts.size > 1 and ev.is_invariant(call)):
        return None
    found = plain_range(ev, call, call.args[0])
    cells = sum(len(frame.labels) for frame in found.frames) * ev.ts.size if found is not None else 0
    if found is None or not cells:
        return None
    everything = joined(tuple(frame.labels for frame in found.frames))
    features = ev.run.options.features
    grouped = unnamed_groups_of(everything, _names(expr), expr.without)
    if grouped is None or not distinct(everything):
        return None
    if features.delayed_name_removal or call.name in KEEPS_NAME:
        grouped = groups_of(everything, _names(expr), expr.without)
    labels, groups = grouped
    way = _way_to_sum(expr.op, call.name, cells) if ev.ts.size > 1 else None
    if way is not None:
        sums = way(call.name, found.starts, found.ends, groups.count, ev.run.options.stop)
        values, ok, used = _rates(expr.op, sums, found, groups)
    else:
        values, ok, used = _blocks(ev, expr.op, KERNELS[call.name], found, groups)
    if call.name in ("rate", "increase"):
        hint_counter(ev, call.args[0], everything, used)
    drop = None
    if features.delayed_name_removal and call.name not in KEEPS_NAME:
        drop = np.ones(groups.count, bool)
    return Vec(labels, values, ok, drop).compact()


def _way_to_sum(op: str, function: str, cells: int) -> type[RateSums] | type[compiled.RateSums] | None:
    """What adds up so many rates; None when that is no sum of rates."""
    if op not in ("sum", "avg") or function not in _RATES:
        return None
    if compiled.ready(cells):
        return compiled.RateSums
    return RateSums if function != "delta" else None  # what cancels out is added up in upstream's order


def _rates(
    op: str, sums: RateSums | compiled.RateSums, found: RangeVector, groups: Groups
) -> tuple[Floats, Mask, Mask]:
    """Values and presence [G, T], and which series were used [n]."""
    parts = np.split(groups.code, np.cumsum([len(frame.labels) for frame in found.frames])[:-1])
    used = [sums.add(frame, code) for frame, code in zip(found.frames, parts, strict=True)]
    totals, lost, numbers = (table[:, : groups.count].T for table in (sums.totals, sums.lost, sums.numbers))
    values = totals + np.where(np.isfinite(totals), lost, 0.0)
    if op == "avg":
        values = values / np.maximum(numbers, 1)
    return values, numbers > 0, np.concatenate(used)


def _blocks(ev: "Evaluator", op: str, kernel: Kernel, found: RangeVector, groups: Groups) -> tuple[Floats, Mask, Mask]:
    """Values and presence [G, T], and which series were used [n]."""
    windows = [cut(frame, found.starts, found.ends, apart=True, stop=ev.run.options.stop) for frame in found.frames]
    shape = (groups.count, ev.ts.size)
    values, ok = np.empty(shape, order="F"), np.empty(shape, bool, order="F")
    used = np.zeros(groups.code.size, bool)
    size = max(1, _BLOCK_CELLS // groups.code.size)
    for first in range(0, ev.ts.size, size):
        ev.run.check_stopped()
        steps = slice(first, first + size)
        parts = [w.steps(first, first + size).applied(kernel) for w in windows]
        block, there = parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))
        used |= np.asarray(there.any(axis=1))
        values[:, steps], ok[:, steps] = aggregate_floats(op, block, there, groups)
    return values, ok, used


def _names(expr: Aggregate) -> tuple[str, ...]:
    return (*expr.grouping, METRIC_NAME) if expr.without else expr.grouping


def _drop(vec: Vec, groups: Groups) -> Mask | None:
    if vec.drop is None:
        return None
    drop = np.zeros(groups.count, bool)
    drop[groups.code[vec.drop]] = True
    return drop


def _check_quantile(ev: "Evaluator", expr: Aggregate, q: Floats) -> None:
    assert expr.param is not None
    bad = {float(value) for value in (np.nanmax(q, initial=0.0), np.nanmin(q, initial=1.0)) if not 0 <= value <= 1}
    if np.isnan(q).any():
        bad.add(float("nan"))
    for value in bad:
        ev.run.notes.invalid_quantile(value, expr.param)


def _with_histograms(ev: "Evaluator", expr: Aggregate, vec: Vec, labels: tuple[Labels, ...], groups: Groups) -> Vec:
    """``sum`` and ``avg`` where some samples are histograms; a group of both kinds has no value."""
    is_histogram = vec.is_histogram()
    values, ok = aggregate_floats(expr.op, vec.values, vec.ok & ~is_histogram, groups)
    members: dict[tuple[int, int], list[int]] = {}
    for i, k in np.argwhere(is_histogram).tolist():
        members.setdefault((int(groups.code[i]), k), []).append(i)
    cells: list[tuple[int, int, Histogram | None]] = []
    notes = ev.run.notes
    assert vec.histograms is not None
    for (g, k), rows in members.items():
        if ok[g, k]:
            notes.warn("encountered a mix of histograms and floats for aggregation", expr.expr)
            cells.append((g, k, None))
            continue
        total: Total | None = None
        value: Histogram | None = None
        try:
            if expr.op == "avg":
                value, total = mean(vec.histograms[i, k] for i in rows)
            else:
                total = Total(vec.histograms[rows[0], k])
                for i in rows[1:]:
                    total.add(vec.histograms[i, k])
                value = total.result()
        except IncompatibleError:
            notes.mixed_schemas(metric_name(vec.labels[rows[-1]]), expr.expr)
        if total is not None and value is not None:
            if total.collision:
                notes.reset_collision("aggregation", expr.expr)
            if total.reconciled:
                notes.reconciled("aggregation", expr.expr)
            value = compact(value)
        cells.append((g, k, value))
    return Vec(labels, values, ok, _drop(vec, groups)).with_cells(cells).compact()


# --- those that select series


def _selection(ev: "Evaluator", expr: Aggregate, vec: Vec, groups: Groups, param: Floats) -> Vec:
    if expr.op == "limit_ratio":
        return _limit_ratio(ev, expr, vec, param)
    if not param.size or np.nanmax(param, initial=-np.inf) < 1:
        if np.isnan(param).any():
            raise EvaluationError("Parameter value is NaN")
        return ev.empty()
    if np.isnan(param).any():
        raise EvaluationError("Parameter value is NaN")
    if param.min() <= -_INT64:
        raise EvaluationError(f"Scalar value {format_g(float(param.min()))} underflows int64")
    if param.max() >= _INT64:
        raise EvaluationError(f"Scalar value {format_g(float(param.max()))} overflows int64")
    if not vec.labels:
        return vec
    k = np.trunc(param)
    if expr.op == "limitk":
        order = np.cumsum(groups.arrange(vec.ok), axis=0)  # how many came up to here, the groups behind each other
        before = np.concatenate([np.zeros((1, order.shape[1]), np.int64), order])[groups.starts]
        place = np.empty(vec.ok.shape, np.int64)
        place[groups.order] = order - np.repeat(before, groups.sizes, axis=0) - 1
        return replace(vec, ok=vec.ok & (place < k)).compact()
    descending = expr.op == "topk"
    place = ranks(vec.values, vec.ok, groups, descending=descending)
    place = chosen_among_equals(vec.values, vec.ok, groups, place, k, descending=descending)
    result = replace(vec, ok=vec.ok & (place < k))
    if ev.ts.size == 1:
        by_rank = np.lexsort((place[:, 0], groups.code))
        return result.rows(by_rank[result.ok[by_rank, 0]])
    return result.compact()


def _limit_ratio(ev: "Evaluator", expr: Aggregate, vec: Vec, ratio: Floats) -> Vec:
    assert expr.param is not None
    if np.isnan(ratio).any():
        raise EvaluationError("Ratio value is NaN")
    for beyond, bound in ((float(ratio.max(initial=0)), 1.0), (float(ratio.min(initial=0)), -1.0)):
        if abs(beyond) > 1:
            got = f"got {format_g(beyond)}, capping to {format_g(bound)}"
            ev.run.notes.warn(f"ratio value should be between -1 and 1, {got}", expr.param)
    labels = vec.labels
    share = remember((labels,), "hash", lambda: np.array([label_hash(s) / (2.0**64) for s in labels]))[:, None]
    capped = np.clip(ratio, -1.0, 1.0)
    kept = np.where(capped >= 0, share < capped, share >= 1.0 + capped)
    return replace(vec, ok=vec.ok & kept).compact()


def _count_values(ev: "Evaluator", expr: Aggregate) -> Vec:
    assert expr.param is not None
    name = ev.string(expr.param)
    if not name or any(0xDC80 <= ord(ch) <= 0xDCFF for ch in name):
        raise EvaluationError(f"invalid label name {quote(name)}")
    vec = ev.vector(expr.expr)
    labels, groups = groups_of(vec.labels, _names(expr), expr.without)
    is_histogram = vec.is_histogram()
    found: dict[Labels, Floats] = {}
    for i, k in np.argwhere(vec.ok).tolist():
        value = format_value(float(vec.values[i, k]))
        if vec.histograms is not None and is_histogram[i, k]:
            value = histogram_text(vec.histograms[i, k])
        key = with_label(labels[int(groups.code[i])], name, value)
        found.setdefault(key, np.zeros(ev.ts.size))[k] += 1
    if not found:
        return ev.empty()
    values = np.stack(list(found.values()))
    return Vec(tuple(found), values, values > 0)
