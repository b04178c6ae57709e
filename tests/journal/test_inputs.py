"""A record leads to the same decision again, and is found by its time."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from flyball.autoscaler.api import flat
from flyball.cli.explain import render, why_not
from flyball.journal import Journal
from flyball.scaling import History, Observation, Outcome, Pod, PodReading, Reading, Recommendation, spec_from_hpa
from flyball.scaling.governor import governor_from_object
from flyball.scaling.record import Inputs
from flyball.scaling.types import Forecast

NOW = 1_800_000_000_000


def inputs(load: float, **governor: Any) -> Inputs:
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 50,
        "metrics": [metric],
    }
    obj = {"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": body | governor}
    pods = tuple(Pod(f"web-{at}", start_ms=0, ready="True", ready_since_ms=1) for at in range(3))
    readings = {pod.name: PodReading(int(load / 3 * 1000), NOW) for pod in pods}
    seen = Observation(3, 3, "app=web", pods=pods, readings=(Reading(pods=readings),))
    history = History((Recommendation(3, NOW - 400_000),), began_ms=NOW - 400_000)
    if not governor:
        return Inputs(seen, history, spec=spec_from_hpa(obj))
    forecast = Forecast(NOW, NOW + 30_000, 4.0, 0.05)
    return Inputs(seen, history, governor=governor_from_object(obj), forecast=forecast)


RUSH = {
    "start": "0 8 * * 1-5",
    "end": "0 18 * * *",
    "minReplicas": 4,
    "timeZone": "Europe/Berlin",
    "dates": ["2027-01-15"],
}


def test_a_record_is_decided_the_same_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    for made in (inputs(30), inputs(90), inputs(90, profile="fast", schedule=[RUSH], fallback={"replicas": 2})):
        decision, history = made.decide(NOW)
        journal.append_decision(decision, history, "u", made)
    records = journal.decisions()
    assert len(records) == 3 and all(record.reproduced() for record in records)
    changed = msgspec.structs.replace(records[0].decision, desired=records[0].decision.desired + 1)
    assert msgspec.structs.replace(records[0], decision=changed).reproduced() is False
    assert msgspec.structs.replace(records[0], inputs=None).reproduced() is None


def test_decisions_are_found_as_of_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    for minute, load in enumerate((30, 90, 30)):
        made = inputs(load)
        decision, history = made.decide(NOW + minute * 60_000)
        journal.append_decision(decision, history, "u", made)
    assert journal.decisions("shop", "web", 1, NOW + 61_000)[0].decision.desired == 6
    assert journal.decisions("shop", "web", 1, NOW - 1) == []


def test_a_journal_of_the_first_format_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE decisions DROP COLUMN inputs")
        db.execute("PRAGMA user_version=1")
    decision, _ = inputs(90).decide(NOW)
    journal = Journal(path)
    journal.append_decision(decision, inputs=inputs(90))
    assert journal.decisions()[0].reproduced()


def test_explain_says_what_a_governor_did_and_what_would_change_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    made = inputs(30, profile="fast", schedule=[RUSH | {"minReplicas": 2}], forecast={}, shadow=True)
    decision, history = made.decide(NOW)
    journal.append_decision(decision, history, "u", made)
    text = render(flat(journal.decisions()[0]))
    assert (
        "in the shadow" in text
        and "not written: a shadow does not write" in text
        and "schedule in force" in text
        and "demand 3.00 replicas" in text
        and "forecast 4.00 in 30 s" in text
    )
    reasons = "\n".join(why_not(flat(journal.decisions()[0])))
    assert "pods metric rps is at 1 of its target: more from above 1.1, fewer from below 0.9" in reasons


def test_explain_says_what_became_of_a_write(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    for at, (outcome, wanted) in enumerate(
        (
            (Outcome(), "written to the scale, accepted"),
            (Outcome("the quota is used up"), "write of 9 replicas failed: the quota is used up"),
            (None, "not written: left to the stock controller, or its end is not known"),
        )
    ):
        made = inputs(90)
        decision, history = made.decide(NOW + at * 60_000)
        record = journal.append_decision(decision, history, "u", made)
        if outcome is not None:
            journal.outcome(journal.intent(decision, record, "u", NOW), outcome, NOW)
        assert wanted.replace("9 replicas", f"{decision.desired} replicas") in render(flat(journal.decisions()[0]))
    assert flat(journal.decisions()[0], inputs=True)["inputs"]["seen"]["readings"][0]["pods"]["web-0"]["at_ms"] == NOW


def test_explain_says_since_when_it_is_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    for at in range(3):
        made = inputs(30)
        decision, history = made.decide(NOW + at * 15_000)
        journal.append_decision(decision, history, "u", made)
    assert "[the same 3 times since 2027-01-15T08:00:00Z]" in render(flat(journal.decisions()[0]))
