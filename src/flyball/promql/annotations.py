"""Warnings and infos of an evaluation, in Prometheus' words. One text is reported once, at its last place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from flyball.promql.histograms import format_g
from flyball.promql.lexer import line_column
from flyball.promql.syntax import Expr, quote

WARNING, INFO = "PromQL warning: ", "PromQL info: "


@dataclass(slots=True)
class _Forced:
    """Where monotonicity of classic buckets had to be forced."""

    at_ms: list[int]
    lowest: float
    highest: float
    most: float


@dataclass(slots=True)
class Annotations:
    """Collects them. ``query`` is its text or tree, for the positions."""

    query: str | Expr
    _places: dict[str, tuple[int, str]] = field(default_factory=dict)  # message -> (position, what follows it)
    _forced: dict[str, tuple[int, _Forced]] = field(default_factory=dict)
    _overlaps: dict[str, int] = field(default_factory=dict)

    def warn(self, message: str, at: Expr) -> None:
        self._places[WARNING + message] = (at.pos[0], "")

    def info(self, message: str, at: Expr) -> None:
        self._places[INFO + message] = (at.pos[0], "")

    def start_time_overlap(self, metric: str, at: Expr) -> None:
        message = (
            f"{WARNING}sample has start time that overlaps with previous sample timestamp for metric {quote(metric)}"
        )
        self._overlaps[message] = self._overlaps.get(message, 0) + 1
        times = self._overlaps[message]
        self._places[message] = (at.pos[0], f" ({times} occurrences)" if times > 1 else "")

    def forced_monotonicity(
        self, metric: str, at: Expr, times_ms: list[int], lowest: float, highest: float, most: float
    ) -> None:
        """``lowest`` and ``highest`` bound whose count was raised, by ``most`` at the most."""
        message = (
            INFO + "input to histogram_quantile needed to be fixed for monotonicity (see "
            "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)" + _for_metric(metric)
        )
        _, known = self._forced.setdefault(message, (at.pos[0], _Forced([], lowest, highest, most)))
        known.at_ms += times_ms
        known.lowest, known.highest = min(known.lowest, lowest), max(known.highest, highest)
        known.most = max(known.most, most)
        first, last = (
            datetime.fromtimestamp(end(known.at_ms) // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for end in (min, max)
        )
        self._places[message] = (
            at.pos[0],
            f", from buckets {format_g(known.lowest)} to {format_g(known.highest)}, with a max diff of "
            f"{known.most:.2g}, over {len(known.at_ms)} samples from {first} to {last}",
        )

    def texts(self, kind: str) -> tuple[str, ...]:
        """All of one kind, WARNING or INFO, with positions."""
        return tuple(
            f"{message}{rest} ({line_column(str(self.query), at)})"
            for message, (at, rest) in self._places.items()
            if message.startswith(kind)
        )

    # --- those that several functions give

    def invalid_quantile(self, q: float, at: Expr) -> None:
        self.warn(f"quantile value should be between 0 and 1, got {format_g(q)}", at)

    def mixed_floats_histograms(self, metric: str, at: Expr) -> None:
        self.warn(f"encountered a mix of histograms and floats for metric name {quote(metric)}", at)

    def mixed_schemas(self, metric: str, at: Expr) -> None:
        mix = "vector contains a mix of histograms with exponential and custom buckets schemas"
        self.warn(f"{mix} for metric name {quote(metric)}", at)

    def not_counter(self, metric: str, at: Expr) -> None:
        self.warn(f"this native histogram metric is not a counter: {quote(metric)}", at)

    def not_gauge(self, metric: str, at: Expr) -> None:
        self.warn(f"this native histogram metric is not a gauge: {quote(metric)}", at)

    def reset_collision(self, operation: str, at: Expr) -> None:
        self.warn(f"conflicting counter resets during histogram {operation}", at)

    def reconciled(self, operation: str, at: Expr) -> None:
        self.info(f"mismatched custom buckets were reconciled during {operation}", at)

    def ignored_in_range(self, metric: str, at: Expr) -> None:
        mix = "ignored histograms in a range containing both floats and histograms"
        self.info(f"{mix} for metric name {quote(metric)}", at)

    def ignored_in_aggregation(self, op: str, at: Expr) -> None:
        self.info(f"ignored histogram in {op} aggregation", at)

    def named(self, note: Callable[[str, Expr], None], message: str, metric: str, at: Expr) -> None:
        """A message that names the metric when it has a name."""
        note(message + _for_metric(metric), at)


def _for_metric(metric: str) -> str:
    return f" for metric name {quote(metric)}" if metric else ""
