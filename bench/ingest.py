"""Samples scraped per CPU-second, beside a real Prometheus that scrapes the very same targets.

Targets are played by a process of their own: pages in gzip whose values change from scrape to scrape; every target has
an instance label, two relabelling rules and one metric relabelling rule. Servers run one after the other, twice each;
the better run counts. CPU is that of the whole server process: parsing, relabelling, ``up`` series, log on disk.

The peer is Debian's Prometheus, or the binary in FLYBALL_PROMETHEUS.
"""

import asyncio
import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.report import report

#: case -> (targets, series of each, floor, aim); the last two are times Prometheus
CASES = {"scrape500": (200, 500, 2.5, 4.0), "scrape20": (1000, 20, 1.0, 2.0)}
INTERVAL_S, WARM_S, MEASURED_S, RUNS = 2, 8, 20, 2
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


def measured(command: list[str], targets: int, series: int) -> tuple[float, int]:
    """(samples per CPU-second, scrapes) of one server."""
    with played(series) as port, tempfile.TemporaryDirectory(prefix="flyball-bench-") as name:
        directory = Path(name)
        (directory / "prometheus.yml").write_text(_CONFIG)
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": f"t{at}", "team": f"a-{at}"}}
            for at in range(targets)
        ]
        (directory / "targets.json").write_text(json.dumps(groups))
        own_port = 29_200 + os.getpid() % 700
        command = [*command, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{own_port}", "--log.level=error"],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not _count(port):
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with {process.returncode}")
                time.sleep(0.1)
            time.sleep(WARM_S)
            watched = psutil.Process(process.pid)
            before, cpu = _count(port), watched.cpu_times()
            time.sleep(MEASURED_S)
            after, end = _count(port), watched.cpu_times()
            _check(own_port, targets)
        finally:
            process.terminate()
            process.wait()
        spent_s = end.user + end.system - cpu.user - cpu.system
        return (after - before) * (series + REPORT_SERIES) / spent_s, after - before


def _count(port: int) -> int:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/count", timeout=5) as answer:
        return int(answer.read())
    return 0


def _check(port: int, targets: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=sum(up)", timeout=30) as answer:
        (found,) = json.loads(answer.read())["data"]["result"]
    if float(found["value"][1]) < 0.95 * targets:
        raise SystemExit(f"{found['value'][1]} of {targets} targets are up: the comparison would be unfair")


def _peer() -> tuple[list[str], str]:
    from tools.debian_prometheus import binary

    program = os.environ.get("FLYBALL_PROMETHEUS") or str(binary())
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return [program], (said.stdout or said.stderr).split("version ", 1)[-1].split(" ", 1)[0]


def main() -> None:
    ours = [sys.executable, "-m", "flyball", "server"]
    theirs, version = _peer()
    for case, (targets, series, floor, aim) in CASES.items():
        best = {"ours": 0.0, "theirs": 0.0}
        for _ in range(RUNS):
            for who, command in (("theirs", theirs), ("ours", ours)):
                rate, scrapes = measured(command, targets, series)
                wanted = targets * MEASURED_S // INTERVAL_S
                if scrapes < 0.9 * wanted:
                    print(f"{case}: {who} made {scrapes} of {wanted} scrapes", file=sys.stderr)
                best[who] = max(best[who], rate)
        report(
            "ingest",
            case,
            best["ours"],
            "samples/cpu-s",
            theirs=best["theirs"],
            peer="prometheus",
            peer_version=version,
        )
        if "--json" not in sys.argv:
            times = best["ours"] / best["theirs"]
            print(f"{'':<10} {times:.2f} times Prometheus {version} ({best['theirs']:.0f}); floor {floor}, aim {aim}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["play"]:
        play(int(sys.argv[2]))
    else:
        main()
