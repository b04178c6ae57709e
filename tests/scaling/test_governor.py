"""The Governor: schedule, fast sizing, forecast, fallback, pause and override; refusals by field."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flyball.errors import ConfigError
from flyball.scaling import History, Observation, Outcome, Pod, PodReading, Reading, Recommendation, applied
from flyball.scaling.governor import decide_governor, governor_from_object
from flyball.scaling.schedule import parse_schedule, scheduled_bounds
from flyball.scaling.types import Forecast

NOW = 1_800_000_000_000
CALM = History((Recommendation(4, NOW - 400_000),), began_ms=NOW - 400_000)


def governor(**fields: Any) -> Any:
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 100,
        "metrics": [metric],
    }
    return governor_from_object({"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": body | fields})


def seen(pods: int, each: float, missing: int = 0, error: str = "") -> Observation:
    names = [f"web-{at}" for at in range(pods)]
    readings = {name: PodReading(int(each * 1000), NOW) for name in names[missing:]}
    reading = Reading(error=error) if error else Reading(pods=readings)
    ready = tuple(Pod(name, start_ms=0, ready="True", ready_since_ms=1) for name in names)
    return Observation(pods, pods, "app=web", pods=ready, readings=(reading,))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_parity_decides_as_the_hpa_would() -> None:
    decision, _ = decide_governor(governor(), seen(4, 20), CALM, NOW)
    assert (decision.desired, decision.name) == (8, "governor/web")
    assert decision.governed is not None and decision.governed.profile == "parity"


def test_fast_sizes_from_demand_without_tolerance_or_rate_limit() -> None:
    decision, _ = decide_governor(governor(profile="fast"), seen(4, 100), CALM, NOW)
    assert decision.desired == 43  # 40 and the headroom
    assert decision.governed is not None and decision.governed.demand == 40
    assert decide_governor(governor(profile="fast"), seen(4, 10.5), CALM, NOW)[0].desired == 5


def test_fast_does_not_run_away_while_new_pods_take_their_share() -> None:
    """A steady load over pods that become ready one after another, each scraped at its own phase."""
    load, window_ms = 100.0, 2_000
    since = {f"web-{at}": -100_000 if at < 2 else at * 300 for at in range(12)}
    demands = []
    for now_ms in range(0, 10_000, 100):
        readings = {}
        for at, (name, ready_ms) in enumerate(since.items()):
            at_ms = now_ms - (now_ms + at * 370) % 1000  # the newest scrape of this pod
            times = range(at_ms - window_ms, at_ms, 100)
            value = sum(load / sum(s <= t for s in since.values()) for t in times if t >= ready_ms) / len(times)
            if at_ms - 1000 >= ready_ms:
                readings[name] = PodReading(int(value * 1000), NOW + at_ms, window_ms)
        pods = tuple(
            Pod(name, start_ms=0, ready="True" if ready_ms <= now_ms else "False", ready_since_ms=NOW + ready_ms)
            for name, ready_ms in since.items()
        )
        look = Observation(12, 12, "app=web", pods=pods, readings=(Reading(pods=readings),))
        decision, _ = decide_governor(governor(profile="fast"), look, CALM, NOW + now_ms)
        assert decision.governed is not None and decision.governed.demand is not None
        demands.append(decision.governed.demand)
    assert min(demands) > 9.9 and max(demands) < 12.5
    assert demands[-1] == pytest.approx(10.0, rel=0.01)


def test_fast_honours_the_policies_it_is_given() -> None:
    behavior = {"scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}]}}
    wish = governor(profile="fast", behavior=behavior)
    decision, history = decide_governor(wish, seen(4, 100), CALM, NOW)
    assert decision.desired == 7 and decision.clamps[-1].reason == "ScaleUpLimit"
    history = applied(history, decision, Outcome(), NOW)
    assert decide_governor(wish, seen(7, 57), history, NOW + 1000)[0].desired == 7


def test_fast_comes_down_after_the_hold_and_not_within_the_dead_band() -> None:
    wish = governor(profile="fast")
    busy = History((Recommendation(20, NOW - 20_000),), began_ms=0)
    assert decide_governor(wish, seen(20, 2), busy, NOW)[0].desired == 20
    decision, history = decide_governor(wish, seen(20, 2), busy, NOW + 11_000)
    assert decision.desired == 5 and not any(past.replicas == 20 for past in history.recommendations)
    assert decide_governor(wish, seen(20, 9.4), CALM, NOW)[0].desired == 20


def test_without_memory_fast_scales_up_but_not_down() -> None:
    wish = governor(profile="fast")
    decision, history = decide_governor(wish, seen(10, 1), History(), NOW)
    assert decision.desired == 10 and decision.clamps[0].rule == "hold"
    assert decide_governor(wish, seen(10, 50), History(), NOW)[0].desired == 54
    assert decide_governor(wish, seen(10, 1), history, NOW + 31_000)[0].desired == 2


def test_a_pod_without_a_value_carries_as_much_as_the_others() -> None:
    decision, _ = decide_governor(governor(profile="fast"), seen(10, 10, missing=9), CALM, NOW)
    assert decision.desired == 10


def test_a_lost_metric_never_scales_down_and_the_fallback_engages_by_duration() -> None:
    wish = governor(profile="fast", fallback={"afterSeconds": 60, "replicas": 12})
    history = CALM
    for second in range(0, 3600, 15):
        decision, history = decide_governor(wish, seen(8, 0, error="down"), history, NOW + second * 1000)
        assert decision.desired == (8 if second < 60 else 12)
        assert decision.governed is not None and decision.governed.fallback == (second >= 60)
    decision, history = decide_governor(wish, seen(12, 5), history, NOW + 3_600_000)
    assert history.failing_since_ms is None and decision.desired <= 12


def test_a_forecast_raises_and_never_lowers() -> None:
    rise, fall = Forecast(NOW, NOW + 30_000, 30.0, 0.05), Forecast(NOW, NOW + 30_000, 1.0, 0.05)
    for profile in ("parity", "fast"):
        wish = governor(profile=profile, forecast={"maxReplicas": 25})
        assert decide_governor(wish, seen(10, 10), CALM, NOW, rise)[0].desired >= 25
        assert decide_governor(wish, seen(10, 10), CALM, NOW, rise)[0].desired <= 27
        without = decide_governor(wish, seen(10, 10), CALM, NOW)[0].desired
        assert decide_governor(wish, seen(10, 10), CALM, NOW, fall)[0].desired == without


def test_a_forecast_that_errs_much_is_not_asked() -> None:
    wild = Forecast(NOW, NOW + 30_000, 30.0, 0.8)
    for profile in ("parity", "fast"):
        assert decide_governor(governor(profile=profile, forecast={}), seen(10, 10), CALM, NOW, wild)[0].desired == 10


@pytest.mark.parametrize(
    ("forecast", "reason"),
    [
        (None, "NoHistory"),
        (Forecast(NOW, NOW + 30_000, 10.0, 0.0, by_model=False), "NoHistory"),
        (Forecast(NOW, NOW + 30_000, 10.0, 0.8), "ForecastErrs"),
        (Forecast(NOW, NOW + 30_000, 10.0, 0.05, by_model=False), "AsNow"),
        (Forecast(NOW, NOW + 30_000, 12.0, 0.05), "ForecastFound"),
    ],
)
def test_whether_a_forecast_counts_is_told(forecast: Forecast | None, reason: str) -> None:
    told = decide_governor(governor(forecast={}), seen(10, 10), CALM, NOW, forecast)[0].conditions[-1]
    assert (told.type, told.reason) == ("ForecastActive", reason)
    assert "flyball replay" in told.message or reason != "NoHistory"
    without = decide_governor(governor(), seen(10, 10), CALM, NOW)[0].conditions[-1]
    assert (without.type, without.status) == ("ForecastActive", "")  # of an earlier spec: taken away


def test_a_person_wins_until_the_override_expires() -> None:
    wish = governor(override={"replicas": 3, "until": "2027-01-15T08:00:10Z"})
    decision, _ = decide_governor(wish, seen(4, 50), CALM, NOW)
    assert (decision.desired, decision.reason) == (3, "manual override")
    assert decide_governor(wish, seen(4, 50), CALM, NOW + 10_000)[0].desired == 8


def test_a_pause_changes_nothing() -> None:
    decision, _ = decide_governor(governor(pause=True), seen(4, 50), CALM, NOW)
    assert not decision.rescale and decision.governed is not None and decision.governed.override == "paused"


RUSH = {
    "name": "rush",
    "timeZone": "Europe/Berlin",
    "start": "0 8 * * mon-fri",
    "end": "0 18 * * mon-fri",
    "minReplicas": 20,
}


@pytest.mark.parametrize(
    ("when", "active"),
    [
        ("2026-11-23T08:00:00+01:00", True),
        ("2026-11-23T07:59:59+01:00", False),
        ("2026-11-23T17:59:59+01:00", True),
        ("2026-11-23T18:00:00+01:00", False),
        ("2026-11-22T12:00:00+01:00", False),  # a Sunday
        ("2026-06-15T08:00:00+02:00", True),  # summer time
        ("2026-12-25T12:00:00+01:00", False),  # an exception
    ],
)
def test_a_schedule_is_a_floor_in_its_own_time_zone(when: str, active: bool) -> None:
    wish = governor(schedule=[RUSH | {"exceptions": ["2026-12-25"]}])
    decision, _ = decide_governor(wish, seen(4, 10), CALM, at(when))
    assert decision.desired == (20 if active else 4)
    assert decision.governed is not None and decision.governed.rules == (("rush",) if active else ())


def test_a_schedule_of_one_date_and_a_ceiling() -> None:
    sale = {"start": "0 6 * * *", "end": "0 22 * * *", "minReplicas": 50, "dates": ["2026-11-27"]}
    night = {"start": "0 0 * * *", "end": "0 6 * * *", "maxReplicas": 2}
    rules = governor(schedule=[sale, night]).schedule
    assert scheduled_bounds(rules, 1, 100, at("2026-11-27T12:00:00+00:00")).minimum == 50
    assert scheduled_bounds(rules, 1, 100, at("2026-11-28T12:00:00+00:00")).minimum == 1
    assert scheduled_bounds(rules, 1, 100, at("2026-11-28T03:00:00+00:00")).maximum == 2
    assert scheduled_bounds(rules, 5, 100, at("2026-11-28T03:00:00+00:00")).maximum == 5  # the floor wins


def test_cron_reads_steps_lists_names_and_either_day() -> None:
    assert parse_schedule("*/15 9-17/4 1,15 * *").minutes == (0, 15, 30, 45)
    assert parse_schedule("*/15 9-17/4 1,15 * *").hours == (9, 13, 17)
    either = parse_schedule("0 0 13 * fri")
    assert either.on(datetime(2026, 11, 13, tzinfo=UTC).date()) and either.on(datetime(2026, 11, 20, tzinfo=UTC).date())
    assert parse_schedule("0 0 * * sun").on(datetime(2026, 11, 22, tzinfo=UTC).date())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"profile": "quick"}, 'spec.profile: Unsupported value: "quick"'),
        (
            {"schedule": [RUSH | {"timeZone": "Europe/Berlyn"}]},
            'spec.schedule\\[0\\].timeZone: Invalid value: "Europe/Berlyn"',
        ),
        (
            {"schedule": [RUSH | {"start": "0 25 * * *"}]},
            "spec.schedule\\[0\\].start: .*end of range \\(25\\) above maximum \\(23\\)",
        ),
        ({"schedule": [RUSH | {"end": "often"}]}, "spec.schedule\\[0\\].end: .*five fields"),
        ({"schedule": [{"start": "@daily", "end": "@hourly"}]}, "spec.schedule\\[0\\]: Required value"),
        ({"schedule": [RUSH | {"dates": ["soon"]}]}, "spec.schedule\\[0\\].dates\\[0\\]: "),
        ({"fallback": {}}, "spec.fallback.replicas: Required value"),
        ({"fallback": {"replicas": 0}}, "spec.fallback.replicas: Invalid value: 0"),
        ({"forecast": {"startupSeconds": "5"}}, "spec.forecast.startupSeconds: Invalid value"),
        ({"override": {"replicas": 1, "until": "tomorrow"}}, "spec.override.until: Invalid value"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        governor(**fields)
