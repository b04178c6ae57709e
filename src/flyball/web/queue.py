"""The queue of queries: few run at once, and callers take turns, so that one dashboard cannot starve an autoscaler."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from prometheus_client import Counter, Gauge

from flyball import clock
from flyball.promql import Stop
from flyball.web.answers import TimedOutError, UnavailableError
from flyball.web.telemetry import RecentDurations

_ENGINE = Gauge("prometheus_engine_queries", "Queries that run or wait.")
_ENGINE_MAX = Gauge("prometheus_engine_queries_concurrent_max", "Queries that may run at once.")
_DURATIONS = RecentDurations(
    "prometheus_engine_query_duration_seconds", "How long queries waited and were worked on.", "slice"
)
_RUNNING = Gauge("flyball_queries_running", "Queries that run now.")
_WAITING = Gauge("flyball_queries_waiting", "Queries that wait for their turn.")
_REFUSED = Counter("flyball_queries_refused", "Queries refused because the queue was full.")
_TIMED_OUT = Counter("flyball_queries_timed_out", "Queries that ran into their time limit.")

#: Computes in a thread, and ends soon after it is told to stop.
Work = Callable[[Stop], Any]


class _Query:
    def __init__(self, work: Work, give_way: Callable[[], None] | None) -> None:
        self.work = work
        self.stop = Stop(give_way)
        self.running = False
        self.since_s = clock.monotonic_s()  # it waits, then that it runs
        self.abandoned = False
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def time_out(self) -> None:
        if not self.done.done():
            _TIMED_OUT.inc()
            self.done.set_exception(TimedOutError("query timed out in query execution"))


class QueryQueue:
    """Runs work in ``executor``, ``running_max`` at once, one client after the other.

    Args:
        waiting_max: queries that may wait; more are refused at once.
        spare: threads of the executor beyond ``running_max``. A query that nobody waits for any more, but that has not
            noticed yet, gives up its place while there is one.
        give_way: makes what running work calls every now and then, in its thread.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        running_max: int = 1,
        waiting_max: int = 1000,
        spare: int = 0,
        give_way: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        self._executor, self._give_way = executor, give_way
        self._running_max, self._waiting_max, self._spare = running_max, waiting_max, spare
        self._abandoned = 0
        self._waiting: OrderedDict[str, deque[_Query]] = OrderedDict()
        self._running = 0
        self._count = 0
        _ENGINE_MAX.set(running_max)
        _ENGINE.set_function(lambda: self._count + self._running)
        _RUNNING.set_function(lambda: self._running)
        _WAITING.set_function(lambda: self._count)

    async def run(self, client: str, work: Work, timeout_s: float) -> Any:
        """The result of ``work``, within ``timeout_s`` from now, waiting included.

        Raises:
            TimedOutError: it took longer.
            UnavailableError: the queue is full.
        """
        if self._count >= self._waiting_max:
            _REFUSED.inc()
            raise UnavailableError(f"{self._count} queries wait already; ask later, or ask for less")
        query = _Query(work, self._give_way() if self._give_way is not None else None)
        self._waiting.setdefault(client, deque()).append(query)
        self._count += 1
        self._next()
        timer = asyncio.get_running_loop().call_later(timeout_s, query.time_out)
        try:
            return await query.done
        finally:
            timer.cancel()
            query.stop.set()
            self._forget(client, query)
            self._abandon(query)

    def _abandon(self, query: _Query) -> None:
        if query.running and self._abandoned < self._spare:
            query.abandoned = True
            self._abandoned += 1
            self._running -= 1
            self._next()

    def _forget(self, client: str, query: _Query) -> None:
        queued = self._waiting.get(client)
        if queued is not None and query in queued:
            queued.remove(query)
            self._count -= 1
            if not queued:
                del self._waiting[client]

    def _next(self) -> None:
        while self._running < self._running_max and self._waiting:
            client, queued = next(iter(self._waiting.items()))
            query = queued.popleft()
            self._count -= 1
            del self._waiting[client]
            if queued:
                self._waiting[client] = queued  # behind all others
            self._running += 1
            query.running = True
            now_s = clock.monotonic_s()
            _DURATIONS.observe("queue_time", now_s - query.since_s, now_s)
            query.since_s = now_s
            loop = asyncio.get_running_loop()

            def tell(done: "Future[Any]", query: _Query = query, loop: asyncio.AbstractEventLoop = loop) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._ended, query, done)

            self._executor.submit(query.work, query.stop).add_done_callback(tell)

    def _ended(self, query: _Query, done: "Future[Any]") -> None:
        query.running = False
        now_s = clock.monotonic_s()
        _DURATIONS.observe("inner_eval", now_s - query.since_s, now_s)
        if query.abandoned:
            self._abandoned -= 1
        else:
            self._running -= 1
        if not query.done.done():
            if done.cancelled():
                query.done.cancel()
            elif (failure := done.exception()) is not None:
                query.done.set_exception(failure)
            else:
                query.done.set_result(done.result())
        self._next()
