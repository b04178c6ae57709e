"""Requests over a socket against a store, answers as Prometheus gives them."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import numpy as np
import pytest
from prometheus_client import REGISTRY

from flyball import clock
from flyball.http.server import serve
from flyball.model.frames import STALE
from flyball.model.labels import labels_of
from flyball.store import Head, Plan
from flyball.web.prometheus_api import Instance, create_app, parse_time_ms, unescape_label
from flyball.web.telemetry import RecentDurations

BASE_S = 1_700_000_000
TARGET = {"labels": {"job": "a"}, "health": "up", "scrapePool": "pool"}
Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


def store() -> Head:
    """requests_total of two pods every 10 s for 2 min through writers; odd values through ``append``."""
    head = Head()
    for pod, slope in (("p0", 10.0), ("p1", 20.0)):
        writer = head.writer("job", 10_000, pod)
        plan = Plan(writer.refs([labels_of([("__name__", "requests_total"), ("job", "a"), ("pod", pod)])]))
        for at in range(0, 121, 10):
            # the second pod is scraped 3 s later
            assert writer.commit((BASE_S + at) * 1000 + (3000 if pod == "p1" else 0), plan, np.array([slope * at]))
    for name, value in (("nan", float("nan")), ("up", float("inf")), ("down", float("-inf")), ("tiny", 1e-9)):
        head.append(labels_of([("__name__", "odd"), ("kind", name)]), BASE_S * 1000, value)
    gone = labels_of([("__name__", "gone")])
    head.append(gone, BASE_S * 1000, 1.0)
    head.append(gone, (BASE_S + 30) * 1000, float(STALE))
    return head


def with_api(work: Callable[[Ask], Awaitable[None]], storage: Any = None, **options: Any) -> None:
    """Runs ``work`` with a function that asks a served API: (path, params, form=..., raw=...) to status and body."""

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            app = create_app(storage or store(), lambda: [TARGET], executor, **options)
            server = await serve(app, port=0, name="test")
            try:
                async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:

                    async def ask(path: str, params: Any = None, *, form: Any = None, method: str = "") -> Any:
                        method = method or ("POST" if form is not None else "GET")
                        async with session.request(method, path, params=params, data=form) as response:
                            body = await response.read()
                            if response.content_type != "application/json":
                                return response.status, body.decode()
                            return response.status, json.loads(body)

                    await work(ask)
            finally:
                await server.close()

    asyncio.run(main())


def test_instant_query() -> None:
    async def work(ask: Ask) -> None:
        status, body = await ask("/api/v1/query", {"query": "requests_total", "time": f"{BASE_S + 62}.5"})
        assert status == 200 and body["status"] == "success" and body["data"]["resultType"] == "vector"
        found = {one["metric"]["pod"]: one for one in body["data"]["result"]}
        assert found["p0"] == {
            "metric": {"__name__": "requests_total", "job": "a", "pod": "p0"},
            "value": [BASE_S + 62.5, "600"],
        }
        assert found["p1"]["value"][1] == "1000"  # its scrape at 60 s comes at 63 s
        _, body = await ask("/api/v1/query", {"query": "sum(rate(requests_total[1m]))", "time": str(BASE_S + 123)})
        assert float(body["data"]["result"][0]["value"][1]) == pytest.approx(30)
        _, body = await ask("/api/v1/query", {"query": "1 + 1", "time": str(BASE_S)})
        assert body["data"] == {"resultType": "scalar", "result": [BASE_S, "2"]}
        _, body = await ask("/api/v1/query", {"query": '"x\\ny"', "time": str(BASE_S)})
        assert body["data"] == {"resultType": "string", "result": [BASE_S, "x\ny"]}
        query = {"query": 'requests_total{pod="p0"}[20s]', "time": "2023-11-14T22:13:40Z"}
        _, body = await ask("/api/v1/query", query)
        assert body["data"]["resultType"] == "matrix"
        assert body["data"]["result"][0]["values"] == [[BASE_S + 10, "100"], [BASE_S + 20, "200"]]
        _, body = await ask("/api/v1/query", {"query": "nosuch"})
        assert body["data"] == {"resultType": "vector", "result": []}

    with_api(work)


def test_numbers_that_json_has_not() -> None:
    async def work(ask: Ask) -> None:
        _, body = await ask("/api/v1/query", {"query": "odd", "time": str(BASE_S)})
        found = {one["metric"]["kind"]: one["value"][1] for one in body["data"]["result"]}
        assert found == {"nan": "NaN", "up": "+Inf", "down": "-Inf", "tiny": "0.000000001"}

    with_api(work)


def test_text_that_is_not_utf8() -> None:
    async def work(ask: Ask) -> None:
        status, body = await ask("/api/v1/query", {"query": r'label_replace(vector(1), "a", "\xff", "", "")'})
        assert status == 200 and body["data"]["result"][0]["metric"] == {"a": "\ufffd"}
        assert (await ask("/api/v1/query", {"query": r'"a\xff"'}))[1]["data"]["result"][1] == "a\ufffd"
        status, body = await ask("/api/v1/query", {"query": r'a{b=~"\xff"}'})
        assert (status, body["errorType"]) == (400, "bad_data")
        for query in (r'label_join(vector(1), "\xff", "x")', r'label_replace(odd, "a", "x", "kind", "\xff")'):
            status, body = await ask("/api/v1/query", {"query": query, "time": str(BASE_S)})
            assert (status, body["errorType"]) == (422, "execution")

    with_api(work)


def test_stale_series_is_gone() -> None:
    async def work(ask: Ask) -> None:
        query = {"query": "gone", "start": str(BASE_S), "end": str(BASE_S + 60), "step": "15"}
        _, body = await ask("/api/v1/query_range", query)
        assert body["data"]["result"][0]["values"] == [[BASE_S, "1"], [BASE_S + 15, "1"]]

    with_api(work)


def test_range_query_by_get_and_by_form() -> None:
    async def work(ask: Ask) -> None:
        query = {"query": "sum by (pod) (requests_total)", "start": BASE_S, "end": BASE_S + 20, "step": "10s"}
        status, body = await ask("/api/v1/query_range", query)
        assert status == 200 and body["data"]["resultType"] == "matrix"
        assert body["data"]["result"] == [
            {"metric": {"pod": "p0"}, "values": [[BASE_S, "0"], [BASE_S + 10, "100"], [BASE_S + 20, "200"]]},
            {"metric": {"pod": "p1"}, "values": [[BASE_S + 10, "0"], [BASE_S + 20, "200"]]},
        ]
        assert await ask("/api/v1/query_range", form=query) == (status, body)
        _, limited = await ask("/api/v1/query_range", {**query, "limit": 1})
        assert len(limited["data"]["result"]) == 1 and limited["warnings"] == ["results truncated due to limit"]

    with_api(work)


@pytest.mark.parametrize(
    ("path", "params", "part"),
    [
        ("query", {"query": "sum("}, 'invalid parameter "query": 1:5: parse error'),
        ("query", {}, 'invalid parameter "query"'),
        ("query", {"query": "1", "time": "noon"}, 'invalid parameter "time": cannot parse "noon"'),
        ("query", {"query": "1", "time": "1e30"}, 'invalid parameter "time"'),
        ("query", {"query": "1", "timeout": "x"}, 'invalid parameter "timeout"'),
        ("query", {"query": "1", "limit": "-1"}, 'invalid parameter "limit"'),
        ("query_range", {"query": "1", "end": "1", "step": "1"}, 'invalid parameter "start"'),
        ("query_range", {"query": "1", "start": "2", "end": "1", "step": "1"}, "end timestamp must not be before"),
        ("query_range", {"query": "1", "start": "0", "end": "1", "step": "0"}, "zero or negative query resolution"),
        ("query_range", {"query": "1", "start": "0", "end": "1", "step": "NaN"}, 'invalid parameter "step"'),
        ("query_range", {"query": "1", "start": "0", "end": "11001", "step": "1"}, "exceeded maximum resolution"),
        ("query_range", {"query": "a[1m]", "start": "0", "end": "1", "step": "1"}, "invalid expression type"),
        ("series", {}, "no match[] parameter provided"),
        ("series", {"match[]": "a{"}, 'invalid parameter "match[]"'),
        ("series", {"match[]": '{a=~".*"}'}, "non-empty matcher"),
        ("labels", {"start": "x"}, 'invalid parameter "start"'),
        ("query", {"query": "a", "time": "-inf"}, 'invalid parameter "time"'),
    ],
)  # fmt: skip
def test_bad_parameter_is_bad_data(path: str, params: dict[str, str], part: str) -> None:
    async def work(ask: Ask) -> None:
        for how in ({"params": params}, *([{"form": params}] if params else [])):
            status, body = await ask(f"/api/v1/{path}", **how)
            assert status == 400
            assert set(body) == {"status", "errorType", "error"}
            assert body["status"] == "error" and body["errorType"] == "bad_data"
            assert part in body["error"]

    with_api(work, Head())


def test_the_longest_range_that_is_allowed() -> None:
    async def work(ask: Ask) -> None:
        status, body = await ask("/api/v1/query_range", {"query": "1", "start": "0", "end": "10999", "step": "1"})
        assert status == 200 and len(body["data"]["result"][0]["values"]) == 11_000

    with_api(work)


def test_failed_evaluation_is_execution() -> None:
    async def work(ask: Ask) -> None:
        query = {"query": "requests_total + on (job) requests_total", "time": str(BASE_S + 60)}
        status, body = await ask("/api/v1/query", query)
        assert (status, body["errorType"]) == (422, "execution")
        assert "many-to-many matching not allowed" in body["error"]

    with_api(work)


def test_series_labels_and_values() -> None:
    async def work(ask: Ask) -> None:
        _, body = await ask("/api/v1/series", [("match[]", "gone"), ("match[]", 'requests_total{pod="p1"}')])
        assert body["data"] == [{"__name__": "gone"}, {"__name__": "requests_total", "job": "a", "pod": "p1"}]
        _, body = await ask("/api/v1/series", {"match[]": '{__name__=~".+"}', "limit": "2"})
        assert len(body["data"]) == 2 and body["warnings"] == ["results truncated due to limit"]
        _, body = await ask("/api/v1/series", form={"match[]": "gone"})
        assert body["data"] == [{"__name__": "gone"}]
        long_ago = {"match[]": "gone", "start": "1", "end": "2"}
        assert (await ask("/api/v1/series", long_ago))[1]["data"] == []
        assert (await ask("/api/v1/labels"))[1]["data"] == ["__name__", "job", "kind", "pod"]
        assert (await ask("/api/v1/labels", {"match[]": "odd"}))[1]["data"] == ["__name__", "kind"]
        assert (await ask("/api/v1/label/pod/values"))[1]["data"] == ["p0", "p1"]
        assert (await ask("/api/v1/label/pod/values", {"match[]": 'requests_total{pod="p1"}'}))[1]["data"] == ["p1"]
        names = (await ask("/api/v1/label/__name__/values"))[1]["data"]
        assert names == ["gone", "odd", "requests_total"]
        assert (await ask("/api/v1/label/nosuch/values"))[1] == {"status": "success", "data": []}

    with_api(work)


def test_targets_and_the_rest() -> None:
    async def work(ask: Ask) -> None:
        data = (await ask("/api/v1/targets"))[1]["data"]
        assert data["activeTargets"] == [TARGET] and data["droppedTargets"] == []
        assert (await ask("/api/v1/targets", {"state": "dropped"}))[1]["data"]["activeTargets"] == []
        assert (await ask("/api/v1/targets", {"scrapePool": "other"}))[1]["data"]["activeTargets"] == []
        assert (await ask("/api/v1/metadata"))[1]["data"] == {"m": [{"type": "gauge", "help": "", "unit": ""}]}
        assert (await ask("/api/v1/metadata", {"metric": "x"}))[1]["data"] == {}
        assert (await ask("/api/v1/format_query", {"query": "sum(a)by(b)"}))[1]["data"] == "sum by (b) (a)"
        assert "version" in (await ask("/api/v1/status/buildinfo"))[1]["data"]
        assert (await ask("/-/healthy"))[0] == 200
        assert (await ask("/-/ready"))[0] == 503
        status, text = await ask("/metrics")
        assert status == 200 and "# HELP" in text
        said = text.splitlines()
        assert "prometheus_ready 0.0" in said and "prometheus_config_last_reload_successful 1.0" in said
        assert any(line.startswith('prometheus_build_info{revision="flyball-') for line in said)
        assert any('code="200",handler="/api/v1/targets"' in line for line in said)
        status, body = await ask("/api/v1/nosuch")
        assert status == 404 and body["errorType"] == "not_found"

    with_api(
        work,
        instance=Instance(
            targets=lambda: [TARGET], target_metadata=lambda: [({}, "m", "gauge", "", "")], ready=lambda: False
        ),
    )


def test_quantiles_are_those_of_the_last_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = RecentDurations("test_durations_seconds", "For this test.", "slice")
    try:
        for second in range(1, 11):
            durations.observe("a", float(second), 1000.0 + 100 * second)
        monkeypatch.setattr(clock, "monotonic_s", lambda: 2100.0)  # those of 1500 and later are late enough
        (family,) = durations.collect()
    finally:
        REGISTRY.unregister(durations)
    assert [(one.labels.get("quantile"), one.value) for one in family.samples] == [
        ("0.5", 8.0),
        ("0.9", 10.0),
        ("0.99", 10.0),
        (None, 55.0),
        (None, 10),
    ]


class Slow:
    """A store whose answer waits until the test lets it go on."""

    def __init__(self) -> None:
        import threading

        self.go = threading.Event()

    def select(self, matchers: Any, start_ms: int, end_ms: int) -> list[Any]:
        self.go.wait(5)
        return []


def test_a_query_that_takes_too_long_times_out() -> None:
    slow = Slow()

    async def work(ask: Ask) -> None:
        status, body = await ask("/api/v1/query", {"query": "a", "timeout": "50ms"})
        slow.go.set()
        assert (status, body["errorType"]) == (503, "timeout")

    try:
        with_api(work, slow)
    finally:
        slow.go.set()


def test_escaped_label_names() -> None:
    assert unescape_label("U__my_2e_name__x") == "my.name_x"
    assert unescape_label("U__bad_zz_") == "U__bad_zz_"
    assert unescape_label("plain") == "plain"


def test_times() -> None:
    assert parse_time_ms("1.5") == 1500
    assert parse_time_ms("1970-01-01T00:00:01.5+00:00") == 1500
    with pytest.raises(ValueError):
        parse_time_ms("nan")


def test_a_query_gives_way_between_its_parts() -> None:
    given: list[str] = []

    async def work(ask: Ask) -> None:
        status, _ = await ask("/api/v1/query", {"query": "sum(requests_total) + count(odd)", "time": str(BASE_S + 60)})
        assert status == 200

    with_api(work, give_way=lambda: lambda: given.append(threading.current_thread().name))
    assert len(given) >= 7  # three operations, two selectors, what these read
    assert threading.main_thread().name not in given
