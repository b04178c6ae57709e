"""Claims that pods use, and volumes that are bound, outlive their deletion until nobody needs them.

Source: kubernetes pkg/controller/volume/{pvcprotection,pvprotection}.
"""

from collections.abc import Iterable
from functools import partial

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import (
    claim_keys,
    condition,
    has_ended,
    is_terminating,
    name_of,
    with_condition,
)

FINALIZERS = {
    PERSISTENT_VOLUME_CLAIMS: "kubernetes.io/pvc-protection",
    PERSISTENT_VOLUMES: "kubernetes.io/pv-protection",
}


def holds(pod: Object, claim: Key) -> bool:
    """Whether a pod keeps a claim from going: one without a node will not start on a claim that is going."""
    return bool(pod["spec"].get("nodeName")) and claim in claim_keys(pod)


def _claim_words(pod: Object) -> list[str]:
    return ["/".join(key) for key in claim_keys(pod)]


def unused_condition(pods: Iterable[Object]) -> Object:
    """The condition that says whether a claim is used by these pods, which name it; ended ones do not use it."""
    used = not all(map(has_ended, pods))
    return {
        "type": "Unused",
        "status": "False" if used else "True",
        "reason": "PodUsingPVC" if used else "NoPodsUsingPVC",
        "message": "A pod is currently referencing this PVC" if used else "No pods are currently referencing this PVC",
    }


class VolumeProtectionController(Controller):
    """Takes the protecting finalizers off what is deleted and no longer needed."""

    name = "volume-protection-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._caches = {resource: informers.of(resource).cache for resource in FINALIZERS}
        pods = informers.of(PODS)
        self._pods = informers.index(PODS, _claim_words)
        pods.add_handler(self._on_pod)
        for resource in FINALIZERS:
            informers.of(resource).add_handler(partial(self._on_protected, resource))

    def _on_protected(self, resource: Resource, _change: str, old: Object | None, new: Object | None) -> None:
        self.queue.add((resource, *key_of(new or old or {})))

    def _on_pod(self, _change: str, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            for claim in claim_keys(pod) if pod is not None else ():
                self.queue.add((PERSISTENT_VOLUME_CLAIMS, *claim))

    async def reconcile(self, key: tuple[Resource, str, str]) -> None:
        """Protect one claim or volume, or let it go."""
        resource = key[0]
        obj = self._caches[resource].get(key[1:])
        if obj is None:
            return
        finalizers = obj["metadata"].get("finalizers") or []
        protected = FINALIZERS[resource] in finalizers
        if not is_terminating(obj):
            if not protected:  # it is older than this rule
                await self._set_finalizers(resource, obj, [*finalizers, FINALIZERS[resource]])
            if resource == PERSISTENT_VOLUME_CLAIMS:
                await self._note_use(obj)
        elif protected and not await self._is_needed(resource, obj):
            kept = [name for name in finalizers if name != FINALIZERS[resource]]
            await self._set_finalizers(resource, obj, kept)

    async def _is_needed(self, resource: Resource, obj: Object) -> bool:
        if resource == PERSISTENT_VOLUMES:
            return bool((obj.get("status") or {}).get("phase") == "Bound")
        key = key_of(obj)
        if any(holds(pod, key) for pod in self._pods.get("/".join(key))):
            return True
        # The cache may be late, and what follows removes data.
        return any(holds(pod, key) for pod in await self.client.list(PODS, key[0]))

    async def _note_use(self, claim: Object) -> None:
        namespace, name = key_of(claim)
        if (claim.get("status") or {}).get("phase") != "Bound":
            return
        fresh = unused_condition(self._pods.get(f"{namespace}/{name}"))
        if (condition(claim, "Unused") or {}).get("status") == fresh["status"]:
            return
        conditions = with_condition(claim["status"].get("conditions") or [], fresh, clock.rfc3339(clock.now_ms()))
        change = {"metadata": {"uid": claim["metadata"]["uid"]}, "status": {"conditions": conditions}}
        await self.client.patch(PERSISTENT_VOLUME_CLAIMS, name, change, namespace, "status")

    async def _set_finalizers(self, resource: Resource, obj: Object, finalizers: list[str]) -> None:
        metadata = obj["metadata"]
        change = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}
        try:
            await self.client.patch(resource, name_of(obj), {"metadata": change}, metadata.get("namespace"))
        except KubeApiError as exc:
            if exc.code != 404:
                raise
