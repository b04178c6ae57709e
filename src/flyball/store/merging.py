"""One answer from several sources: blocks and the head, each with its own frames. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyball.model.frames import ABSENT_BITS, Codes, Floats, Frame, Histograms
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.store.matrix import BEFORE, NOT_YET
from flyball.store.pieces import Piece, frames_of, merged

_Index = NDArray[np.intp]


class _Part(NamedTuple):
    """Columns of one frame."""

    frame: Frame
    columns: _Index


def merge(sources: Sequence[Sequence[Frame]], start_ms: int, end_ms: int) -> list[Frame]:
    """Frames with every series of the sources once.

    Args:
        sources: oldest first; within a source each series is in one frame. Where sources overlap in time and both
            have a sample, the first one's is taken.
    """
    sources = [frames for frames in sources if frames]
    if len(sources) < 2:
        return list(sources[0]) if sources else []
    found = []
    for names, parts in _together(sources):
        stacked = _stacked(names, parts)
        found += [stacked] if stacked is not None else _interleaved(names, parts, start_ms, end_ms)
    return found


def _together(sources: Sequence[Sequence[Frame]]) -> Iterator[tuple[tuple[Labels, ...], list[_Part]]]:
    """Series that are in the same frames, and these. Where all series are in one frame of every source, the very tuple
    of labels of the first is given, by which queries remember what they made of it."""
    first = sources[0][0].labels
    if all(len(frames) == 1 and (frames[0].labels is first or frames[0].labels == first) for frames in sources):
        yield first, [_Part(frames[0], np.arange(len(first))) for frames in sources]
        return
    labels, frame_of, column_of = _located(sources)
    signatures, members = np.unique(frame_of, axis=0, return_inverse=True)
    for index, signature in enumerate(signatures):
        ids = np.flatnonzero(members.reshape(-1) == index)
        parts = [
            _Part(sources[source][frame], column_of[ids, source])
            for source, frame in enumerate(signature.tolist())
            if frame >= 0
        ]
        yield tuple([labels[id_] for id_ in ids.tolist()]), parts


def _located(sources: Sequence[Sequence[Frame]]) -> tuple[list[Labels], _Index, _Index]:
    """All series, and for each [series, source] the frame and the column where it is, -1 for none."""
    ids: dict[Labels, int] = {}
    known: list[tuple[tuple[Labels, ...], _Index]] = []
    located: list[list[_Index]] = []
    for frames in sources:
        here = []
        for frame in frames:
            # Blocks of one job mostly have the very same series; comparing is far cheaper than hashing.
            same = next((found for labels, found in known if labels is frame.labels or labels == frame.labels), None)
            if same is None:
                same = np.array([ids.setdefault(labels, len(ids)) for labels in frame.labels], np.intp)
                known.append((frame.labels, same))
            here.append(same)
        located.append(here)
    frame_of = np.full((len(ids), len(sources)), -1, np.intp)
    column_of = np.zeros((len(ids), len(sources)), np.intp)
    for source, here in enumerate(located):
        for index, found in enumerate(here):
            frame_of[found, source] = index
            column_of[found, source] = np.arange(len(found))
    return list(ids), frame_of, column_of


def _stacked(labels: tuple[Labels, ...], parts: Sequence[_Part]) -> Frame | None:
    """The parts one below the other; None when they overlap in time."""
    code = parts[0].frame.target[parts[0].columns].astype(np.int64)
    for part in parts[1:]:
        code = code * part.frame.times_ms.shape[1] + part.frame.target[part.columns]
        if part.frame.times_ms.shape[1] > 1 << 15:  # keep the mixed radix within 63 bits
            code = np.unique(code, return_inverse=True)[1].reshape(-1)
    _, first, target = np.unique(code, return_index=True, return_inverse=True)
    times = [part.frame.times_ms[:, part.frame.target[part.columns[first]]] for part in parts]
    newest = np.full(len(first), BEFORE, np.int64)
    for table in times:
        oldest = np.where(table == BEFORE, NOT_YET, table).min(axis=0, initial=NOT_YET)
        if (oldest <= newest).any():
            return None
        newest = np.maximum(newest, np.where(table == NOT_YET, BEFORE, table).max(axis=0, initial=BEFORE))
    rows = sum(len(table) for table in times)
    values = np.empty((rows, len(labels)), np.float64)
    at = 0
    for part in parts:
        count = len(part.frame.values)
        values[at : at + count] = _taken(part.frame.values, part.columns)
        at += count
    return Frame(
        labels=labels,
        times_ms=np.maximum.accumulate(np.concatenate(times), axis=0),
        target=target.reshape(-1).astype(np.int32),
        values=values,
        histograms=_histograms(parts, rows, len(labels)),
    )


def _taken(values: Floats, columns: _Index) -> Floats:
    if len(columns) == values.shape[1] and (columns == np.arange(len(columns))).all():
        return values
    return values[:, columns]


def _histograms(parts: Sequence[_Part], rows: int, columns: int) -> Histograms | None:
    if all(part.frame.histograms is None for part in parts):
        return None
    table: Histograms = np.full((rows, columns), None, object)
    at = 0
    for part in parts:
        count = len(part.frame.values)
        if part.frame.histograms is not None:
            table[at : at + count] = part.frame.histograms[:, part.columns]
        at += count
    return table


def _interleaved(labels: tuple[Labels, ...], parts: Sequence[_Part], start_ms: int, end_ms: int) -> list[Frame]:
    """Series whose samples lie between each other."""
    histograms: dict[Labels, dict[int, Histogram]] = {}
    found: list[tuple[Labels, Piece]] = []
    for index, name in enumerate(labels):
        pieces = []
        for frame, columns in parts:
            column = int(columns[index])
            times = frame.times_ms[:, frame.target[column]]
            pieces.append((times, np.ascontiguousarray(frame.values[:, column])))
            if frame.histograms is not None:
                for row in np.flatnonzero(frame.histograms[:, column]).tolist():
                    histograms.setdefault(name, {}).setdefault(int(times[row]), frame.histograms[row, column])
        found.append((name, merged(pieces, start_ms, end_ms)))
    return frames_of(found, histograms)


def after(frame: Frame, sealed_ms: int) -> Frame | None:
    """The frame without its samples before ``sealed_ms``; None when nothing is left."""
    old = frame.times_ms < sealed_ms
    first = int(np.argmin(old.all(axis=1))) if len(old) else 0
    if not len(old) or old.all():
        return None
    times, values, old = frame.times_ms[first:], frame.values[first:], old[first:]
    histograms = frame.histograms[first:] if frame.histograms is not None else None
    mixed = np.flatnonzero(old.any(axis=1))
    if len(mixed):
        times = np.where(old, BEFORE, times)
        last = int(mixed[-1]) + 1
        bits: Codes | NDArray[np.uint64] = values.view(np.uint64).copy()
        bits[:last][old[:last][:, frame.target]] = ABSENT_BITS
        values = bits.view(np.float64)
    return Frame(frame.labels, times, frame.target, values, histograms, frame.starts_ms)
