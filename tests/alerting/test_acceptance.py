"""Alertmanager's acceptance scenarios on virtual time."""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.alerting.virtualtime import EPOCH_MS, now_ms, run

from flyball.alerting.alerts import read_alert
from flyball.alerting.cluster import Cluster, ClusterSettings
from flyball.alerting.config import parse_config
from flyball.alerting.delivery import secret_value
from flyball.alerting.matchers import parse_matchers
from flyball.alerting.receivers.sending import DeliveryError, HttpIntegration, Notification
from flyball.alerting.service import Alertmanager, Settings
from flyball.alerting.silences import Silence
from flyball.alerting.templates import Expand
from flyball.errors import UpstreamError

TOLERANCE_S = 0.15
START_S = 0.5  # the processes are up before the scenario's time 0
SCENARIOS = yaml.safe_load((Path(__file__).parent / "acceptance.yaml").read_text())

#: (seconds, alerts); an alert is its labels, annotations, and the seconds it starts and ends at.
Collected = list[tuple[float, list[dict[str, Any]]]]


def elapsed_s() -> float:
    return asyncio.get_running_loop().time() - START_S


def seconds(text: str) -> float | None:
    if text.startswith("0001"):
        return None
    return dt.datetime.fromisoformat(text).timestamp() - EPOCH_MS / 1000 - START_S


class Webhooks:
    """What each webhook was told, and which of them fail."""

    def __init__(self, failing: dict[str, dict[str, float]]) -> None:
        self.failing, self.told = failing, {}  # type: ignore[var-annotated]

    async def send(
        self, integration: HttpIntegration, told: Notification, expand: Expand, timeout_s: float
    ) -> dict[str, str]:
        post = integration.message(told, expand, secret_value)
        name = urlsplit(post.url).netloc
        fault = self.failing.get(name)
        if fault and elapsed_s() < fault["until"]:
            timeout_s = min(timeout_s, post.timeout_ms / 1000 or timeout_s)
            await asyncio.sleep(min(fault.get("after", 0), timeout_s))
            raise DeliveryError("fails", retry=True)
        alerts = [
            {
                "labels": one["labels"],
                "annotations": one["annotations"],
                "active": [at for name in ("startsAt", "endsAt") if (at := seconds(one[name])) is not None],
            }
            for one in json.loads(json.dumps(post.body))["alerts"]
        ]
        self.told.setdefault(name, []).append((elapsed_s(), alerts))
        return {}


def wanted(alert: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in alert.items() if name not in ("active", "annotations")}
    return {"labels": rest, "annotations": alert.get("annotations", {}), "active": alert.get("active", [])}


def pushed(alert: dict[str, Any]) -> dict[str, Any]:
    found = wanted(alert)
    times = [dt.datetime.fromtimestamp(EPOCH_MS / 1000 + START_S + at, dt.UTC) for at in found["active"]]
    given = {name: at.isoformat() for name, at in zip(("startsAt", "endsAt"), times, strict=False)}
    return {"labels": found["labels"], "annotations": found["annotations"], **given}


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return (
        one["labels"] == two["labels"]
        and one["annotations"] == two["annotations"]
        and len(one["active"]) == len(two["active"])
        and all(abs(a - b) <= TOLERANCE_S for a, b in zip(one["active"], two["active"], strict=True))
    )


def same_batch(expected: list[dict[str, Any]], told: list[dict[str, Any]]) -> bool:
    return len(expected) == len(told) and all(any(same(one, two) for two in told) for one in expected)


async def replicas(scenario: dict[str, Any], webhooks: Webhooks, tasks: asyncio.TaskGroup) -> list[Alertmanager]:
    settings = Settings(start_delay_ms=int(scenario.get("start_delay", 0) * 1000))
    config = parse_config(yaml.safe_dump(without_aliases(scenario["config"])))
    count = scenario.get("replicas", 1)
    found = [
        Alertmanager(config, settings, send=webhooks.send, now_ms=now_ms, jitter=lambda: 1.0)  # type: ignore[arg-type]
        for _ in range(count)
    ]
    clusters: dict[str, Cluster] = {}

    async def exchange(address: str, message: Any) -> Any:
        if address not in clusters:
            raise UpstreamError("nobody is there")
        return json.loads(json.dumps(clusters[address].answer(json.loads(json.dumps(message)))))

    async def resolve(peer: str) -> list[str]:
        return [peer]

    for index, one in enumerate(found):
        if count > 1:
            own = ClusterSettings(f"replica-{index}", f"peer-{index}", ("peer-0",))
            clock = asyncio.get_running_loop().time
            clusters[f"peer-{index}"] = one.peers = Cluster(
                one, own, exchange, resolve, now_ms=now_ms, monotonic_s=clock
            )
            tasks.create_task(one.peers.run())
        tasks.create_task(one.run())
    return found


def without_aliases(value: Any) -> Any:
    return json.loads(json.dumps(value))


async def play(scenario: dict[str, Any], webhooks: Webhooks) -> None:
    async def push(step: dict[str, Any]) -> None:
        await asyncio.sleep(step["at"] + START_S)
        for one in running:
            timeout_ms = one.config.globals.resolve_timeout_ms
            one.put_alerts([read_alert(pushed(alert), now_ms(), timeout_ms) for alert in step["alerts"]])

    async def silence(step: dict[str, Any]) -> None:
        await asyncio.sleep(step["at"] + START_S)
        starts_ms, ends_ms = (EPOCH_MS + int((step[name] + START_S) * 1000) for name in ("from", "to"))
        (one,) = running
        id_ = one.put_silence(Silence(parse_matchers(step["matchers"]), starts_ms, ends_ms, "somebody", "a comment"))
        if "until" in step:
            await asyncio.sleep(step["until"] - step["at"])
            one.expire_silence(id_)

    async def reload(at_s: float) -> None:
        await asyncio.sleep(at_s + START_S)
        for one in running:
            one.apply(one.config)

    last_s = max(one["between"][1] for wants in scenario["want"].values() for one in wants)
    async with asyncio.TaskGroup() as tasks:
        running = await replicas(scenario, webhooks, tasks)
        steps = [tasks.create_task(push(one)) for one in scenario.get("push", ())]
        steps += [tasks.create_task(silence(one)) for one in scenario.get("silence", ())]
        steps += [tasks.create_task(reload(one)) for one in scenario.get("reload", ())]
        await asyncio.sleep(last_s + START_S)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
def test_tells_as_alertmanager_does(scenario: dict[str, Any]) -> None:
    webhooks = Webhooks(scenario.get("failing", {}))
    run(play(scenario, webhooks))
    for name, wants in scenario["want"].items():
        told = webhooks.told.get(name, [])
        for want in wants:
            first_s, last_s = want["between"]
            batches = [alerts for at_s, alerts in told if first_s <= at_s <= last_s]
            expected = [wanted(alert) for alert in want["alerts"]]
            found = any(same_batch(expected, batch) for batch in batches) if expected else not batches
            assert found, f"{name} {want['between']}: expected {expected}, told {told}"
        assert sum(len(want["alerts"]) for want in wants) == sum(len(alerts) for _, alerts in told), told
