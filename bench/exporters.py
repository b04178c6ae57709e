"""What a scrape of our exporters costs, beside those whose names they use.

``kube-state``: the state of 10,000 pods of an API server, beside kube-state-metrics that watches the very same one.
``node``: this machine, beside Debian's node_exporter with the collectors that ours has.

Both are scraped in turn, as Prometheus does; CPU is the whole process', without what it takes while it is not scraped.
What is served is compared: families, series and, where no clock goes into them, values.
"""

import argparse
import asyncio
import contextlib
import gzip
import http.client
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import peers
from bench.report import report
from flyball.cli.demo import free_port_offset

ROOT = Path(__file__).parents[1]
PODS, ROUNDS = 10_000, 10
NODE_ROUNDS = 50
KUBE_STATE_VERSION = "2.20.0"
SYNCED_MAX_S = 300
#: What differs from scrape to scrape, or by who serves it.
OWN = re.compile(r"go_|process_|promhttp_|python_|node_scrape_collector_|node_exporter_build_info|kube_state_metrics_")
SERIES = re.compile(rb"^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(rb'(\w+)="((?:[^"\\]|\\.)*)"')

Found = dict[str, dict[frozenset[tuple[bytes, bytes]], float]]


class Exporter:
    """One that serves /metrics."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process, self.port = psutil.Process(process.pid), port
        self.cpu_s = self.wall_s = 0.0

    def _spent_s(self) -> float:
        """CPU so far, of every thread, to the nanosecond: ``cpu_times`` counts in hundredths of a second."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def scrape(self) -> bytes:
        """The body, uncompressed; what it cost is added up."""
        before_s, begun_s = self._spent_s(), time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.wall_s += time.perf_counter() - begun_s
        time.sleep(0.2)  # what is left to do after the answer is part of its cost
        self.cpu_s += self._spent_s() - before_s
        return gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body

    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss) / 1e6


@contextlib.contextmanager
def running(port: int, *command: str) -> Iterator[Exporter]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            peers.wait_ready(f"http://127.0.0.1:{port}/metrics", process, 60)
            yield Exporter(process, port)
        finally:
            process.terminate()
            process.wait(20)


def families(body: bytes) -> Found:
    found: Found = {}
    for match in SERIES.finditer(body):
        name = match[1].decode()
        if not OWN.match(name):
            found.setdefault(name, {})[frozenset(LABEL.findall(match[2] or b""))] = float(match[3])
    return found


def compared(name: str, ours: Found, theirs: Found) -> None:
    """Says on stderr what is alike and what is not."""
    both = sorted(ours.keys() & theirs.keys())
    series = sum(len(ours[one].keys() & theirs[one].keys()) for one in both)
    odd = {one: len(ours[one].keys() ^ theirs[one].keys()) for one in both if ours[one].keys() != theirs[one].keys()}
    differ = sum(ours[one][key] != theirs[one][key] for one in both for key in ours[one].keys() & theirs[one].keys())
    print(
        f"{name}: {len(both)} families of both with {series:,} series, {differ:,} of another value; "
        f"series of one alone: {odd or 'none'}; families of ours alone: {sorted(ours.keys() - theirs.keys())}; "
        f"of theirs alone: {sorted(theirs.keys() - ours.keys())}",
        file=sys.stderr,
    )


def measure(case: str, us: Exporter, them: Exporter, rounds: int, peer: str, version: str) -> None:
    bodies = [one.scrape() for one in (us, them)]
    for one in (us, them):
        one.cpu_s = one.wall_s = 0.0
    for _ in range(rounds):
        for one in (us, them):
            one.scrape()
    named = {"peer": peer, "peer_version": version}
    report("exporters", f"{case} cpu a scrape", 1000 * us.cpu_s / rounds, "ms",
           theirs=1000 * them.cpu_s / rounds, **named)  # fmt: skip
    report("exporters", f"{case} latency", 1000 * us.wall_s / rounds, "ms", theirs=1000 * them.wall_s / rounds, **named)
    report("exporters", f"{case} memory", us.rss_mb(), "MB", theirs=them.rss_mb(), **named)
    compared(case, *(families(body) for body in bodies))
    print(f"{case}: {len(bodies[0]):,} and {len(bodies[1]):,} bytes a scrape", file=sys.stderr)


# --- kube-state


def pod(number: int) -> dict[str, Any]:
    """A pod of a deployment with two containers that run, as its node shows it."""
    uid, since = f"00000000-0000-4000-8000-{number:012x}", "2026-01-01T00:00:00Z"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"web-{number // 10}-5d8f", "uid": uid}
    names = ("app", "sidecar")
    amounts = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}
    containers = [{"name": name, "image": f"registry.example/{name}:1", "resources": amounts} for name in names]
    statuses = [
        {
            "name": name,
            "image": f"registry.example/{name}:1",
            "imageID": f"registry.example/{name}@sha256:{number:064x}",
            "containerID": f"containerd://{number:064x}",
            "ready": True,
            "started": True,
            "restartCount": number % 3,
            "state": {"running": {"startedAt": since}},
        }
        for name in names
    ]
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-{number // 10}-5d8f-{number:05x}",
            "labels": {"app": f"web-{number // 10}"},
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {
            "nodeName": f"node-{number % 100}",
            "containers": containers,
            "automountServiceAccountToken": False,
        },
        "status": {
            "phase": "Running",
            "hostIP": f"10.255.0.{number % 100}",
            "hostIPs": [{"ip": f"10.255.0.{number % 100}"}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": since,
            "qosClass": "Burstable",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": since}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": statuses,
        },
    }


async def serve(directory: Path, offset: int) -> None:
    from flyball.localcluster import ApiServer, pki

    pki.ensure(directory, offset)
    server = ApiServer(directory, offset)
    await server.start()
    (directory / "ready").touch()
    await asyncio.Event().wait()


async def fill(kubeconfig: Path, count: int) -> None:
    from flyball.kube import KubeClient
    from flyball.kube.kinds import PODS as PODS_KIND

    numbers = iter(range(count))
    async with await KubeClient.from_kubeconfig(kubeconfig) as client:

        async def write() -> None:
            for number in numbers:
                wanted = pod(number)
                name, status = wanted["metadata"]["name"], {"status": wanted["status"]}
                await client.create(PODS_KIND, wanted, "default")
                await client.patch(PODS_KIND, name, status, "default", "status")

        await asyncio.gather(*(write() for _ in range(16)))


@contextlib.contextmanager
def api_server(count: int) -> Iterator[Path]:
    """The kubeconfig of one that holds the pods."""
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as name:
        directory = Path(name)
        arguments = ["--serve", str(directory), "--offset", str(free_port_offset())]
        process = subprocess.Popen([sys.executable, "-m", "bench.exporters", *arguments], cwd=ROOT)
        try:
            until(lambda: (directory / "ready").exists(), "the API server does not start")
            asyncio.run(fill(directory / "kubeconfig", count))
            yield directory / "kubeconfig"
        finally:
            process.terminate()
            process.wait(20)


def until(condition: Callable[[], object], message: str) -> None:
    deadline_s = time.monotonic() + SYNCED_MAX_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(message)
        time.sleep(1)


def kube_state(count: int) -> None:
    ports = [peers.free_port() for _ in range(3)]
    with api_server(count) as kubeconfig:
        ours = (sys.executable, "-m", "flyball", "exporter", "kube-state", "--kubeconfig", str(kubeconfig),
                "--resources=pods", f"--port={ports[0]}")  # fmt: skip
        theirs = (str(peers.tool("kube_state_metrics.py")), f"--kubeconfig={kubeconfig}", "--resources=pods",
                  "--host=127.0.0.1", f"--port={ports[1]}", "--telemetry-host=127.0.0.1",
                  f"--telemetry-port={ports[2]}")  # fmt: skip
        with running(ports[0], *ours) as us, running(ports[1], *theirs) as them:
            for one in (us, them):
                until(lambda one=one: one.scrape().count(b"\nkube_pod_info{") >= count, "not all pods are served")
            measure(f"kube-state {count}", us, them, ROUNDS, "kube-state-metrics", KUBE_STATE_VERSION)


# --- node


def node() -> None:
    from flyball.exporters.node.collectors import COLLECTORS

    sys.path.insert(0, str(ROOT / "tools"))
    from debian import program

    binary = program("prometheus-node-exporter", "usr/bin/prometheus-node-exporter")
    said = subprocess.run([binary, "--version"], capture_output=True, text=True)
    version = (said.stdout + said.stderr).split("version ")[1].split()[0]
    known = subprocess.run([binary, "--help"], capture_output=True, text=True)
    theirs_have = set(re.findall(r"--(?:\[no-\])?collector\.(\w+) ", known.stdout + known.stderr))
    chosen = [f"--collector.{name}" for name in sorted({*COLLECTORS, "textfile"} & theirs_have)]
    ports = [peers.free_port() for _ in range(2)]
    ours = (sys.executable, "-m", "flyball", "exporter", "node", f"--port={ports[0]}")
    theirs = (str(binary), "--collector.disable-defaults", *chosen, f"--web.listen-address=127.0.0.1:{ports[1]}")
    with running(ports[0], *ours) as us, running(ports[1], *theirs) as them:
        measure("node", us, them, NODE_ROUNDS, "node-exporter", version)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pods")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--offset", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.offset))
        return
    node()
    kube_state(PODS // 10 if given.quick else PODS)


if __name__ == "__main__":
    main()
