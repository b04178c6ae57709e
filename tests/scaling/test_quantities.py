"""Quantities: canonical text and the roundings of reference/hpa.md 1.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ConfigError
from flyball.model.quantities import MAX_INT64, Format, Quantity, canonical, from_milli, from_units, parse_quantity


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0", "0"), ("0.1", "100m"), ("100m", "100m"), ("1", "1"), ("1000m", "1"), ("1500m", "1500m"),
        ("1.5", "1500m"), ("12000", "12k"), ("10", "10"), ("1e3", "1e3"), ("1E", "1E"), ("1E3", "1e3"),
        ("64Mi", "64Mi"), ("1024Ki", "1Mi"), ("1.5Gi", "1536Mi"), ("1023", "1023"), ("1000Ki", "1000Ki"),
        ("0.5Ki", "512"), ("0.0001Ki", "102400u"), ("-100m", "-100m"), ("1n", "1n"), ("0.1n", "1n"),
        ("-1.5Mi", "-1536Ki"), ("+5", "5"), (".5", "500m"), ("5.", "5"), ("2500000", "2500k"), ("1e-3", "1e-3"),
        (3, "3"), (0.25, "250m"), ("20Ei", "9223372036854775807"), ("100k", "100k"),
    ],
)  # fmt: skip
def test_canonical(text: str | int | float, printed: str) -> None:
    assert canonical(text) == printed


@pytest.mark.parametrize("text", ["", "abc", "1K", "1 Mi", "1Mib", ".", "--1", "1e", "1ee3", "1,5", "9" * 500, "1e999"])
def test_not_a_quantity(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "milli"),
    [("1n", 1), ("100m", 100), ("1000001n", 2), ("1", 1000), ("-1n", -1), ("64Mi", 67_108_864_000), ("1.0001", 1001)],
)
def test_milli_value_rounds_away_from_zero(text: str, milli: int) -> None:
    assert parse_quantity(text).milli_value() == milli


def test_float_is_product_of_two_doubles() -> None:
    assert parse_quantity("100m").as_float() == 100 * 1e-3
    assert parse_quantity("0.05").as_float() == 5 * 1e-2
    assert parse_quantity("3").as_float() == 3.0


def test_built_from_numbers() -> None:
    assert str(from_milli(1500)) == "1500m"
    assert str(from_milli(67_108_864_000, Format.BINARY_SI)) == "64Mi"
    assert str(from_units(10)) == "10"
    assert from_units(1 << 62).milli_value() == (1 << 63) - 1


@given(st.integers(-(10**15), 10**15), st.integers(-9, 6), st.sampled_from(list(Format)))
def test_text_round_trip_keeps_the_value(unscaled: int, exponent: int, form: Format) -> None:
    quantity = Quantity(unscaled, exponent, form)
    again = parse_quantity(str(quantity))
    nano = quantity.nano
    if again.format is Format.BINARY_SI:  # reading saturates
        bound = MAX_INT64 * 10**9
        nano = max(-bound, min(bound, nano))
    assert again.nano == nano
    if form is not Format.BINARY_SI:  # 10000 in BinarySI prints bare and reads back as DecimalSI, upstream too
        assert str(again) == str(quantity)
