"""Groups found by an index's numbers are those found by looking at each label set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.model.labels import Labels, MetricLabels, labels_of
from flyball.promql.vectors import distinct, grouping, groups_of, unnamed, unnamed_groups_of

NAMES = ("a", "b", "c", "__type__")
_sets = st.lists(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "x", "y", "zz"])), unique_by=lambda d: labels_of(d)
)
_names = st.lists(st.sampled_from([*NAMES, "__name__", "nowhere"]), unique=True).map(tuple)


def coded(label_sets: list[Labels]) -> MetricLabels:
    """As an index has them: in another order, with series between that are not selected."""
    size = 2 * len(label_sets) + 1
    rows = np.arange(len(label_sets))[::-1] * 2 + 1
    codes = {}
    for name in NAMES:
        values = {"": 0}
        numbers = np.full(size, 1, np.int32)
        for row, labels in zip(rows.tolist(), label_sets, strict=True):
            numbers[row] = values.setdefault(dict(labels).get(name, ""), len(values))
        codes[name] = numbers
    return MetricLabels.of(label_sets, codes, rows)


@given(_sets, _names, st.booleans())
def test_by_numbers_as_by_label_sets(found: list[dict[str, str]], names: tuple[str, ...], without: bool) -> None:
    plain = tuple(labels_of({"__name__": "m", **labels}) for labels in found)
    own = coded(list(plain))
    assert own == plain
    assert distinct(own) == distinct(plain)
    sets, numbers = grouping(own, names, without)
    expected, others = grouping(plain, names, without)
    assert sets == expected
    np.testing.assert_array_equal(numbers, others)
    bare, clash = unnamed(plain)
    grouped = unnamed_groups_of(own, names, without)
    assert (grouped is None) == clash
    if grouped is not None:
        labels, groups = groups_of(bare, names, without)
        assert grouped[0] == labels
        np.testing.assert_array_equal(grouped[1].code, groups.code)


@pytest.mark.parametrize("values", [3, 5000])
def test_many_labels_do_not_overflow(values: int) -> None:
    rng = np.random.default_rng(1)
    count = 2000
    table = rng.integers(0, values, (8, count))
    sets = tuple(
        labels_of({"__name__": "m", "id": str(i), **{f"l{k}": str(v) for k, v in enumerate(column)}})
        for i, column in enumerate(table.T.tolist())
    )
    codes = {f"l{k}": row.astype(np.int32) + 1 for k, row in enumerate(table)}
    codes["id"] = np.arange(1, count + 1, dtype=np.int32)
    own = MetricLabels.of(sets, codes, np.arange(count))
    for names, without in ((tuple(f"l{k}" for k in range(8)), False), (("id",), True), (("l0",), False)):
        found, numbers = grouping(own, names, without)
        expected, others = grouping(sets, names, without)
        assert found == expected
        np.testing.assert_array_equal(numbers, others)
