"""The compiled pass and sums of many counters at once give what numpy gives window by window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from flyball.errors import QueryLimitError
from flyball.model.frames import ABSENT, STALE, Frame, Mask
from flyball.model.labels import Matcher, labels_of
from flyball.promql import Features, Matrix, Options, Stop, Storage, aggregating, compiled, evaluate, parse
from flyball.promql.features import SCENARIOS, STABLE
from flyball.store import Head, Plan

TARGETS, SERIES, ROWS, STEP_MS = 60, 20, 60, 15_000


@pytest.fixture(scope="module")
def head() -> Head:
    """Targets with jitter, resets, gaps and late starts."""
    rng = np.random.default_rng(3)
    head = Head(retention_ms=10**12)
    for t in range(TARGETS):
        writer = head.writer("jobs", STEP_MS, t)
        names = [
            {"__name__": name, "pod": f"p{t}", "code": str(i), "kind": str(i % 2)}
            for name in ("c_total", "seconds_total")
            for i in range(SERIES)
        ]
        names.append({"__name__": "up_total", "pod": f"p{t}"})
        plan = Plan(list(writer.refs([labels_of(name) for name in names])))
        values = np.cumsum(rng.integers(0, 40, (ROWS, SERIES)), axis=0).astype(float)
        if t % 5 == 0:
            values[30:] -= values[30]
        values = np.concatenate([values, 0.1 * values, values[:, :1]], axis=1)
        for row in range(t % 7, ROWS):
            if t % 11 or not 20 < row < 29:
                writer.commit(10_000_000 + row * STEP_MS + t * 97 % 3000, plan, values[row])
    return head


@pytest.fixture(autouse=True)
def _loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    compiled.load()
    monkeypatch.setattr(compiled, "CELLS_MIN", 0)
    monkeypatch.setattr(compiled, "_CELLS_EACH", 1 << 14)  # a second core takes part
    monkeypatch.setattr(aggregating, "_BLOCK_CELLS", 1 << 10)


def each_way(
    query: str,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    features: Features = STABLE,
    start_ms: int = 10_000_000,
) -> list[Matrix]:
    """The answers of the compiled pass, of numpy, and of numpy where rates are not added up before they are taken."""
    found = []
    for way in ("compiled", "numpy", "by windows"):
        with monkeypatch.context() as patched:
            patched.setattr(compiled, "ready", lambda _, way=way: way == "compiled")
            if way == "by windows":
                patched.setattr(aggregating, "_RATES", frozenset())
            value = evaluate(parse(query), storage, start_ms, 10_900_000, 30_000, options=Options(features=features))
        assert isinstance(value, Matrix)
        found.append(value)
    return found


def alike(*found: Matrix) -> None:
    *others, plain = found
    for other in others:
        assert other.labels == plain.labels and other.infos == plain.infos
        assert (other.present() == plain.present()).all()
        np.testing.assert_allclose(other.values, plain.values, rtol=1e-12)


@pytest.mark.parametrize("function", ["rate", "increase", "delta"])
@pytest.mark.parametrize(
    ("by", "metric"),
    [
        ("sum by (code)", "c_total"),
        ("avg by (pod)", "seconds_total"),
        ("sum by (kind)", "seconds_total"),
        ("sum by (kind)", "c_total"),
        ("sum", "up_total"),
    ],
)
@pytest.mark.parametrize("features", [STABLE, SCENARIOS])
def test_rates_summed_each_way(
    head: Head, function: str, by: str, metric: str, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start_ms, steps in ((10_000_000, 31), (10_240_000, 23)):  # with what began in the first windows, and without
        found = each_way(f"{by} ({function}({metric}[2m]))", head, monkeypatch, features, start_ms)
        alike(*found)
        assert found[0].values.shape[1] == steps


def test_the_compiled_pass_is_asked(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(compiled.RateSums, "add", lambda sums, frame, codes: asked.append(sums.name) or codes >= 0)
    each_way("sum(rate(c_total[2m]))", head, monkeypatch)
    assert asked == ["rate"]


@dataclass
class Drawn:
    """A storage of one frame: series of several targets in any order, with gaps, markers, NaN, Inf, signs and falls."""

    seed: int

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        rng = np.random.default_rng(self.seed)
        rows, targets, series = 70, 7, 90
        times = 9_990_000 + 15_000 * np.arange(rows)[:, None] + rng.integers(0, 14_000, (rows, targets))
        target = rng.integers(0, targets, series).astype(np.int32)
        values = np.cumsum(rng.integers(-3, 9, (rows, series)), axis=0) * rng.choice([1.0, 1e-3, 1e15], series)
        for odd, share in ((ABSENT, 0.02), (STALE, 0.01), (np.nan, 0.001), (np.inf, 0.001)):
            chosen = (rng.random((rows, series)) < share) & (rng.random(series) < 0.3)
            values.view(np.uint64)[chosen] = np.float64(odd).view(np.uint64)
        labels = tuple(labels_of({"__name__": "c_total", "i": str(i), "code": str(i % 4)}) for i in range(series))
        return [Frame(labels, times, target, values)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("function", ["rate", "delta"])
def test_odd_samples_are_taken_as_numpy_takes_them(seed: int, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alike(*each_way(f"sum by (code) ({function}(c_total[70s]))", Drawn(seed), monkeypatch))


@pytest.mark.parametrize("query", ["max by (code) (max_over_time(c_total[2m]))", "min_over_time(c_total[10m])"])
def test_extremes_of_the_compiled_pass_and_of_numpy(head: Head, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alike(*each_way(query, head, monkeypatch))
    for seed in range(4):
        alike(*each_way(query, Drawn(seed), monkeypatch))


def test_windows_behind_all_samples_and_tables_without_rows_have_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = np.arange(0, 300_000, 15_000, dtype=np.int64)
    for rows in (0, 3):
        times = 1000 * np.arange(rows, dtype=np.int64)[:, None].repeat(2, axis=1)
        labels = tuple(labels_of({"__name__": "a_total", "i": str(i)}) for i in range(2))
        frame = Frame(labels, times, np.arange(2, dtype=np.int32), np.ones((rows, 2)))
        sums = compiled.RateSums("rate", ends - 30_000, ends, 1, Stop())
        used = sums.add(frame, np.zeros(2, np.int64))
        assert used.all() == bool(rows) and not sums.numbers[4:].any()


def test_an_absent_sample_is_no_zero() -> None:
    """A group whose series are all absent has no value."""
    times = 1000 * np.arange(10, dtype=np.int64)[:, None]
    values = np.repeat(np.where(np.arange(10) < 5, np.arange(10.0), ABSENT)[:, None], 2, axis=1)
    frame = Frame((labels_of({"__name__": "a_total"}),) * 2, times, np.zeros(2, np.int32), values)
    ends = np.arange(0, 20_000, 1000, dtype=np.int64)
    sums = compiled.RateSums("rate", ends - 3000, ends, 1, Stop())
    sums.add(frame, np.zeros(2, np.int64))
    totals, numbers = sums.totals, sums.numbers
    assert numbers[8:, 0].sum() == 0 and totals[8:, 0].sum() == 0 and numbers[3, 0] == 2


def test_a_kernel_that_is_told_to_stop_ends(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    add = compiled.RateSums.add

    def stopped(sums: compiled.RateSums, frame: Frame, codes: compiled.Index) -> Mask:
        stop.set()  # by another thread, while the kernel runs
        try:
            return add(sums, frame, codes)
        finally:
            assert not sums.numbers.any()

    monkeypatch.setattr(compiled.RateSums, "add", stopped)
    with pytest.raises(QueryLimitError):
        evaluate(parse("sum(rate(c_total[2m]))"), head, 10_000_000, 10_900_000, 30_000, options=Options(stop=stop))
