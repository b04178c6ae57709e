"""Deployments: one ReplicaSet a template, and the way from the old ones to the new one."""

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import DEPLOYMENTS, PODS, REPLICA_SETS
from flyball.localcluster.workloads.controller import (
    Controller,
    Informers,
    Key,
    Object,
    Written,
    by_controller,
    key_of,
    orphans_by_namespace,
)
from flyball.localcluster.workloads.deploymentstatus import deadline_in_s, is_complete, status_of
from flyball.localcluster.workloads.objects import (
    annotations_of,
    controller_of,
    controller_reference,
    controller_uid,
    is_active,
    is_terminating,
    name_of,
    status_change,
)
from flyball.localcluster.workloads.podcontrol import selects
from flyball.localcluster.workloads.rollout import (
    DESIRED,
    MAXIMUM,
    REVISION,
    REVISION_HISTORY,
    bounds,
    by_age,
    is_scaling,
    new_replica_set_of,
    plan_rolling,
    plan_scale,
    replica_set_of,
    revision_of,
    same_template,
    size_annotations,
    surplus_history,
    wanted_annotations,
    wanted_of,
)


class DeploymentController(Controller):
    """Rolls deployments out and reports how far they are."""

    name = "deployment-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._deployments = informers.of(DEPLOYMENTS)
        replica_sets = informers.of(REPLICA_SETS)
        pods = informers.of(PODS)
        self._by_owner = informers.index(REPLICA_SETS, by_controller)
        self._orphans = informers.index(REPLICA_SETS, orphans_by_namespace)
        self._pods_by_owner = informers.index(PODS, by_controller)
        self._replica_sets = replica_sets
        self._events = EventRecorder(client, self.name)
        self._written = Written(replica_sets)
        self._deployments.add_handler(lambda _change, old, new: self.queue.add(key_of(new or old)))
        replica_sets.add_handler(self._on_replica_set)
        pods.add_handler(self._on_pod)

    def _on_replica_set(self, _change: str, old: Object | None, new: Object | None) -> None:
        replica_set = new or old or {}
        key = key_of(replica_set)
        reference = controller_of(replica_set)
        if reference is not None and reference.get("kind") == "Deployment":
            self.queue.add((key[0], reference["name"]))
        elif reference is None and new is not None:
            for other, deployment in self._deployments.cache.items():
                if other[0] == key[0] and selects(deployment, replica_set):
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
        olds = [item for item in replica_sets if item is not new and (new is None or name_of(item) != name_of(new))]
        if deployment["spec"].get("paused"):
            for name, size in plan_scale(deployment, new, olds).items():
                new, olds = await self._resize(deployment, name, size, new, olds)
        elif is_scaling(deployment, replica_sets):
            sizes = plan_scale(deployment, new, olds)
            for name, size in sizes.items():
                new, olds = await self._resize(deployment, name, size, new, olds)
            for item in [*olds, *([new] if new else [])]:
                if wanted_of(item) > 0 and name_of(item) not in sizes:
                    await self._annotate(item, size_annotations(deployment))
        elif (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            new, olds = await self._recreate(deployment, new, olds)
        else:
            new, olds = await self._roll(deployment, new, olds)
        await self._report(deployment, new, olds)

    async def _recreate(
        self, deployment: Object, new: Object | None, olds: list[Object]
    ) -> tuple[Object | None, list[Object]]:
        for name in [name_of(item) for item in olds if wanted_of(item) > 0]:
            new, olds = await self._resize(deployment, name, 0, new, olds)
        if any(
            is_active(pod) or is_terminating(pod)
            for item in olds
            for pod in self._pods_by_owner.get(item["metadata"]["uid"])
        ):
            return new, olds
        new = await self._ensure_new(deployment, new, olds, wanted_of(deployment))
        if wanted_of(new) != wanted_of(deployment):
            return await self._resize(deployment, name_of(new), wanted_of(deployment), new, olds)
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
        for written in self._written.ahead():
            if controller_uid(written) == metadata["uid"]:
                found[key_of(written)] = written
        for orphan in self._orphans.get(metadata["namespace"]):
            if selects(deployment, orphan) and not is_terminating(orphan):
                change = {
                    "metadata": {
                        "uid": orphan["metadata"]["uid"],
                        "ownerReferences": [controller_reference(deployment)],
                    }
                }
                adopted = await self.client.patch(REPLICA_SETS, name_of(orphan), change, metadata["namespace"])
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
            self._written.remember(new)
            if replicas:
                message = f"Scaled up replica set {name_of(new)} from 0 to {replicas}"
                await self._events.event(deployment, "Normal", "ScalingReplicaSet", message)
        revision_text = annotations_of(new).get(REVISION, "")
        if annotations_of(deployment).get(REVISION) != revision_text:
            change = {"metadata": {"annotations": {REVISION: revision_text}}}
            # By way of the status: elsewhere a changed annotation would count a generation.
            await self.client.patch(DEPLOYMENTS, name_of(deployment), change, namespace, "status")
        return new

    async def _collided(self, deployment: Object, wanted: Object) -> Object:
        """The name is taken: by ours, which the cache has not shown yet, or by a template with the same hash."""
        namespace = deployment["metadata"]["namespace"]
        found = await self.client.get(REPLICA_SETS, name_of(wanted), namespace)
        ours = controller_uid(found) == deployment["metadata"]["uid"]
        if ours and same_template(found["spec"]["template"], deployment["spec"]["template"]):
            return found
        count = ((deployment.get("status") or {}).get("collisionCount") or 0) + 1
        change = {"status": {"collisionCount": count}}
        await self.client.patch(DEPLOYMENTS, name_of(deployment), change, namespace, "status")
        raise KubeApiError(409, "AlreadyExists", f"replicaset {name_of(wanted)}: its hash collides; taking another")

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
        self._written.remember(written)
        return written

    async def _resize(
        self, deployment: Object, name: str, size: int, new: Object | None, olds: list[Object]
    ) -> tuple[Object | None, list[Object]]:
        everyone = [*olds, *([new] if new is not None else [])]
        before = wanted_of(next(item for item in everyone if name_of(item) == name))
        change: Object = {"metadata": {"annotations": size_annotations(deployment)}, "spec": {"replicas": size}}
        written = await self.client.patch(REPLICA_SETS, name, change, deployment["metadata"]["namespace"])
        self._written.remember(written)
        if size != before:
            direction = "up" if size > before else "down"
            message = f"Scaled {direction} replica set {name} from {before} to {size}"
            await self._events.event(deployment, "Normal", "ScalingReplicaSet", message)
        if new is not None and name_of(new) == name:
            return written, olds
        return new, [written if name_of(item) == name else item for item in olds]

    async def _report(self, deployment: Object, new: Object | None, olds: list[Object]) -> None:
        now_ms = clock.now_ms()
        key = key_of(deployment)
        status = status_of(deployment, new, olds, now_ms)
        change = status_change(deployment.get("status"), status, zeros=("replicas", "terminatingReplicas"))
        if change is not None:
            deployment = await self.client.patch(DEPLOYMENTS, key[1], change, key[0], "status")
        if is_complete(deployment, status):
            for item in surplus_history(deployment, olds):
                await self.client.delete(REPLICA_SETS, name_of(item), key[0], uid=item["metadata"]["uid"])
        overdue_s = deadline_in_s(deployment, now_ms)
        if overdue_s is not None:
            self.queue.add_after(key, overdue_s + 1.0)
