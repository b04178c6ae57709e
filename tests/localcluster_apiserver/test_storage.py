"""The log table: history across restarts, compaction, and durability against kill -9."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.errors import ConfigError, StoreError
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
                batches.append(len(subscription.events))
                seen += len(subscription.events)
                assert [event.rv for event in subscription.events] == list(range(seen - len(subscription.events), seen))
                subscription.events.clear()

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
