"""Pushed signals: the Pushgateway's interface and statsd."""

import asyncio
import socket
from collections.abc import Sequence

import pytest
from starlette.applications import Starlette

from flyball.errors import ConfigError, ScrapeError
from flyball.exposition.statsd import parse_line
from flyball.http.client import new_session
from flyball.http.server import serve
from flyball.model.labels import Labels
from flyball.web.pushing import Announced, Statsd, grouping, push_routes


class Store:
    late_samples = 0

    def __init__(self) -> None:
        self.samples: list[tuple[Labels, int, float]] = []

    def append_all(self, samples: Sequence[tuple[Labels, int, float]]) -> int:
        self.samples.extend(samples)
        return len(samples)

    def last(self) -> dict[str, float]:
        return {"".join(f"{name}={value};" for name, value in labels): found for labels, _, found in self.samples}


def test_a_push_is_a_sample_of_now_and_is_announced_by_name() -> None:
    store, told = Store(), []

    async def go() -> list[int]:
        app = Starlette(routes=push_routes(Announced(store, lambda *name: told.append(name))))
        server = await serve(app, port=0)
        try:
            async with new_session() as session:
                base = f"http://127.0.0.1:{server.port}/metrics/job/queue"
                codes = []
                for url, body, headers in (
                    (f"{base}/namespace/shop", b"depth 5\n", {}),
                    (base, b"depth 5 1700000000000\n", {}),
                    (base, b"depth{ 5\n", {}),
                    (f"{base}/namespace", b"depth 5\n", {}),
                    (base, b"depth 6\n", {"Origin": "http://evil.example"}),
                    (base, b"#" * (2 << 20), {}),
                ):
                    async with session.post(url, data=body, headers=headers) as answer:
                        codes.append(answer.status)
                return codes
        finally:
            await server.close()

    assert asyncio.run(go()) == [200, 400, 400, 400, 403, 413]
    assert store.last() == {"__name__=depth;job=queue;namespace=shop;": 5.0}
    assert told == [("shop", "depth")]


def test_grouping() -> None:
    assert grouping("q/path@base64/L3Zhci9sb2c") == {"job": "q", "path": "/var/log"}
    for path in ("q/namespace", "q/path@base64/_w"):
        with pytest.raises(ConfigError):
            grouping(path)


def test_statsd_counts_sets_and_repeats() -> None:
    store, told = Store(), []

    async def go() -> None:
        statsd = Statsd(Announced(store, lambda *name: told.append(name)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        task = asyncio.create_task(statsd.run("127.0.0.1", port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(200):
                await asyncio.sleep(0.01)
                if not store.samples:
                    sender.sendto(b"first:1|c", ("127.0.0.1", port))
                else:
                    break
            store.samples.clear()
            sender.sendto(b"hits:1|c|#namespace:shop\nhits:3|c|@0.5|#namespace:shop\n", ("127.0.0.1", port))
            sender.sendto(b"depth:7|g\ndepth:-2|g\nnonsense\nbad:x|c", ("127.0.0.1", port))
            for _ in range(200):
                await asyncio.sleep(0.01)
                if len(store.last()) == 2:
                    break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())
    assert store.last() == {"__name__=hits_total;namespace=shop;": 7.0, "__name__=depth;": 5.0}
    assert next(value for labels, _, value in store.samples if labels[0][1] == "hits_total") == 0.0
    assert ("shop", "hits_total") in told


@pytest.mark.parametrize(
    "line", ["", "a", "a:1", "a:|c", "a:1|s", "a:nan|g", "a:-1|c", "a:1|c|@0", "a:1|c|@2", ":1|c", "a" * 2000 + ":1|c"]
)
def test_a_statsd_line_that_is_none(line: str) -> None:
    with pytest.raises(ScrapeError):
        parse_line(line)


def test_statsd_timings_are_a_count_and_a_sum() -> None:
    assert [(change.series[0][1], change.value) for change in parse_line("9t:250|ms|@0.5")] == [
        ("_9t_seconds_count", 2.0),
        ("_9t_seconds_sum", 0.5),
    ]
