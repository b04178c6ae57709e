"""Rounds of asking: the next one is known beforehand, and its answer is there when it begins."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flyball import clock
from flyball.adapter.evaluation import Evaluation, Limits
from flyball.adapter.remembered import Remembered
from flyball.adapter.rounds import PERIOD_MAX_S, Rounds
from flyball.adapter.sharing import SharedQuery
from flyball.metricrules import MetricQuery, RuleOptions
from flyball.sources import Sample


def test_the_next_round_is_expected_after_the_last_period() -> None:
    rounds = Rounds(5.0)
    assert rounds.asked(100.0) is None  # nothing is known yet
    assert [rounds.asked(at) for at in (100.5, 104.9)] == [None, None]  # of the same round
    assert rounds.asked(115.0) == 130.0
    assert rounds.asked(115.1) is None
    assert rounds.asked(131.0) == 147.0  # a second late
    assert rounds.asked(151.0) is None  # four seconds more are another rhythm, so the next is waited for
    assert rounds.asked(171.0) == 191.0
    assert rounds.asked(171.0 + PERIOD_MAX_S + 1) is None
    assert 0 < rounds.lead_s < rounds.ttl_s


def test_whoever_asks_without_a_break_has_answers_renewed_before_they_end() -> None:
    rounds = Rounds(5.0)
    expected = [at / 10 for at in range(1000, 1200) if rounds.asked(at / 10) is not None]
    assert expected == [105.0, 110.0, 115.0]


def test_a_round_that_takes_long_is_one_round() -> None:
    rounds, expected = Rounds(5.0), []
    for began in (100, 115, 130, 145):
        for tenth in range(90):  # nine seconds of every fifteen
            at_s = began + tenth / 10
            if (next_s := rounds.asked(at_s)) is not None:
                expected.append((at_s, next_s))
    # Of the first nobody knows yet whether it ends.
    assert expected == [(105.0, 110.0), (115.0, 130.0), (130.0, 145.0), (145.0, 160.0)]
    assert rounds.serves_s == 7.5  # half of the period
    assert Rounds(5.0).serves_s == 5.0


def test_an_answer_is_renewed_unless_it_serves_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, asked = 100.0, 0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)

    async def main() -> None:
        nonlocal now_s
        cache: Remembered[int] = Remembered(lambda _: 5.0)

        async def ask() -> int:
            nonlocal asked
            asked += 1
            if asked == 3:
                raise ValueError("not now")
            return asked

        async def renewed(ask: Callable[[], Any], until_s: float) -> None:
            cache.renew("a", ask, until_s)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        assert await cache.get("a", ask) == 1
        await renewed(ask, 104.0)
        assert asked == 1
        now_s = 104.0
        await renewed(ask, 106.0)
        now_s = 106.0
        assert await cache.get("a", ask) == 2 == asked
        now_s = 120.0
        await renewed(ask, 121.0)  # it fails, which nobody hears of
        assert asked == 3 and await cache.get("a", ask) == 4

    asyncio.run(main())


def test_an_answer_of_a_round_serves_a_late_and_long_one_and_is_renewed_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)

    async def main() -> None:
        nonlocal now_s
        cache: Remembered[int] = Remembered(lambda _: 5.0)

        async def ask() -> int:
            return cache.asked

        cache.renew("a", ask, 101.5, serves_s=7.5)
        await asyncio.sleep(0)
        for at_s in (101.5, 105.1, 108.9):
            now_s = at_s
            assert await cache.get("a", ask) == 1
        now_s = 109.0
        assert await cache.get("a", ask, serves_s=7.5) == 2
        now_s = 115.0
        cache.renew("a", ask, 116.5, serves_s=7.5)  # it would serve until then, and is no longer fresh
        await asyncio.sleep(0)
        now_s = 116.4
        assert await cache.get("a", ask) == 3

    asyncio.run(main())


def test_a_shared_answer_is_there_before_the_second_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, later, asked = 100.0, list[tuple[float, Callable[[], None]]](), list[str]()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)

    class Source:
        async def query(self, expr: str, _at_ms: int) -> list[Sample]:
            asked.append(expr)
            return [Sample((("namespace", "a"), ("pod", "b")), 0, 1.0)]

    async def main() -> None:
        nonlocal now_s

        def call_later(delay_s: float, callback: Callable[[], None]) -> SimpleNamespace:
            later.append((delay_s, callback))
            return SimpleNamespace(cancel=lambda: None)

        loop = asyncio.get_running_loop()
        evaluation = Evaluation(lambda _: Source(), 5.0)  # type: ignore[arg-type, return-value]
        shared = SharedQuery(
            MetricQuery("sum(x) by (namespace, pod)", (), ("namespace", "pod"), 0), ("namespace", "pod")
        )
        limits = Limits("a rule", RuleOptions(), None, request_time=True)
        with monkeypatch.context() as patched:
            patched.setattr(loop, "call_later", call_later)
            for at_s in (100.0, 115.0):
                now_s = at_s
                assert await evaluation.of_all(shared, limits)
            ((delay_s, renew),) = later
            assert delay_s == 13.5 and len(asked) == 2
            now_s += delay_s
            renew()
            while len(asked) < 3:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            now_s = 130.0
            assert await evaluation.of_all(shared, limits) and len(asked) == 3  # nobody waited for it
            evaluation.forget()

    asyncio.run(main())
