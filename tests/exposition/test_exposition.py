import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ScrapeError
from flyball.exposition import Format, format_of, parse, parse_series, parse_values

SHARED = Path(os.environ.get("FLYBALL_SHARED") or Path(__file__).parents[3] / "shared") / "exposition"


def shared_files() -> list:
    found = sorted(SHARED.glob("*.txt")) if SHARED.is_dir() else []
    return found or [
        pytest.param(None, marks=pytest.mark.skip(reason="shared data not found (set FLYBALL_SHARED)")),
    ]


@pytest.mark.parametrize("path", shared_files(), ids=lambda path: path.name if path else "none")
def test_the_fast_path_equals_the_full_parse(path) -> None:
    body = path.read_bytes()
    full = parse(body, Format.OPENMETRICS if ".om." in path.name else Format.TEXT)
    assert full.layout is not None
    for text, type_ in zip(full.series, full.types, strict=True):
        assert parse_series(text, type_)["__name__"]
    fast = parse_values(full.layout, body)
    assert fast is not None
    assert fast[0].tobytes() == full.values.tobytes()
    assert (fast[1] is None) == (full.times_ms is None)
    assert fast[1] is None or (fast[1] == full.times_ms).all()


words = st.sampled_from([b"1", b"-2.5e3", b"NaN", b"+Inf", b"0x1p3", b"bad", b"7 8", b"7 -8", b"1_0", b""])


@given(st.lists(words, min_size=3, max_size=3), st.lists(words, min_size=3, max_size=3))
def test_the_fast_path_is_never_wrong(first, second) -> None:
    template = b'# HELP a ends in 5\na{x="y 5 6"} %s\n# TYPE b gauge\nb %s\nc{z="}"} %s\n'
    try:
        layout = parse(template % tuple(first)).layout
    except ScrapeError:
        return
    if layout is None:
        return
    fast = parse_values(layout, template % tuple(second))
    if fast is not None:
        full = parse(template % tuple(second))
        assert np.array_equal(fast[0], full.values, equal_nan=True)
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


def test_negotiation() -> None:
    assert format_of("text/plain; charset=utf-8") is Format.TEXT
    assert format_of("application/openmetrics-text; version=1.0.0") is Format.OPENMETRICS
    assert format_of(None, "PrometheusText0.0.4") is Format.TEXT
    with pytest.raises(ScrapeError, match="fallback_scrape_protocol"):
        format_of("application/json")
