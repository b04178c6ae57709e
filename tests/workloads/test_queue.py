"""The work queue, and the indexes that controllers share."""

import asyncio
import random

from flyball import clock
from flyball.kube import KubeClient
from flyball.kube.config import Access
from flyball.kube.kinds import PODS
from flyball.localcluster.workloads.controller import Informers, by_controller, by_namespace
from flyball.localcluster.workloads.queue import GATHERED_FROM, RETRY_MIN_S, WorkQueue


def run(body):
    async def main():
        queue = WorkQueue(random.Random(1))
        try:
            await body(queue)
        finally:
            queue.close()

    asyncio.run(main())


def test_waiting_and_work_are_timed(monkeypatch):
    async def body(queue):
        now = [10.0]
        monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])
        queue.add("a")
        now[0] += 0.5
        await queue.get()
        now[0] += 2.0
        assert queue.under_way_s() == [2.0]
        queue.done("a")
        assert queue.under_way_s() == []
        families = [one.family("f", "") for one in (queue.waited, queue.worked)]
        sums = [sample.value for family in families for sample in family.samples if sample.name == "f_sum"]
        assert sums == [0.5, 2.0]

    run(body)


def test_a_key_waits_once_and_is_not_worked_on_twice_at_once():
    async def body(queue):
        queue.add("a")
        queue.add("a")
        assert (len(queue), await queue.get()) == (1, "a")
        queue.add("a")  # while it is being worked on
        assert len(queue) == 0
        queue.done("a")
        assert await queue.get() == "a"

    run(body)


def test_of_two_delays_the_earlier_counts():
    async def body(queue):
        queue.add_after("a", 60.0)
        queue.add_after("a", 0.0)
        queue.add_after("a", 60.0)
        async with asyncio.timeout(5):
            assert await queue.get() == "a"
        assert queue.statistics()["queue_delayed"] == 0

    run(body)


def test_changes_of_a_large_set_are_gathered_and_those_of_a_small_one_are_not():
    async def body(queue):
        queue.add_gathered("small", GATHERED_FROM)
        for _ in range(100):
            queue.add_gathered("large", GATHERED_FROM + 1)
        assert (len(queue), queue.statistics()["queue_delayed"]) == (1, 1)
        assert await queue.get() == "small"
        async with asyncio.timeout(5):
            assert await queue.get() == "large"
        assert queue.statistics()["queue_added"] == 2

    run(body)


def test_a_failing_key_waits_ever_longer_until_it_succeeds():
    async def body(queue):
        delays = [queue.retry("a") for _ in range(4)]
        assert all(1.0 <= delay / (RETRY_MIN_S * 2**n) <= 1.2 for n, delay in enumerate(delays))
        queue.forget("a")
        assert queue.retry("a") <= RETRY_MIN_S * 1.2

    run(body)


def test_who_asks_for_the_same_index_shares_it():
    async def main():
        client = KubeClient(Access("http://127.0.0.1:1"))
        informers = Informers(client)
        assert informers.index(PODS, by_namespace) is informers.index(PODS, by_namespace)
        assert informers.index(PODS, by_controller) is not informers.index(PODS, by_namespace)
        await client.close()

    asyncio.run(main())
