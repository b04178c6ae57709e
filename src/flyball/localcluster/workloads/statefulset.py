"""StatefulSets: pods with stable names and volumes, started and stopped in order."""

import math
import re
from dataclasses import dataclass
from typing import Any

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object
from flyball.localcluster.workloads.objects import (
    available_in_s,
    controller_reference,
    has_ended,
    is_ready,
    is_terminating,
    labels_of,
    name_of,
    owner_uids,
    soonest_available_s,
    status_change,
)
from flyball.localcluster.workloads.podcontrol import PodControl, pod_of
from flyball.localcluster.workloads.revisions import HASH_LABEL, POD_LABEL, History, Revisions, template_of
from flyball.localcluster.workloads.rollout import wanted_of

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"(.*)-([0-9]+)")


# -- identities ------------------------------------------------------------------------------------------------------


def ordinal_of(pod: Object) -> int:
    """The number at the end of the pod's name; -1 without one."""
    match = _ORDINAL.fullmatch(name_of(pod))
    return int(match[2]) if match else -1


def ordinals(stateful_set: Object) -> range:
    """The ordinals of the wanted replicas."""
    start = int((stateful_set["spec"].get("ordinals") or {}).get("start") or 0)
    return range(start, start + wanted_of(stateful_set))


def claims_of(stateful_set: Object, ordinal: int) -> dict[str, Object]:
    """The claims of one replica, by the name of the volume that shows them."""
    pod_name = f"{name_of(stateful_set)}-{ordinal}"
    labels = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
    made = {}
    for template in stateful_set["spec"].get("volumeClaimTemplates") or []:
        volume = name_of(template)
        metadata: Object = {
            "name": f"{volume}-{pod_name}",
            "namespace": stateful_set["metadata"]["namespace"],
            "labels": {**labels_of(template), **labels},
        }
        if template["metadata"].get("annotations"):
            metadata["annotations"] = dict(template["metadata"]["annotations"])
        made[volume] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": template["spec"],
        }
    return made


def replica_of(stateful_set: Object, revision: Object, ordinal: int) -> Object:
    """The pod with an ordinal, of a revision's template."""
    name = f"{name_of(stateful_set)}-{ordinal}"
    pod = pod_of(stateful_set, template_of(revision), name)
    pod["metadata"]["labels"] |= {POD_LABEL: name_of(revision), POD_NAME: name, POD_INDEX: str(ordinal)}
    spec = pod["spec"]
    spec["hostname"] = name
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claims = claims_of(stateful_set, ordinal)
    kept = [volume for volume in spec.get("volumes") or [] if volume["name"] not in claims]
    claimed = [
        {"name": volume, "persistentVolumeClaim": {"claimName": name_of(claim)}} for volume, claim in claims.items()
    ]
    if kept or claimed:
        spec["volumes"] = [*claimed, *kept]
    return pod


# -- the next step ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next: ordinals to create (of the current revision, when in ``old``), pods to delete."""

    create: tuple[int, ...] = ()
    old: frozenset[int] = frozenset()
    delete: tuple[Object, ...] = ()


def plan(stateful_set: Object, pods: list[Object], update: str, now_ms: int) -> Plan:
    """The next step towards the wanted replicas; in order, one at a time, unless the policy is Parallel.

    Source: kubernetes pkg/controller/statefulset/stateful_set_control.go, updateStatefulSet.
    """
    spec = stateful_set["spec"]
    ordered = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    strategy = spec.get("updateStrategy") or {}
    rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
    wanted = ordinals(stateful_set)
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0) if rolling else 0
    min_ready_s = int(spec.get("minReadySeconds") or 0)
    present = {ordinal_of(pod): pod for pod in pods}
    old = frozenset(ordinal for ordinal in wanted if ordinal < wanted.start + partition)

    def is_available(pod: Object) -> bool:
        return not is_terminating(pod) and available_in_s(pod, min_ready_s, now_ms) == 0

    create: list[int] = []
    delete: list[Object] = []
    for ordinal in wanted:
        pod = present.get(ordinal)
        if pod is None:
            create.append(ordinal)
        elif has_ended(pod) and not is_terminating(pod):
            delete.append(pod)
        elif is_available(pod):
            continue
        if ordered:
            return Plan(tuple(create), old, tuple(delete))
    condemned = sorted((n for n in present if n not in wanted), reverse=True)
    unready = [n for n in sorted(present) if not is_ready(present[n])]
    for ordinal in condemned:
        pod = present[ordinal]
        # A pod that is not ready may go in its turn, but none before it may lose its neighbour meanwhile.
        if ordered and (is_terminating(pod) or (not is_ready(pod) and ordinal != unready[0])):
            return Plan(tuple(create), old, tuple(delete))
        if not is_terminating(pod):
            delete.append(pod)
            if ordered:
                return Plan(tuple(create), old, tuple(delete))
    if create or delete or not rolling:
        return Plan(tuple(create), old, tuple(delete))
    left = _unavailable_max(strategy, len(wanted))
    for ordinal in reversed(wanted[partition:]):
        if left <= 0:
            break
        pod = present[ordinal]
        if labels_of(pod).get(POD_LABEL) != update and not is_terminating(pod):
            delete.append(pod)
            left -= 1
        elif not is_available(pod):
            left -= 1
    return Plan(delete=tuple(delete))


def _unavailable_max(strategy: Object, replicas: int) -> int:
    value = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
    if isinstance(value, str):
        value = math.ceil(int(value.removesuffix("%")) * replicas / 100)
    return max(1, int(value))


def status_of(stateful_set: Object, pods: list[Object], current: str, update: str, now_ms: int) -> Object:
    """The status that the pods amount to; a finished rollout makes the update revision the current one."""
    spec = stateful_set["spec"]
    min_ready_s = int(spec.get("minReadySeconds") or 0)
    living = [pod for pod in pods if not is_terminating(pod) and not has_ended(pod)]

    def of_revision(name: str) -> int:
        return sum(labels_of(pod).get(POD_LABEL) == name for pod in living)

    status: Object = {
        "observedGeneration": stateful_set["metadata"].get("generation", 0),
        "replicas": len(pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(available_in_s(pod, min_ready_s, now_ms) == 0 for pod in pods),
        "currentReplicas": of_revision(current),
        "updatedReplicas": of_revision(update),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": (stateful_set.get("status") or {}).get("collisionCount") or 0,
    }
    rolling = (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    wanted = wanted_of(stateful_set)
    counts = {status[name] for name in ("replicas", "readyReplicas", "updatedReplicas")}
    if rolling and counts == {wanted}:
        status["currentReplicas"] = status["updatedReplicas"]
        status["currentRevision"] = update
    return status


class StatefulSetController(Controller):
    """Takes each set one step further whenever its pods change."""

    name = "statefulset-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._sets = informers.of(STATEFUL_SETS)
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._revisions = Revisions(client, informers, STATEFUL_SETS, HASH_LABEL)
        self._events = EventRecorder(client, self.name)
        self._pods = PodControl(
            client,
            informers,
            STATEFUL_SETS,
            self.queue,
            self._events,
            created="Create Pod {pod} in StatefulSet {owner} successful",
            deleted="Delete Pod {pod} in StatefulSet {owner} successful",
        )

    async def reconcile(self, key: Key) -> None:
        """One step of one set."""
        stateful_set = self._sets.cache.get(key)
        if stateful_set is None or is_terminating(stateful_set):
            return
        prefix = f"{key[1]}-"
        pods = [pod for pod in await self._pods.claimed(stateful_set) if name_of(pod).startswith(prefix)]
        history = await self._revisions.history(stateful_set)
        update = name_of(history.update)
        current = (stateful_set.get("status") or {}).get("currentRevision") or update
        if history.named(current) is None:
            current = update
        now_ms = clock.now_ms()
        error: FlyballError | None = None
        if self._pods.settled(key):
            error = await self._act(stateful_set, plan(stateful_set, pods, update, now_ms), history, current)
        status = status_of(stateful_set, pods, current, update, now_ms)
        change = status_change(stateful_set.get("status"), status, zeros=("replicas", "collisionCount"))
        if change is not None:
            await self.client.patch(STATEFUL_SETS, key[1], change, key[0], "status")
        live = {current, *(labels_of(pod).get(POD_LABEL, "") for pod in pods)}
        await self._revisions.trim(stateful_set, history, live)
        min_ready_s = int(stateful_set["spec"].get("minReadySeconds") or 0)
        wait_s = soonest_available_s(pods, min_ready_s, now_ms)
        if wait_s is not None:
            self.queue.add_after(key, wait_s + 0.05)
        if error is not None:
            raise error

    async def _act(self, stateful_set: Object, planned: Plan, history: History, current: str) -> FlyballError | None:
        await self._keep_claims(stateful_set)
        if planned.delete:
            await self._let_claims_go(stateful_set, planned.delete)
            error = await self._pods.delete(stateful_set, planned.delete)
            if error is not None:
                return error
        if not planned.create:
            return None
        pods = []
        for ordinal in planned.create:
            await self._ensure_claims(stateful_set, ordinal)
            revision = (history.named(current) if ordinal in planned.old else None) or history.update
            pods.append(replica_of(stateful_set, revision, ordinal))
        return await self._pods.create(stateful_set, pods)

    # -- claims --------------------------------------------------------------------------------------------------

    async def _ensure_claims(self, stateful_set: Object, ordinal: int) -> None:
        for claim in claims_of(stateful_set, ordinal).values():
            namespace, name = claim["metadata"]["namespace"], name_of(claim)
            found = self._claims.cache.get((namespace, name))
            if found is not None and not is_terminating(found):
                continue
            if found is not None:
                raise KubeApiError(409, "Conflict", f'persistentvolumeclaim "{name}" is being deleted')
            if _retention(stateful_set, "whenDeleted") == "Delete":
                claim["metadata"]["ownerReferences"] = [controller_reference(stateful_set)]
            try:
                await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim, namespace)
            except KubeApiError as exc:
                if exc.code != 409:
                    raise
                continue
            pod = f"{name_of(stateful_set)}-{ordinal}"
            message = f"Create Claim {name} Pod {pod} in StatefulSet {name_of(stateful_set)} success"
            await self._events.event(stateful_set, "Normal", "SuccessfulCreate", message)

    def _claims_for(self, stateful_set: Object, ordinal: int) -> list[Object]:
        names = [(c["metadata"]["namespace"], name_of(c)) for c in claims_of(stateful_set, ordinal).values()]
        return [claim for name in names if (claim := self._claims.cache.get(name)) is not None]

    async def _keep_claims(self, stateful_set: Object) -> None:
        """The set owns its claims exactly when they are to be deleted with it."""
        if not stateful_set["spec"].get("volumeClaimTemplates"):
            return
        owned = _retention(stateful_set, "whenDeleted") == "Delete"
        uid = stateful_set["metadata"]["uid"]
        for ordinal in ordinals(stateful_set):
            for claim in self._claims_for(stateful_set, ordinal):
                references = claim["metadata"].get("ownerReferences") or []
                if owned == (uid in owner_uids(claim)):
                    continue
                kept = [item for item in references if item.get("uid") != uid]
                await self._set_owners(claim, [*kept, controller_reference(stateful_set)] if owned else kept)

    async def _let_claims_go(self, stateful_set: Object, pods: tuple[Object, ...]) -> None:
        """The claims of replicas that are scaled away go with their pods, when the set says so."""
        if _retention(stateful_set, "whenScaled") != "Delete":
            return
        for pod in pods:
            if ordinal_of(pod) in ordinals(stateful_set):
                continue
            reference = {"apiVersion": PODS.api_version, "kind": PODS.kind, "name": name_of(pod)}
            reference["uid"] = pod["metadata"]["uid"]
            for claim in self._claims_for(stateful_set, ordinal_of(pod)):
                await self._set_owners(claim, [reference])

    async def _set_owners(self, claim: Object, owners: list[Any]) -> None:
        change = {"metadata": {"uid": claim["metadata"]["uid"], "ownerReferences": owners or None}}
        await self.client.patch(PERSISTENT_VOLUME_CLAIMS, name_of(claim), change, claim["metadata"]["namespace"])


def _retention(stateful_set: Object, when: str) -> str:
    policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return str(policy.get(when) or "Retain")
