"""The compiled pass gives what numpy gives."""

from typing import Any

import numpy as np
import pytest

from flyball.model.frames import ABSENT, Frame
from flyball.model.labels import labels_of
from flyball.promql import Matrix, Options, aggregating, compiled, evaluate, parse
from flyball.promql.features import SCENARIOS
from flyball.promql.windows import cut
from flyball.store import Head, Plan

TARGETS, SERIES, ROWS, STEP_MS = 60, 20, 60, 15_000


@pytest.fixture(scope="module")
def head() -> Head:
    """Targets with jitter, resets, gaps and late starts."""
    rng = np.random.default_rng(3)
    head = Head(retention_ms=10**12)
    for t in range(TARGETS):
        writer = head.writer("jobs", STEP_MS, t)
        names = [{"__name__": "c_total", "pod": f"p{t}", "code": str(i)} for i in range(SERIES)]
        plan = Plan(list(writer.refs([labels_of(name) for name in names])))
        values = np.cumsum(rng.integers(0, 40, (ROWS, SERIES)), axis=0).astype(float)
        if t % 5 == 0:
            values[30:] -= values[30]
        for row in range(t % 7, ROWS):
            if t % 11 or not 20 < row < 29:
                writer.commit(10_000_000 + row * STEP_MS + t * 97 % 3000, plan, values[row])
    return head


@pytest.mark.parametrize("function", ["rate", "increase", "delta"])
@pytest.mark.parametrize("op", ["sum", "avg"])
@pytest.mark.parametrize("features", [Options().features, SCENARIOS])
def test_rates_summed_by_the_compiled_pass_and_by_numpy(
    head: Head, function: str, op: str, features: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    expr = parse(f"{op} by (code) ({function}(c_total[2m]))")

    calls: list[str] = []
    rate_sums = compiled.rate_sums

    def counted(*args: Any) -> Any:
        calls.append("compiled")
        return rate_sums(*args)

    monkeypatch.setattr(compiled, "rate_sums", counted)

    def answer() -> Matrix:
        options = Options(features=features)  # type: ignore[arg-type]
        value = evaluate(expr, head, 10_000_000, 10_900_000, 30_000, options=options)
        assert isinstance(value, Matrix)
        return value

    monkeypatch.setattr(compiled, "ready", lambda: False)
    plain = answer()
    monkeypatch.setattr(compiled, "ready", lambda: True)
    monkeypatch.setattr(compiled, "CELLS_MIN", 0)
    monkeypatch.setattr(aggregating, "_BLOCK_CELLS", 1 << 10)
    monkeypatch.setattr(compiled, "_kernel", compiled._add_rates)
    assert not calls
    found = answer()
    assert calls == ["compiled"]
    assert found.labels == plain.labels and found.infos == plain.infos
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-12)
    assert found.values.shape == (SERIES, 31)


def test_numba_compiles_the_pass(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    monkeypatch.setattr(compiled, "_kernel", None)
    monkeypatch.setattr(compiled, "CELLS_MIN", 0)
    compiled.load()
    expr = parse("sum by (pod) (rate(c_total[2m]))")
    fast = evaluate(expr, head, 10_000_000, 10_900_000, 5_000)
    monkeypatch.setattr(compiled, "ready", lambda: False)
    plain = evaluate(expr, head, 10_000_000, 10_900_000, 5_000)
    assert isinstance(fast, Matrix) and isinstance(plain, Matrix)
    np.testing.assert_allclose(fast.values, plain.values, rtol=1e-12)


def test_an_absent_sample_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group whose series are all absent has no value."""
    times = 1000 * np.arange(10, dtype=np.int64)[:, None]
    values = np.repeat(np.where(np.arange(10) < 5, np.arange(10.0), ABSENT)[:, None], 2, axis=1)
    frame = Frame((labels_of({"__name__": "a_total"}),) * 2, times, np.zeros(2, np.int32), values)
    ends = np.arange(0, 20_000, 1000, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        w = cut(frame, ends - 3000, ends, apart=True)
    monkeypatch.setattr(compiled, "_kernel", compiled._add_rates)
    totals, _, numbers = compiled.rate_sums(w, np.zeros(2, np.int64), 1, "rate")
    assert numbers[8:].sum() == 0 and totals[8:].sum() == 0 and numbers[3, 0] == 2
