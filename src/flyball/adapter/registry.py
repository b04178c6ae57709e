"""Which metrics exist: each rule's series query, named and mapped to resources. One rule's failure is its own."""

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from flyball import clock
from flyball.adapter.confinement import confined_series
from flyball.errors import ConfigError, FlyballError
from flyball.metricrules import (
    AdapterConfig,
    ExternalRule,
    GroupResource,
    MetricRule,
    Refusal,
    ResourceConverter,
    RestMapper,
)
from flyball.metricrules.resources import NAMESPACES
from flyball.model.labels import METRIC_NAME, Labels
from flyball.sources import MetricsSource

QUERIES_AT_ONCE = 8
METRICS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class CustomMetric:
    """A metric of one kind of object."""

    resource: GroupResource
    namespaced: bool
    name: str
    series: str
    rule: MetricRule
    converter: ResourceConverter


@dataclass(frozen=True, slots=True)
class ExternalMetric:
    """A metric of no object. ``converter`` is None when the rule is not bound to namespaces."""

    name: str
    series: str
    rule: ExternalRule
    converter: ResourceConverter | None


@dataclass(slots=True)
class RuleState:
    """What the last listing of one rule gave; ``metrics`` are those of the last good one."""

    rule: MetricRule
    series_matched: int = 0
    custom: list[CustomMetric] = field(default_factory=list)
    external: list[ExternalMetric] = field(default_factory=list)
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    good_ms: int = 0

    def document(self) -> dict[str, Any]:
        """The rule for people and for ``flyball doctor``."""
        names = sorted({metric.name for metric in self.custom} | {metric.name for metric in self.external})
        return {
            "rule": self.rule.where,
            "type": "external" if isinstance(self.rule, ExternalRule) else "custom",
            "seriesQuery": self.rule.series_query,
            "metricsQuery": self.rule.metrics_query.text,
            "seriesMatched": self.series_matched,
            "metrics": names[:100],
            "metricsCount": len(names),
            "error": self.error,
            "warnings": self.warnings,
            "lastGood": clock.rfc3339(self.good_ms) if self.good_ms else None,
        }


class Registry:
    """The metrics of the rules in force."""

    def __init__(self, source_of: Callable[[str], MetricsSource], *, max_age_ms: int) -> None:
        self._source_of, self._max_age_ms = source_of, max_age_ms
        self._states: list[RuleState] = []
        self._refusals: tuple[Refusal, ...] = ()
        # by namespace of the rule's owner first; "" is everybody's
        self._custom: dict[tuple[str, GroupResource, bool, str], CustomMetric] = {}
        self._external: dict[tuple[str, str], ExternalMetric] = {}
        self.relists = 0
        self.relisted_ms = 0

    def set_rules(self, configs: Sequence[AdapterConfig]) -> None:
        """Takes the rules of several configurations, later ones winning; what unchanged rules had found stays."""
        known = {(type(s.rule), s.rule.where, s.rule.series_query, s.rule.metrics_query.text): s for s in self._states}
        states = []
        for config in configs:
            for rule in (*config.rules, *config.external_rules):
                old = known.get((type(rule), rule.where, rule.series_query, rule.metrics_query.text))
                same = old is not None and old.rule.resources.overrides == rule.resources.overrides
                states.append(old if old is not None and same and _same_names(old.rule, rule) else RuleState(rule))
        self._states = states
        self._refusals = tuple(refusal for config in configs for refusal in config.refusals)
        self._merge()

    @property
    def has_rules(self) -> bool:
        return bool(self._states)

    def custom(self, resource: GroupResource, namespaced: bool, name: str, namespace: str = "") -> CustomMetric | None:
        """The metric that a request from a namespace means: of a rule of that namespace, else of everybody's."""
        own = self._custom.get((namespace, resource, namespaced, name)) if namespace else None
        return own or self._custom.get(("", resource, namespaced, name))

    def external(self, name: str, namespace: str = "") -> ExternalMetric | None:
        """As ``custom``."""
        own = self._external.get((namespace, name)) if namespace else None
        return own or self._external.get(("", name))

    def custom_metrics(self) -> Iterable[CustomMetric]:
        """Sorted, each name once, so that discovery is stable."""
        found = {key[1:]: self._custom[key] for key in sorted(self._custom, reverse=True)}
        return [found[key] for key in sorted(found)]

    def external_metrics(self) -> Iterable[ExternalMetric]:
        """As ``custom_metrics``."""
        found = {key[1]: self._external[key] for key in sorted(self._external, reverse=True)}
        return [found[name] for name in sorted(found)]

    def names(self) -> Set[str]:
        """Of all metrics, custom and external."""
        return {key[-1] for key in self._custom} | {key[-1] for key in self._external}

    def documents(self) -> list[dict[str, Any]]:
        """Every rule with what it found, and the refused ones."""
        refused = [{"rule": item.where, "type": "refused", "error": item.message} for item in self._refusals]
        return [state.document() for state in self._states] + refused

    def errors(self) -> list[str]:
        return [f"{state.rule.where}: {state.error}" for state in self._states if state.error]

    async def relist(self, mapper: RestMapper, now_ms: int) -> bool:
        """Asks the source which series exist. Returns whether every rule could be listed."""
        states = self._states
        limit = asyncio.Semaphore(QUERIES_AT_ONCE)

        async def fetch(asked: tuple[str, str]) -> list[Labels] | FlyballError:
            source, match = asked
            async with limit:
                try:
                    return await self._source_of(source).series(match, now_ms - self._max_age_ms, now_ms)
                except FlyballError as exc:
                    return exc

        asked = [(state.rule.options.source, confined_series(state.rule)) for state in states]
        wanted = list(dict.fromkeys(asked))
        answers = dict(zip(wanted, await asyncio.gather(*map(fetch, wanted)), strict=True))
        for state, key in zip(states, asked, strict=True):
            answer = answers[key]
            if isinstance(answer, FlyballError):
                state.error = f"seriesQuery: {answer}"
                continue
            try:
                _list_rule(state, answer, mapper)
                state.error, state.good_ms = "", now_ms
            except ConfigError as exc:
                state.error = str(exc)
        self._merge()
        self.relists += 1
        self.relisted_ms = now_ms
        return not any(state.error for state in states)

    def _merge(self) -> None:
        custom: dict[tuple[str, GroupResource, bool, str], CustomMetric] = {}
        external: dict[tuple[str, str], ExternalMetric] = {}
        for state in self._states:
            owner = state.rule.namespace
            state.warnings = [text for text in state.warnings if not text.startswith("overlap: ")]
            hidden: dict[str, str] = {}
            for metric in state.custom:
                key = (owner, metric.resource, metric.namespaced, metric.name)
                before = custom.get(key)
                if before is not None and before.rule.where != metric.rule.where:
                    hidden[before.rule.where] = metric.name
                if before is not None or len(custom) < METRICS_MAX:
                    custom[key] = metric
            for found in state.external:
                earlier = external.get((owner, found.name))
                if earlier is not None and earlier.rule.where != found.rule.where:
                    hidden[earlier.rule.where] = found.name
                if earlier is not None or len(external) < METRICS_MAX:
                    external[owner, found.name] = found
            state.warnings += [
                f'overlap: "{name}" is also given by {where}, which this later rule hides; narrow one seriesQuery'
                for where, name in hidden.items()
            ]
        self._custom, self._external = custom, external


def _same_names(old: MetricRule, new: MetricRule) -> bool:
    def text(rule: MetricRule) -> object:
        filters = [(item.regex.pattern, item.negate) for item in rule.namer.filters]
        template = rule.resources.template.text if rule.resources.template else ""
        return filters, rule.namer.regex.pattern, rule.namer.template, template, rule.resources.namespaced, rule.options

    return text(old) == text(new)


def _list_rule(state: RuleState, series: Sequence[Labels], mapper: RestMapper) -> None:
    rule = state.rule
    converter = ResourceConverter(rule.resources, mapper, f"{rule.where}: resources")
    shapes = {
        (dict(labels).get(METRIC_NAME, ""), tuple(name for name, _ in labels if name != METRIC_NAME))
        for labels in series
    }
    named = {}
    for series_name, labels in sorted(shapes):
        name = rule.namer.metric_name(series_name) if series_name else None
        if name is not None and "/" not in name:
            named[series_name, labels] = name
    external: dict[str, ExternalMetric] = {}
    custom: dict[tuple[GroupResource, bool, str], CustomMetric] = {}
    warnings: list[str] = []
    unmapped = set()
    for (series_name, labels), name in named.items():
        if isinstance(rule, ExternalRule):
            external[name] = ExternalMetric(name, series_name, rule, converter if rule.resources.namespaced else None)
            continue
        found = {resource for label in labels if (resource := converter.resource_of(label)) is not None}
        if not found:
            unmapped.add(series_name)
        for resource in found:
            kind = mapper.find(resource.group, resource.resource)
            namespaced = kind is None or kind.namespaced
            if rule.namespace and not namespaced and resource != NAMESPACES:
                continue  # a team's rule speaks of no node
            key = (resource, namespaced, name)
            custom[key] = CustomMetric(resource, namespaced, name, series_name, rule, converter)
    if not series:
        warnings.append("seriesQuery matches no series; check the selector, and that a target is scraped for it")
    elif not named:
        warnings.append(f"seriesQuery matches {len(series)} series, but seriesFilters and name.matches take none")
    if unmapped:
        warnings.append(
            f"no label of {', '.join(sorted(unmapped)[:5])} names a Kubernetes resource; "
            "add its labels to resources.overrides"
        )
    mapped = rule.resources.overrides or rule.resources.template is not None
    if isinstance(rule, ExternalRule) and rule.resources.namespaced and not mapped:
        warnings.append("no label names the namespace; add resources.overrides, or set resources.namespaced: false")
    state.series_matched = len(series)
    state.custom, state.external, state.warnings = list(custom.values()), list(external.values()), warnings
