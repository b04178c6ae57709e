"""Results as the Prometheus HTTP API writes them."""

import json
import math

import numpy as np
import pytest

from flyball.model.frames import ABSENT, Floats, is_absent
from flyball.model.histograms import CUSTOM_BUCKETS, Histogram
from flyball.promql import Matrix, Vector, compiled, data_json

TIMES = np.array([1000, 2500], np.int64)
LABELS = ((("a", "x"),),)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (1e21, "1000000000000000000000"),
        (1e-7, "0.0000001"),
        (123456789.25, "123456789.25"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (2.0**60, "1152921504606847000"),
        (10.0, "10"),
    ],
)
def test_numbers_are_written_as_go_writes_them(value: float, text: str) -> None:
    for row in ([value, value], [value, 0.5]):
        data = json.loads(data_json(Matrix(LABELS, TIMES, np.array([row]))))
        assert data["result"][0]["values"][0] == [1, text]
    assert data_json(Vector(LABELS, TIMES[1:], np.array([[value]]))).endswith(
        b'{"metric":{"a":"x"},"value":[2.5,"' + text.encode() + b'"]}]}'
    )


def test_steps_without_a_point_are_left_out() -> None:
    data = json.loads(data_json(Matrix(LABELS, TIMES, np.array([[ABSENT, 3.0]]))))
    assert data["result"] == [{"metric": {"a": "x"}, "values": [[2.5, "3"]]}]


def test_histograms_have_their_buckets_with_closed_ends() -> None:
    exponential = Histogram(
        schema=0, count=7, sum=5, zero_threshold=0.5, zero_count=1, positive={1: 2.0}, negative={1: 4.0}
    )
    custom = Histogram(schema=CUSTOM_BUCKETS, count=3, sum=9, positive={0: 1.0, 2: 2.0}, custom_values=(1.0, 5.0))
    table = np.array([[exponential, None]], object)
    data = json.loads(data_json(Matrix(LABELS, TIMES, np.array([[0.0, 8.0]]), table)))
    assert data["result"][0]["values"] == [[2.5, "8"]]
    assert data["result"][0]["histograms"] == [
        [
            1,
            {
                "count": "7",
                "sum": "5",
                "buckets": [[1, "-2", "-1", "4"], [3, "-0.5", "0.5", "1"], [0, "1", "2", "2"]],
            },
        ]
    ]
    one = json.loads(data_json(Vector(LABELS, TIMES[:1], np.zeros((1, 1)), np.array([[custom]], object))))
    assert one["result"][0]["histogram"][1]["buckets"] == [[3, "-Inf", "1", "1"], [0, "5", "+Inf", "2"]]


def numbers(count: int) -> Floats:
    """Doubles of every size and shape."""
    rng = np.random.default_rng(5)
    parts = [
        rng.integers(0, 1 << 63, count).view(np.float64),
        rng.integers(0, 1 << 52, count).view(np.float64),  # subnormal
        2.0 ** rng.integers(-1074, 1023, count),
        rng.random(count) * 100,
        rng.integers(-(10**6), 10**6, count) / 1000,
        rng.integers(0, 1 << 60, count).astype(float),
        np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 2.0**53, 2.0**53 + 2, 1e15, 1e21, 1e22, 1e23, 9.5e-7]),
    ]
    found = np.concatenate(parts)
    found[::7] *= -1
    return found


@pytest.mark.parametrize("single", [False, True])
def test_the_compiled_pass_writes_what_python_writes(single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    compiled.load()
    values = numbers(2000)
    values = values[:, None] if single else values[: values.size // 13 * 13].reshape(-1, 13)
    values[3, 0] = values[-1, -1] = ABSENT
    labels = tuple((("i", str(i)), ("text", '"\\\u00e9')) for i in range(len(values)))
    times = 1_700_000_000_000 + 1234 * np.arange(values.shape[1])
    present = ~is_absent(values).all(axis=1)
    kind = Vector if single else Matrix
    value = kind(tuple(s for s, there in zip(labels, present, strict=True) if there), times, values[present])
    found = []
    for ready in (True, False):
        monkeypatch.setattr(compiled, "ready", lambda _, ready=ready: ready)
        found.append(data_json(value, 1500 if single else 0))
    assert found[0] == found[1]
    assert len(json.loads(found[0])["result"]) == (1500 if single else len(value.labels))
