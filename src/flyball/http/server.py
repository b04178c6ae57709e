"""The one HTTP server: uvicorn with uvloop's loop, httptools and wsproto, embedded in a running event loop."""

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flyball.errors import ConfigError

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_TICK_S = 1.0  # how old the Date header may be


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """Certificate and key files; ``client_ca`` asks for (and verifies, but does not demand) a peer certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def serving_context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """A server's context from PEM texts.

    Raises:
        SSLError: they are no certificate and key that belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory() as directory:  # ssl reads files only
        file = Path(directory, "pair.pem")
        file.touch(0o600)
        file.write_bytes(certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(file)
    return context


class Gathering:
    """A transport that sends what is written in one turn of the loop as one: the head of an answer and its body.

    Each write of its own would be a TLS record and a packet, and wake the client for a head alone.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._flush()
        self._transport.set_protocol(protocol)


class _Protocol(HttpToolsProtocol):
    """Puts the verified peer certificate into ``scope["extensions"]["tls"]``.

    ``peercert`` is ssl's dict form, ``der`` the certificate itself.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Gathering(transport))  # type: ignore[arg-type]
        self._peercert = transport.get_extra_info("peercert")
        self._der = transport.get_extra_info("ssl_object").getpeercert(True) if self._peercert else None

    def _upgrade(self) -> "Upgrade | None":
        upgrades: Mapping[bytes, Upgrade] = getattr(self.config, "upgrades", {})
        return upgrades.get(self._get_upgrade() or b"")

    def _should_upgrade(self) -> bool:
        return super()._should_upgrade() or self._upgrade() is not None

    def handle_websocket_upgrade(self) -> None:
        upgrade = self._upgrade()
        if upgrade is None:
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        url = httptools.parse_url(self.url)
        where = {"path": unquote(url.path.decode("ascii")), "raw_path": url.path, "query_string": url.query or b""}
        self.transport.set_protocol(upgrade(self.app, {**self.scope, **where}, self.transport))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._peercert:
            self.scope.setdefault("extensions", {})["tls"] = {"peercert": self._peercert, "der": self._der}


Upgrade = Callable[[Any, dict[str, Any], Any], asyncio.Protocol]
"""What takes a connection over: of the ASGI application, the request's scope and the transport."""


class _Config(uvicorn.Config):
    upgrades: Mapping[bytes, Upgrade] = {}


class HostCheck:
    """Refuses a request whose Host header is not ours, so that a page in a browser cannot rebind DNS to us.

    An address of this machine is no name that could be rebound, and the cluster's own names are nobody's in DNS.
    """

    def __init__(self, app: Any, allowed: Iterable[str] = LOOPBACK_HOSTS) -> None:
        self.app = app
        self.allowed = frozenset(allowed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            if not self._serves(name.lower()):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                    return
                body = f'Host "{host}" is not served here; use 127.0.0.1 or localhost\n'.encode()
                headers = [(b"content-type", b"text/plain; charset=utf-8")]
                await send({"type": "http.response.start", "status": 421, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self.app(scope, receive, send)

    def _serves(self, name: str) -> bool:
        return name in self.allowed or name.endswith((".svc", ".svc.cluster.local")) or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class _Embedded(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def tell(self) -> None:
        """It shall end."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether it shall end; an idle server of ours only keeps its date."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._told.wait()

    def install_signal_handlers(self) -> None:
        """The process, not the server, owns the signals."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


class Server:
    """A listening server. ``port`` is the real one, also when 0 was asked for."""

    def __init__(self, server: _Embedded, task: "asyncio.Task[None]", port: int) -> None:
        self._server = server
        self._task = task
        self.port = port

    async def close(self) -> None:
        """Stops accepting, gives open requests a second, then ends."""
        self._server.tell()
        try:
            await asyncio.wait_for(asyncio.shield(self._task), timeout=2.0)
        except TimeoutError:
            self._server.force_exit = True
            self._task.cancel()
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    async def wait_closed(self) -> None:
        await self._task


async def serve(
    app: Any,
    *,
    port: int,
    host: str = "127.0.0.1",
    tls: ServerTLS | ssl.SSLContext | None = None,
    allowed_hosts: Iterable[str] | None = LOOPBACK_HOSTS,
    name: str = "server",
    upgrades: Mapping[bytes, Upgrade] | None = None,
) -> Server:
    """Serves an ASGI app until ``close()``.

    Args:
        tls: certificate files, or a context that its owner keeps current.
        allowed_hosts: names accepted in the Host header; None turns the check off.
        upgrades: other protocols than WebSocket that a request may ask for, by their name in lower case.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer waits 40 ms for an ACK.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"{name}: cannot listen on {host}:{port} ({exc.strerror}); "
            "end the program that uses it, or move all ports with --port-offset N"
        ) from exc
    listener.listen(2048)
    listener.setblocking(False)
    config = _Config(
        HostCheck(app, allowed_hosts) if allowed_hosts is not None else app,
        http=_Protocol,
        ws="wsproto",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )
    config.upgrades = upgrades or {}
    if isinstance(tls, ssl.SSLContext):
        config.load()
        config.ssl = tls
    elif tls is not None:
        config.ssl_certfile = str(tls.certificate)
        config.ssl_keyfile = str(tls.key)
        config.load()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        config.ssl = context
    server = _Embedded(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"{name} http server")
    while not server.started:
        if task.done():
            task.result()
            raise ConfigError(f"{name}: the HTTP server ended before it was ready")
        await asyncio.sleep(0.005)
    return Server(server, task, listener.getsockname()[1])
