"""The adapter: rules in force, objects known, and the values of metrics asked for."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from flyball import clock
from flyball.adapter.configuration import Configuration
from flyball.adapter.confinement import confined_query
from flyball.adapter.defaults import DEFAULT_CONFIG
from flyball.adapter.evaluation import Dated, Evaluation, Limits
from flyball.adapter.kinds import ServedKinds, resource_of
from flyball.adapter.objects import Objects
from flyball.adapter.registry import CustomMetric, Registry
from flyball.adapter.sharing import shared_custom
from flyball.adapter.tenants import TenantRules
from flyball.adapter.unknown import UnknownMetrics
from flyball.adapter.usage import ResourceUsage
from flyball.adapter.values import MetricValue, ObjectUsage
from flyball.errors import NotFoundError
from flyball.kube import KubeClient
from flyball.kube.kinds import NODES, PODS
from flyball.metricrules import Kind, ResourceRules, RestMapper, RuleOptions
from flyball.metricrules.queries import custom_query, external_query
from flyball.metricrules.resources import NAMESPACES
from flyball.model.selectors import Selector
from flyball.sources import MetricsSource, SourceSet

log = logging.getLogger(__name__)

RETRY_MIN_S = 1.0
EARLY_RELIST_MIN_S = 2.0
SERIES_PER_METRIC_MAX = 10_000


class UnknownMetricError(NotFoundError):
    """No rule gives the metric; another adapter might."""


class Adapter:
    """Answers the metrics APIs from a PromQL source.

    Args:
        config_text: the base configuration; None is the built-in one.
        config_name: names it in messages.
        relist_interval_s: how often series are listed; a failure is retried after 1 s, 2 s, 4 s...
        max_age_ms: a series seen this recently is listed.
        staleness_ms: a value whose newest sample is older is not served.
        share_s: for how long an answer to one query for all objects serves all who ask.
        watch_config_maps: whether rules also come from labelled ConfigMaps and MetricRules.
        config_map_namespace: whose labelled ConfigMaps; None is every namespace's.
        namespace_label: the label that confines MetricRules to their namespace.

    Raises:
        ConfigError: the base configuration as a whole cannot be read.
    """

    def __init__(
        self,
        client: KubeClient,
        source: MetricsSource,
        config_text: str | None = None,
        *,
        before: str = "",
        config_name: str = "config",
        relist_interval_s: float = 15.0,
        max_age_ms: int = 600_000,
        staleness_ms: int = 300_000,
        share_s: float = 0.5,
        watch_config_maps: bool = True,
        config_map_namespace: str | None = None,
        namespace_label: str = "namespace",
    ) -> None:
        self._relist_interval_s, self._staleness_ms = relist_interval_s, staleness_ms
        self._sources = SourceSet(source)
        self._registry = Registry(self._sources.get, max_age_ms=max_age_ms)
        self._evaluation = Evaluation(self._sources.get, share_s)
        self._objects = Objects(client)
        self._pods = self._objects.collection(PODS)
        self._kinds = ServedKinds(client)
        self._wake = asyncio.Event()
        self._listed_once = False
        self._unknown = UnknownMetrics(EARLY_RELIST_MIN_S, max(relist_interval_s, EARLY_RELIST_MIN_S))
        self._counts = dict.fromkeys(("requests", "early_relists"), 0)
        self._configuration = Configuration(
            client,
            DEFAULT_CONFIG if config_text is None else config_text,
            before=before,
            changed=self._apply,
            what=config_name,
            watch_config_maps=watch_config_maps,
            namespace=config_map_namespace,
        )
        self._tenants = TenantRules(client, self._apply, namespace_label) if watch_config_maps else None
        self._apply()

    # -- configuration ---------------------------------------------------------------------------------------------

    def set_config(self, text: str, what: str = "config") -> None:
        """Replaces the base configuration at once.

        Raises:
            ConfigError: the text as a whole cannot be read; the old configuration stays.
        """
        self._configuration.set_base(text, what)

    def _apply(self) -> None:
        self._sources.apply(self._configuration.sources)
        tenants = [self._tenants.config] if self._tenants is not None else []
        self._registry.set_rules([*self._configuration.all, *tenants])
        self._evaluation.forget()
        self._unknown.forget()
        self._listed_once = False
        self._wake.set()

    @property
    def resource_rules(self) -> ResourceRules | None:
        """Those in force."""
        return self._configuration.resource_rules

    @property
    def compatibility(self) -> frozenset[str]:
        """The switches that are on."""
        return self._configuration.compatibility

    def _limits(self, where: str, options: RuleOptions, *, custom: bool = False) -> Limits:
        on = self._configuration.compatibility
        staleness_ms = None if "anyAge" in on else (options.max_age_ms or self._staleness_ms)
        return Limits(where, options, staleness_ms, request_time=custom and "requestTimeAsTimestamp" in on)

    # -- running ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps objects, kinds, configuration and metrics current until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._objects.start()
                group.create_task(self._configuration.run(), name="adapter config maps")
                group.create_task(self._kinds.run(), name="adapter kinds")
                if self._tenants is not None:
                    group.create_task(self._tenants.run(), name="adapter metric rules")
                group.create_task(self._keep_listed(), name="adapter relist")
        finally:
            await self._objects.close()

    async def _keep_listed(self) -> None:
        delay_s = RETRY_MIN_S
        while True:
            self._wake.clear()
            good = await self.relist()
            found = bool(self._registry.custom_metrics() or self._registry.external_metrics())
            # Before the first success, and while there is nothing, an application may be just starting.
            delay_s = self._relist_interval_s if good and found else min(delay_s * 2, self._relist_interval_s)
            if not self._listed_once:
                delay_s = RETRY_MIN_S
            self._listed_once = self._listed_once or good
            try:
                async with asyncio.timeout(delay_s):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._wake.wait()
                delay_s = RETRY_MIN_S
            except TimeoutError:
                pass

    async def refresh(self) -> None:
        """Reads the kinds and lists the series once, as a first step or for one question."""
        await self._kinds.refresh()
        await self.relist()

    async def relist(self) -> bool:
        """Lists series once; True when every rule could be listed. Each failing rule keeps what it last had."""
        before = set(self._registry.errors())
        good = await self._registry.relist(self._kinds.mapper, clock.now_ms())
        for error in self._registry.errors():
            if error not in before:
                log.warning("adapter_relist_failed %s", error)
        self._unknown.known(self._registry.names())
        return good

    def _relist_early(self, metric_name: str) -> None:
        """Somebody asked for a metric that is not known: perhaps it has just appeared."""
        if self._unknown.is_reason(metric_name, clock.monotonic_s()):
            self._counts["early_relists"] += 1
            self._wake.set()

    async def close(self) -> None:
        """Ends the connections to the sources that rules name."""
        await self._sources.close()

    def statistics(self) -> dict[str, Any]:
        """Counts since the start and the size of what is held."""
        return {
            **self._counts,
            **self._evaluation.statistics(),
            "relists": self._registry.relists,
            "relisted_ms": self._registry.relisted_ms,
            "config_reloads": self._configuration.reloads,
            "custom_metrics": len(list(self._registry.custom_metrics())),
            "external_metrics": len(list(self._registry.external_metrics())),
            "rule_errors": len(self._registry.errors()),
            "pods": len(self._pods),
            "objects": self._objects.statistics(),
        }

    def rules_document(self) -> dict[str, Any]:
        """Every rule, what it found and what is wrong with it."""
        return {
            "rules": self._registry.documents() + self._configuration.refused_documents(),
            "compatibility": sorted(self._configuration.compatibility),
            "statistics": self.statistics(),
        }

    @property
    def ready(self) -> bool:
        """Whether listing series has been tried once, and pods are known."""
        return (self._registry.relists > 0 or not self._registry.has_rules) and self._pods.has_synced

    @property
    def registry(self) -> Registry:
        return self._registry

    @property
    def mapper(self) -> RestMapper:
        """What the API server serves, as last read."""
        return self._kinds.mapper

    def metrics_of(self, series: str) -> frozenset[str]:
        """The names under which a series is served, as last listed."""
        custom = {metric.name for metric in self._registry.custom_metrics() if metric.series == series}
        external = {metric.name for metric in self._registry.external_metrics() if metric.series == series}
        return frozenset(custom | external or {series})

    def find_kind(self, text: str) -> Kind | None:
        """The kind of ``pods`` or ``deployments.apps``."""
        resource, _, group = text.partition(".")
        return self._kinds.mapper.find(group, resource)

    # -- custom metrics --------------------------------------------------------------------------------------------

    async def custom_values(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        metric_name: str,
        selector: Selector,
        metric_selector: Selector,
    ) -> list[MetricValue]:
        """Values of a metric for one object, or for ``*``, those that the selector takes.

        Raises:
            NotFoundError: the metric, or a value for the named object, or any selected object, does not exist.
            QueryError, ConfigError, UpstreamError: the metric selector, the rule or the source.
        """
        self._counts["requests"] += 1
        shown = str(kind.group_resource)
        of_namespace = kind.group_resource == NAMESPACES
        metric = self._registry.custom(
            kind.group_resource,
            kind.namespaced and not of_namespace,
            metric_name,
            name if of_namespace else namespace,
        )
        if metric is None:
            self._relist_early(metric_name)
            raise UnknownMetricError(f"the server could not find the metric {metric_name} for {shown}")
        names = [name] if name != "*" else await self._names(kind, namespace, selector)
        if not names:
            raise NotFoundError(f"the server could not find the metric {metric_name} for {shown}: no object matches")
        space = namespace if kind.namespaced else ""
        limits = self._limits(metric.rule.where, metric.rule.options, custom=True)
        by_name, window_ms = await self._by_name(metric, space, names, metric_selector, limits)
        nan_is_zero = "nanIsZero" in self._configuration.compatibility
        found = []
        for wanted in names:
            if wanted in by_name:
                sample, t_ms = by_name[wanted]
                milli = self._evaluation.milli(sample.value, limits, nan_is_zero=nan_is_zero)
                if milli is not None:
                    found.append(MetricValue(milli, t_ms, window_ms, namespace, wanted))
        if name != "*" and not found:
            raise NotFoundError(f"the server could not find the metric {metric_name} for {shown} {name}")
        return found

    async def _names(self, kind: Kind, namespace: str, selector: Selector) -> list[str]:
        collection = self._objects.collection(resource_of(kind))
        await collection.wait_synced()
        return collection.names(namespace, selector)

    async def _by_name(
        self, metric: CustomMetric, namespace: str, names: list[str], selector: Selector, limits: Limits
    ) -> tuple[Mapping[str, Dated], int | None]:
        """The last sample of each object, and the window of the query."""
        key = (metric.rule.where, metric.series, metric.resource, selector)
        # In one namespace the query for all objects is the same for every HPA there; for all, the same for everybody.
        wide = self._evaluation.wide(key, namespace) and not metric.rule.namespace
        space = None if wide else namespace
        shared = self._evaluation.plan((*key, space), lambda: shared_custom(metric, selector.requirements, space))
        if shared is not None:
            answers = await self._evaluation.of_all(shared, limits)
            if answers is not None:
                found = {name: answers.get((namespace, name)[-len(shared.keys) :]) for name in names}
                return {name: dated[-1] for name, dated in found.items() if dated}, shared.query.window_ms
        query = custom_query(
            metric.rule.metrics_query,
            metric.rule.where,
            metric.converter,
            metric.series,
            metric.resource,
            namespace,
            names,
            selector.requirements,
            escape="unescapedNames" not in self._configuration.compatibility,
        )
        query = confined_query(query, metric.rule)
        label = query.group_labels[0]
        dated = await self._evaluation.dated(query, limits, query.group_labels)
        return {dict(sample.labels).get(label, ""): (sample, t_ms) for sample, t_ms in dated}, query.window_ms

    # -- external metrics ------------------------------------------------------------------------------------------

    async def external_values(self, namespace: str, metric_name: str, selector: Selector) -> list[MetricValue]:
        """Every series of an external metric.

        Raises:
            NotFoundError, QueryError, ConfigError, UpstreamError: as for ``custom_values``.
        """
        self._counts["requests"] += 1
        metric = self._registry.external(metric_name, namespace)
        if metric is None:
            self._relist_early(metric_name)
            raise UnknownMetricError(f"the server could not find the metric {metric_name} for {namespace}")
        rule = metric.rule
        limits = self._limits(rule.where, rule.options)
        query = external_query(
            rule.metrics_query, rule.where, metric.converter, metric.series, namespace, selector.requirements
        )
        query = confined_query(query, rule)
        found = []
        for sample, t_ms in await self._evaluation.dated(query, limits, None):
            milli = self._evaluation.milli(sample.value, limits)
            if milli is not None:
                found.append(MetricValue(milli, t_ms, query.window_ms, labels=sample.labels))
        return found[:SERIES_PER_METRIC_MAX]

    # -- resource metrics ------------------------------------------------------------------------------------------

    async def pod_usage(self, namespace: str, name: str, selector: Selector) -> list[ObjectUsage]:
        """Usage of the running pods of a namespace ("" is all); ``name`` "" is all. Pods with gaps are left out.

        Raises:
            NotFoundError: no resourceRules are configured.
            UpstreamError: the source does not answer for any namespace, or the pods are not known.
        """
        self._counts["requests"] += 1
        usage = self._resource_usage()
        await self._pods.wait_synced()
        wanted: dict[str, dict[str, dict[str, str]]] = {}
        for pod in self._pods.of(namespace or None):
            meta, labels = pod.metadata, pod.metadata.labels or {}
            running = pod.status is not None and pod.status.phase == "Running"
            if running and (not name or meta.name == name) and selector.matches(labels):
                wanted.setdefault(meta.namespace, {})[meta.name] = labels
        return await usage.of_pods(wanted)

    async def node_usage(self, name: str, selector: Selector) -> list[ObjectUsage]:
        """Usage of the nodes; ``name`` "" is all. Nodes with gaps are left out.

        Raises:
            NotFoundError: no resourceRules are configured.
            UpstreamError: the source does not answer, or the nodes are not known.
        """
        self._counts["requests"] += 1
        usage = self._resource_usage()
        nodes = self._objects.collection(NODES)
        await nodes.wait_synced()
        metas = (node.metadata for node in nodes.of() if not name or node.metadata.name == name)
        wanted = {meta.name: meta.labels or {} for meta in metas if selector.matches(meta.labels or {})}
        return await usage.of_nodes(wanted) if wanted else []

    def _resource_usage(self) -> ResourceUsage:
        rules = self._configuration.resource_rules
        if rules is None:
            raise UnknownMetricError("the adapter's configuration has no resourceRules; add them")
        gaps_are_zero = "usageGapsAreZero" in self._configuration.compatibility
        limits = self._limits("resourceRules", rules.options)
        return ResourceUsage(self._evaluation, rules, self._kinds.mapper, limits, gaps_are_zero=gaps_are_zero)
