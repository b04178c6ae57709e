"""What was taken is there again after the process is gone, whatever happened to the files."""

import errno
import gc
import os
import random
import weakref
from pathlib import Path

import numpy as np
import pytest

from flyball.errors import DiskFullError, StoreError
from flyball.model.frames import STALE, is_absent, is_stale
from flyball.model.labels import Labels, Matcher, MatchType, labels_of
from flyball.store import Database, Plan
from flyball.store import wal as wal_module
from flyball.store.records import RecordType, frame, read_records
from flyball.store.wal import segment_numbers

INTERVAL_MS = 15_000
START_MS = 1_700_000_000_000

History = dict[Labels, list[tuple[int, float | str]]]


def contents(database: Database) -> History:
    """Every sample that a query sees, staleness markers as the text "stale"."""
    found: History = {}
    for frame_ in database.select([], 0, 1 << 60):
        absent, stale = is_absent(np.ascontiguousarray(frame_.values)), is_stale(np.ascontiguousarray(frame_.values))
        for column, labels in enumerate(frame_.labels):
            assert labels not in found
            found[labels] = [
                (int(at), "stale" if stale[row, column] else float(frame_.values[row, column]))
                for row, at in enumerate(frame_.times_ms[:, frame_.target[column]])
                if not absent[row, column]
            ]
    return {labels: samples for labels, samples in found.items() if samples}


def series(name: str, **rest: str) -> Labels:
    return labels_of({"__name__": name, **rest})


def fill(database: Database, rounds: int, first: int = 0) -> None:
    """Three targets of ten series, one with a series that ends, and pushed samples."""
    rng = random.Random(first)
    for target in range(3):
        writer = database.head.writer("job", INTERVAL_MS, ("job", f"pod-{target}"))
        refs = writer.refs([series(f"m{n % 3}", pod=str(target), n=str(n)) for n in range(10)])
        plan = Plan(refs)
        shorter = Plan([*refs[:4], None, *refs[5:]])
        for round_ in range(first, first + rounds):
            values = np.array([rng.random() if n % 2 else float(n) for n in range(10)])
            ends = round_ == first + rounds // 2
            used = shorter if round_ >= first + rounds // 2 else plan
            assert writer.commit(START_MS + round_ * INTERVAL_MS + target, used, values, [refs[4]] if ends else [])
    for round_ in range(first, first + rounds):
        assert database.head.append(series("rule", x="1"), START_MS + round_ * 30_000, float(round_))
    assert database.head.append(series("gone"), START_MS + (first + rounds) * 30_000, float(STALE))


def abandon(database: Database) -> None:
    """As after kill -9: only the lock goes, as the kernel would let go of it."""
    os.close(database._lock_fd)


def test_a_killed_store_has_every_sample_again(tmp_path: Path) -> None:
    database = Database(tmp_path)
    fill(database, 20)
    before = contents(database)
    abandon(database)
    again = Database(tmp_path)
    assert contents(again) == before
    fill(again, 20, first=20)
    after = contents(again)
    abandon(again)
    assert contents(Database(tmp_path)) == after


def test_a_target_that_comes_back_goes_on_in_its_columns(tmp_path: Path) -> None:
    database = Database(tmp_path)
    fill(database, 5)
    abandon(database)
    again = Database(tmp_path)
    fill(again, 5, first=5)
    frames = again.select([Matcher(MatchType.EQUAL, "__name__", "m0")], 0, 1 << 60)
    assert len(frames) == 1 and len(frames[0].labels) == 12
    assert again.head.statistics()["groups"] == 1


def test_the_log_does_not_keep_a_target_that_is_gone(tmp_path: Path) -> None:
    store = Database(tmp_path)
    writer = store.head.writer("job", 15_000, "target")
    plan = Plan(writer.refs([labels_of({"__name__": "up"})]))
    assert writer.commit(1_000_000, plan, np.ones(1))
    writer.close(1_015_000)
    reference = weakref.ref(writer)
    del writer, plan
    later_ms = 1_000_000 + 24 * 3_600_000
    store.maintain(later_ms)
    store.head.collect(later_ms)
    gc.collect()
    assert reference() is None
    store.close()


@pytest.mark.parametrize("cut", [1, 2, 21, 60, 200])
def test_a_torn_tail_costs_the_last_records_only(tmp_path: Path, cut: int) -> None:
    database = Database(tmp_path)
    fill(database, 20)
    before = contents(database)
    abandon(database)
    path = tmp_path / "wal" / "00000001.wal"
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    again = Database(tmp_path)
    assert again.replayed.torn_segments == 1 and again.replayed.damaged_segments == 0
    records, _ = read_records(data, 8)
    lost = len(records) - len(read_records(data[:-cut], 8)[0])
    kept = sum(map(len, contents(again).values()))
    assert 0 < sum(map(len, before.values())) - kept <= lost
    abandon(again)
    assert Database(tmp_path).replayed.torn_segments == 0  # said once


def test_damage_costs_the_record_that_it_touches(tmp_path: Path) -> None:
    database = Database(tmp_path)
    fill(database, 30)
    whole = contents(database)
    abandon(database)
    path = tmp_path / "wal" / "00000001.wal"
    intact = path.read_bytes()
    rng = random.Random(7)
    for _ in range(25):
        damaged = bytearray(intact)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        for old in segment_numbers(tmp_path / "wal")[1:]:
            (tmp_path / "wal" / f"{old:08d}.wal").unlink()
        again = Database(tmp_path)
        found = contents(again)
        lost = sum(map(len, whole.values())) - sum(map(len, found.values()))
        assert lost <= 3 * 11, "a record holds at most eleven samples"
        for labels, samples in found.items():
            assert set(samples) <= set(whole[labels]), "nothing is invented"
        assert again.replayed.unexplained == 0, "definitions come from the companion"
        abandon(again)


def test_a_lost_definitions_file_costs_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path)
    fill(database, 10)
    before = contents(database)
    abandon(database)
    (tmp_path / "wal" / "00000001.defs").write_bytes(b"")
    assert contents(Database(tmp_path)) == before


def test_a_page_written_twice_is_read_once() -> None:
    data = b"".join(frame(n, RecordType.ROW, bytes([n]) * 100) for n in range(1, 40))
    size = len(data) // 39
    twice = data[: 10 * size] + data[20 * size : 25 * size] + data[15 * size :]
    records, damages = read_records(twice, 0)
    assert damages == []
    assert [record.sequence for record in records] == [*range(1, 11), *range(16, 40)]


def test_below_the_reserve_ingest_stops_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path, reserve_bytes=1 << 20)
    fill(database, 3)
    before = contents(database)
    monkeypatch.setattr(wal_module, "free_bytes", lambda path: 1000)
    monkeypatch.setattr(wal_module, "_CHECK_SPACE_EVERY_S", 0.0)
    with pytest.raises(DiskFullError, match="less than the reserve of 1 MiB"):
        fill(database, 1, first=3)
    assert database.statistics()["disk_full"]
    assert contents(database) == before, "what was refused is not seen"
    monkeypatch.setattr(wal_module, "free_bytes", lambda path: 1 << 40)
    fill(database, 3, first=3)
    after = contents(database)
    abandon(database)
    assert contents(Database(tmp_path)) == after


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("written", [0, 30])
def test_a_write_that_fails_half_way_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, written: int
) -> None:
    database = Database(tmp_path, reserve_bytes=0)
    fill(database, 3)
    real_write = os.write
    calls = 0

    def failing(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1 and written:
            return real_write(fd, bytes(data)[:written])
        raise OSError(number, os.strerror(number))

    before = contents(database)
    monkeypatch.setattr(wal_module.os, "write", failing)
    with pytest.raises(StoreError):
        fill(database, 1, first=3)
    monkeypatch.setattr(wal_module.os, "write", real_write)
    assert contents(database) == before
    fill(database, 3, first=3)
    after = contents(database)
    abandon(database)
    assert contents(Database(tmp_path)) == after


def test_after_a_failed_sync_writes_go_to_a_new_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path)
    fill(database, 3)

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(wal_module.os, "fdatasync", failing)
        with pytest.raises(StoreError, match="syncing"):
            database.wal.sync()
    fill(database, 3, first=3)
    assert database.wal.number == 2
    after = contents(database)
    abandon(database)
    assert contents(Database(tmp_path)) == after


def test_a_segment_that_is_full_is_followed_by_another_whole_in_itself(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.wal.segment_bytes = 4_000
    fill(database, 40)
    before = contents(database)
    abandon(database)
    assert len(segment_numbers(tmp_path / "wal")) > 2
    assert contents(Database(tmp_path)) == before


def test_segments_behind_the_horizon_are_deleted_oldest_first(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.wal.segment_bytes = 10_000
    fill(database, 400)
    numbers = segment_numbers(tmp_path / "wal")
    database.maintain(START_MS + 400 * INTERVAL_MS)
    left = segment_numbers(tmp_path / "wal")
    assert 0 < len(left) < len(numbers) and left == numbers[-len(left) :]


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with pytest.raises(StoreError, match="in use by another process"):
        Database(tmp_path)
    database.close()
    Database(tmp_path).close()
