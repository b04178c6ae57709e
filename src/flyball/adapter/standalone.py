"""No Prometheus at all: the adapter scrapes the pods behind HPAs and Governors itself.

Each HPA or Governor names a target; its scale subresource gives a selector; the pods it takes are scraped at their
declared ports, every max(1 s, targets / budget), into a store in memory that the rules are asked of.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from flyball.adapter.defaults import DEFAULT_CONFIG
from flyball.discovery import KubernetesDiscovery
from flyball.discovery.defaults import annotation_overrides
from flyball.errors import FlyballError, QueryError
from flyball.kube import Informer, KubeClient, Resource
from flyball.kube.kinds import GOVERNORS, HPAS_V2, PODS
from flyball.model.clients import HttpClientConfig
from flyball.model.scrapeconfigs import KubernetesSD, RelabelConfig, ScrapeConfig, TargetGroup
from flyball.model.selectors import Selector, parse_selector
from flyball.scrape import ScrapeManager
from flyball.sources.local import LocalSource
from flyball.store import Head

log = logging.getLogger(__name__)

JOB = "flyball-standalone"
BUDGET_PER_S = 1000
REFRESH_S = 30.0
MEMORY_BYTES_MAX = 256 << 20
RETENTION_MS = 20 * 60_000
_META = "__meta_kubernetes_"

#: The rules when none are given: every metric of the pods, counters as rates.
STANDALONE_CONFIG = DEFAULT_CONFIG.split("resourceRules:")[0]


class _Ref(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    name: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    scale_target_ref: _Ref = msgspec.field(default_factory=_Ref)


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class Scaled(msgspec.Struct):
    """An HPA or a Governor, as far as it concerns us."""

    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _PodMeta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class _Pod(msgspec.Struct):
    metadata: _PodMeta = msgspec.field(default_factory=_PodMeta)


def interval_ms(targets: int, budget_per_s: int = BUDGET_PER_S) -> int:
    """How often each of so many targets is scraped."""
    return max(1_000, 1_000 * targets // budget_per_s)


class Behind:
    """Which pods stand behind HPAs and Governors."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._scaled = [Informer(client, resource, type=Scaled) for resource in (HPAS_V2, GOVERNORS)]
        self._pods: Informer[_Pod] = Informer(client, PODS, type=_Pod)
        self._kinds: dict[tuple[str, str], Resource] = {}
        self._selectors: dict[str, tuple[Selector, ...]] = {}
        self.changed = asyncio.Event()
        for informer in self._scaled:
            informer.add_handler(lambda *_: self.changed.set())

    async def run(self) -> None:
        """Keeps the selectors current."""
        async with asyncio.TaskGroup() as group:
            for informer in self._scaled:
                group.create_task(informer.run(), name=f"standalone {informer.resource}")
            group.create_task(self._pods.run(), name="standalone pods")
            group.create_task(self._keep(), name="standalone selectors")

    async def _keep(self) -> None:
        while True:
            self.changed.clear()
            await self.refresh()
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self.changed.wait()
            except TimeoutError:
                pass

    async def refresh(self) -> None:
        """Reads the selector of every target once; one that cannot be read keeps none."""
        found: dict[str, set[Selector]] = {}
        for item in [item for informer in self._scaled for item in informer.cache.values()]:
            selector = await self._selector(item.metadata.namespace, item.spec.scale_target_ref)
            if selector is not None:
                found.setdefault(item.metadata.namespace, set()).add(selector)
        self._selectors = {namespace: tuple(selectors) for namespace, selectors in found.items()}

    async def _selector(self, namespace: str, ref: _Ref) -> Selector | None:
        key = ref.api_version, ref.kind
        try:
            if key not in self._kinds:
                for resource, _ in await self._client.resources(ref.api_version):
                    if resource.kind == ref.kind:
                        self._kinds[key] = resource
            if key not in self._kinds:
                return None
            scale = await self._client.get(self._kinds[key], ref.name, namespace, "scale")
            text = (scale.get("status") or {}).get("selector") or ""
            return parse_selector(text) if text else None
        except (FlyballError, QueryError) as exc:
            log.info("standalone_target_skipped target=%s/%s/%s error=%s", namespace, ref.kind, ref.name, exc)
            return None

    def takes(self, namespace: str, name: str) -> bool:
        """Whether a pod stands behind one of them."""
        pod = self._pods.cache.get((namespace, name))
        labels: Mapping[str, str] = (pod.metadata.labels or {}) if pod is not None else {}
        return pod is not None and any(selector.matches(labels) for selector in self._selectors.get(namespace, ()))


class Standalone:
    """The scraping, the store and its source.

    Attributes:
        source: what the adapter asks.
        config: the rules when none are given.
    """

    config = STANDALONE_CONFIG

    def __init__(self, client: KubeClient) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="query")
        self._head = Head(retention_ms=RETENTION_MS, memory_limit_bytes=MEMORY_BYTES_MAX)
        self._manager = ScrapeManager(self._head)
        self._discovery = KubernetesDiscovery(client)
        self._behind = Behind(client)
        self._groups: list[TargetGroup] = []
        self._interval_ms = 0
        self.source = LocalSource(self._head, self._executor)
        config = standalone_job()
        self._manager.set_configs([config])
        self._discovery.set_configs([config])

    async def run(self) -> None:
        """Scrapes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._manager.run(), name="standalone scraping")
            group.create_task(self._discovery.run(self._found), name="standalone discovery")
            group.create_task(self._behind.run(), name="standalone targets")
            group.create_task(self._keep_targets(), name="standalone selection")

    def _found(self, _job: str, groups: Iterable[TargetGroup]) -> None:
        self._groups = list(groups)
        self._apply()

    async def _keep_targets(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._apply()

    def _apply(self) -> None:
        chosen = [group for group in self._groups if self._behind.takes(*_pod_of(group))]
        self._manager.set_groups(JOB, chosen)
        wanted = interval_ms(sum(len(group.targets) for group in chosen))
        if wanted != self._interval_ms:
            self._interval_ms = wanted
            self._manager.set_interval(lambda _: wanted)

    def close(self) -> None:
        """Ends the query thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _pod_of(group: TargetGroup) -> tuple[str, str]:
    labels: Mapping[str, Any] = {**group.labels, **(group.targets[0] if group.targets else {})}
    return str(labels.get(f"{_META}namespace", "")), str(labels.get(f"{_META}pod_name", ""))


def standalone_job() -> ScrapeConfig:
    """Every declared port of a running pod, or the one that ``prometheus.io/port`` names."""
    return ScrapeConfig(
        job_name=JOB,
        scrape_interval_ms=1_000,
        scrape_timeout_ms=1_000,
        http=HttpClientConfig(follow_redirects=False),  # a pod answers for itself, and sends the adapter nowhere
        kubernetes_sd_configs=(KubernetesSD(role="pod"),),
        relabel_configs=(
            RelabelConfig((f"{_META}pod_annotation_prometheus_io_scrape",), regex="false", action="drop"),
            *annotation_overrides("pod"),
            RelabelConfig(source_labels=(f"{_META}pod_container_init",), regex="true", action="drop"),
            RelabelConfig(source_labels=("__address__",), regex=r"(.+):\d+", action="keep"),
            RelabelConfig(source_labels=(f"{_META}pod_phase",), regex="(Failed|Succeeded)", action="drop"),
            RelabelConfig(source_labels=(f"{_META}namespace",), target_label="namespace"),
            RelabelConfig(source_labels=(f"{_META}pod_name",), target_label="pod"),
            RelabelConfig(source_labels=(f"{_META}pod_container_name",), target_label="container"),
        ),
    )
