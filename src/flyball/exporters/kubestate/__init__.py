"""The state of a cluster's objects as metrics, under the names of kube-state-metrics."""

from flyball.exporters.kubestate import cluster, pods, workloads
from flyball.exporters.kubestate.families import Family, Kind, Object, Series

KINDS: tuple[Kind, ...] = (pods.KIND, *workloads.KINDS, *cluster.KINDS)

__all__ = ["KINDS", "Family", "Kind", "Object", "Series"]
