"""The adapter beside the real prometheus-adapter 0.12: the same Prometheus, the same API server, alternate rounds.

1,000 HPAs over 10,000 pods in 20 namespaces, 20 rules, one metric of type Pods each; a round asks for all of them, as
the HPA controllers of a cluster do every 15 s. Theirs runs with its client's limits raised to 1,000, so that it can
finish a round.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import psutil
from tests.adapter.real import real_adapter

import flyball.localcluster.server as api
from bench.report import report
from flyball.http.client import client_tls
from flyball.http.server import serve
from flyball.kube import KubeClient
from flyball.kube.kinds import NAMESPACES, PODS
from flyball.localcluster import ApiServer

ROOT = Path(__file__).parents[1]
NAMESPACES_N, RULES_N, PODS_PER_HPA = 20, 20, 10
IN_FLIGHT = 50
MASTERS = {"X-Remote-User": "bench", "X-Remote-Group": "system:masters"}

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


class CountingApplication(api.Application):
    """The API server, counting the lists that it is asked for."""

    lists = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_get = scope["type"] == "http" and scope["method"] == "GET"
        if is_get and scope["path"].endswith("/pods") and b"watch=" not in scope["query_string"]:
            CountingApplication.lists += 1
        await super().__call__(scope, receive, send)


@dataclass
class Case:
    """One adapter: how to ask it, its process, and what its rounds cost."""

    name: str
    ask: Any
    process: psutil.Process
    latencies_s: list[float] = field(default_factory=list)
    failures: int = 0
    lists: list[int] = field(default_factory=list)
    queries: list[list[str]] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rounds_s: list[float] = field(default_factory=list)


async def round_of(case: Case, paths: list[str], log: Path) -> None:
    """Asks for every HPA's metric once."""
    limit = asyncio.Semaphore(IN_FLIGHT)
    lists, logged = CountingApplication.lists, log.stat().st_size if log.exists() else 0
    before = sum(case.process.cpu_times()[:2])
    began_s = time.monotonic()

    async def one(path: str) -> None:
        async with limit:
            start_s = time.monotonic()
            status, body = await case.ask(path)
            case.latencies_s.append(time.monotonic() - start_s)
            case.failures += status != 200 or body.count(b'"value"') != PODS_PER_HPA

    await asyncio.gather(*map(one, paths))
    case.rounds_s.append(time.monotonic() - began_s)
    await asyncio.sleep(0.5)  # the query log is written behind
    case.cpu_s.append(sum(case.process.cpu_times()[:2]) - before)
    case.lists.append(CountingApplication.lists - lists)
    with log.open() as file:
        file.seek(logged)
        lines = [json.loads(line) for line in file if line.strip()]
    case.queries.append([line["params"]["query"] for line in lines])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
            str(tool("debian_prometheus.py")),
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
    pki = directory / "cluster" / "pki"
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


async def until_served(cases: list[Case], paths: list[str]) -> None:
    """Returns once each adapter has a full answer for the first and the last HPA."""
    async with asyncio.timeout(120):
        for case in cases:
            for path in (paths[0], paths[-1]):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                        status, body = await case.ask(path)
                        if status == 200 and body.count(b'"value"') == PODS_PER_HPA:
                            break
                    await asyncio.sleep(0.5)


async def measure(hpas: int, rounds: int, directory: Path) -> None:
    api.Application = CountingApplication  # type: ignore[misc]
    server = ApiServer(directory / "cluster", port=0)
    await server.start()
    kubeconfig, config = directory / "kubeconfig", directory / "config.yaml"
    kubeconfig.write_text((directory / "cluster" / "kubeconfig").read_text().replace(":6443", f":{server.port}"))
    config.write_text("rules:" + "".join(RULE.format(index=index) for index in range(RULES_N)))
    paths = [
        f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns-{hpa % NAMESPACES_N}/pods/*/load_{hpa % RULES_N}"
        f"?labelSelector=app%3Dw{hpa}"
        for hpa in range(hpas)
    ]
    try:
        async with await KubeClient.from_kubeconfig(kubeconfig) as client:
            await fill(client, hpas)
        async with metrics_server(directory, hpas) as url:
            await asyncio.sleep(20)  # the first rates need two scrapes
            found = SimpleNamespace(
                directory=directory,
                flags=SimpleNamespace(kubeconfig=str(kubeconfig)),
                prometheus=SimpleNamespace(url=url),
            )
            limits = ("--client-qps", "1000", "--client-burst", "1000", "--metrics-relist-interval", "1m")
            async with (
                real_adapter(tool("prometheus_adapter.py"), found, config, *limits) as real,  # type: ignore[arg-type]
                our_adapter(directory, config, url, kubeconfig) as ours,
            ):
                children = psutil.Process().children(recursive=True)
                pid = next(child.pid for child in children if "--client-qps" in child.cmdline())
                theirs = Case("theirs", real, psutil.Process(pid))
                await until_served([theirs, ours], paths)
                order = random.Random(1)
                for _ in range(rounds):
                    shuffled = order.sample(paths, len(paths))
                    for case in (theirs, ours):
                        await asyncio.sleep(7.5)
                        await round_of(case, shuffled, directory / "queries.log")
                tell(ours, theirs)
    finally:
        await server.close()


def tell(ours: Case, theirs: Case) -> None:
    """Medians of the rounds; memory at the end."""

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
    line("memory", lambda case: case.process.memory_info().rss / 1e6, "MB")
    line("querybytes", lambda case: max(len(query) for queries in case.queries for query in queries), "bytes")
    line("round", lambda case: middle(case.rounds_s), "s")
    line("failures", lambda case: case.failures, "failures/round", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hpas", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as directory:
        asyncio.run(measure(given.hpas, given.rounds, Path(directory)))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
