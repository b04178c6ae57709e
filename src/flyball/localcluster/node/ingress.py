"""Ingresses, served on one port of this machine: an HTTP proxy in front of the Services."""

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Mapping
from typing import Any, Literal

import aiohttp

from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.http.passing import HOP_BY_HOP, onward, pass_back, request_body
from flyball.http.server import Server, serve
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import INGRESS_CLASSES, INGRESSES
from flyball.localcluster.node.ingressrules import CLASS, CONTROLLER, Backend, Route, is_ours, route, routes_of
from flyball.localcluster.node.ingresstls import IngressCertificates
from flyball.localcluster.node.ingresstls import wanted as wanted_secrets
from flyball.localcluster.node.serviceproxy import ServiceProxy
from flyball.localcluster.node.splicing import Backends

Object = dict[str, Any]
Key = tuple[str, str]

HTTP_PORT, HTTPS_PORT = 80, 443
ALTERNATIVE_BASE = 30000
ALTERNATIVE_TRIES = 10
CONNECT_TIMEOUT_S = 5.0
RETRY_S = 5.0
_HANDSHAKE = (b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol")


class IngressProxy:
    """Follows Ingresses; listens once there is one, and for TLS once there is one with ``tls``.

    An ordinary user may not listen on ports 80 and 443: then it is 30080 and 30443; an event of the Ingress says so.
    """

    def __init__(
        self, client: KubeClient, recorder: EventRecorder, services: ServiceProxy, port_offset: int = 0
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._services = services
        self._offset = port_offset
        self._ingresses: dict[Key, Object] = {}
        self._classes: dict[str, Object] = {}
        self._routes: list[Route] = []
        self._server: Server | None = None
        self._tls_server: Server | None = None
        self.certificates = IngressCertificates()
        self._session: aiohttp.ClientSession | None = None
        self._elsewhere: dict[int, str] = {}  # by wanted port, why another one serves it
        self._told: dict[Key, set[str]] = {}
        self._wake = asyncio.Event()
        self._requests = self._failures = 0

    # -- what comes from outside ---------------------------------------------------------------------------------

    def observe_ingress(self, change: str, ingress: Object) -> None:
        key = (ingress["metadata"].get("namespace") or "default", ingress["metadata"]["name"])
        if change == "DELETED":
            self._ingresses.pop(key, None)
            self._told.pop(key, None)
        else:
            self._ingresses[key] = ingress
        self._refresh()

    def observe_class(self, change: str, ingress_class: Object) -> None:
        name = ingress_class["metadata"]["name"]
        if change == "DELETED":
            self._classes.pop(name, None)
        else:
            self._classes[name] = ingress_class
        self._refresh()

    def observe_secret(self, change: str, secret: Object) -> None:
        self.certificates.observe(change, secret)
        self._wake.set()

    def _refresh(self) -> None:
        served = self._served().values()
        self._routes = routes_of(served)
        self.certificates.hosts = wanted_secrets(served)
        self._wake.set()

    def _served(self) -> dict[Key, Object]:
        return {key: one for key, one in self._ingresses.items() if is_ours(one, self._classes)}

    @property
    def port(self) -> int | None:
        """Where it listens; None before there is an Ingress."""
        return self._server.port if self._server is not None else None

    @property
    def tls_port(self) -> int | None:
        """Where it listens for TLS; None before there is an Ingress with ``tls``."""
        return self._tls_server.port if self._tls_server is not None else None

    def statistics(self) -> Mapping[str, int]:
        return {"routes": len(self._routes), "requests": self._requests, "failures": self._failures}

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listens and writes statuses until cancelled."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        try:
            troubled = not await self._provide_class()
            while True:
                self._wake.clear()
                try:
                    await self._sync()
                except FlyballError:
                    troubled = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if troubled else None):  # wait_for may lose a cancellation
                        await self._wake.wait()
                troubled = False
        finally:
            for server in (self._server, self._tls_server):
                if server is not None:
                    await server.close()
            await self._session.close()

    async def _provide_class(self) -> bool:
        body = {
            "apiVersion": INGRESS_CLASSES.api_version,
            "kind": INGRESS_CLASSES.kind,
            "metadata": {"name": CLASS, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": CONTROLLER},
        }
        try:
            await self._client.create(INGRESS_CLASSES, body)
        except KubeApiError as exc:
            return exc.code == 409
        except FlyballError:
            return False
        return True

    async def _sync(self) -> None:
        served = self._served()
        if served and self._server is None:
            self._server = await self._listen(HTTP_PORT, None)
        if self.certificates.hosts and self._tls_server is None:
            self._tls_server = await self._listen(HTTPS_PORT, self.certificates.context)
        for (namespace, name), ingress in served.items():
            with_tls = (ingress.get("spec") or {}).get("tls")
            ports = [self.port, *([self.tls_port] if with_tls else [])]
            listed = [{"port": port, "protocol": "TCP"} for port in ports if port is not None]
            wanted = [{"ip": "127.0.0.1", "ports": listed}]
            now = (ingress.get("status") or {}).get("loadBalancer", {}).get("ingress")
            if now != wanted:
                body = {"status": {"loadBalancer": {"ingress": wanted}}}
                try:
                    await self._client.patch(INGRESSES, name, body, namespace, "status")
                except KubeApiError as exc:
                    if exc.code != 404:
                        raise
            for port in (HTTP_PORT, *([HTTPS_PORT] if with_tls else [])):
                if port in self._elsewhere:
                    await self._tell_once(ingress, "Normal", "ServedAtAnotherPort", self._elsewhere[port])
            for key in wanted_secrets([ingress]).values():
                if problem := self.certificates.problem(key):
                    text = f'Secret "{key[1]}" is not used: {problem}; a certificate of our own is shown'
                    await self._tell_once(ingress, "Warning", "InvalidCertificate", text)

    async def _tell_once(self, ingress: Object, kind: Literal["Normal", "Warning"], reason: str, text: str) -> None:
        key = (ingress["metadata"].get("namespace") or "default", ingress["metadata"]["name"])
        told = self._told.setdefault(key, set())
        if text not in told:
            told.add(text)
            await self._recorder.event(ingress, kind, reason, text)

    async def _listen(self, usual: int, tls: ssl.SSLContext | None) -> Server:
        """The usual port, or the first free one that is 30000 above it.

        Raises:
            ConfigError: none of them can be had.
        """
        wanted = usual + self._offset
        others = [ALTERNATIVE_BASE + usual + self._offset + step for step in range(ALTERNATIVE_TRIES)]
        first: ConfigError | None = None
        for port in [wanted, *(port for port in others if port <= 65535)]:
            try:
                server = await serve(self, port=port, tls=tls, allowed_hosts=None, name="Ingress")
            except ConfigError as exc:
                first = first or exc
                continue
            if first is not None:
                cause = first.__cause__
                denied = isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM)
                why = (
                    "an ordinary user may not listen on ports below 1024"
                    if denied
                    else "another program of this machine listens on it"
                )
                at = f"http{'s' if tls else ''}://127.0.0.1:{port}"
                self._elsewhere[usual] = f"port {wanted} cannot be served ({why}); it is served at {at}"
            return server
        assert first is not None
        raise first

    # -- requests ------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application."""
        if scope["type"] not in ("http", "websocket"):
            return
        self._requests += 1
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        backend = route(self._routes, host, scope["path"])
        found = await self._addresses(backend) if backend is not None else None
        status, text = 404, "no Ingress rule fits this host and path"
        if backend is not None:
            status, text = 503, f"no pod of Service {backend.namespace}/{backend.service} is ready"
        if found is not None and found[1]:
            forward = self._forward if scope["type"] == "http" else self._tunnel
            if await forward(scope, receive, send, *found):
                return
            status, text = 502, f"no pod of Service {backend and backend.service} takes the connection"
        self._failures += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1013})
            return
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"text/plain; charset=utf-8")],
            }
        )
        await send({"type": "http.response.body", "body": f"{text}\n".encode()})

    async def _addresses(self, backend: Backend) -> tuple[Backends, list[tuple[str, int]]] | None:
        port_name = self._services.port_name(backend.namespace, backend.service, backend.port)
        if port_name is None:
            return None
        backends = self._services.backends((backend.namespace, backend.service, port_name))
        order = backends.order()
        return backends, await backends.wait() if not order and backends.holds() else order

    def _headers(self, scope: Any) -> list[tuple[str, str]]:
        peer = scope["client"][0] if scope.get("client") else ""
        passed = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in HOP_BY_HOP and name not in _HANDSHAKE
        ]
        before = next((value for name, value in passed if name == "x-forwarded-for"), "")
        host = next((value for name, value in passed if name == "host"), "")
        ours = {
            "x-forwarded-for": f"{before}, {peer}" if before else peer,
            "x-forwarded-host": host,
            "x-forwarded-proto": "https" if scope.get("scheme") in ("https", "wss") else "http",
            "x-real-ip": peer,
        }
        return [*((name, value) for name, value in passed if name not in ours), *ours.items()]

    async def _forward(
        self, scope: Any, receive: Any, send: Any, backends: Backends, order: list[tuple[str, int]]
    ) -> bool:
        """Whether an answer was begun. A pod that does not take the connection is passed over."""
        assert self._session is not None
        names = {name for name, _ in scope["headers"]}
        has_body = b"content-length" in names or b"transfer-encoding" in names
        for at in order:
            backends.opened(at)
            try:
                async with self._session.request(
                    scope["method"],
                    onward(f"http://{at[0]}:{at[1]}", scope),
                    headers=self._headers(scope),
                    data=request_body(receive) if has_body else None,
                    allow_redirects=False,
                    skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                ) as answer:
                    await pass_back(answer, send)
                    return True
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                continue  # nothing was sent yet, so another pod may serve it
            except aiohttp.ServerDisconnectedError:
                return False
            finally:
                backends.closed(at)
        return False

    async def _tunnel(
        self, scope: Any, receive: Any, send: Any, backends: Backends, order: list[tuple[str, int]]
    ) -> bool:
        """A WebSocket, message by message."""
        assert self._session is not None
        await receive()  # websocket.connect
        for at in order:
            backends.opened(at)
            try:
                async with self._session.ws_connect(
                    onward(f"ws://{at[0]}:{at[1]}", scope),
                    headers=self._headers(scope),
                    protocols=scope.get("subprotocols") or (),
                ) as upstream:
                    await send({"type": "websocket.accept", "subprotocol": upstream.protocol})
                    downward = asyncio.create_task(_downward(upstream, send))
                    try:
                        await _upward(receive, upstream)
                    finally:
                        downward.cancel()
                    return True
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                continue
            except aiohttp.ClientError:
                break
            finally:
                backends.closed(at)
        await send({"type": "websocket.close", "code": 1013})
        return True


async def _upward(receive: Any, upstream: "aiohttp.ClientWebSocketResponse") -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes") is not None:
            await upstream.send_bytes(message["bytes"])
        else:
            await upstream.send_str(message.get("text") or "")


async def _downward(upstream: "aiohttp.ClientWebSocketResponse", send: Any) -> None:
    async for message in upstream:
        if message.type is aiohttp.WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is aiohttp.WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
    await send({"type": "websocket.close", "code": upstream.close_code or 1000})
