"""A short cache with single flight."""

import asyncio

import pytest

from flyball import clock
from flyball.adapter.remembered import Remembered


def test_one_question_at_a_time_and_its_answer_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    asked: list[str] = []

    async def main() -> None:
        nonlocal now_s
        gate = asyncio.Event()

        async def ask() -> str:
            asked.append("x")
            await gate.wait()
            return f"answer {len(asked)}"

        cache: Remembered[str] = Remembered(lambda _: 5.0, entries_max=3, grace_s=10.0)
        both = asyncio.gather(cache.get("a", ask), cache.get("a", ask))
        await asyncio.sleep(0)
        gate.set()
        assert await both == ["answer 1", "answer 1"] and len(asked) == 1
        now_s += 4
        assert await cache.get("a", ask) == "answer 1"
        now_s += 2
        assert cache.expired("a") == "answer 1"
        assert await cache.get("a", ask) == "answer 2"
        for key in "bcd":
            await cache.get(key, ask)
        assert len(cache) == 3 and cache.expired("a") is None  # the oldest went
        now_s += 16
        await cache.get("e", ask)
        assert len(cache) == 1  # whatever is past its grace is not kept

    asyncio.run(main())


def test_without_a_time_to_keep_it_an_answer_serves_who_waits_for_it_and_nobody_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "monotonic_s", lambda: 100.0)
    value = 0

    async def main() -> None:
        async def ask() -> int:
            await asyncio.sleep(0)
            return value

        nonlocal value
        cache: Remembered[int] = Remembered(lambda _: 0.0)
        assert await asyncio.gather(cache.get("a", ask), cache.get("a", ask)) == [0, 0] and cache.asked == 1
        value = 1  # a sample landed in the same moment
        assert await cache.get("a", ask) == 1

    asyncio.run(main())


def test_a_failure_is_given_to_all_and_kept_for_none() -> None:
    async def main() -> None:
        calls = 0

        async def ask() -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ValueError("no")
            return calls

        cache: Remembered[int] = Remembered(lambda _: 5.0)
        found = await asyncio.gather(cache.get("a", ask), cache.get("a", ask), return_exceptions=True)
        assert [type(item) for item in found] == [ValueError, ValueError] and calls == 1
        assert await cache.get("a", ask) == 2

    asyncio.run(main())


def test_an_answer_of_before_it_was_forgotten_serves_who_waits_for_it_and_nobody_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "monotonic_s", lambda: 100.0)

    async def main() -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        asked = 0

        async def ask() -> str:
            nonlocal asked
            number, asked = asked, asked + 1
            await gates[number].wait()
            return "old" if number == 0 else "new"

        cache: Remembered[str] = Remembered(lambda _: 5.0)
        before = asyncio.create_task(cache.get("a", ask))
        await asyncio.sleep(0)
        cache.forget()  # a sample landed
        after = asyncio.create_task(cache.get("a", ask))
        while asked < 2:
            await asyncio.sleep(0)
        gates[0].set()
        assert await before == "old" and len(cache) == 0
        third = asyncio.create_task(cache.get("a", ask))  # waits for the second question, not for a third
        await asyncio.sleep(0)
        gates[1].set()
        assert await asyncio.gather(after, third) == ["new", "new"]
        assert await cache.get("a", ask) == "new" and asked == 2

    asyncio.run(main())
