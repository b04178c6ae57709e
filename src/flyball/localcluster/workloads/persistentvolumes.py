"""PersistentVolumeClaims: each bound to a volume that exists, or to a directory made for it.

The default StorageClass provisions directories of this machine, as a local-path provisioner does on small clusters.
"""

import asyncio
import shutil
from pathlib import Path

from flyball.errors import KubeApiError
from flyball.kube import EventRecorder, KubeClient, Resource
from flyball.kube.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import annotations_of, is_terminating, name_of
from flyball.model.quantities import parse_quantity

PROVISIONER = "flyball.dev/directory"
STANDARD = "standard"
IS_DEFAULT = "storageclass.kubernetes.io/is-default-class"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BOUND_BY_US = {"pv.kubernetes.io/bound-by-controller": "yes"}
FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
_BOUND = {"pv.kubernetes.io/bind-completed": "yes", **BOUND_BY_US}


def default_class() -> Object:
    """The StorageClass of those who name none."""
    return {
        "apiVersion": STORAGE_CLASSES.api_version,
        "kind": STORAGE_CLASSES.kind,
        "metadata": {"name": STANDARD, "annotations": {IS_DEFAULT: "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": True,
    }


def default_of(classes: list[Object]) -> str | None:
    """The name of the newest default class; None without any."""
    found = [item for item in classes if annotations_of(item).get(IS_DEFAULT) == "true"]
    found.sort(key=lambda item: (item["metadata"].get("creationTimestamp") or "", name_of(item)))
    return name_of(found[-1]) if found else None


def storage_of(spec: Object) -> int:
    """Bytes that a claim asks for, in nano units."""
    requests = (spec.get("resources") or {}).get("requests") or {}
    return parse_quantity(requests.get("storage", "0")).nano


def claim_reference(claim: Object) -> Object:
    """What a volume says of the claim it is bound to."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata.get("resourceVersion", ""),
    }


def is_for(volume: Object, claim: Object) -> bool:
    """Whether the volume is bound to, or kept for, this claim."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return False
    same_name = (reference.get("namespace"), reference.get("name")) == key_of(claim)
    return same_name and reference.get("uid") in (None, "", claim["metadata"]["uid"])


def matching(claim: Object, volumes: list[Object]) -> Object | None:
    """The volume for a claim: the one kept for it, else the smallest free one that is large enough."""
    spec = claim["spec"]
    wanted_modes = set(spec.get("accessModes") or [])
    fitting = []
    for volume in volumes:
        own = volume["spec"]
        if is_terminating(volume):
            continue
        if is_for(volume, claim):
            return volume
        if (
            own.get("claimRef")
            or (spec.get("volumeName") or name_of(volume)) != name_of(volume)
            or (own.get("storageClassName") or "") != (spec.get("storageClassName") or "")
            or (own.get("volumeMode") or "Filesystem") != (spec.get("volumeMode") or "Filesystem")
            or not wanted_modes <= set(own.get("accessModes") or [])
        ):
            continue
        size = parse_quantity((own.get("capacity") or {}).get("storage", "0")).nano
        if size >= storage_of(spec):
            fitting.append((size, name_of(volume), volume))
    return min(fitting, key=lambda item: item[:2])[2] if fitting else None


def provisioned(claim: Object, storage_class: Object, directory: Path) -> Object:
    """The volume that the class' provisioner makes for a claim."""
    name = f"pvc-{claim['metadata']['uid']}"
    spec = claim["spec"]
    policy = storage_class.get("reclaimPolicy") or "Delete"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {PROVISIONED_BY: PROVISIONER, **BOUND_BY_US},
            **({"finalizers": [FINALIZER]} if policy == "Delete" else {}),
        },
        "spec": {
            "capacity": {"storage": ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": name_of(storage_class),
            "claimRef": claim_reference(claim),
            "hostPath": {"path": str(directory / name), "type": "DirectoryOrCreate"},
        },
    }


class PersistentVolumeController(Controller):
    """Binds claims, provisions directories, reclaims them.

    Args:
        directory: where provisioned volumes live.
    """

    name = "persistentvolume-controller"

    def __init__(self, client: KubeClient, informers: Informers, directory: Path) -> None:
        super().__init__(client)
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = informers.of(PERSISTENT_VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self._directory = directory.resolve()
        self._events = EventRecorder(client, self.name)
        self._claims.add_handler(self._on_claim)
        self._volumes.add_handler(self._on_volume)
        self._classes.add_handler(lambda *_: self._look_at_waiting())

    async def run(self) -> None:
        """Work until cancelled."""
        # Only on a cluster without any class: whoever removed ours or brought another meant it.
        if not self._classes.cache:
            try:
                await self.client.create(STORAGE_CLASSES, default_class())
            except KubeApiError as exc:
                if exc.code != 409:
                    raise
        await super().run()

    def _on_claim(self, _change: str, old: Object | None, new: Object | None) -> None:
        claim = new or old or {}
        self.queue.add(("claim", *key_of(claim)))
        bound = claim["spec"].get("volumeName")
        if new is None and bound:
            self.queue.add(("volume", "", bound))

    def _on_volume(self, _change: str, old: Object | None, new: Object | None) -> None:
        volume = new or old or {}
        self.queue.add(("volume", "", name_of(volume)))
        reference = volume["spec"].get("claimRef")
        if reference:
            self.queue.add(("claim", reference.get("namespace", ""), reference.get("name", "")))
        else:
            self._look_at_waiting()

    def _look_at_waiting(self) -> None:
        for key, claim in self._claims.cache.items():
            if (claim.get("status") or {}).get("phase") != "Bound":
                self.queue.add(("claim", *key))

    async def reconcile(self, key: tuple[str, str, str]) -> None:
        """Bring one claim or one volume to where it belongs."""
        if key[0] == "claim":
            claim = self._claims.cache.get(key[1:])
            if claim is not None and not is_terminating(claim):
                await self._bind(claim)
        else:
            volume = self._volumes.cache.get(key[1:])
            if volume is not None:
                await self._reclaim(volume)

    # -- claims --------------------------------------------------------------------------------------------------

    async def _bind(self, claim: Object) -> None:
        spec, phase = claim["spec"], (claim.get("status") or {}).get("phase")
        if phase == "Bound" or phase == "Lost":
            if self._volumes.cache.get(("", spec.get("volumeName") or "")) is None:
                await self._lost(claim)
            return
        if spec.get("storageClassName") is None:
            name = default_of(list(self._classes.cache.values()))
            if name is not None:
                claim = await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, {"spec": {"storageClassName": name}})
                spec = claim["spec"]
        volume = matching(claim, list(self._volumes.cache.values()))
        if volume is None and not spec.get("volumeName"):
            volume = await self._provision(claim)
        if volume is None:
            return
        if not (volume["spec"].get("claimRef") or {}).get("uid"):
            chosen: Object = {} if volume["spec"].get("claimRef") else {"annotations": BOUND_BY_US}
            metadata = {**chosen, "resourceVersion": volume["metadata"]["resourceVersion"]}
            # Of two claims that both saw it free one has it, and the other looks again.
            change = {"metadata": metadata, "spec": {"claimRef": claim_reference(claim)}}
            volume = await self._patch(PERSISTENT_VOLUMES, volume, change)
        await self._patch_status(PERSISTENT_VOLUMES, volume, {"phase": "Bound"})
        annotations = {**annotations_of(claim), **_BOUND}
        if annotations_of(volume).get(PROVISIONED_BY):
            annotations["volume.kubernetes.io/storage-provisioner"] = annotations_of(volume)[PROVISIONED_BY]
        change = {"metadata": {"annotations": annotations}, "spec": {"volumeName": name_of(volume)}}
        claim = await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, change)
        own = volume["spec"]
        status = {"phase": "Bound", "accessModes": own.get("accessModes"), "capacity": own.get("capacity")}
        await self._patch_status(PERSISTENT_VOLUME_CLAIMS, claim, status)

    async def _provision(self, claim: Object) -> Object | None:
        class_name = claim["spec"].get("storageClassName")
        if not class_name:
            message = "no persistent volumes available for this claim and no storage class is set"
            await self._events.event(claim, "Normal", "FailedBinding", message)
            return None
        storage_class = self._classes.cache.get(("", class_name))
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{class_name}" not found'
            await self._events.event(claim, "Warning", "ProvisioningFailed", message)
            return None
        if storage_class.get("provisioner") != PROVISIONER:
            message = (
                f"Waiting for a volume to be created either by the external provisioner "
                f"'{storage_class.get('provisioner')}' or manually by the system administrator"
            )
            await self._events.event(claim, "Normal", "ExternalProvisioning", message)
            return None
        wanted = provisioned(claim, storage_class, self._directory)
        (self._directory / name_of(wanted)).mkdir(parents=True, exist_ok=True)
        try:
            volume = await self.client.create(PERSISTENT_VOLUMES, wanted)
        except KubeApiError as exc:
            if exc.code != 409:
                raise
            return await self.client.get(PERSISTENT_VOLUMES, name_of(wanted))
        message = f"Successfully provisioned volume {name_of(volume)} using {PROVISIONER}"
        await self._events.event(claim, "Normal", "ProvisioningSucceeded", message)
        return volume

    async def _lost(self, claim: Object) -> None:
        if (claim.get("status") or {}).get("phase") == "Lost":
            return
        await self._patch_status(PERSISTENT_VOLUME_CLAIMS, claim, {"phase": "Lost"})
        message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        await self._events.event(claim, "Warning", "ClaimLost", message)

    # -- volumes -------------------------------------------------------------------------------------------------

    async def _reclaim(self, volume: Object) -> None:
        """What is left of a volume when its claim is gone; also of one that is deleted, which its claim kept."""
        reference = volume["spec"].get("claimRef")
        phase = (volume.get("status") or {}).get("phase")
        if not reference:
            if phase != "Available" and not is_terminating(volume):
                await self._patch_status(PERSISTENT_VOLUMES, volume, {"phase": "Available"})
            return
        if not reference.get("uid"):
            return  # kept for a claim that does not exist yet
        if await self._claim_lives(reference):
            return
        if phase != "Released":
            await self._patch_status(PERSISTENT_VOLUMES, volume, {"phase": "Released"})
        if volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
            await self._release(volume)
            return
        path = Path((volume["spec"].get("hostPath") or {}).get("path") or "/")
        # Only what we made: a path that a manifest names is not ours to remove.
        if annotations_of(volume).get(PROVISIONED_BY) == PROVISIONER and path.parent == self._directory:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            if not is_terminating(volume):
                volume = await self.client.delete(PERSISTENT_VOLUMES, name_of(volume), uid=volume["metadata"]["uid"])
            await self._release(volume)

    async def _release(self, volume: Object) -> None:
        """Let a deleted volume go: there is nothing of it on the disk any more that has to go first."""
        finalizers = volume["metadata"].get("finalizers") or []
        if is_terminating(volume) and FINALIZER in finalizers:
            kept = [name for name in finalizers if name != FINALIZER]
            seen = volume["metadata"]["resourceVersion"]
            change = {"metadata": {"resourceVersion": seen, "finalizers": kept or None}}
            await self._patch(PERSISTENT_VOLUMES, volume, change)

    async def _claim_lives(self, reference: Object) -> bool:
        key: Key = (reference.get("namespace", ""), reference.get("name", ""))
        if key in self._claims.cache:
            return bool(self._claims.cache[key]["metadata"]["uid"] == reference["uid"])
        try:  # the cache may be behind, and what follows removes data
            live = await self.client.get(PERSISTENT_VOLUME_CLAIMS, key[1], key[0])
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            return False
        return bool(live["metadata"]["uid"] == reference["uid"])

    async def _patch(self, resource: Resource, obj: Object, change: Object) -> Object:
        guarded = {**change, "metadata": {**change.get("metadata", {}), "uid": obj["metadata"]["uid"]}}
        return await self.client.patch(resource, name_of(obj), guarded, obj["metadata"].get("namespace"))

    async def _patch_status(self, resource: Resource, obj: Object, status: Object) -> None:
        if {**(obj.get("status") or {}), **status} == obj.get("status"):
            return
        await self.client.patch(resource, name_of(obj), {"status": status}, obj["metadata"].get("namespace"), "status")
