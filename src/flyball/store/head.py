"""The head: the last hours of every series, in memory."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flyball.errors import StoreError
from flyball.model.frames import Floats, Frame, Times
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType
from flyball.store.buffers import SeriesBuffer
from flyball.store.exemplars import Exemplar, Exemplars
from flyball.store.index import Entry, Metric, Picked, Selection
from flyball.store.matrix import BEFORE, NOT_YET, Family, Group, Ref, Writer
from flyball.store.merging import after
from flyball.store.pieces import Piece, frames_of, merged
from flyball.store.records import RecordType
from flyball.store.wal import Wal

_MINUTE_MS = 60_000
_Sample = TypeVar("_Sample")
#: Under memory pressure the retention never shrinks below this.
_RETENTION_MIN_MS = 10 * _MINUTE_MS
#: Of the memory limit, with blocks: new series may fill it so far.
_FOR_NEW_SHARE = 0.75
_COLLECT_EVERY_MS = 5 * _MINUTE_MS
#: Labels, index and references of one series, roughly.
_SERIES_BYTES = 400
#: Families whose metadata is kept.
_METADATA_MAX = 100_000
#: (type, help, unit) of a metric family.
Metadata = tuple[str, str, str]


class Head:
    """Series in memory, written by one thread and read by any.

    Args:
        retention_ms: samples older than this, counted from the newest scrape, are dropped.
        memory_limit_bytes: of the samples' arrays. Near it the retention is shortened (to 10 min at least), with
            blocks younger samples are sealed, and after that new series are refused: known ones go on.
        out_of_order_ms: samples of single series may be so much older than the newest sample.
        exemplars_max: so many are kept.
        wal: every sample is logged here before it is taken, if there is one.

    ``sealed_ms`` is None while memory is all there is. With blocks it is their end: older samples may be dropped
    here, younger ones never.
    """

    def __init__(
        self,
        *,
        retention_ms: int = 120 * _MINUTE_MS,
        memory_limit_bytes: int = 2 * 1024**3,
        out_of_order_ms: int = 0,
        exemplars_max: int = 100_000,
        wal: Wal | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.wal = wal
        self.sealed_ms: int | None = None
        self.floor_ms = BEFORE  # scrapes before this are refused: they are being sealed
        self.out_of_order_ms = out_of_order_ms
        self.retention_ms = retention_ms
        self.retention_wanted_ms = retention_ms
        self.memory_limit_bytes = memory_limit_bytes
        self.refused = 0
        self.exemplars = Exemplars(exemplars_max)
        self.metadata: dict[str, Metadata] = {}
        self._bytes = 0
        self._series: dict[Labels, Entry] = {}
        self._buffers: dict[Labels, SeriesBuffer] = {}
        self._metrics: dict[str, Metric] = {}
        self._groups: dict[object, Group] = {}
        self._writers: dict[tuple[object, object], Writer] = {}
        self._samples = 0
        self._out_of_order = 0
        self._duplicates = 0
        self._shortened = 0
        self._collected_ms = 0
        self.newest_ms: int | None = None
        self.newest_scrape_ms: int | None = None
        self.wants_sealing = False
        self.pressed = False  # memory is short: what is younger than usual is sealed, too

    # Writing: one thread.

    def writer(self, group_key: object, interval_ms: int, target_key: object) -> Writer:
        """The way in for one target; targets of a group share matrices. A target that was closed and comes back
        within the retention gets its old columns."""
        group_id = (group_key, interval_ms)
        writer = self._writers.get((group_id, target_key))
        if writer is not None:
            writer.reopen()
            return writer
        with self.lock:
            group = self._groups.get(group_id)
            if group is None:
                group = self._groups[group_id] = Group(group_id, interval_ms, self)
            writer = Writer(group, target_key)
        self._writers[(group_id, target_key)] = writer
        return writer

    def close_writers(self) -> None:
        """Ends all targets without staleness markers; those that come back get their columns."""
        for writer in self._writers.values():
            writer.close()

    def append(self, labels: Labels, at_ms: int, value: float) -> bool:
        """One sample that does not come from a scrape; ``frames.STALE`` ends the series.

        Args:
            labels: canonical, as ``labels_of`` makes them, with a metric name.

        Returns:
            False when the series has a sample at this time or later; the sample is counted and dropped.

        Raises:
            StoreError: the labels have no metric name, or the memory limit is reached.
        """
        return self.append_all([(labels, at_ms, value)]) == 1

    def append_all(self, samples: Sequence[tuple[Labels, int, float]]) -> int:
        """Many samples as ``append`` takes them, logged as one. Returns how many were taken.

        Raises:
            StoreError: as ``append``; the samples before the offending one may have been taken then.
        """
        taken = self._accepted(samples)
        if taken and self.wal is not None:
            self.wal.write_samples(taken)
        return self._take(taken)

    def append_histograms(self, samples: Sequence[tuple[Labels, int, Histogram]]) -> int:
        """Native histograms, as ``append_all`` takes floats."""
        taken = self._accepted(samples)
        if taken and self.wal is not None:
            self.wal.write_histograms(taken)
        for buffer, at_ms, histogram in taken:
            buffer.add_histogram(at_ms, histogram)
        return self._take([(buffer, at_ms, histogram.count) for buffer, at_ms, histogram in taken])

    def append_exemplars(self, found: Sequence[Exemplar]) -> None:
        """Keeps what is new among these. Raises ``StoreError`` when the log does not take them."""
        fresh = self.exemplars.fresh(found)
        if fresh and self.wal is not None:
            self.wal.write_other(RecordType.EXEMPLARS, fresh)
        self.exemplars.add(fresh)

    def describe(self, found: Mapping[str, Metadata]) -> None:
        """Keeps (type, help, unit) of metric families by name, the last that was said of each. Raises as
        ``append_exemplars``."""
        fresh = {name: said for name, said in found.items() if self.metadata.get(name) != said}
        if fresh and len(self.metadata) + len(fresh) <= _METADATA_MAX:
            if self.wal is not None:
                self.wal.write_metadata(fresh)
            self.metadata |= fresh

    def _accepted(self, samples: Sequence[tuple[Labels, int, _Sample]]) -> list[tuple[SeriesBuffer, int, _Sample]]:
        taken = []
        last_ms: dict[SeriesBuffer, int | None] = {}
        for labels, at_ms, value in samples:
            buffer = self._buffers.get(labels)
            if buffer is None:
                buffer = self._new_buffer(labels)
            last = last_ms.get(buffer, buffer.last_ms())
            if self._acceptable(last, at_ms):
                taken.append((buffer, at_ms, value))
                last_ms[buffer] = at_ms if last is None else max(last, at_ms)
        return taken

    def _take(self, taken: Sequence[tuple[SeriesBuffer, int, float]]) -> int:
        count = 0
        for buffer, at_ms, value in taken:
            last = buffer.last_ms()
            if last is None or at_ms > last:
                self._bytes += buffer.append(at_ms, value, self._buffers_horizon_ms(at_ms))
            else:
                grown = buffer.insert(at_ms, value)
                if grown is None:
                    self._duplicates += 1
                    continue
                self._bytes += grown
            count += 1
            if self.newest_ms is None or at_ms > self.newest_ms:
                self.newest_ms = at_ms
        self._samples += count
        return count

    def _acceptable(self, last_ms: int | None, at_ms: int) -> bool:
        if last_ms == at_ms:
            self._duplicates += 1
            return False
        late = (last_ms is not None and at_ms < last_ms) or at_ms < self.floor_ms
        if late and at_ms <= (self.newest_ms or at_ms) - self.out_of_order_ms:
            self._out_of_order += 1
            return False
        return True

    def _buffers_horizon_ms(self, at_ms: int) -> int:
        # With blocks, late samples lie before ``sealed_ms`` and are not in a block yet: only sealing drops them.
        return at_ms - self.retention_ms if self.sealed_ms is None else BEFORE

    def horizon_ms(self, at_ms: int) -> int:
        """Samples before this may be dropped."""
        return at_ms - self.retention_ms if self.sealed_ms is None else self.sealed_ms

    def _new_buffer(self, labels: Labels) -> SeriesBuffer:
        if not any(name == METRIC_NAME for name, _ in labels):
            raise StoreError(f"the series {dict(labels)} has no metric name; add __name__")
        with self.lock:
            if not self.grant(_SERIES_BYTES, self.newest_ms or 0):
                self.refused += 1
                raise StoreError("the store's memory limit is reached; raise the limit or write fewer series")
            buffer = SeriesBuffer(labels)
            self._buffers[labels] = buffer
            self._bytes += buffer.nbytes + _SERIES_BYTES
            self._place(labels, buffer)
        return buffer

    def canonical(self, labels: Labels) -> Labels:
        """The equal label set that is in memory already, or this one."""
        entry = self._series.get(labels)
        return entry.labels if entry is not None else labels

    def drop_buffered(self, taken: Iterable[tuple[SeriesBuffer, Piece]]) -> None:
        """Lets go of these samples of single series; they are in a block."""
        with self.lock:
            for buffer, (times, _) in taken:
                self._bytes += buffer.drop(times)

    def start_anew(self, now_ms: int) -> None:
        """After the clock went back to ``now_ms`` and everything was sealed: scrapes are taken from there on."""
        with self.lock:
            for group in self._groups.values():
                group.empty(now_ms)
            self.sealed_ms = self.floor_ms = self._collected_ms = now_ms
            self.newest_ms = self.newest_scrape_ms = None

    def delete(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> None:
        """Deletes the samples of matching series with start <= t <= end."""
        with self.lock:
            for matchers in matcher_sets:
                for selection in self._selections(matchers):
                    for family, columns, _, _ in selection.blocks:
                        for column in columns.tolist():
                            family.refs[column].delete(start_ms, end_ms)
                    for entry in selection.scattered:
                        for place in entry.places:
                            place.delete(start_ms, end_ms)

    def collect(self, now_ms: int) -> None:
        """Lets go of what lies behind the retention: series that ended, groups without targets. Scrapes do this
        every five minutes by themselves; call it where nothing is scraped."""
        horizon_ms = self.horizon_ms(now_ms)
        with self.lock:
            self._collected_ms = now_ms
            for group_id, group in list(self._groups.items()):
                ended = group.writers and all(writer.closed and writer.last_ms < horizon_ms for writer in group.writers)
                if ended or self._mostly_dead(group, horizon_ms):
                    group.compact(horizon_ms)
                if not group.writers:
                    self._bytes -= group.nbytes
                    del self._groups[group_id]
            for key, writer in list(self._writers.items()):
                if writer.slot < 0:
                    del self._writers[key]
            for labels, buffer in list(self._buffers.items()):
                last_ms = buffer.last_ms()
                if last_ms is None or last_ms < self._buffers_horizon_ms(now_ms):
                    del self._buffers[labels]
                    self._bytes -= buffer.nbytes + _SERIES_BYTES
                    self._unplace(buffer)
            if self.retention_ms < self.retention_wanted_ms and self._bytes < self.memory_limit_bytes // 2:
                self.retention_ms = min(self.retention_wanted_ms, self.retention_ms * 2)

    @staticmethod
    def _mostly_dead(group: Group, horizon_ms: int) -> bool:
        total = dead = 0
        for family in group.families.values():
            total += family.count
            dead += int((family.end_ms[: family.count] < horizon_ms).sum())
        return dead > 100 and dead * 4 > total

    def metrics(self) -> Iterable[Metric]:
        """The index, metric by metric; the lock is held."""
        return self._metrics.values()

    def groups(self) -> Iterable[Group]:
        """All groups; the lock is held."""
        return self._groups.values()

    # What groups tell their head.

    def grant(self, extra_bytes: int, at_ms: int, *, new: bool = False) -> bool:
        """Whether so many bytes more are within the limit, after shortening the retention if need be.

        Args:
            new: for series that are new; with blocks they leave a part to the rows of those that are known.
        """
        if self.sealed_ms is not None:
            for_new = int(self.memory_limit_bytes * _FOR_NEW_SHARE)
            self.pressed = self._bytes + extra_bytes > for_new
            self.wants_sealing |= self.pressed
            return self._bytes + extra_bytes <= (for_new if new else self.memory_limit_bytes)
        while self._bytes + extra_bytes > self.memory_limit_bytes:
            if self.retention_ms <= _RETENTION_MIN_MS or at_ms <= 0:
                return False
            self.retention_ms = max(_RETENTION_MIN_MS, self.retention_ms // 2)
            self._shortened += 1
            for group in self._groups.values():
                group.compact(at_ms - self.retention_ms)
        return True

    def account(self, extra_bytes: int) -> None:
        self._bytes += extra_bytes

    def placed(self, ref: Ref) -> None:
        self._bytes += _SERIES_BYTES
        self._place(ref.labels, ref)

    def moved(self, family: Family) -> None:
        metric = self._metrics.get(family.name)
        if metric is None:
            return
        metric.generation += 1
        if family.count == 0:
            metric.forget(family)
        for ref in family.refs:
            entry = ref.entry
            if len(entry.places) == 1:
                metric.column_of[entry.id] = ref.column

    def dropped(self, refs: Iterable[Ref], family: Family) -> None:
        for ref in refs:
            self._bytes -= _SERIES_BYTES
            self._unplace(ref)

    def committed(self, samples: int, at_ms: int) -> None:
        self._samples += samples
        if self.newest_scrape_ms is None or at_ms > self.newest_scrape_ms:
            self.newest_scrape_ms = at_ms
        if self.newest_ms is None or at_ms > self.newest_ms:
            self.newest_ms = at_ms
            if at_ms - self._collected_ms > _COLLECT_EVERY_MS:
                if self._collected_ms:
                    self.collect(at_ms)
                self._collected_ms = at_ms

    def out_of_order(self, samples: int) -> None:
        self._out_of_order += samples

    def _place(self, labels: Labels, place: Ref | SeriesBuffer) -> None:
        entry = self._series.get(labels)
        if entry is None:
            name = next(value for label, value in labels if label == METRIC_NAME)
            metric = self._metrics.get(name)
            if metric is None:
                metric = self._metrics[name] = Metric(name)
            entry = self._series[labels] = metric.add(labels)
        entry.places.append(place)
        place.entry = entry
        entry.metric.locate(entry)

    def _unplace(self, place: Ref | SeriesBuffer) -> None:
        entry = place.entry
        if entry is None:
            return
        place.entry = None
        entry.places.remove(place)
        metric = entry.metric
        if entry.places:
            metric.locate(entry)
            return
        del self._series[entry.labels]
        metric.remove(entry)
        if metric.dead == len(metric.entries):
            del self._metrics[metric.name]

    # Reading: any thread.

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """Frames with every sample of the matching series in start < t <= end, and maybe some around it.

        Each series is in one frame. Cells of ``times_ms`` that are later than ``end_ms`` hold nothing: a scrape
        may be under way there. What the matrices hold before ``sealed_ms`` is left to the blocks.
        """
        frames: list[Frame] = []
        blocks: list[tuple[Picked, _Snapshot]] = []
        scattered: list[tuple[Labels, list[Piece]]] = []
        histograms: dict[Labels, dict[int, Histogram]] = {}
        with self.lock:
            sealed_ms = BEFORE if self.sealed_ms is None else self.sealed_ms
            for selection in self._selections(matchers):
                for picked in selection.blocks:
                    blocks.append((picked, _snapshot(picked.family, start_ms, end_ms)))
                for entry in selection.scattered:
                    scattered.append((entry.labels, pieces(entry, start_ms, end_ms, sealed_ms)))
                    if found := histograms_of(entry):
                        histograms[entry.labels] = found
        for picked, snapshot in blocks:
            frame = _frame(picked, snapshot, start_ms)
            if frame is not None and start_ms < sealed_ms:
                frame = after(frame, sealed_ms)
            if frame is not None:
                frames.append(frame)
        frames.extend(frames_of(((labels, merged(found, start_ms, end_ms)) for labels, found in scattered), histograms))
        return frames

    def _selections(self, matchers: Sequence[Matcher]) -> Iterable[Selection]:
        on_name = [matcher for matcher in matchers if matcher.name == METRIC_NAME]
        others = tuple(matcher for matcher in matchers if matcher.name != METRIC_NAME)
        exact = next((matcher for matcher in on_name if matcher.type is MatchType.EQUAL), None)
        if exact is not None:
            metric = self._metrics.get(exact.value)
            metrics = [metric] if metric is not None else []
        else:
            metrics = list(self._metrics.values())
        for metric in metrics:
            if all(matcher.matches(metric.name) for matcher in on_name):
                yield metric.select(others)

    def series(self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> list[Labels]:
        """The label sets of series that match any of the sets (all series, when there is none) and were alive in
        the window, sorted."""
        found: set[Labels] = set()
        with self.lock:
            for matchers in matcher_sets or [()]:
                for selection in self._selections(matchers):
                    for family, columns, labels, _ in selection.blocks:
                        refs = family.refs
                        found.update(
                            label_set
                            for column, label_set in zip(columns.tolist(), labels, strict=True)
                            if _alive(refs[column], start_ms, end_ms)
                        )
                    for entry in selection.scattered:
                        if any(_alive(place, start_ms, end_ms) for place in entry.places):
                            found.add(entry.labels)
        return sorted(found)

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]] = (), start_ms: int = BEFORE, end_ms: int = NOT_YET
    ) -> list[str]:
        """Label names of the series that ``series`` finds, sorted."""
        return sorted({name for labels in self.series(matcher_sets, start_ms, end_ms) for name, _ in labels})

    def label_values(
        self,
        name: str,
        matcher_sets: Sequence[Sequence[Matcher]] = (),
        start_ms: int = BEFORE,
        end_ms: int = NOT_YET,
    ) -> list[str]:
        """Values of one label among the series that ``series`` finds, sorted."""
        return sorted(
            {
                value
                for labels in self.series(matcher_sets, start_ms, end_ms)
                for label, value in labels
                if label == name
            }
        )

    @property
    def late_samples(self) -> int:
        """Samples that were dropped because they came too late."""
        return self._out_of_order

    def oldest_ms(self) -> int | None:
        """The time of the oldest sample that is not sealed; None when there is none."""
        sealed_ms = BEFORE if self.sealed_ms is None else self.sealed_ms
        with self.lock:
            oldest = [
                int(times.min())
                for group in self._groups.values()
                if (times := _written(group.times_ms[: group.rows, : len(group.writers)], sealed_ms)).size
            ]
            oldest += [first for buffer in self._buffers.values() if (first := buffer.first_ms()) is not None]
        return min(oldest, default=None)

    def statistics(self) -> dict[str, Any]:
        """Counters and sizes, for our own metrics and ``/status/tsdb``."""
        with self.lock:
            return {
                "series": len(self._series),
                "metrics": len(self._metrics),
                "groups": len(self._groups),
                "targets": sum(not writer.closed for writer in self._writers.values()),
                "bytes": self._bytes,
                "memory_limit_bytes": self.memory_limit_bytes,
                "retention_ms": self.retention_ms,
                "retention_shortened_total": self._shortened,
                "samples_appended_total": self._samples,
                "out_of_order_samples_total": self._out_of_order,
                "duplicate_samples_total": self._duplicates,
                "refused_series_total": self.refused,
                "min_time_ms": self.oldest_ms(),
                "max_time_ms": self.newest_ms,
                "series_by_metric": {name: len(metric.entries) - metric.dead for name, metric in self._metrics.items()},
            }


#: (values, times, slot of each column, end of each column) as they are now; the arrays are never rearranged.
_Snapshot = tuple[Floats, Times, NDArray[np.int32], Times]


def _snapshot(family: Family, start_ms: int, end_ms: int) -> _Snapshot:
    group = family.group
    first, last = group.window(start_ms, end_ms)
    return (
        family.values[first:last, : family.count],
        group.times_ms[first:last, : len(group.writers)],
        family.slot_of[: family.count],
        family.end_ms[: family.count],
    )


def _frame(picked: Picked, snapshot: _Snapshot, start_ms: int) -> Frame | None:
    values, times, slots, ends = snapshot
    if not len(values):
        return None
    columns, labels = picked.living(ends[picked.columns] > start_ms)  # some may have ended before the window
    if not len(columns):
        return None
    target = slots[columns]
    first, count = int(columns[0]), len(columns)
    if int(columns[-1]) - first == count - 1:
        values = values[:, first : first + count]
    else:
        values = values.take(columns, axis=1)
    used = target if count == 1 else np.unique(target)
    if len(used) * 2 < times.shape[1]:
        times = times.take(used, axis=1)
        target = np.searchsorted(used, target).astype(np.int32)
    return Frame(labels=labels, times_ms=_read_only(times), target=target, values=_read_only(values))


def _read_only(array: Any) -> Any:
    view = array.view()
    view.flags.writeable = False
    return view


def pieces(entry: Entry, start_ms: int, end_ms: int, sealed_ms: int) -> list[Piece]:
    """The samples of a series around the window, place by place; the lock is held.

    What matrices hold before ``sealed_ms`` is left out. Late samples, which lie in buffers, are not.
    """
    found = []
    for place in entry.places:
        if isinstance(place, SeriesBuffer):
            times, values, count = place.view
            found.append((times[:count], values[:count]))
            continue
        family = place.family
        assert family is not None
        first, last = family.group.window(max(start_ms, sealed_ms - 1), end_ms)
        times, values = family.group.times_ms[first:last, place.slot], family.values[first:last, place.column]
        if sealed_ms > start_ms:
            times = np.where(times < sealed_ms, NOT_YET, times)
        found.append((times, values))
    return found


def histograms_of(entry: Entry) -> dict[int, Histogram]:
    """The series' samples that are native histograms, by time."""
    for place in entry.places:
        if isinstance(place, SeriesBuffer) and place.histograms:
            return place.histograms
    return {}


def _alive(place: Ref | SeriesBuffer, start_ms: int, end_ms: int) -> bool:
    if isinstance(place, SeriesBuffer):
        first_ms, last_ms = place.first_ms(), place.last_ms()
        return first_ms is not None and last_ms is not None and first_ms <= end_ms and last_ms > start_ms
    if place.first_ms > end_ms:
        return False
    return place.end_ms() > start_ms


def _written(times: Times, sealed_ms: int) -> Times:
    written: Times = times[(times != NOT_YET) & (times > BEFORE) & (times >= sealed_ms)]
    return written
