"""A whole world for the adapter: the embedded API server, a Prometheus API over our store, the adapter as deployed."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp

from flyball import clock
from flyball.adapter.deployment import Flags, PrometheusFlags, ServingFlags, run
from flyball.errors import FlyballError
from flyball.http.client import client_tls
from flyball.http.server import serve
from flyball.kube import KubeClient
from flyball.localcluster import ApiServer
from flyball.model.labels import labels_of
from flyball.store import Head
from flyball.web.prometheus_api import create_app

SERVICE = ("flyball-system", "flyball-adapter")
GROUPS = (
    ("custom.metrics.k8s.io", "v1beta1"),
    ("custom.metrics.k8s.io", "v1beta2"),
    ("external.metrics.k8s.io", "v1beta1"),
    ("metrics.k8s.io", "v1beta1"),
)
DEADLINE_S = 20.0


def pod(name: str, namespace: str = "default", phase: str = "Running", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
        "status": {"phase": phase},
    }


@dataclass
class Prometheus:
    """A served store. ``requests`` are the paths and queries asked so far; ``down`` makes every answer a 503."""

    head: Head
    port: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    down: bool = False

    def add(self, labels: Mapping[str, str], value: float, *, at_ms: int | None = None) -> None:
        self.head.append(labels_of(labels), clock.now_ms() - 1_000 if at_ms is None else at_ms, value)

    def counter(self, labels: Mapping[str, str], per_second: float, *, seconds: int = 120, ahead_s: int = 0) -> None:
        """Samples every 10 s that grow at a rate; those ahead of now are seen when their time comes."""
        now_ms = clock.now_ms() - 1_000
        for ago in range(seconds, -1 - ahead_s, -10):
            self.add(labels, per_second * (seconds - ago), at_ms=now_ms - ago * 1000)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def queries(self) -> list[str]:
        return [query for path, query in self.requests if path == "/api/v1/query"]


@contextlib.asynccontextmanager
async def prometheus() -> AsyncIterator[Prometheus]:
    """A Prometheus API over a store that starts empty."""
    found = Prometheus(Head())
    with ThreadPoolExecutor(1) as executor:
        app = create_app(found.head, list, executor)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            message = await receive()
            body = message.get("body", b"")
            while message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
            form = scope["query_string"].decode() + "&" + body.decode()
            asked = dict(parse_qsl(form))
            found.requests.append((scope["path"], asked.get("query") or asked.get("match[]") or ""))
            if found.down:
                await send({"type": "http.response.start", "status": 503, "headers": []})
                await send({"type": "http.response.body", "body": b"down"})
                return
            given = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def again() -> Any:
                return next(given, None) or await receive()

            await app(scope, again, send)

        server = await serve(counted, port=0, name="prometheus")
        found.port = server.port
        try:
            yield found
        finally:
            await server.close()


@dataclass
class World:
    """``adapter_port`` is the adapter's own; ``client`` talks to the API server, which passes metrics on to it."""

    directory: Path
    client: KubeClient
    prometheus: Prometheus
    flags: Flags
    api_port: int
    adapter_port: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    api_server: ApiServer | None = None

    async def stop(self) -> None:
        """Ends the adapter, as SIGTERM would."""
        self.stopping.set()
        if self.task is not None:
            await asyncio.wait_for(self.task, 10)

    async def get(self, path: str) -> Any:
        """Through the API server, as the HPA controller asks."""
        return json.loads(await self.client.raw_get(path))

    async def until(self, check: Callable[[], Awaitable[Any]]) -> Any:
        """The first true answer before the deadline; errors of Flyball's are tried again."""
        last: Any = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        last = await check()
                    except FlyballError as exc:
                        last = exc
                    else:
                        if last:
                            return last
                    await asyncio.sleep(0.03)
        raise AssertionError(f"not true before the deadline; the last answer was {last!r}")

    def pki(self, name: str) -> Path:
        return self.directory / "cluster" / "pki" / name

    def tls(self, *, front_proxy: bool = False, server_ca: Path | None = None) -> ssl.SSLContext:
        """A client context for the adapter itself."""
        ca = server_ca or self.directory / "certs" / "ca.crt"
        pair = (self.pki("front-proxy-client.crt"), self.pki("front-proxy-client.key")) if front_proxy else (None, None)
        return client_tls(ca_file=ca, cert_file=pair[0], key_file=pair[1])

    async def ask(
        self, path: str, headers: Any = None, tls: ssl.SSLContext | None = None, method: str = "GET"
    ) -> tuple[int, bytes]:
        """Straight to the adapter."""
        connector = aiohttp.TCPConnector(ssl=tls or self.tls())
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"https://127.0.0.1:{self.adapter_port}{path}"
            async with session.request(method, url, headers=headers, allow_redirects=False) as response:
                return response.status, await response.read()


@contextlib.asynccontextmanager
async def world(
    directory: Path,
    config: str,
    *,
    objects: Iterable[dict[str, Any]] = (),
    series: Callable[[Prometheus], None] = lambda _: None,
    serving: Mapping[str, Any] | None = None,
    **flags: Any,
) -> AsyncIterator[World]:
    """Everything runs, APIServices included, until the block ends."""
    api_server = ApiServer(directory / "cluster", port=0)
    await api_server.start()
    stopping = asyncio.Event()
    try:
        kubeconfig = directory / "kubeconfig"
        written = (directory / "cluster" / "kubeconfig").read_text().replace(":6443", f":{api_server.port}")
        kubeconfig.write_text(written)
        (directory / "config.yaml").write_text(config)
        async with await KubeClient.from_kubeconfig(kubeconfig) as client, prometheus() as metrics:
            series(metrics)
            for obj in objects:
                await create(client, obj)
            given = Flags(
                directory / "config.yaml" if config else None,
                PrometheusFlags(metrics.url, timeout_s=2.0),
                ServingFlags(0, "127.0.0.1", cert_dir=directory / "certs", **(serving or {})),
                kubeconfig=str(kubeconfig),
                **{"relist_interval_s": 0.2, "max_age_s": 600.0, "share_s": 0.0, **flags},
            )
            ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            # the APIServices first: the adapter writes its authority into them
            await publish_api_services(client)
            task = asyncio.create_task(run(given, stopping, ready.set_result))
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            found = World(directory, client, metrics, given, api_server.port, await ready, stopping, task, api_server)
            await publish_endpoint(client, found.adapter_port)
            try:
                yield found
            finally:
                await found.stop()
                api_server = found.api_server or api_server
    finally:
        await api_server.close()


async def create(client: KubeClient, obj: dict[str, Any]) -> None:
    from flyball.kube.kinds import resource_of

    resource = resource_of(obj["apiVersion"], obj["kind"])
    assert resource is not None
    status = obj.pop("status", None)
    created = await client.create(resource, obj)
    if status is not None:
        await client.update(resource, {**created, "status": status}, subresource="status")


async def publish_api_services(client: KubeClient) -> None:
    metadata = {"name": SERVICE[1], "namespace": SERVICE[0]}
    spec = {"ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}
    await create(client, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    for group, version in GROUPS:
        spec = {
            "group": group,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {**metadata, "port": 443},
        }
        body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec}
        await create(client, {**body, "metadata": {"name": f"{version}.{group}"}})


async def publish_endpoint(client: KubeClient, port: int) -> None:
    metadata = {
        "name": SERVICE[1],
        "namespace": SERVICE[0],
        "labels": {"kubernetes.io/service-name": SERVICE[1]},
    }
    await create(
        client,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        },
    )
