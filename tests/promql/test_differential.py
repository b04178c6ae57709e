"""Our answers beside those of a real Prometheus 3.14, over series and queries that hypothesis draws.

FLYBALL_QUERIES is how many queries are asked (default 2,000), FLYBALL_SEED which ones.
"""

import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.promql.remote_write import Samples, write_request

from flyball.errors import FlyballError, QueryError
from flyball.model.frames import STALE
from flyball.model.histograms import CUSTOM_BUCKETS, Histogram
from flyball.model.labels import Labels, labels_of
from flyball.promql import Features, Options, data_json, evaluate, parse
from flyball.promql.scenarios import MemoryStorage

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
T0 = 1_700_000_000_000
STEP_MS, ROWS = 15_000, 40
QUERIES = int(os.environ.get("FLYBALL_QUERIES", "2000"))
PER_EXAMPLE = 40
FEATURES = Features(experimental_functions=True)


# --- the real server


class Server:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def request(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def write(self, series: list[tuple[Labels, Samples]]) -> None:
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        headers["X-Prometheus-Remote-Write-Version"] = "0.1.0"
        status, text = self.request("/api/v1/write", write_request(series), headers)
        assert status < 300, text

    def ask(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> dict[str, Any]:
        form = {"query": query, "time": f"{start_ms / 1000:.3f}"}
        if step_ms:
            form |= {"start": form.pop("time"), "end": f"{end_ms / 1000:.3f}", "step": f"{step_ms / 1000:.3f}"}
        path = "/api/v1/query_range" if step_ms else "/api/v1/query"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer: dict[str, Any] = json.loads(self.request(path, urlencode(form).encode(), headers)[1])
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prometheus")
    tool = [sys.executable, str(ROOT / "tools" / "prometheus.py")]
    binary = subprocess.run(tool, check=True, capture_output=True, text=True).stdout.strip()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (home / "prometheus.yml").write_text("global: {}\n")
    process = subprocess.Popen(
        [
            binary, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
            "--storage.tsdb.retention.time=50y", f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver", "--enable-feature=promql-experimental-functions",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    pass
                if Server(port).ask("1", T0, T0, 0)["status"] == "success":
                    break
            except (OSError, ValueError, http.client.HTTPException):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
        yield Server(port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


# --- series


@st.composite
def floats(draw: st.DrawFn, *, counter: bool) -> dict[int, float]:
    """Samples with resets, gaps, stale markers, and now and then NaN or Inf."""
    samples: dict[int, float] = {}
    value = float(draw(st.integers(0, 50)))
    kinds = draw(st.lists(st.sampled_from("sssssssssrgx!n"), min_size=ROWS, max_size=ROWS))
    grow = draw(st.sampled_from([1.0, 0.1, 7.0, 1000.0]))
    for i, kind in enumerate(kinds):
        at = T0 + i * STEP_MS + (i * 7919 % 13 if kind == "s" else 0)
        amount = (i * 31 % 11) * grow
        value = value + amount if counter else amount - 3 * grow
        if kind == "r":
            value = amount / 2
        if kind == "g":
            continue
        samples[at] = (
            {"x": float(STALE), "n": math.nan, "!": math.inf}.get(kind, value) if not counter or kind == "x" else value
        )
    return samples


@st.composite
def native(draw: st.DrawFn) -> dict[int, Histogram]:
    custom = draw(st.booleans())
    schema = CUSTOM_BUCKETS if custom else draw(st.integers(-1, 2))
    samples: dict[int, Histogram] = {}
    counts = [0.0] * 5
    zero = 0.0
    kinds = draw(st.lists(st.sampled_from("ssssssrg"), min_size=ROWS, max_size=ROWS))
    for i, kind in enumerate(kinds):
        if kind == "g":
            continue
        if kind == "r":
            counts, zero = [0.0] * 5, 0.0
        counts = [n + (i * (b + 3) % 4) for b, n in enumerate(counts)]
        zero += 0 if custom else i % 2
        held = {b: n for b, n in enumerate(counts) if n}
        total = sum(held.values()) + zero
        samples[T0 + i * STEP_MS] = Histogram(
            schema=schema,
            count=total,
            sum=total * 1.5,
            zero_threshold=0.0 if custom else 0.001,
            zero_count=zero,
            positive=held,
            custom_values=(1.0, 2.0, 5.0, 10.0) if custom else (),
        )
    return samples


@st.composite
def data(draw: st.DrawFn, run: str) -> list[tuple[Labels, Samples]]:
    series: list[tuple[Labels, Samples]] = []
    for metric, counter in (("c_total", True), ("g", False)):
        for pod in "ab":
            for code in ("1", "2"):
                labels = {"__name__": metric, "run": run, "pod": pod, "code": code}
                series.append((labels_of(labels), draw(floats(counter=counter))))
    series.append((labels_of({"__name__": "o", "run": run, "pod": "a", "extra": "e"}), draw(floats(counter=False))))
    growing = draw(floats(counter=True))
    for i, le in enumerate(("0.1", "1", "5", "+Inf")):
        scaled = {at: value * (i + 1) for at, value in growing.items()}
        series.append((labels_of({"__name__": "x_bucket", "run": run, "le": le}), scaled))
    for pod in "ab":
        series.append((labels_of({"__name__": "h", "run": run, "pod": pod}), draw(native())))
    return [(labels, samples) for labels, samples in series if samples]


# --- queries

RATES = ["rate", "increase", "delta", "irate", "idelta", "resets", "changes", "deriv"]
OVER_TIME = [
    f"{name}_over_time"
    for name in (
        "avg", "min", "max", "sum", "count", "stddev", "stdvar", "last", "present", "first", "mad", "ts_of_max",
        "ts_of_min", "ts_of_last",
    )
]  # fmt: skip
MATH = ["abs", "ceil", "floor", "exp", "ln", "log2", "sgn", "sqrt", "round", "-"]
AGGREGATORS = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]
COMPARISONS = ["==", "!=", ">", "<", ">=", "<="]
OPERATORS = ["+", "-", "*", "/", "%", "^", *COMPARISONS, "and", "or", "unless", "atan2"]
SOURCES = [
    "h{S}", "rate(h{S}[1m])", "increase(h{S}[2m])", "sum(h{S})", "avg(h{S})", "h{S} * 2", "sum_over_time(h{S}[1m])",
    "h{S} - h{S}", "irate(h{S}[1m])",
]  # fmt: skip
KINDS = [
    "selector", "range", "range", "over", "aggregate", "aggregate", "binary", "scalar", "math", "quantile", "hist",
    "other",
]  # fmt: skip
DURATIONS = ("30s", "45s", "1m", "2m", "5m", "61s")


@st.composite
def vector(draw: st.DrawFn, run: str, depth: int = 3) -> str:
    """An expression whose value is an instant vector."""
    if depth == 0:
        return draw(selector(run))
    kind = draw(st.sampled_from(KINDS))
    inner = vector(run, depth - 1)
    if kind == "selector":
        return draw(selector(run)) + draw(st.sampled_from(["", " offset 30s", " offset -15s", f" @ {T0 / 1000 + 200}"]))
    if kind == "range":
        return f"{draw(st.sampled_from(RATES))}({draw(selector(run))}[{draw(st.sampled_from(DURATIONS))}])"
    if kind == "over":
        source = draw(selector(run)) if draw(st.booleans()) else draw(inner)
        step = ":" + draw(st.sampled_from(["15s", "20s"])) if "(" in source or draw(st.booleans()) else ""
        if not step and not source.endswith("}"):
            step = ":15s"
        name = draw(st.sampled_from(OVER_TIME))
        found = f"{name}({_atom(source)}[{draw(st.sampled_from(DURATIONS))}{step}])"
        # upstream's variance does without compensation, and is off where values are great
        return f"({found} - {T0 // 1000})" if name.startswith("ts_") else found
    if kind == "aggregate":
        by = draw(st.sampled_from(["", " by (pod)", " by (code)", " without (pod)", " by (le)", " without (le, code)"]))
        op = draw(st.sampled_from([*AGGREGATORS, "topk(2, ", "bottomk(1, ", "quantile(0.3, ", 'count_values("v", ']))
        # among equals the order decides, and that of computed series is chance; a computed value's last digit, too
        if op.startswith(("topk", "bottomk", "count_values")):
            return f"{op.split('(')[0]}{by} ({op.split('(')[1]}{draw(selector(run))})"
        if "(" in op:
            return f"{op.split('(')[0]}{by} ({op.split('(')[1]}{draw(inner)})"
        return f"{op}{by} ({draw(inner)})"
    if kind == "binary":
        op = draw(st.sampled_from(OPERATORS))
        match = draw(st.sampled_from(["", " on (pod)", " ignoring (code)", " on (pod, code)", " on (run)"]))
        group = ""
        if match and op not in ("and", "or", "unless"):
            group = draw(st.sampled_from(["", " group_left ()", " group_right ()", " group_left (extra)"]))
        bool_ = " bool" if op in ("==", "!=", ">", "<", ">=", "<=") and draw(st.booleans()) else ""
        return f"({draw(inner)} {op}{bool_}{match}{group} {draw(inner)})"
    if kind == "scalar":
        op = draw(st.sampled_from(["+", "-", "*", "/", "%", "^", ">", "<", "==", "!="]))
        number = draw(st.sampled_from(["2", "0.5", "-1", "0", "(time() % 7)", "NaN"]))
        pair = (draw(inner), number)
        return f"({pair[0]} {op} {pair[1]})" if draw(st.booleans()) else f"({pair[1]} {op} {pair[0]})"
    if kind == "math":
        return f"{draw(st.sampled_from(MATH))}({draw(inner)})"
    if kind == "quantile":
        q = draw(st.sampled_from(["0.5", "0.99", "0", "1", "-1", "2"]))
        source = draw(st.sampled_from([
            f'x_bucket{{run="{run}"}}', f'rate(x_bucket{{run="{run}"}}[1m])', f'h{{run="{run}"}}',
            f'rate(h{{run="{run}"}}[2m])', f'sum by (le) (increase(x_bucket{{run="{run}"}}[1m]))',
            f'sum(rate(h{{run="{run}"}}[2m]))',
        ]))  # fmt: skip
        return draw(st.sampled_from([f"histogram_quantile({q}, {source})", f"histogram_fraction(0, {q}, {source})"]))
    if kind == "hist":
        name = draw(st.sampled_from(["count", "sum", "avg", "stddev", "stdvar"]))
        source = draw(st.sampled_from(SOURCES))
        return f"histogram_{name}({source.replace('{S}', chr(123) + f'run={run!r}' + chr(125))})"
    return draw(st.sampled_from([
        f"absent({draw(inner)})", f"vector(scalar({draw(inner)}))", f"(timestamp({draw(inner)}) - {T0 // 1000})",
        f'label_replace({draw(inner)}, "new", "$1-x", "pod", "(.*)")', f"clamp({draw(inner)}, 1, 20)",
        f'label_join({draw(inner)}, "j", "-", "pod", "code")', f"sort_desc({draw(inner)})",
        f"predict_linear({draw(selector(run))}[2m], 60)", f"quantile_over_time(0.7, {draw(selector(run))}[1m])",
        f"double_exponential_smoothing({draw(selector(run))}[2m], 0.4, 0.6)", f"round({draw(inner)}, 0.5)",
        f"hour(count({draw(inner)}))", f"absent_over_time({draw(selector(run))}[30s])",
    ]))  # fmt: skip


@st.composite
def selector(draw: st.DrawFn, run: str) -> str:
    metric = draw(st.sampled_from(["c_total", "c_total", "g", "g", "o", "h", "x_bucket"]))
    more = draw(st.sampled_from(["", "", ',pod="a"', ',code=~"1|"', ',pod!="b"']))
    return f'{metric}{{run="{run}"{more}}}'


def _atom(text: str) -> str:
    return text if text.endswith(("}", ")")) and not text.startswith("(") else f"({text})"


# --- comparison


def _figures(text: Any) -> Any:
    if isinstance(text, str):
        return float(text)
    return [_figures(part) for part in text] if isinstance(text, list) else text


def points(data: dict[str, Any]) -> dict[Any, dict[float, Any]]:
    """Series to points by time; a histogram is a dict."""
    if data["resultType"] in ("scalar", "string"):
        return {(): {float(data["result"][0]): _figures(data["result"][1])}}
    found: dict[Any, dict[float, Any]] = {}
    for series in data["result"]:
        pairs = series.get("values", []) + series.get("histograms", [])
        pairs += [series[key] for key in ("value", "histogram") if key in series]
        found[tuple(sorted(series["metric"].items()))] = {
            float(at): {k: _figures(v) for k, v in value.items()} if isinstance(value, dict) else float(value)
            for at, value in pairs
        }
    return found


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(b, dict | list):
        return False
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))


def our_answer(storage: MemoryStorage, query: str, start: int, end: int, step: int) -> dict[str, Any]:
    try:
        expr = parse(query, FEATURES)
    except QueryError as exc:
        return {"status": "error", "errorType": "bad_data", "error": str(exc)}
    try:
        value = evaluate(expr, storage, start, end, step, options=Options(features=FEATURES), text=query)
    except FlyballError as exc:
        return {"status": "error", "errorType": "execution", "error": str(exc)}
    return {"status": "success", "data": json.loads(data_json(value))}


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    if ours["status"] != theirs["status"] or ours.get("errorType") != theirs.get("errorType"):
        return f"ours {ours.get('error', 'an answer')}, theirs {theirs.get('error', 'an answer')}"
    if ours["status"] != "success":
        return ""
    if ours["data"]["resultType"] != theirs["data"]["resultType"]:
        return f"{ours['data']['resultType']}, theirs {theirs['data']['resultType']}"
    left, right = points(ours["data"]), points(theirs["data"])
    if left.keys() != right.keys():
        return f"series {sorted(left)}, theirs {sorted(right)}"
    for series, own in left.items():
        if own.keys() != right[series].keys():
            return f"{dict(series)}: points at {sorted(own)}, theirs {sorted(right[series])}"
        for at, value in own.items():
            if not alike(value, right[series][at]):
                return f"{dict(series)} at {at}: {value}, theirs {right[series][at]}"
    return ""


RUNS = iter(range(10**9))


@seed(int(os.environ.get("FLYBALL_SEED", "0")))
@settings(
    max_examples=max(1, QUERIES // PER_EXAMPLE),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(drawn=st.data())
def test_answers_equal_those_of_prometheus(server: Server, drawn: st.DataObject) -> None:
    run = f"r{next(RUNS)}"
    series = drawn.draw(data(run))
    server.write(series)
    storage = MemoryStorage()
    for labels, samples in series:
        for at, value in samples.items():
            storage.add(labels, at, value)
    failures = []
    for _ in range(PER_EXAMPLE):
        query = drawn.draw(vector(run))
        start = T0 + drawn.draw(st.integers(-4, ROWS + 24)) * 10_000
        step = drawn.draw(st.sampled_from([0, 0, 15_000, 37_000]))
        end = start + step * drawn.draw(st.integers(0, 12)) if step else start
        found = difference(our_answer(storage, query, start, end, step), server.ask(query, start, end, step))
        if found:
            failures.append(f"{query} from {start} to {end} step {step}: {found}")
    assert not failures, "\n".join(failures)
