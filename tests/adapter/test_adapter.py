"""The adapter over a fake source and a fake Kubernetes client."""

import asyncio
import json
import math
import random
from typing import Any

import pytest

from flyball import clock
from flyball.adapter import Adapter
from flyball.adapter.access import TokenAccess
from flyball.adapter.api import MetricsApp
from flyball.adapter.documents import decimal
from flyball.adapter.objects import MetaObject, ObjectMeta, Status
from flyball.errors import UpstreamError
from flyball.model.labels import labels_of
from flyball.model.quantities import Quantity
from flyball.sources import Sample

CONFIG = """
rules:
- seriesQuery: requests_total
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^(.*)_total$"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)
"""


class Source:
    def __init__(self) -> None:
        self.values: dict[str, float] = {"a": 1.5, "b": 2.0}
        self.age_ms = 3_000
        self.down = False

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Any]:
        return [labels_of({"__name__": "requests_total", "namespace": "ns", "pod": pod}) for pod in "ab"]

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        if self.down:
            raise UpstreamError("source is down")
        if "timestamp(" in expr:
            return [Sample((("pod", pod),), at_ms, (at_ms - self.age_ms) / 1000) for pod in self.values]
        return [Sample((("pod", pod),), at_ms, value) for pod, value in self.values.items()]


def get(path: str, source: Source, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async def run() -> tuple[int, Any]:
        adapter = Adapter(Any, source, CONFIG)  # type: ignore[arg-type]
        for pod in "abc":
            adapter._pods.apply("ADDED", None, MetaObject(ObjectMeta(pod, "ns", {"app": "web"}), Status("Running")))
        adapter._pods._informer._synced.set()
        await adapter.relist()
        app = MetricsApp(adapter, TokenAccess("t"))
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        whole, _, query = path.partition("?")
        given = {"authorization": "Bearer t"} if headers is None else headers
        scope = {"type": "http", "method": "GET", "path": whole, "query_string": query.encode(),
                 "headers": [(k.encode(), v.encode()) for k, v in given.items()]}  # fmt: skip
        await app(scope, None, send)
        body = sent[1]["body"]
        return sent[0]["status"], json.loads(body) if body[:1] == b"{" else body

    return asyncio.run(run())


PODS = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns/pods/*/requests?labelSelector=app%3Dweb"


def test_values_carry_the_samples_own_time_and_window() -> None:
    status, body = get(PODS, Source())
    assert status == 200
    assert [(i["describedObject"]["name"], i["value"], i["windowSeconds"]) for i in body["items"]] == [
        ("a", "1500m", 120), ("b", "2", 120),
    ]  # fmt: skip
    age_ms = clock.now_ms() - clock.parse_rfc3339_ms(body["items"][0]["timestamp"])
    assert 3_000 <= age_ms < 10_000
    assert body["items"][0]["describedObject"]["apiVersion"] == "/v1"


def test_absent_stale_and_not_finite_are_never_zero() -> None:
    source = Source()
    source.values = {"a": math.nan, "b": math.inf}
    assert get(PODS, source)[1]["items"] == []
    source = Source()
    source.age_ms = 600_000
    assert get(PODS, source)[1]["items"] == []
    status, body = get(PODS.replace("*", "c"), Source())
    assert (status, body["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (PODS.replace("requests?", "unknown?"), 404),
        (PODS.replace("app%3Dweb", "app%3Dnone"), 404),
        (PODS.replace("app%3Dweb", "a%3D%3D%3D"), 400),
        ("/apis/custom.metrics.k8s.io/v1beta1/namespaces/ns/pods", 400),
        ("/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/none", 404),
        ("/apis/nothing.example", 404),
        ("/apis", 200),
        ("/readyz", 200),
        ("/apis/custom.metrics.k8s.io/v1beta1", 200),
        ("/api/flyball/v1/rules", 200),
    ],
)
def test_status_codes(path: str, code: int) -> None:
    assert get(path, Source())[0] == code


def test_a_source_that_is_down_is_a_500_that_names_the_rule() -> None:
    source = Source()
    source.down = True
    status, body = get(PODS, source)
    assert status == 500
    assert "rules[0]" in body["message"] and "source is down" in body["message"]


def test_who_may_ask() -> None:
    assert get(PODS, Source(), {})[0] == 403
    assert get(PODS, Source(), {"authorization": "Bearer x"})[0] == 401
    assert get(PODS, Source(), {"x-remote-user": "admin", "x-remote-group": "system:masters"})[0] == 403


def test_the_short_way_to_a_quantity_is_the_quantity() -> None:
    rng = random.Random(7)
    values = [rng.randint(-(10**size), 10**size) for size in range(1, 19) for _ in range(200)]
    for milli in (*values, *(n * 10**k for n in range(-20, 21) for k in range(16))):
        assert decimal(milli) == str(Quantity(milli, -3))
