"""Deployments: one ReplicaSet a template, and the way from the old ones to the new one."""

import json
import math
from typing import Any

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import DEPLOYMENTS, PODS, REPLICA_SETS
from flyball.localcluster.workloads.controller import Controller, Index, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import (
    annotations_of,
    condition,
    controller_of,
    controller_reference,
    controller_uid,
    is_active,
    is_terminating,
    labels_of,
    status_change,
    with_condition,
)
from flyball.model.selectors import selector_of

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes: rand.SafeEncodeString's alphabet
HISTORY_DEFAULT = 10
DEADLINE_DEFAULT_S = 600


def template_hash(template: Object, collisions: int = 0) -> str:
    """A short name for a pod template, safe in names and labels; FNV-1a over its canonical JSON."""
    text = json.dumps(_without_hash(template), sort_keys=True, separators=(",", ":"))
    value = 0x811C9DC5
    for byte in (text + (str(collisions) if collisions else "")).encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(value))


def same_template(left: Object, right: Object) -> bool:
    """Whether two pod templates are equal but for the hash label."""
    return _without_hash(left) == _without_hash(right)


def _without_hash(template: Object) -> Object:
    metadata = dict(template.get("metadata") or {})
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH_LABEL}
    metadata.pop("creationTimestamp", None)
    return {**template, "metadata": {**metadata, "labels": labels}}


def wanted_of(obj: Object) -> int:
    """``spec.replicas``, 1 when it is absent."""
    value = obj["spec"].get("replicas")
    return 1 if value is None else int(value)


def available_of(replica_set: Object) -> int:
    """Available pods, never more than are wanted: a status may lag behind a scale-down."""
    status = replica_set.get("status") or {}
    return min(int(status.get("availableReplicas") or 0), wanted_of(replica_set))


def bounds(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; percentages of replicas round up and down; never both 0.

    Source: kubernetes pkg/controller/deployment/util, ResolveFenceposts.
    """
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    replicas = wanted_of(deployment)
    surge = _in_pods(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _in_pods(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _in_pods(value: int | str, replicas: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return math.ceil(percent * replicas / 100) if up else percent * replicas // 100


def revision_of(obj: Object) -> int:
    """The revision annotation; 0 when absent or not a number."""
    try:
        return int(annotations_of(obj).get(REVISION, "0"))
    except ValueError:
        return 0


def by_age(replica_sets: list[Object]) -> list[Object]:
    """Oldest first; names break ties."""
    return sorted(
        replica_sets, key=lambda item: (item["metadata"].get("creationTimestamp") or "", item["metadata"]["name"])
    )


def new_replica_set_of(deployment: Object, replica_sets: list[Object]) -> Object | None:
    """The oldest ReplicaSet whose template is the deployment's."""
    template = deployment["spec"]["template"]
    for replica_set in by_age(replica_sets):
        if same_template(replica_set["spec"].get("template") or {}, template):
            return replica_set
    return None


def is_scaling(deployment: Object, replica_sets: list[Object]) -> bool:
    """Whether replicas were changed since an active ReplicaSet was last sized."""
    return any(
        annotations_of(item).get(DESIRED) not in (None, str(wanted_of(deployment)))
        for item in replica_sets
        if wanted_of(item) > 0
    )


Sizes = dict[str, int]


def plan_scale(deployment: Object, new: Object | None, olds: list[Object]) -> Sizes:
    """Sizes after a change of ``spec.replicas``, in the midst of a rollout in proportion; only changed ones.

    Source: kubernetes pkg/controller/deployment/sync.go, scale.
    """
    wanted = wanted_of(deployment)
    everyone = olds + ([new] if new is not None else [])
    active = [item for item in everyone if wanted_of(item) > 0]
    if len(active) <= 1:
        target = active[0] if active else new or (by_age(olds)[-1] if olds else None)
        return {} if target is None or wanted_of(target) == wanted else {_name(target): wanted}
    saturated = (
        new is not None and wanted_of(new) == wanted and annotations_of(new).get(DESIRED) == str(wanted)
        and available_of(new) == wanted
    )  # fmt: skip
    if saturated:
        return {_name(item): 0 for item in olds if wanted_of(item) > 0}
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return {}
    allowed = wanted + bounds(deployment)[0] if wanted > 0 else 0
    total = sum(map(wanted_of, active))
    to_add = allowed - total
    oldest_first = by_age(active)
    # Bigger first; among equals the newer grows first and the older shrinks first.
    ordered = sorted(oldest_first[::-1] if to_add > 0 else oldest_first, key=wanted_of, reverse=True)
    sizes: Sizes = {}
    added = 0
    for item in ordered:
        size = wanted_of(item)
        share = 0
        if to_add != 0:
            old_maximum = int(annotations_of(item).get(MAXIMUM) or total)
            share = _round_half_away(size * allowed / (old_maximum or 1)) - size
            left = to_add - added
            share = min(max(share, 0), left) if to_add > 0 else max(min(share, 0), left)
        sizes[_name(item)] = size + share
        added += share
    if ordered and to_add != added:
        first = _name(ordered[0])
        sizes[first] = max(0, sizes[first] + to_add - added)
    return {
        name: size for name, size in sizes.items() if size != next(wanted_of(i) for i in active if _name(i) == name)
    }


def _round_half_away(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def plan_rolling(deployment: Object, new: Object, olds: list[Object]) -> Sizes:
    """The next step of a rolling update: grow the new one, or shrink the old ones; only changed sizes.

    Source: kubernetes pkg/controller/deployment/rolling.go.
    """
    wanted = wanted_of(deployment)
    surge, unavailable = bounds(deployment)
    size = wanted_of(new)
    total = size + sum(map(wanted_of, olds))
    if size > wanted:
        return {_name(new): wanted}
    if size < wanted and total < wanted + surge:
        return {_name(new): size + min(wanted + surge - total, wanted - size)}
    if not any(map(wanted_of, olds)):
        return {}
    available_min = wanted - unavailable
    removable = total - available_min - (size - available_of(new))
    if removable <= 0:
        return {}
    sizes = {_name(item): wanted_of(item) for item in by_age(olds)}
    available = {_name(item): available_of(item) for item in olds}
    before = dict(sizes)
    left = removable
    for name in sizes:  # unhealthy pods go first: they take nothing from availability
        take = min(left, sizes[name] - available[name])
        if sizes[name] and take > 0:
            sizes[name] -= take
            left -= take
    spare = sum(available.values()) + available_of(new) - available_min
    for name in sizes:
        take = min(sizes[name], spare, left)
        if take > 0:
            sizes[name] -= take
            spare -= take
            left -= take
    return {name: value for name, value in sizes.items() if value != before[name]}


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether every pod is of the new template and available."""
    wanted = wanted_of(deployment)
    return bool(
        status["updatedReplicas"] == wanted
        and status["replicas"] == wanted
        and status["availableReplicas"] == wanted
        and status["observedGeneration"] >= deployment["metadata"].get("generation", 0)
    )


def status_of(deployment: Object, new: Object | None, olds: list[Object], now_ms: int) -> Object:
    """The status that the ReplicaSets amount to, conditions included.

    Source: kubernetes pkg/controller/deployment/{sync,progress}.go.
    """
    everyone = olds + ([new] if new is not None else [])
    old_status = deployment.get("status") or {}
    now = clock.rfc3339(now_ms)

    def total(field: str) -> int:
        return sum(int((item.get("status") or {}).get(field) or 0) for item in everyone)

    status: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": total("replicas"),
        "updatedReplicas": int(((new or {}).get("status") or {}).get("replicas") or 0),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": total("availableReplicas"),
        "collisionCount": old_status.get("collisionCount"),
    }
    status["unavailableReplicas"] = max(0, sum(map(wanted_of, everyone)) - status["availableReplicas"])
    enough = status["availableReplicas"] >= wanted_of(deployment) - bounds(deployment)[1]
    available = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        "lastUpdateTime": now,
    }
    conditions = with_condition(old_status.get("conditions") or [], available, now, keep_update_time=True)
    progressing = _progressing(deployment, new, status, old_status, now_ms)
    if progressing is not None:
        conditions = with_condition(conditions, progressing, now, keep_update_time=_settled(progressing))
    failures = [found for item in everyone if (found := condition(item, "ReplicaFailure")) is not None]
    conditions = [item for item in conditions if item["type"] != "ReplicaFailure"]
    if failures:
        carried = {name: failures[0].get(name, "") for name in ("type", "status", "reason", "message")}
        conditions = with_condition(
            [*conditions, *[c for c in old_status.get("conditions") or [] if c["type"] == "ReplicaFailure"]],
            {**carried, "lastUpdateTime": now},
            now,
            keep_update_time=True,
        )
    status["conditions"] = conditions
    return status


def _settled(progressing: Object) -> bool:
    """Progress that goes on renews its time, so that the deadline counts from the last step."""
    return str(progressing["reason"]) != "ReplicaSetUpdated"


def _progressing(
    deployment: Object, new: Object | None, status: Object, old_status: Object, now_ms: int
) -> Object | None:
    spec = deployment["spec"]
    current = condition(deployment, "Progressing")
    named = f'ReplicaSet "{_name(new)}"' if new is not None else f'Deployment "{_name(deployment)}"'

    def made(state: str, reason: str, message: str) -> Object:
        return {
            "type": "Progressing",
            "status": state,
            "reason": reason,
            "message": message,
            "lastUpdateTime": clock.rfc3339(now_ms),
        }

    if spec.get("paused"):
        return made("Unknown", "DeploymentPaused", "Deployment is paused")
    if current is not None and current.get("reason") == "DeploymentPaused":
        return made("Unknown", "DeploymentResumed", "Deployment is resumed")
    if is_complete(deployment, status):
        return made("True", "NewReplicaSetAvailable", f"{named} has successfully progressed.")
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        # A pod lost after the rollout is no rollout; only a new template starts the clock again.
        if current is not None and (new is None or status["updatedReplicas"] == status["replicas"]):
            return None
        return made("True", "NewReplicaSetCreated", f'Created new replica set "{_name(new)}"') if new else None
    advanced = (
        status["updatedReplicas"] > int(old_status.get("updatedReplicas") or 0)
        or status["readyReplicas"] > int(old_status.get("readyReplicas") or 0)
        or status["availableReplicas"] > int(old_status.get("availableReplicas") or 0)
        or status["replicas"] - status["updatedReplicas"]
        < int(old_status.get("replicas") or 0) - int(old_status.get("updatedReplicas") or 0)
    )
    if advanced:
        return made("True", "ReplicaSetUpdated", f"{named} is progressing.")
    if current.get("reason") != "ProgressDeadlineExceeded" and deadline_in_s(deployment, now_ms) == 0:
        return made("False", "ProgressDeadlineExceeded", f"{named} has timed out progressing.")
    return None


def deadline_in_s(deployment: Object, now_ms: int) -> float | None:
    """Seconds until progress is overdue, 0 when it is; None while nothing is awaited."""
    current = condition(deployment, "Progressing")
    if current is None or current.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return None
    deadline_s: int | None = deployment["spec"].get("progressDeadlineSeconds", DEADLINE_DEFAULT_S)
    if deployment["spec"].get("paused") or deadline_s is None or not current.get("lastUpdateTime"):
        return None
    since_ms = clock.parse_rfc3339_ms(current["lastUpdateTime"])
    return max(0.0, (since_ms + deadline_s * 1000 - now_ms) / 1000)


def surplus_history(deployment: Object, olds: list[Object]) -> list[Object]:
    """Old ReplicaSets without pods beyond ``revisionHistoryLimit``, oldest revision first."""
    limit = deployment["spec"].get("revisionHistoryLimit", HISTORY_DEFAULT)
    idle = [
        item
        for item in olds
        if wanted_of(item) == 0 and not (item.get("status") or {}).get("replicas") and not is_terminating(item)
    ]
    return sorted(idle, key=revision_of)[: max(0, len(idle) - limit)] if limit is not None else []


def replica_set_of(deployment: Object, revision: int, replicas: int) -> Object:
    """The ReplicaSet for the deployment's template."""
    template = deployment["spec"]["template"]
    hashed = template_hash(template, (deployment.get("status") or {}).get("collisionCount") or 0)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: hashed}
    selector = deployment["spec"].get("selector") or {}
    spec: Object = {
        "replicas": replicas,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: hashed}},
        "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
    }
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{_name(deployment)}-{hashed}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels,
            "annotations": wanted_annotations(deployment, revision),
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": spec,
    }


def wanted_annotations(deployment: Object, revision: int) -> dict[str, str]:
    """The annotations of the new ReplicaSet: the deployment's own, the revision and the size it was made for."""
    copied = {name: value for name, value in annotations_of(deployment).items() if name not in _NOT_COPIED}
    return {**copied, REVISION: str(revision), **size_annotations(deployment)}


def size_annotations(deployment: Object) -> dict[str, str]:
    """What ``is_scaling`` and ``plan_scale`` compare with later."""
    wanted = wanted_of(deployment)
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + bounds(deployment)[0])}


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


class DeploymentController(Controller):
    """Rolls deployments out and reports how far they are."""

    name = "deployment-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._deployments = informers.of(DEPLOYMENTS)
        replica_sets = informers.of(REPLICA_SETS)
        pods = informers.of(PODS)
        self._by_owner = Index(replica_sets, lambda item: [controller_uid(item)] if controller_uid(item) else [])
        self._orphans = Index(
            replica_sets, lambda item: [] if controller_uid(item) else [item["metadata"]["namespace"]]
        )
        self._pods_by_owner = Index(pods, lambda pod: [controller_uid(pod)] if controller_uid(pod) else [])
        self._replica_sets = replica_sets
        self._events = EventRecorder(client, self.name)
        # What our own writes returned, until the cache is as new: a plan on a stale size would scale twice.
        self._written: dict[Key, Object] = {}
        self._deployments.add_handler(lambda _change, old, new: self.queue.add(key_of(new or old)))
        replica_sets.add_handler(self._on_replica_set)
        pods.add_handler(self._on_pod)

    def _on_replica_set(self, change: str, old: Object | None, new: Object | None) -> None:
        replica_set = new or old or {}
        key = key_of(replica_set)
        written = self._written.get(key)
        if written is not None and (change == "DELETED" or _is_as_new(replica_set, written)):
            del self._written[key]
        reference = controller_of(replica_set)
        if reference is not None and reference.get("kind") == "Deployment":
            self.queue.add((key[0], reference["name"]))
        elif reference is None and new is not None:
            for other, deployment in self._deployments.cache.items():
                if other[0] == key[0] and _selects(deployment, replica_set):
                    self.queue.add(other)

    def _on_pod(self, change: str, old: Object | None, _new: Object | None) -> None:
        # Recreate waits for the last old pod to go, which its ReplicaSet's status no longer counts.
        if change != "DELETED" or old is None:
            return
        reference = controller_of(old)
        replica_set = self._replica_sets.cache.get((old["metadata"]["namespace"], (reference or {}).get("name", "")))
        owner = controller_of(replica_set) if replica_set is not None else None
        if owner is not None:
            self.queue.add((old["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """One step of one deployment."""
        deployment = self._deployments.cache.get(key)
        if deployment is None or is_terminating(deployment):
            return
        replica_sets = await self._owned(deployment)
        new = new_replica_set_of(deployment, replica_sets)
        olds = [item for item in replica_sets if item is not new and (new is None or _name(item) != _name(new))]
        if deployment["spec"].get("paused"):
            for name, size in plan_scale(deployment, new, olds).items():
                new, olds = await self._resize(deployment, name, size, new, olds)
        elif is_scaling(deployment, replica_sets):
            sizes = plan_scale(deployment, new, olds)
            for name, size in sizes.items():
                new, olds = await self._resize(deployment, name, size, new, olds)
            for item in [*olds, *([new] if new else [])]:
                if wanted_of(item) > 0 and _name(item) not in sizes:
                    await self._annotate(item, size_annotations(deployment))
        elif (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            new, olds = await self._recreate(deployment, new, olds)
        else:
            new, olds = await self._roll(deployment, new, olds)
        await self._report(deployment, new, olds)

    async def _recreate(
        self, deployment: Object, new: Object | None, olds: list[Object]
    ) -> tuple[Object | None, list[Object]]:
        for name in [_name(item) for item in olds if wanted_of(item) > 0]:
            new, olds = await self._resize(deployment, name, 0, new, olds)
        if any(
            is_active(pod) or is_terminating(pod)
            for item in olds
            for pod in self._pods_by_owner.get(item["metadata"]["uid"])
        ):
            return new, olds
        new = await self._ensure_new(deployment, new, olds, wanted_of(deployment))
        if wanted_of(new) != wanted_of(deployment):
            return await self._resize(deployment, _name(new), wanted_of(deployment), new, olds)
        return new, olds

    async def _roll(
        self, deployment: Object, new: Object | None, olds: list[Object]
    ) -> tuple[Object | None, list[Object]]:
        room = wanted_of(deployment) + bounds(deployment)[0] - sum(map(wanted_of, olds))
        new = await self._ensure_new(deployment, new, olds, max(0, min(wanted_of(deployment), room)))
        result: tuple[Object | None, list[Object]] = (new, olds)
        for name, size in plan_rolling(deployment, new, olds).items():
            result = await self._resize(deployment, name, size, *result)
        return result

    async def _owned(self, deployment: Object) -> list[Object]:
        metadata = deployment["metadata"]
        found = {key_of(item): item for item in self._by_owner.get(metadata["uid"])}
        for key, written in self._written.items():
            if controller_uid(written) == metadata["uid"]:
                found[key] = written
        for orphan in self._orphans.get(metadata["namespace"]):
            if _selects(deployment, orphan) and not is_terminating(orphan):
                change = {
                    "metadata": {
                        "uid": orphan["metadata"]["uid"],
                        "ownerReferences": [controller_reference(deployment)],
                    }
                }
                adopted = await self.client.patch(REPLICA_SETS, _name(orphan), change, metadata["namespace"])
                found[key_of(adopted)] = adopted
        return by_age([item for item in found.values() if not is_terminating(item)])

    async def _ensure_new(self, deployment: Object, new: Object | None, olds: list[Object], replicas: int) -> Object:
        highest = max(map(revision_of, olds), default=0)
        namespace = deployment["metadata"]["namespace"]
        if new is not None:
            revision = revision_of(new)
            annotations = wanted_annotations(deployment, max(highest + 1, revision))
            history = annotations_of(new).get(REVISION_HISTORY, "")
            if revision and revision <= highest:  # a rollback: the old number is kept for rollout history
                annotations[REVISION_HISTORY] = f"{history},{revision}" if history else str(revision)
            # The size annotations say for which size the ReplicaSet was last planned; only a resize changes them.
            for name in (DESIRED, MAXIMUM):
                annotations.pop(name)
            new = await self._annotate(new, annotations, deployment["spec"].get("minReadySeconds") or 0)
        else:
            wanted = replica_set_of(deployment, highest + 1, replicas)
            try:
                new = await self.client.create(REPLICA_SETS, wanted, namespace)
            except KubeApiError as exc:
                if exc.code != 409:
                    raise
                new = await self._collided(deployment, wanted)
            self._remember(new)
            if replicas:
                message = f"Scaled up replica set {_name(new)} from 0 to {replicas}"
                await self._events.event(deployment, "Normal", "ScalingReplicaSet", message)
        revision_text = annotations_of(new).get(REVISION, "")
        if annotations_of(deployment).get(REVISION) != revision_text:
            change = {"metadata": {"annotations": {REVISION: revision_text}}}
            await self.client.patch(DEPLOYMENTS, _name(deployment), change, namespace)
        return new

    async def _collided(self, deployment: Object, wanted: Object) -> Object:
        """The name is taken: by ours, which the cache has not shown yet, or by a template with the same hash."""
        namespace = deployment["metadata"]["namespace"]
        found = await self.client.get(REPLICA_SETS, _name(wanted), namespace)
        ours = controller_uid(found) == deployment["metadata"]["uid"]
        if ours and same_template(found["spec"]["template"], deployment["spec"]["template"]):
            return found
        count = ((deployment.get("status") or {}).get("collisionCount") or 0) + 1
        change = {"status": {"collisionCount": count}}
        await self.client.patch(DEPLOYMENTS, _name(deployment), change, namespace, "status")
        raise KubeApiError(409, "AlreadyExists", f"replicaset {_name(wanted)}: its hash collides; taking another")

    async def _annotate(
        self, replica_set: Object, annotations: dict[str, str], min_ready_s: int | None = None
    ) -> Object:
        change: Object = {}
        if not annotations.items() <= annotations_of(replica_set).items():
            change["metadata"] = {"annotations": annotations}
        if min_ready_s is not None and min_ready_s != (replica_set["spec"].get("minReadySeconds") or 0):
            change["spec"] = {"minReadySeconds": min_ready_s}
        if not change:
            return replica_set
        metadata = replica_set["metadata"]
        written = await self.client.patch(REPLICA_SETS, metadata["name"], change, metadata["namespace"])
        self._remember(written)
        return written

    async def _resize(
        self, deployment: Object, name: str, size: int, new: Object | None, olds: list[Object]
    ) -> tuple[Object | None, list[Object]]:
        everyone = [*olds, *([new] if new is not None else [])]
        before = wanted_of(next(item for item in everyone if _name(item) == name))
        change: Object = {"metadata": {"annotations": size_annotations(deployment)}, "spec": {"replicas": size}}
        written = await self.client.patch(REPLICA_SETS, name, change, deployment["metadata"]["namespace"])
        self._remember(written)
        if size != before:
            direction = "up" if size > before else "down"
            message = f"Scaled {direction} replica set {name} from {before} to {size}"
            await self._events.event(deployment, "Normal", "ScalingReplicaSet", message)
        if new is not None and _name(new) == name:
            return written, olds
        return new, [written if _name(item) == name else item for item in olds]

    def _remember(self, written: Object) -> None:
        key = key_of(written)
        cached = self._replica_sets.cache.get(key)
        if cached is None or not _is_as_new(cached, written):
            self._written[key] = written

    async def _report(self, deployment: Object, new: Object | None, olds: list[Object]) -> None:
        now_ms = clock.now_ms()
        key = key_of(deployment)
        status = status_of(deployment, new, olds, now_ms)
        change = status_change(deployment.get("status"), status)
        if change is not None:
            deployment = await self.client.patch(DEPLOYMENTS, key[1], change, key[0], "status")
        if is_complete(deployment, status):
            for item in surplus_history(deployment, olds):
                await self.client.delete(REPLICA_SETS, _name(item), key[0], uid=item["metadata"]["uid"])
        overdue_s = deadline_in_s(deployment, now_ms)
        if overdue_s is not None:
            self.queue.add_after(key, overdue_s + 1.0)


def _is_as_new(cached: Object, written: Object) -> bool:
    same_uid = cached["metadata"].get("uid") == written["metadata"].get("uid")
    return not same_uid or _version(cached) >= _version(written)


def _version(obj: Object) -> int:
    """Resource versions of one resource may be compared as numbers (KEP-5504)."""
    try:
        return int(obj["metadata"].get("resourceVersion") or 0)
    except ValueError:
        return 0


def _selects(deployment: Object, replica_set: Object) -> bool:
    selector: dict[str, Any] | None = deployment["spec"].get("selector")
    return selector_of(selector).matches(labels_of(replica_set))
