"""A backtest as one HTML page that needs nothing else."""

import html
from collections.abc import Callable, Sequence

import numpy as np

from flyball.replay.backtest import Result
from flyball.replay.traces import Trace
from flyball.replay.workload import Counts, Workload

#: name, what it is, how it is shown
COLUMNS: tuple[tuple[str, str, Callable[[Result], str]], ...] = (
    ("under", "missing share of demand, %", lambda r: f"{r.scores.theta_u:.2f}"),
    ("time under", "share of time with too few, %", lambda r: f"{r.scores.tau_u:.1f}"),
    ("over", "idle share of demand, %", lambda r: f"{r.scores.theta_o:.1f}"),
    ("time over", "share of time with too many, %", lambda r: f"{r.scores.tau_o:.1f}"),
    ("changes", "writes", lambda r: str(r.scores.changes)),
    ("cost", "supply over demand", lambda r: f"{r.scores.cost:.3f}"),
    ("pod hours", "of supply", lambda r: f"{r.scores.replica_hours:.0f}"),
    ("latency", "mean response in service times (M/M/1)", lambda r: f"{r.latency:.2f}"),
    ("saturated", "share of time at or above capacity, %", lambda r: f"{r.saturated:.2f}"),
)
_COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#475569")
_WIDTH, _HEIGHT, _POINTS = 1100, 320, 1100
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1140px;padding:0 1rem;color:#1e293b}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #cbd5e1}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;background:#f8fafc}.key{margin-right:1.2rem}"""


def html_report(results: Sequence[Result], trace: Trace, workload: Workload) -> str:
    """The page: scores, replicas against demand, and what was assumed."""
    demand = workload.demand(trace.rate)
    top = float(max(demand.max(), *(result.supply.max() for result in results))) or 1.0
    lines = [_line(demand, top, "#94a3b8", 2.5)]
    lines += [_line(result.supply, top, _COLOURS[at % len(_COLOURS)], 1.2) for at, result in enumerate(results)]
    keys = "".join(
        f'<span class="key" style="color:{colour}">&#9632; {html.escape(name)}</span>'
        for name, colour in [
            ("demand", "#94a3b8"),
            *((r.policy, _COLOURS[at % len(_COLOURS)]) for at, r in enumerate(results)),
        ]
    )
    head = "".join(f'<th title="{html.escape(about)}">{name}</th>' for name, about, _ in COLUMNS)
    rows = "".join(
        f"<tr><td>{html.escape(result.policy)}</td>{''.join(f'<td>{show(result)}</td>' for _, _, show in COLUMNS)}</tr>"
        for result in results
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in (*workload.assumptions(), *trace.notes))
    title = html.escape(f"Backtest on {trace.name}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{len(trace):,} s, {trace.rate.mean():.1f} units/s on average, "
        f"{trace.rate.max():.1f} at most.</p><table><tr><th>policy</th>{head}</tr>{rows}</table>"
        f"<h2>Replicas against demand</h2><p>{keys}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="replicas over time">{"".join(lines)}</svg>'
        f"<p>At most {top:.0f} replicas. Each point is the largest value of its stretch of time.</p>"
        f"<h2>Assumed</h2><ul>{notes}</ul></html>"
    )


def thinned(values: Counts, points: int) -> Counts:
    """At most so many values: the largest of each stretch."""
    step = -(-len(values) // points)
    padded = np.pad(values, (0, -len(values) % step), mode="edge")
    return np.asarray(padded.reshape(-1, step).max(axis=1))


def _line(values: Counts, top: float, colour: str, width: float) -> str:
    shown = thinned(values, _POINTS)
    step = _WIDTH / max(1, len(shown) - 1)
    points = " ".join(
        f"{at * step:.1f},{_HEIGHT - 4 - value / top * (_HEIGHT - 12):.1f}" for at, value in enumerate(shown)
    )
    return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{points}"/>'
