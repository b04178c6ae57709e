"""Several servers as one source: the first that answers, or all of them joined."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from flyball import clock
from flyball.errors import FlyballError, QueryError, UpstreamError
from flyball.model.labels import Labels
from flyball.sources.base import MetricsSource, Sample

T = TypeVar("T")

REST_S = 10.0  # how long a server that failed is asked last


class FailoverSource:
    """Replicas of the same data: the first that answers. One that failed is asked last for a while."""

    def __init__(self, sources: Sequence[MetricsSource]) -> None:
        self._sources = tuple(sources)
        self._failed_s = [float("-inf")] * len(self._sources)
        self.failovers = 0

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        """See ``MetricsSource.query``."""
        return await self._first(lambda source: source.query(expr, at_ms))

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Labels]:
        """See ``MetricsSource.series``."""
        return await self._first(lambda source: source.series(match, start_ms, end_ms))

    async def _first(self, ask: Callable[[MetricsSource], Awaitable[T]]) -> T:
        now_s = clock.monotonic_s()
        resting = [now_s - failed_s < REST_S for failed_s in self._failed_s]
        errors = []
        for index in sorted(range(len(self._sources)), key=lambda i: resting[i]):
            try:
                answer = await ask(self._sources[index])
            except QueryError:
                raise  # the query is wrong everywhere
            except FlyballError as exc:
                self._failed_s[index] = clock.monotonic_s()
                self.failovers += 1
                errors.append(str(exc))
            else:
                self._failed_s[index] = float("-inf")
                return answer
        raise UpstreamError("no server of the source answers: " + "; ".join(errors))

    async def close(self) -> None:
        """Closes every server's connections."""
        await close_all(self._sources)


class MergedSource:
    """Shards that hold different series: all are asked, and all must answer, for a part would pass for the whole.

    An aggregation over shards is only right when its groups do not span them, as with a shard for each cluster, team
    or namespace; a group that two shards give different values for is an error, never one of the two.
    """

    def __init__(self, sources: Sequence[MetricsSource]) -> None:
        self._sources = tuple(sources)

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        """See ``MetricsSource.query``."""
        answers = await self._all(lambda source: source.query(expr, at_ms))
        found: dict[Labels, Sample] = {}
        for sample in (sample for answer in answers for sample in answer):
            known = found.get(sample.labels)
            if known is not None and not _same(known.value, sample.value):
                raise UpstreamError(
                    f"two shards of the source give different values for {dict(sample.labels)}; "
                    "aggregate by a label that tells the shards apart, or query through one that joins them (Thanos)"
                )
            found[sample.labels] = sample
        return list(found.values())

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Labels]:
        """See ``MetricsSource.series``."""
        answers = await self._all(lambda source: source.series(match, start_ms, end_ms))
        return list({labels: None for answer in answers for labels in answer})

    async def _all(self, ask: Callable[[MetricsSource], Awaitable[T]]) -> list[T]:
        return list(await asyncio.gather(*map(ask, self._sources)))

    async def close(self) -> None:
        """Closes every shard's connections."""
        await close_all(self._sources)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


async def close_all(sources: Sequence[MetricsSource]) -> None:
    """Closes those that can be closed."""
    for source in sources:
        close = getattr(source, "close", None)
        if close is not None:
            await close()
