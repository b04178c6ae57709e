"""The data of ``bench.rules``: what a kube-prometheus scrapes of a cluster, made from a seed.

100 nodes of 15 pods with two containers each, in 40 namespaces, and only the metrics that the rules of kube-prometheus
read: about 100,000 series in all. Something is wrong here and there, so that alerts have work, too: a node that is not
ready, pods that cannot start, a file system that fills up, targets that are down.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.workload import Block
from flyball.model.labels import labels_of

INTERVAL_MS = 30_000
NODES, PODS_EACH, NAMESPACES, CPUS = 100, 15, 40, 8
PODS = NODES * PODS_EACH
#: Of every deployment.
REPLICAS = 3
CLAIMS_EACH = 3
SLI_BOUNDS = ("0.05", "0.1", "0.2", "0.4", "0.6", "0.8", "1", "1.25", "1.5", "2", "3", "4", "5", "6", "8", "10", "15",
              "20", "30", "45", "60", "+Inf")  # fmt: skip
BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")
SYSTEM = ("default", "kube-system", "monitoring")
RESTARTED, MISSED = 0.05, 0.02


class Series(NamedTuple):
    """``kind``: constant at ``level``, gauge around it, counter (of whole numbers) or seconds, which grow by it each
    scrape, falls to nothing from it, or bucket: a counter of what is above the bound before."""

    metric: str
    labels: dict[str, str]
    level: float
    kind: str = "constant"


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    namespace: str
    node: int
    owner_kind: str
    owner: str

    @property
    def own(self) -> dict[str, str]:
        return {"namespace": self.namespace, "pod": self.name}


def namespace_of(number: int) -> str:
    place = number % NAMESPACES
    return SYSTEM[place] if place < len(SYSTEM) else f"team-{place}"


def pods() -> list[Pod]:
    """In groups of twelve: a daemon's, a job's, one of a stateful set, nine of three deployments."""
    found = []
    for number in range(PODS):
        group, place = divmod(number, 12)
        namespace, node = namespace_of(group), number % NODES
        match place:
            case 0:
                found.append(Pod(f"agent-{number:05x}", namespace, node, "DaemonSet", f"agent-{group % 4}"))
            case 1:
                found.append(Pod(f"batch-{group}-{number:05x}", namespace, node, "Job", f"batch-{group}"))
            case 2:
                found.append(Pod(f"db-{group}-0", namespace, node, "StatefulSet", f"db-{group}"))
            case _:
                owner = f"web-{group}-{place // REPLICAS}-{group:08x}"
                found.append(Pod(f"{owner}-{number:05x}", namespace, node, "ReplicaSet", owner))
    return found


# --- the targets


def _histogram(name: str, labels: dict[str, str], bounds: Iterable[str], level: float) -> list[Series]:
    return [Series(f"{name}_bucket", {**labels, "le": bound}, level, "bucket") for bound in bounds]


def _node_exporter(node: int) -> list[Series]:
    found = [
        Series("node_cpu_seconds_total", {"cpu": str(cpu), "mode": mode}, 30 * share, "seconds")
        for cpu in range(CPUS)
        for mode, share in (("idle", 0.7), ("iowait", 0.02), ("irq", 0.0), ("nice", 0.0), ("softirq", 0.01),
                            ("steal", 0.0), ("system", 0.09), ("user", 0.18))
    ]  # fmt: skip
    total = 64 << 30
    for field, share in (("MemTotal", 1.0), ("MemFree", 0.2), ("MemAvailable", 0.5), ("Buffers", 0.05),
                         ("Cached", 0.25), ("Slab", 0.02)):  # fmt: skip
        found.append(Series(f"node_memory_{field}_bytes", {}, total * share, "constant" if share == 1 else "gauge"))
    for device in ("nvme0n1", "nvme1n1"):
        for metric in ("node_disk_io_time_seconds_total", "node_disk_io_time_weighted_seconds_total"):
            found.append(Series(metric, {"device": device}, 3, "seconds"))
    size = 500 * 10**9
    for place, mount in enumerate(("/", "/boot", "/var", "/var/lib/kubelet", "/data")):
        labels = {"device": f"/dev/nvme{place // 3}n1p{place}", "fstype": "ext4", "mountpoint": mount}
        filling = node % 20 == 3 and place == 2
        found += [
            Series("node_filesystem_size_bytes", labels, size),
            Series("node_filesystem_avail_bytes", labels, size * (0.12 if filling else 0.6),
                   "falls" if filling else "gauge"),
            Series("node_filesystem_files", labels, 3e7),
            Series("node_filesystem_files_free", labels, 2e7, "gauge"),
            Series("node_filesystem_readonly", labels, 0),
        ]  # fmt: skip
    for device in ("lo", "eth0", "eth1", "cni0"):
        labels = {"device": device}
        for way in ("receive", "transmit"):
            for what, level in (("bytes", 3e6), ("packets", 3e3), ("errs", 0), ("drop", 0)):
                found.append(Series(f"node_network_{way}_{what}_total", labels, level, "counter"))
        found.append(Series("node_network_up", labels, 1))
    for metric, level in (("node_load1", 4), ("node_filefd_allocated", 5000), ("node_timex_offset_seconds", 1e-4),
                          ("node_nf_conntrack_entries", 9000)):  # fmt: skip
        found.append(Series(metric, {}, level, "gauge"))
    for metric, level in (("node_filefd_maximum", 1e6), ("node_timex_maxerror_seconds", 0.1),
                          ("node_timex_sync_status", 1), ("node_nf_conntrack_entries_limit", 262144),
                          ("node_textfile_scrape_error", 0)):  # fmt: skip
        found.append(Series(metric, {}, level))
    return [*found, Series("node_vmstat_pgmajfault", {}, 20, "counter")]


def _kubelet(node: int) -> list[Series]:
    found = [
        Series("kubelet_node_name", {"node": f"node-{node}"}, 1),
        Series("kubelet_running_pods", {}, PODS_EACH),
        Series("kubelet_evictions", {"eviction_signal": "memory.available"}, 0),
        Series("kubelet_certificate_manager_client_expiration_renew_errors", {}, 0),
        Series("kubelet_certificate_manager_client_ttl_seconds", {}, 7e6),
        Series("kubelet_certificate_manager_server_ttl_seconds", {}, 7e6),
        Series("kubelet_server_expiration_renew_errors", {}, 0),
        Series("kubernetes_build_info", {"git_version": "v1.37.1"}, 1),
        *_histogram("kubelet_pleg_relist_duration_seconds", {}, BOUNDS, 2),
    ]
    for operation in ("create", "sync", "terminate", "terminated"):
        found += _histogram("kubelet_pod_worker_duration_seconds", {"operation_type": operation}, BOUNDS, 1)
    for claim in range(CLAIMS_EACH):
        labels = {"namespace": namespace_of(node + claim), "persistentvolumeclaim": f"data-{node}-{claim}"}
        full = node % 25 == 7 and claim == 0
        found += [
            Series("kubelet_volume_stats_capacity_bytes", labels, 1e11),
            Series("kubelet_volume_stats_available_bytes", labels, 1e9 if full else 6e10, "falls" if full else "gauge"),
            Series("kubelet_volume_stats_used_bytes", labels, 9.9e10 if full else 4e10, "gauge"),
            Series("kubelet_volume_stats_inodes", labels, 6e6),
            Series("kubelet_volume_stats_inodes_free", labels, 5e6, "gauge"),
            Series("kubelet_volume_stats_inodes_used", labels, 1e6, "gauge"),
        ]
    return found


def _cadvisor(mine: list[Pod]) -> list[Series]:
    """Each pod's own group has no container and no image, as upstream's has."""
    found = []
    for pod in mine:
        for container in ("app", "sidecar", ""):
            image = f"registry.example/{container}:1" if container else ""
            labels = {**pod.own, "container": container, "image": image, "name": f"{container}-{pod.name}"}
            found.append(Series("container_cpu_usage_seconds_total", labels | {"cpu": "total"}, 6, "seconds"))
            for what, level in (("working_set_bytes", 3e8), ("rss", 2e8), ("cache", 1e8), ("swap", 0)):
                found.append(Series(f"container_memory_{what}", labels, level, "gauge"))
            found.append(Series("container_cpu_cfs_periods_total", labels, 300, "counter"))
            throttled = 200 if pod.node % 30 == 1 and container == "app" else 3
            found.append(Series("container_cpu_cfs_throttled_periods_total", labels, throttled, "counter"))
    return found


def _kube_state(everyone: list[Pod]) -> list[Series]:
    found = [Series("kube_state_metrics_shard_ordinal", {"shard_ordinal": "0"}, 0)]
    found.append(Series("kube_state_metrics_total_shards", {}, 1))
    for result, level in (("success", 5), ("error", 0)):
        for metric in ("kube_state_metrics_list_total", "kube_state_metrics_watch_total"):
            found.append(Series(metric, {"resource": "*v1.Pod", "result": result}, level, "counter"))
    for number, pod in enumerate(everyone):
        found += _pod(number, pod)
    for node in range(NODES):
        found += _node(node)
    owners = {(pod.namespace, pod.owner_kind, pod.owner): None for pod in everyone}
    for number, (namespace, kind, name) in enumerate(owners):
        found += _OWNERS[kind](number, namespace, name)
    for namespace in map(namespace_of, range(NAMESPACES)):
        for resource in ("cpu", "memory", "requests.cpu", "requests.memory", "pods"):
            for type_, level in (("hard", 100), ("used", 70 + 30 * (resource == "pods"))):
                labels = {"namespace": namespace, "resourcequota": "all", "resource": resource, "type": type_}
                found.append(Series("kube_resourcequota", labels, level))
    for node in range(NODES):
        for claim in range(CLAIMS_EACH):
            name = f"data-{node}-{claim}"
            labels = {"namespace": namespace_of(node + claim), "persistentvolumeclaim": name}
            found.append(Series("kube_persistentvolumeclaim_access_mode", labels | {"access_mode": "ReadWriteOnce"}, 1))
            for phase in ("Pending", "Available", "Bound", "Released", "Failed"):
                labels = {"persistentvolume": f"pv-{name}", "phase": phase}
                found.append(Series("kube_persistentvolume_status_phase", labels, float(phase == "Bound")))
    return found


def _pod(number: int, pod: Pod) -> list[Series]:
    own = pod.own | {"uid": f"00000000-0000-0000-0000-{number:012x}"}
    node = f"node-{pod.node}"
    pending = number % 300 == 11
    found = [
        Series("kube_pod_info", own | {"node": node, "host_ip": f"10.0.0.{pod.node}", "pod_ip": f"10.1.{number}",
                                       "created_by_kind": pod.owner_kind, "created_by_name": pod.owner}, 1),
        Series("kube_pod_owner", own | {"owner_kind": pod.owner_kind, "owner_name": pod.owner,
                                        "owner_is_controller": "true"}, 1),
    ]  # fmt: skip
    phase = "Pending" if pending else "Running"
    for one in ("Pending", "Succeeded", "Failed", "Unknown", "Running"):
        found.append(Series("kube_pod_status_phase", own | {"phase": one}, float(one == phase)))
    for condition in ("true", "false", "unknown"):
        ready = condition == ("false" if pending else "true")
        found.append(Series("kube_pod_status_ready", own | {"condition": condition}, float(ready)))
    for container in ("app", "sidecar"):
        for resource, unit, level in (("cpu", "core", 0.25), ("memory", "byte", 5e8)):
            labels = own | {"container": container, "node": node, "resource": resource, "unit": unit}
            found.append(Series("kube_pod_container_resource_requests", labels, level))
            found.append(Series("kube_pod_container_resource_limits", labels, 2 * level))
    if pending or number % 200 == 5:
        reason = "ContainerCreating" if pending else "CrashLoopBackOff"
        labels = own | {"container": "app", "reason": reason}
        found.append(Series("kube_pod_container_status_waiting_reason", labels, 1))
    return found


def _node(node: int) -> list[Series]:
    own = {"node": f"node-{node}"}
    bad = node == 17
    found = [
        Series("kube_node_info", own | {"kubelet_version": "v1.37.1", "internal_ip": f"10.0.0.{node}"}, 1),
        Series("kube_node_role", own | {"role": "control-plane" if node < 3 else "worker"}, 1),
        Series("kube_node_spec_unschedulable", own, float(node == 18)),
    ]
    if bad:
        taint = {"key": "node.kubernetes.io/unreachable", "value": "", "effect": "NoSchedule"}
        found.append(Series("kube_node_spec_taint", own | taint, 1))
    for resource, unit, level in (("cpu", "core", CPUS), ("memory", "byte", 64 << 30), ("pods", "integer", 110)):
        labels = own | {"resource": resource, "unit": unit}
        found.append(Series("kube_node_status_allocatable", labels, level))
        found.append(Series("kube_node_status_capacity", labels, level))
    for condition in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
        status = "true" if (condition == "Ready") != bad else "false"
        for one in ("true", "false", "unknown"):
            labels = own | {"condition": condition, "status": one}
            found.append(Series("kube_node_status_condition", labels, float(one == status)))
    return found


def _replica_set(number: int, namespace: str, name: str) -> list[Series]:
    deployment = name.rpartition("-")[0]
    own = {"namespace": namespace, "deployment": deployment}
    owner = {"owner_kind": "Deployment", "owner_name": deployment, "owner_is_controller": "true"}
    short = number % 50 == 9
    hpa = {"namespace": namespace, "horizontalpodautoscaler": deployment}
    return [
        Series("kube_replicaset_owner", {"namespace": namespace, "replicaset": name} | owner, 1),
        Series("kube_deployment_metadata_generation", own, 2),
        Series("kube_deployment_status_observed_generation", own, 2),
        Series("kube_deployment_spec_replicas", own, REPLICAS),
        Series("kube_deployment_status_replicas_available", own, REPLICAS - short),
        Series("kube_deployment_status_replicas_updated", own, REPLICAS),
        Series("kube_deployment_status_condition", own | {"condition": "Progressing", "status": "false"}, 0),
        Series("kube_horizontalpodautoscaler_spec_min_replicas", hpa, 1),
        Series("kube_horizontalpodautoscaler_spec_max_replicas", hpa, REPLICAS if number % 40 == 2 else 10),
        Series("kube_horizontalpodautoscaler_status_current_replicas", hpa, REPLICAS),
        Series("kube_horizontalpodautoscaler_status_desired_replicas", hpa, REPLICAS + (number % 60 == 3)),
    ]


def _stateful_set(number: int, namespace: str, name: str) -> list[Series]:
    own = {"namespace": namespace, "statefulset": name}
    budget = {"namespace": namespace, "poddisruptionbudget": name}
    return [
        Series("kube_statefulset_metadata_generation", own, 1),
        Series("kube_statefulset_status_observed_generation", own, 1 - (number % 50 == 4)),
        Series("kube_statefulset_replicas", own, 1),
        Series("kube_statefulset_status_replicas_ready", own, 1),
        Series("kube_statefulset_status_replicas_updated", own, 1),
        Series("kube_statefulset_status_current_revision", own | {"revision": f"{name}-1"}, 1),
        Series("kube_statefulset_status_update_revision", own | {"revision": f"{name}-1"}, 1),
        Series("kube_poddisruptionbudget_status_current_healthy", budget, 1 - (number % 50 == 4)),
        Series("kube_poddisruptionbudget_status_desired_healthy", budget, 1),
    ]


def _daemon_set(_: int, namespace: str, name: str) -> list[Series]:
    own = {"namespace": namespace, "daemonset": name}
    return [
        Series(f"kube_daemonset_status_{what}", own, level)
        for what, level in (("current_number_scheduled", 3), ("desired_number_scheduled", 3), ("number_available", 3),
                            ("number_misscheduled", 0), ("updated_number_scheduled", 3))
    ]  # fmt: skip


def _job(number: int, namespace: str, name: str) -> list[Series]:
    own = {"namespace": namespace, "job_name": name}
    owner = {"owner_kind": "CronJob", "owner_name": name, "owner_is_controller": "true"}
    failed = [Series("kube_job_failed", own | {"condition": "true"}, 1)] if number % 30 == 6 else []
    return [
        Series("kube_job_owner", own | owner, 1),
        Series("kube_job_status_active", own, 1),
        Series("kube_job_status_start_time", own, 1.7e9),
        *failed,
    ]


_OWNERS: dict[str, Callable[[int, str, str], list[Series]]] = {
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
}


def _api_server() -> list[Series]:
    found = []
    for resource in ("pods", "nodes", "services", "endpoints", "secrets", "configmaps", "leases", "deployments", "jobs",
                     "replicasets", "statefulsets", "daemonsets", "events", "namespaces"):  # fmt: skip
        for verb, scope in (("LIST", "cluster"), ("LIST", "namespace"), ("GET", "resource"), ("POST", "resource"),
                            ("PUT", "resource"), ("PATCH", "resource"), ("DELETE", "resource")):  # fmt: skip
            labels = {"resource": resource, "verb": verb, "scope": scope, "subresource": "", "version": "v1"}
            found += _histogram("apiserver_request_sli_duration_seconds", labels, SLI_BOUNDS, 1)
            found.append(Series("apiserver_request_sli_duration_seconds_count", labels, 11, "counter"))
            for code, level in (("200", 20), ("304", 1), ("404", 2), ("500", 0.2)):
                found.append(Series("apiserver_request_total", labels | {"code": code}, level, "counter"))
    found += _histogram("apiserver_client_certificate_expiration_seconds", {}, ("0", "1800", "86400", "+Inf"), 1)
    found.append(Series("apiserver_client_certificate_expiration_seconds_count", {}, 2, "counter"))
    for reason in ("Handler", "Server"):
        found.append(Series("apiserver_request_terminations_total", {"component": reason}, 0.1, "counter"))
    aggregated = {"name": "v1beta1.metrics.k8s.io"}
    found.append(Series("aggregator_unavailable_apiservice", aggregated, 0))
    found.append(Series("aggregator_unavailable_apiservice_total", aggregated | {"reason": "Timeout"}, 0.1, "counter"))
    found.append(Series("kubernetes_build_info", {"git_version": "v1.37.1"}, 1))
    return found + [
        Series("rest_client_requests_total", {"code": code, "host": "10.0.0.1", "method": "GET"}, level, "counter")
        for code, level in (("200", 100), ("404", 1), ("500", 2))
    ]


def _prometheus() -> list[Series]:
    found = [
        Series(f"prometheus_{metric}", {}, level, kind)
        for metric, level, kind in (
            ("config_last_reload_successful", 1, "constant"), ("engine_queries", 2, "gauge"),
            ("engine_queries_concurrent_max", 20, "constant"),
            ("notifications_alertmanagers_discovered", 3, "constant"),
            ("notifications_queue_capacity", 1e4, "constant"), ("notifications_queue_length", 3, "gauge"),
            ("target_metadata_cache_entries", 900, "constant"), ("sd_refresh_failures_total", 0, "counter"),
            ("tsdb_compactions_failed_total", 0, "counter"), ("tsdb_head_samples_appended_total", 1e5, "counter"),
            ("tsdb_reloads_failures_total", 0, "counter"), ("target_sync_failed_total", 0, "counter"),
            ("target_scrape_pool_exceeded_label_limits_total", 0, "counter"),
            ("target_scrape_pool_exceeded_target_limit_total", 0, "counter"),
            ("target_scrapes_exceeded_body_size_limit_total", 0, "counter"),
            ("target_scrapes_exceeded_sample_limit_total", 0, "counter"),
            ("target_scrapes_sample_duplicate_timestamp_total", 1, "counter"),
            ("target_scrapes_sample_out_of_order_total", 0, "counter"), ("sd_kubernetes_failures_total", 0, "counter"),
        )
    ]  # fmt: skip
    for number in range(3):
        labels = {"alertmanager": f"http://10.0.0.{number}:9093/api/v2/alerts"}
        found.append(Series("prometheus_notifications_sent_total", labels, 30, "counter"))
        found.append(Series("prometheus_notifications_errors_total", labels, 1, "counter"))
    for number in range(38):
        labels = {"rule_group": f"group-{number}"}
        found.append(Series("prometheus_rule_evaluation_failures_total", labels, 0.01 * (number == 5), "counter"))
        found.append(Series("prometheus_rule_group_iterations_missed_total", labels, 0, "counter"))
        found.append(Series("prometheus_rule_group_rules", labels, 6))
    remote = {"remote_name": "away", "url": "http://away/write"}
    for metric, level in (("samples_failed_total", 1), ("samples_total", 9e4), ("failed_samples_total", 1),
                          ("succeeded_samples_total", 9e4), ("queue_highest_timestamp_seconds", 30),
                          ("queue_highest_sent_timestamp_seconds", 30)):  # fmt: skip
        found.append(Series(f"prometheus_remote_storage_{metric}", remote, level, "counter"))
    for metric, level in (("shards_desired", 3), ("shards_max", 50)):
        found.append(Series(f"prometheus_remote_storage_{metric}", remote, level))
    return found


def _alertmanager() -> list[Series]:
    found = [
        Series("alertmanager_cluster_failed_peers", {}, 0),
        Series("alertmanager_cluster_members", {}, 3),
        Series("alertmanager_config_hash", {}, 1234),
        Series("alertmanager_config_last_reload_successful", {}, 1),
        Series("process_start_time_seconds", {}, 1.7e9),
    ]
    for integration in ("email", "pagerduty", "slack", "webhook"):
        labels = {"integration": integration}
        found.append(Series("alertmanager_notifications_total", labels, 20, "counter"))
        found.append(Series("alertmanager_notifications_failed_total", labels, integration == "slack", "counter"))
    return found


def _operator() -> list[Series]:
    found = []
    for controller in ("alertmanager", "prometheus", "prometheus-agent", "thanos"):
        labels = {"controller": controller}
        found.append(Series("prometheus_operator_ready", labels, 1))
        found.append(Series("prometheus_operator_syncs", labels | {"status": "failed"}, 0))
        managed = labels | {"resource": "ServiceMonitor", "state": "rejected"}
        found.append(Series("prometheus_operator_managed_resources", managed, float(controller == "prometheus")))
        for metric, level in (("list_operations", 1), ("list_operations_failed", 0), ("watch_operations", 3),
                              ("watch_operations_failed", 0), ("node_address_lookup_errors", 0),
                              ("reconcile_operations", 9), ("reconcile_errors", 0),
                              ("status_update_operations", 9), ("status_update_errors", 0)):  # fmt: skip
            found.append(Series(f"prometheus_operator_{metric}_total", labels, level, "counter"))
    return found


def _scheduler() -> list[Series]:
    return [
        series
        for name in ("pod_scheduling_sli", "scheduling_algorithm", "scheduling_attempt")
        for series in _histogram(f"scheduler_{name}_duration_seconds", {}, BOUNDS, 2)
    ]


def _grafana() -> list[Series]:
    name = "grafana_http_request_duration_seconds_count"
    return [
        Series(name, {"handler": handler, "status_code": code}, 5, "counter")
        for handler in ("/api/ds/query", "/api/search")
        for code in ("200", "500")
    ]


# --- the blocks


def _target(job: str, namespace: str, number: int, **more: str) -> dict[str, str]:
    own = {"job": job, "namespace": namespace, "service": job, "endpoint": "https", "container": job}
    return {**own, "instance": f"10.0.{len(job)}.{number}:9100", "pod": f"{job}-{number}", **more}


def _kubelet_target(node: int) -> dict[str, str]:
    own = {"job": "kubelet", "namespace": "kube-system", "service": "kubelet", "endpoint": "https-metrics"}
    return {**own, "instance": f"10.0.0.{node}:10250", "node": f"node-{node}"}


def blocks(start_ms: int, rows: int, seed: int = 13) -> list[Block]:
    """``rows`` scrapes of every target, the first at ``start_ms`` and up to an interval after."""
    rng = np.random.default_rng(seed)
    everyone = pods()
    by_node: list[list[Pod]] = [[] for _ in range(NODES)]
    for pod in everyone:
        by_node[pod.node].append(pod)
    kubelet = [_kubelet_target(node) for node in range(NODES)]
    sets = {
        "node-exporter": [
            (_target("node-exporter", "monitoring", node, instance=f"node-{node}"), _node_exporter(node))
            for node in range(NODES)
        ],
        "kubelet": [(one | {"metrics_path": "/metrics"}, _kubelet(node)) for node, one in enumerate(kubelet)],
        "cadvisor": [
            (one | {"metrics_path": "/metrics/cadvisor"}, _cadvisor(by_node[node])) for node, one in enumerate(kubelet)
        ],
        "kube-state-metrics": [(_target("kube-state-metrics", "monitoring", 0), _kube_state(everyone))],
        "apiserver": [(_target("apiserver", "default", n), _api_server()) for n in range(3)],
        "prometheus": [(_target("prometheus-k8s", "monitoring", n), _prometheus()) for n in range(2)],
        "alertmanager": [
            (_target("alertmanager-main", "monitoring", n, container="alertmanager"), _alertmanager()) for n in range(3)
        ],
        "operator": [(_target("prometheus-operator", "monitoring", 0), _operator())],
        "scheduler": [(_target("kube-scheduler", "kube-system", n), _scheduler()) for n in range(3)],
        "controllers": [(_target("kube-controller-manager", "kube-system", n), []) for n in range(3)],
        "reloader": [
            (_target("config-reloader", "monitoring", n), [Series("reloader_last_reload_successful", {}, 1)])
            for n in range(5)
        ],
        "grafana": [(_target("grafana", "monitoring", 0), _grafana())],
    }
    return [_block(rng, name, start_ms, rows, targets) for name, targets in sets.items()]


def _block(
    rng: np.random.Generator, name: str, start_ms: int, rows: int, targets: list[tuple[dict[str, str], list[Series]]]
) -> Block:
    count, width = len(targets), max(len(series) for _, series in targets) + 1
    down = (np.arange(count) % 17 == 16).astype(float)
    labels, levels, kinds = [], np.zeros((count, width)), np.full((count, width), "constant")
    for t, (own, series) in enumerate(targets):
        full = [Series("up", {}, 1 - down[t]), *series]
        labels.append([labels_of({**own, **one.labels, "__name__": one.metric}) for one in full])
        levels[t] = [one.level for one in full]
        kinds[t] = [one.kind for one in full]
    values = np.broadcast_to(levels, (rows, count, width)).copy()
    shape = (rows, count, width)
    grows = np.isin(kinds, ("counter", "bucket"))
    values = np.where(grows, np.cumsum(rng.poisson(np.where(grows, levels, 0), shape), axis=0), values)
    seconds = kinds == "seconds"
    values = np.where(seconds, np.cumsum(levels * 2 * rng.random(shape), axis=0), values)
    values = np.where(kinds == "gauge", levels * (0.9 + 0.2 * rng.random(shape)), values)
    share_left = np.linspace(1.0, 0.2, rows)[:, None, None]
    values = np.where(kinds == "falls", levels * share_left * (0.99 + 0.02 * rng.random(shape)), values)
    for i in range(1, width):
        joined = (kinds[:, i] == "bucket") & (kinds[:, i - 1] == "bucket")
        first = np.array([dict(target[i]).get("le") in ("0", BOUNDS[0], SLI_BOUNDS[0]) for target in labels])
        values[:, :, i] += np.where(joined & ~first, values[:, :, i - 1], 0)
    for t in np.flatnonzero(rng.random(count) < RESTARTED).tolist():
        row = int(rng.integers(rows // 10, rows))
        values[row:, t] -= np.where(grows[t] | seconds[t], values[row, t], 0)
    missed = np.zeros((rows, count), bool)
    if count > 10:
        for t in np.flatnonzero(rng.random(count) < MISSED).tolist():
            row = int(rng.integers(rows // 10, rows - 9))
            missed[row : row + 9, t] = True
    times = start_ms + rng.integers(0, INTERVAL_MS, count) + INTERVAL_MS * np.arange(rows)[:, None]
    return Block(name, labels, values, times, missed)
