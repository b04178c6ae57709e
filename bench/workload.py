"""The data of the query benchmark: made once from a seed, given to our store and, by remote write, to the others.

200 targets of 500 series each, a scrape every 15 s for 80 minutes: 10,000 counters with labels, 10,000 buckets, 2,000
gauges, the rest plain counters, gauges and constants. 15 % of the targets restart once, 20 % jitter by 3 ms, 4 % miss
nine scrapes. ``single`` are 10,000 targets of one series each, ``churn`` 400 targets of which 200 live at a time.
``day`` and ``scale`` are sets of their own: 24 hours, and up to a million series.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cramjam
import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import STALE_BITS
from flyball.model.labels import Labels, labels_of
from flyball.store import Head, Plan

INTERVAL_MS = 15_000
ROWS = 320
TARGETS = 200
SERVICES = 20
BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf")


@dataclass(frozen=True, slots=True)
class Block:
    """Targets of one layout: ``labels[target][series]``, ``values`` [rows, targets, series], ``times_ms`` [rows,
    targets], ``missed`` [rows, targets]. ``ends``: a target that is missed for good ends with staleness markers."""

    name: str
    labels: list[list[Labels]]
    values: NDArray[np.float64]
    times_ms: NDArray[np.int64]
    missed: NDArray[np.bool_]
    ends: bool = False

    def end_row(self, target: int) -> int:
        """The row after a target's last scrape; -1 when it does not end."""
        last = int(np.flatnonzero(~self.missed[:, target])[-1])
        return last + 1 if self.ends and last + 1 < len(self.missed) else -1


def _times(rng: np.random.Generator, start_ms: int, rows: int, targets: int) -> NDArray[np.int64]:
    offset = rng.integers(0, INTERVAL_MS, targets)
    times = start_ms + offset + INTERVAL_MS * np.arange(rows)[:, None]
    jitter = rng.integers(-3, 4, (rows, targets))
    return times + np.where(rng.random(targets) < 0.2, jitter, 0)


def _layout() -> list[tuple[str, dict[str, str], str]]:
    """Metric, labels and kind of the 500 series of a target."""
    series: list[tuple[str, dict[str, str], str]] = []
    for path in range(10):
        for code in ("200", "201", "400", "404", "500"):
            series.append(("http_requests_total", {"path": f"/p{path}", "code": code}, "counter"))
    for path in range(5):
        for bound in BOUNDS:
            labels = {"path": f"/p{path}", "le": bound}
            series.append(("http_request_duration_seconds_bucket", labels, "bucket"))
    series += [("queue_depth", {"queue": f"q{i}"}, "gauge") for i in range(10)]
    for i in range(390):
        kind = ("float", "counter", "gauge", "constant", "constant")[i % 5]
        series.append((f"app_metric_{i // 10}_{kind}", {"shard": str(i % 10)}, kind))
    return series


def make(start_ms: int, seed: int = 7) -> list[Block]:
    """The 200 targets, the 10,000 of one series, and those that come and go."""
    rng = np.random.default_rng(seed)
    layout = _layout()
    values = np.empty((ROWS, TARGETS, len(layout)))
    for i, (_, labels, kind) in enumerate(layout):
        if kind == "constant":
            values[:, :, i] = rng.integers(0, 1000, TARGETS)
        elif kind == "gauge":
            values[:, :, i] = rng.integers(0, 100, (ROWS, TARGETS))
        elif kind == "float":
            values[:, :, i] = np.cumsum(rng.random((ROWS, TARGETS)), axis=0)
        elif kind == "bucket" and labels["le"] != BOUNDS[0]:
            steps = rng.integers(0, 20, (ROWS, TARGETS))
            values[:, :, i] = values[:, :, i - 1] + np.cumsum(steps, axis=0)
        else:
            busy = rng.random(TARGETS) >= 0.2
            values[:, :, i] = np.cumsum(rng.integers(0, 50, (ROWS, TARGETS)) * busy, axis=0)
    counters = np.array([kind in ("counter", "bucket", "float") for _, _, kind in layout])
    for target in np.flatnonzero(rng.random(TARGETS) < 0.15).tolist():
        row = int(rng.integers(10, ROWS - 10))
        values[row:, target, counters] -= values[row, target, counters]
    missed = np.zeros((ROWS, TARGETS), bool)
    for target in np.flatnonzero(rng.random(TARGETS) < 0.04).tolist():
        row = int(rng.integers(10, ROWS - 20))
        missed[row : row + 9, target] = True
    named = [
        [
            labels_of({"__name__": metric, "instance": f"10.0.0.{t}:80", "pod": f"pod-{t}",
                       "service": f"svc-{t % SERVICES}", "job": "apps", **labels})
            for metric, labels, _ in layout
        ]
        for t in range(TARGETS)
    ]  # fmt: skip
    first = Block("apps", named, values, _times(rng, start_ms, ROWS, TARGETS), missed)
    singles = 10_000
    alone = np.cumsum(rng.integers(0, 50, (ROWS, singles, 1)), axis=0).astype(float)
    labels = [
        [labels_of({"__name__": "jobs_done_total", "instance": f"10.1.{t // 250}.{t % 250}:80", "job": "single",
                    "service": f"svc-{t % SERVICES}"})]
        for t in range(singles)
    ]  # fmt: skip
    times = _times(rng, start_ms, ROWS, singles)
    single = Block("single", labels, alone, times, np.zeros((ROWS, singles), bool))
    return [first, single, _churn(rng, start_ms)]


def _churn(rng: np.random.Generator, start_ms: int) -> Block:
    """Each target lives for half of the time, one begins when another ends."""
    targets, life = 2 * TARGETS, ROWS // 2
    first = np.linspace(-life, ROWS, targets, endpoint=False).astype(int)
    row = np.arange(ROWS)[:, None]
    missed = (row < first) | (row >= first + life)
    kept = np.flatnonzero(~missed.all(axis=0))
    named = [
        [
            labels_of({"__name__": "churn_requests_total", "instance": f"10.2.{t // 250}.{t % 250}:80",
                       "pod": f"churn-{t}", "service": f"svc-{t % SERVICES}", "job": "churn",
                       "path": f"/p{i % 10}", "code": str(200 + i // 10)})
            for i in range(50)
        ]
        for t in kept.tolist()
    ]  # fmt: skip
    values = np.cumsum(rng.integers(0, 50, (ROWS, kept.size, 50)), axis=0).astype(float)
    return Block("churn", named, values, _times(rng, start_ms, ROWS, kept.size), missed[:, kept], ends=True)


DAY_ROWS = 24 * 3600 * 1000 // INTERVAL_MS


def day(start_ms: int, seed: int = 8) -> list[Block]:
    """24 hours of ten targets: ten counters and ten gauges with ten series each, and as much that nobody asks for."""
    rng = np.random.default_rng(seed)
    targets, series = 10, 100
    kinds = [("day_requests_total", True), ("day_depth", False)]
    kinds += [(f"day_other_{i}_total" if i % 2 else f"day_other_{i}", bool(i % 2)) for i in range(8)]
    values = rng.integers(0, 50, (DAY_ROWS, targets, series)).astype(float)
    counters = np.repeat([counter for _, counter in kinds], 10)
    values[:, :, counters] = np.cumsum(values[:, :, counters], axis=0)
    named = [
        [
            labels_of({"__name__": kinds[i // 10][0], "instance": f"10.3.0.{t}:80", "pod": f"pod-{t}", "job": "day",
                       "path": f"/p{i % 10}"})
            for i in range(series)
        ]
        for t in range(targets)
    ]  # fmt: skip
    times = _times(rng, start_ms, DAY_ROWS, targets)
    return [Block("day", named, values, times, np.zeros((DAY_ROWS, targets), bool))]


SCALE_ROWS = 24
SCALES = {"10k": 10_000, "100k": 100_000, "1M": 1_000_000}


def scale(start_ms: int, seed: int = 9) -> list[Block]:
    """Targets of 100 series each, of a metric of its own for each number of series."""
    rng = np.random.default_rng(seed)
    blocks = []
    for name, series in SCALES.items():
        targets = series // 100
        values = np.cumsum(rng.integers(0, 50, (SCALE_ROWS, targets, 100)), axis=0, dtype=np.float64)
        named = [
            [
                labels_of({"__name__": f"scale_{name}_total", "instance": f"t{t}", "service": f"svc-{t % SERVICES}",
                           "path": f"/p{i}"})
                for i in range(100)
            ]
            for t in range(targets)
        ]  # fmt: skip
        times = _times(rng, start_ms, SCALE_ROWS, targets)
        blocks.append(Block(f"scale-{name}", named, values, times, np.zeros((SCALE_ROWS, targets), bool)))
    return blocks


def fill(
    head: Head,
    blocks: list[Block],
    after_round: Callable[[int], None] = lambda _: None,
    interval_ms: int = INTERVAL_MS,
) -> None:
    """Scrapes the blocks into our store, round by round; ``after_round`` is told the time of each."""
    for block in blocks:
        writers = [head.writer(block.name, interval_ms, t) for t in range(len(block.labels))]
        plans = [Plan(list(w.refs(labels))) for w, labels in zip(writers, block.labels, strict=True)]
        ends = [block.end_row(t) for t in range(len(writers))]
        for row in range(block.values.shape[0]):
            for t, (writer, plan) in enumerate(zip(writers, plans, strict=True)):
                if not block.missed[row, t]:
                    writer.commit(int(block.times_ms[row, t]), plan, block.values[row, t])
                elif row == ends[t]:
                    writer.close(int(block.times_ms[row, t]))
            after_round(int(block.times_ms[row].min()))


# --- remote write


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_bytes(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def _samples(times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> bytes:
    """Encoded samples of one series; a time takes six bytes between 2004 and 2109."""
    out = np.empty((times_ms.size, 18), np.uint8)
    out[:, 0], out[:, 1], out[:, 2] = 0x12, 16, 0x09
    out[:, 3:11] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    out[:, 11] = 0x10
    for i in range(6):
        out[:, 12 + i] = (times_ms >> (7 * i)) & 0x7F | (0x80 if i < 5 else 0)
    return out.tobytes()


def snappy(data: bytes) -> bytes:
    """Snappy's block format."""
    return bytes(cramjam.snappy.compress_raw(data))


def write_requests(blocks: list[Block], rows_each: int = 80) -> Iterator[bytes]:
    """Bodies of remote write 1.0, in order of time, of some thousand series each."""
    encoded = {
        block.name: [
            [
                b"".join(field_bytes(1, field_bytes(1, n.encode()) + field_bytes(2, v.encode())) for n, v in labels)
                for labels in target
            ]
            for target in block.labels
        ]
        for block in blocks
    }
    for first in range(0, max(len(block.values) for block in blocks), rows_each):
        for block in blocks:
            body: list[bytes] = []
            rows = slice(first, first + rows_each)
            for t, target in enumerate(encoded[block.name]):
                kept = ~block.missed[rows, t]
                values = block.values[rows, t]
                if first <= (end := block.end_row(t)) < first + rows_each:
                    kept[end - first] = True
                    values = values.copy()
                    values.view(np.uint64)[end - first] = STALE_BITS
                times, values = block.times_ms[rows, t][kept], values[kept]
                if not times.size:
                    continue
                body += [field_bytes(1, text + _samples(times, values[:, i])) for i, text in enumerate(target)]
                while len(body) >= 2000:
                    yield snappy(b"".join(body[:2000]))
                    body = body[2000:]
            if body:
                yield snappy(b"".join(body))
