"""Samples of single series from several places, and frames made of them."""

from collections.abc import Iterable

import numpy as np

from flyball.model.frames import ABSENT_BITS, Floats, Frame, Times, is_absent
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.store.matrix import BEFORE

#: (times, values) of one series.
Piece = tuple[Times, Floats]


def merged(pieces: Iterable[Piece], start_ms: int, end_ms: int) -> Piece:
    """The samples of a series in start < t <= end; at equal times the first piece wins."""
    cut = []
    for times, values in pieces:
        # Times first, and copied: a scrape may land between the two reads, and its values come before its time.
        times = times.copy()
        values = values.copy()
        wanted = (times > start_ms) & (times <= end_ms) & ~is_absent(values)
        cut.append((times[wanted], values[wanted]))
    if len(cut) == 1:
        return cut[0]
    times = np.concatenate([piece[0] for piece in cut])
    values = np.concatenate([piece[1] for piece in cut])
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    fresh = np.ones(len(times), np.bool_)
    fresh[1:] = times[1:] != times[:-1]
    return times[fresh], values[fresh]


def frames_of(
    found: Iterable[tuple[Labels, Piece]], histograms: dict[Labels, dict[int, Histogram]] | None = None
) -> list[Frame]:
    """Series with times of their own, in frames of about equal length, so that padding at most doubles them.

    Args:
        histograms: by series and time, for those samples that are histograms.
    """
    buckets: dict[int, list[tuple[Labels, Times, Floats]]] = {}
    for labels, (times, values) in found:
        if len(times):
            buckets.setdefault(len(times).bit_length(), []).append((labels, times, values))
    frames = []
    for members in buckets.values():
        rows = max(len(times) for _, times, _ in members)
        times_ms = np.full((rows, len(members)), BEFORE, np.int64)
        matrix = np.full((rows, len(members)), ABSENT_BITS, np.uint64)
        table = None
        for column, (labels, times, values) in enumerate(members):
            times_ms[rows - len(times) :, column] = times
            matrix[rows - len(times) :, column] = values.view(np.uint64)
            for row, histogram in _cells(histograms, labels, times_ms[:, column]):
                if table is None:
                    table = np.full((rows, len(members)), None, object)
                table[row, column] = histogram
        frames.append(
            Frame(
                labels=tuple([labels for labels, _, _ in members]),
                times_ms=times_ms,
                target=np.arange(len(members), dtype=np.int32),
                values=matrix.view(np.float64),
                histograms=table,
            )
        )
    return frames


def _cells(
    histograms: dict[Labels, dict[int, Histogram]] | None, labels: Labels, times: Times
) -> Iterable[tuple[int, Histogram]]:
    by_time = histograms.get(labels) if histograms else None
    if by_time:
        for row, at_ms in enumerate(times.tolist()):
            histogram = by_time.get(at_ms)
            if histogram is not None:
                yield row, histogram
