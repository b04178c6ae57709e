"""What prometheus-operator's own tests make of AlertmanagerConfigs (tools/operator_goldens), made here."""

import json
import lzma
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.operator.test_goldens import FileAssets

from flyball.alerting.timeintervals import read_time_interval
from flyball.errors import ConfigError
from flyball.operator.alertmanagers import global_configuration, section_of
from flyball.operator.alertmanagerversions import suited, suited_client, suited_route
from flyball.operator.clientconfig import ClientConfig
from flyball.operator.receivers import http_config
from flyball.operator.versions import parse_version

RECORDED = json.loads(lzma.decompress(Path(__file__).with_name("alertmanager_goldens.json.xz").read_bytes()))


def _named() -> Iterator[tuple[str, dict[str, Any]]]:
    seen: Counter[str] = Counter()
    for case in RECORDED:
        yield f"{case['test']}-{seen[case['test']]}", case
        seen[case["test"]] += 1


CASES = dict(_named())

#: What upstream takes for granted where it only judges an object.
SETTINGS = {"smtp_smarthost": "a:1", "smtp_from": "a", "slack_api_url": "http://a"}

#: Names of cases whose answer differs, by reason; the test fails too when one of them agrees.
DIFFERENT = {
    "upstream's generator leaves a newer field out of an object that its controller refuses": [
        "TestGenerateConfig-31",
        "TestGenerateConfigWebhookReceiver-2",
    ],
    "a URL without a scheme, which no Alertmanager takes": ["TestInitializeFromAlertmanagerConfig-26"],
}


def generate(case: dict[str, Any]) -> dict[str, Any]:
    """The document, or an empty one where an object is only judged.

    Raises:
        ConfigError: it is refused.
    """
    version = parse_version(case.get("version", "0.33.1"))
    assets = FileAssets({"inlineTLS": False, "objects": None, **case}, "/etc/alertmanager/certs")
    if case["kind"] == "http":
        return suited_client(http_config(case["in"], ClientConfig(assets, "", "")), version, "")
    if case["kind"] == "check":
        section_of(case["config"], {}, version, assets, settings=SETTINGS)
        return {}
    if case["kind"] == "initialize":
        return global_configuration(case["config"], case["global"], version, assets)
    document = load(case["in"])
    if case["kind"] == "add":
        alertmanager = {
            "metadata": {"namespace": "alertmanager-namespace"},
            "spec": {"alertmanagerConfigMatcherStrategy": case["strategy"]},
        }
        routes: list[Any] = []
        for _, config in sorted((case["configs"] or {}).items()):
            added = section_of(config, alertmanager, version, assets, settings=document.get("global") or {})
            routes += added.pop("routes")
            for section, items in added.items():
                document[section] = [*(document.get(section) or ()), *items]
        document["route"]["routes"] = routes + (document["route"].get("routes") or [])
    if case["test"] == "TestHTTPClientConfig":
        return suited_client(document, version, "")
    if case["test"] == "TestSanitizeRoute":
        return suited_route(document, version, "")
    if "name" in document:
        return suited({"mute_time_intervals": [document]}, version, "")["mute_time_intervals"][0]
    return suited(document, version, "")


def load(text: str) -> Any:
    return yaml.safe_load(text.replace("location: Local", "location: UTC"))  # we ask for a name that exists everywhere


def comparable(document: Any) -> Any:
    """Without what is the same said otherwise: sections that are empty, times in another spelling."""
    if isinstance(document, Mapping):
        found = {name: comparable(value) for name, value in document.items()}
        if isinstance(document.get("time_intervals"), list) and "name" in document:
            found["time_intervals"] = [read_time_interval(one, "") for one in document["time_intervals"]]
        return {name: value for name, value in found.items() if value not in ([], {})}
    if isinstance(document, list):
        return [comparable(one) for one in document]
    return document


def agrees(case: dict[str, Any]) -> bool:
    wanted = None if "error" in case else comparable(load(case["output"])) or {}
    try:
        return bool(comparable(generate(case)) == wanted)
    except ConfigError:
        return wanted is None


@pytest.mark.parametrize("test", sorted({case["test"] for case in RECORDED}))
def test_goldens(test: str) -> None:
    cases = {name: case for name, case in CASES.items() if case["test"] == test}
    differing = {name for names in DIFFERENT.values() for name in names if name in cases}
    assert {name for name, case in cases.items() if not agrees(case)} == differing
