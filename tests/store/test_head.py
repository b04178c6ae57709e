"""The head against a naive model: a dict of series to samples."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import StoreError
from flyball.model.frames import STALE, Frame, is_absent, is_stale
from flyball.model.labels import Matcher, MatchType, labels_of
from flyball.store import Head, Plan

INTERVAL_MS = 15_000
START_MS = 1_700_000_000_000


def samples_of(frames: list[Frame], start_ms: int, end_ms: int) -> dict[tuple[tuple[str, str], ...], list]:
    """What PromQL sees: samples in the window, STALE as the text "stale"."""
    found = {}
    for frame in frames:
        assert frame.values.shape == (frame.times_ms.shape[0], len(frame.labels))
        assert (np.diff(frame.times_ms, axis=0) >= 0).all()
        absent, stale = is_absent(np.ascontiguousarray(frame.values)), is_stale(np.ascontiguousarray(frame.values))
        for column, labels in enumerate(frame.labels):
            times = frame.times_ms[:, frame.target[column]]
            rows = [
                (int(at), "stale" if stale[row, column] else float(frame.values[row, column]))
                for row, at in enumerate(times)
                if start_ms < at <= end_ms and not absent[row, column]
            ]
            if rows:
                assert labels not in found, "a series is in two frames"
                found[labels] = rows
    return found


def equal(name: str, value: str) -> Matcher:
    return Matcher(MatchType.EQUAL, name, value)


def scrape(head, writer, at_ms, series: dict, stale=()):
    refs = writer.refs(list(series))
    assert writer.commit(at_ms, Plan(refs), np.array(list(series.values()), float), stale)


def labels(name: str, **rest: str):
    return labels_of({"__name__": name, **rest})


def test_targets_of_a_job_share_one_matrix() -> None:
    head = Head()
    for pod in range(50):
        writer = head.writer("web", INTERVAL_MS, f"pod-{pod}")
        plan = Plan(writer.refs([labels("a", pod=str(pod)), labels("b", pod=str(pod), x="1")]))
        for round_ in range(30):
            assert writer.commit(START_MS + round_ * INTERVAL_MS + pod, plan, np.array([round_, pod], float))
    frames = head.select([equal("__name__", "a")], START_MS - 1, START_MS + 10**7)
    assert len(frames) == 1
    assert frames[0].values.shape == (30, 50)
    assert frames[0].values.base is not None  # a view
    one = head.select([equal("__name__", "b"), equal("pod", "7")], START_MS + 100, START_MS + 100 + 2 * INTERVAL_MS)
    found = samples_of(one, START_MS + 100, START_MS + 100 + 2 * INTERVAL_MS)
    assert found == {
        labels("b", pod="7", x="1"): [(START_MS + 7 + INTERVAL_MS, 7.0), (START_MS + 7 + 2 * INTERVAL_MS, 7.0)]
    }


def test_matchers() -> None:
    head = Head()
    for pod in ("a1", "a2", "b1"):
        head.append(labels("m", pod=pod), START_MS, 1.0)
    head.append(labels("n"), START_MS, 1.0)
    head.append(labels("n", pod="a1"), START_MS, 1.0)

    def found(*matchers: Matcher) -> list:
        return sorted(samples_of(head.select(matchers, 0, START_MS), 0, START_MS))

    on_m = equal("__name__", "m")
    assert found(on_m, Matcher(MatchType.REGEX, "pod", "a.")) == [labels("m", pod="a1"), labels("m", pod="a2")]
    assert found(on_m, Matcher(MatchType.REGEX, "pod", "a")) == []
    assert found(on_m, Matcher(MatchType.NOT_EQUAL, "pod", "a1")) == [labels("m", pod="a2"), labels("m", pod="b1")]
    assert found(on_m, equal("nope", "")) == sorted(labels("m", pod=pod) for pod in ("a1", "a2", "b1"))
    assert found(on_m, equal("nope", "x")) == []
    assert found(equal("__name__", "n"), equal("pod", "")) == [labels("n")]
    assert found(Matcher(MatchType.REGEX, "__name__", "m|n"), equal("pod", "a1")) == sorted(
        [labels("m", pod="a1"), labels("n", pod="a1")]
    )
    assert head.label_names() == ["__name__", "pod"]
    assert head.label_values("pod") == ["a1", "a2", "b1"]
    assert head.series([[equal("pod", "b1")]], 0, START_MS) == [labels("m", pod="b1")]
    assert head.series([[equal("pod", "b1")]], START_MS, START_MS + 1) == []


def test_vanished_series_end_stale_and_come_back() -> None:
    head = Head()
    writer = head.writer("job", INTERVAL_MS, "t")
    one, two = labels("m", x="1"), labels("m", x="2")
    scrape(head, writer, START_MS, {one: 1.0, two: 2.0})
    scrape(head, writer, START_MS + INTERVAL_MS, {one: 1.0}, writer.refs([two]))
    scrape(head, writer, START_MS + 2 * INTERVAL_MS, {one: 1.0})
    scrape(head, writer, START_MS + 3 * INTERVAL_MS, {one: 1.0, two: 3.0})
    end_ms = START_MS + 10 * INTERVAL_MS
    found = samples_of(head.select([equal("x", "2")], 0, end_ms), 0, end_ms)
    assert found == {two: [(START_MS, 2.0), (START_MS + INTERVAL_MS, "stale"), (START_MS + 3 * INTERVAL_MS, 3.0)]}


def test_a_closed_target_is_reclaimed_after_the_retention_and_memory_stays_bounded() -> None:
    head = Head(retention_ms=600_000)
    sizes = []
    live = labels("m", pod="live")
    keeper = head.writer("job", INTERVAL_MS, "live")
    for round_ in range(2000):
        at_ms = START_MS + round_ * INTERVAL_MS
        scrape(head, keeper, at_ms, {live: float(round_)})
        if round_ % 2 == 0:
            writer = head.writer("job", INTERVAL_MS, f"pod-{round_}")
            scrape(head, writer, at_ms + 1, {labels("m", pod=str(round_)): 1.0, labels("n", pod=str(round_)): 1.0})
            writer.close(at_ms + 2)
        if round_ % 100 == 99:
            sizes.append(head.statistics()["bytes"])
    assert max(sizes[4:]) <= 2 * sizes[3]
    assert head.statistics()["series"] < 400
    end_ms = START_MS + 1999 * INTERVAL_MS
    found = samples_of(head.select([equal("pod", "live")], end_ms - 600_000, end_ms), end_ms - 600_000, end_ms)
    assert found == {live: [(START_MS + r * INTERVAL_MS, float(r)) for r in range(1960, 2000)]}


def test_a_series_in_two_groups_is_merged() -> None:
    head = Head()
    series = labels("m", pod="a")
    slow = head.writer("job", 15_000, "t")
    for round_ in range(4):
        scrape(head, slow, START_MS + round_ * 15_000, {series: float(round_)})
    slow.close()
    fast = head.writer("job", 1_000, "t")
    for round_ in range(3):
        scrape(head, fast, START_MS + 46_000 + round_ * 1000, {series: 10.0 + round_})
    end_ms = START_MS + 100_000
    found = samples_of(head.select([equal("__name__", "m")], 0, end_ms), 0, end_ms)
    assert [value for _, value in found[series]] == [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0]


def test_out_of_order_and_duplicates_are_counted() -> None:
    head = Head()
    writer = head.writer("job", INTERVAL_MS, "t")
    plan = Plan(writer.refs([labels("m"), labels("m")]))
    assert writer.commit(START_MS, plan, np.array([1.0, 2.0]))
    assert plan.duplicates == 1
    assert not writer.commit(START_MS, plan, np.array([3.0, 3.0]))
    assert samples_of(head.select([equal("__name__", "m")], 0, START_MS), 0, START_MS) == {
        labels("m"): [(START_MS, 1.0)]
    }
    assert head.append(labels("r"), START_MS, 1.0)
    assert not head.append(labels("r"), START_MS, 1.0)
    assert not head.append(labels("r"), START_MS - 1, 1.0)
    statistics = head.statistics()
    assert statistics["out_of_order_samples_total"] == 3
    assert statistics["duplicate_samples_total"] == 1


def test_the_memory_limit_refuses_new_series_and_keeps_the_old_ones_going() -> None:
    head = Head(memory_limit_bytes=200_000)
    writer = head.writer("job", INTERVAL_MS, "t")
    kept = labels("m", x="kept")
    scrape(head, writer, START_MS, {kept: 0.0})
    other = head.writer("job", INTERVAL_MS, "big")
    with pytest.raises(StoreError, match="memory limit"):
        other.refs([labels("m", x=str(index)) for index in range(5000)])
    assert head.statistics()["refused_series_total"] == 5000
    for round_ in range(1, 3000):
        scrape(head, writer, START_MS + round_ * INTERVAL_MS, {kept: float(round_)})
    at_ms = START_MS + 2999 * INTERVAL_MS
    found = samples_of(head.select([equal("x", "kept")], at_ms - 300_000, at_ms), at_ms - 300_000, at_ms)
    assert len(found[kept]) == 20


def test_memory_limit_slides_instead_of_growing() -> None:
    head = Head(memory_limit_bytes=300_000)
    writer = head.writer("job", 1_000, "t")
    series = {labels("m", x=str(index)): 1.0 for index in range(100)}
    for round_ in range(2000):
        scrape(head, writer, START_MS + round_ * 1000, series)
    assert head.statistics()["bytes"] < 400_000
    at_ms = START_MS + 1999 * 1000
    found = samples_of(head.select([equal("x", "7")], at_ms - 100_000, at_ms), at_ms - 100_000, at_ms)
    assert len(found[labels("m", x="7")]) == 100


def test_a_long_gap_and_a_return() -> None:
    head = Head(retention_ms=600_000)
    writer = head.writer("job", INTERVAL_MS, "t")
    one = labels("m")
    scrape(head, writer, START_MS, {one: 1.0})
    later_ms = START_MS + 30 * 86_400_000
    scrape(head, writer, later_ms, {one: 2.0})
    assert samples_of(head.select([equal("__name__", "m")], later_ms - 1, later_ms), later_ms - 1, later_ms) == {
        one: [(later_ms, 2.0)]
    }
    assert head.statistics()["bytes"] < 100_000


SERIES = [labels("m", x=str(x), pod=str(pod)) for pod in range(3) for x in range(4)]


@st.composite
def operations(draw):
    count = draw(st.integers(1, 60))
    steps = []
    for _ in range(count):
        kind = draw(st.sampled_from(["scrape", "scrape", "scrape", "push", "close", "collect", "gap"]))
        pod = draw(st.integers(0, 2))
        steps.append(
            (
                kind,
                pod,
                draw(st.integers(1, 40_000)),
                draw(st.lists(st.integers(0, 3), unique=True)),
                draw(st.sampled_from([1000, 15_000])),
            )
        )
    return steps


@settings(max_examples=150, deadline=None)
@given(operations())
def test_select_equals_a_naive_model(steps) -> None:
    retention_ms = 120_000
    head = Head(retention_ms=retention_ms)
    model: dict = {}
    now_ms = START_MS
    open_writers: dict = {}
    shown: dict = {}

    def note(series, at_ms, value) -> None:
        rows = model.setdefault(series, [])
        if not rows or rows[-1][0] < at_ms:
            rows.append((at_ms, value))

    for kind, pod, delta_ms, members, interval_ms in steps:
        now_ms += delta_ms * (20 if kind == "gap" else 1)
        if kind == "scrape":
            writer = open_writers.get(pod)
            if writer is not None and writer.group.interval_ms != interval_ms:
                writer.close()
                writer = None
            if writer is None:
                writer = open_writers[pod] = head.writer("job", interval_ms, pod)
            series = {SERIES[pod * 4 + member]: float(delta_ms + member) for member in members}
            gone = [label_set for label_set in shown.get(pod, ()) if label_set not in series]
            scrape(head, writer, now_ms, series, writer.refs(gone) if gone else ())
            for label_set, value in series.items():
                note(label_set, now_ms, value)
            for label_set in gone:
                note(label_set, now_ms, "stale")
            shown[pod] = list(series)
        elif kind == "push":
            label_set = labels("pushed", pod=str(pod))
            head.append(label_set, now_ms, float(STALE) if delta_ms % 7 == 0 else float(delta_ms))
            note(label_set, now_ms, "stale" if delta_ms % 7 == 0 else float(delta_ms))
        elif kind == "close" and pod in open_writers:
            writer = open_writers.pop(pod)
            ending = [ref.labels for ref in writer.live()]
            writer.close(now_ms)
            shown.pop(pod, None)
            for label_set in ending:
                note(label_set, now_ms, "stale")
        elif kind == "collect":
            head.collect(now_ms)
        start_ms = now_ms - retention_ms
        frames = head.select([Matcher(MatchType.REGEX, "__name__", ".+")], start_ms, now_ms)
        expected = {
            label_set: kept
            for label_set, rows in model.items()
            if (kept := [row for row in rows if start_ms < row[0] <= now_ms])
        }
        assert samples_of(frames, start_ms, now_ms) == expected


def test_readers_see_whole_scrapes_while_the_writer_goes_on() -> None:
    """Every sample of a scrape carries the same value, so a torn row would show two."""
    head = Head(retention_ms=60_000)
    series = [labels("m", x=str(index)) for index in range(300)]
    stop = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for frame in head.select([equal("__name__", "m")], 0, 1 << 60):
                rows = np.flatnonzero(frame.times_ms[:, 0] <= 1 << 60)
                if not len(rows):
                    continue
                values = np.array(frame.values[rows])
                if is_absent(values).any() or (values != values[:, :1]).any():
                    faults.append("torn row")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        writer = head.writer("job", 1000, "t")
        plan = Plan(writer.refs(series))
        for round_ in range(1500):
            writer.commit(START_MS + round_ * 1000, plan, np.full(300, float(round_)))
    finally:
        stop.set()
        reader.join()
    assert faults == []


def test_with_blocks_new_series_leave_room_for_the_rows_of_known_ones() -> None:
    """A target that brings ever new series is refused some; its neighbour's scrapes all land."""
    head = Head(memory_limit_bytes=1_000_000)
    head.sealed_ms = 0
    neighbour, bomb = head.writer("g", 1000, "neighbour"), head.writer("g", 1000, "bomb")
    known = Plan(neighbour.refs([labels_of({"__name__": "m", "i": str(i)}) for i in range(20)]))
    refused = 0
    for at_s in range(1, 130):
        try:
            bomb.refs([labels_of({"__name__": "bomb", "i": f"{at_s}-{i}"}) for i in range(100)])
        except StoreError:
            refused += 1
        assert neighbour.commit(at_s * 1000, known, np.full(20, float(at_s)))
    assert refused > 100 and head.pressed and head.wants_sealing
    assert head.statistics()["bytes"] <= 1_000_000


def test_rows_that_nobody_wrote_hold_nothing() -> None:
    head = Head()
    early, late = (head.writer("web", INTERVAL_MS, name) for name in ("early", "late"))
    scrape(head, early, START_MS, {labels("a", pod="early"): 1.0})
    scrape(head, late, START_MS + 40 * INTERVAL_MS, {labels("a", pod="late"): 2.0, labels("b", pod="late"): 3.0})
    scrape(head, late, START_MS + 41 * INTERVAL_MS, {labels("c", pod="late"): 4.0})
    for group in head.groups():
        cells = np.concatenate([family.values[: group.rows, : family.count] for family in group.families.values()], 1)
        assert cells.shape == (42, 4)
        assert cells[~is_absent(cells)].tolist() == [1.0, 2.0, 3.0, 4.0]
