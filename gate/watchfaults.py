"""A proxy before the API server that does to watches what networks, proxies and full caches do."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from pathlib import Path

import aiohttp
from aiohttp import web

from flyball.http.client import client_tls
from flyball.kube import Access
from flyball.localcluster import pki

EVENT_FAULTS = ("dropped", "duplicated", "reordered", "cut", "too old", "html line", "closed")
REQUEST_FAULTS = ("too old at once", "html page", "bad gateway", "reset")
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>\n"
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "gone"}


class FaultyProxy:
    """Passes GETs on; ``share`` of the events and requests meet a fault, and half of the bookmarks are lost.

    Args:
        server: the base URL of the API server whose data directory is given.
    """

    def __init__(self, server: str, directory: Path, rng: random.Random, share: float) -> None:
        self._server, self._directory, self._rng, self._share = server, directory, rng, share
        self.honest = self.down = False
        self.faults: Counter[str] = Counter()

    async def __aenter__(self) -> "FaultyProxy":
        tls = client_tls(ca_file=self._directory / "pki" / "ca.crt")
        headers = {"Authorization": f"Bearer {pki.token(self._directory)}"}
        self._session = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=tls, limit=0))
        app = web.Application()
        app.router.add_get("/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.access = Access(f"http://127.0.0.1:{self._runner.addresses[0][1]}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def _fault(self, kinds: tuple[str, ...], share: float) -> str:
        if self.honest or self._rng.random() >= share:
            return ""
        kind = self._rng.choice(kinds)
        self.faults[kind] += 1
        return kind

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        fault = "reset" if self.down else self._fault(REQUEST_FAULTS, self._share)
        watching = "watch" in request.query
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault in ("html page", "bad gateway"):
            return web.Response(body=HTML, status=200 if fault == "html page" else 502, content_type="text/html")
        if fault == "too old at once" and watching:
            return web.json_response(GONE, status=410)
        url = self._server + request.path_qs
        async with self._session.get(url) as answer:
            if not watching:
                return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._stream(request, answer, response)
            return response

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        held = b""
        async for line in answer.content:
            if self.down:
                assert request.transport is not None
                request.transport.abort()
                return
            if b'"BOOKMARK"' in line[:40]:
                if self._fault(("lost bookmark",), 0.5):
                    continue
                fault = ""
            else:
                fault = self._fault(EVENT_FAULTS, self._share)
            if fault == "reordered" and not held:
                held = line
            elif fault == "cut":
                await response.write(line[: self._rng.randrange(1, len(line))])
                assert request.transport is not None
                request.transport.abort()
                return
            elif fault == "too old":
                await response.write(json.dumps({"type": "ERROR", "object": GONE}).encode() + b"\n")
                return
            elif fault == "html line":
                await response.write(HTML)
            elif fault == "closed":
                return
            elif fault != "dropped":
                await response.write(line + (line if fault == "duplicated" else b"") + held)
                held = b""


async def wait_until(check: object, seconds: float) -> bool:
    """Whether a check without arguments came true in time."""
    assert callable(check)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.02)
            return True
    return False
