"""Another adapter behind ours: what no rule of ours knows is asked there, so that two can live side by side.

An API group has one APIService, and so one adapter. While a cluster moves from another adapter to this one, ours takes
the APIService and passes on the metrics it does not know.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from flyball.adapter.documents import GROUPS, Failure
from flyball.errors import ConfigError, UpstreamError
from flyball.http.client import client_tls, new_session, read_capped

log = logging.getLogger(__name__)

DISCOVERY_S = 30.0
TIMEOUT_S = 10.0
BODY_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class OnwardFlags:
    """``--proxy-*``: the other adapter, its authority, and the token that it lets in. No URL turns it off."""

    url: str = ""
    ca_file: str = ""
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class Onward:
    """The other adapter. Its discovery is read in the background: when it is dead, ours still answers at once.

    Raises:
        ConfigError: the URL or the authority's file cannot be used.
    """

    def __init__(self, flags: OnwardFlags) -> None:
        parts = urlsplit(flags.url)
        if not parts.hostname or not (
            parts.scheme == "https" or (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        ):
            raise ConfigError(f'--proxy-to "{flags.url}": the token would travel in the open; use https')
        self._flags = flags
        try:
            tls = client_tls(ca_file=flags.ca_file) if flags.ca_file else None
        except OSError as exc:
            raise ConfigError(f"--proxy-ca-file {flags.ca_file}: cannot be used ({exc})") from exc
        self._session = new_session(timeout_s=TIMEOUT_S, tls=tls)
        self._resources: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.error = ""

    async def run(self) -> None:
        """Keeps the other's discovery current."""
        while True:
            error = ""
            for group, versions in GROUPS.items():
                for version in versions:
                    try:
                        status, body, _ = await self.get(f"/apis/{group}/{version}", "")
                        if status == 200:
                            listed = msgspec.json.decode(body, type=dict[str, Any]).get("resources") or []
                            self._resources[group, version] = [item for item in listed if isinstance(item, dict)]
                        else:
                            self._resources.pop((group, version), None)
                    except (Failure, msgspec.DecodeError) as exc:
                        error = str(exc)
            if error and error != self.error:
                log.warning("onward_discovery_failed url=%s error=%s", self._flags.url, error)
            self.error = error
            await asyncio.sleep(DISCOVERY_S)

    def resources(self, group: str, version: str) -> list[dict[str, Any]]:
        """What the other last said it serves."""
        return self._resources.get((group, version), [])

    async def get(self, path_and_query: str, accept: str) -> tuple[int, bytes, str]:
        """Asks the other; gives status, body and content type.

        Raises:
            Failure: it does not answer, or with a redirect, which never leaves here.
        """
        headers: Mapping[str, str] = {
            "Authorization": f"Bearer {self._token()}",
            "Accept": accept or "application/json",
        }
        url = URL(self._flags.url.rstrip("/") + path_and_query, encoded=True)
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                body = await read_capped(response, BODY_BYTES_MAX, self._flags.url)
                if not 200 <= response.status < 300 and response.status < 400:
                    raise Failure(500, f"the adapter behind this one answers with {response.status}")
                return response.status, body, response.headers.get("Content-Type", "application/json")
        except (aiohttp.ClientError, UpstreamError, TimeoutError, OSError) as exc:
            raise Failure(500, f"the adapter behind this one does not answer: {exc or type(exc).__name__}") from exc

    def _token(self) -> str:
        try:
            with open(self._flags.token_file, encoding="utf-8") as file:
                return file.read().strip()
        except OSError as exc:
            raise Failure(500, f"--proxy-token-file {self._flags.token_file}: {exc.strerror}") from exc

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()
