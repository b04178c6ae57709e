"""The log table: history across restarts, compaction, and durability against kill -9."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import ConfigError, StoreError
from flyball.localcluster.admission import allocate_service, first_host
from flyball.localcluster.node.dnsserver import address_of
from flyball.localcluster.storage import ADDED, DELETED, MODIFIED, WOKEN_AT_ONCE, Expired, Storage, Subscription


def obj(name: str, **more: object) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "d"}, **more}


def test_history_and_objects_survive_a_restart(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "o.sqlite")
    storage.put("/pods", "d", "a", obj("a", n=1))
    storage.put("/pods", "d", "a", obj("a", n=2))
    storage.put("/pods", "d", "b", obj("b"))
    storage.delete("/pods", "d", "b")
    storage.close()
    storage = Storage(tmp_path / "o.sqlite")
    assert storage.revision == 4
    record = storage.get("/pods", "d", "a")
    assert record is not None and record.object["n"] == 2 and record.object["metadata"]["resourceVersion"] == "2"
    events = storage.since("/pods", 1)
    assert [(e.type, e.name, e.rv) for e in events] == [(MODIFIED, "a", 2), (ADDED, "b", 3), (DELETED, "b", 4)]
    assert events[0].previous is not None and events[0].previous.object["n"] == 1
    assert storage.put("/pods", "d", "c", obj("c")).rv == 5
    storage.close()


def test_versions_outside_the_history_are_expired_also_after_a_restart(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "o.sqlite", history_events=100)
    for number in range(1500):
        storage.put("/pods", "d", "a", obj("a", n=number))
    assert storage.compacted == 1400
    with pytest.raises(Expired):
        storage.since("/pods", 1399)
    assert len(storage.since("/pods", 1400)) == 100
    with pytest.raises(Expired):
        storage.since("/pods", 1501)
    storage.close()
    storage = Storage(tmp_path / "o.sqlite", history_events=100)
    assert storage.revision == 1500
    assert storage.compacted == 1400
    assert storage.get("/pods", "d", "a").object["n"] == 1499  # type: ignore[union-attr]
    rows = storage._db.execute("SELECT count(*) FROM log").fetchone()[0]
    assert rows < 1100, "superseded rows below the mark are deleted"
    storage.close()


def test_a_deleted_object_stays_deleted_after_compaction(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "o.sqlite", history_events=10)
    storage.put("/pods", "d", "gone", obj("gone"))
    storage.delete("/pods", "d", "gone")
    for number in range(1200):
        storage.put("/pods", "d", "a", obj("a", n=number))
    storage.close()
    storage = Storage(tmp_path / "o.sqlite", history_events=10)
    assert storage.get("/pods", "d", "gone") is None
    assert list(storage.keys("/pods")) == [("d", "a")]
    storage.close()


def test_events_gather_for_readers_that_wait_their_turn(tmp_path: Path) -> None:
    async def body() -> None:
        storage = Storage(tmp_path / "o.sqlite")
        batches: list[int] = []

        async def read(subscription: Subscription) -> None:
            seen = 0
            while seen < 20:
                await subscription.wait(60.0)
                taken = subscription.take(1 << 20)
                batches.append(len(taken))
                seen += len(taken)
                assert [event.rv for event in taken] == list(range(seen - len(taken), seen))

        readers = [asyncio.create_task(read(storage.subscribe("/pods"))) for _ in range(10 * WOKEN_AT_ONCE)]
        await asyncio.sleep(0)
        storage.revision = -1
        for number in range(20):  # other work, such as writes, comes between the readers
            storage.put("/pods", "d", "a", obj("a", n=number))
            await asyncio.sleep(0)
        await asyncio.gather(*readers)
        storage.close()
        assert sum(batches) == 20 * len(readers)
        assert len(batches) < 5 * len(readers)

    asyncio.run(body())


def test_a_reader_has_its_namespace_in_pieces_and_one_far_behind_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyball.localcluster.storage.QUEUE_EVENTS", 10)

    async def body() -> None:
        storage = Storage(tmp_path / "o.sqlite")
        everywhere, mine = storage.subscribe("/pods"), storage.subscribe("/pods", "d")
        slow, other = storage.subscribe("/pods"), storage.subscribe("/nodes")
        seen: list[int] = []
        for number in range(12):
            storage.put("/pods", "d" if number % 2 else "e", "a", obj("a", n=number))
            assert everywhere.is_behind and not other.is_behind
            seen += [event.rv for event in everywhere.take(1)]
            assert not everywhere.is_behind
        assert seen == list(range(1, 13))
        assert [event.rv for event in mine.take(1)] == [2], "as much as is asked for, but one at least"
        assert [event.rv for event in mine.take(1 << 20)] == [4, 6, 8, 10, 12]
        assert slow.closed and not everywhere.closed
        await asyncio.wait_for(slow.wait(60.0), 5.0)
        storage.put("/pods", "e", "a", obj("a"))
        assert [event.rv for event in everywhere.take(1)] == [13] and not mine.is_behind
        assert storage.statistics()["watches"] == 3
        late = storage.subscribe("/pods")
        assert not late.is_behind
        storage.end_subscriptions()
        assert storage.statistics()["watches"] == 0
        storage.put("/pods", "e", "a", obj("a"))
        assert not everywhere.is_behind
        storage.close()

    asyncio.run(body())


def test_clusters_beside_each_other_give_out_other_addresses(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "o.sqlite")

    def given(first: int) -> str:
        service: dict[str, Any] = {"metadata": {"name": f"s{storage.revision}", "namespace": "d"}, "spec": {}}
        allocate_service(storage, service, None, first)
        storage.put("/services", "d", service["metadata"]["name"], service)
        return str(service["spec"]["clusterIP"])

    assert [given(first_host(tmp_path, 0)) for _ in range(2)] == ["127.11.1.0", "127.11.1.1"]
    begin = first_host(tmp_path, 100)
    assert given(begin) == f"127.11.{begin // 256}.0" != "127.11.1.2"
    assert address_of(tmp_path, 100) == f"127.11.{begin // 256}.10", "its DNS server is among them"
    assert [given(65534) for _ in range(2)] == ["127.11.255.254", "127.11.1.2"], "after the last comes the first"
    storage.close()


def test_a_second_process_and_an_unusable_directory_are_refused_by_name(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "o.sqlite")
    with pytest.raises(ConfigError, match="another process"):
        Storage(tmp_path / "o.sqlite")
    storage.close()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="--data-dir"):
        Storage(file / "o.sqlite")


WRITER = """
import sys
from pathlib import Path
from flyball.localcluster.storage import Storage
storage = Storage(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    storage.put("/pods", "d", f"p{n}", {"metadata": {"name": f"p{n}", "namespace": "d"}})
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_every_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "o.sqlite")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged == 300:
            os.kill(process.pid, signal.SIGKILL)
            break
    for line in process.stdout:
        if line.endswith("\n"):
            acknowledged = int(line)
    process.wait()
    process.stdout.close()
    storage = Storage(tmp_path / "o.sqlite")
    assert len(storage.keys("/pods")) >= acknowledged >= 300
    assert all(storage.get("/pods", "d", f"p{n}") for n in range(1, acknowledged + 1))
    storage.close()
