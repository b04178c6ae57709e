import pytest

from flyball.metricrules.gotemplate import Struct, Template, TemplateError, go_quote

DATA = Struct(
    Series="m", LabelMatchers='a="b"', LabelValuesByName={"b": "2", "a": "1"}, GroupBy="a,b", GroupBySlice=["a", "b"]
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)", 'sum(m{a="b"}) by (a,b)'),
        ("<<.GroupBySlice>>", "[a b]"),
        ("<<.LabelValuesByName>>", "map[a:1 b:2]"),
        ("<<.LabelValuesByName.a>>|<<.LabelValuesByName.none>>", "1|"),
        ('<<index .LabelValuesByName "b">>', "2"),
        ("<<index .GroupBySlice 1>>", "b"),
        ("<<range $i, $l := .GroupBySlice>><<if $i>>,<<end>><<$l>><<end>>", "a,b"),
        ("<<range $k, $v := .LabelValuesByName>><<$k>>=<<$v>>;<<end>>", "a=1;b=2;"),
        ("<<range .GroupBySlice>>[<<.>>]<<end>>", "[a][b]"),
        ("<<range .LabelValuesByName.none>>x<<else>>none<<end>>", None),
        ('<<if eq .Series "x" "m">>yes<<else>>no<<end>>', "yes"),
        ('<<if eq .Series "x">>1<<else if and .Series (not false)>>2<<else>>3<<end>>', "2"),
        ("<<len .GroupBySlice>>", "2"),
        ('<<printf "%s-%q-%d-%5s|%%" .Series .GroupBy 3 "ab">>', 'm-"a,b"-3-   ab|%'),
        ("a <<- .Series ->> b", "amb"),
        ("a<</* note */>>b", "ab"),
        ("<<with .LabelValuesByName.a>><<.>><<$.Series>><<end>>", "1m"),
        ('<<$x := "q">><<$x>><<$x = "r">><<$x>>', "qr"),
        ('<<.Series | printf "%s=%s" "k">>', "k=m"),
        ("<<or .LabelValuesByName.none .Series>>", "m"),
        ("<<`raw>>`>>", "raw>>"),
        ('<<range .GroupBySlice>><<if eq . "b">><<break>><<end>><<.>><<end>>', "a"),
    ],
)
def test_renders_as_go(template: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(TemplateError):
            Template(template).render(DATA)
    else:
        assert Template(template).render(DATA) == expected


@pytest.mark.parametrize(
    "template",
    ["<<.Series", "<<if .Series>>x", "<<end>>", "<<upper .Series>>", "<<$x>>", "<<>>", '<<template "x">>', "<<break>>"],
)
def test_refuses_when_parsed(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template)


def test_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(TemplateError, match=r"no field \.LabelMatchersByName; known are \.Series"):
        Template("<<.LabelMatchersByName>>").render(DATA)


def test_quotes_as_go() -> None:
    assert go_quote('a"\\\n\x00é') == '"a\\"\\\\\\n\\x00é"'
