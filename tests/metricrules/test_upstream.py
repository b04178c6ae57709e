"""prometheus-adapter's own cases of rendered queries, under upstream's names."""

from pathlib import Path
from typing import Any

import pytest

from flyball.metricrules import (
    GroupResource,
    KindTable,
    ResourceConverter,
    Template,
    custom_query,
    external_query,
    parse_config,
)
from flyball.metricrules.resources import BUILT_IN_KINDS, ResourceMapping
from flyball.model.selectors import parse_selector
from flyball.model.yaml_loader import load_yaml

DATA: Any = load_yaml((Path(__file__).parent / "upstream_cases.yaml").read_text())


class NamedAfterTheResource(ResourceConverter):
    def __init__(self) -> None:
        super().__init__(ResourceMapping(), KindTable(BUILT_IN_KINDS))

    def label_of(self, resource: GroupResource) -> str:
        return resource.resource


def cases(section: str) -> Any:
    return pytest.mark.parametrize("case", DATA[section], ids=[case["name"] for case in DATA[section]])


@cases("TestBuildSelector")
def test_build_selector(case: Any) -> None:
    query = custom_query(
        Template(case["template"]),
        "rule",
        NamedAfterTheResource(),
        case.get("series", ""),
        GroupResource("group", "resource"),
        case.get("namespace", ""),
        case.get("names", []),
        parse_selector(case.get("selector", "")).requirements,
        tuple(case.get("groupBy", ())),
    )
    assert query.expr == case["want"]


@cases("TestBuildExternalSelector")
def test_build_external_selector(case: Any) -> None:
    query = external_query(
        Template(case["template"]),
        "rule",
        NamedAfterTheResource() if case.get("namespaced", True) else None,
        case.get("series", ""),
        case.get("namespace", ""),
        parse_selector(case.get("selector", "")).requirements,
        tuple(case.get("groupBy", ())),
    )
    assert query.expr == case["want"]


@cases("TestReMatcher")
def test_re_matcher(case: Any) -> None:
    config = parse_config(f"rules: [{{seriesQuery: x, metricsQuery: y, seriesFilters: [{case['filter']}]}}]")
    assert bool(config.refusals) == case.get("refused", False)
    for rule in config.rules:
        assert all(rule.namer.metric_name(name) == name for name in case["takes"])
        assert not any(rule.namer.metric_name(name) for name in case["leaves"])
