"""TLS and access checks before an exporter that has neither, as kube-rbac-proxy does it.

Every request needs a token that the API server knows, and the API server's leave for its method and path. Both are
asked as the metrics APIs ask them (``access``).
"""

import asyncio
import logging
import ssl
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import aiohttp

from flyball import clock
from flyball.adapter.access import Access, asked_of
from flyball.adapter.documents import Failure
from flyball.http import certificates
from flyball.http.passing import HOP_BY_HOP, onward, pass_back, request_body
from flyball.http.server import serve, serving_context

log = logging.getLogger(__name__)

CERTIFICATE_DAYS = 365


class RbacProxy:
    """An ASGI application before ``upstream``.

    Args:
        access: who may ask; None admits everybody.
        allowed: patterns of paths that are served, all when empty; others are not found.
        open_paths: patterns of paths that nobody is asked about.
        session: asks the upstream, and leaves bodies as they came; its owner closes it.
    """

    def __init__(
        self,
        upstream: str,
        access: Access | None,
        session: aiohttp.ClientSession,
        *,
        allowed: Collection[str] = (),
        open_paths: Collection[str] = (),
    ) -> None:
        self._upstream = upstream
        self._access = access
        self._session = session
        self._allowed = tuple(allowed)
        self._open = tuple(open_paths)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._admit(scope)
            await self._forward(scope, receive, send)
        except Failure as exc:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": exc.code, "headers": headers})
            await send({"type": "http.response.body", "body": f"{exc}\n".encode()})

    async def _admit(self, scope: Any) -> None:
        path = scope["path"]
        if self._allowed and not _fits(path, self._allowed):
            raise Failure(404, f"{path} is not served here")
        if self._access is None or _fits(path, self._open):
            return
        asked = asked_of(scope)
        if asked.bearer is None and asked.peer is None:
            raise Failure(401, "Unauthorized: send a bearer token")
        user = await self._access.admit(asked)
        log.debug("admitted user=%s path=%s", user.name, path)

    async def _forward(self, scope: Any, receive: Any, send: Any) -> None:
        dropped = {*HOP_BY_HOP, b"authorization", b"host"}  # the token is for us alone
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"] if n not in dropped]
        try:
            async with self._session.request(
                scope["method"],
                onward(self._upstream, scope),
                headers=headers,
                data=request_body(receive),
                allow_redirects=False,
            ) as answer:
                await pass_back(answer, send)
        except (aiohttp.ClientConnectionError, TimeoutError) as exc:
            raise Failure(502, f"{self._upstream} does not answer: {exc or type(exc).__name__}") from exc


def _fits(path: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def server_tls(certificate: Path | None, key: Path | None, name: str) -> ssl.SSLContext:
    """The files' certificate, or one of our own for this run, as kube-rbac-proxy makes.

    Raises:
        OSError: the files cannot be read.
    """
    if certificate is not None:
        return serving_context(certificate.read_bytes(), (key or certificate).read_bytes())
    now_ms = clock.now_ms()
    pair = certificates.leaf(
        certificates.authority(f"{name}-ca", CERTIFICATE_DAYS, now_ms), name, CERTIFICATE_DAYS, now_ms, names=[name]
    )
    return serving_context(pair.certificate_pem.encode(), pair.key_pem.encode())


async def run(
    secure: tuple[str, int] | None,
    plain: tuple[str, int] | None,
    tls: ssl.SSLContext,
    app: RbacProxy,
    stopping: asyncio.Event,
) -> None:
    """Serves until ``stopping`` is set.

    Raises:
        ConfigError: an address is taken.
    """
    servers = []
    try:
        for address, context in ((secure, tls), (plain, None)):
            if address is not None:
                server = await serve(
                    app, host=address[0], port=address[1], tls=context, allowed_hosts=None, name="rbac-proxy"
                )
                servers.append(server)
                log.info("listening address=%s:%d tls=%s", address[0], server.port, context is not None)
        await stopping.wait()
    finally:
        for server in servers:
            await server.close()
