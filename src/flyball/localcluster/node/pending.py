"""Requests that wait for the first pod of a Service whose workload is scaled to zero.

A Service holds its requests when a Governor reads ``flyball_service_pending_requests`` of it; how many wait is pushed
to the store at once, like any sample, and again every few seconds, so that none means zero and not absent.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from typing import Any

import aiohttp

from flyball.http.client import new_session
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import GOVERNORS

log = logging.getLogger(__name__)

METRIC = "flyball_service_pending_requests"
HOLD_S = 60.0
HELD_MAX = 1_000  # of one Service; one more is refused
_REPEAT_S = 5.0
_RETRY_S = 0.2

Key = tuple[str, str]
"""Namespace and name of a Service."""


class PendingRequests:
    """Which Services hold, how many requests wait, and the push of both.

    ``url``: of the store's HTTP API.
    """

    def __init__(self, client: KubeClient, url: str) -> None:
        self._url = f"{url}/metrics/job/service-proxy"
        self._governors: Informer[dict[str, Any]] = Informer(client, GOVERNORS)
        self._governors.add_handler(lambda *_: self._changed.set())
        self._waiting: Counter[Key] = Counter()
        self._changed = asyncio.Event()
        self._failures = 0

    def holds(self, service: Key) -> bool:
        """Whether one more request may wait."""
        return self._waiting[service] < HELD_MAX and service in self._held()

    def _held(self) -> set[Key]:
        return {
            (governor["metadata"].get("namespace", ""), metric["object"]["describedObject"]["name"])
            for governor in self._governors.cache.values()
            for metric in governor["spec"].get("metrics") or []
            if metric.get("type") == "Object"
            and metric["object"]["metric"]["name"] == METRIC
            and metric["object"]["describedObject"]["kind"] == "Service"
        }

    async def wait(self, service: Key, ready: asyncio.Event) -> None:
        """Return once ``ready`` is set, or after a minute."""
        self._waiting[service] += 1
        self._changed.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_S):
                    await ready.wait()
        finally:
            self._waiting[service] -= 1
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group, new_session(timeout_s=5) as session:
            group.create_task(self._governors.run(), name="governors")
            while True:
                self._changed.clear()
                if lines := [
                    f'{METRIC}{{namespace="{namespace}",service="{name}"}} {self._waiting[namespace, name]}\n'
                    for namespace, name in sorted(self._held())
                ]:
                    await self._push(session, "".join(lines))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REPEAT_S):
                        await self._changed.wait()

    async def _push(self, session: aiohttp.ClientSession, body: str) -> None:
        try:
            async with session.post(self._url, data=body.encode()) as answer:
                answer.raise_for_status()
            self._failures = 0
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            if not self._failures:
                log.warning("pending_requests_not_pushed url=%s error=%s", self._url, exc)
            self._failures += 1
            self._changed.set()
            await asyncio.sleep(_RETRY_S)

    def statistics(self) -> dict[str, int]:
        """Services that hold, requests that wait, pushes in a row that failed."""
        return {"services": len(self._held()), "waiting": self._waiting.total(), "failures": self._failures}
