"""ReplicaSets and ReplicationControllers: as many pods as asked for, no more, whatever the cache has missed."""

from dataclasses import dataclass
from typing import Any

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import EventRecorder, KubeClient, Resource
from flyball.kube.kinds import REPLICA_SETS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object
from flyball.localcluster.workloads.objects import (
    annotations_of,
    available_in_s,
    has_ended,
    is_active,
    is_ready,
    is_terminating,
    labels_of,
    ready_since_ms,
    soonest_available_s,
    status_change,
    with_condition,
)
from flyball.localcluster.workloads.podcontrol import PodControl, pod_of

BURST_MAX = 500
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def deletion_rank(pod: Object) -> tuple[Any, ...]:
    """Sorts pods by how gladly we part with them, first to go first.

    Unscheduled, pending, not ready, cheap by annotation, ready for the shortest time, restarted most, newest.
    Source: kubernetes pkg/controller/controller_utils.go, ActivePodsWithRanks.
    """
    status = pod.get("status") or {}
    try:
        cost = int(annotations_of(pod).get(DELETION_COST, "0"))
    except ValueError:
        cost = 0
    restarts = max((item.get("restartCount", 0) for item in status.get("containerStatuses") or []), default=0)
    created_ms = clock.parse_rfc3339_ms(pod["metadata"].get("creationTimestamp") or "1970-01-01T00:00:00Z")
    return (
        1 if pod["spec"].get("nodeName") else 0,
        _PHASES.get(status.get("phase") or "Pending", 1),
        1 if is_ready(pod) else 0,
        cost,
        -(ready_since_ms(pod) or 0),
        -restarts,
        -created_ms,
        pod["metadata"]["name"],
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about the number of pods."""

    create: int = 0
    delete: tuple[Object, ...] = ()


def plan(replica_set: Object, active: list[Object]) -> Plan:
    """How many pods to create, or which to delete, at most BURST_MAX at a time."""
    wanted = replica_set["spec"].get("replicas", 1)
    missing = wanted - len(active)
    if missing >= 0:
        return Plan(create=min(missing, BURST_MAX))
    return Plan(delete=tuple(sorted(active, key=deletion_rank)[: min(-missing, BURST_MAX)]))


def status_of(replica_set: Object, pods: list[Object], now_ms: int, failure: str | None) -> Object:
    """The status that the pods under its control amount to.

    Args:
        failure: why pods could not be created or deleted; None when they could.
    """
    spec = replica_set["spec"]
    active = [pod for pod in pods if is_active(pod)]
    min_ready_s = spec.get("minReadySeconds") or 0
    template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    conditions = [
        found
        for found in (replica_set.get("status") or {}).get("conditions") or []
        if found.get("type") != "ReplicaFailure"
    ]
    if failure is not None:
        conditions = with_condition(
            (replica_set.get("status") or {}).get("conditions") or [],
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure},
            clock.rfc3339(now_ms),
        )
    return {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(template_labels.items() <= labels_of(pod).items() for pod in active),
        "readyReplicas": sum(is_ready(pod) for pod in active),
        "availableReplicas": sum(available_in_s(pod, min_ready_s, now_ms) == 0 for pod in active),
        "terminatingReplicas": sum(is_terminating(pod) and not has_ended(pod) for pod in pods),
        "observedGeneration": replica_set["metadata"].get("generation", 0),
        "conditions": conditions,
    }


class ReplicaSetController(Controller):
    """Creates and deletes pods, adopts matching orphans, reports status.

    Args:
        resource: ReplicaSets or ReplicationControllers.
    """

    def __init__(self, client: KubeClient, informers: Informers, resource: Resource = REPLICA_SETS) -> None:
        super().__init__(client)
        self._resource = resource
        self.name = "replicaset-controller" if resource is REPLICA_SETS else "replication-controller"
        self._replica_sets = informers.of(resource)
        self._pods = PodControl(client, informers, resource, self.queue, EventRecorder(client, self.name))

    async def reconcile(self, key: Key) -> None:
        """Bring one ReplicaSet's pods to its spec."""
        replica_set = self._replica_sets.cache.get(key)
        if replica_set is None:
            return
        pods = await self._pods.claimed(replica_set)
        active = [pod for pod in pods if is_active(pod)]
        error: FlyballError | None = None
        if not is_terminating(replica_set) and self._pods.settled(key):
            error = await self._scale(replica_set, plan(replica_set, active))
        now_ms = clock.now_ms()
        failure = str(error) if error is not None else None
        status = status_of(replica_set, pods, now_ms, failure)
        if self._resource is not REPLICA_SETS:
            del status["terminatingReplicas"]  # the older kind does not tell
        change = status_change(replica_set.get("status"), status, zeros=("replicas", "terminatingReplicas"))
        if change is not None:
            try:
                await self.client.patch(self._resource, key[1], change, key[0], "status")
            except KubeApiError as exc:
                if exc.code != 404:
                    raise
        min_ready_s = replica_set["spec"].get("minReadySeconds") or 0
        wait_s = soonest_available_s(active, min_ready_s, now_ms)
        if wait_s is not None:
            self.queue.add_after(key, wait_s + 0.05)
        if error is not None:
            raise error

    async def _scale(self, replica_set: Object, planned: Plan) -> FlyballError | None:
        if planned.create:
            template = replica_set["spec"].get("template") or {}
            return await self._pods.create(replica_set, [pod_of(replica_set, template)] * planned.create)
        if planned.delete:
            return await self._pods.delete(replica_set, planned.delete)
        return None
