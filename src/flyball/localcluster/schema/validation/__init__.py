"""Whether an object's values are allowed, in upstream's words.

Sources: the ``validation`` packages of Kubernetes 1.37. Causes come in upstream's order, as far as it matters to a
reader; `Cause.message` is one line of the answer kubectl prints.
"""

from __future__ import annotations

from collections.abc import Callable

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.autoscalers import check_hpa
from flyball.localcluster.schema.validation.causes import Cause, Object
from flyball.localcluster.schema.validation.definitions import check_definition
from flyball.localcluster.schema.validation.events import check_event
from flyball.localcluster.schema.validation.governors import check_governor
from flyball.localcluster.schema.validation.kinds import (
    check_api_service,
    check_binding,
    check_claim,
    check_config_map,
    check_disruption_budget,
    check_ingress,
    check_lease,
    check_role,
    check_secret,
    check_service,
    check_signing_request,
    check_storage_class,
    check_trust_bundle,
)
from flyball.localcluster.schema.validation.names import check_metadata
from flyball.localcluster.schema.validation.pods import check_pod
from flyball.localcluster.schema.validation.workloads import check_cron_job, check_job, check_workload

__all__ = ["Cause", "validate", "validate_own"]

_HANDLERS: dict[tuple[str, str], Callable[[Kind, Object, Object | None], list[Cause]]] = {
    ("", "Pod"): check_pod,
    ("", "Service"): check_service,
    ("", "ConfigMap"): check_config_map,
    ("", "PersistentVolumeClaim"): check_claim,
    ("", "Secret"): check_secret,
    ("", "Event"): check_event,
    ("events.k8s.io", "Event"): check_event,
    ("apps", "Deployment"): check_workload,
    ("apps", "ReplicaSet"): check_workload,
    ("apps", "StatefulSet"): check_workload,
    ("apps", "DaemonSet"): check_workload,
    ("batch", "Job"): check_job,
    ("batch", "CronJob"): check_cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): check_hpa,
    ("policy", "PodDisruptionBudget"): check_disruption_budget,
    ("networking.k8s.io", "Ingress"): check_ingress,
    ("apiregistration.k8s.io", "APIService"): check_api_service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): check_definition,
    ("certificates.k8s.io", "CertificateSigningRequest"): check_signing_request,
    ("certificates.k8s.io", "ClusterTrustBundle"): check_trust_bundle,
    ("coordination.k8s.io", "Lease"): check_lease,
    ("storage.k8s.io", "StorageClass"): check_storage_class,
    ("rbac.authorization.k8s.io", "RoleBinding"): check_binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): check_binding,
    ("rbac.authorization.k8s.io", "Role"): check_role,
    ("rbac.authorization.k8s.io", "ClusterRole"): check_role,
}


def validate(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object's values, after defaulting; empty when it may be stored.

    ``old`` is the stored object on an update, None on a create. JSON types must already be right (`type_errors`).
    """
    if "create" in kind.verbs and "get" not in kind.verbs:
        return []  # review kinds are answered, never stored
    causes = check_metadata(kind, obj, old)
    handler = _HANDLERS.get((kind.group, kind.kind))
    return causes + handler(kind, obj, old) if handler is not None else causes


def validate_own(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object of our own kinds beyond its definition's schema, which it must satisfy."""
    return check_governor(kind, obj, old) if (kind.group, kind.kind) == ("flyball.dev", "Governor") else []
