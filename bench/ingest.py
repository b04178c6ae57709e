"""Samples scraped per CPU-second, beside Prometheus and VictoriaMetrics that scrape the very same targets.

Targets are played by a process of their own: pages in gzip whose values change from scrape to scrape; every target has
an instance label, two relabelling rules and one metric relabelling rule. Servers run one after the other, twice each;
the better run counts. CPU is that of the whole server process once it has met every target: fetching, parsing,
``up`` series, log on disk.
"""

import asyncio
import contextlib
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.peers import PROMETHEUS_VERSION, free_port, tool, victoria_metrics_binary, victoria_metrics_version
from bench.report import report

#: case -> (targets, series of each, floor, aim); the last two are times Prometheus
CASES = {"scrape500": (200, 500, 2.5, 4.0), "scrape20": (1000, 20, 1.0, 2.0)}
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


def measured(server: Server, targets: int, series: int) -> float:
    """Samples per CPU-second of one server."""
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
            time.sleep(WARM_S)
            watched = psutil.Process(process.pid)
            before, cpu = _count(port), watched.cpu_times()
            time.sleep(MEASURED_S)
            after, end = _count(port), watched.cpu_times()
            if (up := _query(own_port, "sum(up)")) < 0.98 * targets:
                raise SystemExit(f"{server.name}: {up:.0f} of {targets} targets are up: the comparison would be unfair")
        except BaseException:
            print((directory / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()
            log.close()
        wanted = targets * MEASURED_S // INTERVAL_S
        if after - before < 0.95 * wanted:
            print(f"{server.name} made {after - before} of {wanted} scrapes", file=sys.stderr)
        spent_s = end.user + end.system - cpu.user - cpu.system
        return (after - before) * (series + REPORT_SERIES) / spent_s


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
    address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        (found,) = json.loads(answer.read())["data"]["result"]
    return float(found["value"][1])


def main() -> None:
    found = servers()
    for case, (targets, series, floor, aim) in CASES.items():
        best = dict.fromkeys((server.name for server in found), 0.0)
        for _ in range(RUNS):
            for server in found:
                best[server.name] = max(best[server.name], measured(server, targets, series))
        for peer in found[:-1]:
            report(
                "ingest",
                case,
                best["flyball"],
                "samples/cpu-s",
                theirs=best[peer.name],
                peer=peer.name,
                peer_version=peer.version,
            )
            if "--json" not in sys.argv:
                times = best["flyball"] / best[peer.name]
                wanted = f"; floor {floor:g}, aim {aim:g}" if peer.name == "prometheus" else ""
                print(
                    f"{'':<11}{times:.2f} times {peer.name} {peer.version} ({best[peer.name]:.0f}){wanted}", flush=True
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(int(sys.argv[2]))
    else:
        main()
