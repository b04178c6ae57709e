"""ControllerRevisions: the history of a StatefulSet's or DaemonSet's pod template, in upstream's form.

``data`` is a strategic merge patch of the owner, so that ``kubectl rollout history`` and ``undo`` can apply it.
"""

from dataclasses import dataclass

from flyball.errors import KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import CONTROLLER_REVISIONS
from flyball.localcluster.workloads.controller import Informers, Object, by_controller
from flyball.localcluster.workloads.objects import (
    annotations_of,
    controller_reference,
    controller_uid,
    is_terminating,
    labels_of,
    name_of,
)
from flyball.localcluster.workloads.rollout import hash_of

HASH_LABEL = "controller.kubernetes.io/hash"
POD_LABEL = "controller-revision-hash"
HISTORY_DEFAULT = 10


def data_of(owner: Object) -> Object:
    """The patch that brings the owner back to its present template."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def template_of(revision: Object) -> Object:
    """The pod template that a revision keeps."""
    template = dict(((revision.get("data") or {}).get("spec") or {}).get("template") or {})
    template.pop("$patch", None)
    return template


def revision_object(owner: Object, number: int, label: str) -> Object:
    """The revision of the owner's present template; ``label`` carries its hash."""
    hashed = hash_of(data_of(owner), (owner.get("status") or {}).get("collisionCount") or 0)
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": f"{name_of(owner)}-{hashed}",
            "namespace": owner["metadata"]["namespace"],
            "labels": {**labels_of(owner["spec"]["template"]), label: hashed},
            "annotations": annotations_of(owner),
            "ownerReferences": [controller_reference(owner)],
        },
        "data": data_of(owner),
        "revision": number,
    }


@dataclass(frozen=True, slots=True)
class History:
    """An owner's revisions, oldest first; ``update`` is the one of its present template."""

    update: Object
    revisions: list[Object]

    def named(self, name: str) -> Object | None:
        return next((item for item in self.revisions if name_of(item) == name), None)


class Revisions:
    """Keeps the revisions of one kind of owner; ``label`` is the one that carries a revision's hash."""

    def __init__(self, client: KubeClient, informers: Informers, resource: Resource, label: str) -> None:
        self._client = client
        self._resource, self._label = resource, label
        self._informer = informers.of(CONTROLLER_REVISIONS)
        self._by_owner = informers.index(CONTROLLER_REVISIONS, by_controller)

    async def history(self, owner: Object) -> History:
        """The revisions, after making (or taking up again) the one of the present template."""
        known = [item for item in self._by_owner.get(owner["metadata"]["uid"]) if not is_terminating(item)]
        known.sort(key=lambda item: (int(item["revision"]), name_of(item)))
        wanted = data_of(owner)
        equal = next((item for item in reversed(known) if item.get("data") == wanted), None)
        if equal is None:
            made = await self._create(owner, int(known[-1]["revision"]) + 1 if known else 1)
            return History(made, [*known, made])
        if equal is not known[-1]:  # an undo: the old revision becomes the newest
            change = {"revision": int(known[-1]["revision"]) + 1}
            namespace = owner["metadata"]["namespace"]
            known.remove(equal)
            equal = await self._client.patch(CONTROLLER_REVISIONS, name_of(equal), change, namespace)
            known.append(equal)
        return History(equal, known)

    async def _create(self, owner: Object, number: int) -> Object:
        wanted = revision_object(owner, number, self._label)
        namespace = owner["metadata"]["namespace"]
        try:
            return await self._client.create(CONTROLLER_REVISIONS, wanted, namespace)
        except KubeApiError as exc:
            if exc.code != 409:
                raise
        found = await self._client.get(CONTROLLER_REVISIONS, name_of(wanted), namespace)
        if controller_uid(found) == owner["metadata"]["uid"] and found.get("data") == wanted["data"]:
            return found  # ours, which the cache has not shown yet
        count = ((owner.get("status") or {}).get("collisionCount") or 0) + 1
        await self._client.patch(
            self._resource, name_of(owner), {"status": {"collisionCount": count}}, namespace, "status"
        )
        raise KubeApiError(409, "AlreadyExists", f"controllerrevision {name_of(wanted)}: its hash collides; trying on")

    async def trim(self, owner: Object, history: History, live: set[str]) -> None:
        """Deletes the oldest revisions beyond ``revisionHistoryLimit``, never one in ``live`` (names)."""
        limit = owner["spec"].get("revisionHistoryLimit", HISTORY_DEFAULT)
        idle = [item for item in history.revisions if name_of(item) not in live | {name_of(history.update)}]
        for item in idle[: max(0, len(idle) - limit)]:
            await self._client.delete(
                CONTROLLER_REVISIONS, name_of(item), owner["metadata"]["namespace"], uid=item["metadata"]["uid"]
            )
