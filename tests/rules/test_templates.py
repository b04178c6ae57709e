"""Templates of labels and annotations; the expected texts are those of Prometheus."""

import pytest

from flyball.errors import QueryError
from flyball.model.labels import labels_of
from flyball.rules.templates import Context, check_template, expand

METRICS = [
    (labels_of({"__name__": "metric", "instance": "b"}), 21.0),
    (labels_of({"__name__": "metric", "instance": "a"}), 11.0),
]


def query(text: str) -> list[tuple[tuple[tuple[str, str], ...], float]]:
    if text == "metric":
        return METRICS
    if text == "nothing":
        return []
    raise QueryError(f"cannot run {text}")


CONTEXT = Context(query, 1_500_000_000_123, {"region": "eu"}, "http://prom.example:9090/sub/path")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain {text}", "plain {text}"),
        ("{{ $labels.instance }} is {{ $value }}", "web:80 is 1.5"),
        ("{{ .Labels.instance }}{{ .Value }}", "web:801.5"),
        ("{{ $labels.absent }}!", "!"),
        ("{{ $externalLabels.region }} {{ $externalURL }}", "eu http://prom.example:9090/sub/path"),
        ("{{ externalURL }} {{ pathPrefix }}", "http://prom.example:9090/sub/path /sub/path"),
        ('{{ printf "%.2f" $value }}', "1.50"),
        ('{{ query "metric" | first | value }}', "21"),
        ('{{ query "metric" | first | label "instance" }}', "b"),
        ('{{ range query "metric" | sortByLabel "instance" }}{{ .Labels.instance }};{{ end }}', "a;b;"),
        ('{{ with query "nothing" }}some{{ else }}none{{ end }}', "none"),
        ('{{ if gt $value 1.0 }}high{{ else }}low{{ end }}', "high"),
        ('{{ reReplaceAll "(a)b" "x$1" "abab" }}', "xaxa"),
        ('{{ match "a+" "baa" }} {{ match "^a" "baa" }}', "true false"),
        ('{{ "aa bb CC" | title }} {{ toUpper "ab" }} {{ toLower "AB" }}', "Aa Bb CC AB ab"),
        ('{{ stripPort "host:80" }} {{ stripPort "[::1]:80" }} {{ stripPort "host" }}', "host ::1 host"),
        ('{{ stripDomain "a.b.c:80" }} {{ stripDomain "10.0.0.1:80" }}', "a:80 10.0.0.1:80"),
        ('{{ graphLink "up == 0" }}', "/graph?g0.expr=up+%3D%3D+0&g0.tab=0"),
        ('{{ parseDuration "1h2m" }} {{ now }} {{ urlQueryEscape "a b/c" }}', "3720 1.500000000123e+09 a+b%2Fc"),
        ('{{ (args 5 "x").arg1 }}', "x"),
    ],
)  # fmt: skip
def test_expansion(text: str, expected: str) -> None:
    assert check_template(text) == ""
    assert expand(text, {"instance": "web:80"}, 1.5, CONTEXT) == expected


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (
            "humanize",
            {0.0: "0", 1.0: "1", 1234567.0: "1.235M", 0.12: "120m", 0.000001: "1u", -1500.0: "-1.5k", 1e30: "1e+06Y"},
        ),
        ("humanize1024", {0.0: "0", 1.0: "1", 1048576.0: "1Mi", 0.12: "0.12", 1500.0: "1.465ki"}),
        (
            "humanizeDuration",
            {0.0: "0s", 1.0: "1s", 60.0: "1m 0s", 3600.0: "1h 0m 0s", 86400.0: "1d 0h 0m 0s", 90061.0: "1d 1h 1m 1s",
             -86400.0: "-1d 0h 0m 0s", 899.99: "14m 59s", 0.1: "100ms", 0.0001: "100us", 1.2345: "1.234s"},
        ),
        ("humanizePercentage", {-0.22222: "-22.22%", 0.0: "0%", 0.1234567: "12.35%", 1.23456: "123.5%"}),
        ("humanizeTimestamp", {0.0: "1970-01-01 00:00:00 +0000 UTC", 1.128: "1970-01-01 00:00:01.128 +0000 UTC"}),
    ],
)  # fmt: skip
def test_humanized_numbers(function: str, values: dict[float, str]) -> None:
    for value, expected in values.items():
        assert expand("{{ $value | " + function + " }}", {}, value, CONTEXT) == expected
    for value, expected in ((float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf")):
        shown = expand("{{ $value | " + function + " }}", {}, value, CONTEXT)
        assert shown == expected + ("%" if function == "humanizePercentage" else "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{{ query "nothing" | first | value }}', "first() called on vector with no elements"),
        ('{{ query "other" }}', "cannot run other"),
        ('{{ humanize "soon" }}', '"soon" is not a number'),
        ("{{ if gt $value 1 }}{{ end }}", "incompatible types"),
        ("{{ nosuch }}", 'function "nosuch" not defined'),
    ],
)
def test_an_error_becomes_part_of_the_text(text: str, words: str) -> None:
    shown = expand(text, {}, 1.5, CONTEXT)
    assert shown.startswith("<error expanding template: ") and words in shown


def test_a_template_that_does_not_parse_is_told_when_it_is_read() -> None:
    assert "undefined variable" in check_template("{{ $labls.a }}")
    assert "unclosed action" in check_template("{{ $labels.a ")
