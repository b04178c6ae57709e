"""Queries: instant, range, exemplars, and what the parser says of an expression."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from flyball import clock
from flyball.errors import QueryError, QueryLimitError
from flyball.model.frames import Frame, is_absent
from flyball.model.labels import Matcher
from flyball.promql import Expr, Features, Options, Stop, Value, data_json, evaluate, features_of, parse
from flyball.promql.syntax import VectorSelector
from flyball.promql.values import format_value
from flyball.web.answers import encode, form_client, success
from flyball.web.instance import Instance, Store
from flyball.web.parameters import (
    TIME_MAX_MS,
    TIME_MIN_MS,
    BadDataError,
    Form,
    duration_ms,
    first,
    time_ms,
    whole,
)
from flyball.web.queue import QueryQueue, Work
from flyball.web.syntaxtree import document

POINTS_MAX = 11_000
#: Expressions up to this length are parsed on the event loop, within a millisecond or two.
PARSED_AT_ONCE_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What one query may cost.

    Attributes:
        timeout_s: waiting for its turn included.
        samples_max: samples of all its selectors.
        series_max: series that one of its selectors may select.
        lookback_ms: the default of ``lookback_delta``.
    """

    timeout_s: float = 120.0
    samples_max: int = 50_000_000
    series_max: int = 2_000_000
    lookback_ms: int = 300_000


class _Counting:
    """The store as one query sees it: counts what is read, and stops a selector that selects too much."""

    def __init__(self, store: Store, budget: Budget) -> None:
        self._store, self._budget = store, budget
        self.samples = 0
        self.count_samples = False

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        frames = self._store.select(matchers, start_ms, end_ms)
        series = sum(len(frame.labels) for frame in frames)
        if series > self._budget.series_max:
            shown = ",".join(map(str, matchers))
            raise QueryLimitError(
                f"{{{shown}}} selects {series} series, more than the limit of {self._budget.series_max}; "
                "add matchers, or raise --query.max-series"
            )
        if self.count_samples:
            for frame in frames:
                times = frame.times_ms[:, frame.target]
                inside = (times > start_ms) & (times <= end_ms) & ~is_absent(frame.values)
                self.samples += int(inside.sum())
        return frames


class QueryHandlers:
    """``/query``, ``/query_range``, ``/query_exemplars``, ``/format_query`` and ``/parse_query``."""

    def __init__(self, store: Store, queue: QueryQueue, instance: Instance, budget: Budget) -> None:
        self.store, self.queue, self.instance, self.budget = store, queue, instance, budget
        self.features = features_of(instance.features)

    async def query(self, form: Form) -> Response:
        at = time_ms(form, "time", clock.now_ms())
        return await self._evaluated(form, at, at, 0)

    async def query_range(self, form: Form) -> Response:
        start, end = time_ms(form, "start", None), time_ms(form, "end", None)
        if end < start:
            raise BadDataError('invalid parameter "end": end timestamp must not be before start time')
        step = duration_ms(form, "step")
        if step is None:
            raise BadDataError('invalid parameter "step": cannot parse "" to a valid duration')
        if step <= 0:
            message = "zero or negative query resolution step widths are not accepted. Try a positive integer"
            raise BadDataError(f'invalid parameter "step": {message}')
        if (end - start) // step > POINTS_MAX:
            message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution"
            raise BadDataError(f"{message} (?step=XX)")
        return await self._evaluated(form, start, end, step)

    async def _evaluated(self, form: Form, start: int, end: int, step: int) -> Response:
        limit, stats = whole(form, "limit"), first(form, "stats")
        lookback = duration_ms(form, "lookback_delta") or 0
        lookback = lookback if lookback > 0 else self.budget.lookback_ms
        timeout = duration_ms(form, "timeout")
        if timeout is not None and timeout <= 0:
            raise BadDataError('invalid parameter "timeout": it must be positive')
        text = first(form, "query")
        asked_s = clock.monotonic_s()
        if len(text) <= PARSED_AT_ONCE_MAX:
            parsed(text, self.features)  # what is wrong is said at once; a long one is parsed in its turn only
        store = _Counting(self.store, self.budget)
        store.count_samples = bool(stats)

        def work(stop: Stop) -> tuple[Value, bytes, list[float]]:
            begun_s = clock.monotonic_s()
            expr = parsed(text, self.features)
            if step and expr.type.value not in ("scalar", "vector"):
                message = f'invalid expression type "{expr.type.documented}" for range query'
                raise BadDataError(f'invalid parameter "query": {message}, must be Scalar or instant Vector')
            parsed_s = clock.monotonic_s()
            options = Options(lookback, samples_max=self.budget.samples_max, features=self.features, stop=stop)
            value = evaluate(expr, store, start, end, step, lookback, options=options, text=text)
            evaluated_s = clock.monotonic_s()
            return value, data_json(value, limit), [begun_s, parsed_s, evaluated_s]

        value, data, (begun_s, parsed_s, evaluated_s) = await self._in_turn(form, work, timeout)
        if stats:
            timings = {
                "evalTotalTime": clock.monotonic_s() - asked_s,
                "resultSortTime": 0.0,
                "queryPreparationTime": parsed_s - begun_s,
                "innerEvalTime": evaluated_s - parsed_s,
                "execQueueTime": begun_s - asked_s,
                "execTotalTime": clock.monotonic_s() - asked_s,
            }
            samples = {
                "totalQueryableSamples": store.samples,
                "peakSamples": store.samples,
                "samplesRead": store.samples,
            }
            data = data[:-1] + b',"stats":' + encode({"timings": timings, "samples": samples}) + b"}"
        warnings = list(value.warnings)
        if limit and len(getattr(value, "labels", ())) > limit:
            warnings.append("results truncated due to limit")
        return success(data, warnings, value.infos)

    async def _in_turn(self, form: Form, work: Work, timeout_ms: int | None) -> Any:
        allowed_s = self.budget.timeout_s
        if timeout_ms is not None:
            allowed_s = min(allowed_s, timeout_ms / 1000)
        return await self.queue.run(form_client(form), work, allowed_s)

    async def query_exemplars(self, form: Form) -> Response:
        now = clock.now_ms()
        start, end = time_ms(form, "start", TIME_MIN_MS), time_ms(form, "end", TIME_MAX_MS if now < 0 else now)
        if end < start:
            raise BadDataError('invalid parameter "end": end timestamp must not be before start time')
        expr = await self._in_turn(form, lambda _: parsed(first(form, "query"), self.features), None)
        sets = [node.matchers for node in expr.walk() if isinstance(node, VectorSelector)]
        found = self.instance.exemplars.select(sets, start, end) if self.instance.exemplars and sets else []
        return success(
            encode(
                [
                    {
                        "seriesLabels": dict(series),
                        "exemplars": [
                            {"labels": dict(labels), "value": format_value(value), "timestamp": at / 1000}
                            for labels, value, at in exemplars
                        ],
                    }
                    for series, exemplars in found
                ]
            )
        )

    async def format_query(self, form: Form) -> Response:
        return success(
            await self._in_turn(form, lambda _: encode(str(parsed(first(form, "query"), self.features))), None)
        )

    async def parse_query(self, form: Form) -> Response:
        return success(
            await self._in_turn(form, lambda _: encode(document(parsed(first(form, "query"), self.features))), None)
        )


def parsed(text: str, features: Features) -> Expr:
    """The expression of a ``query`` parameter."""
    try:
        return parse(text, features)
    except QueryError as exc:
        raise BadDataError(f'invalid parameter "query": {exc}') from None
    except RecursionError:
        raise BadDataError('invalid parameter "query": it is nested too deeply') from None
