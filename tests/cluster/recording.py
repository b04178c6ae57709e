"""A proxy in front of an API server that adds the token and keeps every finished exchange.

kubectl and the suite talk plain HTTP to it, so that what they ask and what they are answered can be compared and
recorded without touching either side.
"""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import ClientConnectionResetError, web
from yarl import URL

from flyball.http.client import client_tls

HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host", "accept-encoding"}
)
IMPERSONATION = ("impersonate-user", "impersonate-group")

Exchange = dict[str, Any]


def decoded(body: bytes, content_type: str, watching: bool = False) -> Any:
    """JSON as a value, a watch as the list of its events, other text as it is, binary as base64."""
    if not body:
        return None
    if watching:
        with suppress(ValueError):
            return [json.loads(line) for line in body.splitlines()]
    if "json" in content_type:
        with suppress(ValueError):
            return json.loads(body, object_pairs_hook=_without_doubles)
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice: the text itself is kept")
    return found


def encoded(body: Any) -> bytes:
    """The inverse of ``decoded`` for request bodies."""
    if body is None:
        return b""
    if isinstance(body, dict) and set(body) == {"base64"}:
        return base64.b64decode(body["base64"])
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def without_protobuf(accept: str) -> str:
    """The same wishes without protobuf, so that every answer can be compared; JSON is always accepted."""
    kept = [wish.strip() for wish in accept.split(",") if "vnd.kubernetes.protobuf" not in wish]
    return ",".join(kept) or "application/json"


class RecordingProxy:
    """Listens on a free loopback port, in a thread of its own.

    Attributes: ``base`` (URL); ``exchanges``, in order of arrival.
    """

    def __init__(self, base: str, token: str, ca: Path) -> None:
        self._upstream, self._token, self._ca = base, token, ca
        self.exchanges: list[Exchange] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recording proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client_tls(ca_file=self._ca), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        application = web.Application(client_max_size=16 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def take(self) -> list[Exchange]:
        """The exchanges since the last call."""
        taken, self.exchanges = [e for e in self.exchanges if e["status"]], []
        return taken

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._forward(request)
        except ClientConnectionResetError:  # kubectl has seen enough of a watch
            return web.Response()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
        headers["Accept-Encoding"] = "identity"
        headers["Accept"] = without_protobuf(request.headers.get("Accept", "*/*"))
        headers["Authorization"] = f"Bearer {self._token}"
        content_type = request.headers.get("Content-Type", "")
        exchange: Exchange = {
            "method": request.method,
            "target": request.raw_path,
            "headers": {
                "accept": headers["Accept"],
                "user-agent": request.headers.get("User-Agent", "").partition(" ")[0],
                **({"content-type": content_type} if content_type else {}),
                **{name: request.headers[name] for name in IMPERSONATION if name in request.headers},
            },
            "body": decoded(body, content_type),
            "status": 0,
        }
        self.exchanges.append(exchange)
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._session.request(
            request.method,
            url,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=("Content-Type",),
        ) as answer:
            response = web.StreamResponse(
                status=answer.status,
                headers={k: v for k, v in answer.headers.items() if k.lower() not in HOP_HEADERS},
            )
            await response.prepare(request)
            content = b""
            async for chunk in _chunks(answer):
                content += chunk
                await response.write(chunk)
            # Before the end is sent, so that whoever reads the answer finds the exchange finished.
            exchange["status"] = answer.status
            exchange["type"] = answer.headers.get("Content-Type", "")
            if "Warning" in answer.headers:
                exchange["warnings"] = answer.headers.getall("Warning")
            exchange["response"] = decoded(content, exchange["type"], "watch=" in request.raw_path)
            await response.write_eof()
        return response


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in answer.content.iter_any():
        yield chunk
