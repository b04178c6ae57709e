"""What the API server serves: the adapter's RESTMapper, kept current, so that a new CRD needs no restart."""

import asyncio
import logging

from flyball.errors import FlyballError
from flyball.kube import KubeClient, Resource
from flyball.metricrules import Kind, KindTable
from flyball.metricrules.resources import BUILT_IN_KINDS

log = logging.getLogger(__name__)

RETRY_MIN_S = 1.0
INTERVAL_S = 60.0


class ServedKinds:
    """Keeps ``mapper`` as the API server's discovery says; before and without it, the built-in kinds."""

    def __init__(self, client: KubeClient, interval_s: float = INTERVAL_S) -> None:
        self._client, self._interval_s = client, interval_s
        self._error = "not read yet"
        self.mapper = KindTable(BUILT_IN_KINDS)

    async def run(self) -> None:
        delay_s = RETRY_MIN_S
        while True:
            await self.refresh()
            delay_s = min(delay_s * 2, self._interval_s) if self._error else self._interval_s
            await asyncio.sleep(delay_s)

    async def refresh(self) -> None:
        """Reads discovery once; a group that fails keeps the kinds it had."""
        kinds: list[Kind] = []
        error = ""
        try:
            for group_version in await self._client.group_versions():
                if group_version.split("/")[0].endswith("metrics.k8s.io"):
                    continue  # that is us, or another adapter
                try:
                    for resource, verbs in await self._client.resources(group_version):
                        if "list" in verbs:
                            kinds.append(_kind(resource))
                except FlyballError as exc:
                    error = str(exc)
        except FlyballError as exc:
            error = str(exc)
        if kinds:
            known = {kind.group_resource for kind in kinds}
            before = self.mapper.kinds if error else BUILT_IN_KINDS
            self.mapper = KindTable([*kinds, *(kind for kind in before if kind.group_resource not in known)])
        if error and error != self._error:
            log.warning("adapter_kinds_failed error=%s", error)
        self._error = error


def resource_of(kind: Kind) -> Resource:
    """The client's word for a kind."""
    return Resource(kind.group, kind.version, kind.resource, kind.kind, kind.namespaced)


def _kind(resource: Resource) -> Kind:
    return Kind(
        resource.group, resource.version, resource.kind, resource.plural, resource.kind.lower(), resource.namespaced
    )
