"""DaemonSets: one pod on every node that will have it."""

import math
from dataclasses import dataclass

from flyball import clock
from flyball.errors import FlyballError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import DAEMON_SETS, NODES
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object
from flyball.localcluster.workloads.objects import (
    available_in_s,
    is_ready,
    is_terminating,
    labels_of,
    name_of,
    soonest_available_s,
    status_change,
)
from flyball.localcluster.workloads.placement import matches_node, untolerated
from flyball.localcluster.workloads.podcontrol import PodControl, pod_of
from flyball.localcluster.workloads.revisions import POD_LABEL, Revisions

STATUS_ZEROS = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
"""Counts that a status names even when they are 0."""
GENERATION_LABEL = "pod-template-generation"
# Daemons stay on a node in trouble. Source: kubernetes pkg/controller/daemon/util, AddOrUpdateDaemonPodTolerations.
_TOLERATIONS = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


def spec_for(daemon_set: Object) -> Object:
    """The pod spec with the tolerations that every daemon has."""
    spec = dict(daemon_set["spec"]["template"].get("spec") or {})
    names = [*_TOLERATIONS, *([("network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else [])]
    added = [{"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect} for name, effect in names]
    spec["tolerations"] = [*(spec.get("tolerations") or []), *added]
    return spec


def should_run(spec: Object, node: Object) -> tuple[bool, bool]:
    """(whether a daemon is to be started on a node, whether one that runs there may stay)."""
    if (spec.get("nodeName") or name_of(node)) != name_of(node) or not matches_node(spec, node):
        return False, False
    stays = untolerated(spec, node, ("NoExecute",)) is None
    return untolerated(spec, node) is None, stays


def daemon_of(daemon_set: Object, node: str, revision_hash: str) -> Object:
    """The pod for a node; the scheduler can put it nowhere else."""
    pod = pod_of(daemon_set, daemon_set["spec"]["template"])
    generation = str(daemon_set["metadata"].get("generation", 1))
    pod["metadata"]["labels"] |= {POD_LABEL: revision_hash, GENERATION_LABEL: generation}
    spec = spec_for(daemon_set)
    affinity = dict(spec.get("affinity") or {})
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
    affinity["nodeAffinity"] = {**(affinity.get("nodeAffinity") or {}), **required}
    return {**pod, "spec": {**spec, "affinity": affinity}}


def node_of(pod: Object) -> str:
    """The node a daemon was made for, also before the scheduler has bound it."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    for term in (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Nodes that get a pod, and pods that go."""

    create: tuple[str, ...] = ()
    delete: tuple[Object, ...] = ()
    failed: tuple[Object, ...] = ()  # those among the deleted that had ended


def plan(daemon_set: Object, nodes: list[Object], pods: list[Object], revision_hash: str, now_ms: int) -> Plan:
    """Missing daemons are created, superfluous and ended ones deleted, old ones replaced within the bounds.

    Source: kubernetes pkg/controller/daemon/{daemon_controller,update}.go.
    """
    spec = spec_for(daemon_set)
    min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)
    by_node: dict[str, list[Object]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    create: list[str] = []
    delete: list[Object] = []
    failed: list[Object] = []
    old: list[tuple[Object, Object | None]] = []  # an old daemon and, during a surge, its successor
    unavailable = surging = 0
    wanted = 0
    for node in nodes:
        name = name_of(node)
        starts, stays = should_run(spec, node)
        here = [pod for pod in by_node.pop(name, []) if not is_terminating(pod)]
        if not stays:
            delete += here
            continue
        if starts:
            wanted += 1
        ended = [pod for pod in here if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")]
        delete += ended
        failed += ended
        living = sorted((pod for pod in here if pod not in ended), key=lambda pod: str(name_of(pod)))
        fresh = [pod for pod in living if labels_of(pod).get(POD_LABEL) == revision_hash]
        stale = [pod for pod in living if pod not in fresh]
        delete += [*fresh[1:], *stale[1:]]
        if starts and not living and not ended:
            create.append(name)
        available = any(available_in_s(pod, min_ready_s, now_ms) == 0 for pod in living)
        unavailable += bool(starts and not available)
        surging += bool(fresh and stale)
        if stale:
            old.append((stale[0], fresh[0] if fresh else None))
    delete += [pod for gone in by_node.values() for pod in gone if not is_terminating(pod)]
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return Plan(tuple(create), tuple(delete), tuple(failed))
    surge, may_miss = _bounds(strategy, wanted)
    for stale_pod, successor in old:
        serving = available_in_s(stale_pod, min_ready_s, now_ms) == 0
        if surge:
            if successor is not None:
                if available_in_s(successor, min_ready_s, now_ms) == 0 or not serving:
                    delete.append(stale_pod)
            elif surging < surge:
                create.append(node_of(stale_pod))
                surging += 1
        elif not serving:
            delete.append(stale_pod)  # it serves nobody: its going costs nothing
        elif unavailable < may_miss:
            delete.append(stale_pod)
            unavailable += 1
    return Plan(tuple(create), tuple(delete), tuple(failed))


def _bounds(strategy: Object, wanted: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; never both 0."""
    rolling = strategy.get("rollingUpdate") or {}

    def pods(value: int | str) -> int:
        return math.ceil(int(value.removesuffix("%")) * wanted / 100) if isinstance(value, str) else int(value)

    surge, may_miss = pods(rolling.get("maxSurge", 0)), pods(rolling.get("maxUnavailable", 1))
    return surge, may_miss if surge or may_miss else 1


def status_of(daemon_set: Object, nodes: list[Object], pods: list[Object], revision_hash: str, now_ms: int) -> Object:
    """The status that nodes and pods amount to."""
    spec = spec_for(daemon_set)
    min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)
    desired = current = misscheduled = ready = available = updated = 0
    by_node: dict[str, list[Object]] = {}
    for pod in pods:
        if not is_terminating(pod):
            by_node.setdefault(node_of(pod), []).append(pod)
    for node in nodes:
        here = by_node.get(name_of(node), [])
        starts, _ = should_run(spec, node)
        if not starts:
            misscheduled += bool(here)
            continue
        desired += 1
        current += bool(here)
        ready += any(map(is_ready, here))
        available += any(available_in_s(pod, min_ready_s, now_ms) == 0 for pod in here)
        updated += any(labels_of(pod).get(POD_LABEL) == revision_hash for pod in here)
    return {
        "observedGeneration": daemon_set["metadata"].get("generation", 0),
        "desiredNumberScheduled": desired,
        "currentNumberScheduled": current,
        "numberMisscheduled": misscheduled,
        "numberReady": ready,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
        "updatedNumberScheduled": updated,
    }


class DaemonSetController(Controller):
    """Follows nodes and pods."""

    name = "daemonset-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._sets, self._nodes = informers.of(DAEMON_SETS), informers.of(NODES)
        self._revisions = Revisions(client, informers, DAEMON_SETS, POD_LABEL)
        self._events = EventRecorder(client, self.name)
        self._pods = PodControl(client, informers, DAEMON_SETS, self.queue, self._events)
        self._nodes.add_handler(self._on_node)

    def _on_node(self, _change: str, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _place(old) == _place(new):
            return  # a heartbeat
        for key in self._sets.cache:
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Bring one set's pods to its nodes."""
        daemon_set = self._sets.cache.get(key)
        if daemon_set is None or is_terminating(daemon_set):
            return
        pods = await self._pods.claimed(daemon_set)
        nodes = list(self._nodes.cache.values())
        history = await self._revisions.history(daemon_set)
        hashed = labels_of(history.update)[POD_LABEL]
        now_ms = clock.now_ms()
        error: FlyballError | None = None
        if self._pods.settled(key):
            planned = plan(daemon_set, nodes, pods, hashed, now_ms)
            for pod in planned.failed:
                message = f"Found failed daemon pod {key[0]}/{name_of(pod)} on node {node_of(pod)}, will try to kill it"
                await self._events.event(daemon_set, "Warning", "FailedDaemonPod", message)
            if planned.delete:
                error = await self._pods.delete(daemon_set, planned.delete)
            elif planned.create:
                error = await self._pods.create(
                    daemon_set, [daemon_of(daemon_set, node, hashed) for node in planned.create]
                )
        change = status_change(
            daemon_set.get("status"), status_of(daemon_set, nodes, pods, hashed, now_ms), zeros=STATUS_ZEROS
        )
        if change is not None:
            await self.client.patch(DAEMON_SETS, key[1], change, key[0], "status")
        used = {labels_of(pod).get(POD_LABEL) for pod in pods}
        live = {name_of(item) for item in history.revisions if labels_of(item).get(POD_LABEL) in used}
        await self._revisions.trim(daemon_set, history, live)
        min_ready_s = int(daemon_set["spec"].get("minReadySeconds") or 0)
        wait_s = soonest_available_s(pods, min_ready_s, now_ms)
        if wait_s is not None:
            self.queue.add_after(key, wait_s + 0.05)
        if error is not None:
            raise error


def _place(node: Object) -> tuple[object, ...]:
    return labels_of(node), (node.get("spec") or {}).get("taints"), (node.get("spec") or {}).get("unschedulable")
