"""The node's own series under the kubelet's and kube-proxy's names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flyball import clock
from flyball.localcluster.durations import Series
from flyball.localcluster.node.series import NodeSeries, plugin_of
from flyball.localcluster.node.serviceproxy import TRIGGER_TIME, ServiceProxy

PODS = [
    {"name": "data", "persistentVolumeClaim": {"claimName": "db"}},
    {"name": "conf", "configMap": {"name": "c"}},
    {"name": "late", "secret": {"secretName": "s"}},
]


def lines(page: bytes, start: str) -> dict[str, float]:
    found = (line.rsplit(" ", 1) for line in page.decode().splitlines() if line.startswith(start))
    return {name: float(value) for name, value in found}


def test_volumes_are_counted_as_wanted_and_as_mounted_and_claims_tell_of_their_file_system(tmp_path: Path) -> None:
    worker: Any = SimpleNamespace(
        namespace="shop",
        pod={"spec": {"volumes": PODS}},
        mounted_volumes=lambda: {"data": tmp_path, "conf": tmp_path},
    )
    page = Series(lambda: NodeSeries().collect([worker])).exposition()
    total = lines(page, "volume_manager_total_volumes")
    wanted, mounted = (
        {name.split('"')[1] for name in total if state in name} for state in ("desired_state", "actual_state")
    )
    assert wanted == {f"kubernetes.io/{plugin}" for plugin in ("local-volume", "configmap", "secret")}
    assert mounted == wanted - {"kubernetes.io/secret"}, "it is not there yet"
    stats = lines(page, "kubelet_volume_stats_")
    label = '{namespace="shop",persistentvolumeclaim="db"}'
    size, free = (stats[f"kubelet_volume_stats_{name}_bytes{label}"] for name in ("capacity", "available"))
    assert size > free > 0
    inodes = {name: stats[f"kubelet_volume_stats_inodes{name}{label}"] for name in ("", "_free", "_used")}
    assert inodes[""] == inodes["_free"] + inodes["_used"]


def test_what_failed_is_counted_beside_all() -> None:
    series = NodeSeries()
    with series.operation("start_container"):
        pass
    with pytest.raises(OSError), series.operation("start_container"):
        raise OSError
    series.mounted({"name": "v"}, 0.3, good=False)
    page = Series(lambda: series.collect([])).exposition()
    assert lines(page, "kubelet_runtime_operations_total") == {
        'kubelet_runtime_operations_total{operation_type="start_container"}': 2.0
    }
    assert lines(page, "kubelet_runtime_operations_errors_total") == {
        'kubelet_runtime_operations_errors_total{operation_type="start_container"}': 1.0
    }
    assert lines(page, "storage_operation_duration_seconds_sum") == {
        'storage_operation_duration_seconds_sum{migrated="false",operation_name="volume_mount",status="fail-unknown",'
        f'volume_plugin="{plugin_of({"name": "v"})}"}}': 0.3
    }
    assert not lines(page, "kubelet_pod_start_duration_seconds"), "nothing started: nothing is said"


def test_the_proxy_tells_how_late_it_followed_a_change_and_nothing_of_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 10_000)
    proxy: Any = ServiceProxy(None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(clock, "now_ms", lambda: 12_500)
    for name, at in (("new", "1970-01-01T00:00:12Z"), ("old", "1970-01-01T00:00:09Z")):
        metadata = {"name": name, "namespace": "default", "annotations": {TRIGGER_TIME: at}}
        proxy.observe_slice("ADDED", {"metadata": metadata})
    page = Series(proxy.series.collect).exposition()
    assert lines(page, "kubeproxy_network_programming_duration_seconds_sum") == {
        "kubeproxy_network_programming_duration_seconds_sum": 0.5
    }
    assert lines(page, "kubeproxy_sync_proxy_rules_endpoint_changes_total") == {
        "kubeproxy_sync_proxy_rules_endpoint_changes_total": 2.0
    }
