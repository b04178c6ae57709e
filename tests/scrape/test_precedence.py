"""Scrapes go before queries."""

import asyncio
import math
import threading

from flyball import clock
from flyball.scrape import precedence
from flyball.scrape.beats import Beats
from flyball.scrape.precedence import SHORT_S, Precedence

LONG_S = 1000.0


def test_a_query_waits_until_the_last_scrape_has_landed(monkeypatch) -> None:
    monkeypatch.setattr(precedence, "QUIET_S", LONG_S)

    async def run() -> None:
        scrapes = Precedence()
        scrapes.begin(2, LONG_S)
        happened, asked = [], threading.Event()

        def compute() -> None:
            asked.set()
            scrapes.give_way()
            happened.append("computed")

        query = asyncio.get_running_loop().run_in_executor(None, compute)
        scrapes.landed()
        await asyncio.to_thread(asked.wait)
        happened.append("landed")
        scrapes.landed()
        await query
        assert happened == ["landed", "computed"]
        scrapes.give_way()  # at once

    asyncio.run(run())


def test_it_does_not_wait_for_slow_targets() -> None:
    async def run() -> None:
        scrapes = Precedence()
        scrapes.begin(1, LONG_S)
        await asyncio.get_running_loop().run_in_executor(None, scrapes.give_way)

    asyncio.run(run())


def test_it_waits_no_longer_than_told(monkeypatch) -> None:
    monkeypatch.setattr(precedence, "QUIET_S", LONG_S)

    async def run() -> None:
        scrapes = Precedence()
        scrapes.begin(1, 0.01)
        await asyncio.get_running_loop().run_in_executor(None, scrapes.give_way)

    asyncio.run(run())


def test_it_steps_aside_for_scrapes_that_are_due_and_did_not_begin(monkeypatch) -> None:
    now_s, slept = 1_700_000_000.0, []
    monkeypatch.setattr(clock, "now_ms", lambda: int(now_s * 1000))
    monkeypatch.setattr(precedence.time, "sleep", slept.append)
    scrapes = Precedence()
    assert scrapes.due_s == math.inf
    for late_s, steps in ((-0.1, 0), (0.0, 1), (0.5, 1), (3600.0, 0)):  # an hour: the clock jumped
        scrapes.due_s, slept[:] = now_s - late_s, []
        scrapes.give_way()
        assert len(slept) == steps, late_s


def test_a_short_query_does_not_wait(monkeypatch) -> None:
    computed_s, waited_at = [100.0], []
    monkeypatch.setattr(precedence.time, "thread_time", lambda: computed_s[0])
    scrapes = Precedence()
    monkeypatch.setattr(scrapes, "give_way", lambda: waited_at.append(computed_s[0]))
    ask = scrapes.for_query()
    for at_s in (100.0, 100.0 + SHORT_S / 2, 100.0 + 2 * SHORT_S, 100.0 + 3 * SHORT_S):
        computed_s[0] = at_s
        ask()
    assert waited_at == [100.0 + 2 * SHORT_S, 100.0 + 3 * SHORT_S]
    scrapes.for_query()()
    assert len(waited_at) == 2


def test_beats_say_when_scrapes_are_due_and_that_they_begin(monkeypatch) -> None:
    at_ms = 1_700_000_000_000
    monkeypatch.setattr(clock, "now_ms", lambda: at_ms)

    async def run() -> None:
        beats = Beats()
        beats.tune(1)
        scrapes = beats.precedence
        later, first = beats.wait(at_ms + 60_000), beats.wait(at_ms + 1)
        assert scrapes.due_s == (at_ms + 1) / 1000
        begun: list[tuple[int, float]] = []
        monkeypatch.setattr(scrapes, "begin", lambda count, most_s: begun.append((count, most_s)))
        await first
        assert begun == [(1, beats.beat_ms / 2000)]
        assert scrapes.due_s == (at_ms + 60_000) / 1000
        later.cancel()

    asyncio.run(run())
