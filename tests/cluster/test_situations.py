"""Our autoscaler beside kube-controller-manager in the same situations, each on a real API server of its own.

Both read one metrics API. Only the HPA controller of kube-controller-manager runs, so that pods and the statuses of
targets are what the situation says. After each load both must have come to the same: replicas written, status,
conditions with their words, and events. Of ours there are two, and after each load the one that leads is killed: the
other goes on where it was, and the killed one comes back with its journal.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from tests.adapter.on_cluster import SERVICE_NETWORK, program
from tests.cluster.build import missing
from tests.cluster.control_plane import RealControlPlane, free_port, write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tests.cluster.situations import BROKEN, GONE, SITUATIONS, Load, Object, Pod, Situation

from flyball.errors import KubeApiError
from flyball.http.server import ServerTLS, serve
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import (
    API_SERVICES,
    ENDPOINT_SLICES,
    EVENTS,
    HPAS_V1,
    HPAS_V2,
    LEASES,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    resource_of,
)

pytestmark = pytest.mark.cluster
SPACE = "live"
METRICS_ADDRESS = "127.96.7.1"
#: Longer than the stabilization window and every policy's period, so that all that a load brings about has come.
DWELL_S, QUIET_S, DEADLINE_S = 20.0, 3.0, 90.0
GROUPS = {"metrics.k8s.io": "v1beta1", "custom.metrics.k8s.io": "v1beta2", "external.metrics.k8s.io": "v1beta1"}
#: Where we do otherwise on purpose: every place that differs must be named here, and must differ.
DIFFERENT = {
    # A value whose milli-units leave int64: upstream's wrap round to 0 and scale down, ours are the largest there is.
    "beyond-int64",
}
PERIODS = ("--horizontal-pod-autoscaler-sync-period=1s", "--horizontal-pod-autoscaler-downscale-stabilization=8s")
TEMPLATE = {"containers": [{"name": "main", "image": "x"}]}


class Metrics:
    """The three metrics APIs, saying what the load in force says."""

    def __init__(self) -> None:
        self.loads: dict[str, Load] = {}

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        query = {key: values[0] for key, values in parse_qs(scope.get("query_string", b"").decode()).items()}
        status, body = self.answer([unquote(part) for part in scope["path"].split("/")[2:]], query)
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    def answer(self, parts: list[str], query: dict[str, str]) -> tuple[int, Object]:
        group, version = (*parts, "", "")[:2]
        if GROUPS.get(group) != version:
            return _failure(404, "the server could not find the requested resource")
        if len(parts) == 2:
            known = {"name": "pods", "kind": "PodMetrics", "namespaced": True, "singularName": "", "verbs": ["list"]}
            return 200, {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{group}/{version}",
                "resources": [known],
            }
        rest, labels = parts[4:], query.get("labelSelector", "")
        if group == "metrics.k8s.io":
            return self._pod_metrics(labels.removeprefix("app="))
        if group == "external.metrics.k8s.io":
            return self._listed(group, rest[0].removesuffix("-queue"), rest[0])
        if rest[0] == "metrics":
            return self._listed(group, rest[1].removesuffix("-hits"), rest[1], {"kind": "Namespace", "name": SPACE})
        if rest[1] == "*":
            return self._of_pods(labels.removeprefix("app="), rest[2])
        return self._listed(group, rest[1], rest[2], {"kind": "Service", "namespace": SPACE, "name": rest[1]})

    def _pod_metrics(self, app: str) -> tuple[int, Object]:
        load, items = self.loads.get(app, {}), []
        if load.get("cpu") == GONE:
            return _failure(404, "the server could not find the requested resource (get pods.metrics.k8s.io)")
        for at, pod in enumerate(_situation(app).all_pods()):
            containers = []
            for name in _containers(pod):
                usage = {}
                for resource in ("cpu", "memory"):
                    value = _at(load.get(resource), at)
                    value = value.get(name) if isinstance(value, dict) else value
                    if value is not None:
                        usage[resource] = value
                containers.append({"name": name, "usage": usage})
            if any(container["usage"] for container in containers):
                meta = {"name": f"{app}-{at}", "namespace": SPACE}
                items.append({"metadata": meta, "timestamp": _ago(0), "window": "30s", "containers": containers})
        return 200, {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items}

    def _of_pods(self, app: str, metric: str) -> tuple[int, Object]:
        value = self.loads.get(app, {}).get(metric, GONE)
        if value in (GONE, BROKEN):
            return _refused(value, metric)
        items = []
        for at in range(len(_situation(app).all_pods())):
            mine = _at(value, at)
            if mine is not None:
                about = {"kind": "Pod", "namespace": SPACE, "name": f"{app}-{at}", "apiVersion": "/v1"}
                items.append(_value(about, metric, mine))
        return 200, _values("custom.metrics.k8s.io", items)

    def _listed(self, group: str, app: str, metric: str, about: Object | None = None) -> tuple[int, Object]:
        load = self.loads.get(app, {})
        value = load.get(metric, GONE)
        if value in (GONE, BROKEN):
            return _refused(value, metric)
        items = []
        for one in value if isinstance(value, list) else [value]:
            if about is None:
                items.append({"metricName": metric, "metricLabels": {}, "timestamp": _ago(0), "value": one})
            else:
                items.append(_value({**about, "apiVersion": "/v1"}, metric, one))
        return 200, _values(group, items)


def _situation(name: str) -> Situation:
    return next(situation for situation in SITUATIONS if situation.name == name)


def _at(value: Any, at: int) -> Any:
    """What one pod has of a value; a list has one entry a pod."""
    return (value[at] if at < len(value) else None) if isinstance(value, list) else value


def _containers(pod: Pod) -> tuple[str, ...]:
    return (*pod.containers, "sidecar") if pod.sidecar_cpu else pod.containers


def _value(about: Object, metric: str, value: str) -> Object:
    return {"describedObject": about, "metric": {"name": metric}, "timestamp": _ago(0), "value": value}


def _values(group: str, items: list[Object]) -> Object:
    kind = "MetricValueList" if group.startswith("custom") else "ExternalMetricValueList"
    return {"kind": kind, "apiVersion": f"{group}/{GROUPS[group]}", "metadata": {}, "items": items}


def _refused(how: str, metric: str) -> tuple[int, Object]:
    if how == GONE:
        return _failure(404, f"the server could not find the metric {metric}")
    return _failure(500, f"{metric} cannot be read: the backend is broken")


def _failure(code: int, message: str) -> tuple[int, Object]:
    reason = "NotFound" if code == 404 else "InternalError"
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- a situation's objects ---


def _filled(value: Any, name: str) -> Any:
    return json.loads(json.dumps(value).replace("$", name))


def hpa_of(situation: Situation) -> Object:
    name = situation.name
    spec: Object = {
        "scaleTargetRef": {
            "apiVersion": _version_of(situation.kind or "Deployment"),
            "kind": situation.kind,
            "name": name,
        },
        "maxReplicas": situation.high,
        **({"minReplicas": situation.low} if situation.low is not None else {}),
        **({"metrics": situation.metrics} if situation.metrics else {}),
        **({"behavior": situation.behavior} if situation.behavior else {}),
        **situation.spec,
    }
    version = f"autoscaling/{situation.version}"
    meta = {"name": name, "namespace": SPACE}
    return {"apiVersion": version, "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": _filled(spec, name)}


def _version_of(kind: str) -> str:
    return "v1" if kind == "ReplicationController" else "apps/v1"


def target_of(situation: Situation) -> Object:
    labels = {"app": situation.name}
    spec: Object = {
        "replicas": situation.replicas,
        "selector": labels if situation.kind == "ReplicationController" else {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": TEMPLATE},
        **({"serviceName": situation.name} if situation.kind == "StatefulSet" else {}),
    }
    meta = {"name": situation.name, "namespace": SPACE}
    return {"apiVersion": _version_of(situation.kind), "kind": situation.kind, "metadata": meta, "spec": spec}


def pod_of(app: str, at: int, pod: Pod) -> tuple[Object, Object]:
    """A pod, and its status."""
    requests = {key: value for key, value in (("cpu", pod.cpu), ("memory", pod.memory)) if value is not None}
    containers = [{"name": name, "image": "x", "resources": {"requests": requests}} for name in pod.containers]
    spec: Object = {"nodeName": "one", "containers": containers}
    if pod.sidecar_cpu:
        resources = {"requests": {"cpu": pod.sidecar_cpu, "memory": "1Mi"}}
        spec["initContainers"] = [{"name": "sidecar", "image": "x", "restartPolicy": "Always", "resources": resources}]
    if pod.pod_cpu:
        spec["resources"] = {"requests": {"cpu": pod.pod_cpu}}
    status: Object = {"phase": pod.phase}
    if pod.started_s is not None:
        status["startTime"] = _ago(pod.started_s)
    if pod.ready is not None:
        since = _ago(pod.ready_since_s)
        status["conditions"] = [{"type": "Ready", "status": pod.ready, "lastTransitionTime": since}]
    meta = {"name": f"{app}-{at}", "namespace": SPACE, "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, status


async def create(client: KubeClient, situation: Situation) -> None:
    """Everything of a situation, its HPA last."""
    if situation.kind:
        resource = _resource(situation.kind)
        target = await client.create(resource, target_of(situation), SPACE)
        shown = situation.replicas if situation.status_replicas is None else situation.status_replicas
        await client.update(resource, {**target, "status": {"replicas": shown}}, SPACE, "status")
    else:
        ports = [{"port": 80}]
        await client.create(SERVICES, _named("Service", situation.name, spec={"ports": ports}), SPACE)
    for at, pod in enumerate(situation.all_pods() if situation.kind else ()):
        body, status = pod_of(situation.name, at, pod)
        created = await client.create(PODS, body, SPACE)
        await client.update(PODS, {**created, "status": status}, SPACE, "status")
        if pod.deleting:
            await client.delete(PODS, created["metadata"]["name"], SPACE)
    body = hpa_of(situation)
    hpas = HPAS_V1 if situation.version == "v1" else HPAS_V2
    await client.create(hpas, body, SPACE)
    if situation.twin:
        await client.create(hpas, {**body, "metadata": {"name": f"{situation.name}-2", "namespace": SPACE}}, SPACE)


def _resource(kind: str) -> Resource:
    found = resource_of(_version_of(kind), kind)
    assert found is not None
    return found


def _named(kind: str, name: str, api_version: str = "v1", **rest: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **rest}


async def prepare(client: KubeClient, port: int) -> None:
    """The namespace, and the metrics APIs behind a service."""
    for name in (SPACE, "metrics", "flyball-system"):
        with contextlib.suppress(KubeApiError):
            await client.create(NAMESPACES, _named("Namespace", name))
    await client.create(SERVICE_ACCOUNTS, _named("ServiceAccount", "default"), SPACE)
    service = {"clusterIP": METRICS_ADDRESS, "ports": [{"port": port}]}
    await client.create(SERVICES, _named("Service", "metrics", spec=service), "metrics")
    slice_ = {  # nobody asks that address, but a service without endpoints makes no API available
        **_named("EndpointSlice", "metrics", "discovery.k8s.io/v1"),
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port}],
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": True}}],
    }
    slice_["metadata"]["labels"] = {"kubernetes.io/service-name": "metrics"}
    await client.create(ENDPOINT_SLICES, slice_, "metrics")
    for group, version in GROUPS.items():
        spec = {
            "group": group,
            "version": version,
            "service": {"namespace": "metrics", "name": "metrics", "port": port},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        await client.create(
            API_SERVICES, _named("APIService", f"{version}.{group}", "apiregistration.k8s.io/v1", spec=spec)
        )
    async with asyncio.timeout(DEADLINE_S):
        while True:
            states = [await _available(client, f"{version}.{group}") for group, version in GROUPS.items()]
            if all(states):
                return
            await asyncio.sleep(0.2)


async def _available(client: KubeClient, name: str) -> bool:
    status = (await client.get(API_SERVICES, name)).get("status") or {}
    return any(c["type"] == "Available" and c["status"] == "True" for c in status.get("conditions") or ())


# --- what came of it ---


async def seen(client: KubeClient) -> dict[str, Object]:
    """HPA -> its status, what its target was scaled to, and its events, without times."""
    events: dict[str, set[tuple[str, ...]]] = {}  # a message that is told of in two orders is one
    for event in await client.list(EVENTS, SPACE):
        about = event["involvedObject"]
        if about["kind"] == "HorizontalPodAutoscaler":
            told = (event["type"], event["reason"], _settled(event["message"]), event["source"].get("component", ""))
            events.setdefault(about["name"], set()).add(told)
    replicas: dict[str, Any] = {}
    for kind in {situation.kind for situation in SITUATIONS if situation.kind}:
        for target in await client.list(_resource(kind), SPACE):
            replicas[target["metadata"]["name"]] = target["spec"].get("replicas")
    found = {}
    for hpa in await client.list(HPAS_V2, SPACE):
        name, status = hpa["metadata"]["name"], dict(hpa.get("status") or {})
        status["lastScaleTime"] = "lastScaleTime" in status
        for condition in status.get("conditions") or ():
            condition.pop("lastTransitionTime")
            condition["message"] = _settled(condition["message"])
        found[name] = {"replicas": replicas.get(name), "status": status, "events": sorted(events.get(name, ()))}
    for situation in (situation for situation in SITUATIONS if situation.twin):
        # which of the two is looked at before the other is known, if any, is chance, and so is what it then says
        pair = [found.pop(name) for name in (situation.name, f"{situation.name}-2") if name in found]
        active = [c for state in pair for c in state["status"].get("conditions") or () if c["type"] == "ScalingActive"]
        events = [state["events"] for state in pair]
        found[situation.name] = {"replicas": pair[0]["replicas"], "status": active, "events": events}
    return found


def _settled(message: str) -> str:
    """Without what is chance: upstream names two of the HPAs in the order of a Go map."""
    return re.sub(r"(more than one HPA \(e\.g\. )\[[^]]*\]", r"\1[...]", message)


def unlike(theirs: Any, ours: Any, where: str = "") -> list[str]:
    """Every place at which two values differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [
            found
            for key in sorted({*theirs, *ours})
            for found in unlike(theirs.get(key), ours.get(key), f"{where}.{key}")
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [found for at in range(len(theirs)) for found in unlike(theirs[at], ours[at], f"{where}[{at}]")]
    return [] if theirs == ours else [f"{where}: upstream {theirs!r}, ours {ours!r}"]


@contextlib.asynccontextmanager
async def client_of(plane: RealControlPlane) -> AsyncIterator[KubeClient]:
    write_kubeconfig(plane.directory / "kubeconfig", plane.base, plane.token, plane.ca)
    async with await KubeClient.from_kubeconfig(plane.directory / "kubeconfig") as client:
        yield client


def test_our_autoscaler_does_and_says_what_kube_controller_manager_does(tmp_path: Path) -> None:
    services = (f"--service-cluster-ip-range={SERVICE_NETWORK}",)
    flags = (
        *PERIODS,
        "--controllers=horizontal-pod-autoscaler-controller",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )
    for program_name in ("kube-controller-manager", "kube-scheduler"):
        if missing(program_name):
            pytest.skip(f"no {program_name}: python tests/cluster/build.py")
    theirs_plane = real_control_plane(tmp_path / "theirs", api_flags=services, controller_flags=flags)
    ours_plane = real_control_plane(tmp_path / "ours", api_flags=services)
    command = (
        *(sys.executable, "-m", "flyball", "autoscaler", "--act-on-hpas", "--port=0"),
        *(*PERIODS, f"--kubeconfig={tmp_path / 'ours' / 'kubeconfig'}"),
    )

    async def main() -> None:
        metrics, port = Metrics(), free_port()
        keys = ours_plane.directory / "pki"
        async with contextlib.AsyncExitStack() as stack:
            tls = ServerTLS(keys / "apiserver.crt", keys / "apiserver.key")
            server = await serve(metrics, port=port, host=METRICS_ADDRESS, tls=tls, allowed_hosts=None, name="metrics")
            stack.push_async_callback(server.close)
            theirs = await stack.enter_async_context(client_of(theirs_plane))
            ours = await stack.enter_async_context(client_of(ours_plane))
            for client in (theirs, ours):
                await prepare(client, port)
            _load(metrics, 0)
            for situation in SITUATIONS:
                await asyncio.gather(*(create(client, situation) for client in (theirs, ours)))
            # both begin with every object there
            theirs_plane.start_controllers()

            async def start(name: str) -> asyncio.subprocess.Process:
                journal = f"--journal={tmp_path / name}.db"
                return await stack.enter_async_context(program(tmp_path / f"{name}.log", *command, journal))

            leader = await start("first")
            await _someone_leads(ours)
            names, standby = ["second", "first"], await start("second")
            for number in range(3):
                _load(metrics, number)
                await asyncio.sleep(DWELL_S)
                await _agree(theirs, ours, number)
                if names:
                    leader.kill()  # the one that stood by leads when the lease has run out
                    leader, standby = standby, await start(names.pop())

    with theirs_plane, ours_plane:
        asyncio.run(main())


async def _someone_leads(client: KubeClient) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await client.list(LEASES, "flyball-system"):
            await asyncio.sleep(0.1)


def _load(metrics: Metrics, number: int) -> None:
    metrics.loads = {s.name: _filled(s.loads[number], s.name) for s in SITUATIONS}


async def _agree(theirs: KubeClient, ours: KubeClient, number: int) -> None:
    """Both come to the same and stay there; within the deadline, for the two are apart by the beat of each."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    before: dict[str, Object] = {}
    while True:
        first, second = await asyncio.gather(seen(theirs), seen(ours))
        wrong = {name: found for name in first if (found := unlike(first[name], second.get(name)))}
        for name in DIFFERENT:
            if not wrong.pop(name, None):
                wrong[name] = ["no longer differs"]
        if not wrong and first == before and all(state["status"] for state in first.values()):
            return
        before = first
        if asyncio.get_running_loop().time() > deadline:
            told = "\n".join(f"{name}: {found}" for name, found in wrong.items()) or "it does not settle"
            raise AssertionError(f"load {number}:\n{told}")
        await asyncio.sleep(QUIET_S)
