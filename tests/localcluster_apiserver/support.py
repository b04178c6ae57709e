"""A client for a server of its own, over real TLS, and the objects that many tests send."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from flyball.http.client import client_tls
from flyball.localcluster import ApiServer, pki

Object = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Client:
    def __init__(self, session: aiohttp.ClientSession, base: str, token: str) -> None:
        self.session, self.base, self.token = session, base, token

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        type: str = "application/json",  # noqa: A002
        **headers: str,
    ) -> tuple[int, Any]:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": type, **headers}
        async with self.session.request(method, self.base + path, data=data, headers=sent) as response:
            text = await response.read()
            self.headers = response.headers
            return response.status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()

    @contextlib.asynccontextmanager
    async def watch(self, path: str, **headers: str) -> AsyncIterator[Callable[[], Awaitable[Object]]]:
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        async with self.session.get(self.base + path, headers=sent) as response:
            assert response.status == 200, await response.text()

            async def event() -> Object:
                line = await asyncio.wait_for(response.content.readline(), 5)
                return json.loads(line) if line else {"type": "END"}

            yield event


@contextlib.asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[Client]:
    server = ApiServer(directory, port=0)
    await server.start()
    tls = client_tls(ca_file=directory / "pki" / "ca.crt")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        try:
            yield Client(session, f"https://127.0.0.1:{server.port}", pki.token(directory))
        finally:
            await server.close()


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, replicas: int = 1) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "python"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pod(name: str, **labels: str) -> Object:
    spec = {"containers": [{"name": "c", "image": "python"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def run(tmp_path: Path, steps: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as api:
            await steps(api)

    asyncio.run(main())
