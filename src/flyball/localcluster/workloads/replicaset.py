"""ReplicaSets: as many pods as asked for, no more, whatever the cache has missed."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import PODS, REPLICA_SETS
from flyball.localcluster.workloads.controller import Controller, Index, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import (
    annotations_of,
    available_in_s,
    controller_of,
    controller_reference,
    controller_uid,
    is_active,
    is_ready,
    is_terminating,
    labels_of,
    ready_since_ms,
    status_change,
    with_condition,
)
from flyball.model.selectors import selector_of

BURST_MAX = 500
EXPECTATION_MAX_S = 60.0
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
    if missing > 0:
        return Plan(create=min(missing, BURST_MAX))
    return Plan(delete=tuple(sorted(active, key=deletion_rank)[: min(-missing, BURST_MAX)]))


def pod_of(replica_set: Object) -> Object:
    """A new pod from the template, owned by the ReplicaSet; its name is left to the server."""
    template = replica_set["spec"].get("template") or {}
    metadata = template.get("metadata") or {}
    made: Object = {
        "generateName": f"{replica_set['metadata']['name']}-",
        "namespace": replica_set["metadata"]["namespace"],
        "labels": dict(metadata.get("labels") or {}),
        "ownerReferences": [controller_reference(replica_set)],
    }
    if metadata.get("annotations"):
        made["annotations"] = dict(metadata["annotations"])
    if metadata.get("finalizers"):
        made["finalizers"] = list(metadata["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template.get("spec") or {}}


def status_of(replica_set: Object, active: list[Object], now_ms: int, failure: str | None) -> Object:
    """The status that the pods amount to.

    Args:
        failure: why pods could not be created or deleted; None when they could.
    """
    spec = replica_set["spec"]
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
        "observedGeneration": replica_set["metadata"].get("generation", 0),
        "conditions": conditions,
    }


@dataclass(slots=True)
class _Expectation:
    """Changes we asked for that the cache has not shown yet."""

    creations: int = 0
    deletions: set[str] = field(default_factory=set)
    since_s: float = 0.0


class Expectations:
    """Keeps a controller from acting on a cache that has not seen its own last act."""

    def __init__(self) -> None:
        self._of: dict[Key, _Expectation] = {}

    def met(self, key: Key, now_s: float) -> bool:
        """Whether the cache has shown everything, or it is too long ago to matter."""
        found = self._of.get(key)
        if found is None or (found.creations <= 0 and not found.deletions):
            return True
        return now_s - found.since_s > EXPECTATION_MAX_S

    def expect(self, key: Key, now_s: float, creations: int = 0, deletions: set[str] | None = None) -> None:
        """Set before acting, since the cache may be quicker than the answer."""
        self._of[key] = _Expectation(creations, set(deletions or ()), now_s)

    def created(self, key: Key, count: int = 1) -> None:
        """A creation was seen, or failed."""
        if key in self._of:
            self._of[key].creations -= count

    def deleted(self, key: Key, uid: str) -> None:
        """A deletion was seen, or failed."""
        if key in self._of:
            self._of[key].deletions.discard(uid)

    def forget(self, key: Key) -> None:
        """The ReplicaSet is gone."""
        self._of.pop(key, None)


class ReplicaSetController(Controller):
    """Creates and deletes pods, adopts matching orphans, reports status."""

    name = "replicaset-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._replica_sets = informers.of(REPLICA_SETS)
        pods = informers.of(PODS)
        self._by_owner = Index(pods, lambda pod: [controller_uid(pod)] if controller_uid(pod) else [])
        self._orphans = Index(pods, lambda pod: [] if controller_uid(pod) else [pod["metadata"]["namespace"]])
        self._expectations = Expectations()
        self._events = EventRecorder(client, self.name)
        self._replica_sets.add_handler(self._on_replica_set)
        pods.add_handler(self._on_pod)

    def _on_replica_set(self, change: str, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        if change == "DELETED":
            self._expectations.forget(key)
        self.queue.add(key)

    def _on_pod(self, change: str, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            reference = controller_of(pod) if pod is not None else None
            if pod is None or reference is None or reference.get("kind") != "ReplicaSet":
                continue
            key = (pod["metadata"]["namespace"], reference["name"])
            if change == "ADDED":
                self._expectations.created(key)
            if change == "DELETED" or is_terminating(pod):
                self._expectations.deleted(key, pod["metadata"]["uid"])
            self.queue.add(key)
        if new is not None and controller_of(new) is None:
            for key, replica_set in self._replica_sets.cache.items():
                if key[0] == new["metadata"]["namespace"] and _selects(replica_set, new):
                    self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Bring one ReplicaSet's pods to its spec."""
        replica_set = self._replica_sets.cache.get(key)
        if replica_set is None:
            return
        terminating = is_terminating(replica_set)
        uid = replica_set["metadata"]["uid"]
        owned = self._by_owner.get(uid)
        if not terminating:
            owned += await self._adopted(replica_set)
            for pod in [pod for pod in owned if not _selects(replica_set, pod) and not is_terminating(pod)]:
                await self._release(replica_set, pod)
                owned.remove(pod)
        active = [pod for pod in owned if is_active(pod)]
        failure: str | None = None
        error: FlyballError | None = None
        if not terminating and self._expectations.met(key, clock.monotonic_s()):
            error = await self._scale(key, replica_set, plan(replica_set, active))
            failure = str(error) if error is not None else None
        now_ms = clock.now_ms()
        change = status_change(replica_set.get("status"), status_of(replica_set, active, now_ms, failure))
        if change is not None:
            try:
                await self.client.patch(REPLICA_SETS, key[1], change, key[0], "status")
            except KubeApiError as exc:
                if exc.code != 404:
                    raise
        min_ready_s = replica_set["spec"].get("minReadySeconds") or 0
        waits = [wait_s for pod in active if (wait_s := available_in_s(pod, min_ready_s, now_ms))]
        if waits:
            self.queue.add_after(key, min(waits) + 0.05)
        if error is not None:
            raise error

    async def _scale(self, key: Key, replica_set: Object, planned: Plan) -> FlyballError | None:
        now_s = clock.monotonic_s()
        if planned.create:
            self._expectations.expect(key, now_s, creations=planned.create)
            left, batch = planned.create, 1
            while left:  # slow start: a quota or a webhook that refuses all is asked once, not five hundred times
                size = min(batch, left)
                results = await asyncio.gather(
                    *(self._create(replica_set) for _ in range(size)), return_exceptions=True
                )
                left -= size
                failures = [result for result in results if isinstance(result, BaseException)]
                if failures:
                    self._expectations.created(key, len(failures) + left)
                    return _first(failures)
                batch *= 2
        elif planned.delete:
            uids = {pod["metadata"]["uid"] for pod in planned.delete}
            self._expectations.expect(key, now_s, deletions=uids)
            results = await asyncio.gather(
                *(self._delete(key, replica_set, pod) for pod in planned.delete), return_exceptions=True
            )
            failures = [result for result in results if isinstance(result, BaseException)]
            if failures:
                return _first(failures)
        return None

    async def _create(self, replica_set: Object) -> None:
        try:
            pod = await self.client.create(PODS, pod_of(replica_set), replica_set["metadata"]["namespace"])
        except FlyballError as exc:
            await self._events.event(replica_set, "Warning", "FailedCreate", f"Error creating: {exc}")
            raise
        await self._events.event(replica_set, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    async def _delete(self, key: Key, replica_set: Object, pod: Object) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        try:
            await self.client.delete(PODS, name, key[0], uid=uid)
        except FlyballError as exc:
            self._expectations.deleted(key, uid)
            if isinstance(exc, KubeApiError) and exc.code == 404:
                return
            await self._events.event(replica_set, "Warning", "FailedDelete", f"Error deleting: {exc}")
            raise
        await self._events.event(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")

    async def _adopted(self, replica_set: Object) -> list[Object]:
        namespace = replica_set["metadata"]["namespace"]
        found = [pod for pod in self._orphans.get(namespace) if is_active(pod) and _selects(replica_set, pod)]
        adopted = []
        for pod in found:
            # The live object decides: the cache may show a ReplicaSet that is being deleted as healthy.
            live = await self.client.get(REPLICA_SETS, replica_set["metadata"]["name"], namespace)
            if live["metadata"]["uid"] != replica_set["metadata"]["uid"] or is_terminating(live):
                break
            references = [*(pod["metadata"].get("ownerReferences") or []), controller_reference(replica_set)]
            change = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": references}}
            adopted.append(await self.client.patch(PODS, pod["metadata"]["name"], change, namespace))
        return adopted

    async def _release(self, replica_set: Object, pod: Object) -> None:
        uid = replica_set["metadata"]["uid"]
        kept = [item for item in pod["metadata"].get("ownerReferences") or [] if item.get("uid") != uid]
        change = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": kept or None}}
        try:
            await self.client.patch(PODS, pod["metadata"]["name"], change, pod["metadata"]["namespace"])
        except KubeApiError as exc:
            if exc.code != 404:
                raise


def _selects(replica_set: Object, pod: Object) -> bool:
    return selector_of(replica_set["spec"].get("selector")).matches(labels_of(pod))


def _first(failures: list[BaseException]) -> FlyballError:
    for failure in failures:
        if not isinstance(failure, FlyballError):
            raise failure
    found = failures[0]
    assert isinstance(found, FlyballError)
    return found
