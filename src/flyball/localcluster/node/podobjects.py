"""The ConfigMaps, Secrets and claims that a pod names, as last read."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball import clock
from flyball.errors import ConfigError, KubeApiError
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, SECRETS, SERVICE_ACCOUNTS
from flyball.localcluster.node import volumes
from flyball.localcluster.node.environment import MissingReferenceError

Object = dict[str, Any]
_KINDS = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
TOKEN_S = 3600  # Kubernetes' default
TOKEN_AGE_MAX_S = 24 * 3600
TOKEN_LIFE_SHARE = 0.8  # as a kubelet: it is asked for anew after that much of its life


@dataclass(frozen=True, slots=True)
class _Token:
    value: bytes
    renew_ms: int


class PodObjects:
    """Reads all of them at once; one that does not exist is remembered as absent."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._found: dict[tuple[str, str], Object | None] | None = None
        self._volumes: dict[str, Object] = {}  # the PersistentVolume of each claim that is bound
        self._tokens: dict[tuple[str, int], _Token] = {}  # by audience and seconds asked for

    async def fetch(self, pod: Object) -> None:
        """Reads them anew.

        Raises:
            FlyballError: the API server cannot be asked.
        """
        found: dict[tuple[str, str], Object | None] = {}

        async def read(kind: str, name: str) -> None:
            found[kind, name] = await self._get(_KINDS[kind], name, self._namespace)

        async def read_claim(name: str) -> None:
            claim = await self._get(PERSISTENT_VOLUME_CLAIMS, name, self._namespace)
            found["PersistentVolumeClaim", name] = claim
            bound = (claim or {}).get("spec", {}).get("volumeName")
            volume = await self._get(PERSISTENT_VOLUMES, bound, None) if bound else None
            if volume is not None:
                self._volumes[name] = volume

        await asyncio.gather(
            *(read(kind, name) for kind, name in volumes.references(pod)),
            *(read_claim(name) for name in volumes.claim_names(pod)),
            *(self._renew(pod, source) for source in volumes.token_sources(pod)),
        )
        self._found = found

    async def _renew(self, pod: Object, source: Object) -> None:
        """Asks for a token, unless the one at hand is fresh enough."""
        key, now_ms = _token_key(source), clock.now_ms()
        known = self._tokens.get(key)
        if known is not None and now_ms < known.renew_ms:
            return
        audience, seconds = key
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        spec = {"audiences": [audience] if audience else [], "expirationSeconds": seconds, "boundObjectRef": bound}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = pod["spec"].get("serviceAccountName") or "default"
        try:
            made = await self._client.create(SERVICE_ACCOUNTS, body, self._namespace, name=account, subresource="token")
        except KubeApiError as exc:
            if exc.code != 404 or known is not None:  # what is at hand may still be good
                raise
            return
        status = made["status"]
        life_s = min((clock.parse_rfc3339_ms(status["expirationTimestamp"]) - now_ms) / 1000, TOKEN_AGE_MAX_S)
        self._tokens[key] = _Token(status["token"].encode(), now_ms + int(1000 * TOKEN_LIFE_SHARE * life_s))

    def token(self, source: Object) -> bytes:
        """The token of a ``serviceAccountToken`` source.

        Raises:
            MissingReferenceError: there was no such account.
        """
        found = self._tokens.get(_token_key(source))
        if found is None:
            raise MissingReferenceError("serviceaccount not found: it gives the pod's token")
        return found.value

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


def _token_key(source: Object) -> tuple[str, int]:
    return source.get("audience") or "", int(source.get("expirationSeconds") or TOKEN_S)
