"""How soon a step in the load is answered, from the first request of the step to the scale write.

One ``flyball up``, real pods, real HTTP requests through the Service. ``scraped``: pods count their requests and are
scraped; ``pushed``: the load is a gauge that is pushed (over HTTP, statsd). ``zero``: the first request to a workload
without pods. What pods take to start is not in the decision path: it is reported as ``answered``. Peers see the same
step: the stock HPA (15 s window, 5 s age, a beat of 15 s, from each of its phases) and Knative's algorithm.

Usage: python -m bench.reaction [scraped] [pushed] [zero] [--quick] [--json]
"""

import asyncio
import contextlib
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from bench.elasticity import HPA
from bench.report import report
from flyball.cli.demo import free_port_offset
from flyball.http.client import new_session
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import DEPLOYMENTS
from flyball.replay.peers import run_knative
from flyball.replay.stretches import run_parity
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import spec_from_hpa

STEPS = (2, 4, 10)
BASE = 30.0  # requests a second before the step
PER_POD = 10
POD_STARTS_S = 5
PARTS = [name for name in sys.argv[1:] if not name.startswith("-")] or ["scraped", "pushed", "zero"]
TRIALS = 3 if "--quick" in sys.argv else 12
SETTLE_S = 2.5
LATEST_S = 15.0
QUEUE = "bench_queue_depth"
POD = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
count = 0
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global count
        count += self.path != "/metrics"
        body = ("http_requests_total %d\\n" % count).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128
Server(("", 8000), Handler).serve_forever()
"""


def manifests() -> list[dict[str, Any]]:
    """Workload ``web`` that is scraped, ``queue`` that a push scales, ``idle`` that is woken from zero."""
    scraped = {
        "type": "Pods",
        "pods": {"metric": {"name": "http_requests_per_second"}, "target": _average(PER_POD)},
    }
    pushed = {"type": "External", "external": {"metric": {"name": QUEUE}, "target": _average(PER_POD)}}
    waiting = {
        "type": "Object",
        "object": {
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "idle"},
            "metric": {"name": "flyball_service_pending_requests"},
            "target": _average(PER_POD),
        },
    }
    # a pod begins after a while, so that starting processes do not take the processor from the decision path
    web, sleep = ["sh", "-c", f"sleep {POD_STARTS_S}; exec python3 -c '{POD}'"], ["sleep", "100000"]
    return [
        *_workload("web", web, 2, 2, [scraped]),
        *_workload("queue", sleep, 2, 2, [pushed]),
        *_workload("idle", ["sh", "-c", f"exec python3 -c '{POD}'"], 1, 0, [scraped, waiting]),
    ]


def _average(value: int) -> dict[str, str]:
    return {"type": "AverageValue", "averageValue": str(value)}


def _workload(name: str, command: list[str], replicas: int, low: int, metrics: list[Any]) -> list[dict[str, Any]]:
    labels = {"app": name}
    serves = command[0] == "sh"
    container: dict[str, Any] = {"name": "main", "image": "bench", "command": command}
    notes = {}
    if serves:
        probe = {"httpGet": {"path": "/metrics", "port": 8000}, "periodSeconds": 1}
        container |= {"ports": [{"containerPort": 8000}], "readinessProbe": probe}
        notes = {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"}
    pod = {
        "metadata": {"labels": labels, "annotations": notes},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    spec = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": 40, "profile": "fast", "metrics": metrics}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "selector": labels, "ports": [{"port": 8000}]},
        },
        {"apiVersion": "flyball.dev/v1alpha1", "kind": "Governor", "metadata": {"name": name}, "spec": spec},
    ]


class Load:
    """Requests at a rate that may be changed, evenly spaced, whatever becomes of them."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.rate = BASE
        self._session, self._url = session, url
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        next_s = time.monotonic()
        while True:
            next_s = max(next_s + 1 / self.rate, time.monotonic() - 0.05)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            task = asyncio.create_task(self._ask())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _ask(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(self._url) as answer:
                await answer.read()


class Bench:
    """The running product and what was seen of its Deployments."""

    def __init__(self, client: KubeClient, session: aiohttp.ClientSession, offset: int) -> None:
        self.client, self.session, self.offset = client, session, offset
        self.sizes: dict[str, list[tuple[float, int]]] = {}
        self.addresses: dict[str, str] = {}

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{9090 + self.offset}"

    def seen(self, _change: str, _old: dict[str, Any] | None, deployment: dict[str, Any] | None) -> None:
        """A handler of the Deployments' informer."""
        if deployment is None:
            return
        sizes = self.sizes.setdefault(deployment["metadata"]["name"], [])
        replicas = int(deployment["spec"].get("replicas") or 0)
        if not sizes or sizes[-1][1] != replicas:
            sizes.append((time.monotonic(), replicas))

    async def until(self, check: Callable[[], Any], timeout_s: float = 60.0, what: str = "") -> None:
        deadline_s = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{what or 'it'} did not happen within {timeout_s:g} s: {self.sizes}")
            await asyncio.sleep(0.01)

    async def calm(self, name: str, replicas: int, below: int) -> None:
        """A person's number for a moment, until the Governor by itself stays below a size."""
        for _ in range(5):
            await self.hold(name, replicas)
            if self.sizes[name][-1][1] < below:
                return
        raise SystemExit(f"{name} does not calm down: {self.sizes[name][-20:]}")

    async def hold(self, name: str, replicas: int) -> None:
        url = f"{self.api}/api/flyball/v1/namespaces/default/governors/{name}/override"
        async with self.session.post(url, json={"replicas": replicas}) as answer:
            answer.raise_for_status()
        await self.until(lambda: self.sizes[name][-1][1] == replicas, what=f"{name} at {replicas}")
        await asyncio.sleep(SETTLE_S)
        async with self.session.delete(url) as answer:
            answer.raise_for_status()
        await asyncio.sleep(SETTLE_S)

    async def reaction(self, name: str, step: Callable[[], Awaitable[None]], needed: int) -> tuple[float, float]:
        """Seconds from the step to the first larger size, and to ``needed``; at most ``LATEST_S``."""
        while self.sizes[name][-1][1] >= needed:  # a burst came while it was calm
            await self.hold(name, needed - 2)
        before = self.sizes[name][-1][1]
        began_s = time.monotonic()
        await step()
        deadline_s = began_s + LATEST_S
        while self.sizes[name][-1][1] < needed and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
        later = [(at_s, size) for at_s, size in self.sizes[name] if at_s > began_s]
        first_s = next((at_s for at_s, size in later if size > before), deadline_s)
        return first_s - began_s, next((at_s for at_s, size in later if size >= needed), deadline_s) - began_s


async def scraped(bench: Bench) -> dict[int, list[tuple[float, float]]]:
    load = Load(bench.session, bench.addresses["web"])
    running = asyncio.create_task(load.run())
    found: dict[int, list[tuple[float, float]]] = {factor: [] for factor in STEPS}
    try:
        for trial in range(TRIALS):
            for factor in STEPS:
                load.rate = BASE
                await bench.calm("web", 4, int(BASE * factor) // PER_POD)
                await asyncio.sleep(0.37 * (trial % 5))  # at another phase of the scrapes

                async def step(factor: int = factor) -> None:
                    load.rate = BASE * factor

                found[factor].append(await bench.reaction("web", step, int(BASE * factor) // PER_POD))
    finally:
        running.cancel()
    return found


async def pushed(bench: Bench, push: Callable[[float], Awaitable[None]]) -> dict[int, list[tuple[float, float]]]:
    found: dict[int, list[tuple[float, float]]] = {factor: [] for factor in STEPS}
    for trial in range(TRIALS):
        for factor in STEPS:
            await push(BASE)
            await bench.calm("queue", 3, int(BASE * factor) // PER_POD)
            await asyncio.sleep(0.19 * (trial % 5))

            async def step(factor: int = factor) -> None:
                await push(BASE * factor)

            found[factor].append(await bench.reaction("queue", step, int(BASE * factor) // PER_POD))
    return found


async def woken(bench: Bench) -> list[tuple[float, float]]:
    """Seconds from the first request to the scale write, and to its answer."""
    found = []
    for trial in range(TRIALS):
        await bench.until(lambda: bench.sizes["idle"][-1][1] == 0, 120, "idle at zero")  # nobody asks
        await asyncio.sleep(SETTLE_S)  # until its pod is gone
        await asyncio.sleep(0.23 * (trial % 5))
        began_s = time.monotonic()
        async with bench.session.get(bench.addresses["idle"]) as answer:
            await answer.read()
        answered_s = time.monotonic() - began_s
        await bench.until(lambda: bench.sizes["idle"][-1][1] > 0, what="idle woken")
        decided_s = next(at_s for at_s, size in bench.sizes["idle"][-2:] if size > 0) - began_s
        found.append((decided_s, answered_s))
    return found


def of_peers(factor: int) -> dict[str, tuple[float, float]]:
    """(first decision, covered) in s of the worst phase of each peer, which sees the same step."""
    found: dict[str, list[tuple[float, float]]] = {"hpa": [], "knative": []}
    workload = Workload(PER_POD / 0.7, startup_s=1)
    needed = round(BASE * factor / PER_POD)
    for phase in range(15):
        step_s = 300 + phase
        rate = np.where(np.arange(step_s + 400) < step_s, BASE, BASE * factor).astype(np.float64)
        trace = Trace("step", 0, rate)
        for name, desired in (
            ("hpa", next(run_parity([spec_from_hpa(HPA)], trace, workload))),
            ("knative", run_knative(trace, workload)),
        ):
            after = desired[step_s:]
            enough = after >= math.ceil(needed / 1.1)  # the stock HPA is content within its tolerance
            found[name].append((float(np.argmax(after > desired[step_s - 1])), float(np.argmax(enough))))
    return {name: (max(first for first, _ in runs), max(late for _, late in runs)) for name, runs in found.items()}


def tell(what: str, floor_s: float, found: dict[int, list[tuple[float, float]]]) -> None:
    for factor, runs in found.items():
        peers = of_peers(factor)
        for at, name, aim in ((0, "first decision", floor_s), (1, "covered", 3.0)):
            values = [run[at] for run in runs]
            report("reaction", f"{what}, x{factor}, {name} p50", float(np.median(values)), "s")
            for peer in ("hpa", "knative"):
                report(
                    "reaction", f"{what}, x{factor}, {name} p99", float(np.quantile(values, 0.99)), "s",
                    aim=aim, theirs=peers[peer][at], peer=peer,
                )  # fmt: skip


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    offset = free_port_offset()
    with tempfile.TemporaryDirectory(prefix="flyball-reaction-") as directory:
        manifest = Path(directory) / "bench.yaml"
        manifest.write_text("\n---\n".join(map(json.dumps, manifests())))
        data_dir = Path(directory) / "data"
        arguments = ["up", "--data-dir", str(data_dir), "--port-offset", str(offset), "-f", str(manifest)]
        with (Path(directory) / "log").open("w") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "flyball", *arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                while not (data_dir / "kubeconfig").exists():
                    if process.returncode is not None:
                        raise SystemExit(f"flyball up ended: {(Path(directory) / 'log').read_text()}")
                    await asyncio.sleep(0.05)
                client = await KubeClient.from_kubeconfig(data_dir / "kubeconfig")
                async with new_session(timeout_s=60, keep_alive=False, connections_max=1000) as session:
                    bench = Bench(client, session, offset)
                    deployments: Informer[dict[str, Any]] = Informer(client, DEPLOYMENTS, "default")
                    deployments.add_handler(bench.seen)
                    watching = asyncio.create_task(deployments.run())
                    await _ready(bench)
                    yield bench
                    watching.cancel()
                    await client.close()
            finally:
                process.terminate()
                await process.wait()


async def _ready(bench: Bench) -> None:
    """Every Service answers, and every metric is known."""
    from flyball.kube.kinds import SERVICES

    await bench.until(lambda: len(bench.sizes) == 3, what="the Deployments")
    for name in ("web", "idle"):
        while name not in bench.addresses:
            service = await bench.client.get(SERVICES, name, "default")
            ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
            if ingress:
                bench.addresses[name] = f"http://127.0.0.1:{ingress[0]['ports'][0]['port']}/"
            await asyncio.sleep(0.1)
        answered = False
        while not answered:
            with contextlib.suppress(aiohttp.ClientError):
                async with bench.session.get(bench.addresses[name]) as answer:
                    answered = answer.ok
            await asyncio.sleep(0.1)
    await _push_http(bench, BASE)
    await asyncio.sleep(20)  # the adapter lists series at its own beat


async def _push_http(bench: Bench, value: float) -> None:
    url = f"{bench.api}/metrics/job/bench/namespace/default"
    async with bench.session.post(url, data=f"{QUEUE} {value}\n".encode()) as answer:
        answer.raise_for_status()


async def _push_statsd(bench: Bench, value: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        text = f"{QUEUE}:{value:g}|g|#namespace:default,job:bench"
        sender.sendto(text.encode(), ("127.0.0.1", 8125 + bench.offset))


async def main() -> None:
    async with running() as bench:
        if "scraped" in PARTS:
            tell("scraped", 2.0, await scraped(bench))
        if "pushed" in PARTS:
            tell("pushed over HTTP", 0.5, await pushed(bench, lambda value: _push_http(bench, value)))
            tell("pushed by statsd", 0.5, await pushed(bench, lambda value: _push_statsd(bench, value)))
        if "zero" in PARTS:
            decided, answered = zip(*await woken(bench), strict=True)
            report("reaction", "woken from zero, decided p50", float(np.median(decided)), "s")
            report("reaction", "woken from zero, decided p99", float(np.quantile(decided, 0.99)), "s", aim=0.2)
            report("reaction", "woken from zero, answered p50", float(np.median(answered)), "s")
        if "--json" not in sys.argv:
            print(json.dumps({"trials": TRIALS, "load": Path("/proc/loadavg").read_text().split()[0]}))


if __name__ == "__main__":
    asyncio.run(main())
