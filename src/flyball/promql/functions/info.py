"""``info``: adds the labels of info metrics to the series of the same instance and job."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import re2

from flyball.model.frames import Floats, Mask, has_histogram
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType
from flyball.promql.selecting import first_selector_times, gather, select
from flyball.promql.syntax import Call, VectorSelector, unwrap
from flyball.promql.values import EvaluationError
from flyball.promql.vectors import Vec, label_text, label_value, merge, metric_name
from flyball.promql.windows import cut

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

_IDENTIFYING = ("instance", "job")
_TARGET_INFO = Matcher(MatchType.EQUAL, METRIC_NAME, "target_info")


@dataclass(slots=True, eq=False)
class _InfoSeries:
    """One info series: where it is in use, [T], and since when its sample is there, [T] ms."""

    labels: Labels
    ok: Mask
    times: Floats


def info(ev: "Evaluator", call: Call) -> Vec:
    base = ev.vector(call.args[0])
    selector = unwrap(call.args[1]) if len(call.args) > 1 else None
    matchers = selector.matchers if isinstance(selector, VectorSelector) else ()
    on_name = _name_matchers([m for m in matchers if m.name == METRIC_NAME])
    on_data: dict[str, list[Matcher]] = {}
    for m in matchers:
        if m.name != METRIC_NAME:
            on_data.setdefault(m.name, []).append(m)
    is_info = [all(m.matches(metric_name(labels)) for m in on_name) for labels in base.labels]
    found = _info_series(ev, call, base, is_info, [*on_name, *(m for ms in on_data.values() for m in ms)])
    by_identity: dict[Labels, dict[str, list[_InfoSeries]]] = {}
    for series in found:
        names = by_identity.setdefault(_identity(series.labels), {})
        names.setdefault(metric_name(series.labels), []).append(series)
    all_match_empty = all(m.matches("") for ms in on_data.values() for m in ms)
    parts: list[Vec] = []
    for i, labels in enumerate(base.labels):
        row = base.rows([i])
        if is_info[i]:
            parts.append(row)
            continue
        for extra, ok in _enriched(labels, row.ok[0], by_identity.get(_identity(labels), {}), on_data):
            if extra is not None or all_match_empty:
                known = {name for name, _ in labels}
                added = tuple(pair for pair in extra or () if pair[0] not in known)
                parts.append(replace(row, labels=(tuple(sorted(labels + added)),), ok=ok[None, :]))
    parts = [part for part in parts if part.ok.any()]
    return merge(gather(parts)) if parts else ev.empty()


def _name_matchers(given: list[Matcher]) -> list[Matcher]:
    """Those that say which metrics are info metrics."""
    if any(m.type in (MatchType.EQUAL, MatchType.REGEX) for m in given):
        return given
    return [Matcher(MatchType.REGEX, METRIC_NAME, ".+_info"), *given] if given else [_TARGET_INFO]


def _identity(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] in _IDENTIFYING)


def _info_series(
    ev: "Evaluator", call: Call, base: Vec, is_info: list[bool], matchers: list[Matcher]
) -> list[_InfoSeries]:
    """The info series of the instances and jobs in the vector, at the time its first selector looks at."""
    values: dict[str, set[str]] = {}
    for labels, skip in zip(base.labels, is_info, strict=True):
        for name in _IDENTIFYING:
            value = label_value(labels, name)
            if value and not skip:
                values.setdefault(name, set()).add(value)
    if not values:
        return []
    identities = [
        Matcher(MatchType.REGEX, name, "|".join(re2.escape(value) for value in sorted(found)))
        for name, found in values.items()
    ]
    times = first_selector_times(ev, call.args[0], ev.ts)
    ends = ev.ts if times is None else times
    starts = ends - ev.run.options.lookback_ms
    series: list[_InfoSeries] = []
    node = VectorSelector("", (*identities, *matchers), pos=call.pos)
    for frame in select(ev, node, int(starts.min()), int(ends.max())):
        if frame.histograms is not None and has_histogram(frame.histograms).any():
            metric = label_text(frame.labels[0])
            raise EvaluationError(f"this should be an info metric, with float samples: {metric}")
        w = cut(frame, starts, ends, keep_stale=True)
        last = w.hi - 1
        ok = w.full(w.hi > w.lo) & ~np.isnan(w.take(last))
        times = w.spread(w.time(last))
        series += [_InfoSeries(labels, ok[i], times[i]) for i, labels in enumerate(w.labels)]
    return series


def _enriched(
    labels: Labels, ok: Mask, by_name: dict[str, list[_InfoSeries]], on_data: dict[str, list[Matcher]]
) -> list[tuple[Labels | None, Mask]]:
    """The labels to add, and at which steps; None where no info series is there."""
    none_yet = ok.copy()
    states: dict[tuple[_InfoSeries, ...], list[int]] = {}
    for k in np.flatnonzero(ok).tolist():
        chosen = tuple(series for several in by_name.values() if (series := _newest(several, k)) is not None)
        if chosen:
            states.setdefault(chosen, []).append(k)
            none_yet[k] = False
    found: list[tuple[Labels | None, Mask]] = [(None, none_yet)] if none_yet.any() else []
    base = {name for name, _ in labels}
    for chosen, steps in states.items():
        extra: dict[str, str] = {}
        for series in chosen:
            for name, value in series.labels:
                if name == METRIC_NAME or (on_data and name not in on_data):
                    continue
                if extra.get(name, value) != value:
                    raise EvaluationError(f"conflicting label: {name}")
                if name not in base:
                    extra[name] = value
        here = np.zeros(ok.shape, bool)
        here[steps] = True
        found.append((tuple(sorted(extra.items())), here))
    return found


def _newest(several: list[_InfoSeries], step: int) -> _InfoSeries | None:
    """The series whose sample is the newest at a step.

    Raises:
        EvaluationError: two are as new.
    """
    there = [series for series in several if series.ok[step]]
    if len(there) < 2:
        return there[0] if there else None
    there.sort(key=lambda series: -float(series.times[step]))
    first, second = there[:2]
    at = int(first.times[step])
    if at == int(second.times[step]):
        pair = f"existing {label_text(first.labels)} @ {at}, new {label_text(second.labels)} @ {at}"
        raise EvaluationError(f"found duplicate series for info metric: {pair}")
    return first


FUNCTIONS = {"info": info}
