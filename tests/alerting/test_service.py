"""The shell in virtual time: what lasts, what is muted, what fails alone, and replicas that are cut off."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.alerting.virtualtime import EPOCH_MS, now_ms, run

from flyball.alerting.alerts import MS, Alert
from flyball.alerting.cluster import Cluster, ClusterSettings
from flyball.alerting.config import parse_config
from flyball.alerting.matchers import parse_matchers
from flyball.alerting.receivers.sending import DeliveryError, Integration, Notification
from flyball.alerting.service import Alertmanager, Settings
from flyball.alerting.silences import Silence, State
from flyball.alerting.templates import Expand
from flyball.errors import NotFoundError, QueryError, UpstreamError
from flyball.journal.records import Records
from flyball.model.labels import labels_of

CONFIG = {
    "route": {"receiver": "team", "group_by": ["alertname"], "group_wait": "10s", "group_interval": "1m"},
    "receivers": [{"name": "team", "webhook_configs": [{"url": "http://one"}, {"url": "http://two"}]}],
}


class Told:
    """Notifications by second, integration and names of alerts; ``fault`` may raise."""

    def __init__(self, fault: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.told: list[tuple[float, str, list[str]]] = []
        self._fault = fault

    async def send(self, to: Integration, told: Notification, expand: Expand, timeout_s: float) -> dict[str, str]:
        if self._fault is not None:
            await self._fault(to)
        url = to.url.value.removeprefix("http://")  # type: ignore[attr-defined]
        names = sorted(dict(one.labels)["alertname"] + ("" if not one.ends_ns else " over") for one in told.alerts)
        self.told.append((asyncio.get_running_loop().time(), url, names))
        return {}


def firing(name: str, **labels: str) -> Alert:
    at_ms = now_ms()
    return Alert(labels_of({"alertname": name, **labels}), (), at_ms * MS, (at_ms + 9_000_000) * MS, at_ms)


def alertmanager(told: Told, config: dict[str, Any] = CONFIG, **more: Any) -> Alertmanager:
    settings = more.pop("settings", Settings())
    given = {"send": told.send, "now_ms": now_ms, "jitter": lambda: 1.0} | more
    return Alertmanager(parse_config(json.dumps(config)), settings, **given)


def play(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a scenario, then ends what it started."""

    async def whole() -> None:
        await main()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    run(whole())


_running: set[asyncio.Task[None]] = set()


def start(*parts: Any) -> list[asyncio.Task[None]]:
    tasks = [asyncio.get_running_loop().create_task(part.run()) for part in parts]
    _running.update(tasks)
    for task in tasks:
        task.add_done_callback(_running.discard)
    return tasks


def test_silences_and_the_log_outlive_the_process(tmp_path: Path) -> None:
    told = Told()

    async def scenario() -> None:
        records = Records(tmp_path / "alerting.db")
        first = alertmanager(told, records=records)
        (task,) = start(first)
        first.put_alerts([firing("Down"), firing("Quiet")])
        id_ = first.put_silence(Silence(parse_matchers("alertname=Quiet"), now_ms(), now_ms() + 7_200_000, "me", "why"))
        await asyncio.sleep(30)
        assert [one[1:] for one in told.told] == [("one", ["Down"]), ("two", ["Down"])]
        task.cancel()  # as kill -9: nothing is closed, nothing is written at the end
        second = alertmanager(told, records=Records(tmp_path / "alerting.db"))
        start(second)
        assert second.silences.get(id_).comment == "why"
        second.put_alerts([firing("Down"), firing("Quiet")])
        await asyncio.sleep(600)
        assert len(told.told) == 2, "what was told is not told again, what was silenced is silent"
        second.expire_silence(id_)
        await asyncio.sleep(60)
        assert [one[1:] for one in told.told[2:]] == [("one", ["Quiet"]), ("two", ["Quiet"])]

    play(scenario)


def test_one_broken_receiver_does_not_keep_the_other_from_being_told() -> None:
    async def fault(to: Any) -> None:
        if to.url.value == "http://two":
            raise DeliveryError("refused", retry=False, reason="clientError")

    told = Told(fault)

    async def scenario() -> None:
        one = alertmanager(told)
        start(one)
        one.put_alerts([firing("Down")])
        await asyncio.sleep(300)
        assert [entry[1] for entry in told.told] == ["one"]
        assert one.attempts["team/webhook[1]"].error == "refused" and not one.attempts["team/webhook[0]"].error
        failed = one.metrics.registry.get_sample_value(
            "alertmanager_notifications_failed_total", {"integration": "webhook", "reason": "clientError"}
        )
        assert failed == 5, "tried again at each flush, once"

    play(scenario)


def test_a_defect_of_ours_is_a_failed_notification() -> None:
    async def fault(to: Any) -> None:
        if to.url.value == "http://two":
            raise ZeroDivisionError

    told = Told(fault)

    async def scenario() -> None:
        one = alertmanager(told)
        (task,) = start(one)
        one.put_alerts([firing("Down"), firing("Up")])
        await asyncio.sleep(100)
        assert [entry[1:] for entry in told.told] == [("one", ["Down"]), ("one", ["Up"])]
        assert not task.done()

    play(scenario)


def test_a_receiver_that_asks_for_time_is_given_it() -> None:
    async def fault(to: Any) -> None:
        if to.url.value == "http://two" and asyncio.get_running_loop().time() < 40:
            raise DeliveryError("busy", retry=True, retry_after_s=31.0)

    told = Told(fault)

    async def scenario() -> None:
        one = alertmanager(told)
        start(one)
        one.put_alerts([firing("Down")])
        await asyncio.sleep(60)
        assert told.told == [(10.0, "one", ["Down"]), (41.0, "two", ["Down"])]

    play(scenario)


def test_an_outage_of_an_hour_loses_nothing() -> None:
    async def fault(to: Any) -> None:
        if asyncio.get_running_loop().time() < 3600:
            raise DeliveryError("down", retry=True)

    told = Told(fault)

    async def scenario() -> None:
        one = alertmanager(told)
        start(one)
        names = [f"A{number}" for number in range(4)]
        ends_ns = (now_ms() + 9_000_000) * MS
        one.put_alerts([Alert(labels_of({"alertname": name}), (), now_ms() * MS, ends_ns) for name in names])
        await asyncio.sleep(3600 + 10 + 60 + 30)
        assert sorted(entry[2][0] for entry in told.told if entry[1] == "one") == names
        assert len(told.told) == 8

    play(scenario)


def test_a_clock_that_is_put_back_delays_nobody() -> None:
    told, put_back_ms = Told(), 0

    async def scenario() -> None:
        nonlocal put_back_ms
        one = alertmanager(told, now_ms=lambda: now_ms() - put_back_ms)
        start(one)
        one.put_alerts([firing("Down")])
        await asyncio.sleep(20)
        put_back_ms = 3_600_000
        one.put_alerts([firing("Down"), firing("Up")])
        await asyncio.sleep(100)
        assert [entry[1:] for entry in told.told if entry[2] == ["Up"]] == [("one", ["Up"]), ("two", ["Up"])]
        one.put_alerts([replace(firing("Down"), ends_ns=(now_ms() - put_back_ms) * MS)])
        await asyncio.sleep(70)
        assert told.told[-1][2] == ["Down over"]

    play(scenario)


def test_routes_are_mute_at_their_times() -> None:
    config = json.loads(json.dumps(CONFIG))
    # virtual time begins at 2030-03-17T17:46:40Z
    config["time_intervals"] = [
        {"name": "evening", "time_intervals": [{"times": [{"start_time": "18:00", "end_time": "19:00"}]}]}
    ]
    config["route"]["routes"] = [
        {"receiver": "team", "matchers": ["team=day"], "mute_time_intervals": ["evening"]},
        {"receiver": "team", "matchers": ["team=evening"], "active_time_intervals": ["evening"]},
    ]
    told = Told()

    async def scenario() -> None:
        one = alertmanager(told, config)
        start(one)
        one.put_alerts([firing("Evening", team="evening")])
        await asyncio.sleep(14 * 60)
        one.put_alerts([firing("Day", team="day")])
        await asyncio.sleep(100)
        assert [entry[2] for entry in told.told] == [["Evening"], ["Evening"]] and told.told[0][0] > 800
        assert sorted(one.muted_by.values()) == [(), ("evening",)]
        await asyncio.sleep(3600)
        assert [entry[1:] for entry in told.told if entry[2] == ["Day"]] == [("one", ["Day"]), ("two", ["Day"])]

    play(scenario)


def test_silences_have_a_limit_and_retention() -> None:
    async def scenario() -> None:
        one = alertmanager(Told(), settings=Settings(silences_max=1, retention_ms=3_600_000))
        start(one)
        matchers = parse_matchers("a=b")
        id_ = one.put_silence(Silence(matchers, now_ms(), now_ms() + 60_000, "me", "why"))
        with pytest.raises(QueryError, match="maximum number"):
            one.put_silence(Silence(matchers, now_ms(), now_ms() + 60_000, "me", "why"))
        longer = Silence(matchers, EPOCH_MS, now_ms() + 120_000, "me", "longer", id=id_)
        assert one.put_silence(longer) == id_, "its end may change"
        other = Silence(parse_matchers("a=c"), EPOCH_MS, now_ms() + 120_000, "me", "other", id=id_)
        new = one.put_silence(other)
        assert new != id_ and one.silences.get(id_).state(now_ms() + 1) is State.EXPIRED
        with pytest.raises(NotFoundError):
            one.expire_silence("gone")
        await asyncio.sleep(2 * 3600)
        assert len(one.silences) == 0

    play(scenario)


class Network:
    """Replicas whose links can be cut."""

    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}
        self.cut = False

    def join(self, one: Alertmanager, index: int) -> Cluster:
        address = f"peer-{index}"

        async def exchange(to: str, message: Any) -> Any:
            if self.cut or to not in self.clusters:
                raise UpstreamError("not reached")
            return json.loads(json.dumps(self.clusters[to].answer(json.loads(json.dumps(message)))))

        async def resolve(peer: str) -> list[str]:
            return [peer]

        settings = ClusterSettings(f"replica-{index}", address, ("peer-0", "peer-1"))
        loop = asyncio.get_running_loop()
        cluster = Cluster(one, settings, exchange, resolve, now_ms=now_ms, monotonic_s=loop.time)
        self.clusters[address] = one.peers = cluster
        return cluster


def test_replicas_tell_once_and_at_least_once_when_cut_off() -> None:
    config = json.loads(json.dumps(CONFIG))
    config["receivers"][0]["webhook_configs"].pop()
    told = Told()

    async def scenario() -> None:
        network, both = Network(), [alertmanager(told, config) for _ in range(2)]
        clusters = [network.join(one, index) for index, one in enumerate(both)]
        start(*both, *clusters)
        await asyncio.sleep(5)
        assert [cluster.position for cluster in clusters] == [0, 1]
        for one in both:
            one.put_alerts([firing("Down")])
        await asyncio.sleep(100)
        assert [entry[2] for entry in told.told] == [["Down"]]
        network.cut = True
        await asyncio.sleep(5)
        assert [cluster.position for cluster in clusters] == [0, 0]
        id_ = both[0].put_silence(Silence(parse_matchers("a=b"), now_ms(), now_ms() + 600_000, "me", "while cut off"))
        for one in both:
            one.put_alerts([firing("Up")])
        await asyncio.sleep(100)
        assert [entry[2] for entry in told.told[1:]] == [["Up"], ["Up"]], "once by each"
        assert id_ not in [one.id for one in both[1].silences]
        network.cut = False
        await asyncio.sleep(5)
        assert both[1].silences.get(id_).comment == "while cut off"
        assert [cluster.position for cluster in clusters] == [0, 1]
        both[1].expire_silence(id_)
        await asyncio.sleep(0.5)
        assert both[0].silences.get(id_).state(now_ms()) is State.EXPIRED, "told at once"
        await asyncio.sleep(600)
        assert len(told.told) == 3

    play(scenario)


def test_the_second_replica_tells_when_the_first_is_gone() -> None:
    config = json.loads(json.dumps(CONFIG))
    config["receivers"][0]["webhook_configs"].pop()
    told = Told()

    async def scenario() -> None:
        network, both = Network(), [alertmanager(told, config) for _ in range(2)]
        clusters = [network.join(one, index) for index, one in enumerate(both)]
        tasks = start(*both, *clusters)
        await asyncio.sleep(5)
        for one in both:
            one.put_alerts([firing("Down")])
        await asyncio.sleep(9.9)
        tasks[0].cancel()  # just before it would have told
        tasks[2].cancel()
        network.clusters.pop("peer-0")
        await asyncio.sleep(0.2 + 15)
        assert [entry[2] for entry in told.told] == [["Down"]]

    play(scenario)
