"""``/metrics/resource`` of the node: CPU and memory of the machine, the containers and the pods."""

import os
from collections.abc import Iterable

import psutil

from flyball import clock
from flyball.localcluster.node import procfs
from flyball.localcluster.node.pods import PodManager

_FAMILIES = (
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds"),
    ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes"),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds"),
    ("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds"),
    ("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes"),
    ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds"),
    ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes"),
    ("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise"),
    ("scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise"),
)


def node_cpu_s() -> float:
    """CPU time of the machine since its start."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "system", "nice", "irq", "softirq"))


def node_memory_bytes() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def capacity() -> dict[str, str]:
    """The machine's, as Kubernetes quantities."""
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{psutil.virtual_memory().total // 1024}Ki",
        "pods": "250",
    }


def exposition(manager: PodManager, node: str = "") -> bytes:
    """The text format, each sample with the ms time of its reading.

    Args:
        node: only the pods of this node, when several share the machine; its own figures are then their sums.
    """
    lines: dict[str, list[str]] = {name: [] for name, _, _ in _FAMILIES}
    failed = 0
    total_cpu = total_memory = 0.0
    for worker in list(manager.workers.values()):
        if node and worker.pod["spec"].get("nodeName") != node:
            continue
        pod_cpu = pod_memory = 0.0
        alive = False
        where = f'namespace="{worker.namespace}",pod="{worker.name}"'
        for one in worker.containers:
            running = one.process
            if running is None or not running.running:
                continue
            now = one.figures()
            cpu_s, memory = now.cpu_ns / 1e9, now.memory_bytes
            at = clock.now_ms()
            if memory == 0:
                failed = failed or int(procfs.start_ticks(running.pid) != 0)
                continue
            labels = f'{{container="{one.name}",{where}}}'
            lines["container_cpu_usage_seconds_total"].append(f"{labels} {cpu_s!r} {at}")
            lines["container_memory_working_set_bytes"].append(f"{labels} {memory} {at}")
            lines["container_start_time_seconds"].append(f"{labels} {running.started_ms / 1000!r}")
            pod_cpu, pod_memory, alive = pod_cpu + cpu_s, pod_memory + memory, True
        if alive:
            at = clock.now_ms()
            lines["pod_cpu_usage_seconds_total"].append(f"{{{where}}} {pod_cpu!r} {at}")
            lines["pod_memory_working_set_bytes"].append(f"{{{where}}} {pod_memory:.0f} {at}")
            total_cpu, total_memory = total_cpu + pod_cpu, total_memory + pod_memory
    at = clock.now_ms()
    if len(manager.nodes) == 1:
        total_cpu, total_memory = node_cpu_s(), node_memory_bytes()
    if not node or node in manager.nodes:
        lines["node_cpu_usage_seconds_total"].append(f" {total_cpu!r} {at}")
        lines["node_memory_working_set_bytes"].append(f" {total_memory:.0f} {at}")
    lines["resource_scrape_error"].append(f" {failed}")
    lines["scrape_error"].append(f" {failed}")
    return ("\n".join(_rendered(lines)) + "\n").encode()


def _rendered(lines: dict[str, list[str]]) -> Iterable[str]:
    for name, kind, text in _FAMILIES:
        if lines[name]:
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} {kind}"
            yield from (f"{name}{line}" for line in lines[name])
