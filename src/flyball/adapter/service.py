"""The adapter: rules in force, objects known, and the values of metrics asked for."""

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from flyball import clock
from flyball.adapter.defaults import DEFAULT_CONFIG
from flyball.adapter.registry import CustomMetric, Registry
from flyball.errors import ConfigError, FlyballError, KubeApiError, NotFoundError, UpstreamError
from flyball.kube import EventRecorder, Informer, KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, NODES, PODS
from flyball.metricrules import (
    AdapterConfig,
    GroupResource,
    Kind,
    KindTable,
    MetricQuery,
    ResourceConverter,
    ResourceRule,
    ResourceRules,
    parse_config,
)
from flyball.metricrules.queries import (
    custom_query,
    external_query,
    has_constant,
    newest_time_query,
    resource_query,
    separable,
    separable_resource,
)
from flyball.metricrules.resources import BUILT_IN_KINDS
from flyball.metricrules.resources import NODES as NODES_GR
from flyball.metricrules.resources import PODS as PODS_GR
from flyball.model.labels import METRIC_NAME, Labels
from flyball.model.selectors import Selector
from flyball.sources import MetricsSource, Sample

log = logging.getLogger(__name__)

CONFIG_SELECTOR = "flyball.dev/adapter-config=true"
CONFIG_KEY = "config.yaml"
RETRY_MIN_S = 1.0
KINDS_INTERVAL_S = 60.0
EARLY_RELIST_MIN_S = 2.0
VALUE_MAX = 9.2e15  # int64 milli-units
SERIES_PER_METRIC_MAX = 10_000


class ObjectMeta(msgspec.Struct):
    """What the adapter keeps of an object's metadata."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class _Status(msgspec.Struct):
    phase: str = ""


class MetaObject(msgspec.Struct):
    """An object, its metadata and phase only: full pod specs would be most of the memory."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    status: _Status | None = None


class _ConfigMap(msgspec.Struct):
    metadata: dict[str, Any] = {}
    data: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class MetricValue:
    """The value of a metric for an object, or of an external series.

    Attributes:
        milli: in thousandths.
        t_ms: the newest sample's own time.
        window_ms: the range the value is a rate over, or None.
    """

    milli: int
    t_ms: int
    window_ms: int | None
    namespace: str = ""
    name: str = ""
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """cpu (milli-cores, rounded up from nothing) and memory (bytes) of a node, a pod or a container."""

    cpu_nano: int
    memory_milli: int


@dataclass(frozen=True, slots=True)
class ObjectUsage:
    """One PodMetrics or NodeMetrics. Containers is empty for a node."""

    namespace: str
    name: str
    labels: dict[str, str]
    t_ms: int
    total: Usage
    containers: tuple[tuple[str, Usage], ...] = ()


class Adapter:
    """Answers the metrics APIs from a PromQL source.

    Args:
        config_text: the base configuration; None is the built-in one.
        relist_interval_s: how often series are listed; a failure is retried after 1 s, 2 s, 4 s...
        max_age_ms: a series seen this recently is listed.
        staleness_ms: a value whose newest sample is older is not served.

    Raises:
        ConfigError: the base configuration as a whole cannot be read.
    """

    def __init__(
        self,
        client: KubeClient,
        source: MetricsSource,
        config_text: str | None = None,
        *,
        relist_interval_s: float = 15.0,
        max_age_ms: int = 600_000,
        staleness_ms: int = 300_000,
        watch_config_maps: bool = True,
    ) -> None:
        self._client, self._source = client, source
        self._relist_interval_s, self._staleness_ms = relist_interval_s, staleness_ms
        self._registry = Registry(source, max_age_ms=max_age_ms)
        self._pods: Informer[MetaObject] = Informer(client, PODS, type=MetaObject)
        self._config_maps: Informer[_ConfigMap] | None = (
            Informer(client, CONFIG_MAPS, label_selector=CONFIG_SELECTOR, type=_ConfigMap)
            if watch_config_maps
            else None
        )
        self._recorder = EventRecorder(client, "flyball-adapter")
        self._extra: dict[tuple[str, str], AdapterConfig] = {}
        self._refused_maps: dict[tuple[str, str], str] = {}
        self._mapper = KindTable(BUILT_IN_KINDS)
        self._kinds_error = "not read yet"
        self._wake = asyncio.Event()
        self._listed_once = False
        self._early_at_s = 0.0
        self._background: set[asyncio.Task[None]] = set()
        self._counts = dict.fromkeys(
            ("requests", "stale_values_dropped", "not_finite_dropped", "early_relists", "config_reloads"), 0
        )
        self._base = AdapterConfig()
        self.set_config(DEFAULT_CONFIG if config_text is None else config_text)

    # -- configuration ---------------------------------------------------------------------------------------------

    def set_config(self, text: str) -> None:
        """Replaces the base configuration at once.

        Raises:
            ConfigError: the text as a whole cannot be read; the old configuration stays.
        """
        self._base = parse_config(text)
        self._apply()

    def _apply(self) -> None:
        for refusal in self._base.refusals:
            log.warning("adapter_rule_refused rule=%s error=%s", refusal.where, refusal.message)
        self._counts["config_reloads"] += 1
        self._registry.set_rules([self._base, *(self._extra[key] for key in sorted(self._extra))])
        self._listed_once = False
        self._wake.set()

    @property
    def resource_rules(self) -> ResourceRules | None:
        """The last configuration's that has any."""
        found = self._base.resource_rules
        for key in sorted(self._extra):
            found = self._extra[key].resource_rules or found
        return found

    def _config_map_changed(self, _change: str, old: _ConfigMap | None, new: _ConfigMap | None) -> None:
        current = new or old
        if current is None:
            return
        key = (str(current.metadata.get("namespace", "")), str(current.metadata.get("name", "")))
        problems: list[str] = []
        self._refused_maps.pop(key, None)
        if new is None:
            self._extra.pop(key, None)
        else:
            what = f"ConfigMap {key[0]}/{key[1]}"
            try:
                text = (new.data or {}).get(CONFIG_KEY)
                if text is None:
                    raise ConfigError(f'{what}: has no key "{CONFIG_KEY}"; put the rules there')
                parsed = parse_config(text, what)
                self._extra[key] = parsed
                problems = [refusal.message for refusal in parsed.refusals]
            except ConfigError as exc:  # as a whole: what it said before stays in force
                self._refused_maps[key] = str(exc)
                problems = [str(exc)]
            for problem in problems:
                log.warning("adapter_rule_refused config_map=%s/%s error=%s", *key, problem)
                self._tell({"apiVersion": "v1", "kind": "ConfigMap", "metadata": new.metadata}, problem)
        self._apply()

    def _tell(self, obj: dict[str, Any], problem: str) -> None:
        task = asyncio.create_task(self._recorder.event(obj, "Warning", "RuleRefused", problem), name="adapter event")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- running ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps objects, kinds, configuration and metrics current until cancelled."""
        if self._config_maps is not None:
            self._config_maps.add_handler(self._config_map_changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run(), name="adapter pods")
            if self._config_maps is not None:
                group.create_task(self._config_maps.run(), name="adapter config maps")
            group.create_task(self._keep_kinds(), name="adapter kinds")
            group.create_task(self._keep_listed(), name="adapter relist")

    async def _keep_kinds(self) -> None:
        delay_s = RETRY_MIN_S
        while True:
            await self.refresh_kinds()
            delay_s = min(delay_s * 2, KINDS_INTERVAL_S) if self._kinds_error else KINDS_INTERVAL_S
            await asyncio.sleep(delay_s)

    async def refresh_kinds(self) -> None:
        """Reads what the API server serves; on failure the last table stays."""
        kinds: list[Kind] = []
        error = ""
        try:
            for group_version in await self._client.group_versions():
                if group_version.split("/")[0].endswith("metrics.k8s.io"):
                    continue  # that is us, or another adapter
                try:
                    for resource, verbs in await self._client.resources(group_version):
                        if "list" in verbs:
                            kinds.append(_kind(resource))
                except FlyballError as exc:
                    error = str(exc)
        except FlyballError as exc:
            error = str(exc)
        if kinds:
            known = {kind.group_resource for kind in kinds}
            self._mapper = KindTable([*kinds, *(kind for kind in BUILT_IN_KINDS if kind.group_resource not in known)])
        if error and error != self._kinds_error:
            log.warning("adapter_kinds_failed error=%s", error)
        self._kinds_error = error

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
                await asyncio.wait_for(self._wake.wait(), delay_s)
                delay_s = RETRY_MIN_S
            except TimeoutError:
                pass

    async def relist(self) -> bool:
        """Lists series once; True when every rule could be listed. Each failing rule keeps what it last had."""
        before = set(self._registry.errors())
        good = await self._registry.relist(self._mapper, clock.now_ms())
        for error in self._registry.errors():
            if error not in before:
                log.warning("adapter_relist_failed %s", error)
        return good

    def _relist_early(self) -> None:
        """Somebody asked for a metric that is not known: perhaps it has just appeared."""
        now_s = clock.monotonic_s()
        if now_s - self._early_at_s >= EARLY_RELIST_MIN_S:
            self._early_at_s = now_s
            self._counts["early_relists"] += 1
            self._wake.set()

    def statistics(self) -> dict[str, Any]:
        """Counts since the start and the size of what is held."""
        return {
            **self._counts,
            "relists": self._registry.relists,
            "relisted_ms": self._registry.relisted_ms,
            "custom_metrics": len(list(self._registry.custom_metrics())),
            "external_metrics": len(list(self._registry.external_metrics())),
            "rule_errors": len(self._registry.errors()),
            "pods": len(self._pods.cache),
        }

    def rules_document(self) -> dict[str, Any]:
        """Every rule, what it found and what is wrong with it."""
        refused = [
            {"rule": f"ConfigMap {key[0]}/{key[1]}", "type": "refused", "error": error}
            for key, error in sorted(self._refused_maps.items())
        ]
        return {"rules": self._registry.documents() + refused, "statistics": self.statistics()}

    @property
    def ready(self) -> bool:
        """Whether series have been listed once and pods are known."""
        return (self._registry.relists > 0 or not self._registry.has_rules) and self._pods.has_synced

    @property
    def registry(self) -> Registry:
        return self._registry

    def find_kind(self, text: str) -> Kind | None:
        """The kind of ``pods`` or ``deployments.apps``."""
        resource, _, group = text.partition(".")
        return self._mapper.find(group, resource)

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
        of_namespace = kind.group_resource == GroupResource("", "namespaces")
        metric = self._registry.custom(kind.group_resource, kind.namespaced and not of_namespace, metric_name)
        if metric is None:
            self._relist_early()
            raise NotFoundError(f"the server could not find the metric {metric_name} for {shown}")
        at_ms = clock.now_ms()
        names = [name] if name != "*" else await self._names(kind, namespace, selector)
        if not names:
            raise NotFoundError(f"the server could not find the metric {metric_name} for {shown}: no object matches")
        everyone = len(names) > 1 and separable(metric.rule.metrics_query)
        query = custom_query(
            metric.rule.metrics_query,
            metric.rule.where,
            metric.converter,
            metric.series,
            kind.group_resource,
            namespace if kind.namespaced else "",
            None if everyone else names,
            metric_selector.requirements,
        )
        label = query.group_labels[0]
        samples = await self._dated(query, at_ms, metric.rule.where, query.group_labels)
        by_name = {dict(sample.labels).get(label, ""): (sample, t_ms) for sample, t_ms in samples}
        found = []
        for wanted in names:
            if wanted in by_name:
                sample, t_ms = by_name[wanted]
                value = self._value(sample, t_ms, query, namespace=namespace, name=wanted)
                if value is not None:
                    found.append(value)
        if name != "*" and not found:
            raise NotFoundError(f"the server could not find the metric {metric_name} for {shown} {name}")
        return found

    async def _names(self, kind: Kind, namespace: str, selector: Selector) -> list[str]:
        if kind.group_resource == PODS_GR and self._pods.has_synced:
            return sorted(
                name
                for (space, name), pod in self._pods.cache.items()
                if space == namespace and selector.matches(pod.metadata.labels or {})
            )
        resource = Resource(kind.group, kind.version, kind.resource, kind.kind, kind.namespaced)
        try:
            listed = await self._client.list(resource, namespace or None, str(selector), type=MetaObject)
        except KubeApiError as exc:
            raise UpstreamError(f"unable to list matching resources: {exc}") from exc
        return sorted(item.metadata.name for item in listed)

    # -- external metrics ------------------------------------------------------------------------------------------

    async def external_values(self, namespace: str, metric_name: str, selector: Selector) -> list[MetricValue]:
        """Every series of an external metric.

        Raises:
            NotFoundError, QueryError, ConfigError, UpstreamError: as for ``custom_values``.
        """
        self._counts["requests"] += 1
        metric = self._registry.external(metric_name)
        if metric is None:
            self._relist_early()
            raise NotFoundError(f"the server could not find the metric {metric_name} for {namespace}")
        rule = metric.rule
        query = external_query(
            rule.metrics_query, rule.where, metric.converter, metric.series, namespace, selector.requirements
        )
        found = []
        for sample, t_ms in await self._dated(query, clock.now_ms(), rule.where, None):
            value = self._value(sample, t_ms, query, labels=sample.labels)
            if value is not None:
                found.append(value)
        return found[:SERIES_PER_METRIC_MAX]

    # -- values and their times ------------------------------------------------------------------------------------

    async def _dated(
        self, query: MetricQuery, at_ms: int, where: str, group: Sequence[str] | None
    ) -> list[tuple[Sample, int]]:
        """Each sample of a query's result with the time of the newest sample behind it; stale ones left out.

        Args:
            group: the labels that tell results apart; None takes those of the result.
        """
        if group is None:
            samples = await self._ask(query.expr, at_ms, where)
            group = sorted({name for sample in samples for name, _ in sample.labels if name != METRIC_NAME})
            times = await self._times(query, at_ms, where, group) if samples else []
        else:
            samples, times = await asyncio.gather(
                self._ask(query.expr, at_ms, where), self._times(query, at_ms, where, group)
            )
        if not samples:
            return []
        by_group = {sample.labels: round(sample.value * 1000) for sample in times if math.isfinite(sample.value)}
        newest = max(by_group.values(), default=None)
        # Where the query makes its labels itself (label_replace), groups cannot be told apart by time.
        own_labels = not any(_only(sample.labels, group) in by_group for sample in samples)
        dated = []
        for sample in samples:
            t_ms = newest if own_labels else by_group.get(_only(sample.labels, group))
            if t_ms is None and (not query.selectors or has_constant(query.expr)):
                t_ms = at_ms  # the rule's author made this value from no sample
            if t_ms is None or at_ms - t_ms > self._staleness_ms:
                self._counts["stale_values_dropped"] += 1
                continue
            dated.append((sample, min(t_ms, at_ms)))
        return dated

    async def _times(self, query: MetricQuery, at_ms: int, where: str, group: Sequence[str]) -> list[Sample]:
        if not query.selectors:
            return []
        return await self._ask(newest_time_query(query, group), at_ms, where)

    async def _ask(self, expr: str, at_ms: int, where: str) -> list[Sample]:
        try:
            return await self._source.query(expr, at_ms)
        except FlyballError as exc:
            raise UpstreamError(f"unable to fetch metrics: {where}: {exc}") from exc

    def _value(
        self,
        sample: Sample,
        t_ms: int,
        query: MetricQuery,
        *,
        namespace: str = "",
        name: str = "",
        labels: Labels = (),
    ) -> MetricValue | None:
        if not math.isfinite(sample.value) or abs(sample.value) > VALUE_MAX:
            self._counts["not_finite_dropped"] += 1  # absent is never zero, and NaN is no number of anything
            return None
        return MetricValue(int(sample.value * 1000), t_ms, query.window_ms, namespace, name, labels)

    # -- resource metrics ------------------------------------------------------------------------------------------

    async def pod_usage(self, namespace: str, name: str, selector: Selector) -> list[ObjectUsage]:
        """Usage of the running pods of a namespace ("" is all); ``name`` "" is all. Pods with gaps are left out.

        Raises:
            NotFoundError: no resourceRules are configured.
            UpstreamError: the source does not answer for any namespace.
        """
        self._counts["requests"] += 1
        rules = self._resource_rules()
        wanted: dict[str, dict[str, dict[str, str]]] = {}
        for (space, pod_name), pod in self._pods.cache.items():
            labels = pod.metadata.labels or {}
            if (
                (not namespace or space == namespace)
                and (not name or pod_name == name)
                and pod.status is not None
                and pod.status.phase == "Running"
                and selector.matches(labels)
            ):
                wanted.setdefault(space, {})[pod_name] = labels
        limit = asyncio.Semaphore(8)

        async def one(space: str) -> list[ObjectUsage]:
            async with limit:
                return await self._pods_of(rules, space, wanted[space])

        spaces = sorted(wanted)
        answers = await asyncio.gather(*map(one, spaces), return_exceptions=True)
        found: list[ObjectUsage] = []
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, FlyballError):
                    raise answer
                failures.append(answer)
            else:
                found += answer
        if failures and not found:
            raise failures[0]
        return found

    async def _pods_of(self, rules: ResourceRules, space: str, pods: dict[str, dict[str, str]]) -> list[ObjectUsage]:
        names = sorted(pods)
        cpu, memory = await asyncio.gather(
            *(self._resource(rule, PODS_GR, space, names, rule.container_label) for rule in (rules.cpu, rules.memory))
        )
        found = []
        for pod_name in names:
            containers = sorted({key[1] for part in (cpu, memory) for key in part if key[0] == pod_name})
            pairs = [(cpu.get((pod_name, item)), memory.get((pod_name, item))) for item in containers]
            whole = [(one, two) for one, two in pairs if one is not None and two is not None]
            if not whole or len(whole) != len(pairs):
                continue  # a pod with gaps would count for less than it uses
            usages = [Usage(_scaled(one[0], 1e9), _scaled(two[0], 1e3)) for one, two in whole]
            found.append(
                ObjectUsage(
                    space,
                    pod_name,
                    pods[pod_name],
                    min(t_ms for one, two in whole for t_ms in (one[1], two[1])),
                    Usage(sum(u.cpu_nano for u in usages), sum(u.memory_milli for u in usages)),
                    tuple(zip(containers, usages, strict=True)),
                )
            )
        return found

    async def node_usage(self, name: str, selector: Selector) -> list[ObjectUsage]:
        """Usage of the nodes; ``name`` "" is all. Nodes with gaps are left out.

        Raises:
            NotFoundError: no resourceRules are configured.
            UpstreamError: the source or the API server does not answer.
        """
        self._counts["requests"] += 1
        rules = self._resource_rules()
        listed = await self._client.list(NODES, None, str(selector), type=MetaObject)
        nodes = {item.metadata.name: item.metadata.labels or {} for item in listed}
        if name:
            nodes = {name: nodes[name]} if name in nodes else {}
        if not nodes:
            return []
        names = sorted(nodes)
        cpu, memory = await asyncio.gather(
            *(self._resource(rule, NODES_GR, "", names, "") for rule in (rules.cpu, rules.memory))
        )
        found = []
        for node in names:
            one, two = cpu.get((node, "")), memory.get((node, ""))
            if one is not None and two is not None:
                total = Usage(_scaled(one[0], 1e9), _scaled(two[0], 1e3))
                found.append(ObjectUsage("", node, nodes[node], min(one[1], two[1]), total))
        return found

    def _resource_rules(self) -> ResourceRules:
        rules = self.resource_rules
        if rules is None:
            raise NotFoundError("the adapter's configuration has no resourceRules; add them")
        return rules

    async def _resource(
        self, rule: ResourceRule, resource: GroupResource, namespace: str, names: list[str], container_label: str
    ) -> dict[tuple[str, str], tuple[float, int]]:
        """(object, container) -> (value, newest sample's time). A negative or not finite value is left out."""
        converter = ResourceConverter(rule.resources, self._mapper, f"{rule.where}: resources")
        template = rule.container_query if container_label else rule.node_query
        # Asked for the whole namespace the query is the same for every HPA in it, and so shared.
        asked = None if len(names) > 1 and separable_resource(template) else names
        query = resource_query(template, rule.where, converter, resource, namespace, asked, container_label)
        found = {}
        for sample, t_ms in await self._dated(query, clock.now_ms(), rule.where, query.group_labels):
            labels = dict(sample.labels)
            key = (labels.get(query.group_labels[0], ""), labels.get(container_label, "") if container_label else "")
            if math.isfinite(sample.value) and 0 <= sample.value <= VALUE_MAX:
                found[key] = (sample.value, t_ms)
            else:
                self._counts["not_finite_dropped"] += 1
        return found


def _only(labels: Labels, names: Sequence[str]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in names)


def _scaled(value: float, factor: float) -> int:
    return round(value * factor)


def _kind(resource: Resource) -> Kind:
    return Kind(
        resource.group, resource.version, resource.kind, resource.plural, resource.kind.lower(), resource.namespaced
    )


__all__ = ["Adapter", "CustomMetric", "MetricValue", "ObjectUsage", "Usage"]
