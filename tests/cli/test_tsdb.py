"""``flyball tsdb`` on a store of two hours, blocks and head."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flyball.cli.tsdb import command
from flyball.model.labels import labels_of
from flyball.store import Database, Plan

START_MS = 1_699_999_200_000
ROUNDS = 150


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pods, two metrics, a value with a quote."""
    directory = tmp_path_factory.mktemp("tsdb")
    database = Database(directory)
    for pod in range(10):
        writer = database.head.writer("web", 60_000, pod)
        sets = [
            labels_of({"__name__": name, "pod": f"p{pod}", "path": '/a"b'})
            for name in ("http_requests_total", "queue.length")
        ]
        plan = Plan(writer.refs(sets))
        for round_ in range(ROUNDS):
            assert writer.commit(START_MS + round_ * 60_000, plan, np.array([round_ * pod, 0.25 * round_]))
    database.maintain(START_MS + ROUNDS * 60_000)
    assert database.blocks
    database.close()
    return directory


def run(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_each_block(store: Path) -> None:
    found = json.loads(run("list", "--storage", store, "-o", "json"))
    assert [row["series"] for row in found] == [20] * len(found)
    assert sum(row["samples"] for row in found) < 20 * ROUNDS
    assert "bytes_per_sample" in run("list", "--storage", store)


def test_analyze_counts_series(store: Path) -> None:
    found = json.loads(run("analyze", "--storage", store, "-o", "json"))
    assert found["series"] == 20
    assert found["series_by_metric"] == {"http_requests_total": 10, "queue.length": 10}
    assert found["values_by_label"]["pod"] == 10
    assert "pod=p3" in run("analyze", "--storage", store)


def test_dump_and_import_make_the_same_store(store: Path, tmp_path: Path) -> None:
    text = run("dump", "--storage", store)
    assert text.endswith("# EOF\n") and text.count("\n") == 20 * ROUNDS + 1
    path = tmp_path / "dump.om"
    path.write_text(text)
    out = run("import", path, "--storage", tmp_path / "copy")
    assert out.startswith(f"{20 * ROUNDS} samples of 20 series in 2 blocks")
    assert run("dump", "--storage", tmp_path / "copy") == text


def test_dump_selects(store: Path) -> None:
    start, end = START_MS // 1000 + 60, START_MS // 1000 + 180
    selector = '{__name__="queue.length",pod="p1"}'
    lines = run("dump", "--storage", store, "--match", selector, "--start", start, "--end", end, "--match", selector)
    name = '{"queue.length",path="/a\\"b",pod="p1"}'
    assert lines.splitlines() == [
        f"{name} 0.25 {start}.000",
        f"{name} 0.5 {start + 60}.000",
        f"{name} 0.75 {start + 120}.000",
        "# EOF",
    ]


def test_export_is_parquet_with_a_column_a_label(store: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    path = tmp_path / "out.parquet"
    assert run("export", path, "--storage", store).startswith(f"{20 * ROUNDS} samples")
    table = parquet.read_table(path)
    assert table.column_names == ["timestamp", "value", "__name__", "path", "pod"]
    assert table.num_rows == 20 * ROUNDS
    rows = [
        row
        for row in table.to_pylist()
        if row["pod"] == "p7" and row["__name__"] == "http_requests_total" and row["value"] == 7 * 149
    ]
    assert [row["timestamp"].timestamp() * 1000 for row in rows] == [START_MS + 149 * 60_000]


def test_it_reads_beside_a_process_that_writes(store: Path) -> None:
    database = Database(store)
    try:
        assert json.loads(run("list", "--storage", store, "-o", "json"))
        result = CliRunner().invoke(command, ["import", __file__, "--storage", str(store)])
        assert result.exit_code
    finally:
        database.close()
