"""The workload controllers beside kube-controller-manager and kube-scheduler, over the same fake nodes."""

import asyncio
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.compare import Difference, compare, compare_output, known_differences, normal, sort_out
from tests.cluster.control_plane import ControlPlane, EmbeddedControlPlane, write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tests.cluster.golden import without_managed_fields
from tests.cluster.scenarios.manifests import deployment, obj, service, template, workload
from tests.workloads.cluster import FakeNode, add_node
from tools.kubectl import find

from flyball.kube import KubeClient, kubeconfig_access
from flyball.localcluster.workloads import run_all
from flyball.localcluster.workloads.endpoints import TRIGGER_TIME

pytestmark = pytest.mark.cluster
KNOWN = known_differences()
NAMESPACE = "work"
KINDS = (
    "replicationcontrollers,"
    "deployments,replicasets,statefulsets,daemonsets,jobs,cronjobs,pods,endpointslices,endpoints,poddisruptionbudgets,"
    "controllerrevisions,persistentvolumeclaims,persistentvolumes"
)
POD_IP = re.compile(r"10\.244\.0\.\d+")
SETTLED_S = 60.0
Object = dict[str, Any]


def _once(name: str, image: str, **spec: Any) -> Object:
    containers = [{"name": "c", "image": image}]
    body = {"template": {"spec": {"restartPolicy": "Never", "containers": containers}}, **spec}
    return obj("Job", name, "batch/v1", spec=body)


def _cron(name: str, image: str, schedule: str = "@yearly", **spec: Any) -> Object:
    return obj(
        "CronJob",
        name,
        "batch/v1",
        spec={"schedule": schedule, "jobTemplate": {"spec": _once("", image)["spec"]}, **spec},
    )


def _pod(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    containers = [{"name": "c", "image": "nginx", "resources": spec.pop("resources", {})}]
    return obj("Pod", name, "v1", metadata={"labels": labels or {}}, spec={"containers": containers, **spec})


def _volume(name: str, claim: str = "") -> Object:
    spec: Object = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
        "hostPath": {"path": f"/tmp/flyball-compared-{name}"},
    }
    if claim:
        spec["claimRef"] = {"namespace": NAMESPACE, "name": claim}
    return obj("PersistentVolume", name, "v1", spec=spec)


def _claim(name: str) -> Object:
    resources = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "resources": resources}
    return obj("PersistentVolumeClaim", name, "v1", spec=spec)


def _mounting(claim: str) -> Object:
    return {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}


def _affinity(kind: str, app: str) -> Object:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def _spread(skew: int, when: str) -> Object:
    constraint = {
        "maxSkew": skew,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }
    return {"topologySpreadConstraints": [constraint]}


# Many starts have been missed since, and of a yearly schedule none comes while the test runs.
_LONG_AGO = """--subresource=status --type=merge --patch={"status":{"lastScheduleTime":"2020-06-01T00:00:00Z"}}"""
_ROLLED = template("web", containers=[{"name": "web", "image": "nginx:1.28"}])
_EVERYWHERE = template("agent", tolerations=[{"operator": "Exists"}])


@dataclass(frozen=True)
class Stage:
    """Objects to apply or kubectl commands to run, and what to wait for before looking."""

    name: str
    apply: list[Object] = field(default_factory=list)
    commands: tuple[str, ...] = ()


STAGES = (
    Stage("create", [deployment("web", replicas=3), service("web")], ("rollout status deployment/web --timeout=60s",)),
    Stage("roll", [deployment("web", replicas=3, pod=_ROLLED)], ("rollout status deployment/web --timeout=60s",)),
    Stage("scale", commands=("scale deployment web --replicas=1", "rollout status deployment/web --timeout=60s")),
    Stage("history", commands=("rollout history deployment/web",)),
    Stage(
        "undo",
        commands=(
            "rollout undo deployment/web",
            "rollout status deployment/web --timeout=60s",
            "rollout history deployment/web",
        ),
    ),
    Stage("pause", commands=("rollout pause deployment/web", "set image deployment/web web=nginx:1.29")),
    Stage("resume", commands=("rollout resume deployment/web", "rollout status deployment/web --timeout=60s")),
    Stage(
        "budget",
        [
            obj(
                "PodDisruptionBudget",
                "web",
                "policy/v1",
                spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
            )
        ],
    ),
    Stage(
        "stateful",
        [workload("StatefulSet", "db", replicas=3, serviceName="db"), service("db", clusterIP="None")],
        ("rollout status statefulset/db --timeout=60s",),
    ),
    Stage("stateful-scale", commands=("scale statefulset db --replicas=1",)),
    Stage(
        "daemon", [workload("DaemonSet", "agent", pod=_EVERYWHERE)], ("rollout status daemonset/agent --timeout=60s",)
    ),
    Stage("jobs", [_once("once", "ends", completions=2)], ("wait --for=condition=complete job/once --timeout=60s",)),
    Stage("failing", [_once("bad", "fails", backoffLimit=0)], ("wait --for=condition=failed job/bad --timeout=60s",)),
    Stage(
        "failure-policy",
        [
            _once(
                "strict",
                "fails",
                podFailurePolicy={
                    "rules": [{"action": "FailJob", "onPodConditions": [{"type": "Ready", "status": "False"}]}]
                },
            )
        ],
        ("wait --for=condition=failed job/strict --timeout=60s",),
    ),
    Stage(
        "indexes",
        [
            _once("limited", "fails", completionMode="Indexed", completions=2, parallelism=2, backoffLimitPerIndex=0),
            _once(
                "early",
                "ends",
                completionMode="Indexed",
                completions=3,
                parallelism=1,
                successPolicy={"rules": [{"succeededIndexes": "0"}]},
            ),
        ],
        (
            "wait --for=condition=failed job/limited --timeout=60s",
            "wait --for=condition=complete job/early --timeout=60s",
        ),
    ),
    Stage("indexes-gone", commands=("delete job limited early",)),
    Stage(
        "replication",
        [obj("ReplicationController", "old", "v1", spec={"replicas": 2, "template": template("old")})],
        ("wait --for=jsonpath={.status.readyReplicas}=2 replicationcontroller/old --timeout=60s",),
    ),
    Stage("replication-gone", commands=("scale replicationcontroller old --replicas=1", "delete rc old")),
    Stage(
        "cron",
        [_cron("tick", "ends"), _cron("asleep", "ends", suspend=True, timeZone="Europe/Berlin")],
        (
            f"patch cronjob tick {_LONG_AGO}",
            f"patch cronjob asleep {_LONG_AGO}",
            "wait --for=jsonpath={.status.lastSuccessfulTime} cronjob/tick --timeout=60s",
            "create job manual --from=cronjob/tick",
            "wait --for=condition=complete job/manual --timeout=60s",
        ),
    ),
    Stage(
        "cron-starts",
        [_cron("hold", "nginx", concurrencyPolicy="Forbid")],
        (f"patch cronjob hold {_LONG_AGO}", "wait --for=jsonpath={.status.active} cronjob/hold --timeout=60s"),
    ),
    Stage(
        "cron-forbids",
        [_cron("hold", "nginx", "@monthly", concurrencyPolicy="Forbid")],
        (f"patch cronjob hold {_LONG_AGO}",),
    ),
    Stage("cron-replaces", [_cron("hold", "nginx", "@monthly", concurrencyPolicy="Replace")]),
    Stage(
        "namespace",
        commands=(
            "create namespace held",
            "create configmap kept --namespace=held",
            """patch configmap kept --namespace=held --type=merge --patch={"metadata":{"finalizers":["x.io/y"]}}""",
            "delete namespace held --wait=false",
            "wait --for=condition=NamespaceFinalizersRemaining namespace/held --timeout=60s",
            "get namespace held -o=jsonpath={.status.conditions}",
        ),
    ),
    Stage(
        "namespace-gone",
        commands=(
            """patch configmap kept --namespace=held --type=merge --patch={"metadata":{"finalizers":null}}""",
            "wait --for=delete namespace/held --timeout=60s",
        ),
    ),
    Stage("cron-ends", commands=("delete cronjob hold tick asleep",)),
    Stage(
        "unschedulable",
        [
            _claim("unbound"),
            _pod("nowhere", nodeSelector={"disk": "tape"}),
            _pod("greedy", resources={"requests": {"cpu": "100", "memory": "1Ti"}}),
            _pod("claimless", **_mounting("missing")),
            _pod("unclaimed", **_mounting("unbound")),
            _pod("lonely", **_affinity("podAffinity", "nobody")),
            _pod("gated", schedulingGates=[{"name": "example.com/wait"}]),
        ],
    ),
    Stage(
        "unschedulable-gone",
        commands=("delete pod nowhere greedy claimless unclaimed lonely gated", "delete pvc unbound"),
    ),
    Stage(
        "volumes",
        [_volume("disk"), _claim("disk"), _claim("waiting"), _pod("user", **_mounting("disk"))],
        ("wait --for=condition=Ready pod/user --timeout=60s",),
    ),
    Stage("volumes-held", commands=("delete pvc disk --wait=false", "delete pv disk --wait=false")),
    Stage("volumes-gone", commands=("delete pod user", "delete pvc waiting")),
    Stage(
        "stateful-volumes",
        [
            _volume("first", "data-store-0"),
            _volume("second", "data-store-1"),
            obj(
                "StatefulSet",
                "store",
                "apps/v1",
                spec={
                    "replicas": 2,
                    "serviceName": "store",
                    "selector": {"matchLabels": {"app": "store"}},
                    "template": template("store"),
                    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
                    "volumeClaimTemplates": [_claim("data")],
                },
            ),
        ],
        ("rollout status statefulset/store --timeout=60s", "scale statefulset store --replicas=1"),
    ),
    Stage("stateful-volumes-gone", commands=("delete statefulset store", "delete pv first second")),
    Stage(
        "apart",
        [workload("Deployment", "apart", replicas=3, pod=template("apart", **_affinity("podAntiAffinity", "apart")))],
        ("wait --for=jsonpath={.status.availableReplicas}=2 deployment/apart --timeout=60s",),
    ),
    Stage("apart-gone", commands=("delete deployment apart",)),
    Stage("spread-cordon", commands=("cordon two",)),
    Stage(
        "spread",
        [
            _pod("spread-1", {"app": "spread"}, nodeName="one"),
            _pod("spread-2", {"app": "spread"}, **_spread(1, "DoNotSchedule")),
            _pod("spread-3", {"app": "spread"}, **_spread(2, "DoNotSchedule")),
            _pod("spread-4", {"app": "other"}, **_spread(1, "ScheduleAnyway")),
        ],
        ("wait --for=condition=Ready pod/spread-1 pod/spread-3 pod/spread-4 --timeout=60s",),
    ),
    Stage("spread-gone", commands=("delete pod spread-1 spread-2 spread-3 spread-4", "uncordon two")),
    Stage(
        "lesser",
        [
            {**obj("PriorityClass", "urgent", "scheduling.k8s.io/v1"), "value": 1000},
            _pod("lesser", nodeName="one", resources={"requests": {"cpu": "6"}}),
        ],
        ("wait --for=condition=Ready pod/lesser --timeout=60s", "cordon two"),
    ),
    Stage(
        "preempted",
        [_pod("urgent", priorityClassName="urgent", resources={"requests": {"cpu": "6"}})],
        ("wait --for=condition=Ready pod/urgent --timeout=60s",),
    ),
    Stage("preempted-gone", commands=("delete pod urgent", "uncordon two")),
    Stage(
        "tainted",
        [],
        ("taint node one two dedicated=db:NoSchedule",),
    ),
    Stage(
        "tainted-pods",
        [_pod("refused"), _pod("tolerant", tolerations=[{"operator": "Exists"}]), workload("DaemonSet", "picky")],
    ),
    Stage(
        "untainted",
        commands=(
            "taint node one two dedicated-",
            "wait --for=condition=Ready pod/refused --timeout=60s",
            "rollout status daemonset/picky --timeout=60s",
        ),
    ),
    Stage("cordoned", [_pod("late")], ("delete pod refused tolerant", "cordon one two")),
    Stage(
        "uncordoned",
        commands=("uncordon one two", "wait --for=condition=Ready pod/late --timeout=60s", "delete pod late"),
    ),
    Stage("evicted", commands=("taint node one two dedicated=db:NoExecute",)),
    Stage("not-evicted", commands=("taint node one two dedicated-", "delete daemonset picky")),
    Stage("orphans", commands=("delete deployment web --cascade=orphan",)),
    Stage(
        "cascades", commands=("delete statefulset db --cascade=foreground", "delete daemonset agent", "delete job once")
    ),
)


class Cluster:
    """A control plane with fake nodes (and our controllers, where it brings none), and kubectl for it."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self._directory = directory
        write_kubeconfig(directory / "kubeconfig", plane.base, plane.token, plane.ca)
        self._ours = isinstance(plane, EmbeddedControlPlane)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Cluster":
        self._thread.start()
        self._do(self._start())
        self.kubectl("create", "namespace", NAMESPACE)
        self._wait_for_service_account()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _do(self, work: Awaitable[None]) -> None:
        async def done() -> None:
            await work

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(60)

    async def _start(self) -> None:
        self._client = KubeClient(kubeconfig_access(self._directory / "kubeconfig"))
        node = FakeNode(self._client)
        node.network = "10.244.0"  # upstream takes no loopback addresses for endpoints
        node.ends = {"ends": "Succeeded", "fails": "Failed"}
        for name in ("one", "two"):
            await add_node(self._client, name, cpu="8", memory="16Gi", pods="110")
        self._tasks = [asyncio.create_task(node.run())]
        if self._ours:
            self._tasks.append(asyncio.create_task(run_all(self._client, self._directory / "volumes")))

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def _wait_for_service_account(self) -> None:
        """The controllers make it; until then no pod is admitted."""
        deadline = time.monotonic() + SETTLED_S
        while self.kubectl("get", "serviceaccount", "default").returncode:
            assert time.monotonic() < deadline, "no default service account"
            time.sleep(0.1)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self._directory), "KUBECONFIG": str(self._directory / "kubeconfig")}
        return subprocess.run(
            [find(), "--namespace", NAMESPACE, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )

    def snapshot(self) -> dict[str, Any]:
        """Every object and every event by name, once nothing changes any more."""
        deadline = time.monotonic() + SETTLED_S
        before: Any = None
        while True:
            listed = json.loads(self.kubectl("get", KINDS + ",events", "-o", "json").stdout)["items"]
            versions = sorted((item["metadata"]["uid"], item["metadata"]["resourceVersion"]) for item in listed)
            if versions == before or time.monotonic() > deadline:
                return nameless(listed)
            before = versions
            time.sleep(1.0)


def nameless(listed: list[Object]) -> dict[str, Any]:
    """The objects under names without hashes and random parts; events as sentences. Nodes are alike, so any will do."""
    text = json.dumps(listed)
    for given, shown in sorted(_chosen(listed).items(), key=lambda pair: -len(pair[0])):
        text = text.replace(given, shown)
    text = POD_IP.sub("<pod ip>", re.sub(r'"(one|two)"', '"<node>"', text))
    text = re.sub(r"\bstrict-\w{5}\b", "strict-<random>", text)  # named by its Job also when it is gone
    found: dict[str, Any] = {}
    events: dict[str, str] = {}
    for item in sorted(json.loads(text), key=lambda item: str((item.get("status") or {}).get("phase"))):
        if item["kind"] == "Event":
            about = item["involvedObject"]
            message = re.sub(r"\bapart-\w{8,10}\b", "apart-<hash>", item.get("message", ""))  # gone by now
            message = re.sub(r"<hash>-\w{5}\b", "<hash>-<random>", message)
            message = re.sub(
                r"\b(agent|picky|once|bad|strict|manual|old|early-0|limited-\d|(?:hold|tick)-\d+)-\w{5}\b",
                r"\1-<random>",
                message,
            )
            message = re.sub(r"to (one|two)$", "to <node>", message)
            message = re.sub(r"Preempted by pod \S+", "Preempted by pod <uid>", message)
            source = item["source"].get("component") or item.get("reportingComponent")
            events[f"{about['kind']} {item['reason']}: {message}"] = f"{item['type']} {source}"
            continue
        for endpoint in item.get("endpoints") or []:
            endpoint["targetRef"] = {"kind": endpoint.get("targetRef", {}).get("kind")}
        (item.get("endpoints") or []).sort(key=lambda endpoint: str(endpoint.get("hostname")))
        if item["kind"] == "Endpoints":
            # Written with some changes and not with others, as their order happens to be.
            annotations = item["metadata"].get("annotations") or {}
            if annotations.pop(TRIGGER_TIME, None) and not annotations:
                del item["metadata"]["annotations"]
            for subset in item.get("subsets") or []:
                subset["addresses"] = len(subset.get("addresses") or [])
        owned = item["kind"] == "EndpointSlice"  # its name is the controller's own affair
        name = item["metadata"]["labels"]["kubernetes.io/service-name"] if owned else item["metadata"]["name"]
        if owned:
            item["metadata"] = {"labels": item["metadata"]["labels"]}
        title = f"{item['kind']} {name}"
        while title in found:
            title += " again"
        found[title] = normal(without_managed_fields(item))
    return {**found, "events": events}


def _chosen(listed: list[Object]) -> dict[str, str]:
    """Hashes and random names that the controllers chose -> what stands for them."""
    chosen: dict[str, str] = {}
    for item in listed:
        metadata = item["metadata"]
        labels = metadata.get("labels") or {}
        if item["kind"] == "ReplicaSet":
            chosen[labels.get("pod-template-hash", "")] = "<hash>"
        elif item["kind"] == "ControllerRevision" and metadata["ownerReferences"][0]["kind"] != "StatefulSet":
            chosen[metadata["name"].rpartition("-")[2]] = "<revision>"
        elif item["kind"] == "Pod" and metadata.get("generateName") and "statefulset" not in str(sorted(labels)):
            chosen[metadata["name"]] = f"{metadata['generateName']}<random>"
    hashes = {given: shown for given, shown in chosen.items() if shown in ("<hash>", "<revision>")}
    for given, shown in chosen.items():
        for hashed, sign in hashes.items():
            shown = shown.replace(hashed, sign) if hashed else shown
        chosen[given] = shown
    chosen.pop("", None)
    return chosen


def do(cluster: Cluster, stage: Stage) -> list[tuple[str, subprocess.CompletedProcess[str]]]:
    said = []
    if stage.apply:
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": stage.apply})
        said.append(("apply", cluster.kubectl("apply", "-f", "-", stdin=manifest)))
    return said + [(command, cluster.kubectl(*command.split())) for command in stage.commands]


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Cluster]]:
    real, ours = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("embedded")
    with (
        real_control_plane(real, controllers=True) as plane,
        Cluster(plane, real) as one,
        EmbeddedControlPlane(ours) as embedded,
        Cluster(embedded, ours) as other,
    ):
        yield one, other


def test_the_controllers_bring_the_same_objects_about(clusters: tuple[Cluster, Cluster]) -> None:
    real, ours = clusters
    found: list[Difference] = []
    for stage in STAGES:
        step = f"workloads/{stage.name}"
        for (words, one), (_, other) in zip(do(real, stage), do(ours, stage), strict=True):
            found += compare(f"{step} kubectl {words}", one.returncode, other.returncode, "exit")
            # Which of the states in between a rollout shows, and whether something is gone already, is chance.
            if "rollout status" not in words and "wait --for=delete" not in words:
                found += compare_output(f"{step} kubectl {words}", "out", one.stdout, other.stdout)
            found += compare_output(f"{step} kubectl {words}", "err", one.stderr, other.stderr)
        theirs, mine = real.snapshot(), ours.snapshot()
        for name in [*theirs, *(name for name in mine if name not in theirs)]:
            found += compare(f"{step} {name}", theirs.get(name, "<absent>"), mine.get(name, "<absent>"))
    new, _ = sort_out(found, KNOWN)
    assert not new, f"{len(new)} new differences:\n" + "\n".join(map(str, new))
