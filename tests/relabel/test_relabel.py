import pytest

from flyball.model.scrapeconfigs import RelabelConfig
from flyball.relabel import relabel

LABELS = {"a": "foo", "b": "bar", "c": "baz"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            RelabelConfig(("a",), regex="f(.*)", target_label="d", replacement="ch${1}-ch${1}"),
            {**LABELS, "d": "choo-choo"},
        ),
        (
            RelabelConfig(("a", "b"), regex="f(.*);(.*)r", target_label="a", replacement="b${1}${2}m"),
            {**LABELS, "a": "boobam"},
        ),
        (RelabelConfig(("a",), regex="o", target_label="d"), LABELS),  # anchored
        (RelabelConfig(("a",), regex=".*", target_label="a", replacement=""), {"b": "bar", "c": "baz"}),
        (RelabelConfig(("a",), regex="(f).*", target_label="d", replacement="$1x"), LABELS),  # $1x is no group
        (RelabelConfig(("a",), regex="(?P<n>f).*", target_label="d", replacement="${n}$$"), {**LABELS, "d": "f$"}),
        (RelabelConfig(("a",), regex="foo", action="drop"), None),
        (RelabelConfig(("a",), regex="fo", action="keep"), None),
        (RelabelConfig(("a",), regex=".*o", action="keep"), LABELS),
        (RelabelConfig(("c",), target_label="d", action="hashmod", modulus=1000), {**LABELS, "d": "976"}),
        (RelabelConfig(regex="(b|c)", replacement="x_$1", action="labelmap"), {**LABELS, "x_b": "bar", "x_c": "baz"}),
        (RelabelConfig(regex="a|b", action="labeldrop"), {"c": "baz"}),
        (RelabelConfig(regex="a|b", action="labelkeep"), {"a": "foo", "b": "bar"}),
        (RelabelConfig(("a",), target_label="u", action="uppercase"), {**LABELS, "u": "FOO"}),
        (RelabelConfig(("a", "b"), separator="-X", target_label="u", action="lowercase"), {**LABELS, "u": "foo-xbar"}),
        (RelabelConfig(("a",), target_label="b", action="keepequal"), None),
        (RelabelConfig(("a",), target_label="b", action="dropequal"), LABELS),
        (RelabelConfig(("x",), regex="^$", action="drop"), None),  # an absent label is empty
    ],
)
def test_actions(rule, expected) -> None:
    before = dict(LABELS)
    assert relabel(LABELS, [rule]) == expected
    assert before == LABELS
