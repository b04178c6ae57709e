"""Functions of histograms, classic (series with ``le``) and native."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flyball.model.frames import Floats, Mask
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.promql.buckets import bucket_fraction, bucket_quantile, coalesce
from flyball.promql.distributions import NaNNote, histogram_fraction, histogram_quantile, histogram_variance
from flyball.promql.histograms import go_divide
from flyball.promql.syntax import Call, Expr, quote
from flyball.promql.values import format_value
from flyball.promql.vectors import Index, Vec, label_value, merge, metric_name, remember, unnamed, with_label, without

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator


# --- figures of a native histogram


def _figure(of: Callable[[Histogram], float], ev: "Evaluator", call: Call) -> Vec:
    vec = ev.vector(call.args[0])
    values, ok = np.zeros(vec.ok.shape), np.zeros(vec.ok.shape, bool)
    for i, k, h in vec.cells():
        values[i, k], ok[i, k] = of(h), True
    return ev.unname(replace(vec, values=values, ok=ok, histograms=None).compact())


# --- classic buckets


@dataclass(slots=True, eq=False)
class _Layout:
    """Histograms with the same bounds: ``bounds`` [B], ``rows`` [B, G] of the vector, ``labels`` of each of the G."""

    bounds: Floats
    rows: Index
    labels: tuple[Labels, ...]


@dataclass(slots=True, eq=False)
class _Classic:
    """What the rows of a vector are as buckets. ``malformed`` rows have no bound."""

    layouts: list[_Layout]
    malformed: list[int] = field(default_factory=list)


def _bound(text: str) -> float | None:
    if not text or text.strip() != text or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _classic(labels: tuple[Labels, ...]) -> _Classic:
    """The rows grouped into histograms, and those by their bounds."""
    found: dict[Labels, list[tuple[float, int]]] = {}
    malformed = []
    parsed: dict[str, float | None] = {}
    for i, series in enumerate(labels):
        text = label_value(series, "le")
        if text not in parsed:
            parsed[text] = _bound(text)
        bound = parsed[text]
        if bound is None:
            malformed.append(i)
        else:
            found.setdefault(without(series, ("le",)), []).append((bound, i))
    alike: dict[tuple[float, ...], list[tuple[Labels, list[int]]]] = {}
    for key, buckets in found.items():
        buckets.sort()
        alike.setdefault(tuple(b for b, _ in buckets), []).append((key, [i for _, i in buckets]))
    layouts = [
        _Layout(np.array(bounds), np.array([rows for _, rows in members]).T, tuple(key for key, _ in members))
        for bounds, members in alike.items()
    ]
    return _Classic(layouts, malformed)


def _histograms(ev: "Evaluator", vec: Vec, arg: Expr) -> tuple[Vec, list[_Layout]]:
    """The vector without what contradicts itself, and its classic histograms. Rows that have no bound, and native
    histograms that share their labels with a classic one, are reported."""
    classic = remember((vec.labels,), "classic", lambda: _classic(vec.labels))
    delayed = ev.run.options.features.delayed_name_removal
    floats = vec.float_ok()
    for i in classic.malformed:
        if floats[i].any():
            bad = f'bucket label "le" is missing or has a malformed value of {quote(label_value(vec.labels[i], "le"))}'
            ev.run.notes.named(ev.run.notes.warn, bad, metric_name(vec.labels[i]) if delayed else "", arg)
    if vec.histograms is None:
        return vec, classic.layouts
    native = vec.is_histogram()
    ok = vec.ok.copy()
    row_of = {labels: i for i, labels in enumerate(vec.labels)}
    for layout in classic.layouts:
        for g, labels in enumerate(layout.labels):
            if labels not in row_of:
                continue
            i = row_of[labels]
            both = native[i] & floats[layout.rows[:, g]].any(axis=0)
            if both.any():
                mix = "vector contains a mix of classic and native histograms"
                ev.run.notes.named(ev.run.notes.warn, mix, metric_name(labels) if delayed else "", arg)
                ok[i] &= ~both
                for b in layout.rows[:, g].tolist():
                    ok[b] &= ~both
    return replace(vec, ok=ok), classic.layouts


def _native(vec: Vec, of: Callable[[int, int, Histogram], float]) -> Vec:
    """A figure of every native histogram."""
    values, ok = np.zeros(vec.ok.shape), np.zeros(vec.ok.shape, bool)
    for i, k, h in vec.cells():
        values[i, k], ok[i, k] = of(i, k, h), True
    return replace(vec, values=values, ok=ok, histograms=None).compact()


def _note(ev: "Evaluator", note: NaNNote, labels: Labels, at: Expr) -> None:
    texts = {
        NaNNote.RESULT: "input to histogram_quantile has NaN observations, result is NaN",
        NaNNote.SKEW: "input to histogram_quantile has NaN observations, result is skewed higher",
        NaNNote.EXCLUDED: "input to histogram_fraction has NaN observations, which are excluded from all fractions",
    }
    if note in texts:
        ev.run.notes.named(ev.run.notes.info, texts[note], metric_name(labels), at)


# --- quantiles


def _invalid_quantiles(ev: "Evaluator", q: Floats, at: Expr) -> None:
    for bad in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
        ev.run.notes.invalid_quantile(bad, at)


def _quantiles(ev: "Evaluator", q: Floats, vec: Vec, layouts: list[_Layout], arg: Expr) -> list[Vec]:
    """One quantile of every histogram, native ones first."""

    def native(i: int, k: int, h: Histogram) -> float:
        value, note = histogram_quantile(float(q[k]), h)
        _note(ev, note, vec.labels[i], arg)
        return value

    parts = [_native(vec, native)] if vec.histograms is not None else []
    floats = vec.float_ok()
    for layout in layouts:
        ev.run.check_stopped()
        ok = floats[layout.rows]
        present: Mask = np.asarray(ok.any(axis=0))
        bounds, counts, held = coalesce(layout.bounds, vec.values[layout.rows], ok)
        if (held.all(axis=0) == present).all():
            value, forced = bucket_quantile(q, bounds, counts)
            _report_forced(ev, forced & present, bounds, counts, layout.labels, arg)
        else:  # buckets that come and go: each point has bounds of its own
            value = np.zeros(present.shape)
            for g, k in np.argwhere(present).tolist():
                here = held[:, g, k]
                one, force = bucket_quantile(q[k : k + 1], bounds[here], counts[here, g, k][:, None, None])
                value[g, k] = one[0, 0]
                if force[0, 0]:
                    where = np.zeros(present.shape, bool)
                    where[g, k] = True
                    _report_forced(ev, where, bounds[here], counts[here], layout.labels, arg)
        parts.append(Vec(layout.labels, value, present).compact())
    return parts


def _report_forced(
    ev: "Evaluator", forced: Mask, bounds: Floats, counts: Floats, labels: tuple[Labels, ...], arg: Expr
) -> None:
    delayed = ev.run.options.features.delayed_name_removal
    for g in np.flatnonzero(forced.any(axis=1)).tolist():
        steps = np.flatnonzero(forced[g])
        here = counts[:, g, steps]
        fallen = np.maximum.accumulate(here, axis=0) - here  # [B, steps]
        at = np.flatnonzero((fallen > 0).any(axis=1))
        ev.run.notes.forced_monotonicity(
            metric_name(labels[g]) if delayed else "",
            arg,
            ev.ts[steps].tolist(),
            float(bounds[at[0]]),
            float(bounds[at[-1]]),
            float(fallen.max()),
        )


def _joined(ev: "Evaluator", parts: list[Vec]) -> Vec:
    parts = [part for part in parts if part.labels]
    if not parts:
        return ev.empty()
    vec = Vec(
        tuple(labels for part in parts for labels in part.labels),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.ok for part in parts]),
    )
    if ev.run.options.features.delayed_name_removal:
        return replace(merge(vec), drop=np.ones(len(set(vec.labels)), bool))
    return merge(replace(vec, labels=unnamed(vec.labels)[0]))


def quantile(ev: "Evaluator", call: Call) -> Vec:
    q = ev.scalar(call.args[0])
    vec = ev.vector(call.args[1])
    _invalid_quantiles(ev, q, call.args[0])
    vec, layouts = _histograms(ev, vec, call.args[1])
    return _joined(ev, _quantiles(ev, q, vec, layouts, call.args[1]))


def quantiles(ev: "Evaluator", call: Call) -> Vec:
    """Several quantiles at once, told apart by a label."""
    vec, label = ev.vector(call.args[0]), ev.string(call.args[1])
    vec, layouts = _histograms(ev, vec, call.args[0])
    parts: list[Vec] = []
    for arg in call.args[2:]:
        q = ev.scalar(arg)
        _invalid_quantiles(ev, q, arg)
        for part in _quantiles(ev, q, vec, layouts, call.args[0]):
            for value in np.unique(q).tolist():  # one, unless the argument changes with time
                named = tuple(with_label(labels, label, _quantile_text(value)) for labels in part.labels)
                here = part.ok & ((q == value) | (math.isnan(value) & np.isnan(q)))
                parts.append(replace(part, labels=named, ok=here).compact())
    return _joined(ev, parts)


def _quantile_text(q: float) -> str:
    text = format_value(q)
    return text if not math.isfinite(q) or "." in text else f"{text}.0"


# --- fractions


def fraction(ev: "Evaluator", call: Call) -> Vec:
    lower, upper = ev.scalar(call.args[0]), ev.scalar(call.args[1])
    vec, layouts = _histograms(ev, ev.vector(call.args[2]), call.args[2])

    def native(i: int, k: int, h: Histogram) -> float:
        value, note = histogram_fraction(float(lower[k]), float(upper[k]), h)
        _note(ev, note, vec.labels[i], call.args[2])
        return value

    parts = [_native(vec, native)] if vec.histograms is not None else []
    floats = vec.float_ok()
    for layout in layouts:
        bounds, counts, held = coalesce(layout.bounds, vec.values[layout.rows], floats[layout.rows])
        ok: Mask = np.asarray(held.any(axis=0))
        values = np.zeros(ok.shape)
        for g, k in np.argwhere(ok).tolist():
            here = held[:, g, k]
            values[g, k] = bucket_fraction(float(lower[k]), float(upper[k]), bounds[here], counts[here, g, k])
        parts.append(Vec(layout.labels, values, ok))
    return _joined(ev, parts)


FUNCTIONS: "dict[str, Callable[[Evaluator, Call], Vec]]" = {
    "histogram_avg": partial(_figure, lambda h: go_divide(h.sum, h.count)),
    "histogram_count": partial(_figure, lambda h: h.count),
    "histogram_fraction": fraction,
    "histogram_quantile": quantile,
    "histogram_quantiles": quantiles,
    "histogram_stddev": partial(_figure, lambda h: math.sqrt(histogram_variance(h))),
    "histogram_stdvar": partial(_figure, histogram_variance),
    "histogram_sum": partial(_figure, lambda h: h.sum),
}
