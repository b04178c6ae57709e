import pytest

from flyball.errors import QueryError
from flyball.model.selectors import EVERYTHING, NOTHING, parse_selector, selector_of, selector_of_labels


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=b", {}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a!=", {"a": ""}, False),
        ("c in (x,y)", {"c": "y"}, True),
        ("c in (x, y )", {"c": "z"}, False),
        ("c notin (x,y)", {}, True),
        ("c notin (x,y)", {"c": "x"}, False),
        ("c in ()", {"c": ""}, True),
        ("c in (x,)", {"c": ""}, True),
        ("d", {"d": ""}, True),
        ("d", {}, False),
        ("!d", {}, True),
        ("! d", {"d": "1"}, False),
        ("a=b,c in (x,y),!d", {"a": "b", "c": "x"}, True),
        ("a=b,c in (x,y),!d", {"a": "b", "c": "x", "d": "1"}, False),
        ("n>3", {"n": "4"}, True),
        ("n>3", {"n": "x"}, False),
        ("n<3", {"n": "2"}, True),
        ("app.kubernetes.io/name=web", {"app.kubernetes.io/name": "web"}, True),
        ("in=in", {"in": "in"}, True),
    ],
)
def test_a_string_selector_matches_as_upstream(text, labels, expected):
    assert parse_selector(text).matches(labels) is expected


@pytest.mark.parametrize(
    "text", ["", "a=b", "a!=b", "c in (x,y)", "c notin (x,y)", "d", "!d", "n>3", "n<3", "!d,a=b,c in (x,y)"]
)
def test_the_string_form_parses_back(text):
    selector = parse_selector(text)
    assert parse_selector(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in x", "found 'x' expected: '('"),
        ("a in (x", "found '', expected: ',', or identifier"),
        ("a in (x y)", "found 'y', expected: ',' or ')'"),
        ("a foo b", "found 'foo', expected: in, notin, =, ==, !=, gt, lt"),
        ("a==(b", "found '(', expected: identifier"),
        ("n>x", "for 'Gt', 'Lt' operators, the value must be an integer"),
        ("/x=y", "prefix part must be non-empty"),
        ("-a=y", 'key: Invalid value: "-a": name part must consist of'),
        ("a=-b", 'values[0][a]: Invalid value: "-b": a valid label must be an empty string or consist of'),
        ("a=" + "b" * 64, "must be no more than 63 characters"),
    ],
)
def test_a_bad_selector_is_refused_in_upstream_words(text, wording):
    with pytest.raises(QueryError) as caught:
        parse_selector(text)
    assert str(caught.value).startswith("unable to parse requirement: ")
    assert wording in str(caught.value)


def test_a_selector_object_joins_labels_and_expressions():
    selector = selector_of(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert str(selector) == "app=web,!old,tier in (a,b)"
    assert selector.matches({"app": "web", "tier": "a"})
    assert not selector.matches({"app": "web", "tier": "a", "old": ""})


def test_null_selects_nothing_and_empty_everything():
    assert selector_of(None) is NOTHING
    assert not NOTHING.matches({})
    assert selector_of({}) == EVERYTHING
    assert EVERYTHING.matches({"a": "b"})
    assert selector_of_labels({}) is NOTHING
    assert not parse_selector(str(NOTHING)).matches({"nothing": ""})
    assert not parse_selector(str(NOTHING)).matches({})


@pytest.mark.parametrize(
    ("expression", "wording"),
    [
        ({"key": "a", "operator": "Equals"}, '"Equals" is not a valid label selector operator'),
        ({"key": "a", "operator": "In"}, "values set can't be empty"),
        ({"key": "a", "operator": "Exists", "values": ["x"]}, "values set must be empty for exists and does not exist"),
    ],
)
def test_a_bad_selector_object_is_refused(expression, wording):
    with pytest.raises(QueryError, match=wording.replace("[", "\\[")):
        selector_of({"matchExpressions": [expression]})
