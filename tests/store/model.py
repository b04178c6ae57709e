"""A store that is only a dict, and a driver that does the same to it and to a real one."""

import os
import random
from pathlib import Path

import numpy as np

from flyball.model.frames import is_absent, is_stale
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels, labels_of
from flyball.store import Database, Plan

History = dict[Labels, dict[int, float | str | Histogram]]
INTERVAL_MS = 60_000
START_MS = 1_699_999_200_000  # a multiple of two hours


def contents(database, matchers=(), start_ms: int = 0, end_ms: int = 1 << 60) -> History:
    """Every sample that a query sees, staleness markers as the text "stale"."""
    found: History = {}
    for frame in database.select(list(matchers), start_ms, end_ms):
        values = np.ascontiguousarray(frame.values)
        absent, stale = is_absent(values), is_stale(values)
        assert (np.diff(frame.times_ms, axis=0) >= 0).all()
        assert frame.values.shape == (len(frame.times_ms), len(frame.labels))
        for column, labels in enumerate(frame.labels):
            assert labels not in found, "a series is in two frames"
            found[labels] = {}
            for row, at in enumerate(frame.times_ms[:, frame.target[column]].tolist()):
                if not absent[row, column] and start_ms < at <= end_ms:
                    assert at not in found[labels], "a sample is there twice"
                    found[labels][at] = "stale" if stale[row, column] else float(values[row, column])
                    histogram = frame.histograms[row, column] if frame.histograms is not None else None
                    if histogram is not None:
                        assert histogram.count == found[labels][at]
                        found[labels][at] = histogram
    return {labels: samples for labels, samples in found.items() if samples}


class Driver:
    """Scrapes, pushes, pods that come and go, late samples, deletions, restarts. The clock is its own."""

    def __init__(self, directory: Path, seed: int, **options) -> None:
        self.directory, self.options = directory, options
        self.rng = random.Random(seed)
        self.database = Database(directory, **options)
        self.model: History = {}
        self.round = 0
        self.pods = list(range(4))
        self.sizes = dict.fromkeys(self.pods, 6)
        self.next_pod = 4

    @property
    def now_ms(self) -> int:
        return START_MS + self.round * INTERVAL_MS

    def take(self, labels: Labels, at_ms: int, value: float | str | Histogram) -> None:
        self.model.setdefault(labels, {})[at_ms] = value

    def scrape(self) -> None:
        """One round of everything."""
        rng = self.rng
        for pod in self.pods:
            if rng.random() < 0.05:
                continue  # a missed scrape
            labels = [
                labels_of({"__name__": f"metric_{n % 3}", "pod": f"p{pod}", "n": str(n)})
                for n in range(self.sizes[pod])
            ]
            writer = self.database.head.writer("job", INTERVAL_MS, ("job", (("pod", f"p{pod}"),)))
            values = np.array([float(self.round * n) if n % 2 else rng.random() for n in range(len(labels))])
            at_ms = self.now_ms + rng.randrange(1000)
            assert writer.commit(at_ms, Plan(writer.refs(labels)), values)
            for one, value in zip(labels, values.tolist(), strict=True):
                self.take(one, at_ms, value)
        batch = [(labels_of({"__name__": "rule", "r": str(n)}), self.now_ms, rng.random()) for n in range(3)]
        assert self.database.head.append_all(batch) == 3
        for one, at_ms, value in batch:
            self.take(one, at_ms, value)
        native = Histogram(schema=3, count=float(self.round), sum=rng.random(), positive={-2: 1.0, self.round: 2.0})
        sizes = labels_of({"__name__": "sizes"})
        if self.round % 7 == 3:
            assert self.database.head.append(sizes, self.now_ms, 1.5)
            self.take(sizes, self.now_ms, 1.5)
        else:
            assert self.database.head.append_histograms([(sizes, self.now_ms, native)]) == 1
            self.take(sizes, self.now_ms, native)
        self.round += 1

    def churn(self) -> None:
        """A pod ends, another begins, a target grows."""
        gone = self.pods.pop(0)
        writer = self.database.head.writer("job", INTERVAL_MS, ("job", (("pod", f"p{gone}"),)))
        live = [ref.labels for ref in writer.live()]
        at_ms = self.now_ms
        writer.close(at_ms)
        for one in live:
            self.take(one, at_ms, "stale")
        self.pods.append(self.next_pod)
        self.sizes[self.next_pod] = self.rng.randint(2, 9)
        self.next_pod += 1
        self.sizes[self.pods[0]] += 1
        self.round += 1

    def late(self) -> None:
        """Samples of the past, also where blocks are."""
        for _ in range(3):
            at_ms = self.now_ms - self.rng.randrange(1, self.options["out_of_order_ms"] - INTERVAL_MS)
            labels = labels_of({"__name__": self.rng.choice(["rule", "late"]), "r": str(self.rng.randrange(4))})
            taken = self.database.head.append(labels, at_ms, 0.5)
            if at_ms not in self.model.get(labels, {}):
                assert taken
                self.take(labels, at_ms, 0.5)

    def restart(self) -> None:
        """As after kill -9: nothing is closed but the lock."""
        os.close(self.database._lock_fd)
        self.database = Database(self.directory, **self.options)

    def maintain(self) -> None:
        self.database.maintain(self.now_ms)

    def check(self) -> None:
        assert contents(self.database) == {labels: samples for labels, samples in self.model.items() if samples}
        for _ in range(3):
            start_ms = self.rng.randrange(START_MS - INTERVAL_MS, self.now_ms + INTERVAL_MS)
            end_ms = self.rng.randrange(start_ms, self.now_ms + 2 * INTERVAL_MS)
            wanted = {
                labels: kept
                for labels, samples in self.model.items()
                if (kept := {at: value for at, value in samples.items() if start_ms < at <= end_ms})
            }
            assert contents(self.database, (), start_ms, end_ms) == wanted
