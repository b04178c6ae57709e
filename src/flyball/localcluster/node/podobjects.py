"""The ConfigMaps and Secrets that a pod names, as last read."""

from typing import Any

from flyball.errors import KubeApiError
from flyball.kube import KubeClient
from flyball.kube.kinds import CONFIG_MAPS, SECRETS
from flyball.localcluster.node import volumes

Object = dict[str, Any]
_KINDS = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}


class PodObjects:
    """Reads all of them at once; one that does not exist is remembered as absent."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._found: dict[tuple[str, str], Object | None] | None = None

    async def fetch(self, pod: Object) -> None:
        """Reads them anew.

        Raises:
            FlyballError: the API server cannot be asked.
        """
        found: dict[tuple[str, str], Object | None] = {}
        for kind, name in volumes.references(pod):
            try:
                found[kind, name] = await self._client.get(_KINDS[kind], name, self._namespace)
            except KubeApiError as exc:
                if exc.code != 404:
                    raise
                found[kind, name] = None
        self._found = found

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
