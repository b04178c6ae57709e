"""Values of queries, with the time of the newest sample behind each; queries shared among all who can share them."""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from flyball import clock
from flyball.adapter.remembered import Remembered
from flyball.adapter.rounds import Rounds
from flyball.adapter.sharing import NotShareable, SharedQuery
from flyball.adapter.tracing import query_span
from flyball.errors import ConfigError, FlyballError, QueryError, UpstreamError
from flyball.metricrules import MetricQuery, RuleOptions
from flyball.metricrules.queries import has_constant, newest_time_query
from flyball.model.labels import METRIC_NAME, Labels
from flyball.sources import MetricsSource, Sample

log = logging.getLogger(__name__)

VALUE_MAX = 9.2e15  # int64 milli-units
PLANS_MAX = 5_000
SHARED_MAX = 1_000
AHEAD_MIN_S = 1.0  # an answer that serves for a shorter time is gone before the round that it is asked for
SCOPE_MEMORY_S = 60.0

#: A sample and the time, in ms, of the newest sample behind it.
Dated = tuple[Sample, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for one rule's values.

    Attributes:
        where: the rule, in messages.
        staleness_ms: older values are left out; None serves any age.
        request_time: values carry the time of the request instead of their own.
    """

    where: str
    options: RuleOptions
    staleness_ms: int | None
    request_time: bool = False


class Evaluation:
    """Asks metric sources.

    Args:
        source_of: the source of a name; "" is the adapter's own.
        cache_s: for how long an answer to all is used again.
    """

    def __init__(self, source_of: Callable[[str], MetricsSource], cache_s: float) -> None:
        self._source_of, self._cache_s = source_of, cache_s
        self._rounds: OrderedDict[Hashable, Rounds] = OrderedDict()
        self._ahead: dict[Hashable, asyncio.TimerHandle] = {}
        self._shared: Remembered[dict[tuple[str, ...], list[Dated]]] = Remembered(lambda _: cache_s, SHARED_MAX)
        self._plans: OrderedDict[Hashable, SharedQuery | NotShareable] = OrderedDict()
        self._scopes: dict[Hashable, tuple[float, str, bool]] = {}
        self.counts = dict.fromkeys(
            ("queries", "shared_fallbacks", "stale_values_dropped", "not_finite_dropped", "query_bytes_max"), 0
        )

    def statistics(self) -> dict[str, int]:
        """Queries asked, requests that shared one, values left out."""
        return {**self.counts, "shared_queries": self._shared.asked, "shared_answers": self._shared.answered}

    def forget(self) -> None:
        """The rules have changed: plans and answers are of the old ones."""
        self._plans.clear()
        self._shared.forget()
        self._rounds.clear()
        for handle in self._ahead.values():
            handle.cancel()
        self._ahead.clear()
        self._scopes.clear()

    # -- all objects at once ---------------------------------------------------------------------------------------

    def plan(self, key: Hashable, make: Callable[[], SharedQuery]) -> SharedQuery | None:
        """The shared query of a key, proven once; None when there is none."""
        found = self._plans.get(key)
        if found is None:
            try:
                found = make()
            except NotShareable as exc:
                found = exc
            self._plans[key] = found
            while len(self._plans) > PLANS_MAX:
                self._plans.popitem(last=False)
        return found if isinstance(found, SharedQuery) else None

    def wide(self, key: Hashable, namespace: str) -> bool:
        """Whether a metric is asked for from more than one namespace, so that one query for all pays."""
        now_s = clock.monotonic_s()
        until_s, known, many = self._scopes.get(key, (0.0, namespace, False))
        if now_s > until_s:
            known, many = namespace, False
        many = many or known != namespace
        if known == namespace or many:
            self._scopes[key] = (now_s + SCOPE_MEMORY_S, known, many)
        if len(self._scopes) > PLANS_MAX:
            self._scopes.clear()
        return many

    async def of_all(self, shared: SharedQuery, limits: Limits) -> dict[tuple[str, ...], list[Dated]] | None:
        """Every object's values by the shared query's keys; None when the server refuses it, so ask one by one."""

        async def ask() -> dict[tuple[str, ...], list[Dated]]:
            found: dict[tuple[str, ...], list[Dated]] = {}
            for dated in await self.dated(shared.query, limits, shared.query.group_labels, kept=True):
                labels = dict(dated[0].labels)
                found.setdefault(tuple([labels.get(key, "") for key in shared.keys]), []).append(dated)
            return found

        key = (limits.options.source, shared.query.expr, limits.staleness_ms, limits.request_time)
        serves_s = self._ask_ahead(key, ask) if self._cache_s >= AHEAD_MIN_S else 0.0
        try:
            return await self._shared.get(key, ask, serves_s=serves_s)
        except QueryRefusedError as exc:
            # Another namespace's data may be at fault (duplicate labels, a limit): that is not this one's problem.
            self.counts["shared_fallbacks"] += 1
            log.info("shared_query_refused rule=%s error=%s", limits.where, exc)
            return None

    def _ask_ahead(
        self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, dict[tuple[str, ...], list[Dated]]]]
    ) -> float:
        """Has the answer asked for shortly before the next round, whose first askers then need not wait for it.

        Returns:
            How long an answer serves its round, in s.
        """
        rounds = self._rounds.setdefault(key, Rounds(self._cache_s))
        if len(self._rounds) > SHARED_MAX:
            self._rounds.popitem(last=False)
        now_s = clock.monotonic_s()
        expected_s = rounds.asked(now_s)
        if expected_s is None:
            return rounds.serves_s
        if old := self._ahead.pop(key, None):
            old.cancel()

        def renew() -> None:
            self._ahead.pop(key, None)
            self._shared.renew(key, ask, expected_s, serves_s=rounds.serves_s)

        delay_s = expected_s - rounds.lead_s - now_s
        self._ahead[key] = asyncio.get_running_loop().call_later(delay_s, renew)
        return rounds.serves_s

    # -- one query -------------------------------------------------------------------------------------------------

    async def dated(
        self, query: MetricQuery, limits: Limits, group: Sequence[str] | None, *, kept: bool = False
    ) -> list[Dated]:
        """Each sample of a query's result with its own time; stale ones left out.

        Args:
            group: the labels that tell results apart; None takes those of the result.
            kept: whether the query is known to keep those labels.

        Raises:
            UpstreamError: the source does not answer, or refuses the query.
        """
        at_ms = clock.now_ms()
        if group is None:
            samples = await self._ask(query.expr, at_ms, limits)
            group = sorted({name for sample in samples for name, _ in sample.labels if name != METRIC_NAME})
            times = await self._times(query, at_ms, limits, group) if samples else []
        else:
            samples, times = await asyncio.gather(
                self._ask(query.expr, at_ms, limits), self._times(query, at_ms, limits, group)
            )
        if not samples:
            return []
        by_group = {sample.labels: round(sample.value * 1000) for sample in times if math.isfinite(sample.value)}
        newest = max(by_group.values(), default=None)
        # Where the query makes its labels itself (label_replace), groups cannot be told apart by time.
        own_labels = not kept and not any(_only(sample.labels, group) in by_group for sample in samples)
        dated = []
        for sample in samples:
            t_ms = by_group.get(sample.labels)  # as a rule the result has no further labels
            if t_ms is None:
                t_ms = newest if own_labels else by_group.get(_only(sample.labels, group))
            if t_ms is None and (not query.selectors or has_constant(query.expr)):
                t_ms = at_ms  # the rule's author made this value from no sample
            if limits.staleness_ms is not None and (t_ms is None or at_ms - t_ms > limits.staleness_ms):
                self.counts["stale_values_dropped"] += 1
                continue
            dated.append((sample, at_ms if t_ms is None or limits.request_time else min(t_ms, at_ms)))
        return dated

    async def _times(self, query: MetricQuery, at_ms: int, limits: Limits, group: Sequence[str]) -> list[Sample]:
        if not query.selectors or (limits.request_time and limits.staleness_ms is None):
            return []
        return await self._ask(newest_time_query(query, group), at_ms, limits)

    async def _ask(self, expr: str, at_ms: int, limits: Limits) -> list[Sample]:
        self.counts["queries"] += 1
        self.counts["query_bytes_max"] = max(self.counts["query_bytes_max"], len(expr))
        try:
            with query_span(limits.where, expr):
                return await self._source_of(limits.options.source).query(expr, at_ms)
        except QueryError as exc:
            raise QueryRefusedError(f"unable to fetch metrics: {limits.where}: {exc}") from exc
        except ConfigError:
            raise
        except FlyballError as exc:
            raise UpstreamError(f"unable to fetch metrics: {limits.where}: {exc}") from exc

    def milli(self, value: float, limits: Limits, *, nan_is_zero: bool = False) -> int | None:
        """A value in thousandths; None when it is no number that can be served.

        Raises:
            UpstreamError: it is none, and the rule says ``notFinite: error``.
        """
        if math.isfinite(value) and abs(value) <= VALUE_MAX:
            return int(value * 1000)
        if math.isnan(value) and nan_is_zero:
            return 0
        if limits.options.not_finite == "error":
            raise UpstreamError(f"{limits.where}: the query gives {value}, and the rule says notFinite: error")
        self.counts["not_finite_dropped"] += 1  # absent is never zero, and NaN is no number of anything
        return None


class QueryRefusedError(UpstreamError):
    """The source refused a rule's query."""


def _only(labels: Labels, names: Sequence[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in names)
