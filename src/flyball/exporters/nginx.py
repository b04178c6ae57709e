"""nginx' own figures, from its stub_status page, under the names of nginx-prometheus-exporter.

Source: the page's three lines, http://nginx.org/en/docs/http/ngx_http_stub_status_module.html
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flyball import __version__
from flyball.errors import FlyballError, UpstreamError
from flyball.exporters.text import CONTENT_TYPE, labels_text
from flyball.http.client import read_capped

log = logging.getLogger("flyball.nginx")

PAGE_MAX_BYTES = 4096
FAMILIES = {
    "nginx_connections_accepted": ("counter", "Accepted client connections"),
    "nginx_connections_active": ("gauge", "Active client connections"),
    "nginx_connections_handled": ("counter", "Handled client connections"),
    "nginx_connections_reading": ("gauge", "Connections where NGINX is reading the request header"),
    "nginx_connections_waiting": ("gauge", "Idle client connections"),
    "nginx_connections_writing": ("gauge", "Connections where NGINX is writing the response back to the client"),
    "nginx_http_requests_total": ("counter", "Total http requests"),
    "nginx_up": ("gauge", "Status of the last metric scrape"),
    "nginx_exporter_build_info": ("gauge", "A metric with a constant '1' value labeled by version"),
}
_PAGE = re.compile(
    r"\s*Active connections:\s*(?P<active>\d+)"
    r"\s+server accepts handled requests(?: request_time)?"
    r"\s+(?P<accepted>\d+)\s+(?P<handled>\d+)\s+(?P<requests>\d+)(?:\s+\d+)?"
    r"\s+Reading:\s*(?P<reading>\d+)\s+Writing:\s*(?P<writing>\d+)\s+Waiting:\s*(?P<waiting>\d+)\s*"
)


def parse_status(page: str) -> dict[str, int]:
    """The seven figures of a stub_status page, by metric name.

    Raises:
        UpstreamError: it is no such page.
    """
    found = _PAGE.fullmatch(page)
    if found is None:
        start = " ".join(page[:80].split())
        raise UpstreamError(f'not a stub_status page: it begins with "{start}"; put "stub_status;" at that location')
    figures = {name: int(text) for name, text in found.groupdict().items()}
    requests = figures.pop("requests")
    named = {f"nginx_connections_{name}": value for name, value in figures.items()}
    return {**named, "nginx_http_requests_total": requests}


class NginxExporter:
    """Asks each nginx once per scrape. One that does not answer has ``nginx_up`` 0 and no other value.

    Args:
        uris: stub_status pages, ``http://HOST:PORT/PATH`` or ``unix:SOCKET[:PATH]``; with several, the label ``addr``
            tells them apart.
        tls: for pages over HTTPS.
        labels: put on every series.
    """

    def __init__(
        self,
        uris: Sequence[str],
        timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._uris = tuple(uris)
        self._timeout_s = timeout_s
        self._tls = tls
        self._labels = dict(labels or {})
        self._troubles: dict[str, str] = {}

    async def exposition(self) -> str:
        """The body of /metrics."""
        every = await asyncio.gather(*(self._ask(uri) for uri in self._uris))
        build = labels_text({**self._labels, "version": __version__})
        lines: dict[str, list[str]] = {"nginx_exporter_build_info": [f"nginx_exporter_build_info{build} 1"]}
        for uri, figures in zip(self._uris, every, strict=True):
            labels = labels_text({**self._labels, "addr": uri} if len(self._uris) > 1 else self._labels)
            for name, value in figures.items():
                lines.setdefault(name, []).append(f"{name}{labels} {value}")
        text = []
        for name, (kind, about) in FAMILIES.items():
            if name in lines:
                text += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines[name]]
        return "\n".join(text) + "\n"

    async def _ask(self, uri: str) -> dict[str, int]:
        try:
            figures = {**parse_status(await self._fetch(uri)), "nginx_up": 1}
        except (aiohttp.ClientError, TimeoutError, FlyballError, OSError, ValueError) as exc:
            self._tell(uri, str(exc) or f"no answer within {self._timeout_s:g} s")
            return {"nginx_up": 0}
        self._tell(uri, "")
        return figures

    async def _fetch(self, uri: str) -> str:
        connector: aiohttp.BaseConnector
        if uri.startswith("unix:"):
            path, _, page = uri.removeprefix("unix:").partition(":")
            connector, url = aiohttp.UnixConnector(path), f"http://nginx{page or '/'}"
        else:
            connector, url = aiohttp.TCPConnector(ssl=self._tls or True), uri
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, session.get(url) as answer:
            if answer.status != 200:
                raise UpstreamError(f"it answers {answer.status} {answer.reason}")
            return (await read_capped(answer, PAGE_MAX_BYTES, uri)).decode("utf-8", "replace")

    def _tell(self, uri: str, trouble: str) -> None:
        """Says it when a page begins to fail, fails otherwise, or answers again."""
        before = self._troubles.get(uri, "")
        self._troubles[uri] = trouble
        if trouble and trouble != before:
            log.error("%s cannot be read: %s; nginx_up is 0 and no other value is served until it can", uri, trouble)
        elif before and not trouble:
            log.info("%s answers again", uri)

    def app(self, path: str = "/metrics") -> Starlette:
        """The metrics at ``path``, and a word at /."""

        async def metrics(_: Request) -> Response:
            return Response(await self.exposition(), headers={"content-type": CONTENT_TYPE})

        async def index(_: Request) -> Response:
            return PlainTextResponse(f"nginx exporter: {path}\n")

        return Starlette(routes=[Route(path, metrics), *([Route("/", index)] if path != "/" else [])])
