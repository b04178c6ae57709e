"""AlertmanagerConfigs join the configuration of the Alertmanager object that selects them."""

import base64
import json
from typing import Any

import pytest

from flyball.alerting.config import parse_config
from flyball.errors import ConfigError
from flyball.operator.alertmanagers import Alerting, alerting
from flyball.operator.assets import ReadAssets

BASE = """
route: {receiver: Default, routes: [{receiver: Critical, matchers: ["severity = critical"]}]}
receivers: [{name: Default}, {name: Critical}]
templates: [/etc/alertmanager/config/*.tmpl]
"""
NAMESPACES = {"shop": {"team": "a"}, "bank": {}}
SECRETS = {("shop", "hooks"): {"url": base64.b64encode(b"http://hook/secret\n").decode()}}


def alertmanager(**spec: Any) -> dict[str, Any]:
    selectors = {"alertmanagerConfigSelector": {}, "alertmanagerConfigNamespaceSelector": {}}
    return {"metadata": {"namespace": "monitoring", "name": "main"}, "spec": {**selectors, **spec}}


def config(namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    hook = {"urlSecret": {"name": "hooks", "key": "url"}, "sendResolved": False, "maxAlerts": 5}
    body = {
        "route": {
            "receiver": "team",
            "groupBy": ["job"],
            "matchers": [{"name": "severity", "value": "warning|info", "matchType": "=~"}],
            "routes": [{"receiver": "team", "muteTimeIntervals": ["night"]}],
        },
        "receivers": [{"name": "team", "webhookConfigs": [hook]}],
        "muteTimeIntervals": [
            {
                "name": "night",
                "timeIntervals": [
                    {
                        "times": [{"startTime": "20:00", "endTime": "24:00"}],
                        "weekdays": ["Monday:Friday"],
                        "daysOfMonth": [{"start": 1, "end": -1}],
                    }
                ],
            }
        ],
        "inhibitRules": [{"sourceMatch": [{"name": "a", "value": "b"}], "targetMatch": [], "equal": ["job"]}],
    }
    return {"metadata": {"namespace": namespace, "name": "c"}, "spec": {**body, **spec}}


def generated(*configs: dict[str, Any], secret: dict[str, str] | None = None, **spec: Any) -> Alerting:
    given = {"alertmanager.yaml": BASE} if secret is None else secret
    return alerting(alertmanager(**spec), given, configs, NAMESPACES, ReadAssets(SECRETS, {}))


def test_a_team_adds_a_route_that_sees_its_namespace_only() -> None:
    found = generated(config()).config
    ours, own = found["route"]["routes"]
    assert own["receiver"] == "Critical"
    assert ours == {
        "matchers": ['severity=~"warning|info"', 'namespace="shop"'],
        "receiver": "shop/c/team",
        "group_by": ["job"],
        "continue": True,
        "routes": [{"receiver": "shop/c/team", "mute_time_intervals": ["shop/c/night"]}],
    }
    assert found["receivers"][2] == {
        "name": "shop/c/team",
        "webhook_configs": [{"url": "http://hook/secret", "send_resolved": False, "max_alerts": 5}],
    }
    assert found["mute_time_intervals"] == [
        {
            "name": "shop/c/night",
            "time_intervals": [
                {
                    "times": [{"start_time": "20:00", "end_time": "24:00"}],
                    "weekdays": ["monday:friday"],
                    "days_of_month": ["1:-1"],
                }
            ],
        }
    ]
    assert found["inhibit_rules"] == [
        {
            "source_matchers": ['a="b"', 'namespace="shop"'],
            "target_matchers": ['namespace="shop"'],
            "equal": ["job"],
        }
    ]
    parse_config(json.dumps(found))


@pytest.mark.parametrize(
    ("namespace", "strategy", "confined"),
    [
        ("shop", "None", False),
        ("shop", "OnNamespaceExceptForAlertmanagerNamespace", True),
        ("monitoring", "OnNamespaceExceptForAlertmanagerNamespace", False),
    ],
)
def test_matchers_of_all_namespaces_where_the_object_says_so(namespace: str, strategy: str, confined: bool) -> None:
    plain = config(namespace, receivers=[{"name": "team"}])
    found = generated(plain, alertmanagerConfigMatcherStrategy={"type": strategy}).config
    own = [f'namespace="{namespace}"'] if confined else []
    assert found["route"]["routes"][0]["matchers"] == ['severity=~"warning|info"', *own]
    assert found["inhibit_rules"][0].get("target_matchers", []) == own


def test_an_object_is_the_whole_configuration_where_the_alertmanager_says_so() -> None:
    wanted = {
        "name": "c",
        "global": {"resolveTimeout": "1m", "slackApiUrl": {"name": "hooks", "key": "url"}},
        "templates": [{"secret": {"name": "hooks", "key": "url"}}],
    }
    plain = config("monitoring", route={"receiver": "team"})
    secrets = {("monitoring", "hooks"): SECRETS["shop", "hooks"]}
    obj = alertmanager(alertmanagerConfiguration=wanted, alertmanagerConfigSelector=None)
    found = alerting(obj, None, [plain], NAMESPACES, ReadAssets(secrets, {}))
    assert found.config["global"] == {"resolve_timeout": "1m", "slack_api_url": "http://hook/secret"}
    assert found.config["route"] == {"receiver": "monitoring/c/team", "routes": []}
    assert found.config["templates"] == ["url"] and found.files == {"url": "http://hook/secret\n"}
    with pytest.raises(ConfigError, match='there is no AlertmanagerConfig "c" in namespace monitoring'):
        alerting(obj, None, [], NAMESPACES, ReadAssets(secrets, {}))


def test_fields_that_a_version_does_not_read_are_left_out() -> None:
    timed = {"urlSecret": {"name": "hooks", "key": "url"}, "timeout": "5s"}
    receivers = [{"name": "team", "webhookConfigs": [timed]}]
    old, new = (
        generated(config(receivers=receivers), version=v).config["receivers"][2] for v in ("v0.27.0", "v0.28.0")
    )
    assert "timeout" not in old["webhook_configs"][0] and new["webhook_configs"][0]["timeout"] == "5s"


def test_templates_beside_the_configuration_come_along() -> None:
    found = generated(secret={"alertmanager.yaml": BASE, "own.tmpl": '{{ define "x" }}y{{ end }}'})
    assert found.config["templates"] == ["*.tmpl"] and found.files == {"own.tmpl": '{{ define "x" }}y{{ end }}'}


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({"alertmanagerConfigSelector": None}, 0),
        ({"alertmanagerConfigNamespaceSelector": None}, 0),
        ({"alertmanagerConfigNamespaceSelector": {"matchLabels": {"team": "a"}}}, 1),
        ({"alertmanagerConfigSelector": {"matchLabels": {"x": "y"}}}, 0),
        ({}, 2),
    ],
)
def test_selectors_decide(spec: dict[str, Any], taken: int) -> None:
    plain = {"receivers": [{"name": "team"}]}
    found = generated(config("shop", **plain), config("bank", **plain), **spec).config
    assert len(found["route"]["routes"]) == 1 + taken


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"receivers": [{"name": "team", "webhookConfigs": [{"urlSecret": {"name": "none", "key": "k"}}]}]},
            "spec.receivers[0].urlSecret: there is no Secret shop/none",
        ),
        ({"route": {"receiver": "other"}}, "other"),
        ({"route": {"receiver": "team", "groupWait": "soon"}}, "soon"),
        ({"receivers": "none"}, "AlertmanagerConfig shop/c"),
    ],
)
def test_a_wrong_one_is_refused_alone(spec: dict[str, Any], words: str) -> None:
    right = config("bank", receivers=[{"name": "team"}])
    found = generated(config("shop", **spec), right)
    assert [route["receiver"] for route in found.config["route"]["routes"]] == ["bank/c/team", "Critical"]
    ((key, why),) = found.refused.items()
    assert key == ("AlertmanagerConfig", "shop", "c") and words in why


def test_a_configuration_of_its_own_that_is_wrong_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Alertmanager monitoring/main: alertmanager-main: "):
        generated(secret={"alertmanager.yaml": "route: {receiver: none}"})


def test_without_a_secret_nobody_is_told() -> None:
    found = alerting(alertmanager(), None, [], NAMESPACES, ReadAssets({}, {}))
    assert found.config["route"]["receiver"] == "null"
