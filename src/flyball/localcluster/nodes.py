"""Requests that the API server passes on to the node: logs, exec, attach, port-forward."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from flyball.http.client import client_tls
from flyball.localcluster import failures
from flyball.localcluster.answers import until_gone
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.requests import Request

Object = dict[str, Any]

NODE_PORT = 10250


class NodeClient:
    """The node's HTTPS server, as the API server reaches it."""

    def __init__(self, pki_dir: Path, token: str, port: int) -> None:
        self._pki = pki_dir
        self._token = token
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            tls = client_tls(
                ca_file=self._pki / "ca.crt",
                cert_file=self._pki / "apiserver.crt",
                key_file=self._pki / "apiserver.key",
            )
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=tls),
                timeout=aiohttp.ClientTimeout(total=None, connect=3.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Authorization": f"Bearer {self._token}"},
            )
        return self._session

    async def answer_log(self, request: Request, pod: Object) -> None:
        """A container's log, followed while the client is there."""
        container = container_of(pod, request.param("container"))
        if not pod["spec"].get("nodeName"):
            await request.answer_nothing()
            return
        metadata = pod["metadata"]
        await self._from_node(request, f"/containerLogs/{metadata['namespace']}/{metadata['name']}/{container}")

    async def relay(self, request: Request, pod: Object, subresource: str, protocols: list[str]) -> None:
        """Passes a WebSocket on to the node, message by message, until either side closes.

        Raises:
            ApiFailure: there is no such container, it does not run, or the node does not answer.
        """
        metadata = pod["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        if not pod["spec"].get("nodeName"):
            raise failures.bad_request(f"pod {metadata['name']} does not have a host assigned")
        if subresource in ("exec", "attach"):
            if subresource == "exec" and not request.param("command"):
                raise failures.bad_request("you must specify at least 1 command for the container")
            container = container_of(pod, request.param("container"))
            path = f"/{subresource}/{name}/{container}"
        else:
            container, path = "", f"/portForward/{name}"
        url = URL(f"https://127.0.0.1:{self._port}{path}?{request.query}", encoded=True)
        try:
            upstream = await self._connected().ws_connect(url, protocols=protocols, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as exc:
            what = (
                f'unable to upgrade connection: container not found ("{container}")'
                if container
                else (f"the node refuses {subresource} of pod {name}")
            )
            raise ApiFailure(500, f"Internal error occurred: {what}") from exc
        except (OSError, aiohttp.ClientError, TimeoutError) as exc:
            raise self._unreachable(exc) from exc
        await request.send({"type": "websocket.accept", "subprotocol": upstream.protocol})
        listening = asyncio.create_task(_to_node(request, upstream))
        try:
            async for message in upstream:
                if message.type is aiohttp.WSMsgType.BINARY:
                    await request.send({"type": "websocket.send", "bytes": message.data})
            if not listening.done():
                await request.send({"type": "websocket.close", "code": 1000})
        finally:
            listening.cancel()
            await upstream.close()

    def _unreachable(self, exc: Exception) -> ApiFailure:
        return ApiFailure(
            500,
            f"Internal error occurred: the node does not answer at 127.0.0.1:{self._port} ({exc}); "
            "it may be restarting, try again",
        )

    async def _from_node(self, request: Request, path: str) -> None:
        url = f"https://127.0.0.1:{self._port}{path}?{request.query}"
        closed = asyncio.Event()
        gone = asyncio.create_task(until_gone(request.receive, closed.set))
        try:
            async with self._connected().get(url, allow_redirects=False) as response:
                if response.status != 200:
                    text = (await response.content.read(65536)).decode("utf-8", "replace").strip()
                    raise _node_failure(response.status, text)
                await request.start(200, [(b"content-type", b"text/plain"), (b"cache-control", b"no-cache, private")])
                stopping = asyncio.create_task(closed.wait())
                try:
                    while True:
                        reading = asyncio.ensure_future(response.content.readany())
                        done, _ = await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                        if reading not in done:
                            reading.cancel()
                            return
                        data = reading.result()
                        if not data:
                            break
                        await request.chunk(data)
                finally:
                    stopping.cancel()
                await request.chunk(b"", more=False)
        except (OSError, aiohttp.ClientError, TimeoutError) as exc:
            if request.started:
                raise ConnectionResetError("the node went away") from exc
            raise self._unreachable(exc) from exc
        finally:
            gone.cancel()


def container_of(pod: Object, asked: str) -> str:
    """The container that a request means.

    Raises:
        ApiFailure: 400, there is none of that name, or several and none is named.
    """
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    regular = [str(c.get("name", "")) for c in spec.get("containers") or []]
    if asked:
        others = [*(spec.get("initContainers") or []), *(spec.get("ephemeralContainers") or [])]
        if asked not in regular + [c.get("name", "") for c in others]:
            raise failures.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in regular:
        return str(default)
    if len(regular) != 1:
        raise failures.bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
        )
    return regular[0]


async def _to_node(request: Request, upstream: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(ConnectionResetError):
        while (message := await request.receive())["type"] == "websocket.receive":
            await upstream.send_bytes(message.get("bytes") or (message.get("text") or "").encode())
    await upstream.close()


def _node_failure(status: int, text: str) -> ApiFailure:
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(text.encode())
            if isinstance(value, dict) and value.get("message"):
                return ApiFailure(int(value.get("code") or status), str(value["message"]), reason=value.get("reason"))
    return ApiFailure(status if status in (400, 404, 503) else 500, text or f"the node answered {status}")
