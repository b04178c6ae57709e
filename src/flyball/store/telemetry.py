"""The store's figures for our own /metrics, under Prometheus' names where Prometheus has them."""

from collections.abc import Iterator
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Counted(Protocol):
    """A store that counts what it does."""

    def statistics(self) -> dict[str, Any]: ...


#: (metric, key of ``statistics``, what it is, divisor)
_GAUGES = (
    ("prometheus_tsdb_head_series", "series", "Series in the head.", 1),
    ("prometheus_tsdb_head_min_time", "min_time_ms", "The oldest sample in the head, ms.", 1),
    ("prometheus_tsdb_head_max_time", "max_time_ms", "The newest sample in the head, ms.", 1),
    ("prometheus_tsdb_head_min_time_seconds", "min_time_ms", "The oldest sample in the head.", 1000),
    ("prometheus_tsdb_head_max_time_seconds", "max_time_ms", "The newest sample in the head.", 1000),
    ("prometheus_tsdb_lowest_timestamp_seconds", "lowest_time_ms", "The oldest sample of the store.", 1000),
    ("prometheus_tsdb_blocks_loaded", "blocks", "Blocks that queries read.", 1),
    ("prometheus_tsdb_storage_blocks_bytes", "blocks_bytes", "Bytes of all blocks.", 1),
    ("prometheus_tsdb_wal_storage_size_bytes", "wal_bytes", "Bytes of the write-ahead log.", 1),
    ("prometheus_tsdb_wal_segment_current", "wal_segment", "The segment that is written to.", 1),
    ("prometheus_tsdb_retention_limit_bytes", "retention_bytes", "Blocks and log may be this large, 0: no limit.", 1),
    ("prometheus_tsdb_retention_limit_seconds", "retention_limit_ms", "Samples are kept so long, 0: no limit.", 1000),
    ("flyball_tsdb_head_bytes", "bytes", "Memory of the samples and series in the head.", 1),
    ("flyball_tsdb_head_limit_bytes", "memory_limit_bytes", "New series are refused above this.", 1),
    ("flyball_tsdb_cache_bytes", "cache_bytes", "Decoded parts of blocks kept in memory.", 1),
    ("flyball_tsdb_blocks_broken", "blocks_broken", "Blocks that cannot be read and are left out.", 1),
    ("flyball_tsdb_disk_full", "disk_full", "1 while ingest is refused for want of space.", 1),
)
_COUNTERS = (
    ("prometheus_tsdb_head_samples_appended_total", "samples_appended_total", "Samples taken."),
    ("prometheus_tsdb_out_of_order_samples_total", "out_of_order_samples_total", "Samples refused as too late."),
    ("prometheus_tsdb_wal_writes_failed_total", "wal_failures_total", "Writes of the log that the disk refused."),
    ("prometheus_tsdb_wal_corruptions_total", "wal_damaged_segments_total", "Damaged segments met on start."),
    ("prometheus_tsdb_wal_truncations_total", "wal_segments_deleted_total", "Segments deleted, for blocks have them."),
    ("prometheus_tsdb_compactions_total", "compactions_total", "Compactions of blocks."),
    ("prometheus_tsdb_compactions_failed_total", "maintenance_failures_total", "Sealings and compactions that failed."),
    ("prometheus_tsdb_data_replay_samples_total", "replayed_samples_total", "Samples read from the log on start."),
    ("flyball_tsdb_duplicate_samples_total", "duplicate_samples_total", "Samples that were there already."),
    ("flyball_tsdb_refused_series_total", "refused_series_total", "New series refused by the memory limit."),
    ("flyball_tsdb_seals_total", "seals_total", "Ranges moved from the head to blocks."),
    ("flyball_tsdb_cache_hits_total", "cache_hits_total", "Parts of blocks found decoded."),
    ("flyball_tsdb_cache_misses_total", "cache_misses_total", "Parts of blocks read and decoded."),
    ("flyball_tsdb_wal_written_bytes_total", "wal_written_bytes_total", "Bytes written to the log."),
)


class StoreCollector:
    """For ``prometheus_client.REGISTRY.register``. A figure that the store does not have is left out."""

    def __init__(self, store: Counted) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        found = self._store.statistics()
        for name, key, about, divisor in _GAUGES:
            if found.get(key) is not None:
                yield GaugeMetricFamily(name, about, value=found[key] / divisor)
        for name, key, about in _COUNTERS:
            if found.get(key) is not None:
                yield CounterMetricFamily(name, about, value=found[key])

    def describe(self) -> list[Metric]:
        """Nothing: names are not checked at registration, so no figure is gathered for it."""
        return []
