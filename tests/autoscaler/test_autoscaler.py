"""The controller against an in-memory Kubernetes API, by its own clock where time matters."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from flyball import clock as wall_clock
from flyball.autoscaler import Autoscaler
from flyball.autoscaler.pods import SelectorIndex
from flyball.errors import ConfigError, KubeApiError, StoreError, UpstreamError
from flyball.journal import Journal
from flyball.kube import KubeClient
from flyball.model.selectors import parse_selector
from flyball.scaling import Decision, History, Recommendation

_path = Path(__file__).with_name("cluster.py")
_spec = importlib.util.spec_from_file_location("flyball_tests_autoscaler_cluster", _path)
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
FakeCluster = _module.FakeCluster

QUEUE = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue"


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    rfc3339 = staticmethod(wall_clock.rfc3339)
    parse_rfc3339_ms = staticmethod(wall_clock.parse_rfc3339_ms)


def queue_items(*values: str) -> dict[str, Any]:
    return {"items": [{"metricName": "queue", "timestamp": "2026-01-01T00:00:00Z", "value": value} for value in values]}


def external() -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": "10"}
    return {"type": "External", "external": {"metric": {"name": "queue"}, "target": target}}


def hpa(name: str = "web", *metrics: dict[str, Any], **spec: Any) -> dict[str, Any]:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    body = {"scaleTargetRef": ref, "minReplicas": 1, "maxReplicas": 20, "metrics": list(metrics) or [external()]}
    return {"metadata": {"namespace": "shop", "name": name, "generation": 1}, "spec": body | spec}


def scale(name: str = "web", replicas: int = 3, selector: str | None = None) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": "1"},
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas, "selector": selector or f"app={name}"},
    }


def pod(name: str, app: str = "web") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {
            "phase": "Running",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}],
        },
    }


def cluster(replicas: int = 3, *metrics: dict[str, Any], **spec: Any) -> Any:
    fake = FakeCluster()
    fake.put("horizontalpodautoscalers", hpa("web", *metrics, **spec))
    fake.scales["web"] = scale(replicas=replicas)
    for at in range(replicas):
        fake.put("pods", pod(f"web-{at}"))
    fake.answers[QUEUE] = queue_items("50")
    return fake


@asynccontextmanager
async def running(fake: Any, journal: Journal, **options: Any) -> AsyncIterator[Autoscaler]:
    scaler = Autoscaler(cast(KubeClient, fake), journal, **options)
    task = asyncio.create_task(scaler.run())
    try:
        yield scaler
        if task.done():
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def go(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def status(fake: Any, name: str = "web") -> dict[str, Any]:
    return cast(dict[str, Any], fake.hpa(name).get("status") or {})


def condition(fake: Any, kind: str, name: str = "web") -> dict[str, Any]:
    found = {entry["type"]: entry for entry in status(fake, name).get("conditions") or []}
    return found.get(kind, {})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def test_scales_up_and_tells(journal: Journal) -> None:
    fake = cluster()

    async def test() -> None:
        async with running(fake, journal, sync_period_s=60):
            await until(lambda: status(fake).get("lastScaleTime"))

    go(test())
    assert fake.scale_writes == [("web", 5)]
    assert ("SuccessfulRescale", "New size: 5; reason: external metric queue(nil) above target") in fake.events
    assert (status(fake)["currentReplicas"], status(fake)["desiredReplicas"]) == (3, 5)
    assert status(fake)["observedGeneration"] == 1
    assert status(fake)["currentMetrics"][0]["external"]["current"] == {"averageValue": "16667m"}
    assert condition(fake, "AbleToScale")["reason"] == "SucceededRescale"
    assert condition(fake, "ScalingActive")["status"] == "True"
    (record,) = journal.decisions()
    assert (record.decision.desired, record.outcome) == (5, "")
    assert journal.open_intents() == []


def test_the_intent_is_on_disk_before_the_write(journal: Journal) -> None:
    fake = cluster()
    seen: list[int] = []
    write = fake.update

    async def update(resource: Any, body: Any, namespace: Any = None, subresource: Any = None) -> Any:
        if subresource == "scale":
            seen.append(len(journal.open_intents()))
        return await write(resource, body, namespace, subresource)

    fake.update = update

    async def test() -> None:
        async with running(fake, journal):
            await until(lambda: fake.scale_writes)

    go(test())
    assert seen == [1]


def test_no_intent_no_write(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = cluster()

    def refuse(*_: Any) -> int:
        raise StoreError("disk full")

    monkeypatch.setattr(journal, "intent", refuse)

    async def test() -> None:
        async with running(fake, journal) as scaler:
            await until(lambda: scaler.statistics()["failing"])

    go(test())
    assert fake.scale_writes == []


def test_an_unchanged_status_is_not_written(journal: Journal) -> None:
    fake = cluster(5)

    async def test() -> None:
        async with running(fake, journal, sync_period_s=0.02):
            await until(lambda: journal.decisions() and journal.decisions()[0].count > 5)

    go(test())
    assert fake.status_writes == 1
    assert fake.scale_writes == []


def test_own_status_writes_do_not_trigger_but_a_spec_change_does(journal: Journal) -> None:
    fake = cluster(5)

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600):
            await until(lambda: fake.status_writes == 1)
            await asyncio.sleep(0.05)
            assert journal.decisions()[0].count == 1
            changed = {**fake.hpa(), "spec": {**fake.hpa()["spec"], "maxReplicas": 4}}
            fake.put("horizontalpodautoscalers", changed)
            await until(lambda: fake.scale_writes)

    go(test())
    assert fake.scale_writes == [("web", 4)]
    assert (
        "SuccessfulRescale",
        "New size: 4; reason: Current number of replicas above Spec.MaxReplicas",
    ) in fake.events


def test_wake_brings_the_next_evaluation_forward(journal: Journal) -> None:
    fake = cluster(5)

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600) as scaler:
            await until(lambda: fake.status_writes == 1)
            fake.answers[QUEUE] = queue_items("60")
            scaler.wake("shop", "unknown")
            scaler.wake("shop", "web")
            await until(lambda: fake.scale_writes)

    go(test())
    assert fake.scale_writes == [("web", 6)]


def test_a_hanging_metric_and_a_broken_hpa_disturb_nobody(journal: Journal) -> None:
    fake = cluster()
    slow = external()
    slow["external"] = {**slow["external"], "metric": {"name": "slow"}}
    fake.put("horizontalpodautoscalers", hpa("slow", slow))
    fake.scales["slow"] = scale("slow")
    fake.put("horizontalpodautoscalers", hpa("gone"))
    fake.put("horizontalpodautoscalers", {"metadata": {"namespace": "shop", "name": "bad"}, "spec": {"maxReplicas": 3}})
    fake.answers["/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/slow"] = lambda: asyncio.sleep(3600)

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600, metric_timeout_s=0.3) as scaler:
            await until(lambda: fake.scale_writes)
            assert not condition(fake, "ScalingActive", "slow")  # still waiting, while web is done
            await until(lambda: condition(fake, "ScalingActive", "slow"))
            await until(lambda: condition(fake, "AbleToScale", "gone"))
            await until(lambda: len(scaler.statistics()["failing"]) == 3)

    go(test())
    assert fake.scale_writes == [("web", 5)]
    assert condition(fake, "ScalingActive", "slow")["message"] == (
        "the HPA was unable to compute the replica count: unable to get external metric shop/slow/nil: "
        "unable to fetch metrics from external metrics API: no answer within 0.3 s"
    )
    assert condition(fake, "AbleToScale", "gone")["reason"] == "FailedGetScale"
    assert condition(fake, "AbleToScale", "gone")["message"].endswith('deployments.apps "gone" not found')
    assert any(reason == "InvalidSpec" for reason, _ in fake.events)


def test_conflicts_are_retried(journal: Journal) -> None:
    fake = cluster()
    fake.fail_scale_writes = [KubeApiError(409, "Conflict", "modified")] * 2

    async def test() -> None:
        async with running(fake, journal):
            await until(lambda: fake.scale_writes)

    go(test())
    assert fake.scale_reads == 3


def test_a_refused_write_is_told_and_not_counted(journal: Journal) -> None:
    fake = cluster(behavior={"scaleUp": {}})
    fake.fail_scale_writes = [KubeApiError(403, "Forbidden", "not allowed")]

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600):
            await until(lambda: condition(fake, "AbleToScale").get("reason") == "FailedUpdateScale")

    go(test())
    assert any(reason == "FailedRescale" for reason, _ in fake.events)
    assert journal.decisions()[0].outcome == "not allowed"
    history = journal.load_history("shop", "web", "uid-web")
    assert history is not None and history.ups == ()


def test_a_lost_answer_is_looked_up(journal: Journal) -> None:
    fake = cluster()
    write = fake.update

    async def update(resource: Any, body: Any, namespace: Any = None, subresource: Any = None) -> Any:
        done = await write(resource, body, namespace, subresource)
        if subresource == "scale":
            raise UpstreamError("connection reset")
        return done

    fake.update = update

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600):
            await until(lambda: condition(fake, "AbleToScale").get("reason") == "SucceededRescale")

    go(test())


@pytest.mark.parametrize(("replicas", "outcome"), [(5, ""), (3, "cut off before the scale was written")])
def test_an_open_intent_is_settled_by_the_scale(journal: Journal, replicas: int, outcome: str) -> None:
    now = wall_clock.now_ms()
    decision = Decision("shop", "web", now, 3, 5, 1, 20, rescale=True, event_periods_s=(60, 60))
    history = History((Recommendation(5, now),))
    record = journal.append_decision(decision, history, "uid-web")
    journal.intent(decision, record, "uid-web", now)
    gone = Decision("shop", "gone", now, 1, 2, 1, 3, rescale=True)
    journal.intent(gone, journal.append_decision(gone), "x", now)
    fake = cluster(replicas, behavior={"scaleUp": {}})
    fake.answers[QUEUE] = KubeApiError(503, "ServiceUnavailable", "down")

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600):
            await until(lambda: not journal.open_intents())
            await until(lambda: fake.status_writes)

    go(test())
    records = {record.decision.name: record for record in journal.decisions() if record.decision.rescale}
    assert records["web"].outcome == outcome
    assert records["gone"].outcome == "the HPA was deleted"
    loaded = journal.load_history("shop", "web", "uid-web")
    assert loaded is not None and len(loaded.ups) == (0 if outcome else 1)


def test_stabilization_survives_a_restart(journal: Journal) -> None:
    fake = cluster(5)
    clock = Clock()

    async def decide_once(wanted: str) -> Decision:
        fake.answers[QUEUE] = queue_items(wanted)
        scaler = Autoscaler(cast(KubeClient, fake), journal, clock=clock)
        tasks = [asyncio.create_task(scaler._hpas.run()), asyncio.create_task(scaler._pod_informer.run())]
        await scaler._hpas.wait_synced()
        await scaler._pod_informer.wait_synced()
        await scaler.evaluate("shop", "web")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return journal.decisions()[0].decision

    async def test() -> None:
        assert (await decide_once("50")).desired == 5
        clock.ms += 299_000
        held = await decide_once("10")
        assert (held.recommended, held.desired) == (1, 5)
        clock.ms += 2_000
        assert (await decide_once("10")).desired == 1

    go(test())


def test_a_start_without_memory_scales_nothing_down(journal: Journal) -> None:
    fake = cluster(9)
    fake.answers[QUEUE] = queue_items("10")

    async def test() -> None:
        async with running(fake, journal, sync_period_s=0.02):
            await until(lambda: journal.decisions() and journal.decisions()[0].count > 3)

    go(test())
    assert fake.scale_writes == []
    assert condition(fake, "AbleToScale")["reason"] == "ScaleDownStabilized"


def test_a_deleted_hpa_is_forgotten(journal: Journal) -> None:
    fake = cluster(5)

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600) as scaler:
            await until(lambda: journal.load_history("shop", "web"))
            fake.remove("horizontalpodautoscalers", "shop", "web")
            await until(lambda: journal.load_history("shop", "web") is None)
            await until(lambda: scaler.statistics()["hpas"] == 0)

    go(test())
    assert len(journal.decisions()) == 1  # to be read still


def test_two_hpas_on_the_same_pods_are_switched_off(journal: Journal) -> None:
    fake = cluster()
    other = hpa("other")
    other["spec"]["scaleTargetRef"]["name"] = "web"
    fake.scales["web"]["spec"]["replicas"] = fake.scales["web"]["status"]["replicas"] = 5
    fake.put("horizontalpodautoscalers", other)

    async def test() -> None:
        async with running(fake, journal, sync_period_s=0.03):
            await until(lambda: condition(fake, "ScalingActive").get("reason") == "AmbiguousSelector")
            await until(lambda: condition(fake, "ScalingActive", "other").get("reason") == "AmbiguousSelector")

    go(test())
    assert condition(fake, "ScalingActive")["message"] == (
        "pods by selector app=web are controlled by more than one HPA (e.g. [shop/other shop/web])"
    )


def test_selector_index_compares_pods_not_texts() -> None:
    index = SelectorIndex()
    index.put(("shop", "a"), "app=web", parse_selector("app=web"))
    index.put(("shop", "b"), "tier in (x,y)", parse_selector("tier in (x,y)"))
    assert index.selecting("shop", [{"app": "web"}]) == ["shop/a"]
    assert index.selecting("shop", [{"app": "web", "tier": "x"}]) == ["shop/a", "shop/b"]
    index.put(("shop", "a"), "app=api", parse_selector("app=api"))
    assert index.selecting("shop", [{"app": "web"}]) == []
    index.remove(("shop", "b"))
    assert index.selecting("shop", [{"tier": "x"}]) == []


def test_status_conflict_is_retried_on_the_newest_object(journal: Journal) -> None:
    fake = cluster(5)
    write = fake.update
    once: list[int] = []

    async def update(resource: Any, body: Any, namespace: Any = None, subresource: Any = None) -> Any:
        if subresource == "status" and not once:
            once.append(1)
            fake.put("horizontalpodautoscalers", fake.hpa())  # someone else was faster
        return await write(resource, body, namespace, subresource)

    fake.update = update

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600):
            await until(lambda: condition(fake, "ScalingActive"))

    go(test())
    assert not any(reason == "FailedUpdateStatus" for reason, _ in fake.events)


def test_bad_settings_are_named(journal: Journal) -> None:
    with pytest.raises(ConfigError, match=r'profile "1\.20" is unknown'):
        Autoscaler(cast(KubeClient, FakeCluster()), journal, profile="1.20")
    with pytest.raises(ConfigError, match="sync period 0"):
        Autoscaler(cast(KubeClient, FakeCluster()), journal, sync_period_s=0)


def test_metrics_and_statistics(journal: Journal) -> None:
    fake = cluster()

    async def test() -> None:
        async with running(fake, journal, sync_period_s=3600) as scaler:
            await until(lambda: fake.status_writes)
            await until(lambda: scaler.statistics()["running"] == 0)
            found = scaler.telemetry.registry.get_sample_value
            assert found("flyball_autoscaler_scale_writes_total", {"result": "ok"}) == 1
            assert found("flyball_autoscaler_evaluations_total", {"result": "ok"}) == 1
            assert found("flyball_autoscaler_hpas") == 1
            assert (scaler.statistics()["pods"], scaler.statistics()["histories"]) == (3, 1)

    go(test())
