"""The node's HTTPS server: logs, figures, health, exec and port-forward.

Everything but ``/healthz`` asks for the bearer token.
"""

import asyncio
import contextlib
import hmac
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from flyball import clock
from flyball.localcluster.node import attaching, cadvisor, containerlogs, figures, process, streams
from flyball.localcluster.node.pods import PodManager

TEXT = "text/plain; charset=utf-8"
METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
HEALTH_SLIS = b"""# HELP kubernetes_healthcheck Result of a health check.
# TYPE kubernetes_healthcheck gauge
kubernetes_healthcheck{name="ping",type="healthz"} 1
"""


class NodeApi:
    """An ASGI application."""

    def __init__(self, manager: PodManager, token_file: Path, own_metrics: Callable[[], Mapping[str, float]]) -> None:
        self._manager = manager
        self._token_file = token_file
        self._own_metrics = own_metrics
        self._cadvisor = cadvisor.Cadvisor(manager)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/healthz":
            await _answer(send, 200, b"ok")
            return
        if not self._authorized(scope):
            await _answer(send, 401, b"Unauthorized: send the bearer token of the data directory's pki/token\n")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, f"{scope['method']} is not served at {path}\n".encode())
        elif path == "/metrics/resource":
            text = figures.exposition(self._manager, _query(scope, "node"))
            await _answer(send, 200, text, METRICS_TEXT)
        elif path == "/metrics/cadvisor":
            await _answer(send, 200, self._cadvisor.exposition(), METRICS_TEXT)
        elif path == "/metrics/probes":
            await _answer(send, 200, cadvisor.probes(self._manager), METRICS_TEXT)
        elif path == "/metrics/slis":
            await _answer(send, 200, HEALTH_SLIS, METRICS_TEXT)
        elif path == "/metrics":
            await _answer(send, 200, self._metrics(), METRICS_TEXT)
        elif path in ("/pods", "/pods/"):
            pods = [worker.pod for worker in self._manager.workers.values()]
            body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
            await _answer(send, 200, json.dumps(body).encode(), "application/json")
        elif path == "/stats/summary":
            await _answer(send, 200, json.dumps(self._summary()).encode(), "application/json")
        elif path.startswith("/containerLogs/"):
            await self._logs(scope, receive, send)
        else:
            await _answer(send, 404, f"{path} is not served by the node\n".encode())

    def _authorized(self, scope: Any) -> bool:
        try:
            token = self._token_file.read_bytes().strip()
        except OSError:
            return False
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, value = given.partition(b" ")
        return bool(token) and kind.lower() == b"bearer" and hmac.compare_digest(value.strip(), token)

    def _metrics(self) -> bytes:
        lines = ["# TYPE kubelet_node_name gauge", f'kubelet_node_name{{node="{self._manager.node_name}"}} 1']
        stats = self._manager.statistics()
        for name, labels, value in (
            ("kubelet_running_pods", "", stats["pods"]),
            ("kubelet_running_containers", '{container_state="running"}', stats["containers"]),
        ):
            lines += [f"# TYPE {name} gauge", f"{name}{labels} {value}"]
        for name, value in self._own_metrics().items():
            lines += [f"# TYPE flyball_node_{name} gauge", f"flyball_node_{name} {value}"]
        return ("\n".join(lines) + "\n").encode() + generate_latest(self._process)

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
        if not self._authorized(scope) or protocol is None or worker is None:
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
            await _answer(send, 404, b"use /containerLogs/NAMESPACE/POD/CONTAINER\n")
            return
        namespace, name, container = parts
        worker = self._manager.find(namespace, name)
        if worker is None:
            await _answer(send, 404, f'pod "{namespace}/{name}" does not run on this node\n'.encode())
            return
        one = worker.find(container)
        if one is None:
            known = ", ".join(each.name for each in worker.containers)
            text = f'container "{container}" is not valid for pod "{name}"; it has {known}\n'
            await _answer(send, 400, text.encode())
            return
        query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        try:
            options = _options(query)
        except ValueError as exc:
            await _answer(send, 400, f"{exc}\n".encode())
            return
        attempt = one.attempt
        previous = query.get("previous") in ("true", "1")
        attempts = process.attempts(one.directory)
        if previous:
            older = [number for number in attempts if number < attempt or not one.state.running]
            if not older or (len(attempts) == 1 and one.state.running):
                text = f'previous terminated container "{container}" in pod "{name}" not found\n'
                await _answer(send, 400, text.encode())
                return
            attempt = older[-1]
        elif not attempts:
            reason = (one.state.waiting or ("ContainerCreating", ""))[0]
            text = f'container "{container}" in pod "{name}" is waiting to start: {reason}\n'
            await _answer(send, 400, text.encode())
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


async def _answer(send: Any, status: int, body: bytes, content_type: str = TEXT) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
