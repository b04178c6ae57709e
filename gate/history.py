"""What a client sends and what was acknowledged.

Every value follows from its series and its round, so that a history of millions of samples is a few bitmaps. No part of
``flyball`` is used here.
"""

from pathlib import Path

import numpy as np

from gate.checker import Series, read_store
from gate.report import demand

INTERVAL_MS = 15_000
START_MS = 1_699_999_200_000


def labels(target: int, number: int) -> Series:
    """The series: a few dozen metrics, a target, and a number."""
    return (("__name__", f"gate_metric_{number % 20}"), ("number", str(number)), ("target", f"target-{target}"))


def values(target: int, series: int, row: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """The values of all series of a target in a round: constants, counters, decimals, and noise."""
    n = np.arange(series, dtype=np.int64)
    kinds = [n + target, row * (n + 1), row * 7 + n, (row * 2654435761 + n * 40503 + target) % 65536]
    return np.choose(n % 4, [kinds[0] / 1.0, kinds[1] / 1.0, kinds[2] / 100.0, kinds[3] / 3.0])


def at_ms(target: int, row: int) -> int:
    """The time of a target's round."""
    return START_MS + row * INTERVAL_MS + target % 1000


class History:
    """What was acknowledged, and the comparison of a store's files with it."""

    def __init__(self, targets: int, series: int) -> None:
        self.targets, self.series = targets, series
        self.acked: list[set[int]] = [set() for _ in range(targets)]
        self.refused = 0
        #: Rounds that may be there although they are not acknowledged, if more than one.
        self.sent_rows = 0

    @property
    def samples(self) -> int:
        """Acknowledged samples."""
        return self.series * sum(map(len, self.acked))

    def next_row(self) -> int:
        """A round that nothing was sent for yet: one unacknowledged round may lie between."""
        return max((max(rows) for rows in self.acked if rows), default=-2) + 2

    def compare(self, directory: Path) -> "Comparison":
        """Reads every file of the store by the independent checker.

        Raises:
            GateError: an acknowledged sample is not there, or one that nobody sent is.
        """
        top = max(self.next_row() + 1, self.sent_rows)
        seen = np.zeros((self.targets, top, self.series), np.bool_)
        expected: dict[tuple[int, int], list[int]] = {}
        known: dict[Series, tuple[int, int]] = {}
        wrong: list[str] = []

        def take(series: Series, time_ms: int, bits: int) -> None:
            place = known.get(series)
            if place is None:
                found = dict(series)
                place = known[series] = (int(found["target"].split("-")[1]), int(found["number"]))
            target, number = place
            row = (time_ms - START_MS) // INTERVAL_MS
            if not 0 <= row < top or at_ms(target, row) != time_ms:
                wrong.append(f"{dict(series)} has a sample at {time_ms} that nobody sent")
                return
            wanted = expected.get((target, row))
            if wanted is None:
                if len(expected) > 4096:
                    expected.clear()
                wanted = expected[target, row] = values(target, self.series, row).view(np.uint64).tolist()
            if wanted[number] != bits:
                wrong.append(f"{dict(series)} at {time_ms} is {bits:x}, sent was {wanted[number]:x}")
            seen[target, row, number] = True

        store = read_store(directory, take)
        demand(not wrong, f"{len(wrong)} samples are not what was sent, first: {wrong[:1]}")
        lost = sum(int((~seen[target, row]).sum()) for target, rows in enumerate(self.acked) for row in rows)
        demand(lost == 0, f"{lost} of {self.samples} acknowledged samples are lost")
        extra = int(seen.sum()) - self.samples
        return Comparison(self.samples, extra, store.records, store.blocks)


class Comparison:
    """What a comparison found: acknowledged samples (all there), unacknowledged ones, log records, blocks."""

    def __init__(self, samples: int, extra: int, records: int, blocks: int) -> None:
        self.samples, self.extra, self.records, self.blocks = samples, extra, records, blocks
