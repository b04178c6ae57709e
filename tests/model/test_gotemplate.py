from typing import ClassVar

import pytest

from flyball.model.gofunctions import Methods, SafeHtml
from flyball.model.gotemplate import Struct, Template, TemplateError, go_quote, go_string

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
    [
        "<<.Series",
        "<<if .Series>>x",
        "<<end>>",
        "<<upper .Series>>",
        "<<$x>>",
        "<<>>",
        "<<template x>>",
        "<<break>>",
        '<<define "x">>',
    ],
)
def test_refuses_when_parsed(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('<<define "x">>[<<.>>]<<end>><<template "x" .Series>>', "[m]"),
        ('<<template "x" .>><<define "x">><<.Series>><<end>>', "m"),
        ('<<$v := 1>><<block "x" .GroupBySlice>><<range .>><<.>>;<<end>><<end>>', "a;b;"),
        ('<<define "x">>old<<end>><<define "x">>new<<end>><<define "x">><<end>><<template "x">>', "new"),
        ('<<define "x">><<$.Series>><<end>><<range .GroupBySlice>><<template `x` $>><<end>>', "mm"),
    ],
)
def test_templates_call_each_other_by_name(template: str, expected: str) -> None:
    assert Template(template).render(DATA) == expected


def test_a_template_that_is_missing_or_endless_is_an_error() -> None:
    with pytest.raises(TemplateError, match='template "x" is not defined'):
        Template('<<template "x">>').render(DATA)
    with pytest.raises(TemplateError, match="calls itself more than"):
        Template('<<define "x">><<template "x">><<end>><<template "x">>').render(DATA)


class Pairs(list[str], Methods):
    METHODS: ClassVar = {
        "First": lambda pairs: pairs[0],
        "Without": lambda pairs, *gone: [p for p in pairs if p not in gone],
    }

    def __str__(self) -> str:
        return ", ".join(self)


def test_methods_are_called_with_their_arguments() -> None:
    data = Struct(Pairs=Pairs(["a", "b"]))
    assert Template('<<.Pairs>> <<.Pairs.First>> <<.Pairs.Without "a">> <<"b" | .Pairs.Without>>').render(data) == (
        "a, b a [b] [a]"
    )
    with pytest.raises(TemplateError, match="not a method"):
        Template("<<.Pairs.Second 1>>").render(data)


def test_html_is_escaped_but_not_what_is_safe() -> None:
    template = Template("<b><<.>></b><<safe .>>", functions={"safe": SafeHtml})
    assert template.render("<i>\"1+1'&", html=True) == "<b>&lt;i&gt;&#34;1&#43;1&#39;&amp;</b><i>\"1+1'&"


def test_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(TemplateError, match=r"no field \.LabelMatchersByName; known are \.Series"):
        Template("<<.LabelMatchersByName>>").render(DATA)


def test_quotes_as_go() -> None:
    assert go_quote('a"\\\n\x00é') == '"a\\"\\\\\\n\\x00é"'


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (1.0, "1"),
        (0.5, "0.5"),
        (1e5, "100000"),
        (1234567.0, "1.234567e+06"),
        (1e20, "1e+20"),
        (123456789.0, "1.23456789e+08"),
        (1e-4, "0.0001"),
        (1.234e-7, "1.234e-07"),
        (0.1 + 0.2, "0.30000000000000004"),
        (-2.0, "-2"),
        (2.5e100, "2.5e+100"),
        (0.0, "0"),
        (float("inf"), "+Inf"),
    ],
)
def test_floats_print_as_gos_fmt_prints_them(value: float, printed: str) -> None:
    assert go_string(value) == printed


def test_float_verbs_delimiters_variables_and_functions_of_the_caller() -> None:
    verbs = "%.2f|%6.1f|%-6.1f|%e|%g|%+.1f|%06.2f|%.3g"
    text = f'{{{{ printf "{verbs}" $v 2.5 2.5 1.0 100000.0 3.0 3.14159 1234567.0 }}}} {{{{ twice 3 }}}}'
    template = Template(text, delimiters=("{{", "}}"), variables=["$v"], functions={"twice": lambda x: 2 * x})
    rendered = template.render({}, {"$v": 1.005})
    assert rendered == "1.00|   2.5|2.5   |1.000000e+00|100000|+3.0|003.14|1.23e+06 6"
    with pytest.raises(TemplateError, match=r'undefined variable "\$w" in "{{\$w}}"'):
        Template("{{$w}}", delimiters=("{{", "}}"))
