"""Remote write out: what is logged arrives, in order, through refusals, outages and restarts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from flyball import clock
from flyball.exposition.remotewrite import Written, parse_write_request
from flyball.http.calling import Caller
from flyball.model.frames import STALE
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import Labels, labels_of
from flyball.model.prometheusconfig import QueueConfig, RemoteWriteConfig
from flyball.model.scrapeconfigs import RelabelConfig
from flyball.remotewrite import Kept, RemoteWrite
from flyball.remotewrite.sending import retry_after_s
from flyball.store import Database, Plan
from flyball.store.tailing import LogTail
from flyball.web.receiving import unsnappy

T0 = 1_700_000_000_000


def series(name: str, **labels: str) -> Labels:
    return labels_of({"__name__": name, **labels})


class Receiver:
    """Takes what comes; ``answers`` are (status, headers) for the next requests, then 204."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.taken: list[Written] = []
        self.refused = 0

    async def handle(self, request: web.Request) -> web.Response:
        written = parse_write_request(unsnappy(await request.read()), {})
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        if status >= 300:
            self.refused += 1
            return web.Response(status=status, headers=headers, text="not now")
        self.taken.append(written)
        return web.Response(status=status)

    def samples(self) -> dict[Labels, list[tuple[int, float]]]:
        found: dict[Labels, list[tuple[int, float]]] = {}
        for written in self.taken:
            for labels, at_ms, value in written.samples:
                found.setdefault(labels, []).append((at_ms, value))
        return found


@contextlib.asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/write", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/write"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def sending(store: Database, url: str, **given: Any) -> AsyncIterator[RemoteWrite]:
    queue = QueueConfig(batch_send_deadline_ms=20, min_backoff_ms=1, max_backoff_ms=5, **given.pop("queue", {}))
    config = RemoteWriteConfig(url, queue=queue, **given)
    caller = Caller(config.http)
    async with caller.session(timeout_s=30) as session:
        writer = RemoteWrite(store, config, {"cluster": "c"}, session, caller)
        task = asyncio.create_task(writer.run())
        try:
            yield writer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_samples_arrive_relabelled_and_stale_with_what_belongs_to_them(tmp_path: Path) -> None:
    async def go() -> None:
        receiver, store = Receiver(), Database(tmp_path)
        native = Histogram(
            schema=1, count=6.0, sum=2.5, zero_threshold=0.1, zero_count=1.0, hint=ResetHint.GAUGE,
            positive={-3: 1.0, -2: 2.0, 4: 1.0}, negative={0: 1.0},
        )  # fmt: skip
        rules = (
            RelabelConfig(("__name__",), regex="dropped", action="drop"),
            RelabelConfig(target_label="added", replacement="x"),
        )
        kinds = {"send_exemplars": True, "send_native_histograms": True}
        async with listening(receiver) as url, sending(store, url, write_relabel_configs=rules, **kinds):
            writer = store.head.writer("job", 15_000, "target")
            refs = writer.refs([series("a"), series("dropped"), series("a", cluster="own")])
            writer.commit(T0, Plan([refs[0], refs[1], refs[2], refs[0]]), np.array([1.0, 2.0, 3.0, 9.0]))
            store.head.append_histograms([(series("h"), T0, native)])
            store.head.append_exemplars([(series("a"), (("trace", "t"),), 0.5, T0)])
            store.head.describe({"a": ("counter", "Said.", "")})
            writer.close(T0 + 15_000)
            await until(lambda: len(receiver.samples().get(series("a", cluster="c", added="x"), ())) == 2)
            await until(lambda: any(written.metadata for written in receiver.taken))
        found = receiver.samples()
        assert set(found) == {series("a", cluster="c", added="x"), series("a", cluster="own", added="x")}
        (at, value), (ended, marker) = found[series("a", cluster="c", added="x")]
        assert (at, value, ended) == (T0, 1.0, T0 + 15_000)
        assert np.float64(marker).tobytes() == np.float64(STALE).tobytes()
        (histogram,) = [one for written in receiver.taken for one in written.histograms]
        assert histogram == (series("h", cluster="c", added="x"), T0, native)
        ((labels, exemplar),) = [one for written in receiver.taken for one in written.exemplars]
        assert labels == series("a", cluster="c", added="x") and exemplar == ({"trace": "t"}, 0.5, T0)
        (said,) = [written.metadata for written in receiver.taken if written.metadata]
        assert said["a"].help == "Said."
        store.close()

    asyncio.run(go())


def test_what_may_be_taken_later_is_sent_again_and_what_is_refused_is_not(tmp_path: Path) -> None:
    async def go() -> None:
        receiver, store = Receiver(), Database(tmp_path)
        receiver.answers = [(503, {"Retry-After": "0"}), (500, {}), (204, {}), (400, {}), (429, {}), (204, {})]
        async with listening(receiver) as url, sending(store, url, send_metadata=False) as writer:
            for number in range(4):
                before = len(receiver.taken) + receiver.refused
                store.head.append(series("a"), T0 + number, float(number))
                await until(lambda before=before: len(receiver.taken) + receiver.refused > before)
                await until(lambda: writer.statistics()["sent_sequence"] == store.wal.sequence)
        assert receiver.samples() == {series("a", cluster="c"): [(T0, 0.0), (T0 + 3, 3.0)]}  # 400 and 429: dropped
        assert writer.statistics()["retries_total"] == 2
        store.close()

    asyncio.run(go())


def test_nothing_is_lost_while_the_receiver_is_away_and_the_process_dies(tmp_path: Path) -> None:
    async def go() -> None:
        receiver, store = Receiver(), Database(tmp_path)
        async with listening(receiver) as url:
            port = url
        async with sending(store, port, name="far"):  # nobody listens there now
            for number in range(50):
                store.head.append(series("a", n=str(number % 5)), T0 + number, float(number))
                if number % 10 == 9:
                    store.wal.rotate()
            await asyncio.sleep(0)
            store.wal.supersede(store.wal.number)
            assert store.wal.forget(T0 * 2) == 0, "the log was cut under the queue"
        store.close()
        store = Database(tmp_path)
        store.head.append(series("a", n="0"), T0 + 99, 99.0)
        async with (
            listening(receiver) as url,
            sending(store, url, name="far", queue={"max_samples_per_send": 7}) as new,
        ):
            await until(lambda: sum(map(len, receiver.samples().values())) == 51)
            await until(lambda: new.statistics()["sent_sequence"] == store.wal.sequence)
            store.wal.rotate()
            store.wal.supersede(store.wal.number)
            assert store.wal.forget(T0 * 2) > 0
        assert all(found == sorted(found) for found in receiver.samples().values())
        store.close()

    asyncio.run(go())


def test_of_what_waits_too_long_or_takes_too_much_the_oldest_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        store = Database(tmp_path)
        config = RemoteWriteConfig("http://127.0.0.1:1/write")
        caller = Caller(config.http)
        async with caller.session(timeout_s=30) as session:

            def first(**kept: Any) -> int:
                """The oldest segment that is kept for a receiver that has seen nothing since its beginning."""
                return RemoteWrite(store, config, {}, session, caller, Kept(**kept)).first_segment()

            store.head.append(series("a"), T0, 0.0)
            assert first() == 1
            for number in range(1, 4):
                store.wal.rotate()
                store.head.append(series("a"), T0 + 60_000 * number, float(number))
            monkeypatch.setattr(clock, "now_ms", lambda: T0 + 180_000)
            assert first() == 1 and first(max_age_ms=180_000) == 1
            assert first(max_age_ms=179_999) == 2 and first(max_age_ms=100_000) == 3
            assert first(max_age_ms=0) == 4  # the one that is written to
            size = store.wal.bytes_on_disk()
            assert first(max_bytes=size) == 1 and first(max_bytes=size - 1) == 4
            writer = RemoteWrite(store, config, {}, session, caller, Kept(max_bytes=size - 1))
            store.wal.holds.append(writer.first_segment)
            assert store.wal.forget(T0 * 2) == 1, "no more is given up than must be"
            assert store.wal.bytes_on_disk() < size and writer.first_segment() == 1
        store.close()

    asyncio.run(go())


def test_the_log_is_followed_while_it_grows_and_over_what_is_torn_or_gone(tmp_path: Path) -> None:
    store = Database(tmp_path)
    tail = LogTail(store.wal.directory, 0)
    for number in range(3):
        store.head.append(series("a"), T0 + number, float(number))
        assert [value for _, _, value in tail.read().samples] == [float(number)]
    assert len(tail.read()) == 0
    path = store.wal.directory / "00000001.wal"
    whole = path.read_bytes()
    store.head.append(series("a"), T0 + 3, 3.0)
    grown = path.read_bytes()
    path.write_bytes(grown[:-5])
    assert len(tail.read()) == 0
    path.write_bytes(grown)
    assert [value for _, _, value in tail.read().samples] == [3.0]
    assert len(grown) > len(whole)
    store.wal.rotate()
    path.write_bytes(grown + b"torn")
    store.head.append(series("a"), T0 + 4, 4.0)
    assert [value for _, _, value in tail.read().samples] == [4.0]
    behind = LogTail(store.wal.directory, (1 << 40) + 2)
    path.unlink()
    assert [value for _, _, value in behind.read().samples] == [4.0]
    assert (behind.lost_segments, tail.lost_segments) == (1, 0)
    store.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("", 0.0), ("soon", 0.0), ("99999", 600.0), ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0)],
)
def test_retry_after(header: str, seconds: float) -> None:
    assert retry_after_s(header, T0) == seconds
