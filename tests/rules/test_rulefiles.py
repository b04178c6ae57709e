"""Rule files: what is read and what is refused. ``rulefmt/`` is upstream's test data (Apache-2.0)."""

from pathlib import Path

import pytest

from flyball.errors import ConfigError
from flyball.rules.rulefiles import AlertingRule, RecordingRule, parse_rule_file

RULEFMT = Path(__file__).parent / "rulefmt"
BAD = {
    "bad_expr.bad.yaml": 'group "yolo", rule 1, "yolo": could not parse expression: 1:6: parse error: expected type',
    "bad_field.bad.yaml": 'unknown field "annotation"',
    "duplicate_grp.bad.yaml": 'groupname: "yolo" is repeated in the same file',
    "invalid_label_name.bad.yaml": "invalid label name: __name__",
    "invalid_record_name.bad.yaml": "braces present in the recording rule name; should it be in expr?",
    "no_rec_alert.bad.yaml": "one of 'record' or 'alert' must be set",
    "noexpr.bad.yaml": "field 'expr' must be set in rule",
    "record_and_alert.bad.yaml": "only one of 'record' and 'alert' must be set",
    "record_and_for.bad.yaml": "invalid field 'for' in recording rule",
    "record_and_keep_firing_for.bad.yaml": "invalid field 'keep_firing_for' in recording rule",
    "test_aliases.yaml": "line 7: an alias",  # refused everywhere in Flyball
}
LEGACY_NAMES = {"legacy_validation_annotation.bad.yaml"}  # wrong only under the naming scheme before UTF-8


@pytest.mark.parametrize("file", sorted(RULEFMT.iterdir()), ids=lambda file: file.name)
def test_upstreams_files(file: Path) -> None:
    if file.name in BAD:
        with pytest.raises(ConfigError) as caught:
            parse_rule_file(file.read_text(), "rules.yaml")
        assert str(caught.value).startswith("rules.yaml: ")
        assert BAD[file.name] in str(caught.value)
    else:
        assert ".bad." not in file.name or file.name in LEGACY_NAMES
        assert parse_rule_file(file.read_text(), "rules.yaml")


def test_a_group_gives_its_rules_what_they_do_not_say() -> None:
    text = """
groups:
  - name: g
    interval: 10s
    query_offset: 1m
    limit: 3
    labels: {team: a, tier: web}
    rules:
      - {record: "a:b", expr: 1, labels: {team: b, number: 5, yes: true}}
      - {alert: A, expr: up == 0, for: 2m, keep_firing_for: 1m, annotations: {text: "{{ $value }}"}}
  - {name: h}
"""
    first, second = parse_rule_file(text, "f", interval_ms=30_000, query_offset_ms=7)
    assert (first.interval_ms, first.query_offset_ms, first.limit, first.key) == (10_000, 60_000, 3, "f;g")
    assert (second.interval_ms, second.query_offset_ms, second.rules) == (30_000, 7, ())
    recording, alerting = first.rules
    assert isinstance(recording, RecordingRule) and isinstance(alerting, AlertingRule)
    assert dict(recording.labels) == {"team": "b", "tier": "web", "number": "5", "yes": "true"}
    assert (alerting.for_ms, alerting.keep_firing_for_ms) == (120_000, 60_000)
    assert dict(alerting.labels) == {"team": "a", "tier": "web"}


def test_every_error_of_a_file_is_told() -> None:
    text = """
groups:
  - name: g
    interval: soon
    limit: -1
    rules:
      - {record: r, expr: "sum("}
      - {alert: A, expr: up, annotations: {text: "{{ $valu }}"}}
      - 5
"""
    with pytest.raises(ConfigError) as caught:
        parse_rule_file(text, "f.yaml")
    lines = str(caught.value).splitlines()
    for part in (
        'interval: "soon"',
        'limit: "-1"',
        'rule 1, "r": could not parse',
        "undefined variable",
        "rule 3: is not",
    ):
        assert any(part in line and line.startswith('f.yaml: group "g"') for line in lines), (part, lines)


@pytest.mark.parametrize("text", ["5", "groups: 5", "groups: [5]", "group: []", "groups: [{rules: []}]"])
def test_what_is_no_rule_file_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f: "):
        parse_rule_file(text, "f")


def test_an_empty_file_has_no_groups() -> None:
    assert parse_rule_file("", "f") == parse_rule_file("groups: []", "f") == ()
