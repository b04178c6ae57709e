"""Chunks come back bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.model.frames import ABSENT, STALE
from flyball.store.codec import decode, decode_times, encode, encode_times

ODD = [0.0, -0.0, 1.5, 0.1, 1e300, -1e-300, float("inf"), float("-inf"), float("nan"), 2.0**53, -(2.0**53), 123.45, 7.0]


def same(values: np.ndarray) -> int:
    packed = encode(values)
    back = decode(packed)
    assert back.shape == values.shape
    assert (np.ascontiguousarray(back).view(np.uint64) == np.ascontiguousarray(values).view(np.uint64)).all()
    return len(packed)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_cells_come_back(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    cell = st.one_of(
        st.sampled_from([*ODD]), st.floats(width=64), st.integers(-(1 << 60), 1 << 60).map(float), st.just(None)
    )
    cells = data.draw(st.lists(cell, min_size=rows * columns, max_size=rows * columns))
    patterns = data.draw(st.lists(st.integers(0, 9), min_size=rows * columns, max_size=rows * columns))
    bits = np.array([0.0 if one is None else one for one in cells]).view(np.uint64)
    special = np.array([ABSENT, STALE]).view(np.uint64)
    for index, pattern in enumerate(patterns):
        if pattern < 2:
            bits[index] = special[pattern]
    same(bits.reshape(rows, columns).view(np.float64))


def test_another_nan_is_not_mistaken_for_a_marker() -> None:
    bits = np.array([0x7FF8000000000001, 0x7FF0000000000001, 0xFFF8000000000000], np.uint64).reshape(3, 1)
    same(bits.view(np.float64))


@pytest.mark.parametrize("rows", [1, 2, 512])
def test_times_come_back(rows: int) -> None:
    rng = np.random.default_rng(1)
    times = 1_700_000_000_000 + np.arange(rows)[:, None] * 15_000 + rng.integers(0, 20, (rows, 30))
    assert (decode_times(encode_times(times)) == times).all()
    wild = rng.integers(-(1 << 60), 1 << 60, (rows, 3))
    assert (decode_times(encode_times(np.sort(wild, axis=0))) == np.sort(wild, axis=0)).all()


def test_what_metrics_look_like_becomes_small() -> None:
    rng = np.random.default_rng(2)
    rows = 480
    constants = np.tile(rng.integers(0, 9, 100).astype(float), (rows, 1))
    idle = np.tile(1e6 + rng.integers(0, 9, 20), (rows, 1)).astype(float)
    counters = np.cumsum(rng.poisson(40, (rows, 80)), axis=0).astype(float)
    seconds = np.round(np.cumsum(rng.random((rows, 20)), axis=0), 2)
    gauges = rng.integers(100, 200, (rows, 50)).astype(float)
    size = same(np.concatenate([constants, idle, counters, seconds, gauges], axis=1))
    assert size / (rows * 270) < 0.7
