"""``http_sd_configs``: target groups as JSON from a URL, asked for again and again."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import aiohttp

from flyball.discovery.groups import REFRESHES_FAILED, read_groups
from flyball.errors import ConfigError, UpstreamError
from flyball.http.calling import Caller
from flyball.http.client import read_capped
from flyball.model.scrapeconfigs import HttpSD, TargetGroup

log = logging.getLogger(__name__)

_BODY_MAX = 64 << 20
_TIMEOUT_S = 30.0


class HttpDiscovery:
    """One section. While the endpoint fails the last groups stay."""

    def __init__(self, sd: HttpSD, what: str) -> None:
        self._sd, self._what, self._caller = sd, what, Caller(sd.http)

    async def run(self, publish: Callable[[Sequence[TargetGroup]], None]) -> None:
        """Calls ``publish`` with all groups after every answer that differs from the last, until cancelled."""
        sd = self._sd
        known: list[TargetGroup] | None = None
        async with self._caller.session(timeout_s=_TIMEOUT_S) as session:
            while True:
                try:
                    found = await self._ask(session)
                    if found != known:
                        known = found
                        publish(found)
                except (aiohttp.ClientError, TimeoutError, OSError, UpstreamError, ConfigError, ValueError) as exc:
                    log.warning("discovery_failed section=%s url=%s error=%s", self._what, sd.url, exc or repr(exc))
                    REFRESHES_FAILED.labels("http", self._what).inc()
                await asyncio.sleep(sd.refresh_interval_ms / 1000)

    async def _ask(self, session: aiohttp.ClientSession) -> list[TargetGroup]:
        sd = self._sd
        headers = {
            "Accept": "application/json",
            "User-Agent": "flyball",
            "X-Prometheus-Refresh-Interval-Seconds": f"{sd.refresh_interval_ms / 1000:g}",
        }
        options = await self._caller.options(sd.url, _TIMEOUT_S)
        options["headers"] = headers | options["headers"]
        async with session.get(sd.url, **options) as answer:
            if answer.status != 200:
                raise UpstreamError(f"the server answered HTTP status {answer.status}")
            if answer.content_type != "application/json":
                raise UpstreamError(f'the Content-Type "{answer.content_type}" is not application/json')
            body = await read_capped(answer, _BODY_MAX, sd.url)
        return read_groups(body.decode(), sd.url, sd.url, {"__meta_url": sd.url})
