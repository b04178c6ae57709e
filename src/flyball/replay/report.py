"""A backtest as one HTML page that needs nothing else."""

import html
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from flyball.clock import rfc3339
from flyball.replay.backtest import Result
from flyball.replay.traces import Trace
from flyball.replay.tuning import Candidate
from flyball.replay.workload import Counts, Workload

#: name, what it is, how it is shown, whose smallest is best; None: neither more nor less is
COLUMNS: tuple[tuple[str, str, Callable[[Result], float], str, bool | None], ...] = (
    ("under", "missing share of demand, %", lambda r: r.scores.theta_u, ".2f", True),
    ("time under", "share of time with too few pods, %", lambda r: r.scores.tau_u, ".1f", True),
    ("over", "idle share of demand, %", lambda r: r.scores.theta_o, ".1f", True),
    ("time over", "share of time with too many, %", lambda r: r.scores.tau_o, ".1f", None),
    ("changes", "writes", lambda r: r.scores.changes, "d", True),
    ("cost", "supply over demand, 1 is ideal", lambda r: r.scores.cost, ".3f", None),
    ("pod hours", "of supply", lambda r: r.scores.replica_hours, ".0f", True),
    ("latency", "mean, in service times (M/M/1)", lambda r: r.latency, ".2f", True),
    ("saturated", "share of time at capacity, %", lambda r: r.saturated, ".2f", True),
    ("instability", "time moving unlike demand, %", lambda r: r.scores.instability, ".1f", True),
    ("speed-up", "elastic, beside a constant size", lambda r: r.speedup, ".2f", False),
)
_COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#475569")
_DEMAND, _MISSING = "#94a3b8", "#dc2626"
_WIDTH, _HEIGHT, _LEFT, _BELOW, _POINTS = 1100, 260, 46, 24, 1050
_CLOSE_S = 1800  # of the look at the worst time
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1140px;padding:0 1rem;color:#1e293b}
table{border-collapse:collapse}td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e2e8f0}
td:first-child,th:first-child{text-align:left}.best{font-weight:700}small{color:#64748b}h2{margin-top:2rem}
svg{width:100%;height:auto;background:#f8fafc}svg text{font:11px system-ui,sans-serif;fill:#64748b}
.key{margin-right:1.2rem}"""


def html_report(results: Sequence[Result], trace: Trace, workload: Workload, notes: Sequence[str]) -> str:
    """The page: scores, replicas against demand of each policy and at the worst time, and what was assumed."""
    demand = workload.demand(trace.rate)
    coloured = [(result, _COLOURS[at % len(_COLOURS)]) for at, result in enumerate(results)]
    key = _key([("demand", _DEMAND), *((result.policy, colour) for result, colour in coloured)])
    body = [_table(results), "<h2>Cost and missing demand</h2>", _key((r.policy, c) for r, c in coloured)]
    body.append(scatter([(r.scores.cost, r.scores.theta_u, r.policy, colour) for r, colour in coloured]))
    body.append("<h2>Replicas against demand</h2><p>Each point is the largest value of its stretch of time.</p>")
    top = int(max(demand.max(), *(result.supply.max() for result in results), 1))
    for result, colour in coloured:
        missing = np.maximum(0, demand - result.supply)
        body.append(f"<h3>{_key([(result.policy, colour), ('demand', _DEMAND), ('missing', _MISSING)])}</h3>")
        body.append(_plot([(demand, _DEMAND), (result.supply, colour), (missing, _MISSING)], top, trace, 0))
    worst = _worst(demand, results)
    if worst is not None:
        part = slice(worst, worst + _CLOSE_S)
        top = int(max(demand[part].max(), *(result.supply[part].max() for result in results), 1))
        lines = [(demand[part], _DEMAND), *((result.supply[part], colour) for result, colour in coloured)]
        body.append(f"<h2>The worst half hour, second by second</h2><p>{key}</p>" + _plot(lines, top, trace, worst))
    assumed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    span = f"{_time(trace, 0)} to {_time(trace, len(trace))}, {len(trace) / 3600:.1f} h"
    load = f"{trace.rate.mean():.1f} units/s on average, {trace.rate.max():.1f} at most"
    head = f"<p>{span} of load: {load}; demand {demand.mean():.1f} replicas on average, {demand.max()} at most.</p>"
    return page(f"Policies on {trace.name}", f"{head}{''.join(body)}<h2>Assumed</h2><ul>{assumed}</ul>")


def tuning_report(
    candidates: Sequence[Candidate],
    front: Sequence[Candidate],
    best: Candidate | None,
    trace: Trace,
    notes: Sequence[str],
) -> str:
    """The page of a search: every setting by cost and missing demand, and the scores of those that none beats."""
    colours = {id(candidate): _COLOURS[0] for candidate in front} | {id(best): _COLOURS[1]}
    spots = [
        (c.result.scores.cost, c.result.scores.theta_u, c.changed, colours.get(id(c), _DEMAND)) for c in candidates
    ]
    key = [("the cheapest that will do", _COLOURS[1])] if best is not None else []
    key += [("those that none beats in both", _COLOURS[0]), ("the others", _DEMAND)]
    shown = front if best is None or best in front else [*front, best]
    table = _table([candidate.result for candidate in shown])
    assumed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    body = f"<p>{len(candidates)} settings tried.</p><p>{_key(key)}</p>{scatter(spots)}<h2>Scores</h2>{table}"
    return page(f"Settings on {trace.name}", f"{body}<h2>Assumed</h2><ul>{assumed}</ul>")


def page(title: str, body: str) -> str:
    """A whole page."""
    title = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1>{body}</html>"
    )


def scatter(points: Sequence[tuple[float, float, str, str]]) -> str:
    """(cost, missing share of demand in percent, name, colour) of each policy, the best at the lower left."""
    costs, unders = [point[0] for point in points], [point[1] for point in points]
    low, high = min(costs), max(costs)
    wide, tall = (high - low) or 1.0, max(unders) or 1.0
    spots = "".join(
        f'<circle cx="{_LEFT + 10 + (cost - low) / wide * (_WIDTH - _LEFT - 30):.1f}" '
        f'cy="{_HEIGHT - 10 - under / tall * (_HEIGHT - 24):.1f}" r="5" fill="{colour}">'
        f"<title>{html.escape(name)}: cost {cost:.3f}, {under:.2f} % missing</title></circle>"
        for cost, under, name, colour in points
    )
    marks = f'<text x="2" y="16">{tall:.2f} %</text><text x="2" y="{_HEIGHT - 6}">0 %</text>'
    marks += f'<text x="{_LEFT + 4}" y="{_HEIGHT + 14}">cost {low:.3f}</text>'
    marks += f'<text x="{_WIDTH - 4}" y="{_HEIGHT + 14}" text-anchor="end">{high:.3f}</text>'
    return _svg("missing share of demand by cost", spots + marks)


def thinned(values: Counts, points: int) -> Counts:
    """At most so many values: the largest of each stretch."""
    step = -(-len(values) // points)
    padded = np.pad(values, (0, -len(values) % step), mode="edge")
    return np.asarray(padded.reshape(-1, step).max(axis=1))


def _table(results: Sequence[Result]) -> str:
    head = "".join(f"<th>{html.escape(result.policy)}</th>" for result in results)
    rows = []
    for name, about, value, form, lower in COLUMNS:
        values = [value(result) for result in results]
        best = None if lower is None or len(results) < 2 else (min if lower else max)(values)
        cells = "".join(f"<td{' class=best' if one == best else ''}>{one:{form}}</td>" for one in values)
        rows.append(f"<tr><td>{name} <small>{html.escape(about)}</small></td>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _key(names: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f'<span class="key" style="color:{colour}">&#9632; {html.escape(name)}</span>' for name, colour in names
    )


def _worst(demand: Counts, results: Sequence[Result]) -> int | None:
    """The second from which the policies together miss most; None when none ever misses anything."""
    missing = sum(np.maximum(0, demand - result.supply) for result in results)
    if not np.any(missing):
        return None
    summed = np.concatenate([[0], np.cumsum(missing)])
    return int(np.argmax(summed[_CLOSE_S:] - summed[:-_CLOSE_S])) if len(demand) > _CLOSE_S else 0


def _plot(lines: Sequence[tuple[Counts, str]], top: int, trace: Trace, begin_s: int) -> str:
    count = len(lines[0][0])
    drawn = "".join(_line(values, top, colour) for values, colour in lines)
    step = next(size for size in (n * 10**e for e in range(10) for n in (1, 2, 5)) if size * 5 >= top)
    marks = []
    for value in range(0, top + 1, step):
        y = _HEIGHT - value / top * (_HEIGHT - 12)
        marks.append(
            f'<path d="M{_LEFT} {y:.1f}H{_WIDTH}" stroke="#e2e8f0"/><text x="2" y="{y + 4:.1f}">{value}</text>'
        )
    for part in range(6):
        x = _LEFT + part / 5 * (_WIDTH - _LEFT)
        anchor = "start" if part == 0 else "end" if part == 5 else "middle"
        at = _time(trace, begin_s + part * count // 5)
        marks.append(f'<text x="{x:.1f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">{at}</text>')
    return _svg("replicas over time", "".join(marks) + drawn)


def _svg(label: str, inside: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}" role="img" aria-label="{label}">{inside}</svg>'


def _line(values: Counts, top: int, colour: str) -> str:
    """Steps, since replicas stay until they change."""
    shown = thinned(values, _POINTS)
    wide = (_WIDTH - _LEFT) / len(shown)
    path: list[str] = []
    last = math.nan
    for at, value in enumerate(shown.tolist()):
        if value != last:
            y = _HEIGHT - value / top * (_HEIGHT - 12)
            path.append(f"{'H' if path else 'M'}{_LEFT + at * wide:.1f}{'V' if path else ' '}{y:.1f}")
            last = value
    return f'<path fill="none" stroke="{colour}" stroke-width="1.5" d="{"".join(path)}H{_WIDTH}"/>'


def _time(trace: Trace, second: int) -> str:
    return rfc3339(trace.start_ms + int(second * 1000 * trace.compress))[:16].replace("T", " ")
