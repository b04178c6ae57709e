"""The informer against a server that does what a script says."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from flyball.kube import Access, Informer, KubeClient
from flyball.kube.kinds import PODS


def pod(name: str, version: int, uid: str = "", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": labels}}


def line(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


GONE = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}
HANG = object()  # keep the stream open
BREAK = object()  # break the connection


class Script:
    """Lists are popped from ``lists`` (the last stays); watches from ``watches``; then watches hang."""

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.list_queries: list[dict[str, str]] = []
        self.watch_versions: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            self.list_queries.append(dict(request.query))
            answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            if "code" in answer:
                return web.json_response(answer, status=answer["code"])
            return web.json_response(answer)
        assert request.query["allowWatchBookmarks"] == "true"
        self.watch_versions.append(request.query.get("resourceVersion", ""))
        steps = self.watches.pop(0) if self.watches else [HANG]
        if isinstance(steps, dict):
            return web.json_response(steps, status=steps["code"])
        response = web.StreamResponse()
        await response.prepare(request)
        for step in steps:
            if step is HANG:
                await asyncio.sleep(3600)
            elif step is BREAK:
                assert request.transport is not None
                request.transport.abort()
                return response
            else:
                await response.write(step)
        return response


def listing(version: int, *items: dict[str, Any], token: str = "") -> dict[str, Any]:
    return {"kind": "PodList", "metadata": {"resourceVersion": str(version), "continue": token}, "items": list(items)}


@asynccontextmanager
async def serving(script: Script):
    app = web.Application()
    app.router.add_get("/api/v1/pods", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = KubeClient(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def quick(client: KubeClient, **options: Any) -> Informer[Any]:
    defaults = {"rng": random.Random(1), "backoff_min_s": 0.005, "backoff_max_s": 0.05, "watch_min_s": 0.01}
    return Informer(client, PODS, **{**defaults, **options})


def run(script: Script, body: Callable[[Informer[Any], list[Any]], Awaitable[None]], **options: Any) -> Informer[Any]:
    async def main() -> Informer[Any]:
        async with serving(script) as client:
            informer = quick(client, **options)
            seen: list[Any] = []

            def told(change: str, old: Any, new: Any) -> None:
                seen.append((change, (new or old)["metadata"]["name"], (new or old)["metadata"]["resourceVersion"]))

            informer.add_handler(told)
            task = asyncio.create_task(informer.run())
            try:
                await body(informer, seen)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return informer

    return asyncio.run(main())


def test_list_then_watch_fills_the_cache_and_tells_handlers():
    script = Script(
        [listing(10, pod("a", 3))],
        [[line("ADDED", pod("b", 11)), line("MODIFIED", pod("a", 12)), line("DELETED", pod("b", 13)), HANG]],
    )

    async def body(informer, seen):
        await informer.wait_synced()
        await until(lambda: len(seen) == 4)
        assert seen == [("ADDED", "a", "3"), ("ADDED", "b", "11"), ("MODIFIED", "a", "12"), ("DELETED", "b", "13")]
        assert set(informer.cache) == {("default", "a")}
        assert informer.cache[("default", "a")]["kind"] == "Pod"
        assert informer.cache[("default", "a")]["apiVersion"] == "v1"

    run(script, body)
    assert script.watch_versions == ["10"]


def test_pages_are_followed_and_an_expired_page_restarts_unpaged():
    script = Script(
        [listing(10, pod("a", 1), token="t1"), {**GONE}, listing(20, pod("a", 1), pod("b", 2))],
        [],
    )

    async def body(informer, seen):
        await informer.wait_synced()
        assert {key[1] for key in informer.cache} == {"a", "b"}

    informer = run(script, body)
    assert [(q.get("limit"), q.get("continue")) for q in script.list_queries] == [
        ("500", None),
        ("500", "t1"),
        (None, None),
    ]
    assert informer.resource_version == "20"


def test_410_as_status_relists_and_tells_the_deletions_of_the_gap():
    script = Script(
        [listing(10, pod("a", 1), pod("b", 2)), listing(50, pod("b", 40), pod("c", 41))],
        [[line("MODIFIED", pod("a", 11))], dict(GONE)],
    )

    async def body(informer, seen):
        await until(lambda: informer.resource_version == "50")
        assert seen[2:] == [
            ("MODIFIED", "a", "11"),
            ("DELETED", "a", "11"),
            ("MODIFIED", "b", "40"),
            ("ADDED", "c", "41"),
        ]

    informer = run(script, body)
    assert informer.statistics()["tombstones"] == 1


def test_410_as_an_error_event_relists():
    script = Script(
        [listing(10, pod("a", 1)), listing(50)],
        [[line("ERROR", GONE), HANG]],
    )

    async def body(informer, seen):
        await until(lambda: seen[-1:] == [("DELETED", "a", "1")])
        await until(lambda: script.watch_versions == ["10", "50"])

    run(script, body)


def test_a_server_that_always_says_410_is_not_hammered():
    script = Script([listing(10)], [dict(GONE) for _ in range(10_000)])

    async def body(informer, seen):
        await asyncio.sleep(0.5)

    run(script, body, backoff_min_s=0.05, backoff_max_s=0.2)
    assert 2 <= len(script.watch_versions) <= 9


def test_a_name_taken_over_in_the_gap_is_a_deletion_and_an_addition():
    script = Script(
        [listing(10, pod("a", 1, uid="one")), listing(50, pod("a", 30, uid="two"))],
        [dict(GONE)],
    )

    async def body(informer, seen):
        await until(lambda: len(seen) == 3)
        assert seen == [("ADDED", "a", "1"), ("DELETED", "a", "1"), ("ADDED", "a", "30")]

    run(script, body)


def test_bookmarks_advance_the_version_that_a_new_watch_starts_from():
    script = Script([listing(10, pod("a", 1))], [[bookmark(77)]])

    async def body(informer, seen):
        await until(lambda: len(script.watch_versions) == 2)
        assert seen == [("ADDED", "a", "1")]

    informer = run(script, body)
    assert script.watch_versions == ["10", "77"]
    assert informer.statistics()["bookmarks"] == 1
    assert informer.statistics()["lists"] == 1


def test_a_broken_connection_resumes_without_a_list():
    script = Script([listing(10)], [[line("ADDED", pod("a", 11)), BREAK], [line("ADDED", pod("b", 12)), HANG]])

    async def body(informer, seen):
        await until(lambda: len(seen) == 2)

    informer = run(script, body)
    assert script.watch_versions == ["10", "11"]
    assert informer.statistics()["lists"] == 1


def test_a_server_that_ends_every_stream_at_once_is_not_hammered():
    script = Script([listing(10)], [[] for _ in range(10_000)])

    async def body(informer, seen):
        await asyncio.sleep(0.5)

    run(script, body, backoff_min_s=0.05, backoff_max_s=0.2, watch_min_s=0.5)
    assert 2 <= len(script.watch_versions) <= 9
    assert len(script.list_queries) == 1


def test_a_garbage_line_fails_the_watch_and_loses_nothing_before_it():
    script = Script(
        [listing(10)],
        [[line("ADDED", pod("a", 11)), b"{not json\n", HANG], [line("ADDED", pod("b", 12)), HANG]],
    )

    async def body(informer, seen):
        await until(lambda: len(seen) == 2)

    informer = run(script, body)
    assert script.watch_versions == ["10", "11"]
    assert informer.statistics()["failures"] == 1


def test_events_out_of_their_order_make_it_list_again():
    lists = [listing(10), listing(12, pod("a", 11), pod("b", 12))]
    script = Script(lists, [[line("ADDED", pod("b", 12)), line("ADDED", pod("a", 11)), HANG]])

    async def body(informer, seen):
        await until(lambda: script.watch_versions == ["10", "12"])
        assert seen == [("ADDED", "b", "12"), ("ADDED", "a", "11")]

    assert run(script, body).statistics()["disordered"] == 1


def test_a_late_word_of_a_deleted_object_does_not_bring_it_back():
    script = Script(
        [listing(10, pod("a", 1)), listing(12)], [[line("DELETED", pod("a", 12)), line("MODIFIED", pod("a", 11))]]
    )

    async def body(informer, seen):
        await until(lambda: script.watch_versions == ["10", "12"])
        assert seen == [("ADDED", "a", "1"), ("DELETED", "a", "12")] and not informer.cache

    run(script, body)


def test_an_event_told_twice_counts_once():
    added, late = line("ADDED", pod("a", 11)), bookmark(5)
    script = Script([listing(10)], [[added, added, late, line("ADDED", pod("b", 12)), HANG]])

    async def body(informer, seen):
        await until(lambda: len(seen) == 2)
        assert informer.resource_version == "12"

    assert run(script, body).statistics()["lists"] == 1


def test_a_list_now_and_then_makes_up_for_an_event_that_was_lost():
    script = Script([listing(10, pod("a", 1)), listing(11)], [[], [], []])

    async def body(informer, seen):
        await until(lambda: seen == [("ADDED", "a", "1"), ("DELETED", "a", "1")])

    run(script, body, relist_s=0.02)


def test_an_event_may_come_in_pieces():
    whole = line("ADDED", pod("a", 11)) + line("ADDED", pod("b", 12))
    script = Script([listing(10)], [[whole[:20], whole[20:90], whole[90:-3], whole[-3:], HANG]])

    async def body(informer, seen):
        await until(lambda: len(seen) == 2)
        assert [name for _, name, _ in seen] == ["a", "b"]

    run(script, body)


def test_silence_is_taken_for_a_lost_connection():
    script = Script([listing(10)], [[bookmark(11), HANG], [line("ADDED", pod("a", 12)), HANG]])

    async def body(informer, seen):
        await until(lambda: seen == [("ADDED", "a", "12")])

    run(script, body, idle_timeout_s=0.5)
    assert script.watch_versions[:2] == ["10", "11"]


def test_a_handler_that_raises_does_not_disturb_the_others():
    script = Script([listing(10, pod("a", 1))], [[line("ADDED", pod("b", 11)), HANG]])

    async def main():
        async with serving(script) as client:
            informer = quick(client)
            seen = []

            def bad(change, old, new):
                raise RuntimeError("handler")

            informer.add_handler(bad)
            informer.add_handler(lambda change, old, new: seen.append(new["metadata"]["name"]))
            task = asyncio.create_task(informer.run())
            await until(lambda: seen == ["a", "b"])
            assert informer.statistics()["handler_errors"] == 2
            late = []
            informer.add_handler(lambda change, old, new: late.append((change, new["metadata"]["name"])))
            assert sorted(late) == [("ADDED", "a"), ("ADDED", "b")]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_failing_list_is_tried_again():
    broken = {"kind": "Status", "code": 503, "reason": "ServiceUnavailable", "message": "starting"}
    script = Script([broken, broken, listing(10, pod("a", 1))], [])

    async def body(informer, seen):
        assert not informer.has_synced
        await informer.wait_synced()
        assert informer.statistics()["last_error"] == "starting"

    informer = run(script, body)
    assert informer.statistics()["failures"] == 2


def test_objects_may_be_structs_of_the_fields_that_are_read():
    class Metadata(msgspec.Struct):
        name: str
        labels: dict[str, str]

    class Small(msgspec.Struct):
        metadata: Metadata

    script = Script([listing(10, pod("a", 1, app="web"))], [])

    async def main():
        async with serving(script) as client:
            informer = quick(client, type=Small)
            task = asyncio.create_task(informer.run())
            async with asyncio.timeout(5):
                await informer.wait_synced()
            assert informer.cache[("default", "a")] == Small(Metadata("a", {"app": "web"}))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
