"""Rules in CEL of custom resources: what they refuse, what they are about, and what they leave alone."""

from typing import Any

import pytest

from flyball.localcluster.schema import rules, structural

SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "size": {"type": "integer"},
        "replicas": {"type": "integer"},
        "class": {
            "type": "string",
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "class may not change", "reason": "FieldValueForbidden"}
            ],
        },
        "parts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": {"type": "string"}},
                "x-kubernetes-validations": [{"rule": "self.id.startsWith('p')"}],
            },
        },
        "odd": {
            "type": "string",
            "x-kubernetes-validations": [
                {"rule": "isURL(self)", "message": "only Kubernetes' own library knows isURL"}
            ],
        },
    },
    "x-kubernetes-validations": [
        {"rule": "!has(self.replicas) || self.replicas <= self.size", "message": "replicas may not exceed size"}
    ],
}
SCHEMA = {"type": "object", "properties": {"spec": SPEC}}


def problems(spec: Any, old: Any = None) -> list[str]:
    before = None if old is None else {"metadata": {}, "spec": old}
    return [cause.message for cause in structural.validate(SCHEMA, {"metadata": {}, "spec": spec}, before)]


def test_a_rule_holds_or_says_why_not() -> None:
    assert problems({"size": 3}) == problems({"size": 3, "replicas": 3}) == []
    assert problems({"size": 3, "replicas": 4}) == ["spec: Invalid value: replicas may not exceed size"]
    assert problems({"parts": [{"id": "p"}, {"id": "x"}]}) == [
        "spec.parts[1]: Invalid value: failed rule: self.id.startsWith('p')"
    ]


def test_rules_about_the_old_object_hold_on_updates_only() -> None:
    assert problems({"class": "a"}) == problems({"class": "a"}, {"class": "a"}) == []
    assert problems({"class": "a"}, {"size": 1}) == [], "the field is new"
    assert problems({"class": "b"}, {"class": "a"}) == ["spec.class: Forbidden: class may not change"]


def test_what_cannot_be_decided_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems({"odd": "x"}) == []
    assert problems({"replicas": 4}) == [], "the rule reads a field that is not there"
    monkeypatch.setattr(rules, "_cel", lambda: None)
    assert problems({"size": 3, "replicas": 4}) == []
