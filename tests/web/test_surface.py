"""The rest of the Prometheus API: status, rules, search, federation, management, the queue, budgets."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest

from flyball.http.server import serve
from flyball.model.labels import labels_of
from flyball.model.scrapeconfigs import parse_scrape_configs
from flyball.store import Head
from flyball.web.answers import TimedOutError
from flyball.web.catalogue import match_score
from flyball.web.prometheus_api import Budget, Instance, create_app
from flyball.web.queue import QueryQueue
from flyball.web.status import cardinality, hidden_secrets

T0 = 1_700_000_000_000
POOLS, _ = parse_scrape_configs(
    "scrape_configs:\n"
    "- job_name: web\n"
    "  basic_auth: {username: u, password: hunter2}\n"
    "  relabel_configs: [{target_label: team, replacement: a}, {source_labels: [gone], regex: '.+', action: keep}]\n"
)
GROUPS = [
    {"name": f"g{i}", "file": "r.yml", "rules": [{"name": f"r{i}", "type": kind, "labels": {"sev": "x"}, "alerts": []}]}
    for i, kind in enumerate(("alerting", "recording", "alerting"))
]


def store() -> Head:
    head = Head()
    for pod in ("p0", "p1", "p2"):
        head.append(labels_of({"__name__": "requests_total", "pod": pod, "job": "a"}), T0, 1.0)
    head.append(labels_of({"__name__": "my.metric", "the label": 'x"y'}), T0, 2.5)
    return head


async def served(work: Any, storage: Any = None, **options: Any) -> None:
    with ThreadPoolExecutor(2) as executor:
        server = await serve(create_app(storage or store(), executor=executor, **options), port=0)
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
                await work(session)
        finally:
            await server.close()


async def get(session: aiohttp.ClientSession, path: str, **params: Any) -> tuple[int, Any]:
    async with session.get(path if path.startswith("/-/") else f"/api/v1{path}", params=params) as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if answer.content_type == "application/json" else body.decode()


def test_status_rules_and_pools() -> None:
    instance = Instance(
        pools=lambda: {config.job_name: config for config in POOLS},
        rule_groups=lambda: GROUPS,
        config_yaml=lambda: "global: {}\n",
        flags={"a": "b"},
    )

    async def work(session: aiohttp.ClientSession) -> None:
        async def data(path: str, **params: Any) -> Any:
            status, body = await get(session, path, **params)
            assert status == 200, body
            return body["data"]

        assert await data("/scrape_pools") == {"scrapePools": ["web"]}
        assert "hunter2" not in (await data("/scrape_pools/config", scrapePool="web"))["yaml"]
        steps = (await data("/targets/relabel_steps", scrapePool="web", labels='{"x":"1"}'))["steps"]
        assert [step["keep"] for step in steps] == [True, False]
        assert steps[0]["output"] == {"x": "1", "team": "a"}
        assert [group["name"] for group in (await data("/rules", type="alert"))["groups"]] == ["g0", "g2"]
        assert "alerts" not in (await data("/rules", exclude_alerts="true"))["groups"][0]["rules"][0]
        page = await data("/rules", group_limit="2")
        assert len(page["groups"]) == 2
        rest = await data("/rules", group_limit="2", group_next_token=page["groupNextToken"])
        assert [group["name"] for group in rest["groups"]] == ["g2"] and "groupNextToken" not in rest
        assert await data("/alerts") == {"alerts": []}
        assert await data("/status/config") == {"yaml": "global: {}\n"}
        assert await data("/status/flags") == {"a": "b"}
        stats = await data("/status/tsdb", limit="1")
        assert stats["headStats"]["numSeries"] == 4
        assert stats["seriesCountByMetricName"] == [{"name": "requests_total", "value": 3}]
        status, body = await get(session, "/status/tsdb", limit=str(10**12))
        assert status == 200 and body["warnings"] == ["limit reduced to 10000"]
        assert [family["name"] for family in await data("/status/self_metrics", metric_name_pattern="python_info")]
        for path in ("/alertmanagers", "/features", "/notifications", "/status/runtimeinfo", "/status/walreplay"):
            await data(path)
        tree = await data("/parse_query", query='sum by (pod) (rate(a{b="c"}[5m] @ start()))')
        assert tree["type"] == "aggregation" and tree["expr"]["args"][0]["startOrEnd"] == "start"
        for path, params in (
            ("/scrape_pools/config", {"scrapePool": "x"}),
            ("/targets/metadata", {"metric": "nosuch"}),
        ):
            assert (await get(session, path, **params))[0] == 404
        for path, params in (
            ("/rules", {"type": "x"}),
            ("/rules", {"group_next_token": "x"}),
            ("/status/tsdb", {"limit": "0"}),
            ("/targets/relabel_steps", {"scrapePool": "web", "labels": "{"}),
            ("/status/self_metrics", {"metric_name_pattern": "("}),
        ):
            assert (await get(session, path, **params))[0] == 400, path

    asyncio.run(served(work, instance=instance))


def test_search() -> None:
    async def work(session: aiohttp.ClientSession) -> None:
        async def found(path: str, **params: Any) -> list[Any]:
            status, body = await get(session, path, **params)
            assert status == 200, body
            *batches, end = [json.loads(line) for line in body.splitlines()]
            assert end["status"] == "success"
            return [item for batch in batches for item in batch["results"]] + ([...] if end["has_more"] else [])

        names = await found("/search/metric_names", **{"search[]": "rqst"})
        assert names == [{"name": "requests_total"}]
        assert await found("/search/label_values", label="pod", limit="2") == [{"value": "p0"}, {"value": "p1"}, ...]
        assert {"name": "the label"} in await found("/search/label_names")
        assert (await get(session, "/search/label_values"))[0] == 400
        assert (await get(session, "/search/metric_names", sort_dir="asc"))[0] == 400

    asyncio.run(served(work))


def test_scores() -> None:
    assert match_score("a", "a", True) == 1
    assert 0.5 < match_score("ab", "xaby", True) < 1
    assert 0 < match_score("ay", "xaby", True) <= 0.5
    assert match_score("A", "xaby", True) == 0 < match_score("A", "xaby", False)


def test_federation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.clock.now_ms", lambda: T0 + 60_000)

    async def work(session: aiohttp.ClientSession) -> None:
        async def ask(accept: str = "", **params: Any) -> tuple[int, str]:
            async with session.get("/federate", params=params, headers={"Accept": accept}) as answer:
                return answer.status, await answer.text()

        assert (await ask(**{"match[]": 'requests_total{pod="p1"}'}))[1] == (
            f'# TYPE requests_total untyped\nrequests_total{{job="a",pod="p1",site="s"}} 1 {T0}\n'
        )
        assert (await ask(**{"match[]": '{"my.metric"}'}))[1].endswith(
            f'my_metric{{site="s",the_label="x\\"y"}} 2.5 {T0}\n'
        )
        quoted = await ask("text/plain;escaping=allow-utf-8", **{"match[]": '{"my.metric"}'})
        assert quoted[1].endswith(f'{{"my.metric",site="s","the label"="x\\"y"}} 2.5 {T0}\n')
        assert (await ask())[0] == 400

    asyncio.run(served(work, instance=Instance(external_labels=lambda: {"site": "s"})))


def test_management_and_admin() -> None:
    done: list[Any] = []

    class Administered:
        async def delete_series(self, sets: Any, start_ms: int, end_ms: int) -> None:
            done.append([str(matcher) for matchers in sets for matcher in matchers])

        async def clean_tombstones(self) -> None:
            done.append("clean")

        async def snapshot(self, skip_head: bool) -> str:
            return f"snap-{skip_head}"

    async def reload() -> None:
        done.append("reload")

    async def on(session: aiohttp.ClientSession) -> None:
        for method, path in (
            ("POST", "/-/reload"),
            ("PUT", "/-/quit"),
            ("PUT", "/api/v1/admin/tsdb/clean_tombstones"),
            ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ):
            async with session.request(method, path) as answer:
                assert answer.status in (200, 204), path
        async with session.post("/api/v1/admin/tsdb/snapshot", params={"skip_head": "true"}) as answer:
            assert (await answer.json())["data"] == {"name": "snap-True"}

    async def off(session: aiohttp.ClientSession) -> None:
        for path, status in (("/-/reload", 403), ("/-/quit", 403), ("/api/v1/admin/tsdb/snapshot", 503)):
            async with session.post(path) as answer:
                assert answer.status == status

    instance = Instance(admin=Administered(), reload=reload, quit=lambda: done.append("quit"))
    asyncio.run(served(on, instance=instance))
    assert done == ["reload", "quit", "clean", ['__name__="up"']]
    asyncio.run(served(off))


def test_budget_and_statistics() -> None:
    async def work(session: aiohttp.ClientSession) -> None:
        status, body = await get(session, "/query", query="requests_total", time=str(T0 / 1000))
        assert (status, body["errorType"]) == (422, "execution")
        assert "3 series" in body["error"]
        status, body = await get(session, "/query", query='requests_total{pod="p0"}', time=str(T0 / 1000), stats="all")
        assert status == 200 and body["data"]["stats"]["samples"]["samplesRead"] == 1

    asyncio.run(served(work, budget=Budget(series_max=2)))


class Stuck:
    """A store whose answer waits for the test; knows whether its query was told to end."""

    def __init__(self) -> None:
        self.go, self.entered = threading.Event(), threading.Event()

    def select(self, matchers: Any, start_ms: int, end_ms: int) -> list[Any]:
        self.entered.set()
        self.go.wait(10)
        return []


def test_a_query_ends_when_its_client_goes_away() -> None:
    stuck = Stuck()

    async def work(session: aiohttp.ClientSession) -> None:
        task = asyncio.create_task(get(session, "/query", query="a+a"))
        await asyncio.to_thread(stuck.entered.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stuck.go.set()
        assert (await get(session, "/query", query="1"))[0] == 200  # the place is free again

    try:
        asyncio.run(served(work, stuck))
    finally:
        stuck.go.set()


def test_clients_take_turns() -> None:
    order: list[str] = []

    async def go() -> None:
        gate = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            queue = QueryQueue(executor, running_max=1, waiting_max=6)
            tasks = [asyncio.create_task(queue.run("first", lambda _: gate.wait(10), 10))]
            for client, count in (("dashboard", 4), ("autoscaler", 1)):
                for _ in range(count):
                    tasks.append(
                        asyncio.create_task(queue.run(client, lambda _, client=client: order.append(client), 10))
                    )
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*tasks)

    asyncio.run(go())
    assert order.index("autoscaler") <= 1


def test_a_query_that_does_not_notice_its_end_gives_up_its_place() -> None:
    async def go() -> None:
        gate = threading.Event()
        with ThreadPoolExecutor(2) as executor:
            queue = QueryQueue(executor, running_max=1, spare=1)
            for expected in (TimedOutError, None, TimedOutError):
                work = (lambda _: gate.wait(10)) if expected else (lambda _: "answered")
                try:
                    assert await queue.run("a", work, 0.05 if expected else 10) == "answered"
                except TimedOutError:
                    assert expected
            with pytest.raises(TimedOutError):  # both threads are taken now
                await queue.run("a", lambda _: "late", 0.05)
            gate.set()
            assert await queue.run("a", lambda _: "again", 10) == "again"

    asyncio.run(go())


def test_the_largest_names_and_hidden_secrets() -> None:
    series = [labels_of({"__name__": "a", "x": str(i)}) for i in range(3)]
    found = cardinality(series, (1, 2), 1)
    assert found["seriesCountByLabelValuePair"] == [{"name": "__name__=a", "value": 3}]
    assert found["labelValueCountByLabelName"] == [{"name": "x", "value": 3}]
    shown = hidden_secrets({"remote_write": [{"basic_auth": {"username": "u", "password": "p"}}]})
    assert shown == {"remote_write": [{"basic_auth": {"username": "u", "password": "<secret>"}}]}
    shown = hidden_secrets({"proxy_url": "http://u:p@h:1", "proxy_connect_header": {"X-A": ["t"]}})
    assert shown == {"proxy_url": "http://u:<secret>@h:1", "proxy_connect_header": {"X-A": ["<secret>"]}}
