"""The node's HTTPS server: logs, figures, health, exec and port-forward.

Everything but ``/healthz`` asks for the bearer token; figures are given to service accounts, too.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from prometheus_client.core import GaugeMetricFamily, Metric

from flyball import clock
from flyball.localcluster.durations import Series
from flyball.localcluster.metricspage import METRICS_TEXT, TEXT, answer, authorized, bearer, health_slis
from flyball.localcluster.node import attaching, cadvisor, containerlogs, figures, process, streams
from flyball.localcluster.node.pods import PodManager


class NodeApi:
    """An ASGI application.

    Args:
        knows: whether a bearer token is one that the API server knows.
        asked: the series of the client by which the node asks the API server.
    """

    def __init__(
        self,
        manager: PodManager,
        token_file: Path,
        own_metrics: Callable[[], Mapping[str, float]],
        knows: Callable[[str], Awaitable[bool]],
        asked: Callable[[], Iterable[Metric]] = list,
    ) -> None:
        self._knows = knows
        self._manager = manager
        self._token_file = token_file
        self._own_metrics = own_metrics
        self._cadvisor = cadvisor.Cadvisor(manager)
        self._exposition = Series(self._metrics, self._pod_metrics, asked).exposition

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/healthz":
            await answer(send, 200, b"ok")
            return
        of_figures = path == "/metrics" or path.startswith("/metrics/")
        if not authorized(scope, self._token_file) and not (of_figures and await self._knows(bearer(scope))):
            await answer(send, 401, b"Unauthorized: send the bearer token of the data directory's pki/token\n")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await answer(send, 405, f"{scope['method']} is not served at {path}\n".encode())
        elif path == "/metrics/resource":
            text = figures.exposition(self._manager, _query(scope, "node"))
            await answer(send, 200, text, METRICS_TEXT)
        elif path == "/metrics/cadvisor":
            await answer(send, 200, self._cadvisor.exposition(), METRICS_TEXT)
        elif path == "/metrics/probes":
            await answer(send, 200, cadvisor.probes(self._manager), METRICS_TEXT)
        elif path == "/metrics/slis":
            await answer(send, 200, health_slis("healthz"), METRICS_TEXT)
        elif path == "/metrics":
            await answer(send, 200, self._exposition(), METRICS_TEXT)
        elif path in ("/pods", "/pods/"):
            pods = [worker.pod for worker in self._manager.workers.values()]
            body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
            await answer(send, 200, json.dumps(body).encode(), "application/json")
        elif path == "/stats/summary":
            await answer(send, 200, json.dumps(self._summary()).encode(), "application/json")
        elif path.startswith("/containerLogs/"):
            await self._logs(scope, receive, send)
        else:
            await answer(send, 404, f"{path} is not served by the node\n".encode())

    def _metrics(self) -> Iterator[Metric]:
        name = GaugeMetricFamily("kubelet_node_name", "The node.", labels=("node",))
        name.add_metric((self._manager.node_name,), 1)
        yield name
        stats = self._manager.statistics()
        yield GaugeMetricFamily("kubelet_running_pods", "Pods that are here.", value=stats["pods"])
        containers = GaugeMetricFamily("kubelet_running_containers", "Containers.", labels=("container_state",))
        containers.add_metric(("running",), stats["containers"])
        yield containers
        for word, value in self._own_metrics().items():
            yield GaugeMetricFamily(f"flyball_node_{word}", "See the name.", value=value)

    def _pod_metrics(self) -> Iterable[Metric]:
        return self._manager.series.collect(self._manager.workers.values())

    def _summary(self) -> dict[str, Any]:
        at = clock.rfc3339(clock.now_ms())
        pods = [
            {
                "podRef": {"name": worker.name, "namespace": worker.namespace, "uid": worker.uid},
                "containers": [
                    {"name": one.name, "cpu": {"time": at, "usageCoreNanoSeconds": one.figures().cpu_ns}}
                    for one in worker.containers
                    if one.state.running
                ],
            }
            for worker in self._manager.workers.values()
        ]
        node = {
            "nodeName": self._manager.node_name,
            "cpu": {"time": at, "usageCoreNanoSeconds": int(figures.node_cpu_s() * 1e9)},
            "memory": {"time": at, "workingSetBytes": figures.node_memory_bytes()},
        }
        return {"node": node, "pods": pods}

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        """``/exec`` or ``/attach/NAMESPACE/POD/CONTAINER?...`` and ``/portForward/NAMESPACE/POD``."""
        await receive()
        parts = [unquote(part) for part in scope["path"].split("/")[1:]]
        offered = scope.get("subprotocols") or []
        spoken = streams.EXEC_PROTOCOLS if parts[0] in ("exec", "attach") else (streams.FORWARD_PROTOCOL,)
        protocol = next((one for one in spoken if one in offered), None)
        worker = self._manager.find(parts[1], parts[2]) if len(parts) > 2 else None
        if not authorized(scope, self._token_file) or protocol is None or worker is None:
            await send({"type": "websocket.close", "code": 1008})
            return
        if parts[0] == "portForward":
            await send({"type": "websocket.accept", "subprotocol": protocol})
            await streams.Forwarding(f"{worker.name}, uid {worker.uid}", worker.ip, send).run(receive)
            return
        container = worker.find(parts[3]) if parts[0] in ("exec", "attach") and len(parts) == 4 else None
        if container is None or not container.alive:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept", "subprotocol": protocol})
        query = parse_qs(scope["query_string"].decode("latin-1"))
        wanted = {name: query.get(name, [""])[-1] in ("true", "1") for name in ("stdin", "tty")}
        if parts[0] == "attach":
            attempt = container.attempt
            await attaching.attach(
                container, lambda: container.attempt == attempt and container.alive, wanted["stdin"], receive, send
            )
            return
        await streams.execute(container, query.get("command") or ["true"], wanted, receive, send)

    async def _logs(self, scope: Any, receive: Any, send: Any) -> None:
        parts = [unquote(part) for part in scope["path"].split("/")[2:]]
        if len(parts) != 3:
            await answer(send, 404, b"use /containerLogs/NAMESPACE/POD/CONTAINER\n")
            return
        namespace, name, container = parts
        worker = self._manager.find(namespace, name)
        if worker is None:
            await answer(send, 404, f'pod "{namespace}/{name}" does not run on this node\n'.encode())
            return
        one = worker.find(container)
        if one is None:
            known = ", ".join(each.name for each in worker.containers)
            text = f'container "{container}" is not valid for pod "{name}"; it has {known}\n'
            await answer(send, 400, text.encode())
            return
        query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        try:
            options = _options(query)
        except ValueError as exc:
            await answer(send, 400, f"{exc}\n".encode())
            return
        attempt = one.attempt
        previous = query.get("previous") in ("true", "1")
        attempts = process.attempts(one.directory)
        if previous:
            older = [number for number in attempts if number < attempt or not one.state.running]
            if not older or (len(attempts) == 1 and one.state.running):
                text = f'previous terminated container "{container}" in pod "{name}" not found\n'
                await answer(send, 400, text.encode())
                return
            attempt = older[-1]
        elif not attempts:
            reason = (one.state.waiting or ("ContainerCreating", ""))[0]
            text = f'container "{container}" in pod "{name}" is waiting to start: {reason}\n'
            await answer(send, 400, text.encode())
            return

        def running() -> bool:
            return not previous and one.attempt == attempt and one.state.running and not worker.frozen

        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", TEXT.encode())]})
        chunks = containerlogs.read(one.directory / f"{attempt}.log", options, running)
        if not options.follow:
            await _stream(send, chunks)
            return
        gone = asyncio.ensure_future(_disconnected(receive))
        flow = asyncio.ensure_future(_stream(send, chunks))
        try:
            await asyncio.wait({gone, flow}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            flow.cancel()
            await asyncio.gather(gone, flow, return_exceptions=True)


async def _stream(send: Any, chunks: Any) -> None:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _query(scope: Any, name: str) -> str:
    return str(parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])[-1])


def _options(query: Mapping[str, str]) -> containerlogs.LogOptions:
    def number(name: str) -> int | None:
        if name not in query:
            return None
        if not query[name].isdigit():
            raise ValueError(f'{name} "{query[name]}" is not a number of 0 or more')
        return int(query[name])

    since_ms = None
    seconds = number("sinceSeconds")
    if seconds is not None:
        since_ms = clock.now_ms() - seconds * 1000
    elif "sinceTime" in query:
        try:
            since_ms = clock.parse_rfc3339_ms(query["sinceTime"])
        except ValueError:
            raise ValueError(f'sinceTime "{query["sinceTime"]}" is not an RFC 3339 time') from None
    return containerlogs.LogOptions(
        follow=query.get("follow") in ("true", "1"),
        tail_lines=number("tailLines"),
        timestamps=query.get("timestamps") in ("true", "1"),
        since_ms=since_ms,
        limit_bytes=number("limitBytes"),
    )
