"""The adapter's world of its tests, for the gates: API server, Prometheus API, adapter as deployed."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from tests.adapter.world import Prometheus, World, pod, world

T = TypeVar("T")

CONFIG = """
rules:
- seriesQuery: load
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
externalRules:
- seriesQuery: queue
  resources: {namespaced: false}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (name)
resourceRules:
  cpu: &rule
    containerQuery: sum(cpu{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    nodeQuery: sum(node_cpu{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}
    containerLabel: container
  memory:
    containerQuery: sum(memory{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    nodeQuery: sum(node_memory{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}
    containerLabel: container
""".replace(" &rule", "")

LOAD = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/load?labelSelector=app%3Dweb"
QUEUE = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue"
USAGE = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dweb"
MASTERS = {"X-Remote-User": "gate", "X-Remote-Group": "system:masters"}


def names(count: int) -> list[str]:
    return [f"web-{index}" for index in range(count)]


def fill(prometheus: Prometheus, pods: Iterable[str]) -> None:
    """One sample of each metric, now."""
    for index, name in enumerate(pods):
        labels = {"namespace": "default", "pod": name}
        prometheus.add({"__name__": "load", **labels}, index + 1)
        prometheus.add({"__name__": "cpu", **labels, "container": "main"}, 0.25)
        prometheus.add({"__name__": "memory", **labels, "container": "main"}, 1 << 20)
    prometheus.add({"__name__": "queue", "name": "jobs"}, 5)


def in_world(work: Callable[[World], Awaitable[T]], pods: Iterable[str], **options: Any) -> T:
    """Runs ``work`` in a world whose pods are all labelled app=web and have samples."""
    pods = list(pods)

    async def main() -> T:
        with tempfile.TemporaryDirectory(prefix="flyball-gate-") as folder:
            objects = [pod(name, app="web") for name in pods]
            series = lambda prometheus: fill(prometheus, pods)  # noqa: E731
            async with world(Path(folder), CONFIG, objects=objects, series=series, **options) as found:
                return await work(found)

    return asyncio.run(main())


async def keep_filled(found: World, pods: Iterable[str]) -> None:
    """New samples every half second, as a scrape brings them."""
    pods = list(pods)
    while True:
        await asyncio.sleep(0.5)
        fill(found.prometheus, pods)


def p99_ms(seconds: list[float]) -> float:
    return 1000 * sorted(seconds)[min(len(seconds) - 1, len(seconds) * 99 // 100)]


async def timed(work: Awaitable[T]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    began_s = time.monotonic()
    answer = await work
    return time.monotonic() - began_s, answer
