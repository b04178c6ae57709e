"""Tells the API server whom to trust: our authority, in the caBundle of every APIService that points to our Service.

APIServices are watched, so that one which comes later, or which another adapter has left, is ours within a moment.
"""

import asyncio
import base64
import logging
from typing import Any

import msgspec

from flyball.errors import FlyballError
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import API_SERVICES

log = logging.getLogger(__name__)

RETRY_S = 5.0


class _ApiService(msgspec.Struct):
    metadata: dict[str, Any] = {}
    spec: dict[str, Any] = {}


class CaBundle:
    """Keeps the caBundle of our APIServices.

    Args:
        service: (namespace, name) of our Service.
    """

    def __init__(self, client: KubeClient, service: tuple[str, str]) -> None:
        self._client, self._service = client, service
        self._bundle = ""
        self._problem = ""
        self._changed = asyncio.Event()
        self._informer: Informer[_ApiService] = Informer(client, API_SERVICES, type=_ApiService)
        self._informer.add_handler(lambda *_: self._changed.set())

    def set_authority(self, pem: str) -> None:
        """Publishes this bundle of authorities from now on."""
        self._bundle = base64.b64encode(pem.encode()).decode()
        self._changed.set()

    async def run(self) -> None:
        """Publishes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="adapter api services")
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._bundle and not await self._publish():
                    await asyncio.sleep(RETRY_S)
                    self._changed.set()

    async def _publish(self) -> bool:
        """Whether all have it; a refusal is a log line, for whoever installed us may do it instead."""
        good = True
        for (_, name), found in list(self._informer.cache.items()):
            target = found.spec.get("service") or {}
            ours = (target.get("namespace"), target.get("name")) == self._service
            if not ours or (found.spec.get("caBundle") == self._bundle and not found.spec.get("insecureSkipTLSVerify")):
                continue
            patch = {"spec": {"caBundle": self._bundle, "insecureSkipTLSVerify": None}}
            try:
                await self._client.patch(API_SERVICES, name, patch)
                log.info("ca_bundle_published api_service=%s", name)
            except FlyballError as exc:
                good = False
                if str(exc) != self._problem:
                    log.warning("ca_bundle_refused api_service=%s error=%s", name, exc)
                self._problem = str(exc)
        return good
