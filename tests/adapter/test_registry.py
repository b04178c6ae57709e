"""Which metrics exist: upstream's registry cases, and one rule's failure is its own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flyball.adapter.registry import Registry
from flyball.errors import UpstreamError
from flyball.metricrules import Kind, KindTable, custom_query, parse_config
from flyball.model.labels import labels_of
from flyball.model.selectors import parse_selector
from flyball.model.yaml_loader import load_yaml

DATA: Any = load_yaml((Path(__file__).parents[1] / "metricrules" / "upstream_cases.yaml").read_text())


class Source:
    """Answers upstream's two series queries by the prefix they ask for; ``failing`` is a query that fails."""

    failing = ""

    async def series(self, match: str, start_ms: int, end_ms: int) -> Any:
        if match == self.failing:
            raise UpstreamError("no answer")
        of_containers = match.startswith('{__name__=~"^container')
        return [labels_of(s) for s in DATA["Series"] if s["__name__"].startswith("container_") == of_containers]

    async def query(self, expr: str, at_ms: int) -> Any:
        raise AssertionError("listing asks for series only")


def kinds() -> KindTable:
    found = []
    for text in DATA["Kinds"]:
        group, _, kind = text.removeprefix("-").rpartition("/")
        plural = kind.lower() + ("es" if kind.endswith("s") else "s")
        found.append(Kind(group, "v1", kind, plural, kind.lower(), not text.startswith("-")))
    return KindTable(found)


def listed(source: Source | None = None, config: str | None = None) -> Registry:
    asked = source or Source()
    registry = Registry(lambda _: asked, max_age_ms=60_000)
    registry.set_rules([parse_config(config or DATA["DefaultConfig"])])
    asyncio.run(registry.relist(kinds(), 1_000_000))
    return registry


@pytest.mark.parametrize("case", DATA["SeriesRegistry"], ids=[case["name"] for case in DATA["SeriesRegistry"]])
def test_series_registry(case: Any) -> None:
    resource, _, name = case["metric"].partition("/")
    singular, _, group = resource.partition(".")
    kind = kinds().find(group, singular)
    assert kind is not None
    metric = listed().custom(kind.group_resource, kind.namespaced, name)
    assert metric is not None
    query = custom_query(
        metric.rule.metrics_query,
        "rule",
        metric.converter,
        metric.series,
        kind.group_resource,
        case.get("namespace", ""),
        case["names"],
        parse_selector(case.get("selector", "")).requirements,
    )
    assert query.expr == case["want"]


def test_should_list_all_metrics() -> None:
    found = [f"{'' if m.namespaced else '-'}{m.resource}/{m.name}" for m in listed().custom_metrics()]
    assert sorted(found) == sorted(DATA["ListAllMetrics"])


def test_a_failing_rule_keeps_what_it_had_and_disturbs_no_other() -> None:
    source = Source()
    registry = listed(source)
    before = [m.name for m in registry.custom_metrics()]
    source.failing = '{kube_namespace!="",__name__!~"^container_.*"}'
    assert not asyncio.run(registry.relist(kinds(), 2_000_000))
    assert [m.name for m in registry.custom_metrics()] == before
    assert [d["lastGood"][-9:] for d in registry.documents()] == ["00:33:20Z"] * 3 + ["00:16:40Z"] * 3
    assert "no answer" in registry.errors()[0]


def test_overlapping_rules_the_later_wins_and_both_are_named() -> None:
    twice = DATA["DefaultConfig"] + DATA["DefaultConfig"].removeprefix("rules:\n")
    warnings = [text for document in listed(config=twice).documents() for text in document.get("warnings", ())]
    assert any('"some_time" is also given by config: rules[0]' in text for text in warnings)
