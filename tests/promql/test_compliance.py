"""The query list of the PromQL compliance tester beside a real Prometheus 3.14, on data of our own."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.promql.remote_write import Samples
from tests.promql.test_differential import Server, difference, our_answer, server

from flyball.model.frames import STALE
from flyball.model.labels import Labels, labels_of
from flyball.promql.scenarios import MemoryStorage

pytestmark = pytest.mark.peer

T0, STEP_MS, ROWS = 1_700_100_000_000, 15_000, 400
_COMPARE = ["==", "!=", "<", ">", "<=", ">="]
_ARITHMETIC = ["+", "-", "*", "/", "%", "^"]
#: As the tester expands them.
VARIANTS = {
    "range": ["1s", "15s", "1m", "5m", "15m", "1h"],
    "offset": ["1m", "5m", "10m"],
    "simpleAggrOp": ["sum", "avg", "max", "min", "count", "stddev", "stdvar"],
    "simpleTimeAggrOp": ["sum", "avg", "max", "min", "count", "stddev", "stdvar", "absent", "last", "present"],
    "topBottomOp": ["topk", "bottomk"],
    "quantile": ["-0.5", "0.1", "0.5", "0.75", "0.95", "0.90", "0.99", "1", "1.5"],
    "arithBinOp": _ARITHMETIC,
    "compBinOp": _COMPARE,
    "binOp": _ARITHMETIC + _COMPARE,
    "simpleMathFunc": ["abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "round"],
    "extrapolatedRateFunc": ["delta", "rate", "increase"],
    "clampFunc": ["clamp_min", "clamp_max"],
    "instantRateFunc": ["idelta", "irate"],
    "dateFunc": ["day_of_month", "day_of_week", "days_in_month", "hour", "minute", "month", "year"],
}  # fmt: skip
_VARIABLE = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")

__all__ = ["server"]


def demo_series() -> list[tuple[Labels, Samples]]:
    """What three demo services expose: counters that restart, gauges, a metric that comes and goes, buckets."""
    rng = np.random.default_rng(11)
    found: list[tuple[Labels, Samples]] = []

    def add(metric: str, values: "np.ndarray[tuple[int], np.dtype[np.float64]]", **labels: str) -> None:
        samples = {T0 + i * STEP_MS: float(value) for i, value in enumerate(values.tolist()) if not np.isnan(value)}
        found.append((labels_of({"__name__": metric, "job": "demo", **labels}), samples))

    def counter(most: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        values = np.cumsum(rng.integers(0, most, ROWS)).astype(np.float64)
        values[200:] -= values[200]
        return values

    for port in range(10000, 10003):
        instance = f"demo.promlabs.com:{port}"
        for kind in ("free", "used", "cached", "buffers"):
            add("demo_memory_usage_bytes", rng.integers(1, 10**7, ROWS).astype(float), instance=instance, type=kind)
        for mode in ("idle", "user", "system"):
            add("demo_cpu_usage_seconds_total", counter(30), instance=instance, mode=mode)
        add("demo_disk_usage_bytes", np.cumsum(rng.integers(0, 9, ROWS)).astype(float), instance=instance)
        add("demo_num_cpus", np.full(ROWS, 4.0), instance=instance)
        add("demo_batch_last_success_timestamp_seconds", T0 / 1000 + np.arange(ROWS) // 20 * 300.0, instance=instance)
        coming = np.where(np.arange(ROWS) % 40 < 25, 1.0, np.nan)
        add("demo_intermittent_metric", coming, instance=instance)
        for at in range(25, ROWS, 40):
            found[-1][1][T0 + at * STEP_MS] = float(STALE)  # type: ignore[index]
        for path in ("/api/foo", "/api/bar"):
            total = np.zeros(ROWS)
            for le in ("0.1", "0.5", "1", "+Inf"):
                total = total + counter(20)
                labels = {"instance": instance, "path": path, "le": le, "method": "GET", "status": "200"}
                add("demo_api_request_duration_seconds_bucket", total, **labels)
            add("demo_api_request_duration_seconds_count", total, instance=instance, path=path)
    return found


def queries(text: str) -> list[str]:
    """Every query with its variants. Those that the list wants refused are asked, too: 3.x takes some of them."""
    found = []
    for case in yaml.safe_load(text)["test_cases"]:
        names = list(dict.fromkeys(_VARIABLE.findall(case["query"])))
        for values in itertools.product(*(VARIANTS[name] for name in names)):
            chosen = dict(zip(names, values, strict=True))
            query = _VARIABLE.sub(lambda m, chosen=chosen: chosen[m.group(1)], case["query"])
            found.append(query)
    return found


def test_the_compliance_queries_are_answered_as_by_prometheus(server: Server, shared: Path) -> None:
    series = demo_series()
    server.write(series)
    storage = MemoryStorage()
    for labels, samples in series:
        for at, value in samples.items():
            storage.add(labels, at, value)
    failures = []
    asked = queries((shared / "promql-compliance" / "promql-test-queries.yml").read_text())
    end = T0 + (ROWS - 4) * STEP_MS
    for query in asked:
        theirs = server.ask(query, end - 1_200_000, end, 30_000)
        ours = our_answer(storage, query, end - 1_200_000, end, 30_000)
        found = difference(ours, theirs)
        if found:
            failures.append(f"{query}: {found}")
    assert len(asked) > 500
    assert not failures, f"{len(failures)} of {len(asked)}:\n" + "\n".join(failures)
