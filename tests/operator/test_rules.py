"""PrometheusRule objects become files, and files ConfigMaps, which the data process reads."""

import asyncio
import json

import pytest

from flyball.errors import ConfigError
from flyball.kube import Informer
from flyball.operator.rules import SIZE_MAX_BYTES, pack, rule_file
from flyball.rules.configmaps import RuleFiles
from flyball.rules.rulefiles import Group, parse_rule_file


def prometheus_rule(*rules: object, **group: object) -> dict[str, object]:
    metadata = {"namespace": "shop", "name": "web", "uid": "1"}
    return {"metadata": metadata, "spec": {"groups": [{"name": "g", "rules": list(rules), **group}]}}


def test_a_rule_object_becomes_a_file_without_what_is_thanos_own() -> None:
    name, text = rule_file(prometheus_rule({"record": "a", "expr": 1}, partial_response_strategy="warn"))
    assert name == "shop-web-1.yaml"
    (group,) = parse_rule_file(text, name)
    assert [rule.name for rule in group.rules] == ["a"]


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (prometheus_rule({"record": "a"}), 'PrometheusRule shop/web: group "g", rule 1, "a": field .expr. must be set'),
        ({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"groups": 5}}, "spec.groups: is not a list"),
        (prometheus_rule({"alert": "A", "expr": "up", "annotations": {"a": "x" * SIZE_MAX_BYTES}}), "is larger than"),
    ],
)
def test_a_wrong_object_is_named(obj: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rule_file(obj)


def test_files_are_packed_in_order_and_none_is_split() -> None:
    assert pack([]) == [{}]
    half = "x" * (SIZE_MAX_BYTES // 2)
    assert [list(one) for one in pack([("c", half), ("a", half), ("b", half)])] == [["a", "b"], ["c"]]
    assert [list(one) for one in pack([("a", "x" * SIZE_MAX_BYTES), ("b", "y")])] == [["a"], ["b"]]


def test_a_file_that_can_no_longer_be_read_keeps_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[Group]] = []

    async def run(informer: Informer[dict[str, object]]) -> None:
        """Three states of the ConfigMaps, as the watch would tell them."""
        good, new = (json.dumps({"groups": [{"name": name, "rules": []}]}) for name in ("g", "h"))
        for data in ({"a": good}, {"a": "groups: 5", "b": new, "c": "groups: 5"}, {"b": new}):
            informer.cache = {("flyball-system", "flyball-rulefiles-0"): {"data": data}}
            for handler in informer._handlers:
                handler("MODIFIED", None, None)

    monkeypatch.setattr(Informer, "run", run)
    asyncio.run(RuleFiles(None).run(found.append))  # type: ignore[arg-type]
    assert [[group.name for group in groups] for groups in found] == [["g"], ["g", "h"], ["h"]]
