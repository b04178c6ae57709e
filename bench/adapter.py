"""The adapter beside the real prometheus-adapter 0.12: the same Prometheus, the same kube-apiserver, alternate rounds.

1,000 HPAs over 10,000 pods in 20 namespaces, 20 rules, one metric of type Pods each; a round asks for all of them, as
the HPA controllers of a cluster do every 15 s. Each adapter's rounds begin 15 s apart, and two go before what is
measured; queries and CPU are those of the whole 15 s. Theirs runs with its client's limits raised to 1,000, so that it
can finish a round. ``capacity`` is how many HPAs are answered within the 15 s of one round, by as many callers as
answers come; theirs also at its own limits.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop
from tests.adapter.real import Ask, real_adapter
from tests.cluster.control_plane import RealControlPlane, free_port, write_kubeconfig

from bench.report import report
from flyball.http.client import client_tls
from flyball.http.server import serve
from flyball.kube import KubeClient
from flyball.kube.kinds import NAMESPACES, PODS

ROOT = Path(__file__).parents[1]
NAMESPACES_N, RULES_N, PODS_PER_HPA = 20, 20, 10
IN_FLIGHT = 50
ROUND_S = 15.0
WARM_ROUNDS = 2  # controllers ask for ever: what the first rounds cost is not what a round costs
MASTERS = {"X-Remote-User": "bench", "X-Remote-Group": "system:masters"}
RAISED = ("--client-qps", "1000", "--client-burst", "1000")
#: Only lists of pods are written down.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["list"], "resources": [{"group": "", "resources": ["pods"]}]},
        {"level": "None"},
    ],
}

RULE = """
- seriesQuery: load_{index}_total
  resources: {{overrides: {{namespace: {{resource: namespace}}, pod: {{resource: pod}}}}}}
  name: {{matches: "^(.*)_total$"}}
  metricsQuery: sum(rate(<<.Series>>{{<<.LabelMatchers>>}}[1m])) by (<<.GroupBy>>)
"""


def tool(name: str) -> Path:
    """A binary that a tool of ours provides."""
    found = subprocess.run([sys.executable, str(ROOT / "tools" / name)], check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())


class Lines:
    """A file of JSON lines that another process writes; gives the new ones."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def new(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


class Queries:
    """What Prometheus was asked, by whom: theirs name the pods, ours ask for those of all HPAs."""

    def __init__(self, log: Path) -> None:
        self._lines, self._of = Lines(log), dict[str, list[str]](ours=[], theirs=[])

    def new(self, name: str) -> list[str]:
        """One adapter's since it was last asked about."""
        for line in self._lines.new():
            query = line["params"]["query"]
            self._of["ours" if 'pod!=""' in query else "theirs"].append(query)
        found, self._of[name] = self._of[name], []
        return found


@dataclass
class Case:
    """One adapter: how to ask it, its process, and what its rounds cost."""

    name: str
    ask: Ask
    process: psutil.Process
    latencies_s: list[float] = field(default_factory=list)
    failures: int = 0
    lists: list[int] = field(default_factory=list)
    queries: list[list[str]] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rounds_s: list[float] = field(default_factory=list)
    capacity: int = 0
    _cpu_before_s: float = 0.0

    def period_ends(self, queries: Queries) -> None:
        """Takes down what 15 s have cost; the first time there were none yet."""
        cpu_s, asked = sum(self.process.cpu_times()[:2]), queries.new(self.name)
        if self._cpu_before_s:
            self.cpu_s.append(cpu_s - self._cpu_before_s)
            self.queries.append(asked)
        self._cpu_before_s = cpu_s

    def forget(self) -> None:
        """What was measured so far was to warm up."""
        for measured in (self.latencies_s, self.lists, self.queries, self.cpu_s, self.rounds_s):
            measured.clear()
        self.failures = 0

    async def answers(self, path: str) -> bool:
        """Whether it gives all values of one HPA."""
        status, body = await self.ask(path)
        return status == 200 and body.count(b'"value"') == PODS_PER_HPA


async def round_of(case: Case, paths: list[str], lists: Lines) -> None:
    """Asks for every HPA's metric once."""
    limit = asyncio.Semaphore(IN_FLIGHT)
    lists.new()
    began_s = time.monotonic()

    async def one(path: str) -> None:
        async with limit:
            start_s = time.monotonic()
            good = await case.answers(path)
            case.latencies_s.append(time.monotonic() - start_s)
            case.failures += not good

    await asyncio.gather(*map(one, paths))
    case.rounds_s.append(time.monotonic() - began_s)
    await asyncio.sleep(1)  # the log is written behind
    case.lists.append(len(lists.new()))


async def capacity_of(case: Case, paths: list[str]) -> None:
    """How many HPAs are answered in full within one round, asked as fast as answers come."""
    until_s, answered = time.monotonic() + ROUND_S, 0
    upcoming = iter(range(10**9))

    async def caller() -> None:
        nonlocal answered
        while time.monotonic() < until_s:
            with contextlib.suppress(TimeoutError):  # an answer after the round is a round missed
                async with asyncio.timeout(until_s - time.monotonic()):
                    good = await case.answers(paths[next(upcoming) % len(paths)])
                    answered += good

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    case.capacity = answered


@contextlib.asynccontextmanager
async def metrics_server(directory: Path, hpas: int) -> AsyncIterator[str]:
    """A real Prometheus that scrapes one page with a counter for every pod; gives its URL."""
    began_s = time.time()
    names = [(hpa % NAMESPACES_N, f"w{hpa}-{pod}", hpa % RULES_N) for hpa in range(hpas) for pod in range(PODS_PER_HPA)]

    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        grown = time.time() - began_s
        lines = [
            f'load_{rule}_total{{namespace="ns-{space}",pod="{pod}"}} {(1 + index % 50) * grown:.3f}'
            for index, (space, pod, rule) in enumerate(names)
        ]
        body = ("\n".join(lines) + "\n").encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})

    server = await serve(page, port=0, name="page")
    config = {
        "global": {"scrape_interval": "5s", "query_log_file": str(directory / "queries.log")},
        "scrape_configs": [
            {"job_name": "pods", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    with (directory / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            str(tool("prometheus.py")),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
        await server.close()


async def fill(client: KubeClient, hpas: int) -> None:
    """The namespaces and their pods."""
    limit = asyncio.Semaphore(50)

    async def one(hpa: int, pod: int) -> None:
        async with limit:
            metadata = {"name": f"w{hpa}-{pod}", "labels": {"app": f"w{hpa}"}}
            body = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"containers": [{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "1"}}}]},
            }
            await client.create(PODS, body, f"ns-{hpa % NAMESPACES_N}")

    for index in range(NAMESPACES_N):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns-{index}"}}
        await client.create(NAMESPACES, body)
    await asyncio.gather(*(one(hpa, pod) for hpa in range(hpas) for pod in range(PODS_PER_HPA)))


@contextlib.asynccontextmanager
async def our_adapter(directory: Path, config: Path, url: str, kubeconfig: Path) -> AsyncIterator[Case]:
    """`flyball adapter`, asked as the API server's front proxy asks."""
    with (directory / "ours.log").open("w") as log:
        process = subprocess.Popen(  # noqa: ASYNC220
            [
                *(sys.executable, "-m", "flyball", "adapter", "--config", str(config), "--prometheus-url", url),
                *("--lister-kubeconfig", str(kubeconfig), "--secure-port", "0", "--bind-address", "127.0.0.1"),
                *("--cert-dir", str(directory / "certs"), "--metrics-relist-interval", "1m"),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    pki = directory / "plane" / "pki"
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        if not line.startswith("ready on port "):
            raise SystemExit((directory / "ours.log").read_text())
        tls = client_tls(
            ca_file=directory / "certs" / "ca.crt",
            cert_file=pki / "front-proxy-client.crt",
            key_file=pki / "front-proxy-client.key",
        )
        base = f"https://127.0.0.1:{line.split()[-1]}"
        async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=tls, limit=1000)) as session:

            async def ask(path: str) -> tuple[int, bytes]:
                async with session.get(path, headers=MASTERS) as response:
                    return response.status, await response.read()

            yield Case("ours", ask, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(20)


@contextlib.asynccontextmanager
async def their_adapter(
    directory: Path, config: Path, url: str, kubeconfig: Path, limits: Sequence[str] = ()
) -> AsyncIterator[Case]:
    """prometheus-adapter, asked as a member of system:masters."""
    flags = (*limits, "--metrics-relist-interval", "1m")
    async with real_adapter(tool("prometheus_adapter.py"), directory, config, url, kubeconfig, *flags) as real:
        yield Case("theirs", real.ask, psutil.Process(real.process.pid))


async def until_served(case: Case, paths: list[str]) -> None:
    """Returns once there is a full answer for the first and the last HPA."""
    async with asyncio.timeout(120):
        for path in (paths[0], paths[-1]):
            while True:
                with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                    if await case.answers(path):
                        break
                await asyncio.sleep(0.5)


async def measure(hpas: int, rounds: int, directory: Path) -> None:
    kubeconfig, config, plane_dir = directory / "kubeconfig", directory / "config.yaml", directory / "plane"
    config.write_text("rules:" + "".join(RULE.format(index=index) for index in range(RULES_N)))
    (directory / "audit.json").write_text(json.dumps(AUDIT_POLICY))
    flags = (
        f"--audit-policy-file={directory / 'audit.json'}",
        f"--audit-log-path={directory / 'audit.log'}",
        "--disable-admission-plugins=ServiceAccount",  # there are no controllers that make accounts
    )
    paths = [
        f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns-{hpa % NAMESPACES_N}/pods/*/load_{hpa % RULES_N}"
        f"?labelSelector=app%3Dw{hpa}"
        for hpa in range(hpas)
    ]
    with RealControlPlane(plane_dir, api_flags=flags) as plane:
        write_kubeconfig(kubeconfig, plane.base, plane.token, plane.ca)
        async with await KubeClient.from_kubeconfig(kubeconfig) as client:
            await fill(client, hpas)
        async with metrics_server(directory, hpas) as url:
            await asyncio.sleep(20)  # the first rates need two scrapes
            at_defaults = await capacity_at_defaults(directory, config, url, kubeconfig, paths)
            async with (
                their_adapter(directory / "raised", config, url, kubeconfig, RAISED) as theirs,
                our_adapter(directory, config, url, kubeconfig) as ours,
            ):
                for case in (theirs, ours):
                    await until_served(case, paths)
                order = random.Random(1)
                queries, lists = Queries(directory / "queries.log"), Lines(directory / "audit.log")
                next_s = time.monotonic()
                for number in range(-WARM_ROUNDS, rounds + 1):
                    shuffled = order.sample(paths, len(paths))
                    for case in (theirs, ours):
                        next_s += ROUND_S / 2
                        await asyncio.sleep(next_s - time.monotonic())
                        case.period_ends(queries)
                        if number == 0:
                            case.forget()
                        if number < rounds:
                            await round_of(case, shuffled, lists)
                memory = {case.name: case.process.memory_info().rss / 1e6 for case in (theirs, ours)}
                for case in (theirs, ours):
                    await asyncio.sleep(ROUND_S / 2)
                    await capacity_of(case, shuffled)
                tell(ours, theirs, at_defaults, memory)


async def capacity_at_defaults(directory: Path, config: Path, url: str, kubeconfig: Path, paths: list[str]) -> int:
    """Theirs, without raised limits."""
    async with their_adapter(directory / "defaults", config, url, kubeconfig) as case:
        await until_served(case, paths[:1])
        await asyncio.sleep(ROUND_S / 2)
        await capacity_of(case, paths)
    return case.capacity


def tell(ours: Case, theirs: Case, at_defaults: int, memory: dict[str, float]) -> None:
    """Medians of the rounds; memory after them and after the measurement of capacity."""

    def middle(values: list[Any]) -> float:
        return float(sorted(values)[len(values) // 2])

    def line(case: str, value: Any, unit: str, aim: float | None = None) -> None:
        report(
            "adapter", case, value(ours), unit, aim=aim, theirs=value(theirs), peer="prometheus-adapter",
            peer_version="0.12.0",
        )  # fmt: skip

    line("queries", lambda case: middle([len(queries) for queries in case.queries]), "queries/round", 2 * RULES_N)
    line("lists", lambda case: middle(case.lists), "lists/round", 0)
    for share in (50, 99):
        line(
            f"latency p{share}",
            lambda case, n=share: 1000 * sorted(case.latencies_s)[len(case.latencies_s) * n // 100],
            "ms",
        )
    line("cpu", lambda case: middle(case.cpu_s), "s/round")
    line("memory", lambda case: memory[case.name], "MB")
    line("querybytes", lambda case: max(len(query) for queries in case.queries for query in queries), "bytes")
    line("round", lambda case: middle(case.rounds_s), "s")
    line("failures", lambda case: case.failures, "failures/round", 0)
    line("capacity", lambda case: case.capacity, "HPAs", 10 * theirs.capacity)
    line("capacity memory", lambda case: case.process.memory_info().rss / 1e6, "MB", 200)
    report(
        "adapter", "capacity at defaults", ours.capacity, "HPAs", theirs=at_defaults, peer="prometheus-adapter",
        peer_version="0.12.0",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hpas", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as directory:
        uvloop.run(measure(given.hpas, given.rounds, Path(directory)))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
