"""A store in this process as a source."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Protocol

from flyball.errors import QueryError
from flyball.model.labels import Labels, Matcher
from flyball.promql import Options, Scalar, Storage, Vector, evaluate, parse, parse_selector
from flyball.sources.base import Sample

SAMPLES_MAX = 50_000_000


class LocalStore(Storage, Protocol):
    """What is asked of the store beyond evaluation."""

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> list[Labels]:
        """The series that any of the matcher sets takes."""
        ...


class LocalSource:
    """Evaluates over a store, in a thread, so that a long query delays nobody's scrape."""

    def __init__(self, store: LocalStore, executor: Executor) -> None:
        self._store, self._executor = store, executor

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        """See ``MetricsSource.query``."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._query, expr, at_ms)

    def _query(self, expr: str, at_ms: int) -> list[Sample]:
        value = evaluate(parse(expr), self._store, at_ms, at_ms, 0, options=Options(samples_max=SAMPLES_MAX))
        if isinstance(value, Scalar):
            return [Sample((), at_ms, float(value.values[0]))]
        if not isinstance(value, Vector):
            raise QueryError(f"the query gives a {type(value).__name__.lower()}; it must give a vector")
        histograms = value.histograms
        return [
            Sample(labels, at_ms, float(value.values[row, 0]))
            for row, labels in enumerate(value.labels)
            if histograms is None or histograms[row, 0] is None  # nothing here can use a histogram
        ]

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Labels]:
        """See ``MetricsSource.series``."""
        matchers = parse_selector(match)
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._store.series, [matchers], start_ms, end_ms
        )
