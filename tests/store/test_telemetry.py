"""What the store says of itself."""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from tests.store.model import START_MS, Driver

from flyball.store import StoreCollector


def test_figures_under_prometheus_names(tmp_path: Path) -> None:
    driver = Driver(tmp_path, 1)
    for _ in range(10):
        for _ in range(13):
            driver.scrape()
        driver.maintain()
    registry = CollectorRegistry()
    registry.register(StoreCollector(driver.database))
    lines = dict(
        line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")
    )
    samples = sum(map(len, driver.model.values()))
    assert float(lines["prometheus_tsdb_head_samples_appended_total"]) == samples
    assert float(lines["prometheus_tsdb_head_series"]) == len(driver.model)
    assert float(lines["prometheus_tsdb_blocks_loaded"]) == len(driver.database.blocks) > 0
    assert START_MS <= 1000 * float(lines["prometheus_tsdb_lowest_timestamp_seconds"]) < START_MS + 2000
    assert float(lines["prometheus_tsdb_storage_blocks_bytes"]) > 0
    assert float(lines["prometheus_tsdb_wal_truncations_total"]) > 0
    assert float(lines["flyball_tsdb_disk_full"]) == 0


def test_a_figure_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(StoreCollector(Driver(tmp_path, 1).database))
    assert "prometheus_tsdb_head_max_time" not in generate_latest(registry).decode()
