"""What ``kubectl get`` prints: upstream's printer columns, rendered on the server.

The columns are those of a kube-apiserver (columns-1.37.json.gz, written by tests/cluster/columns.py), the rows are
``printers``'. Ages are whole-second differences to ``now_ms`` in upstream's short form. Absent values print as upstream
prints them (``<none>``, ``<unknown>``), never as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from flyball.localcluster.schema import fields, printers, rareprinters
from flyball.localcluster.schema.cells import Object, Row, human_duration, int_at, list_at, text_at
from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.printers import with_age

__all__ = ["columns", "human_duration", "table"]

_COLUMN_FIELDS = ("name", "type", "format", "description", "priority")
_PRINTERS: dict[str, Callable[[Object, int], Row]] = {
    "/ConfigMap": with_age(lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ())),
    "/Endpoints": printers.endpoints,
    "/Event": printers.event,
    "/LimitRange": printers.created_at,
    "/Namespace": with_age(lambda o: text_at(o, "status", "phase", absent="")),
    "/Node": printers.node,
    "/PersistentVolume": printers.persistent_volume,
    "/PersistentVolumeClaim": printers.persistent_volume_claim,
    "/Pod": printers.pod,
    "/ReplicationController": printers.replica_set,
    "/ResourceQuota": printers.resource_quota,
    "/Secret": with_age(lambda o: str(o.get("type") or "Opaque"), lambda o: len(o.get("data") or ())),
    "/Service": printers.service,
    "/ServiceAccount": with_age(),
    "admissionregistration.k8s.io/MutatingWebhookConfiguration": printers.webhooks,
    "admissionregistration.k8s.io/ValidatingWebhookConfiguration": printers.webhooks,
    "apiextensions.k8s.io/CustomResourceDefinition": printers.custom_resource_definition,
    "apiregistration.k8s.io/APIService": printers.api_service,
    "apps/ControllerRevision": printers.controller_revision,
    "apps/DaemonSet": printers.daemon_set,
    "apps/Deployment": printers.deployment,
    "apps/ReplicaSet": printers.replica_set,
    "apps/StatefulSet": printers.stateful_set,
    "autoscaling/HorizontalPodAutoscaler": printers.hpa,
    "autoscaling/Scale": with_age(lambda o: int_at(o, "spec", "replicas"), lambda o: int_at(o, "status", "replicas")),
    "batch/CronJob": printers.cron_job,
    "batch/Job": printers.job,
    "coordination.k8s.io/Lease": with_age(lambda o: text_at(o, "spec", "holderIdentity", absent="")),
    "discovery.k8s.io/EndpointSlice": printers.endpoint_slice,
    "events.k8s.io/Event": printers.event,
    "networking.k8s.io/Ingress": printers.ingress,
    "networking.k8s.io/IngressClass": printers.ingress_class,
    "networking.k8s.io/NetworkPolicy": printers.network_policy,
    "node.k8s.io/RuntimeClass": with_age(lambda o: text_at(o, "handler", absent="")),
    "policy/PodDisruptionBudget": printers.disruption_budget,
    "rbac.authorization.k8s.io/ClusterRole": printers.created_at,
    "rbac.authorization.k8s.io/ClusterRoleBinding": printers.role_binding,
    "rbac.authorization.k8s.io/Role": printers.created_at,
    "rbac.authorization.k8s.io/RoleBinding": printers.role_binding,
    "scheduling.k8s.io/PriorityClass": printers.priority_class,
    "storage.k8s.io/StorageClass": printers.storage_class,
    "/PodTemplate": rareprinters.pod_template,
    "admissionregistration.k8s.io/MutatingAdmissionPolicy": rareprinters.admission_policy,
    "admissionregistration.k8s.io/MutatingAdmissionPolicyBinding": rareprinters.admission_policy_binding,
    "admissionregistration.k8s.io/ValidatingAdmissionPolicy": rareprinters.admission_policy,
    "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding": rareprinters.admission_policy_binding,
    "certificates.k8s.io/CertificateSigningRequest": rareprinters.signing_request,
    "certificates.k8s.io/ClusterTrustBundle": rareprinters.trust_bundle,
    "certificates.k8s.io/PodCertificateRequest": rareprinters.pod_certificate_request,
    "flowcontrol.apiserver.k8s.io/FlowSchema": rareprinters.flow_schema,
    "flowcontrol.apiserver.k8s.io/PriorityLevelConfiguration": rareprinters.priority_level,
    "networking.k8s.io/IPAddress": rareprinters.ip_address,
    "networking.k8s.io/ServiceCIDR": rareprinters.service_range,
    "resource.k8s.io/DeviceTaintRule": rareprinters.device_taint_rule,
    "resource.k8s.io/ResourceClaim": rareprinters.resource_claim,
    "resource.k8s.io/ResourceSlice": rareprinters.resource_slice,
    "storage.k8s.io/CSIDriver": rareprinters.csi_driver,
    "storage.k8s.io/CSINode": with_age(lambda o: len(list_at(o, "spec", "drivers"))),
    "storage.k8s.io/CSIStorageCapacity": printers.created_at,
    "storage.k8s.io/VolumeAttachment": rareprinters.volume_attachment,
    "storage.k8s.io/VolumeAttributesClass": with_age(lambda o: text_at(o, "driverName", absent="")),
}
_OTHER = "/ServiceAccount"  # NAME and AGE, for kinds without a printer here


@cache
def _recorded() -> dict[str, Any]:
    return fields.packaged("columns-1.37.json.gz")


def _printed_as(kind: Kind) -> str:
    key = f"{kind.group}/{kind.kind}"
    return key if key in _PRINTERS else _OTHER


def columns(kind: Kind) -> list[dict[str, Any]]:
    """The ``columnDefinitions`` of a kind's Table; priority 1 means only with ``-o wide``."""
    return [dict(zip(_COLUMN_FIELDS, column, strict=True)) for column in _recorded()[_printed_as(kind)]]


def table(kind: Kind, objects: Sequence[Object], now_ms: int) -> tuple[list[dict[str, Any]], list[Row]]:
    """(column definitions, one list of cells per object in the given order).

    ``now_ms`` is Unix milliseconds. Kinds without a printer of their own get NAME and AGE. The caller wraps each list
    of cells as ``{"cells": ..., "object": ...}``.
    """
    row = _PRINTERS[_printed_as(kind)]
    return columns(kind), [row(obj, now_ms) for obj in objects]
