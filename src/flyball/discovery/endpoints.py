"""``http_sd_configs``: target groups as JSON from a URL, asked for again and again."""

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from flyball.discovery.groups import REFRESHES_FAILED, read_groups
from flyball.errors import ConfigError, UpstreamError
from flyball.http.client import new_session, read_capped, tls_context
from flyball.model.scrapeconfigs import HttpSD, TargetGroup

log = logging.getLogger(__name__)

_BODY_MAX = 64 << 20
_TIMEOUT_S = 30.0


class HttpDiscovery:
    """One section. While the endpoint fails the last groups stay."""

    def __init__(self, sd: HttpSD, what: str) -> None:
        self._sd, self._what = sd, what

    async def run(self, publish: Callable[[Sequence[TargetGroup]], None]) -> None:
        """Calls ``publish`` with all groups after every answer that differs from the last, until cancelled."""
        sd = self._sd
        tls = tls_context(sd.tls) if sd.tls is not None else None
        known: list[TargetGroup] | None = None
        async with new_session(timeout_s=_TIMEOUT_S, tls=tls) as session:
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
        if sd.authorization is not None:
            auth = sd.authorization
            secret = auth.credentials or (
                Path(auth.credentials_file).read_text().strip() if auth.credentials_file else ""
            )
            headers["Authorization"] = f"{auth.type} {secret}"
        elif sd.basic_auth is not None:
            basic = sd.basic_auth
            password = basic.password or (Path(basic.password_file).read_text().strip() if basic.password_file else "")
            pair = base64.b64encode(f"{basic.username}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        async with session.get(sd.url, headers=headers) as answer:
            if answer.status != 200:
                raise UpstreamError(f"the server answered HTTP status {answer.status}")
            if answer.content_type != "application/json":
                raise UpstreamError(f'the Content-Type "{answer.content_type}" is not application/json')
            body = await read_capped(answer, _BODY_MAX, sd.url)
        return read_groups(body.decode(), sd.url, sd.url, {"__meta_url": sd.url})
