"""Requests that the API server passes on to the node: a pod's logs."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

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

    async def answer_log(self, request: Request, pod: Object) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        spec = pod.get("spec") or {}
        names = [c.get("name", "") for field in ("initContainers", "containers") for c in spec.get(field) or []]
        container = request.param("container")
        if not container:
            regular = [c.get("name", "") for c in spec.get("containers") or []]
            default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
            if len(regular) == 1:
                container = regular[0]
            elif default in regular:
                container = str(default)
            else:
                raise failures.bad_request(
                    f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
                )
        elif container not in names:
            raise failures.bad_request(f"container {container} is not valid for pod {name}")
        if not spec.get("nodeName"):
            await request.answer(200, b"", "text/plain")
            return
        await self._from_node(request, f"/containerLogs/{namespace}/{name}/{container}")

    async def _from_node(self, request: Request, path: str) -> None:
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
            )
        url = f"https://127.0.0.1:{self._port}{path}?{request.query}"
        headers = {"Authorization": f"Bearer {self._token}"}
        closed = asyncio.Event()
        gone = asyncio.create_task(until_gone(request.receive, closed.set))
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
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
            raise ApiFailure(
                500,
                f"Internal error occurred: the node does not answer at 127.0.0.1:{self._port} "
                f"({exc}); it may be restarting, try again",
            ) from exc
        finally:
            gone.cancel()


def _node_failure(status: int, text: str) -> ApiFailure:
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(text.encode())
            if isinstance(value, dict) and value.get("message"):
                return ApiFailure(int(value.get("code") or status), str(value["message"]), reason=value.get("reason"))
    return ApiFailure(status if status in (400, 404, 503) else 500, text or f"the node answered {status}")
