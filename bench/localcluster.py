"""The embedded API server over TLS, alone in its process: writes, watch events, lists, a thousand HPAs' status.

Usage: python -m bench.localcluster [--json] [--peer]

With --peer the same client then asks a real kube-apiserver (with etcd, which does not wait for its disk) the same.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import uvloop

from bench.report import report
from flyball.http.client import client_tls
from flyball.localcluster import pki

CONNECTIONS = 16
WRITES = 4_000
WATCHERS = 1_000
WATCHED_WRITES = 100
PODS = 5_000
HPAS, HPA_ROUND_S = 1_000, 15
SERVER = """
import asyncio, sys, uvloop
from pathlib import Path
from flyball.localcluster.server import ApiServer
async def main():
    server = ApiServer(Path(sys.argv[1]), port=0)
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""
NAMESPACE = "/api/v1/namespaces/default"


class Connection:
    """One keep-alive connection; requests are written by hand so that the client costs little."""

    def __init__(self, port: int, token: str, tls: Any) -> None:
        self._port, self._tls = port, tls
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nUser-Agent: bench/1\r\n"

    async def open(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls, limit=1 << 24)
        return self

    async def __call__(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        fields = answer.lower()
        if b"content-length:" in fields:
            text = await self.reader.readexactly(int(fields.split(b"content-length:")[1].split(b"\r\n")[0]))
        else:
            text = b"".join([chunk async for chunk in self._chunks()])
        if not answer.startswith(b"HTTP/1.1 2"):
            raise SystemExit(f"{method} {path}: {text.decode()[:500]}")
        return text

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()

    async def watch(self, path: str, counter: list[int]) -> None:
        """Counts lines until the connection is closed."""
        self.writer.write(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())
        await self.reader.readuntil(b"\r\n\r\n")
        counter[1] += 1
        while data := await self.reader.read(1 << 20):
            counter[0] += data.count(b'{"type":"')


def pod(name: str) -> dict[str, Any]:
    env = [{"name": f"NAME_{number}", "value": "value"} for number in range(10)]
    container = {"name": "web", "image": "python", "env": env, "ports": [{"containerPort": 8000}]}
    metadata = {"name": name, "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


async def in_parallel(connections: list[Connection], work: list[Callable[[Connection], Awaitable[Any]]]) -> float:
    """Seconds for all pieces of work, each connection taking the next as it is free."""
    queue = iter(work)

    async def drain(connection: Connection) -> None:
        for piece in queue:
            await piece(connection)

    start = perf_counter()
    await asyncio.gather(*(drain(connection) for connection in connections))
    return perf_counter() - start


@dataclass(frozen=True, slots=True)
class Case:
    value: float
    unit: str
    aim: float | None = None


async def measure(directory: Path, port: int, pid: int, *, has_controllers: bool = True) -> dict[str, Case]:
    """Every case against one server; without controllers the client makes what pods need."""
    found: dict[str, Case] = {}
    tls = client_tls(ca_file=directory / "pki" / "ca.crt")
    token = pki.token(directory)

    async def connect() -> Connection:
        return await Connection(port, token, tls).open()

    connections = [await connect() for _ in range(CONNECTIONS)]
    if not has_controllers:
        account = json.dumps({"metadata": {"name": "default"}}).encode()
        await connections[0]("POST", f"{NAMESPACE}/serviceaccounts", account)

    def call(method: str, path: str, body: Any, kind: str = "application/json") -> Any:
        data = json.dumps(body).encode()
        return lambda connection: connection(method, path, data, kind)

    took = await in_parallel(connections, [call("POST", f"{NAMESPACE}/pods", pod(f"p{n}")) for n in range(PODS)])
    found["pods created"] = Case(PODS / took, "1/s")
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    path = f"{NAMESPACE}/pods/p{{}}/status"
    kind = "application/merge-patch+json"
    took = await in_parallel(connections, [call("PATCH", path.format(n), status, kind) for n in range(PODS)])
    found["pod status patches"] = Case(PODS / took, "1/s")
    start = perf_counter()
    await connections[0]("GET", f"{NAMESPACE}/pods")
    found[f"list of {PODS} pods"] = Case((perf_counter() - start) * 1000, "ms")

    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"n": "", "text": "x" * 4000}}
    await call("POST", f"{NAMESPACE}/configmaps", config)(connections[0])
    bodies = [{**config, "data": {"n": str(n), "text": "x" * 4000}} for n in range(WRITES)]
    took = await in_parallel(connections, [call("PUT", f"{NAMESPACE}/configmaps/c", body) for body in bodies])
    found["puts of 4 kB"] = Case(WRITES / took, "1/s", aim=8000)

    counter = [0, 0]
    watches = []
    for _ in range(WATCHERS):
        watcher = await connect()
        options = "resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
        path = f"{NAMESPACE}/configmaps?watch=1&{options}"
        watches.append(asyncio.create_task(watcher.watch(path, counter)))
    while counter[1] < WATCHERS:
        await asyncio.sleep(0.01)
    counter[0], start = 0, perf_counter()
    for body in bodies[:WATCHED_WRITES]:
        await call("PUT", f"{NAMESPACE}/configmaps/c", body)(connections[0])
    while counter[0] < WATCHERS * WATCHED_WRITES:
        await asyncio.sleep(0.001)
    took = perf_counter() - start
    found[f"events to {WATCHERS} watchers"] = Case(counter[0] / took, "1/s", aim=100_000)
    for task in watches:
        task.cancel()
    name = f"cpu for the status of {HPAS} HPAs every {HPA_ROUND_S} s"
    found[name] = Case(await hpa_status(connections[0], call, psutil.Process(pid)), "%", aim=5)
    return found


async def hpa_status(connection: Connection, call: Any, server: psutil.Process) -> float:
    """What the server's process spends on the status of every HPA, written every 15 s as an autoscaler does."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    for number in range(HPAS):
        metadata = {"name": f"hpa-{number}"}
        spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 9}
        body = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}
        await call("POST", path, body)(connection)
    kinds = ("AbleToScale", "ScalingActive", "ScalingLimited")
    conditions = [{"type": kind, "status": "True", "reason": "Known", "message": "as it should be"} for kind in kinds]
    metric = {"name": "cpu", "current": {"averageUtilization": 0, "averageValue": "0"}}
    began, before = perf_counter(), sum(server.cpu_times()[:2])
    for number in range(HPAS):
        metric["current"] = {"averageUtilization": number % 90, "averageValue": f"{number}m"}
        status = {"currentReplicas": 2, "desiredReplicas": 2, "conditions": conditions}
        status["currentMetrics"] = [{"type": "Resource", "resource": metric}]
        body = {"status": status}
        await call("PATCH", f"{path}/hpa-{number}/status", body, "application/merge-patch+json")(connection)
        await asyncio.sleep(began + HPA_ROUND_S * (number + 1) / HPAS - perf_counter())
    spent = sum(server.cpu_times()[:2]) - before
    return 100 * spent / HPA_ROUND_S


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        server = subprocess.Popen([sys.executable, "-c", SERVER, name], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            ours = uvloop.run(measure(Path(name), int(server.stdout.readline()), server.pid))
        finally:
            server.terminate()
            server.wait()
    theirs: dict[str, Case] = {}
    if "--peer" in sys.argv:
        from tests.cluster.control_plane import RealControlPlane

        with tempfile.TemporaryDirectory() as name, RealControlPlane(Path(name)) as real:
            pid = real.pid("kube-apiserver")
            theirs = uvloop.run(measure(real.directory, real.port, pid, has_controllers=False))
    for case, one in ours.items():
        if case in theirs:
            beside = {"peer": "kube-apiserver", "peer_version": "1.37"}
            report("localcluster", case, one.value, one.unit, aim=one.aim, theirs=theirs[case].value, **beside)
        else:
            report("localcluster", case, one.value, one.unit, aim=one.aim)


if __name__ == "__main__":
    main()
