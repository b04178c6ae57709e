"""Results as the Prometheus HTTP API writes them."""

import json
import math

import numpy as np
import pytest

from flyball.model.frames import ABSENT
from flyball.model.histograms import CUSTOM_BUCKETS, Histogram
from flyball.promql import Matrix, Vector, data_json

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
