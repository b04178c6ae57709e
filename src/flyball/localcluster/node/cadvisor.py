"""The containers' figures under cAdvisor's names (``/metrics/cadvisor``), and their probes (``/metrics/probes``).

What the machine does not tell of a container is left out rather than zero: without network namespaces no container has
network figures of its own, and without its cgroup no page cache.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

import psutil
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from flyball import clock
from flyball.localcluster.node import figures, procfs
from flyball.localcluster.node.container import Container
from flyball.localcluster.node.pods import PodManager
from flyball.localcluster.node.podworker import PodWorker
from flyball.localcluster.node.status import qos_class
from flyball.model.quantities import parse_quantity

_LABELS = ("container", "id", "image", "name", "namespace", "pod")
_GAUGES = {
    "memory_working_set_bytes": "Memory that counts against the container.",
    "memory_usage_bytes": "Memory that counts against the container.",
    "memory_rss": "Anonymous memory.",
    "memory_swap": "Swapped memory.",
    "threads": "Threads.",
    "processes": "Processes.",
    "file_descriptors": "Open files.",
    "start_time_seconds": "Start of the container since the epoch.",
    "last_seen": "Time of this reading since the epoch.",
    "spec_memory_limit_bytes": "The limit; 0 is none.",
    "spec_cpu_shares": "Its share of the CPU, 1024 for each that it requests.",
}
_COUNTERS = {
    "cpu_usage_seconds": "CPU time.",
    "fs_reads_bytes": "Bytes read from storage.",
    "fs_writes_bytes": "Bytes written to storage.",
}


class Cadvisor(Collector):
    """Reads /proc at each scrape."""

    def __init__(self, manager: PodManager) -> None:
        self._manager = manager
        self._io: dict[tuple[str, str, int], _IoTotal] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self) -> bytes:
        """The page, in the text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering reads nothing

    def collect(self) -> Iterator[Metric]:
        gauges = {name: GaugeMetricFamily(f"container_{name}", text, labels=_LABELS) for name, text in _GAUGES.items()}
        counters = {
            name: CounterMetricFamily(
                f"container_{name}", text, labels=(*_LABELS, "cpu" if name.startswith("cpu") else "device")
            )
            for name, text in _COUNTERS.items()
        }
        seen = set()
        for worker in list(self._manager.workers.values()):
            for one in worker.containers:
                if one.process is None or not one.process.running:
                    continue
                labels = _labels(worker, one)
                key = (worker.uid, one.name, one.process.pid)
                seen.add(key)
                used = one.figures()
                counters["cpu_usage_seconds"].add_metric((*labels, "total"), used.cpu_ns / 1e9)
                now = _Reading(procfs.tree(one.process.shim_pid)[1:])
                read, written = self._io.setdefault(key, _IoTotal()).add(now.io)
                counters["fs_reads_bytes"].add_metric((*labels, ""), read)
                counters["fs_writes_bytes"].add_metric((*labels, ""), written)
                resources = one.spec.get("resources") or {}
                for name, value in (
                    ("memory_working_set_bytes", used.memory_bytes),
                    ("memory_usage_bytes", used.memory_bytes),
                    ("memory_rss", now.anonymous_bytes),
                    ("memory_swap", now.swap_bytes),
                    ("threads", now.threads),
                    ("processes", now.processes),
                    ("file_descriptors", now.file_descriptors),
                    ("start_time_seconds", one.process.started_ms / 1000),
                    ("last_seen", clock.now_ms() / 1000),
                    ("spec_memory_limit_bytes", _amount(resources, "limits", "memory")),
                    ("spec_cpu_shares", max(2, int(_amount(resources, "requests", "cpu") * 1024))),
                ):
                    gauges[name].add_metric(labels, value)
        for gone in set(self._io) - seen:
            del self._io[gone]
        machine = ("", "/", "", "", "", "")
        counters["cpu_usage_seconds"].add_metric((*machine, "total"), figures.node_cpu_s())
        gauges["memory_working_set_bytes"].add_metric(machine, figures.node_memory_bytes())
        yield from gauges.values()
        yield from counters.values()
        yield _plain("machine_cpu_cores", "Processors of the machine.", os.cpu_count() or 1)
        yield _plain("machine_memory_bytes", "Memory of the machine.", psutil.virtual_memory().total)


def probes(manager: PodManager) -> bytes:
    """``/metrics/probes``: how often each probe of a container that runs succeeded and failed."""
    family = CounterMetricFamily(
        "prober_probe", "Probes by result.", labels=("probe_type", "result", "container", "pod", "namespace", "pod_uid")
    )
    for worker in list(manager.workers.values()):
        for one in worker.containers:
            for (kind, result), count in one.probed.items():
                family.add_metric((kind, result, one.name, worker.name, worker.namespace, worker.uid), count)
    return generate_latest(_Page([family]))


class _Page(CollectorRegistry):
    """Families that were made already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _Reading:
    """Sums over a container's processes; what may not be read of one counts as nothing of it."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.anonymous_bytes = self.swap_bytes = self.threads = self.processes = self.file_descriptors = 0
        self.io: dict[tuple[int, int], tuple[int, int]] = {}
        for pid in pids:
            with contextlib.suppress(OSError, ValueError):
                status = _fields(f"/proc/{pid}/status")
                self.processes += 1
                self.threads += int(status.get("Threads", "0"))
                self.anonymous_bytes += int(status.get("RssAnon", "0 kB").split()[0]) * 1024
                self.swap_bytes += int(status.get("VmSwap", "0 kB").split()[0]) * 1024
                self.file_descriptors += len(os.listdir(f"/proc/{pid}/fd"))
                io = _fields(f"/proc/{pid}/io")
                self.io[pid, procfs.start_ticks(pid)] = int(io["read_bytes"]), int(io["write_bytes"])


class _IoTotal:
    """Bytes of a container since it began, processes that have ended included as they were last read."""

    def __init__(self) -> None:
        self._ended = (0, 0)
        self._last: dict[tuple[int, int], tuple[int, int]] = {}

    def add(self, now: dict[tuple[int, int], tuple[int, int]]) -> tuple[int, int]:
        for process, (read, written) in self._last.items():
            if process not in now:
                self._ended = self._ended[0] + read, self._ended[1] + written
        self._last = now
        return self._ended[0] + sum(read for read, _ in now.values()), self._ended[1] + sum(w for _, w in now.values())


def _fields(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _labels(worker: PodWorker, one: Container) -> tuple[str, ...]:
    quality = qos_class(worker.pod["spec"]).lower()
    parent = "/kubepods" if quality == "guaranteed" else f"/kubepods/{quality}"
    where = f"{parent}/pod{worker.uid}/{one.name}"
    return one.name, where, str(one.spec.get("image") or ""), where.rpartition("/")[0], worker.namespace, worker.name


def _amount(resources: dict[str, dict[str, str]], kind: str, name: str) -> float:
    given = (resources.get(kind) or {}).get(name)
    return parse_quantity(given).as_float() if given is not None else 0.0


def _plain(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
