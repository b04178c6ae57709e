"""What controllers of pods share: expectations, creation in slow start, deletion, adoption and release."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import EventRecorder, Informer, KubeClient, Resource
from flyball.kube.kinds import PODS, REPLICATION_CONTROLLERS
from flyball.localcluster.workloads.controller import (
    Informers,
    Key,
    Object,
    by_controller,
    key_of,
    orphans_by_namespace,
)
from flyball.localcluster.workloads.objects import (
    controller_of,
    controller_reference,
    is_active,
    is_terminating,
    labels_of,
    name_of,
)
from flyball.localcluster.workloads.queue import WorkQueue
from flyball.model.selectors import Selector, selector_of, selector_of_labels

EXPECTATION_MAX_S = 60.0
PARALLEL_MAX = 32  # more requests at once would only open more connections


def pod_of(owner: Object, template: Object, name: str = "") -> Object:
    """A new pod from a template, controlled by its owner; without a name the server makes one of ``generateName``."""
    metadata = template.get("metadata") or {}
    made: Object = {
        "generateName": f"{name_of(owner)}-",
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(metadata.get("labels") or {}),
        "ownerReferences": [controller_reference(owner)],
    }
    if name:
        made["name"] = name
    if metadata.get("annotations"):
        made["annotations"] = dict(metadata["annotations"])
    if metadata.get("finalizers"):
        made["finalizers"] = list(metadata["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": dict(template.get("spec") or {})}


def selects(owner: Object, obj: Object) -> bool:
    """Whether the object has the labels that the owner's selector asks for."""
    return selector_for(owner).matches(labels_of(obj))


def selector_for(owner: Object) -> Selector:
    """Which pods an owner asks for; a ReplicationController's selector is of labels alone."""
    selector = owner["spec"].get("selector")
    return selector_of_labels(selector) if owner.get("kind") == REPLICATION_CONTROLLERS.kind else selector_of(selector)


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


class PodControl:
    """The pods of one kind of owner, over shared informers.

    Args:
        resource: the owners' kind.
        queue: the controller's; a change of an owner, or of a pod that it controls or could adopt, queues its key.
        created, deleted: the messages of events, with ``{pod}`` and ``{owner}``.
    """

    def __init__(
        self,
        client: KubeClient,
        informers: Informers,
        resource: Resource,
        queue: "WorkQueue[Key]",
        events: EventRecorder,
        *,
        created: str = "Created pod: {pod}",
        deleted: str = "Deleted pod: {pod}",
    ) -> None:
        self._client = client
        self._resource = resource
        self._queue = queue
        self._events = events
        self._created, self._deleted = created, deleted
        self._owners: Informer[Object] = informers.of(resource)
        pods = informers.of(PODS)
        self._by_owner = informers.index(PODS, by_controller)
        self._orphans = informers.index(PODS, orphans_by_namespace)
        self._expectations = Expectations()
        self._owners.add_handler(self._on_owner)
        pods.add_handler(self._on_pod)

    def _on_owner(self, change: str, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        if change == "DELETED":
            self._expectations.forget(key)
        if old is not None and new is not None and _asked(old) == _asked(new):
            self._queue.add_gathered(key, self._by_owner.count(new["metadata"]["uid"]))  # its status: our own writing
        else:
            self._queue.add(key)

    def _on_pod(self, change: str, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            reference = controller_of(pod) if pod is not None else None
            if pod is None or reference is None or reference.get("kind") != self._resource.kind:
                continue
            key = (pod["metadata"]["namespace"], reference["name"])
            if change == "ADDED":
                self._expectations.created(key)
            if change == "DELETED" or is_terminating(pod):
                self._expectations.deleted(key, pod["metadata"]["uid"])
            self._queue.add_gathered(key, self._by_owner.count(reference["uid"]))
        if new is not None and controller_of(new) is None:
            for key, owner in self._owners.cache.items():
                if key[0] == new["metadata"]["namespace"] and selects(owner, new):
                    self._queue.add(key)

    def settled(self, key: Key) -> bool:
        """Whether the cache shows everything that this controller did to the owner's pods."""
        return self._expectations.met(key, clock.monotonic_s())

    def controlled(self, owner: Object) -> list[Object]:
        """The pods under the owner's control, terminating ones too."""
        return self._by_owner.get(owner["metadata"]["uid"])

    async def claimed(self, owner: Object) -> list[Object]:
        """The owner's pods, after adopting orphans that match and letting go of pods that no longer do."""
        pods = self.controlled(owner)
        if is_terminating(owner):
            return pods
        pods += await self._adopted(owner)
        chosen = selector_for(owner)
        for pod in [pod for pod in pods if not is_terminating(pod) and not chosen.matches(labels_of(pod))]:
            await self._release(owner, pod)
            pods.remove(pod)
        return pods

    async def create(self, owner: Object, pods: Sequence[Object]) -> FlyballError | None:
        """Creates all; the first failure stops the rest.

        The batches double: a quota or a webhook that refuses everything is asked once, not five hundred times.
        """
        key = key_of(owner)
        self._expectations.expect(key, clock.monotonic_s(), creations=len(pods))
        done, batch = 0, 1
        while done < len(pods):
            chosen = pods[done : done + batch]
            results = await asyncio.gather(*(self._create(owner, pod) for pod in chosen), return_exceptions=True)
            done += len(chosen)
            failures = [result for result in results if isinstance(result, BaseException)]
            if failures:
                self._expectations.created(key, len(failures) + len(pods) - done)
                return first_failure(failures)
            batch = min(2 * batch, PARALLEL_MAX)
        return None

    async def delete(self, owner: Object, pods: Iterable[Object]) -> FlyballError | None:
        """Deletes all; returns the first failure."""
        key, chosen = key_of(owner), list(pods)
        uids = {pod["metadata"]["uid"] for pod in chosen}
        self._expectations.expect(key, clock.monotonic_s(), deletions=uids)
        failures: list[BaseException] = []
        for start in range(0, len(chosen), PARALLEL_MAX):
            batch = (self._delete(key, owner, pod) for pod in chosen[start : start + PARALLEL_MAX])
            results = await asyncio.gather(*batch, return_exceptions=True)
            failures += [result for result in results if isinstance(result, BaseException)]
        return first_failure(failures) if failures else None

    async def _create(self, owner: Object, wanted: Object) -> None:
        named = wanted["metadata"].get("name")
        try:
            pod = await self._client.create(PODS, wanted, owner["metadata"]["namespace"])
        except FlyballError as exc:
            if named and isinstance(exc, KubeApiError) and exc.code == 409:
                raise  # our view was stale: it is there already, or still going
            await self._events.event(owner, "Warning", "FailedCreate", f"Error creating: {exc}")
            raise
        message = self._created.format(pod=name_of(pod), owner=name_of(owner))
        await self._events.event(owner, "Normal", "SuccessfulCreate", message)

    async def _delete(self, key: Key, owner: Object, pod: Object) -> None:
        name, uid = name_of(pod), pod["metadata"]["uid"]
        try:
            await self._client.delete(PODS, name, key[0], uid=uid)
        except FlyballError as exc:
            self._expectations.deleted(key, uid)
            if isinstance(exc, KubeApiError) and exc.code == 404:
                return
            await self._events.event(owner, "Warning", "FailedDelete", f"Error deleting: {exc}")
            raise
        message = self._deleted.format(pod=name, owner=name_of(owner))
        await self._events.event(owner, "Normal", "SuccessfulDelete", message)

    async def _adopted(self, owner: Object) -> list[Object]:
        namespace = owner["metadata"]["namespace"]
        adopted = []
        for pod in self._orphans.get(namespace):
            if not is_active(pod) or not selects(owner, pod):
                continue
            # The live object decides: the cache may show an owner that is being deleted as healthy.
            live = await self._client.get(self._resource, name_of(owner), namespace)
            if live["metadata"]["uid"] != owner["metadata"]["uid"] or is_terminating(live):
                break
            references = [*(pod["metadata"].get("ownerReferences") or []), controller_reference(owner)]
            change = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": references}}
            adopted.append(await self._client.patch(PODS, name_of(pod), change, namespace))
        return adopted

    async def _release(self, owner: Object, pod: Object) -> None:
        uid = owner["metadata"]["uid"]
        kept = [item for item in pod["metadata"].get("ownerReferences") or [] if item.get("uid") != uid]
        change = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": kept or None}}
        try:
            await self._client.patch(PODS, name_of(pod), change, pod["metadata"]["namespace"])
        except KubeApiError as exc:
            if exc.code != 404:
                raise


def _asked(owner: Object) -> tuple[object, ...]:
    metadata = owner["metadata"]
    return metadata.get("generation"), metadata.get("deletionTimestamp"), metadata["uid"]


def first_failure(failures: list[BaseException]) -> FlyballError:
    """The first, when all are known errors.

    Raises:
        BaseException: the first that is not.
    """
    for failure in failures:
        if not isinstance(failure, FlyballError):
            raise failure
    found = failures[0]
    assert isinstance(found, FlyballError)
    return found
