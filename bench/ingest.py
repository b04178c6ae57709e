"""Samples scraped per CPU-second, beside Prometheus and VictoriaMetrics that scrape the very same targets.

Targets are played by a process of their own: pages in gzip whose values change from scrape to scrape; every target has
an instance label, two relabelling rules and one metric relabelling rule. Servers run one after the other, twice each;
the better run counts. CPU is that of the whole server process once it has met every target: fetching, parsing,
``up`` series, log on disk.

``scrape-jitter`` is how far the times of a target's scrapes are from their interval (99th percentile) while two clients
ask one range query over all 100,000 series after the other. VictoriaMetrics refuses such a query and is left out.

``python -m bench.ingest CASE ...`` runs some cases only.
"""

import asyncio
import contextlib
import gzip
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from bench.peers import PROMETHEUS_VERSION, free_port, tool, victoria_metrics_binary, victoria_metrics_version
from bench.report import report

#: case -> (what is measured, targets, series of each, floor, aim); the last two are times Prometheus
CASES = {
    "scrape500": ("throughput", 200, 500, 2.5, 4.0),
    "scrape20": ("throughput", 1000, 20, 1.0, 2.0),
    "scrape-jitter": ("jitter", 200, 500, 0.0, 0.0),
}
QUERY_CLIENTS = 2
INTERVAL_S, MEET_MAX_S, WARM_S, MEASURED_S, RUNS = 2, 120, 6, 20, 2
REPORT_SERIES = 5
_PAGES = 10


def pages(series: int) -> list[bytes]:
    """Whole answers: the same lines with other values, as a target's scrapes are."""
    rng = random.Random(1)
    families = max(1, series // 20)
    found = []
    for number in range(_PAGES):
        lines = []
        for family in range(families):
            lines.append(f"# HELP app_metric_{family}_total Requests of kind {family}.")
            lines.append(f"# TYPE app_metric_{family}_total counter")
            for at in range(series // families):
                value = (rng.randint(0, 10**6), round(rng.random() * 1000, 3), number * 1000.0 + at)[at % 3]
                lines.append(f'app_metric_{family}_total{{code="200",handler="/api/v{at}",method="GET"}} {value}')
        body = gzip.compress(("\n".join(lines) + "\n").encode(), 6)
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        found.append(head.encode() + body)
    return found


def play(series: int) -> None:
    """The targets' process: prints its port, then answers; ``GET /count`` says how many scrapes there were."""
    import uvloop

    answers = pages(series)
    count = 0

    class Target(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            nonlocal count
            if data.startswith(b"GET /count"):
                body = str(count).encode()
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                return
            count += 1
            self.transport.write(answers[count % _PAGES])

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Target, "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(serve())


@contextlib.contextmanager
def played(series: int) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", "bench.ingest", "play", str(series)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


_CONFIG = """
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- job_name: bench
  file_sd_configs: [{files: [targets.json]}]
  relabel_configs:
  - {source_labels: [team], regex: "(.+)-.*", target_label: group, replacement: "$1"}
  - {regex: "tmp_.*", action: labeldrop}
  metric_relabel_configs:
  - {source_labels: [code], regex: "5..", action: drop}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """``command`` has ``{port}`` where the port belongs."""

    name: str
    version: str
    command: tuple[str, ...]


def servers() -> list[Server]:
    as_prometheus = (
        "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )  # fmt: skip
    as_victoria = (
        "-promscrape.config=prometheus.yml", "-storageDataPath=data", "-httpListenAddr=127.0.0.1:{port}",
        "-loggerLevel=ERROR", "-search.latencyOffset=0s",
    )  # fmt: skip
    return [
        Server("prometheus", PROMETHEUS_VERSION, (str(tool("prometheus.py")), *as_prometheus)),
        Server("victoria-metrics", victoria_metrics_version(), (str(victoria_metrics_binary()), *as_victoria)),
        Server("flyball", "", (sys.executable, "-m", "flyball", "server", *as_prometheus)),
    ]


def throughput(server: Server, targets: int, series: int) -> float:
    """Samples per CPU-second of one server."""
    with scraping(server, targets, series) as (own_port, port, process):
        time.sleep(WARM_S)
        before, cpu = _count(port), process.cpu_times()
        time.sleep(MEASURED_S)
        after, end = _count(port), process.cpu_times()
        if (up := _query(own_port, "sum(up)")) < 0.98 * targets:
            raise SystemExit(f"{server.name}: {up:.0f} of {targets} targets are up: the comparison would be unfair")
    wanted = targets * MEASURED_S // INTERVAL_S
    if after - before < 0.95 * wanted:
        print(f"{server.name} made {after - before} of {wanted} scrapes", file=sys.stderr)
    spent_s = end.user + end.system - cpu.user - cpu.system
    return (after - before) * (series + REPORT_SERIES) / spent_s


def jitter(server: Server, targets: int, series: int) -> float:
    """How far scrapes are from their interval under queries, ms, 99th percentile."""
    heavy = 'sum by (handler) ({__name__=~"app_metric_.*"})'
    answered = 0
    with scraping(server, targets, series) as (own_port, _, _):
        time.sleep(WARM_S)
        end_s = time.time() + MEASURED_S

        def ask() -> None:
            nonlocal answered
            while (now_s := time.time()) < end_s:
                window = f"start={now_s - 60:.0f}&end={now_s:.0f}&step=2"
                address = f"http://127.0.0.1:{own_port}/api/v1/query_range?query={urllib.parse.quote(heavy)}&{window}"
                with urllib.request.urlopen(address, timeout=120) as answer:
                    answer.read()
                answered += 1

        clients = [threading.Thread(target=ask) for _ in range(QUERY_CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(MEASURED_S)
        found = _result(own_port, f"up[{MEASURED_S}s]")
        for client in clients:
            client.join()
    wander = [
        abs(1000 * (after - before) - 1000 * INTERVAL_S)
        for one in found
        for (before, _), (after, _) in pairwise(one["values"])
    ]
    if not answered or len(wander) < targets * (MEASURED_S // INTERVAL_S - 2):
        print(f"{server.name}: {answered} queries, {len(wander)} scrapes beside them", file=sys.stderr)
    return sorted(wander)[len(wander) * 99 // 100]


@contextlib.contextmanager
def scraping(server: Server, targets: int, series: int) -> Iterator[tuple[int, int, psutil.Process]]:
    """(its port, that of the targets, its process) once it has met every target."""
    with played(series) as port, tempfile.TemporaryDirectory(prefix="flyball-bench-") as name:
        directory = Path(name)
        (directory / "prometheus.yml").write_text(_CONFIG)
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": f"t{at}", "team": f"a-{at}"}}
            for at in range(targets)
        ]
        (directory / "targets.json").write_text(json.dumps(groups))
        own_port = free_port()
        log = (directory / "log").open("wb")
        process = subprocess.Popen(
            [word.format(port=own_port) for word in server.command], cwd=directory, stdout=log, stderr=log
        )
        try:
            _wait_met(process, own_port, targets, series)
            yield own_port, port, psutil.Process(process.pid)
        except BaseException:
            print((directory / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()
            log.close()


def _wait_met(process: "subprocess.Popen[bytes]", port: int, targets: int, series: int) -> None:
    """Until every target has been scraped and every series of its page is there."""
    deadline = time.monotonic() + MEET_MAX_S
    found = 0.0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")  # type: ignore[str-bytes-safe]
        with contextlib.suppress(OSError, ValueError):
            found = _query(port, "sum(scrape_samples_scraped)")
            if found == targets * series:
                return
        time.sleep(0.5)
    raise SystemExit(f"{found:.0f} of {targets * series} series after {MEET_MAX_S} s")


def _count(port: int) -> int:
    """How many scrapes the targets have answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count", timeout=30) as answer:
        return int(answer.read())


def _query(port: int, expression: str) -> float:
    """Raises ValueError while there is no answer yet."""
    (found,) = _result(port, expression)
    return float(found["value"][1])


def _result(port: int, expression: str) -> list[dict[str, Any]]:
    address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
    return found


def main() -> None:
    found = servers()
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    for case, (measure, targets, series, floor, aim) in CASES.items():
        if wanted and case not in wanted:
            continue
        lower = case == "scrape-jitter"
        asked = [server for server in found if not (lower and server.name == "victoria-metrics")]
        seen: dict[str, list[float]] = {server.name: [] for server in asked}
        for _ in range(RUNS):
            for server in asked:
                seen[server.name].append(MEASURES[measure](server, targets, series))
        best = {name: (min if lower else max)(values) for name, values in seen.items()}
        for peer in asked[:-1]:
            report(
                "ingest",
                case,
                best["flyball"],
                "ms" if lower else "samples/cpu-s",
                theirs=best[peer.name],
                peer=peer.name,
                peer_version=peer.version,
            )
            if "--json" not in sys.argv:
                hoped = f"; floor {floor:g}, aim {aim:g}" if floor and peer.name == "prometheus" else ""
                print(f"{'':<11}{peer.name} {peer.version}: {best[peer.name]:.1f}{hoped}", flush=True)


MEASURES = {"throughput": throughput, "jitter": jitter}

if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(int(sys.argv[2]))
    else:
        main()
