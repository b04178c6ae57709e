"""What a sample costs on disk and a series in memory, beside a real Prometheus with the very same samples.

``disk``: bytes per sample of two hours at 15 s in sealed blocks, index and labels counted. ``memory``: resident bytes
per series after 80 minutes, above the empty process. ``-churn``: half of the targets are replaced every 20 minutes.
"""

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import psutil

from bench.peers import PROMETHEUS_VERSION, free_port, tool
from bench.report import report
from flyball.store import Database, Plan

Labels = tuple[tuple[str, str], ...]

SERIES, INTERVAL_MS, ROWS, MEMORY_ROWS = 500, 15_000, 480, 320
TARGETS = 40
BATCH = 40
START_MS = 1_699_999_200_000
CHURN_ROWS = 80


def labels(target: int) -> list[Labels]:
    """500 series as an instrumented web pod has them."""
    own = (("instance", f"10.0.{target // 250}.{target % 250}:8080"), ("job", "web"), ("namespace", "shop"))
    pod = ("pod", f"web-{target % 7:x}d9f8b7c{target:04d}")
    found = []
    for n in range(SERIES):
        if n < 50:
            rest = ("http_requests_total", (("code", str(200 + n % 5)), ("path", f"/api/v1/{n // 5}")))
        elif n < 100:
            rest = (
                "http_request_duration_seconds_bucket",
                (("le", f"{0.005 * (n % 10 + 1):g}"), ("path", f"/{n // 10}")),
            )
        elif n < 120:
            rest = ("process_cpu_seconds_total", (("mode", f"m{n}"),))
        elif n < 200:
            rest = (f"app_events_{n % 8}_total", (("kind", f"k{n}"),))
        elif n < 300:
            rest = (f"app_queue_{n % 10}", (("queue", f"q{n}"),))
        else:
            rest = (f"app_info_{n % 20}", (("item", f"i{n}"),))
        found.append(tuple(sorted((("__name__", rest[0]), *own, pod, *rest[1]))))
    return found


def samples(target: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """[rows, series]: counters (a fifth idle), decimals, gauges, and 40 % constants."""
    rng = np.random.default_rng(target)
    table = np.empty((ROWS, SERIES))
    rates = np.where(rng.random(100) < 0.2, 0, rng.integers(1, 60, 100))
    table[:, :100] = rng.integers(0, 10**6, 100) + np.cumsum(rng.poisson(rates, (ROWS, 100)), axis=0)
    table[:, 100:120] = np.cumsum(rng.random((ROWS, 20)) * 0.3, axis=0)
    table[:, 120:200] = np.cumsum(rng.poisson(5, (ROWS, 80)), axis=0)
    table[:, 200:300] = rng.integers(0, 200, (ROWS, 100))
    table[:, 300:] = rng.integers(0, 1000, 200)
    return table


def plan(churn: bool) -> list[tuple[int, int, int]]:
    """(target, first row, end) of every target that ever lives."""
    if not churn:
        return [(target, 0, ROWS) for target in range(TARGETS)]
    lives, number = [], TARGETS
    for target in range(TARGETS):
        if target % 2:
            lives.append((target, 0, ROWS))
            continue
        for first in range(0, ROWS, CHURN_ROWS):
            lives.append((number, first, first + CHURN_ROWS))
            number += 1
    return lives


# Ours, in a process of its own.


def ours(directory: Path, churn: bool) -> None:
    database = Database(directory)
    lives = plan(churn)
    tables = {target: samples(target) for target, _, _ in lives}
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    used: dict[int, Any] = {}
    for row in range(ROWS):
        at_ms = START_MS + row * INTERVAL_MS
        for target, first, end in lives:
            if row == end and target in used:
                used.pop(target)[0].close(at_ms)
            if first <= row < end:
                if target not in used:
                    writer = database.head.writer("web", INTERVAL_MS, ("web", target))
                    used[target] = (writer, Plan(writer.refs(labels(target))))
                writer, order = used[target]
                writer.commit(at_ms, order, tables[target][row])
        if row % 20 == 0:
            database.maintain(at_ms)
        if row == MEMORY_ROWS - 1:
            memory = process.memory_info().rss - before
            living = len(used) * SERIES
    end_ms = START_MS + ROWS * INTERVAL_MS
    database.maintain(end_ms + 2 * 3_600_000)
    found = sum(block.samples for block in database.blocks)
    size = sum(block.size for block in database.blocks)
    print(json.dumps({"memory": memory / living, "disk": size / found, "samples": found}))
    database.close()


# Theirs, over remote write.


def _string(field: int, text: str) -> bytes:
    data = text.encode()
    return bytes([field << 3 | 2, len(data)]) + data


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def write_request(sets: list[Labels], times: list[int], table: Any) -> bytes:
    """A WriteRequest of remote write 1.0, samples encoded as arrays: each is 18 bytes."""
    cells = np.zeros((len(sets), len(times), 18), np.uint8)
    cells[:, :, 0], cells[:, :, 1], cells[:, :, 2], cells[:, :, 11] = 0x12, 16, 0x09, 0x10
    cells[:, :, 3:11] = np.ascontiguousarray(table.T).view(np.uint8).reshape(len(sets), len(times), 8)
    cells[:, :, 12:18] = np.frombuffer(b"".join(map(_varint, times)), np.uint8).reshape(1, len(times), 6)
    body = bytearray()
    for one, encoded in zip(sets, cells, strict=True):
        pairs = b"".join(
            bytes([0x0A]) + _varint(len(pair)) + pair
            for name, value in one
            if (pair := _string(1, name) + _string(2, value))
        )
        series = pairs + encoded.tobytes()
        body += b"\x0a" + _varint(len(series)) + series
    return bytes(body)


@contextlib.contextmanager
def prometheus(directory: Path, binary: str) -> Iterator[tuple[str, psutil.Process, str]]:
    """A running server: its address, process and version."""
    config = directory / "prometheus.yml"
    config.write_text("global: {scrape_interval: 15s}\n")
    port = free_port()
    process = subprocess.Popen(
        [
            *(binary, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"),
            *("--web.enable-admin-api", "--storage.tsdb.retention.time=100y", "--log.level=error"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{base}/-/ready", timeout=5):
                break
            time.sleep(0.1)
        yield base, psutil.Process(process.pid), PROMETHEUS_VERSION
    finally:
        process.terminate()
        process.wait()


def theirs(binary: str, churn: bool) -> dict[str, Any]:
    lives = plan(churn)
    tables = {target: samples(target) for target, _, _ in lives}
    sets = {target: labels(target) for target, _, _ in lives}
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as name:
        directory = Path(name)
        with prometheus(directory, binary) as (base, process, version):
            before = process.memory_info().rss
            memory = 0.0
            for first in range(0, ROWS, BATCH):
                times = [START_MS + row * INTERVAL_MS for row in range(first, first + BATCH)]
                living = 0
                for target, begin, end in lives:
                    if begin <= first < end:
                        living += SERIES
                        _post(base, write_request(sets[target], times, tables[target][first : first + BATCH]))
                if first + BATCH == MEMORY_ROWS:
                    memory = (process.memory_info().rss - before) / living
            request = urllib.request.Request(f"{base}/api/v1/admin/tsdb/snapshot", method="POST")
            with urllib.request.urlopen(request, timeout=300) as answer:
                snapshot = directory / "data" / "snapshots" / json.load(answer)["data"]["name"]
            size = found = 0
            for block in snapshot.iterdir():
                found += json.loads((block / "meta.json").read_text())["stats"]["numSamples"]
                size += sum(path.stat().st_size for path in block.rglob("*") if path.is_file())
    return {"memory": memory, "disk": size / found, "samples": found, "version": version}


def _post(base: str, body: bytes) -> None:
    request = urllib.request.Request(
        f"{base}/api/v1/write",
        bytes(cramjam.snappy.compress_raw(body)),
        {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"},
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as exc:
        raise SystemExit(f"Prometheus refused the samples: {exc.read().decode()}") from None


def main() -> None:
    binary = str(tool("prometheus.py"))
    for suffix, churn in (("", False), ("-churn", True)):
        with tempfile.TemporaryDirectory(prefix="flyball-bench-") as name:
            told = subprocess.run(
                [sys.executable, "-m", "bench.storage", "ours", name, str(int(churn))],
                check=True,
                capture_output=True,
                text=True,
            )
            mine = json.loads(told.stdout.splitlines()[-1])
        peer = theirs(binary, churn)
        if not churn and mine["samples"] != peer["samples"]:
            raise SystemExit(f"{mine['samples']} samples are ours, {peer['samples']} theirs")
        for case in ("disk", "memory"):
            report(
                "storage",
                case + suffix,
                mine[case],
                "bytes",
                theirs=peer[case],
                peer="prometheus",
                peer_version=peer["version"],
            )
            if "--json" not in sys.argv:
                times = peer[case] / mine[case]
                print(f"{'':<11}prometheus {peer['version']}: {peer[case]:.3f} bytes, {times:.2f} times ours")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(Path(sys.argv[2]), sys.argv[3] == "1")
    else:
        main()
