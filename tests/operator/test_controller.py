"""The operator against the embedded cluster's own API server."""

import asyncio
import base64
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from flyball.errors import KubeApiError
from flyball.kube import KubeClient
from flyball.kube.kinds import (
    ALERTMANAGER_CONFIGS,
    ALERTMANAGERS,
    CONFIG_MAPS,
    CRDS,
    ENDPOINT_SLICES,
    EVENTS,
    NODES,
    PROMETHEUS_RULES,
    PROMETHEUSES,
    SECRETS,
    SERVICE_MONITORS,
    STATEFUL_SETS,
    THANOS_RULERS,
)
from flyball.localcluster.server import ApiServer
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.operator import Engine, Operator
from flyball.operator.controller import NAMESPACE, RULES_LABEL, SECRET_KEY, SECRET_NAME
from flyball.operator.telemetry import Telemetry
from flyball.server import Generated


def run(tmp_path: Path, story: Callable[[KubeClient], Awaitable[None]]) -> None:
    async def main() -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        try:
            # the cluster's file names the usual port; this server took a free one
            written = (tmp_path / "data" / "kubeconfig").read_text().replace(":6443", f":{server.port}")
            (tmp_path / "kubeconfig").write_text(written)
            async with await KubeClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
                operator = Operator(client, [Engine("Prometheus", "127.0.0.1:9090", 9090)], {"https-metrics": 10250})
                task = asyncio.create_task(operator.run())
                try:
                    async with asyncio.timeout(20):
                        await story(client)
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
        finally:
            await server.close()

    asyncio.run(main())


def monitor(name: str, **endpoint: Any) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": name},
        "spec": {"selector": {}, "endpoints": [{"port": "http", **endpoint}]},
    }


async def jobs(client: KubeClient, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The jobs of the Secret by name, once they are these."""
    while True:
        try:
            secret = await client.get(SECRETS, SECRET_NAME, NAMESPACE)
            found = json.loads(gzip.decompress(base64.b64decode(secret["data"][SECRET_KEY])))["scrape_configs"]
            if {job["job_name"] for job in found} == wanted:
                return {job["job_name"]: job for job in found}
        except KubeApiError as exc:
            if exc.code != 404:
                raise
        await asyncio.sleep(0.05)


def test_monitors_come_change_and_go(tmp_path: Path) -> None:
    async def story(client: KubeClient) -> None:
        await jobs(client, set())
        await client.create(SERVICE_MONITORS, monitor("a"), "default")
        await client.create(SERVICE_MONITORS, monitor("b", path="/m"), "default")
        names = {"serviceMonitor/default/a/0", "serviceMonitor/default/b/0"}
        assert (await jobs(client, names))["serviceMonitor/default/b/0"]["metrics_path"] == "/m"
        await client.delete(SERVICE_MONITORS, "a", "default")
        await jobs(client, {"serviceMonitor/default/b/0"})

    run(tmp_path, story)


def test_a_wrong_monitor_is_left_out_with_an_event_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def story(client: KubeClient) -> None:
        await client.create(SERVICE_MONITORS, monitor("wrong", interval="soon"), "default")
        await client.create(SERVICE_MONITORS, monitor("right"), "default")
        await jobs(client, {"serviceMonitor/default/right/0"})
        while not (events := await client.list(EVENTS, "default")):
            await asyncio.sleep(0.05)
        (event,) = [e for e in events if e["reason"] == "InvalidConfiguration"]
        assert event["involvedObject"]["name"] == "wrong" and event["type"] == "Warning"
        assert "spec.endpoints[0].interval" in event["message"] and "soon" in event["message"]

    run(tmp_path, story)


def test_rule_files_that_are_no_longer_needed_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.operator.rules.SIZE_MAX_BYTES", 300)

    def rule(name: str) -> dict[str, Any]:
        rules = [{"record": "r", "expr": "up", "labels": {"long": "x" * 150}}]
        return {"metadata": {"name": name}, "spec": {"groups": [{"name": name, "rules": rules}]}}

    async def packed(client: KubeClient, wanted: list[int]) -> None:
        """Waits until the ConfigMaps hold so many files each."""
        while True:
            held = await client.list(CONFIG_MAPS, NAMESPACE, label_selector=f"{RULES_LABEL}=true")
            if [len(one.get("data") or {}) for one in held] == wanted:
                return
            await asyncio.sleep(0.05)

    async def story(client: KubeClient) -> None:
        await client.create(PROMETHEUS_RULES, rule("a"), "default")
        await client.create(PROMETHEUS_RULES, rule("b"), "default")
        await packed(client, [1, 1])
        await client.delete(PROMETHEUS_RULES, "a", "default")
        await packed(client, [1])

    run(tmp_path, story)


def test_credentials_are_read_from_the_monitors_namespace(tmp_path: Path) -> None:
    async def story(client: KubeClient) -> None:
        data = {"user": base64.b64encode(b"me").decode(), "password": base64.b64encode(b"secret").decode()}
        await client.create(SECRETS, {"metadata": {"name": "login"}, "data": data}, "default")
        auth = {"username": {"name": "login", "key": "user"}, "password": {"name": "login", "key": "password"}}
        await client.create(SERVICE_MONITORS, monitor("a", basicAuth=auth), "default")
        (job,) = (await jobs(client, {"serviceMonitor/default/a/0"})).values()
        assert job["basic_auth"] == {"username": "me", "password": "secret"}

    run(tmp_path, story)


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer that is not empty; a missing object is an empty one."""
    while True:
        try:
            if answer := await found():
                return answer
        except KubeApiError as exc:
            if exc.code != 404:
                raise
        await asyncio.sleep(0.05)


def test_a_prometheus_object_selects_and_shows_itself(tmp_path: Path) -> None:
    both = {"serviceMonitorSelector": {"matchLabels": {"team": "a"}}, "serviceMonitorNamespaceSelector": {}}

    async def story(client: KubeClient) -> None:
        selected = monitor("a")
        selected["metadata"]["labels"] = {"team": "a"}
        await client.create(SERVICE_MONITORS, selected, "default")
        await client.create(SERVICE_MONITORS, monitor("b"), "default")
        spec = {**both, "replicas": 2, "image": "quay.io/prometheus/prometheus:v3.13.2"}
        await client.create(PROMETHEUSES, {"metadata": {"name": "k8s"}, "spec": spec}, "default")
        await jobs(client, {"serviceMonitor/default/a/0"})

        made = await until(lambda: client.get(STATEFUL_SETS, "prometheus-k8s", "default"))
        assert made["spec"]["replicas"] == 2 and made["metadata"]["ownerReferences"][0]["name"] == "k8s"

        async def reconciled() -> Any:
            status = (await client.get(PROMETHEUSES, "k8s", "default")).get("status") or {}
            return next((one for one in status.get("conditions", ()) if one["type"] == "Reconciled"), None)

        told = await until(reconciled)
        assert told["status"] == "True" and "image" in told["message"]

        async def accepted() -> Any:
            return ((await client.get(SERVICE_MONITORS, "a", "default")).get("status") or {}).get("bindings")

        (binding,) = await until(accepted)
        assert (binding["name"], binding["conditions"][0]["status"]) == ("k8s", "True")
        assert "status" not in await client.get(SERVICE_MONITORS, "b", "default")

        await client.delete(STATEFUL_SETS, "prometheus-k8s", "default")
        await until(lambda: client.get(STATEFUL_SETS, "prometheus-k8s", "default"))

    run(tmp_path, story)


def test_an_object_that_nothing_stands_for_says_so(tmp_path: Path) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    names = {"plural": "thanosrulers", "singular": "thanosruler", "kind": "ThanosRuler", "listKind": "ThanosRulerList"}
    definition = {
        "metadata": {"name": "thanosrulers.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": names,
            "scope": "Namespaced",
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }

    async def story(client: KubeClient) -> None:
        operator = Operator(client, [Engine("Prometheus", "127.0.0.1:9090", 9090)])
        await operator.tell_unserved()  # without definitions there is nothing to say
        await client.create(CRDS, definition)

        await until(lambda: client.create(THANOS_RULERS, {"metadata": {"name": "r"}, "spec": {}}, "default"))
        for _ in range(2):
            await operator.tell_unserved()
        status = (await client.get(THANOS_RULERS, "r", "default"))["status"]
        assert {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]} == {
            "Available": ("False", "NotSupported"),
            "Reconciled": ("False", "NotSupported"),
        }
        assert "PrometheusRule objects are evaluated" in status["conditions"][0]["message"]
        (event,) = [one for one in await client.list(EVENTS, "default") if one["reason"] == "NotSupported"]
        assert event["involvedObject"]["name"] == "r" and event.get("count", 1) == 1
        assert operator.statistics()["status_writes"] == 1

    run(tmp_path, story)


def test_kubelets_have_a_service(tmp_path: Path) -> None:
    async def story(client: KubeClient) -> None:
        address = [{"type": "InternalIP", "address": "10.0.0.7"}]
        await client.create(NODES, {"metadata": {"name": "n"}, "status": {"addresses": address}})
        made = await until(lambda: client.get(ENDPOINT_SLICES, "kubelet", "kube-system"))
        assert made["endpoints"][0]["addresses"] == ["10.0.0.7"] and made["ports"][0]["port"] == 10250

    run(tmp_path, story)


def test_a_server_takes_what_is_written_in_its_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    async def story(client: KubeClient) -> None:
        changed = asyncio.Event()
        generated = Generated("metrics", changed.set)
        operator = Operator(client, namespace="metrics")
        tasks = [asyncio.create_task(part.run()) for part in (operator, generated)]
        rule = {"metadata": {"name": "r"}, "spec": {"groups": [{"name": "g", "rules": [{"record": "a", "expr": "1"}]}]}}
        await client.create(SERVICE_MONITORS, monitor("right"), "default")
        await client.create(PROMETHEUS_RULES, rule, "default")
        own = ScrapeConfig(job_name="own")
        while len(generated.beside((own,))) < 2 or not generated.groups:
            await changed.wait()
            changed.clear()
        assert [job.job_name for job in generated.beside((own,))] == ["own", "serviceMonitor/default/right/0"]
        assert [group.name for group in generated.groups] == ["g"]
        same = ScrapeConfig(job_name="serviceMonitor/default/right/0")
        assert generated.beside((same,)) == (same,)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(tmp_path, story)


def test_alertmanagers_of_a_cluster_are_written_where_their_pods_mount_them_and_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    name = "flyball-alertmanager-generated"
    selects: dict[str, Any] = {"alertmanagerConfigSelector": {}}

    async def story(client: KubeClient) -> None:
        await client.create(ALERTMANAGERS, {"metadata": {"name": "main"}, "spec": selects}, "default")

        async def held(receivers: list[str] | None) -> None:
            """Returns once the Secret has these receivers; None is none at all."""
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(KubeApiError):
                        data = (await client.get(SECRETS, name, "metrics")).get("data") or {}
                        text = base64.b64decode(data.get("alertmanager.yaml", "")) or b"null"
                        config = json.loads(text)
                        if (config and [one["name"] for one in config["receivers"]]) == receivers:
                            return
                    await asyncio.sleep(0.02)

        async with running(client):
            await held(["null"])
            spec = {"route": {"receiver": "r"}, "receivers": [{"name": "r"}]}
            await client.create(ALERTMANAGER_CONFIGS, {"metadata": {"name": "team"}, "spec": spec}, "default")
            await held(["null", "default/team/r"])
        await client.delete(ALERTMANAGERS, "main", "default")  # while no operator looks
        async with running(client):
            await held(None)

    run(tmp_path, story)


@contextlib.asynccontextmanager
async def running(client: KubeClient) -> AsyncIterator[None]:
    """An operator as a cluster has it: without engines of its own."""
    task = asyncio.create_task(Operator(client, namespace="metrics").run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_one_that_only_observes_writes_nothing_and_shows_what_it_would_do(tmp_path: Path) -> None:
    async def story(client: KubeClient) -> None:
        observer = Operator(client, leads=lambda: False)
        telemetry = Telemetry(observer.statistics)
        task = asyncio.create_task(observer.run())
        await client.create(SERVICE_MONITORS, monitor("right"), "default")
        await client.create(SERVICE_MONITORS, monitor("wrong", interval="soon"), "default")
        rejected = (
            'prometheus_operator_managed_resources{controller="prometheus",resource="ServiceMonitor",state="rejected"}'
        )
        while f"{rejected} 1.0" not in (page := TestClient(telemetry.app()).get("/metrics").text):
            await asyncio.sleep(0.05)
        assert f"{rejected.replace('rejected', 'selected')} 1.0" in page
        assert 'prometheus_operator_ready{controller="prometheus"} 1.0' in page
        assert observer.statistics()["writes"] == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(tmp_path, story)
