"""The ConfigMaps, Secrets and claims that a pod names, as last read."""

from pathlib import Path
from typing import Any

from flyball.errors import ConfigError, KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, SECRETS
from flyball.localcluster.node import volumes
from flyball.localcluster.node.environment import MissingReferenceError

Object = dict[str, Any]
_KINDS = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}


class PodObjects:
    """Reads all of them at once; one that does not exist is remembered as absent."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._found: dict[tuple[str, str], Object | None] | None = None
        self._volumes: dict[str, Object] = {}  # the PersistentVolume of each claim that is bound

    async def fetch(self, pod: Object) -> None:
        """Reads them anew.

        Raises:
            FlyballError: the API server cannot be asked.
        """
        found: dict[tuple[str, str], Object | None] = {}
        for kind, name in volumes.references(pod):
            found[kind, name] = await self._get(_KINDS[kind], name, self._namespace)
        for name in volumes.claim_names(pod):
            claim = found["PersistentVolumeClaim", name] = await self._get(
                PERSISTENT_VOLUME_CLAIMS, name, self._namespace
            )
            bound = (claim or {}).get("spec", {}).get("volumeName")
            volume = await self._get(PERSISTENT_VOLUMES, bound, None) if bound else None
            if volume is not None:
                self._volumes[name] = volume
        self._found = found

    async def _get(self, resource: Resource, name: str, namespace: str | None) -> Object | None:
        try:
            return await self._client.get(resource, name, namespace)
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            return None

    async def fetch_once(self, pod: Object) -> None:
        """Reads them unless they were read."""
        if self._found is None:
            await self.fetch(pod)

    def forget(self) -> None:
        self._found = None

    def bytes_of(self, kind: str, name: str) -> dict[str, bytes] | None:
        """The values of one; None when it does not exist."""
        found = (self._found or {}).get((kind, name))
        return None if found is None else volumes.object_values(kind, found)

    def text_of(self, kind: str, name: str) -> dict[str, str] | None:
        """As ``bytes_of``, as text."""
        values = self.bytes_of(kind, name)
        return None if values is None else {key: value.decode(errors="replace") for key, value in values.items()}

    def claim_path(self, name: str) -> Path:
        """The directory that a claim is bound to.

        Raises:
            MissingReferenceError: it does not exist, or is not bound yet.
            ConfigError: its volume is not a directory of this machine.
        """
        if not (self._found or {}).get(("PersistentVolumeClaim", name)):
            raise MissingReferenceError(f'persistentvolumeclaim "{name}" not found')
        volume = self._volumes.get(name)
        if volume is None:
            raise MissingReferenceError(f'persistentvolumeclaim "{name}" is not bound to a volume')
        spec = volume["spec"]
        path = (spec.get("hostPath") or spec.get("local") or {}).get("path")
        if not path:
            raise ConfigError(
                f'volume "{volume["metadata"]["name"]}" of claim "{name}" is neither hostPath nor local; '
                "the embedded cluster has only directories of this machine"
            )
        return Path(path)
