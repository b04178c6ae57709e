"""The format on disk is frozen: what version 1 wrote is read by every later version, sample by sample.

``python -m tests.store.test_format DIRECTORY`` writes such a directory anew, for a version to come.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.store.model import START_MS, Driver, History, contents

from flyball.errors import StoreError
from flyball.model.histograms import Histogram
from flyball.model.labels import Matcher, MatchType, labels_of
from flyball.store import Database

FROZEN = Path(__file__).parent / "format-1"
OPTIONS: dict[str, Any] = {"out_of_order_ms": 3 * 3_600_000, "retention_ms": None}
SERIES = labels_of({"__name__": "rule", "r": "0"})
EXEMPLARS = [(SERIES, [((("trace", "x"),), 1.5, START_MS + 7)])]
METADATA = {"rule": ("gauge", "Said of it.", "seconds")}


def as_json(history: History) -> list[Any]:
    """Series by series: its labels, and [time, value] of each sample."""
    return [[labels, list(samples.items())] for labels, samples in sorted(history.items())]


def from_json(found: list[Any]) -> History:
    return {
        tuple(map(tuple, labels)): {
            at: msgspec.convert(value, Histogram, strict=False) if isinstance(value, dict) else value
            for at, value in samples
        }
        for labels, samples in found
    }


def write(directory: Path) -> None:
    """Blocks that were compacted, late ones, tombstones; a log that holds every type of record."""
    driver = Driver(directory / "store", 11, **OPTIONS)
    driver.database.head.describe(METADATA)
    for number in range(260):
        driver.scrape()
        if number % 40 == 17:
            driver.churn()
        if number % 30 == 7:
            driver.late()
        if number % 25 == 0:
            driver.maintain()
        if number in (120, 250):
            gone = (Matcher(MatchType.EQUAL, "n", "1"),)
            start_ms, end_ms = driver.now_ms - 7_200_000, driver.now_ms - 600_000
            driver.database.delete_series([gone], start_ms, end_ms)
            for labels, samples in driver.model.items():
                if ("n", "1") in labels:
                    driver.model[labels] = {at: v for at, v in samples.items() if not start_ms <= at <= end_ms}
    driver.database.head.append_exemplars([(SERIES, (("trace", "x"),), 1.5, START_MS + 7)])
    driver.check()
    driver.database.close()
    (directory / "expected.json").write_bytes(msgspec.json.encode(as_json(contents(driver.database))))


def test_what_version_1_wrote_is_read(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(FROZEN / "store", store)
    expected = from_json(msgspec.json.decode((FROZEN / "expected.json").read_bytes()))
    for _ in range(2):  # as it was written, and after it was opened once
        database = Database(store, **OPTIONS)
        assert contents(database) == expected
        assert database.head.exemplars.select([[]], 0, START_MS * 2) == EXEMPLARS
        assert database.head.metadata == METADATA
        assert database.replayed.unexplained == database.replayed.damaged_bytes == 0
        database.close()


def of_version_2(directory: Path, pattern: str, place: int) -> dict[Path, bytes]:
    """The sample with another version byte in these files."""
    shutil.copytree(FROZEN / "store", directory)
    for path in directory.glob(pattern):
        data = bytearray(path.read_bytes())
        data[place] = 2
        path.write_bytes(data)
    return {path: path.read_bytes() for path in directory.glob(pattern)}


def test_a_log_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    before = of_version_2(tmp_path / "store", "wal/*", 7)
    with pytest.raises(StoreError, match=r"format 2.*upgrade"):
        Database(tmp_path / "store", **OPTIONS)
    assert before and {path: path.read_bytes() for path in before} == before


def test_a_block_of_a_later_version_is_named_and_left_alone(tmp_path: Path) -> None:
    before = of_version_2(tmp_path / "store", "blocks/*.block", 6)
    database = Database(tmp_path / "store", **OPTIONS)
    assert database.statistics()["blocks_broken"] == len(before) > 0
    database.close()
    assert {path: path.read_bytes() for path in before} == before


if __name__ == "__main__":
    write(Path(sys.argv[1]))
