"""Classic histograms as native ones, and native ones kept within limits."""

import pytest

from flyball.errors import ScrapeError
from flyball.exposition import Format, finest_schema, limited, parse, parse_values
from flyball.exposition.messages import exposition_types
from flyball.model.histograms import CUSTOM_BUCKETS, Histogram

PAGE = b"""# TYPE up gauge
up 1
# TYPE h histogram
h_bucket{p="a",le="0.5"} 1
h_bucket{p="a",le="1"} 4
h_bucket{p="a",le="2"} 4
h_bucket{p="a",le="+Inf"} 6
h_sum{p="a"} 7.5
h_count{p="a"} 6
h_bucket{p="b",le="+Inf"} 3
h_sum{p="b"} 1
h_count{p="b"} 3
# TYPE g gauge
g_count 5
"""
FOUND = Histogram(
    CUSTOM_BUCKETS, count=6, sum=7.5, positive={0: 1.0, 1: 3.0, 3: 2.0}, custom_values=(0.5, 1.0, 2.0)
)  # fmt: skip


def test_the_series_of_a_histogram_become_one() -> None:
    found = parse(PAGE, custom=True, classic=False)
    assert found.series == [b"up", b"g_count", b'h{p="a"}', b'h{p="b"}']
    assert found.values.tolist() == [1, 5, 6, 3]
    assert dict(found.samples.histograms) == {2: FOUND, 3: Histogram(CUSTOM_BUCKETS, 3, 1, positive={0: 3.0})}
    assert found.natives == {2, 3}


def test_classic_series_stay_where_they_are_wanted() -> None:
    found = parse(PAGE, custom=True, classic=True)
    assert found.series[:-2] == parse(PAGE).series
    assert found.samples.histograms[0] == (len(found.series) - 2, FOUND)


def test_the_next_scrape_of_the_page_is_converted_too() -> None:
    layout = parse(PAGE, custom=True, classic=False).layout
    later = parse_values(
        layout, PAGE.replace(b'le="+Inf"} 6', b'le="+Inf"} 9').replace(b'count{p="a"} 6', b'count{p="a"} 9')
    )
    assert later.values.tolist() == [1, 5, 9, 3]
    assert later.histograms[0][1].positive == {0: 1.0, 1: 3.0, 3: 5.0}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'le="1"} 4', b'le="1"} 0'),  # not cumulative
        (b'h_count{p="a"} 6', b'h_count{p="a"} 5'),
        (b'le="0.5"} 1', b'le="0.5"} -1'),
        (b'le="0.5"} 1', b'le="0.5"} NaN'),
    ],
)
def test_contradicting_numbers_are_no_histogram(old, new) -> None:
    found = parse(PAGE.replace(old, new), custom=True, classic=False)
    assert [index for index, _ in found.samples.histograms] == [3]
    assert found.natives == {2, 3}


def test_what_is_missing_is_what_upstream_takes_it_for() -> None:
    page = b'# TYPE h histogram\nh_bucket{le="1"} 2\nh_sum 3\n# TYPE i histogram\ni_count 4\ni_bucket{le="x"} 1\n'
    found = parse(page, custom=True, classic=False)
    assert found.series == [b'i_bucket{le="x"}', b"h", b"i"]
    assert [histogram for _, histogram in found.samples.histograms] == [
        Histogram(CUSTOM_BUCKETS, 2, 3, positive={0: 2.0}, custom_values=(1.0,)),
        Histogram(CUSTOM_BUCKETS, 4, 0, positive={0: 4.0}),
    ]


def test_times_and_exemplars_of_the_parts_are_those_of_the_histogram() -> None:
    body = (
        b'# TYPE a counter\na_total 1 # {t="0"} 1\n# TYPE h histogram\n'
        b'h_bucket{le="1"} 2 5 # {t="1"} 0.5\nh_bucket{le="+Inf"} 2 5\nh_sum 1 5\nh_count 2 5\n# EOF\n'
    )
    found = parse(body, Format.OPENMETRICS, custom=True, classic=False)
    assert found.series == [b"a_total", b"h"]
    assert found.times_ms[1] == 5000
    assert [(index, one.labels) for index, one in found.samples.exemplars] == [(0, {"t": "0"}), (1, {"t": "1"})]


def test_a_native_histogram_stands() -> None:
    types = exposition_types()
    family = types["MetricFamily"](name=b"h", type=4)
    histogram = family.metric.add().histogram
    histogram.count, histogram.schema, histogram.zero_threshold = 2, 0, 0.5
    histogram.positive_span.add(offset=1, length=1)
    histogram.positive_delta.append(2)
    histogram.bucket.add(count=2, upper_bound=1)
    message = family.SerializeToString()
    body = bytes([len(message)]) + message
    ((_, found),) = parse(body, Format.PROTOBUF, custom=True, classic=True).samples.histograms
    assert found.schema == 0
    ((_, found),) = parse(body, Format.PROTOBUF, native=False, custom=True, classic=False).samples.histograms
    assert found.custom_values == (1.0,)


@pytest.mark.parametrize(
    ("factor", "schema"), [(0, 8), (1, 8), (1.00271, 8), (1.01, 6), (1.1, 2), (2, 0), (4, -1), (1e9, -4)]
)
def test_the_finest_schema_of_a_growth(factor, schema) -> None:
    assert finest_schema(factor) == schema
    assert factor <= 1.003 or schema == -4 or 2**2.0**-schema >= factor > 2**2.0 ** -(schema + 1)


FINE = Histogram(2, 10, 1, positive={-3: 1.0, 1: 1.0, 4: 2.0, 5: 3.0}, negative={1: 3.0})


def test_buckets_are_merged_until_there_are_few_enough() -> None:
    assert limited(FINE, 5, 8) == FINE
    assert limited(FINE, 0, 2) == FINE
    once = limited(FINE, 0, 1)
    assert (once.schema, once.positive, once.negative) == (1, {-1: 1.0, 1: 1.0, 2: 2.0, 3: 3.0}, {1: 3.0})
    twice = limited(FINE, 4, 8)
    assert (twice.schema, twice.positive, twice.negative) == (0, {0: 1.0, 1: 3.0, 2: 3.0}, {1: 3.0})


@pytest.mark.parametrize("one", [Histogram(-4, positive={0: 1.0, 1: 1.0}), FOUND])
def test_buckets_that_cannot_be_merged_are_refused(one) -> None:
    with pytest.raises(ScrapeError, match="native_histogram_bucket_limit of 1"):
        limited(one, 1, 8)
