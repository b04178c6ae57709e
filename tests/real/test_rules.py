"""PrometheusRule objects become groups that are evaluated, and a wrong one is shown where its owner looks."""

import json
import urllib.parse
import urllib.request
from typing import Any

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real


def api(flyball: Flyball, path: str, **parameters: str) -> Any:
    url = f"{flyball.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)["data"]


def rule(name: str, *rules: dict[str, Any]) -> str:
    spec = {"groups": [{"name": name, "interval": "1s", "rules": rules}]}
    head = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": name}}
    return json.dumps({**head, "spec": spec})


def test_rules_are_evaluated_and_a_wrong_object_is_left_out(flyball: Flyball) -> None:
    always = {"alert": "Always", "expr": "vector(1)", "labels": {"severity": "none"}}
    flyball.kubectl(
        "apply", "-f", "-", stdin=rule("good", {"record": "job:up:sum", "expr": "sum by (job) (up)"}, always)
    )
    flyball.kubectl("apply", "-f", "-", stdin=rule("wrong", {"record": "x", "expr": "sum("}))
    eventually(lambda: api(flyball, "query", query='job:up:sum{job="webapp"} == 2')["result"])
    alerts = eventually(lambda: api(flyball, "alerts")["alerts"])
    assert [(one["labels"], one["state"]) for one in alerts] == [
        ({"alertname": "Always", "severity": "none"}, "firing")
    ]
    groups = api(flyball, "rules")["groups"]
    assert [group["name"] for group in groups] == ["good"]
    assert {one["health"] for group in groups for one in group["rules"]} == {"ok"}

    def told() -> bool:
        events = flyball.get("events", "--field-selector", "involvedObject.name=wrong")["items"]
        return any('group "wrong", rule 1, "x": could not parse' in event["message"] for event in events)

    eventually(told)
    flyball.kubectl("delete", "prometheusrule", "good", "wrong")
    eventually(lambda: api(flyball, "rules")["groups"] == [])
    assert api(flyball, "query", query="job:up:sum")["result"] == []


def test_what_the_targets_say_of_their_metrics_is_shown(flyball: Flyball) -> None:
    (found,) = eventually(lambda: api(flyball, "metadata", metric="webapp_request_operations_total"))[
        "webapp_request_operations_total"
    ]
    assert (found["type"], found["help"]) == ("counter", "Requests answered.")
    assert api(flyball, "targets")["droppedTargets"]
