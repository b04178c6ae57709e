"""Scraping real sockets: what a target may do, and what it costs."""

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from flyball.exposition.messages import exposition_types
from flyball.http.client import new_session
from flyball.model.frames import is_absent, is_stale
from flyball.model.labels import Matcher, MatchType
from flyball.model.scrapeconfigs import RelabelConfig, ScrapeConfig, StaticConfig, TargetGroup
from flyball.scrape import ScrapeManager, build_targets
from flyball.scrape import loop as scrape_loop
from flyball.scrape.loop import TargetLoop
from flyball.scrape.pages import KnownPages
from flyball.store import Head

T0 = 1_700_000_000_000
TEXT = {"Content-Type": "text/plain; version=0.0.4"}


class Site:
    """A target whose answers the test sets."""

    def __init__(self) -> None:
        self.body = b"a 1\n"
        self.status = 200
        self.headers = dict(TEXT)
        self.requests: list[dict[str, str]] = []
        self.delay_s = 0.0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.headers))
        await asyncio.sleep(self.delay_s)
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def running(site: Site):
    app = web.Application()
    app.router.add_get("/metrics", site.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    session = new_session(connections_max=0)
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", session
    finally:
        await session.close()
        await runner.cleanup()


def counted(name: str, /, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def loop_for(head, address, session, pages=None, **settings):
    config = ScrapeConfig(
        "job", **{"scrape_interval_ms": 15_000, "static_configs": (StaticConfig((address,), {}),), **settings}
    )
    (target,), _, _ = build_targets(config, config.static_groups())
    return TargetLoop(head, config, target, None, lambda loop, at_ms: None, pages=pages)


def values(head: Head, name: str, **rest: str) -> list:
    matchers = [Matcher(MatchType.EQUAL, key, value) for key, value in {"__name__": name, **rest}.items()]
    found = []
    for frame in head.select(matchers, 0, T0 * 2):
        for column in range(len(frame.labels)):
            times, cells = frame.times_ms[:, frame.target[column]], frame.values[:, column].copy()
            for at, cell, absent, stale in zip(times, cells, is_absent(cells), is_stale(cells), strict=True):
                if at < T0 * 2 and not absent:
                    found.append("stale" if stale else float(cell))
    return found


def test_values_staleness_and_report_series() -> None:
    async def go() -> None:
        site, head = Site(), Head()
        async with running(site) as (address, session):
            loop = loop_for(head, address, session)
            for index, body in enumerate([b"a 1\nb 2\n", b"a 3\nb 4\n", b"a 5\n", b"nonsense{\n", b"a 7\nb 8\n"]):
                site.body = body
                await loop.scrape(T0 + index * 15_000)
        assert values(head, "a", instance=address, job="job") == [1.0, 3.0, 5.0, "stale", 7.0]
        assert values(head, "b") == [2.0, 4.0, "stale", 8.0]
        assert values(head, "up") == [1.0, 1.0, 1.0, 0.0, 1.0]
        assert values(head, "scrape_samples_scraped") == [2.0, 2.0, 1.0, 0.0, 2.0]
        assert values(head, "scrape_series_added") == [2.0, 0.0, 0.0, 0.0, 2.0]
        assert site.requests[0]["X-Prometheus-Scrape-Timeout-Seconds"] == "10"
        assert "text/plain" in site.requests[0]["Accept"]

    asyncio.run(go())


def test_a_page_is_not_learned_again_after_a_failed_scrape(monkeypatch) -> None:
    learned: list[bytes] = []
    parse = scrape_loop.parse
    monkeypatch.setattr(
        scrape_loop, "parse", lambda body, *rest, **more: learned.append(body) or parse(body, *rest, **more)
    )

    async def go() -> None:
        site, head = Site(), Head()
        async with running(site) as (address, session):
            loop = loop_for(head, address, session)
            for index, (status, body) in enumerate(
                [(200, b"a 1\nb 2\n"), (500, b""), (200, b"a 3\nb 4\n"), (200, b"a 5\n")]
            ):
                site.status, site.body = status, body
                await loop.scrape(T0 + index * 15_000)
        assert learned == [b"a 1\nb 2\n", b"a 5\n"]
        assert values(head, "a") == [1.0, "stale", 3.0, 5.0]
        assert values(head, "b") == [2.0, "stale", 4.0, "stale"]
        assert values(head, "up") == [1.0, 0.0, 1.0, 1.0]
        assert values(head, "scrape_series_added") == [2.0, 0.0, 2.0, 0.0]

    asyncio.run(go())


def limit_of(settings: dict) -> str:
    """The setting whose passing is counted: all limits of labels are one."""
    name = next(iter(settings), "").removesuffix("_bytes")
    return "label_limit" if name.startswith("label_") else name if name.endswith("_limit") else ""


@pytest.mark.parametrize(
    ("change", "settings", "expected"),
    [
        ({"body": b"x" * 5000}, {"body_size_limit_bytes": 1000}, "the body is larger than the limit of 1000 bytes"),
        (
            {"body": gzip.compress(b"a 1\n" * 100_000), "headers": {**TEXT, "Content-Encoding": "gzip"}},
            {"body_size_limit_bytes": 1000},
            "the body is larger than the limit of 1000 bytes",
        ),
        ({"body": b"a 1\nb 2\nfoo{\n"}, {}, 'line 3: "foo{"'),
        ({"status": 500}, {}, "HTTP status 500"),
        ({"delay_s": 1.0}, {"scrape_timeout_ms": 50}, "no complete answer within 0.05 s"),
        ({"headers": {"Content-Type": "text/html"}}, {}, 'the Content-Type "text/html"'),
        ({"body": b"a 1\nb 1\n"}, {"sample_limit": 1}, "sample_limit of 1"),
        ({"body": b'a{x="12345"} 1\n'}, {"label_value_length_limit": 4}, "label_value_length_limit"),
        ({"body": b'a{x="12345"} 1\n'}, {"label_limit": 3}, "label_limit"),
    ],
)
def test_a_bad_answer_is_a_clear_error_and_up_is_0(change, settings, expected) -> None:
    async def go() -> None:
        site, head = Site(), Head()
        for name, value in change.items():
            setattr(site, name, value)
        async with running(site) as (address, session):
            loop = loop_for(head, address, session, **settings)
            await loop.scrape(T0)
            assert loop.health == "down"
            assert loop.last_error.startswith(f"Get http://{address}/metrics: ")
            assert expected in loop.last_error
            assert loop.last_limit == limit_of(settings)
        assert values(head, "up") == [0.0]
        assert values(head, "a") == []

    asyncio.run(go())


def test_gzip_labels_own_times_and_metric_relabelling() -> None:
    async def go() -> None:
        site, head = Site(), Head()
        site.body = gzip.compress(b'a{job="x"} 1\ndropped 2\nown 3 %d\nown_late 3 %d\n' % (T0 - 5, T0 + 10**9))
        site.headers["Content-Encoding"] = "gzip"
        ahead = counted("prometheus_target_scrapes_sample_out_of_bounds_total")
        async with running(site) as (address, session):
            rules = (RelabelConfig(source_labels=("__name__",), regex="dropped", action="drop"),)
            loop = loop_for(head, address, session, metric_relabel_configs=rules)
            await loop.scrape(T0)
            assert loop.last_error == ""
            assert values(head, "a", exported_job="x", job="job") == [1.0]
            assert values(head, "dropped") == []
            assert values(head, "own") == [3.0]
            assert values(head, "own_late") == []
            assert counted("prometheus_target_scrapes_sample_out_of_bounds_total") == ahead + 1
            assert values(head, "scrape_samples_post_metric_relabeling") == [3.0]
            honest = loop_for(head, address, session, honor_labels=True, honor_timestamps=False)
            await honest.scrape(T0 + 1)
            assert values(head, "a", job="x") == [1.0]

    asyncio.run(go())


def test_the_manager_scrapes_lists_and_marks_removed_targets() -> None:
    async def go() -> None:
        site, head = Site(), Head()
        async with running(site) as (address, _):
            manager = ScrapeManager(head)
            config = ScrapeConfig(
                "job",
                scrape_interval_ms=100,
                scrape_timeout_ms=100,
                relabel_configs=(RelabelConfig(("__address__",), regex="gone:.*", action="drop"),),
            )
            manager.set_configs([config])
            landed: list = []
            manager.add_listener(lambda target, at_ms: landed.append(target))
            task = asyncio.create_task(manager.run())
            await asyncio.sleep(0)
            manager.set_groups("job", [TargetGroup("pods", {}, ({"__address__": address}, {"__address__": "gone:1"}))])
            async with asyncio.timeout(5):
                while len(landed) < 2:
                    await asyncio.sleep(0.01)
            (active,) = manager.targets()
            assert (active["health"], active["labels"]["instance"]) == ("up", address)
            assert active["scrapeInterval"] == "100ms"
            assert counted("prometheus_target_interval_length_seconds_count", interval="100ms") >= 1
            job = {"scrape_job": "job"}
            assert counted("prometheus_sd_discovered_targets", name="scrape", config="job") == 2
            assert counted("prometheus_target_scrape_pool_targets", **job) == 1
            assert counted("prometheus_target_metadata_cache_entries", **job) == len(manager.metadata())
            assert counted("prometheus_target_sync_length_seconds_count", **job) >= 2
            (dropped,) = manager.dropped_targets()
            assert dropped["discoveredLabels"]["__address__"] == "gone:1"
            manager.set_groups("job", [])
            assert manager.targets() == []
            assert values(head, "a")[-1] == "stale"
            assert values(head, "up")[-1] == "stale"
            site.body = b"a 1\nb 2\n"
            refused = counted("prometheus_target_scrapes_exceeded_sample_limit_total")
            landed.clear()
            manager.set_configs([replace(config, sample_limit=1)])
            manager.set_groups("job", [TargetGroup("pods", {}, ({"__address__": address},))])
            async with asyncio.timeout(5):
                while not landed:
                    await asyncio.sleep(0.01)
            assert counted("prometheus_target_scrapes_exceeded_sample_limit_total") > refused
            manager.set_configs([])
            assert REGISTRY.get_sample_value("prometheus_target_scrape_pool_targets", job) is None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())


def test_an_interval_override_moves_the_series_without_a_gap() -> None:
    async def go() -> None:
        site, head = Site(), Head()
        async with running(site) as (address, session):
            loop = loop_for(head, address, session)
            await loop.scrape(T0)
            loop.set_interval(1000)
            await loop.scrape(T0 + 1000)
            site.body = b"b 1\n"
            await loop.scrape(T0 + 2000)
        assert values(head, "a") == [1.0, 1.0, "stale"]
        assert values(head, "up") == [1.0, 1.0, 1.0]

    asyncio.run(go())


def test_targets_with_the_same_lines_share_one_page() -> None:
    async def go() -> None:
        one, other, head = Site(), Site(), Head()
        one.body = other.body = b'# TYPE a counter\na{x="y"} 1\nb 2\n'
        async with running(one) as (first, session), running(other) as (second, _):
            pages = KnownPages()
            loops = [loop_for(head, address, session, pages=pages) for address in (first, second)]
            for index, loop in enumerate(loops):
                await loop.scrape(T0)
                assert values(head, "a", instance=(first, second)[index]) == [1.0]
            assert loops[0]._page is loops[1]._page
            other.body = b'# TYPE a counter\na{x="y"} 4\nb 5\nc 6\n'
            for loop in loops:
                await loop.scrape(T0 + 15_000)
            assert values(head, "a", instance=first) == [1.0, 1.0]
            assert values(head, "a", instance=second) == [1.0, 4.0]
            assert values(head, "c") == [6.0]

    asyncio.run(go())


def native_page(count: int) -> bytes:
    t = exposition_types()
    native = t["Histogram"](
        count=count,
        sum=18.5,
        schema=1,
        zero_threshold=0.001,
        positive_span=[t["BucketSpan"](offset=0, length=1)],
        positive_delta=[count],
        bucket=[t["Bucket"](upper_bound=1.0, count=count)],
    )
    plain = t["MetricFamily"](name=b"plain", type=1, metric=[t["Metric"](gauge=t["Number"](value=2))])
    family = t["MetricFamily"](name=b"h", type=4, metric=[t["Metric"](histogram=native)])
    return b"".join(bytes([len(one)]) + one for one in map(t["MetricFamily"].SerializeToString, (plain, family)))


def test_native_histograms_are_scraped_where_the_job_wants_them() -> None:
    async def go() -> None:
        site = Site()
        site.headers = {"Content-Type": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily"}
        async with running(site) as (address, session):
            for settings, names in (
                ({}, ["h_bucket", "h_count", "h_sum", "plain"]),
                ({"scrape_native_histograms": True}, ["h", "plain"]),
                (
                    {"scrape_native_histograms": True, "always_scrape_classic_histograms": True},
                    ["h", "h_bucket", "h_count", "h_sum", "plain"],
                ),
            ):
                head = Head()
                loop = loop_for(head, address, session, **settings)
                for index, count in enumerate((3, 5)):
                    site.body = native_page(count)
                    await loop.scrape(T0 + index * 15_000)
                assert loop.last_error == ""
                found = head.label_values("__name__")
                assert [name for name in found if name[0] in "hp"] == names
                wanted = "vnd.google.protobuf" in site.requests[-1]["Accept"]
                assert wanted == ("scrape_native_histograms" in settings)
                if "h" not in names:
                    continue
                (frame,) = head.select([Matcher(MatchType.EQUAL, "__name__", "h")], 0, T0 * 2)
                assert [one.positive for one in frame.histograms[:, 0]] == [{0: 3.0}, {0: 5.0}]
                site.status = 500
                await loop.scrape(T0 + 30_000)
                assert values(head, "h") == [3.0, 5.0, "stale"] and values(head, "plain") == [2.0, 2.0, "stale"]
                site.status = 200

    asyncio.run(go())


def test_a_store_that_is_full_still_takes_the_series_it_knows() -> None:
    async def go() -> None:
        head = Head(memory_limit_bytes=400_000)
        site = Site()
        async with running(site) as (address, session):
            loop = loop_for(head, address, session)
            site.body = b"known 1\n"
            await loop.scrape(T0)
            site.body = b"known 2\n" + b"".join(b'bomb{i="%d"} 1\n' % i for i in range(5000))
            await loop.scrape(T0 + 15_000)
            assert loop.health == "up" and "memory limit" in loop.last_error
            site.body = b"known 3\n" + b"".join(b'bomb{i="%d"} 1\n' % i for i in range(5000, 10_000))
            await loop.scrape(T0 + 30_000)
            assert values(head, "known") == [1.0, 2.0, 3.0]
            assert values(head, "bomb") == []
            site.body = b"known 4\nnew 1\n"
            await loop.scrape(T0 + 45_000)
            assert values(head, "new") == [1.0] and loop.last_error == ""

    asyncio.run(go())


def test_pages_are_read_by_a_compiled_pass_once_there_are_many_samples(monkeypatch) -> None:
    loaded = asyncio.Event()

    async def run() -> None:
        site = Site()
        async with running(site) as (address, _):
            manager = ScrapeManager(Head())
            static = (StaticConfig((address,), {}),)
            manager.set_configs(
                [ScrapeConfig("job", scrape_interval_ms=100, scrape_timeout_ms=100, static_configs=static)]
            )
            task = asyncio.create_task(manager.run())
            async with asyncio.timeout(5):
                await loaded.wait()
            assert manager.samples_per_s() == 10
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    on = asyncio.new_event_loop()
    monkeypatch.setattr("flyball.scrape.manager.load_compiled", lambda: on.call_soon_threadsafe(loaded.set))
    monkeypatch.setattr("flyball.scrape.manager.COMPILED_SAMPLES_PER_S", 10)
    monkeypatch.setattr("flyball.scrape.manager._LOOK_EVERY_S", 0.01)
    try:
        on.run_until_complete(run())
    finally:
        on.close()


HISTOGRAM = b'# TYPE h histogram\nh_bucket{le="1"} %d\nh_bucket{le="+Inf"} 6\nh_sum 7.5\nh_count 6\n'


def test_classic_histograms_are_stored_as_native_ones() -> None:
    async def go() -> None:
        head, site = Head(), Site()
        async with running(site) as (address, session):
            loop = loop_for(head, address, session, convert_classic_histograms_to_nhcb=True)
            for at, inside in enumerate((4, 5, 7, 6)):  # 7 of 6 is no histogram
                site.body = HISTOGRAM % inside
                await loop.scrape(T0 + at * 15_000)
                assert loop.last_error == ""
            assert values(head, "h") == [6.0, 6.0, "stale", 6.0]
            assert values(head, "scrape_samples_scraped") == [1.0, 1.0, 0.0, 1.0]
            assert values(head, "h_count") == []
            (frame,) = head.select([Matcher(MatchType.EQUAL, "__name__", "h")], 0, T0 * 2)
            assert [found.positive for found in frame.histograms[:, 0] if found is not None] == [
                {0: 4.0, 1: 2.0},
                {0: 5.0, 1: 1.0},
                {0: 6.0},
            ]
            loop.stop(stale=False)

    asyncio.run(go())


def test_a_histogram_with_too_many_buckets_fails_the_scrape() -> None:
    async def go() -> None:
        head, site = Head(), Site()
        async with running(site) as (address, session):
            limits = {"convert_classic_histograms_to_nhcb": True, "native_histogram_bucket_limit": 1}
            loop = loop_for(head, address, session, **limits)
            site.body = HISTOGRAM % 6
            await loop.scrape(T0)
            assert values(head, "h") == [6.0]
            site.body = HISTOGRAM % 4
            await loop.scrape(T0 + 15_000)
            assert "native_histogram_bucket_limit of 1" in loop.last_error
            assert loop.last_limit == "native_histogram_bucket_limit"
            assert values(head, "h") == [6.0, "stale"]
            assert values(head, "up") == [1.0, 0.0]
            loop.stop(stale=False)

    asyncio.run(go())
