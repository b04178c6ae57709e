import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ScrapeError
from flyball.exposition import Exemplar, Format, format_of, layout, parse, parse_series

SHARED = Path(os.environ.get("FLYBALL_SHARED") or Path(__file__).parents[3] / "shared") / "exposition"


def parse_values(of: layout.Layout, body: bytes):
    """What both readings of the fast path find, which must be the same to the last bit."""
    layout.load_compiled()
    compiled, layout._scan = layout._scan, None
    try:
        found = layout.parse_values(of, body)
    finally:
        layout._scan = compiled
    again = layout.parse_values(of, body)
    assert (found is None) == (again is None)
    if found is not None:
        assert found.values.tobytes() == again.values.tobytes()
        assert (found.times_ms is None) == (again.times_ms is None)
        assert found.times_ms is None or (found.times_ms == again.times_ms).all()
        assert found.exemplars == again.exemplars
    return found


@pytest.fixture(autouse=True)
def _restored():
    """Other tests find the reading that was there."""
    before = layout._scan
    yield
    layout._scan = before


def shared_files() -> list:
    found = sorted(SHARED.glob("*.txt")) if SHARED.is_dir() else []
    return found or [
        pytest.param(None, marks=pytest.mark.skip(reason="shared data not found (set FLYBALL_SHARED)")),
    ]


@pytest.mark.parametrize("path", shared_files(), ids=lambda path: path.name if path else "none")
def test_the_fast_path_equals_the_full_parse(path) -> None:
    body = path.read_bytes()
    if path.name == "alltypes.5mfs.om.txt":  # Go's library writes sums of negative buckets, which the standard forbids
        with pytest.raises(ScrapeError, match="negative buckets"):
            parse(body, Format.OPENMETRICS)
        body = re.sub(rb"[^\n]*rpc_durations_[^\n]*\n", b"", body)
    full = parse(body, Format.OPENMETRICS if ".om." in path.name else Format.TEXT)
    assert full.layout is not None
    for text, type_ in zip(full.series, full.types, strict=True):
        assert parse_series(text, type_)["__name__"]
    fast = parse_values(full.layout, body)
    assert fast is not None
    assert fast[0].tobytes() == full.values.tobytes()
    assert (fast[1] is None) == (full.times_ms is None)
    assert fast[1] is None or (fast[1] == full.times_ms).all()


words = st.sampled_from(
    [
        b"1",
        b"-0",
        b"01",
        b".5",
        b"1e400",
        b"12345678901234567890123",
        b"0.1,0.2",
        b"-2.5e3",
        b"NaN",
        b"+Inf",
        b"0x1p3",
        b"bad",
        b"7 8",
        b"7 -8",
        b"7 ",
        b"7\r",
        b"+5",
        b"-",
        b".",
        b"5.",
        b"1e5",
        b"1e",
        b"1E-3",
        b"-.5e+1",
        b"1e22",
        b"1e23",
        b"2e-22",
        b"3e-23",
        b"1e99999999999999999999",
        b"9007199254740993",
        b"0.30000000000000004",
        b"18446744073709551617",
        b"1_0",
        b"",
    ]
)


@given(st.lists(words, min_size=3, max_size=3), st.lists(words, min_size=3, max_size=3))
def test_the_fast_path_is_never_wrong(first, second) -> None:
    template = b'# HELP a ends in 5\na{x="y 5 6"} %s\n# TYPE b gauge\nb %s\nc{z="}"} %s\n'
    try:
        known = parse(template % tuple(first)).layout
    except ScrapeError:
        return
    if known is None:
        return
    fast = parse_values(known, template % tuple(second))
    if fast is not None:
        full = parse(template % tuple(second))
        assert fast[0].tobytes() == full.values.tobytes()
        assert (fast[1] is None) == (full.times_ms is None)


@pytest.mark.parametrize(
    ("body", "labels", "value"),
    [
        (b'{"a.b","c d"="x\\"y\\n\\\\"} 0x1p3 5\n', {"__name__": "a.b", "c d": 'x"y\n\\'}, 8.0),
        (b'a{b="c",} +Inf\n', {"__name__": "a", "b": "c"}, float("inf")),
        (b"a\t1", {"__name__": "a"}, 1.0),
        (b'a{b="}"}2\n', {"__name__": "a", "b": "}"}, 2.0),
    ],
)
def test_spellings(body, labels, value) -> None:
    found = parse(body)
    assert [parse_series(text) for text in found.series] == [labels]
    assert found.values.tolist() == [value]


def test_le_is_normalised_and_metadata_kept() -> None:
    found = parse(b'# HELP h a\\nb\n# TYPE h histogram\nh_bucket{le="1"} 1\n')
    assert parse_series(found.series[0], found.types[0])["le"] == "1.0"
    assert found.metadata["h"].help == "a\nb"
    assert found.metadata["h"].type == "histogram"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a 1\nfoo{\n", 'line 2: "foo{"'),
        (b"foo5\n", "line 1"),
        (b"foo+5\n", "line 1"),
        (b"a 1_0\n", "1_0"),
        (b"\n\na 1 2 3\n", "line 3"),
    ],
)
def test_malformed_lines_are_named(body, message) -> None:
    with pytest.raises(ScrapeError) as caught:
        parse(body)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [b'a{b="1",b="2"}', b"a{b}", b"{}", b'a{b="\xff"}', b'a{"c"}'])
def test_bad_series(text) -> None:
    with pytest.raises(ScrapeError):
        parse_series(text)


def test_openmetrics() -> None:
    body = b'# TYPE a counter\na_total 1 1.5 # {trace_id="x"} 3\n# EOF\n'
    found = parse(body, Format.OPENMETRICS)
    assert found.times_ms is not None and found.times_ms.tolist() == [1500]
    assert found.layout is not None
    fast = parse_values(found.layout, body.replace(b"} 3", b"} 4").replace(b" 1 ", b" 9 "))
    assert fast is not None and fast[0].tolist() == [9.0]
    with pytest.raises(ScrapeError, match="EOF"):
        parse(b"a 1\n", Format.OPENMETRICS)


def openmetrics_cases() -> list:
    root = SHARED.parent / "openmetrics"
    found = sorted(root.iterdir()) if root.is_dir() else []
    return found or [
        pytest.param(None, marks=pytest.mark.skip(reason="shared data not found (set FLYBALL_SHARED)")),
    ]


@pytest.mark.parametrize("case", openmetrics_cases(), ids=lambda path: path.name if path else "none")
def test_openmetrics_is_read_or_refused_as_the_standard_says(case) -> None:
    body = (case / "metrics").read_bytes()
    if json.loads((case / "test.json").read_text())["shouldParse"]:
        found = parse(body, Format.OPENMETRICS)
        assert found.layout is None or parse_values(found.layout, body) is not None
    else:
        with pytest.raises(ScrapeError):
            parse(body, Format.OPENMETRICS)


def test_a_gauge_and_a_counter_of_one_name_as_go_writes_them() -> None:
    body = b"# HELP a x\n# TYPE a gauge\na 1\n# HELP a y\n# TYPE a counter\na_total 2\n# EOF\n"
    assert parse(body, Format.OPENMETRICS).values.tolist() == [1, 2]
    with pytest.raises(ScrapeError, match='"a"'):
        parse(body.replace(b"counter", b"summary").replace(b"_total", b"_sum"), Format.OPENMETRICS)


def test_exemplars_are_read_on_both_paths() -> None:
    body = b'# TYPE a counter\na_total{b="#"} 7 # {trace_id="x"} 3 1.5\na_total{b="2"} 8\n# EOF\n'
    full = parse(body, Format.OPENMETRICS)
    assert full.samples.exemplars == [(0, Exemplar({"trace_id": "x"}, 3.0, 1500))]
    assert full.layout is not None
    fast = parse_values(full.layout, body.replace(b"} 3 1.5", b"} 4").replace(b"} 8\n", b'} 8 # {c="d"} 1\n'))
    assert fast is not None
    assert fast.exemplars == [(0, Exemplar({"trace_id": "x"}, 4.0, None)), (1, Exemplar({"c": "d"}, 1.0, None))]
    assert parse_values(full.layout, body.replace(b"} 3 1.5", b"} x")) is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1", "1.0"),
        ("0", "0.0"),
        ("100000", "100000.0"),
        ("1000000", "1e+06"),
        ("123456789.5", "1.234567895e+08"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("-2500000", "-2.5e+06"),
        ("1e23", "1e+23"),
        ("+Inf", "+Inf"),
        ("x", "x"),
    ],
)
def test_bounds_are_spelled_as_go_spells_them(text, normal) -> None:
    assert parse_series(b'h_bucket{le="%s"}' % text.encode(), "histogram")["le"] == normal


def test_series_that_are_known_are_not_read_again() -> None:
    body = b'# TYPE a gauge\na 1\nb{c="d e"} 2 77\n'
    first = parse(body)
    again = parse(body + b"new 3\n", known=frozenset(first.series))
    assert again.series == [*first.series, b"new"]
    assert again.types == ["gauge"] * 3
    assert again.values.tolist() == [1, 2, 3]
    assert again.times_ms is not None and again.times_ms.tolist()[1] == 77


def test_negotiation() -> None:
    assert format_of("text/plain; charset=utf-8") is Format.TEXT
    assert format_of("application/openmetrics-text; version=1.0.0") is Format.OPENMETRICS
    assert format_of(None, "PrometheusText0.0.4") is Format.TEXT
    with pytest.raises(ScrapeError, match="fallback_scrape_protocol"):
        format_of("application/json")


@pytest.mark.parametrize(
    "changed",
    [
        b"# HELP a ONE\na 1\nb 2\n",  # other words, same length
        b"# HELP a two\na 1\nb 22\n"[:-1],  # no last line end
        b"c 1 1700000\na 1\nb 2\n",
        b"# HELP a one\nb 1\na 2\n",
        b"# HELP a one\na 1\nb 2\n\n",  # one line more
        b"# HELP a one\na 1\nb",
        b"",
    ],
)
def test_a_page_that_differs_in_anything_but_its_values_has_another_layout(changed) -> None:
    known = parse(b"# HELP a one\na 1\nb 2\n").layout
    assert parse_values(known, b"# HELP a one\na 3.5\nb NaN\n") is not None
    assert parse_values(known, changed) is None


@pytest.mark.parametrize("word", [b" 1", b"1 ", b"1\t", b"1 2", b"0x1", b"1\r"])
def test_the_fast_path_of_openmetrics_is_as_strict_as_the_slow_one(word) -> None:
    for body in (b"a 1\n# EOF\n", b"a 1\nb 2 3\n# EOF\n", b"a 1\n# TYPE c counter\nc_total 2 # {} 1\n# EOF\n"):
        known = parse(body, Format.OPENMETRICS).layout
        assert parse_values(known, body) is not None
        assert parse_values(known, body.replace(b"a 1", b"a " + word)) is None


def test_a_hexadecimal_number_that_is_too_large_is_refused() -> None:
    with pytest.raises(ScrapeError, match="not a number"):
        parse(b"a 0x1P99999\n")


@given(st.floats(), st.sampled_from(["{!r}", "{:.17g}", "{:.3f}", "{:e}", "{:.20g}"]))
def test_every_number_is_the_nearest_double(number, spelling) -> None:
    word = spelling.format(number).encode()
    found = parse_values(parse(b"a 1\n").layout, b"a %s\n" % word)
    assert found.values.tobytes() == parse(b"a %s\n" % word).values.tobytes()
