"""The adapter behind a real aggregation layer, read by an unmodified kube-controller-manager (make test-cluster)."""

import asyncio
import base64
import contextlib
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.adapter.on_cluster import (
    DEADLINE_S,
    NAME,
    ROOT,
    SYSTEM,
    Installed,
    call_of,
    granted,
    installed,
    pods_of,
    program,
)
from tools.kubectl import find

from flyball import clock
from flyball.adapter.certificates import DAY_MS, SecretKeeper, signed
from flyball.adapter.deployment import CERTIFICATE_POLL_S
from flyball.adapter.manifests import Installation, manifests
from flyball.adapter.owners import CHECK_S
from flyball.http.client import client_tls
from flyball.kube.kinds import API_SERVICES, DEPLOYMENTS, HPAS_V2

pytestmark = pytest.mark.cluster
LOW, HIGH = 8.0, 35.0  # against ten a pod: one replica, and four
Object = dict[str, Any]


@pytest.fixture(scope="module")
def prometheus() -> Path:
    command = [sys.executable, str(ROOT / "tools" / "prometheus.py")]
    try:
        return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no real control plane: Prometheus cannot be built beside it: {exc.stderr.strip()[-200:]}")


def workload(name: str) -> Object:
    containers = [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": "100m", "memory": "10Mi"}}},
        {"name": "side", "image": "app", "resources": {"requests": {"cpu": "1m", "memory": "10Mi"}}},
    ]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def hpa(name: str, metric: Object) -> Object:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1,
        "maxReplicas": 6,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        "metrics": [metric],
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


def _average(value: str) -> Object:
    return {"type": "AverageValue", "averageValue": value}


_FRONT = {"kind": "Service", "apiVersion": "v1", "name": "by-object"}
#: Application -> the metric of its HPA: every type there is, each at ten requests per second and pod.
METRICS: dict[str, Object] = {
    "by-pods": {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": _average("10")}},
    "by-object": {
        "type": "Object",
        "object": {"metric": {"name": "front_requests"}, "describedObject": _FRONT, "target": _average("10")},
    },
    "by-external": {
        "type": "External",
        "external": {
            "metric": {"name": "queue_length", "selector": {"matchLabels": {"queue": "mail"}}},
            "target": _average("10"),
        },
    },
    "by-resource": {  # the two containers request 101m, and ten requests per second take a tenth of a core
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}},
    },
    "by-container": {
        "type": "ContainerResource",
        "containerResource": {"name": "memory", "container": "main", "target": _average("10Mi")},
    },
}


def service(name: str) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


Work = Callable[[Callable[[Installed], Awaitable[None]]], None]


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory: pytest.TempPathFactory, prometheus: Path) -> Iterator[Work]:
    """Runs an async test in the one installation, with every application and its HPA at low load."""
    items = [service("by-object"), *map(workload, METRICS)]
    items += [hpa(name, metric) for name, metric in METRICS.items()]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        entered = stack.enter_async_context(installed(tmp_path_factory.mktemp("plane"), prometheus))
        found = runner.run(entered)  # type: ignore[arg-type]
        try:
            found.exporter.load = dict.fromkeys(METRICS, LOW)
            runner.run(found.kubectl("apply", "-f", "-", stdin=manifest))
            yield lambda work: runner.run(work(found))  # type: ignore[arg-type]
        finally:
            runner.run(stack.aclose())


def test_stock_hpas_of_every_type_scale_up_and_down(on_cluster: Work) -> None:
    async def work(found: Installed) -> None:
        for load, replicas in ((LOW, 1), (HIGH, 4), (LOW, 1)):
            found.exporter.load = dict.fromkeys(METRICS, load)
            await _all_at(found, replicas)

    on_cluster(work)


async def _all_at(found: Installed, replicas: int) -> None:
    """Every HPA has set, and every Deployment reached, the replicas that its load asks for."""

    async def there() -> bool:
        for name in METRICS:
            hpa = await found.client.get(HPAS_V2, name, "default")
            status, deployment = hpa.get("status") or {}, await found.client.get(DEPLOYMENTS, name, "default")
            if not status.get("currentMetrics") or status.get("desiredReplicas") != replicas:
                raise AssertionError(f"{name}: {json.dumps(status)}")
            if (deployment.get("status") or {}).get("readyReplicas") != replicas:
                raise AssertionError(f"{name}: {json.dumps(deployment.get('status'))}")
        return True

    await found.until(there, f"{replicas} replicas everywhere", 2 * DEADLINE_S)


def test_no_verification_is_skipped_and_the_hpa_controllers_own_account_asks(on_cluster: Work) -> None:
    on_cluster(_trusted)


async def _trusted(found: Installed) -> None:
    await _all_at(found, 1)
    for item in await found.client.list(API_SERVICES):
        if item["spec"].get("group", "").endswith("metrics.k8s.io"):
            assert item["spec"]["caBundle"] and not item["spec"].get("insecureSkipTLSVerify"), item["metadata"]
    asked = found.audited("system:serviceaccount:kube-system:horizontal-pod-autoscaler")
    groups = {(event.get("objectRef") or {}).get("apiGroup") for event in asked}
    assert {"custom.metrics.k8s.io", "external.metrics.k8s.io", "metrics.k8s.io"} <= groups


def test_its_pods_are_admitted_where_others_are_not(on_cluster: Work) -> None:
    """The namespace enforces the restricted pod security standard; its admission is kube-apiserver's own."""

    async def work(found: Installed) -> None:
        async def ready() -> bool:
            deployment = await found.client.get(DEPLOYMENTS, NAME, SYSTEM)
            return bool((deployment.get("status") or {}).get("readyReplicas") == 2)

        await found.until(ready, "both replicas are admitted")
        code, _, err = await found.run(find(), "-n", SYSTEM, "run", "plain", "--image=x")
        assert code == 1 and 'violates PodSecurity "restricted:latest"' in err, err

    on_cluster(work)


def test_kubectl_top_and_get_raw(on_cluster: Work) -> None:
    on_cluster(_read)


async def _read(found: Installed) -> None:
    await _all_at(found, 1)

    async def topped() -> bool:
        lines = (await found.kubectl("top", "pods", "--no-headers")).splitlines()
        shown = {name.rsplit("-", 2)[0]: (cpu, memory) for name, cpu, memory in map(str.split, lines)}
        millicores = [int(cpu.removesuffix("m")) for cpu, _ in shown.values()]
        assert set(shown) == set(METRICS) and {memory for _, memory in shown.values()} == {"16Mi"}, lines
        assert all(60 <= value <= 100 for value in millicores), lines  # eight hundredths of a core, as scraped
        return True

    await found.until(topped, "kubectl top shows each pod's load")
    nodes = await found.kubectl("top", "nodes", "--no-headers")
    assert [line.split()[0] for line in nodes.splitlines()] == ["one", "two"] and "1024Mi" in nodes, nodes
    containers = await found.kubectl("top", "pods", "--containers", "--no-headers")
    assert {line.split()[1] for line in containers.splitlines()} == {"main", "side"}
    base = "/apis/custom.metrics.k8s.io/v1beta2"
    listed = json.loads(await found.kubectl("get", "--raw", base))
    assert {item["name"] for item in listed["resources"]} >= {"pods/requests", "services/front_requests"}
    path = f"{base}/namespaces/default/pods/*/requests?labelSelector=app%3Dby-pods"
    items = json.loads(await found.kubectl("get", "--raw", path))["items"]
    assert [item["value"] for item in items] == ["8"] and len(await pods_of(found.client, "by-pods")) == 1
    items = json.loads(await found.kubectl("get", "--raw", f"{base}/namespaces/default/services/*/front_requests"))[
        "items"
    ]
    assert [(item["describedObject"]["name"], item["value"]) for item in items] == [("by-object", "8")]
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length"
    assert [item["value"] for item in json.loads(await found.kubectl("get", "--raw", path))["items"]] == ["8"]
    resources = await found.kubectl("api-resources", "--api-group=metrics.k8s.io", "--no-headers", "-o", "name")
    assert resources.split() == ["nodes.metrics.k8s.io", "pods.metrics.k8s.io"]
    assert "by-pods" in await found.kubectl("describe", "hpa", "by-pods")


def test_doctor_judges_with_the_cluster_role_view_and_writes_nothing(on_cluster: Work) -> None:
    on_cluster(_doctor)


async def _doctor(found: Installed) -> None:
    await _all_at(found, 1)
    kubeconfig = await found.reader("viewer", "view")
    command = (find(), "flyball", "doctor", "--prometheus", found.prometheus_url, "hpa")
    for name in METRICS:
        code, out, err = await found.run(*command, name, kubeconfig=kubeconfig)
        assert code == 0, out + err
    missing = hpa(
        "by-nothing", {**METRICS["by-pods"], "pods": {**METRICS["by-pods"]["pods"], "metric": {"name": "request"}}}
    )
    missing["spec"]["scaleTargetRef"]["name"] = "by-pods"
    await found.kubectl("apply", "-f", "-", stdin=json.dumps(missing))
    code, out, err = await found.run(*command, "by-nothing", kubeconfig=kubeconfig)
    await found.kubectl("delete", "hpa", "by-nothing")
    assert code == 1 and "first broken link: " in out and "requests" in out, out + err
    verbs = {event["verb"] for event in found.audited("system:serviceaccount:default:viewer")}
    assert verbs == {"get", "list"}, verbs


def test_with_prometheus_hanging_nothing_scales_and_namespaces_can_be_deleted(on_cluster: Work) -> None:
    on_cluster(_backends_down)


async def _backends_down(found: Installed) -> None:
    await _all_at(found, 1)
    found.prometheus.send_signal(signal.SIGSTOP)
    try:
        await found.until(lambda: _inactive(found), "every HPA says that it has no metric")
        for name in METRICS:
            assert (await found.client.get(DEPLOYMENTS, name, "default"))["spec"]["replicas"] == 1
        await found.kubectl("get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2")
        await found.kubectl("create", "namespace", "short")
        await found.kubectl("delete", "namespace", "short", "--timeout=20s")
    finally:
        found.prometheus.send_signal(signal.SIGCONT)
    await _all_at(found, 1)


async def _inactive(found: Installed) -> bool:
    for name in METRICS:
        status = (await found.client.get(HPAS_V2, name, "default"))["status"]
        active = next(item for item in status["conditions"] if item["type"] == "ScalingActive")
        if active["status"] != "False":
            raise AssertionError(f"{name}: {json.dumps(active)}")
    return True


TEAM_RULE = {
    "apiVersion": "flyball.dev/v1alpha1",
    "kind": "MetricRule",
    "metadata": {"name": "team"},
    "spec": {
        "seriesQuery": "app_requests",
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"as": "team_requests"},
        "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
    },
}


def test_a_teams_rule_is_served_and_a_missing_metric_told_to_its_owner(on_cluster: Work) -> None:
    async def work(found: Installed) -> None:
        await found.kubectl("apply", "-f", "-", stdin=json.dumps(TEAM_RULE))
        path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/team_requests"
        await found.until(lambda: found.kubectl("get", "--raw", path), "the team's metric")
        columns = (await found.kubectl("get", "metricrule", "team", "--no-headers")).split()
        assert columns[:3] == ["team", "Custom", "True"]

        async def ask_for(name: str) -> None:
            external = {"metric": {"name": name}, "target": _average("1")}
            lost = hpa("lost", {"type": "External", "external": external})
            await found.kubectl("apply", "-f", "-", stdin=json.dumps(lost))

        async def told(times: int) -> bool:
            events = await found.kubectl("get", "events", "--field-selector=reason=MetricMissing", "-o", "json")
            (event,) = json.loads(events)["items"]
            assert 'no external rule gives "unheard_of"' in event["message"]
            return int(event["count"]) == times

        await ask_for("unheard_of")
        await found.until(lambda: told(1), "an event for the owner")
        await ask_for("queue_length")
        await asyncio.sleep(1.2 * CHECK_S)  # that all is well is not told
        await ask_for("unheard_of")
        await found.until(lambda: told(2), "the same event once more, counted")
        await found.kubectl("delete", "hpa", "lost")

    on_cluster(work)


def test_a_second_replica_renews_the_certificate_that_both_serve_with(on_cluster: Work) -> None:
    """Started at another address, with the first one's Secret, in which the certificate has grown old."""

    async def work(found: Installed) -> None:
        keeper, host = SecretKeeper(found.client, SYSTEM, f"{NAME}-tls"), f"{NAME}.{SYSTEM}.svc"
        held = await keeper.load()
        assert held is not None
        old = signed(held, [host], clock.now_ms() - 80 * DAY_MS)
        assert await keeper.save(old)
        command = [item for item in found.arguments if not item.startswith("--bind-address")]
        log = found.directory / "second.log"
        async with program(log, *command, "--bind-address=127.97.0.1") as second:

            async def ready() -> bool:
                return "ready on port" in log.read_text()

            await found.until(ready, "the second replica")
            new = await keeper.load()
            assert new is not None and new.certificate != old.certificate and new.authority == old.authority
            services = await found.client.list(API_SERVICES)
            bundle = next(item["spec"]["caBundle"] for item in services if item["spec"].get("caBundle"))
            tls = client_tls(ca_data=base64.b64decode(bundle).decode())
            token = (await found.kubectl("create", "token", "horizontal-pod-autoscaler", "-n", "kube-system")).strip()
            headers = {"Authorization": f"Bearer {token}"}
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
                url = "https://127.97.0.1/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests"
                async with session.get(url, headers=headers, server_hostname=host) as response:
                    assert response.status == 200, await response.text()
                async with session.get(url, server_hostname=host) as response:
                    assert response.status == 403
            assert second.returncode is None

        async def taken() -> bool:
            address = str(found.arguments[-2]).partition("=")[2]
            shown = await asyncio.to_thread(ssl.get_server_certificate, (address, 443))
            return shown == new.certificate

        await found.until(taken, "the first replica serves with the renewed certificate", 1.5 * CERTIFICATE_POLL_S)

    on_cluster(work)


def test_the_permissions_are_those_of_the_calls_and_no_more(on_cluster: Work) -> None:
    """All calls of the tests above, as the API server wrote them down, are what the manifests grant, exactly."""

    async def work(found: Installed) -> None:
        used = {call_of(event) for event in found.audited(f"system:serviceaccount:{SYSTEM}:{NAME}")}
        assert {call for call in used if call[1]} == granted(manifests(Installation(resource_metrics=True)))

    on_cluster(work)
