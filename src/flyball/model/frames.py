"""Frames: all that PromQL sees of a store.

A frame is a slice of one matrix of the store: rows are scrape rounds, columns are series. Two NaN bit
patterns are reserved: ABSENT (no sample in this row) and STALE (Prometheus' staleness marker). Any other
NaN is an ordinary value. Never compute with a frame's values before masking both.

Native histograms lie beside the matrix: where ``histograms`` holds one, ``values`` holds its count, so that a
cell is ABSENT or STALE for floats and histograms alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.model.labels import Labels

STALE_BITS = np.uint64(0x7FF0000000000002)
ABSENT_BITS = np.uint64(0x7FF000000000FB01)

STALE = STALE_BITS.view(np.float64)
ABSENT = ABSENT_BITS.view(np.float64)

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int32]
Histograms = NDArray[np.object_]


def is_absent(values: Floats) -> Mask:
    """True where there is no sample."""
    mask: Mask = values.view(np.uint64) == ABSENT_BITS
    return mask


def is_stale(values: Floats) -> Mask:
    """True where the sample is a staleness marker."""
    mask: Mask = values.view(np.uint64) == STALE_BITS
    return mask


def has_histogram(table: Histograms) -> Mask:
    """True where a table of native histograms holds one."""
    mask: Mask = np.not_equal(table, None)  # type: ignore[call-overload]
    return mask


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Selected series of one matrix.

    Attributes:
        labels: one label set a column, metric name included; length n.
        times_ms: [rows, targets], ms since the epoch. Within a column of targets the times of rows that hold
            a sample ascend strictly; a row in which a target was not scraped may hold any number not above
            the next row's, and all its values are ABSENT.
        target: [n], the column of ``times_ms`` that dates each series.
        values: [rows, n] float64, C or F order, maybe a view of the store: read-only.
        histograms: [rows, n] of ``model.histograms.Histogram``, None where the sample is a float; or None when
            all samples are.
        starts_ms: [rows, n], since when each sample counts (OpenMetrics' created time), 0 where that is not
            known; or None when it is known of none.
    """

    labels: tuple[Labels, ...]
    times_ms: Times
    target: Codes
    values: Floats
    histograms: Histograms | None = None
    starts_ms: Times | None = None
