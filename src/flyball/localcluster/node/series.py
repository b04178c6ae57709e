"""The node's own series, under the names of the kubelet and kube-proxy; what has no counterpart here is left out.

Facts: pkg/kubelet/metrics/metrics.go, pkg/kubelet/metrics/collectors/volume_stats.go, pkg/volume/util/metrics.go and
pkg/proxy/metrics/metrics.go of Kubernetes 1.37.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from flyball import clock
from flyball.localcluster.durations import Durations, exponential
from flyball.localcluster.node import volumes

if TYPE_CHECKING:
    from flyball.localcluster.node.podworker import PodWorker

Object = dict[str, Any]

_DEFAULT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_START_S = (
    *(0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0),
    *(600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0),
)
_STORAGE_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0)
_PROGRAMMING_S = (
    *(0.25, 0.5, *map(float, range(1, 60)), *map(float, range(60, 120, 5)), *map(float, range(120, 301, 30))),
)
_PLUGINS = {
    "configMap": "configmap",
    "downwardAPI": "downward-api",
    "emptyDir": "empty-dir",
    "hostPath": "host-path",
    "projected": "projected",
    "secret": "secret",
}
_CLAIMED = "local-volume"  # every claim is bound to a directory of this machine
#: (series, what of a file system it is, its text)
_VOLUME_STATS: tuple[tuple[str, Callable[[os.statvfs_result], int], str], ...] = (
    ("capacity_bytes", lambda fs: fs.f_blocks * fs.f_frsize, "Size of the volume's file system."),
    ("available_bytes", lambda fs: fs.f_bavail * fs.f_frsize, "What is free there for anybody."),
    ("used_bytes", lambda fs: (fs.f_blocks - fs.f_bfree) * fs.f_frsize, "What is taken there."),
    ("inodes", lambda fs: fs.f_files, "Inodes of the volume's file system."),
    ("inodes_free", lambda fs: fs.f_ffree, "Inodes that are free there."),
    ("inodes_used", lambda fs: fs.f_files - fs.f_ffree, "Inodes that are taken there."),
)


class NodeSeries:
    """Counts what the node does with pods.

    Attributes:
        pod_starts: from the first sight of a pod until its containers run.
        pod_work: one look at a pod, by what it was for: create, sync, terminating or terminated.
    """

    def __init__(self) -> None:
        self.pod_starts = Durations(_START_S)
        self.pod_work = Durations(_DEFAULT_S, ("operation_type",))
        self._runtime = Durations(exponential(0.005, 2.5, 14), ("operation_type",))
        self._operations: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._storage = Durations(_STORAGE_S, ("operation_name", "volume_plugin", "status", "migrated"))

    @contextlib.contextmanager
    def operation(self, kind: str) -> Iterator[None]:
        """Around what a kubelet would ask its runtime to do, as ``start_container``; an exception is an error."""
        began_s = clock.monotonic_s()
        self._operations[kind] += 1
        try:
            yield
        except Exception:
            self._errors[kind] += 1
            raise
        finally:
            self._runtime.observe(clock.monotonic_s() - began_s, (kind,))

    def mounted(self, volume: Object, duration_s: float, *, good: bool) -> None:
        """A volume of a pod was made ready, or was not."""
        status = "success" if good else "fail-unknown"
        self._storage.observe(duration_s, ("volume_mount", plugin_of(volume), status, "false"))

    def collect(self, workers: Iterable["PodWorker"]) -> Iterator[Metric]:
        """
        Args:
            workers: of the pods that are here now.
        """
        workers = list(workers)
        yield self.pod_starts.family("kubelet_pod_start_duration_seconds", "From the first sight of a pod to its run.")
        yield self.pod_work.family("kubelet_pod_worker_duration_seconds", "One look at a pod.")
        for name, text, counts in (
            ("kubelet_runtime_operations", "Containers started, stopped and entered.", self._operations),
            ("kubelet_runtime_operations_errors", "Those that failed.", self._errors),
        ):
            family = CounterMetricFamily(name, text, labels=("operation_type",))
            for kind in self._operations:
                family.add_metric((kind,), counts[kind])
            yield family
        yield self._runtime.family("kubelet_runtime_operations_duration_seconds", "How long they took.")
        yield self._storage.family("storage_operation_duration_seconds", "How long a volume took to be made ready.")
        yield from _volumes(workers)


def plugin_of(volume: Object) -> str:
    """The name under which a kubelet counts a volume of a pod."""
    kind = next((one for one in volume if one != "name"), "emptyDir")
    return f"kubernetes.io/{_PLUGINS.get(kind, _CLAIMED)}"


def _volumes(workers: list["PodWorker"]) -> Iterator[Metric]:
    total: Counter[tuple[str, str]] = Counter()
    for worker in workers:
        mounted = worker.mounted_volumes()
        for volume in worker.pod["spec"].get("volumes") or ():
            total[plugin_of(volume), "desired_state_of_world"] += 1
            if volume["name"] in mounted:
                total[plugin_of(volume), "actual_state_of_world"] += 1
    family = GaugeMetricFamily("volume_manager_total_volumes", "Volumes of pods.", labels=("plugin_name", "state"))
    for (plugin, state), count in total.items():
        family.add_metric((plugin, state), count)
    yield family
    claims: dict[tuple[str, str], os.statvfs_result] = {}
    for worker in workers:
        for volume in volumes.claims(worker.pod):
            with contextlib.suppress(OSError, KeyError):  # not mounted yet, or its directory is gone
                path = worker.mounted_volumes()[volume["name"]]
                claim = worker.namespace, str(volume["persistentVolumeClaim"].get("claimName", ""))
                claims.setdefault(claim, os.statvfs(path))
    for name, of, text in _VOLUME_STATS:
        stats = GaugeMetricFamily(f"kubelet_volume_stats_{name}", text, labels=("namespace", "persistentvolumeclaim"))
        for claim, figures in claims.items():
            stats.add_metric(claim, of(figures))
        yield stats


class ProxySeries:
    """What the service proxy does.

    Attributes:
        syncs: bringing the listeners into step with all Services.
        programming: from the change of a pod or Service until connections follow it.
    """

    def __init__(self) -> None:
        self.syncs = Durations(exponential(0.001, 2, 15))
        self.programming = Durations(_PROGRAMMING_S)
        self.service_changes = self.endpoint_changes = 0

    def collect(self) -> Iterator[Metric]:
        yield self.syncs.family("kubeproxy_sync_proxy_rules_duration_seconds", "Bringing listeners into step.")
        yield self.programming.family(
            "kubeproxy_network_programming_duration_seconds", "From a change until connections follow it."
        )
        for name, count in (("service", self.service_changes), ("endpoint", self.endpoint_changes)):
            yield CounterMetricFamily(
                f"kubeproxy_sync_proxy_rules_{name}_changes", f"Changes of a {name} seen.", value=count
            )
