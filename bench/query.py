"""Queries beside Prometheus and VictoriaMetrics: the same data, asked in turn over HTTP, answers compared.

Every value is compared with Prometheus' (relative 1e-9); VictoriaMetrics' rates are its own, so only its series are.
``--quick`` takes the queried metrics alone; ``--numpy`` leaves numba out; ``--set`` takes one set of data and cases.
"""

import argparse
import contextlib
import gzip
import http.client
import json
import math
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from bench import peers, workload
from bench.peers import Peer
from bench.report import report

ROOT = Path(__file__).parents[1]
HOUR_MS = 3_600_000
TOLERANCE = 1e-9
QUERIED = 110  # of the 500 series of a target


@dataclass(frozen=True, slots=True)
class Case:
    """``step_s`` 0 is an instant query. ``comparable``: VictoriaMetrics means the same by it."""

    name: str
    query: str
    step_s: int
    comparable: bool = False
    span_ms: int = HOUR_MS


QUANTILE = "histogram_quantile(0.99, sum by(le,service)(rate(http_request_duration_seconds_bucket[5m])))"
INCREASE = 'sum by(service,code)(increase(http_requests_total{path=~"/p[0-7]",code!="404"}[5m]))'
CASES = [
    Case("agg10k rate instant", "sum by(pod)(rate(http_requests_total[2m]))", 0),
    Case("agg10k rate range", "sum by(pod)(rate(http_requests_total[2m]))", 15),
    Case("agg10k quantile instant", QUANTILE, 0),
    Case("agg10k quantile range", QUANTILE, 15),
    Case("agg10k increase range", INCREASE, 15),
    Case("agg10k single-series targets", "sum by(service)(rate(jobs_done_total[2m]))", 15),
    Case("agg2k max range", "max by(service)(max_over_time(queue_depth[5m]))", 15, comparable=True),
    Case("agg2k quantile range", "quantile by(service)(0.95, queue_depth)", 15),
    Case("agg10k churning set", "sum by(service)(rate(churn_requests_total[2m]))", 15),
    Case("raw selector instant", "http_requests_total", 0, comparable=True),
    Case("raw selector range", 'http_requests_total{service="svc-3"}', 15, comparable=True),
    Case("raw rate range", 'rate(http_requests_total{service="svc-3"}[2m])', 15),
    Case("raw max instant", "max_over_time(http_requests_total[5m])", 0),
]
DAY_MS = 24 * HOUR_MS
DAY = [
    Case(f"day {name} {step_s} s", query, step_s, comparable=name == "max", span_ms=DAY_MS - HOUR_MS)
    for step_s in (60, 300)
    for name, query in (
        ("rate", "sum by(pod)(rate(day_requests_total[5m]))"),
        ("max", "max by(path)(max_over_time(day_depth[1h]))"),
    )
]
SCALE = [
    Case(f"scale {name} {kind}", f"sum by(service)(rate(scale_{name}_total[2m]))", step_s, span_ms=180_000)
    for name in workload.SCALES
    for kind, step_s in (("instant", 0), ("range", 15))
]


# --- the sets: what is asked of which data


@dataclass(frozen=True, slots=True)
class Set:
    """Cases over blocks, which begin ``length_ms`` before they end."""

    blocks: Callable[[int], list[workload.Block]]
    cases: list[Case]
    length_ms: int
    before_end_ms: int = 0


SETS = {
    "main": Set(workload.make, CASES, workload.ROWS * workload.INTERVAL_MS, 60_000),
    "day": Set(workload.day, DAY, DAY_MS, 60_000),
    "scale": Set(workload.scale, SCALE, workload.SCALE_ROWS * workload.INTERVAL_MS, 15_000),
}


# --- our server, in a process of its own


def blocks(name: str, start_ms: int, quick: bool) -> list[workload.Block]:
    first, *rest = SETS[name].blocks(start_ms)
    if quick and name == "main":
        first = replace(first, labels=[t[:QUERIED] for t in first.labels], values=first.values[:, :, :QUERIED])
    return [first, *rest]


def serve(port: int, name: str, start_ms: int, quick: bool, numpy: bool) -> None:
    """Our store and API on a set: a head alone, or for the day a store that has sealed all but the last of it."""
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    import uvicorn

    from flyball.promql import compiled
    from flyball.store import Database, Head
    from flyball.web.prometheus_api import create_app

    if numpy:
        compiled.disable()
    else:
        compiled.load()
    store: Any
    directory = tempfile.TemporaryDirectory(prefix="flyball-bench-")
    if name == "day":
        store = Database(Path(directory.name))
        sealed: list[int] = []

        def after_round(at_ms: int) -> None:
            if not sealed or at_ms - sealed[-1] > 5 * 60_000:
                sealed.append(at_ms)
                store.maintain(at_ms)

        workload.fill(store.head, blocks(name, start_ms, quick), after_round)
    else:
        store = Head(retention_ms=10**12, memory_limit_bytes=16 << 30)
        workload.fill(store, blocks(name, start_ms, quick))
    sys.setswitchinterval(0.001)  # as in the data process
    app = create_app(store, executor=ThreadPoolExecutor(1))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, timeout_keep_alive=3600)


@contextlib.contextmanager
def ours(name: str, start_ms: int, quick: bool, numpy: bool) -> Iterator[Peer]:
    port = peers.free_port()
    command = [sys.executable, "-m", "bench.query", "--serve", str(port), "--set", name, "--start-ms", str(start_ms)]
    command += ["--quick"] if quick else []
    command += ["--numpy"] if numpy else []
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        peers.wait_ready(f"http://127.0.0.1:{port}/-/ready", process, 900)
        yield Peer("flyball", "", port, process.pid)
    finally:
        process.terminate()
        process.wait(20)


# --- asking


@dataclass
class Asked:
    """One server: its connection, and what it took."""

    peer: Peer
    connection: http.client.HTTPConnection
    ms: dict[str, list[float]] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """What the server has spent so far: tells more than its latency where the machine has other work."""
        return sum(psutil.Process(self.peer.pid).cpu_times()[:2])

    def ask(self, name: str, query: str, end_ms: int, step_s: int, span_ms: int = HOUR_MS) -> Any:
        """The ``data`` of an answer; the time it took is kept."""
        at = f"{end_ms / 1000:.3f}"
        form = {"query": query}
        path = "/api/v1/query"
        if step_s:
            path = "/api/v1/query_range"
            form |= {"start": f"{(end_ms - span_ms) / 1000:.3f}", "end": at, "step": str(step_s), "nocache": "1"}
        else:
            form |= {"time": at, "nocache": "1"}
        begun_s = time.perf_counter()
        self.connection.request("GET", f"{path}?{urlencode(form)}")
        answer = self.connection.getresponse()
        body = answer.read()
        self.ms.setdefault(name, []).append((time.perf_counter() - begun_s) * 1000)
        if answer.getheader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if answer.status != 200:
            raise SystemExit(f"{self.peer.name}: {query}: {answer.status}: {body[:300]!r}")
        return json.loads(body)["data"]


def points(data: Any) -> dict[tuple[tuple[str, str], ...], dict[float, float]]:
    found = {}
    for series in data["result"]:
        pairs = series["values"] if "values" in series else [series["value"]]
        found[tuple(sorted(series["metric"].items()))] = {float(at): float(value) for at, value in pairs}
    return found


def difference(a: Any, b: Any) -> str:
    """What differs between two answers; empty when nothing does."""
    left, right = points(a), points(b)
    if left.keys() != right.keys():
        return f"series: {len(left)} and {len(right)}, {len(left.keys() ^ right.keys())} in one alone"
    for series, own in left.items():
        other = right[series]
        if own.keys() != other.keys():
            return f"{dict(series)}: points at {sorted(own.keys() ^ other.keys())[:3]} in one alone"
        for at, value in own.items():
            if not math.isclose(value, other[at], rel_tol=TOLERANCE) and not math.isnan(value + other[at]):
                return f"{dict(series)} at {at}: {value} and {other[at]}"
    return ""


def push(peer: Peer, bodies: Iterator[bytes]) -> None:
    """By remote write 1.0."""
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=120)
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    for body in bodies:
        connection.request("POST", "/api/v1/write", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{peer.name} refused samples: {answer.status}: {text[:300]!r}")


def run(servers: list[Asked], cases: list[Case], end_ms: int, rounds: int, prefix: str) -> None:
    others = servers[1:]
    for case in cases:
        answers = [server.ask(case.name, case.query, end_ms, case.step_s, case.span_ms) for server in servers]
        for server, answer in zip(others, answers[1:], strict=True):
            if server.peer.name == "prometheus" or case.comparable:
                found = difference(answers[0], answer)
                if found:
                    print(f"{case.name}: differs from {server.peer.name}: {found}", file=sys.stderr)
        for server in servers:
            server.ms[case.name].clear()
        before_s = [server.cpu_s() for server in servers]
        for _ in range(rounds):
            for server in servers:
                server.ask(case.name, case.query, end_ms, case.step_s, case.span_ms)
        told(servers, case.name, prefix)
        spent = [f"{s.peer.name} {1000 * (s.cpu_s() - b) / rounds:.1f}" for s, b in zip(servers, before_s, strict=True)]
        print(f"{case.name}: CPU ms a query: {', '.join(spent)}", file=sys.stderr)


def run_cold(servers: list[Asked], end_ms: int, rounds: int) -> None:
    for i in range(5 * rounds):  # each text is new: nothing prepared can be used
        labels = f'pod="pod-{i * 7 % workload.TARGETS}",path="/p{i % 10}",code="200"'
        for server in servers:
            server.ask("cold1", f"http_requests_total{{{labels}}} + {i}", end_ms, 0)
    told(servers, "cold1", "")


def told(servers: list[Asked], name: str, prefix: str) -> None:
    """One line for each server that a case was asked of beside ours."""
    us, *others = servers
    for server in others:
        report(
            "query",
            name.replace("agg10k", prefix) if prefix else name,
            statistics.median(us.ms[name]),
            "ms",
            theirs=statistics.median(server.ms[name]),
            peer=server.peer.name,
            peer_version=server.peer.version,
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--numpy", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", type=int)
    parser.add_argument("--start-ms", type=int)
    parser.add_argument("--set", choices=SETS, action="append", help="default: all, with --quick or --numpy main alone")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.set[0], given.start_ms, given.quick, given.numpy)
        return
    for name in given.set or (["main"] if given.quick or given.numpy else SETS):
        measure(name, given.quick, given.numpy, given.rounds)


def measure(name: str, quick: bool, numpy: bool, rounds: int) -> None:
    """All cases of a set."""
    chosen = SETS[name]
    start_ms = (int(time.time() * 1000) - chosen.length_ms - 2 * workload.INTERVAL_MS) // 15_000 * 15_000
    with (
        peers.prometheus() as theirs,
        peers.victoria_metrics() as third,
        ours(name, start_ms, quick, numpy) as us,
    ):
        data = blocks(name, start_ms, quick)
        for peer in (theirs, third):
            push(peer, workload.write_requests(data))
        del data
        time.sleep(3)  # VictoriaMetrics shows samples after a moment
        if name == "day":
            wait_sealed(theirs, start_ms + chosen.length_ms - 4 * HOUR_MS)
        servers = [Asked(peer, http.client.HTTPConnection("127.0.0.1", peer.port)) for peer in (us, theirs, third)]
        end_ms = start_ms + chosen.length_ms - chosen.before_end_ms
        run(servers, chosen.cases, end_ms, rounds, "agg10k-numpy" if numpy else "")
        if name == "main":
            run_cold(servers, end_ms, rounds)


def wait_sealed(peer: Peer, up_to_ms: int) -> None:
    """Until Prometheus has moved what is older from its head to blocks."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{peer.port}/api/v1/status/tsdb") as answer:
            if json.load(answer)["data"]["headStats"]["minTime"] >= up_to_ms:
                return
        time.sleep(1)
    print("day: Prometheus' blocks are not written after five minutes; asked as it is", file=sys.stderr)


if __name__ == "__main__":
    main()
