"""Cron times beside Go's cron package, whose answers are recorded (``make test-cluster`` asks it again)."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.model.cron import Cron, CronError, parse_cron

RECORDED = Path(__file__).parent / "cron.tsv"  # instant, zone, cron time, Go's answer


def recorded() -> list[tuple[int, str, str, str]]:
    rows = [line.split("\t") for line in RECORDED.read_text().splitlines()]
    return [(int(at), zone, text, answer) for at, zone, text, answer in rows]


def answer_of(at_s: int, zone: str, text: str) -> str:
    try:
        fired_ms = parse_cron(text).next_ms(at_s * 1000, zone)
    except CronError as exc:
        return f"error {exc}"
    return "none" if fired_ms is None else str(fired_ms // 1000)


def test_every_recorded_answer_is_ours():
    rows = recorded()
    assert len(rows) > 500 and len({text for _, _, text, _ in rows}) > 400
    for at_s, zone, text, answer in rows:
        assert answer_of(at_s, zone, text) == answer, (at_s, zone, text)


def local(text: str, at: str, zone: str = "Europe/Berlin") -> str:
    place = ZoneInfo(zone)
    fired_ms = parse_cron(text).next_ms(int(datetime.fromisoformat(at).timestamp()) * 1000, zone)
    return datetime.fromtimestamp(fired_ms / 1000, place).isoformat()


def test_a_time_that_the_clocks_leave_out_is_not_made_up_for():
    assert local("30 2 * * *", "2026-03-28T12:00:00+01:00") == "2026-03-30T02:30:00+02:00"


def test_a_time_that_the_clocks_repeat_fires_twice():
    first = local("30 2 * * *", "2026-10-24T12:00:00+02:00")
    assert first == "2026-10-25T02:30:00+02:00"
    assert local("30 2 * * *", first) == "2026-10-25T02:30:00+01:00"


@pytest.mark.parametrize("zone", ["Asia/Beirut", "Australia/Lord_Howe"])  # midnight, and half an hour, are left out
def test_no_day_is_lost_where_clocks_change_oddly(zone):
    at_ms, days = 1704067200_000, []
    for _ in range(366):
        at_ms = parse_cron("0 12 * * *").next_ms(at_ms, zone)
        days.append(datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).date())
    assert (days[-1] - days[0]).days == 365 and len(set(days)) == 366


INSTANTS = st.integers(1_500_000_000_000, 1_900_000_000_000)
TEXTS = st.sampled_from([text for _, _, text, answer in recorded() if answer.isdigit() and not text.startswith("@")])


@given(TEXTS, INSTANTS, st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]))
def test_a_firing_matches_its_fields_and_nothing_between_does(text, after_ms, zone):
    cron = parse_cron(text)
    assert isinstance(cron, Cron)
    fired_ms = cron.next_ms(after_ms, zone)
    assert fired_ms is not None and fired_ms > after_ms and fired_ms % 60_000 == 0
    place = ZoneInfo(zone)

    def matches(at_ms):
        at = datetime.fromtimestamp(at_ms / 1000, place)
        return cron.on(at.date()) and at.hour in cron.hours and at.minute in cron.minutes

    assert matches(fired_ms)
    first_ms = (after_ms // 60_000 + 1) * 60_000
    assert not any(map(matches, range(first_ms, min(fired_ms, first_ms + 3 * 3600_000), 60_000)))
    assert cron.next_ms(fired_ms - 1, zone) == fired_ms
