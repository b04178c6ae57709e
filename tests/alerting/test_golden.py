"""Parsers and tables beside what Alertmanager 0.33.1 answered (``record/``): matchers, time intervals, routes."""

import json
from pathlib import Path
from typing import Any

import pytest

from flyball.alerting.alerts import fingerprint
from flyball.alerting.config import parse_config
from flyball.alerting.matchers import Mode, parse_matchers, show
from flyball.alerting.timeintervals import read_time_interval
from flyball.errors import ConfigError
from flyball.model.labels import labels_of
from flyball.model.yaml_loader import load_yaml

HERE = Path(__file__).parent / "record"
CASES, GOLDEN = (json.loads((HERE / name).read_text()) for name in ("cases.json", "golden.json"))


@pytest.mark.parametrize(("place", "mode"), list(enumerate((Mode.FALLBACK, Mode.UTF8, Mode.CLASSIC))))
def test_matchers_parse_as_upstream(place: int, mode: Mode) -> None:
    wrong = []
    for text, answers in GOLDEN["matchers"].items():
        try:
            found: str | None = show(parse_matchers(text, mode))
        except ConfigError:
            found = None
        if found != answers[place]:
            wrong.append((text, found, answers[place]))
    assert not wrong, f"{len(wrong)} of {len(GOLDEN['matchers'])}: {wrong[:5]}"


def test_intervals_contain_what_upstreams_do() -> None:
    wrong = []
    for case, answers in zip(CASES["intervals"], GOLDEN["intervals"], strict=True):
        try:
            interval = read_time_interval(load_yaml(case["yaml"]), "interval")
            found: Any = [interval.contains(at * 1000) for at in case["times"]]
        except ConfigError:
            found = None
        if found != answers:
            wrong.append((case["yaml"], found, answers))
    assert not wrong, f"{len(wrong)} of {len(CASES['intervals'])}: {wrong[:3]}"


def test_alerts_take_the_routes_that_upstream_takes() -> None:
    root = parse_config(CASES["routing"]["yaml"]).route
    for labels, answers in zip(CASES["routing"]["labels"], GOLDEN["routing"], strict=True):
        taken = root.matching(labels)
        name = fingerprint(labels_of(labels))
        assert [[route.receiver, route.key, route.id, name] for route in taken] == answers
