"""Head, log and blocks together against a dict: whatever happens, a query sees each sample once."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.store.model import INTERVAL_MS, START_MS, Driver, contents

from flyball.errors import StoreError
from flyball.model.labels import Matcher, MatchType, MetricLabels, labels_of
from flyball.store import Database, Plan
from flyball.store.compaction import next_compaction

HOUR_MS = 3_600_000


def equal(name: str, value: str) -> Matcher:
    return Matcher(MatchType.EQUAL, name, value)


def run(driver: Driver, rounds: int, *, late: bool = False) -> None:
    for _ in range(rounds):
        driver.scrape()
        pick = driver.rng.random()
        if pick < 0.03:
            driver.churn()
        if late and pick < 0.2:
            driver.late()
        if pick > 0.9:
            driver.maintain()
        if pick > 0.97:
            driver.restart()


@pytest.mark.parametrize("seed", range(3))
def test_a_day_of_scrapes_churn_and_restarts(tmp_path: Path, seed: int) -> None:
    driver = Driver(tmp_path, seed)
    for _ in range(8):
        run(driver, 60)
        driver.check()
    statistics = driver.database.statistics()
    assert statistics["blocks"] >= 2 and statistics["sealed_ms"]
    driver.restart()
    driver.check()


@pytest.mark.parametrize("seed", [0, 3])
def test_late_samples_find_their_place(tmp_path: Path, seed: int) -> None:
    driver = Driver(tmp_path, seed, out_of_order_ms=3 * HOUR_MS)
    for _ in range(6):
        run(driver, 60, late=True)
        driver.check()
    driver.restart()
    driver.check()


def test_a_series_that_moves_between_groups_stays_one(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 1)
    moved = labels_of({"__name__": "moved"})
    for round_ in range(400):
        slow, fast = (driver.database.head.writer("job", interval, "mover") for interval in (INTERVAL_MS, 15_000))
        writer, other = (slow, fast) if round_ // 40 % 2 else (fast, slow)
        other.close()
        assert writer.commit(driver.now_ms, Plan(writer.refs([moved])), np.array([float(round_)]))
        driver.take(moved, driver.now_ms, float(round_))
        driver.round += 1
        if round_ % 30 == 29:
            driver.maintain()
            assert contents(driver.database) == driver.model
    driver.restart()
    driver.check()


def test_deleted_samples_stay_deleted(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 2)
    run(driver, 300)
    start_ms, end_ms = START_MS + HOUR_MS, driver.now_ms - HOUR_MS // 2
    driver.database.delete_series([[equal("__name__", "metric_1"), equal("n", "1")]], start_ms, end_ms)
    for labels, samples in driver.model.items():
        if dict(labels)["__name__"] == "metric_1" and dict(labels).get("n") == "1":
            for at_ms in [at for at in samples if start_ms <= at <= end_ms]:
                del samples[at_ms]
    driver.check()
    driver.restart()
    driver.check()
    before = driver.database.statistics()["blocks_bytes"]
    assert driver.database.clean_tombstones() > 0
    assert driver.database.statistics()["blocks_bytes"] < before
    driver.check()
    run(driver, 200)
    driver.check()


def test_labels_are_known_from_blocks_too(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 3)
    run(driver, 300)
    driver.churn()
    driver.maintain()
    database = driver.database
    assert database.label_names() == ["__name__", "n", "pod", "r"]
    assert database.label_values("__name__") == ["metric_0", "metric_1", "metric_2", "rule", "sizes"]
    everything = sorted(driver.model)
    assert database.series([()], START_MS - 1, driver.now_ms) == everything
    rules = [[equal("__name__", "rule")]]
    assert database.label_values("r", rules, START_MS, driver.now_ms) == ["0", "1", "2"]
    assert database.label_names(rules, START_MS, START_MS + HOUR_MS) == ["__name__", "r"]


def test_retention_by_time_and_by_size(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 4, retention_ms=4 * HOUR_MS)
    run(driver, 600)
    driver.maintain()
    oldest = min(block.max_ms for block in driver.database.blocks)
    assert oldest >= driver.now_ms - 4 * HOUR_MS
    kept = {at for samples in contents(driver.database).values() for at in samples}
    assert min(kept) < driver.now_ms - 3 * HOUR_MS
    sizes = [block.size for block in driver.database.blocks]
    driver.database.retention_bytes = driver.database.wal.bytes_on_disk() + sum(sizes) - 1
    driver.maintain()
    assert len(driver.database.blocks) == len(sizes) - 1


def test_the_log_is_cut_when_blocks_have_its_samples(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 5)
    sizes = []
    for _ in range(8):
        for _ in range(60):
            driver.scrape()
        driver.maintain()
        sizes.append(driver.database.statistics()["wal_bytes"])
    assert max(sizes[3:]) < 1.5 * sizes[2]


def test_short_of_memory_it_seals_once_a_minute_not_at_every_look(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 0)
    run(driver, 60)
    driver.maintain()
    database, seals = driver.database, driver.database.seals
    looks = []
    for second in range(300):
        database.head.wants_sealing = database.head.pressed = True  # as each new row sets it
        now_ms = driver.now_ms + second * 1000
        if database.can_seal(now_ms):
            looks.append(second)
            database.maintain(now_ms)
    assert 3 <= len(looks) <= 6 and database.seals - seals >= len(looks)
    assert contents(database) == driver.model


def test_a_snapshot_is_a_store(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "store", 6)
    run(driver, 200)
    where = driver.database.snapshot("monday")
    copied = Database(where)
    assert contents(copied) == driver.model
    with pytest.raises(StoreError, match="snapshot"):
        driver.database.snapshot("monday")


def test_a_crash_between_a_compaction_and_its_end(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 7)
    kept: dict[Path, bytes] = {}
    for _ in range(10):
        for _ in range(20):
            driver.scrape()
        kept |= {block.path: block.path.read_bytes() for block in driver.database.blocks}
        driver.maintain()
    assert driver.database.compactions
    for path, data in kept.items():
        path.write_bytes(data)
    (tmp_path / "blocks" / "00000099.block.tmp").write_bytes(b"half")
    before = {block.number for block in driver.database.blocks}
    driver.restart()
    assert {block.number for block in driver.database.blocks} == before
    assert not list((tmp_path / "blocks").glob("*.tmp"))
    driver.check()


def test_a_damaged_block_is_named_and_the_others_answer(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 8)
    run(driver, 400)
    driver.maintain()
    first, last = driver.database.blocks[0], driver.database.blocks[-1]
    data = bytearray(first.path.read_bytes())
    data[len(data) // 2] ^= 255
    first.path.write_bytes(data)
    driver.restart()
    with pytest.raises(StoreError, match=f"{first.path.name} is damaged"):
        contents(driver.database)
    assert contents(driver.database, (), last.min_ms, last.max_ms)
    first.path.write_bytes(data[:100])
    driver.restart()
    assert driver.database.statistics()["blocks_broken"] == 1
    assert contents(driver.database)


def test_a_disk_that_refuses_a_block_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(tmp_path, 9)
    for _ in range(130):
        driver.scrape()

    def failing(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StoreError, match="writing block"):
            driver.maintain()
    driver.check()
    driver.scrape()
    driver.maintain()
    assert driver.database.blocks
    driver.check()


class Span:
    def __init__(self, min_ms: int, max_ms: int) -> None:
        self.min_ms, self.max_ms = min_ms, max_ms


def test_compaction_is_planned_by_aligned_ranges() -> None:
    half = HOUR_MS // 2
    small = [Span(n * half, (n + 1) * half - 1) for n in range(10)]
    assert next_compaction(small, 5 * HOUR_MS, None) == small[:4]
    assert next_compaction(small[1:3], 5 * HOUR_MS, None) == small[1:3]
    assert next_compaction(small[:4], HOUR_MS, None) == []  # the range is not over
    assert next_compaction(small[:1], 5 * HOUR_MS, None) == []
    large = [Span(n * 2 * HOUR_MS, (n + 1) * 2 * HOUR_MS - 1) for n in range(4)]
    assert next_compaction(large, 8 * HOUR_MS, None) == large
    assert next_compaction(large, 8 * HOUR_MS, 24 * HOUR_MS) == []  # larger than a tenth of the retention


@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS, -365 * 24 * HOUR_MS, 365 * 24 * HOUR_MS])
def test_scraping_goes_on_when_the_clock_jumps_and_comes_back(tmp_path: Path, jump_ms: int) -> None:
    driver = Driver(tmp_path, 10, retention_ms=None)
    jumped = 0

    def rounds(count: int) -> None:
        taken = 0
        for round_ in range(count):
            now_ms = driver.now_ms + jumped
            driver.round += 1
            writer = driver.database.head.writer("job", INTERVAL_MS, "one")
            one = labels_of({"__name__": "one"})
            try:
                took = writer.commit(now_ms, Plan(writer.refs([one])), np.array([float(driver.round)]))
            except StoreError:
                took = False
            if took:
                taken += 1
                driver.take(one, now_ms, float(driver.round))
            elif round_ >= 2:
                pytest.fail(f"round {round_} after the jump was refused")
            driver.database.maintain(now_ms)
        assert taken >= count - 2

    rounds(30)
    assert len(driver.model[labels_of({"__name__": "one"})]) == 30
    jumped = jump_ms + 7_000  # no sample has the time of another
    rounds(20)
    assert contents(driver.database) == driver.model
    jumped = 0
    rounds(200)
    assert contents(driver.database) == driver.model
    assert driver.database.head.statistics()["bytes"] < 1 << 20
    driver.restart()
    assert contents(driver.database) == driver.model
    rounds(30)
    assert contents(driver.database) == driver.model


def test_exemplars_and_metadata_survive_restarts_and_the_end_of_their_segment(tmp_path: Path) -> None:
    database = Database(tmp_path)
    series, own = labels_of({"__name__": "a"}), (("trace", "x"),)
    database.head.describe({"a": ("counter", "Said of a.", "")})
    database.head.append_exemplars([(series, own, 1.0, START_MS), (series, own, 2.0, START_MS - 1)])
    database.head.append_exemplars([(series, own, 1.0, START_MS + 5), (series, own, 3.0, START_MS + 9)])
    for _ in range(3):
        database.close()
        database = Database(tmp_path)
        database.wal.rotate()
        database.head.append(series, START_MS, 1.0)
    kept = database.head.exemplars.select([[]], 0, START_MS * 2)
    assert kept == [(series, [(own, 1.0, START_MS), (own, 3.0, START_MS + 9)])]
    database.close()
    for path in sorted((tmp_path / "wal").iterdir())[:-2]:
        path.unlink()  # as when blocks have all samples of these segments
    database = Database(tmp_path)
    assert database.head.metadata == {"a": ("counter", "Said of a.", "")}
    database.close()


@pytest.mark.parametrize("matchers", [[], [equal("code", "200")]])
def test_labels_stay_the_very_same(tmp_path: Path, matchers: list[Matcher]) -> None:
    """By their identity a query remembers how it grouped them: across blocks and the head, and in the next query."""
    database = Database(tmp_path)
    writer = database.head.writer("job", INTERVAL_MS, "target")
    named = [labels_of({"__name__": "m", "code": code, "path": path}) for code in ("200", "500") for path in "abc"]
    plan = Plan(writer.refs(named))
    for round_ in range(2 * HOUR_MS // INTERVAL_MS):
        at_ms = START_MS + round_ * INTERVAL_MS
        assert writer.commit(at_ms, plan, np.arange(6.0))
        if round_ % 20 == 19:
            database.maintain(at_ms)
    assert database.statistics()["blocks"]
    asked = [database.select([equal("__name__", "m"), *matchers], START_MS - 1, START_MS + 2 * HOUR_MS) for _ in "ab"]
    (first,), (second,) = asked
    assert first.labels == tuple(labels for labels in named if not matchers or ("code", "200") in labels)
    assert first.labels is second.labels and isinstance(first.labels, MetricLabels)
    firsts, numbers = first.labels.groups(["path"], False)
    assert [dict(first.labels[i])["path"] for i in firsts.tolist()] == ["a", "b", "c"]
    assert numbers.tolist() == [0, 1, 2] * (len(first.labels) // 3)
    database.close()
