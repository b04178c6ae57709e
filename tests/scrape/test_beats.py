"""When scrapes begin."""

import asyncio

from flyball import clock
from flyball.scrape.beats import BEAT_MAX_MS, BEAT_MIN_MS, TOGETHER, Beats, settle

T0 = 1_700_000_000_000
SPREADS = [number * 2_654_435_761 for number in range(1000)]


def moments(beats: Beats, interval_ms: int) -> list[int]:
    return [beats.next_ms(spread, interval_ms, T0) for spread in SPREADS]


def test_a_few_dozen_scrapes_share_a_moment() -> None:
    beats = Beats()
    for scrapes_per_s, beat_ms in ((0, 800), (10, 800), (100, 400), (1000, BEAT_MIN_MS), (100_000, BEAT_MIN_MS)):
        beats.tune(scrapes_per_s)
        assert beats.beat_ms == beat_ms
        assert beats.beat_ms in (BEAT_MIN_MS, BEAT_MAX_MS) or TOGETHER / 2 <= scrapes_per_s * beat_ms / 1000 <= TOGETHER


def test_moments_are_spread_over_the_interval_and_come_again_after_it() -> None:
    beats = Beats()
    beats.tune(100)
    found = moments(beats, 2000)
    assert set(found) == {T0 + at for at in range(0, 2000, 400)}
    assert [beats.next_ms(spread, 2000, at + 1) for spread, at in zip(SPREADS, found, strict=True)] == [
        at + 2000 for at in found
    ]


def test_another_beat_moves_a_target_by_less_than_a_beat() -> None:
    beats = Beats()
    beats.tune(100_000)
    fine = moments(beats, 15_000)
    beats.tune(1)
    coarse = moments(beats, 15_000)
    assert all(0 <= (one - other) % 15_000 < BEAT_MAX_MS for one, other in zip(fine, coarse, strict=True))


def test_a_short_interval_keeps_at_least_four_moments_or_those_of_the_shortest_beat() -> None:
    beats = Beats()
    beats.tune(1)
    assert len(set(moments(beats, 1000))) == 5
    assert set(moments(beats, 100)) == {T0, T0 + 50}


def test_those_of_a_moment_are_woken_together_and_a_settled_one_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: T0)

    async def run() -> None:
        beats = Beats()
        first, second, settled = (beats.wait(T0 + 1) for _ in range(3))
        settle(settled, False)
        assert not first.done()
        assert await first is True
        assert second.result() is True
        assert settled.result() is False

    asyncio.run(run())
