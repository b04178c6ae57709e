"""Families of nodes, namespaces, volumes, networking and limits."""

from collections.abc import Iterator

from flyball.exporters.kubestate.families import (
    Family,
    Kind,
    Object,
    Pairs,
    Series,
    at,
    conditions,
    info,
    namespaced,
    number,
    one_of,
    own_labels,
    quantity,
    resources,
    text,
    time,
)
from flyball.kube.kinds import (
    ENDPOINT_SLICES,
    INGRESSES,
    LIMIT_RANGES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    RESOURCE_QUOTAS,
    SERVICES,
    STORAGE_CLASSES,
)

_CREATED, _DELETED = time("metadata.creationTimestamp"), time("metadata.deletionTimestamp")
_ROLE = "node-role.kubernetes.io/"


def _created(name: str, *, deletion: bool = False) -> tuple[Family, ...]:
    what = name.removeprefix("kube_")
    families = [Family(f"{name}_created", f"When the {what} was created.", _CREATED)]
    if deletion:
        families.append(Family(f"{name}_deletion_timestamp", f"When the {what} is to go.", _DELETED))
    return tuple(families)


def _rows(series: list[Pairs]) -> Series:
    return [(labels, 1.0) for labels in series]


def _node_info(node: Object) -> Series:
    found = at(node, "status.nodeInfo") or {}
    inner = [one["address"] for one in at(node, "status.addresses") or () if one["type"] == "InternalIP"]
    labels = (
        ("kernel_version", found.get("kernelVersion", "")),
        ("os_image", found.get("osImage", "")),
        ("container_runtime_version", found.get("containerRuntimeVersion", "")),
        ("kubelet_version", found.get("kubeletVersion", "")),
        ("kubeproxy_version", "deprecated"),
        ("provider_id", text(at(node, "spec.providerID"))),
        ("pod_cidr", text(at(node, "spec.podCIDR"))),
        ("system_uuid", found.get("systemUUID", "")),
        ("internal_ip", inner[-1] if inner else ""),
    )
    return [(labels, 1.0)]


NODE = Kind(
    NODES,
    own_labels(("node", "name")),
    (
        Family("kube_node_info", "What the node is.", _node_info),
        *_created("kube_node", deletion=True),
        Family(
            "kube_node_role",
            "Roles of the node.",
            lambda node: _rows(
                [
                    (("role", label.removeprefix(_ROLE)),)
                    for label in sorted(node["metadata"].get("labels") or {})
                    if label.startswith(_ROLE)
                ]
            ),
        ),
        Family(
            "kube_node_spec_pod_cidrs",
            "Ranges for the node's pods.",
            lambda node: _rows([(("pod_cidr", one),) for one in at(node, "spec.podCIDRs") or ()]),
        ),
        Family(
            "kube_node_spec_taint",
            "Taints of the node.",
            lambda node: _rows(
                [
                    (("key", one["key"]), ("value", one.get("value", "")), ("effect", one.get("effect", "")))
                    for one in at(node, "spec.taints") or ()
                ]
            ),
        ),
        Family("kube_node_spec_unschedulable", "Whether pods are kept away.", number("spec.unschedulable", zero=True)),
        Family(
            "kube_node_status_addresses",
            "Addresses of the node.",
            lambda node: _rows(
                [(("type", one["type"]), ("address", one["address"])) for one in at(node, "status.addresses") or ()]
            ),
        ),
        Family("kube_node_status_allocatable", "What pods may use.", lambda n: resources(at(n, "status.allocatable"))),
        Family("kube_node_status_capacity", "What the node has.", lambda n: resources(at(n, "status.capacity"))),
        Family("kube_node_status_condition", "Conditions of the node.", conditions("status.conditions")),
    ),
)
NAMESPACE = Kind(
    NAMESPACES,
    own_labels(("namespace", "name")),
    (
        *_created("kube_namespace"),
        Family(
            "kube_namespace_status_phase",
            "Phase of the namespace.",
            lambda obj: [
                ((("phase", phase),), float(at(obj, "status.phase") == phase)) for phase in ("Active", "Terminating")
            ],
        ),
        Family("kube_namespace_status_condition", "Conditions of the namespace.", conditions("status.conditions")),
    ),
)

_VOLUME_SOURCES = (
    ("gce_persistent_disk_name", "gcePersistentDisk.pdName"),
    ("ebs_volume_id", "awsElasticBlockStore.volumeID"),
    ("azure_disk_name", "azureDisk.diskName"),
    ("fc_wwids", "fc.wwids"),
    ("fc_lun", "fc.lun"),
    ("fc_target_wwns", "fc.targetWWNs"),
    ("iscsi_target_portal", "iscsi.targetPortal"),
    ("iscsi_iqn", "iscsi.iqn"),
    ("iscsi_lun", "iscsi.lun"),
    ("iscsi_initiator_name", "iscsi.initiatorName"),
    ("nfs_server", "nfs.server"),
    ("nfs_path", "nfs.path"),
    ("csi_driver", "csi.driver"),
    ("csi_volume_handle", "csi.volumeHandle"),
    ("local_path", "local.path"),
    ("local_fs", "local.fsType"),
    ("host_path", "hostPath.path"),
    ("host_path_type", "hostPath.type"),
)


def _volume_info(volume: Object) -> Series:
    spec = volume.get("spec") or {}

    def shown(path: str) -> str:
        value = at(spec, path)
        return ",".join(value) if isinstance(value, list) else text(value)

    labels = (
        ("storageclass", text(spec.get("storageClassName"))),
        *((label, shown(path)) for label, path in _VOLUME_SOURCES),
        ("reclaim_policy", text(spec.get("persistentVolumeReclaimPolicy"))),
    )
    return [(labels, 1.0)]


def _claim_ref(volume: Object) -> Series:
    ref = at(volume, "spec.claimRef")
    return _rows([(("name", ref.get("name", "")), ("claim_namespace", ref.get("namespace", "")))]) if ref else ()


def _access_modes(obj: Object) -> Series:
    return _rows([(("access_mode", one),) for one in at(obj, "spec.accessModes") or ()])


VOLUME = Kind(
    PERSISTENT_VOLUMES,
    own_labels(("persistentvolume", "name")),
    (
        Family("kube_persistentvolume_info", "What the volume is.", _volume_info),
        Family("kube_persistentvolume_claim_ref", "The claim that has the volume.", _claim_ref),
        Family("kube_persistentvolume_access_mode", "How the volume may be mounted.", _access_modes),
        Family(
            "kube_persistentvolume_status_phase",
            "Phase of the volume.",
            one_of("phase", "status.phase", ("Pending", "Available", "Bound", "Released", "Failed")),
        ),
        Family(
            "kube_persistentvolume_capacity_bytes",
            "Size of the volume.",
            lambda obj: [((), quantity(at(obj, "spec.capacity.storage") or 0))],
        ),
        *_created("kube_persistentvolume", deletion=True),
        Family(
            "kube_persistentvolume_volume_mode",
            "Whether the volume is a file system or a block device.",
            lambda obj: _rows([(("volumemode", at(obj, "spec.volumeMode") or "Filesystem"),)]),
        ),
    ),
)
CLAIM = Kind(
    PERSISTENT_VOLUME_CLAIMS,
    namespaced("persistentvolumeclaim"),
    (
        Family(
            "kube_persistentvolumeclaim_info",
            "What the claim asks for.",
            lambda obj: _rows(
                [
                    (
                        ("storageclass", _storage_class(obj)),
                        ("volumename", text(at(obj, "spec.volumeName"))),
                        ("volumemode", text(at(obj, "spec.volumeMode"))),
                    )
                ]
            ),
        ),
        Family(
            "kube_persistentvolumeclaim_status_phase",
            "Phase of the claim.",
            one_of("phase", "status.phase", ("Lost", "Bound", "Pending")),
        ),
        Family(
            "kube_persistentvolumeclaim_resource_requests_storage_bytes",
            "Bytes asked for.",
            lambda obj: [
                ((), quantity(amount)) for amount in [at(obj, "spec.resources.requests.storage")] if amount is not None
            ],
        ),
        Family("kube_persistentvolumeclaim_access_mode", "How the claim is to be mounted.", _access_modes),
        Family("kube_persistentvolumeclaim_status_condition", "Conditions.", conditions("status.conditions")),
        *_created("kube_persistentvolumeclaim", deletion=True),
    ),
)
STORAGE_CLASS = Kind(
    STORAGE_CLASSES,
    own_labels(("storageclass", "name")),
    (
        Family(
            "kube_storageclass_info",
            "What the class provides.",
            lambda obj: _rows(
                [
                    (
                        ("provisioner", text(obj.get("provisioner"))),
                        ("reclaim_policy", obj.get("reclaimPolicy") or "Delete"),
                        ("volume_binding_mode", obj.get("volumeBindingMode") or "Immediate"),
                    )
                ]
            ),
        ),
        *_created("kube_storageclass"),
    ),
)


def _storage_class(claim: Object) -> str:
    old = (claim["metadata"].get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    found = at(claim, "spec.storageClassName")
    return str(old if old is not None else found if found is not None else "")


SERVICE = Kind(
    SERVICES,
    own_labels(("namespace", "namespace"), ("service", "name"), ("uid", "uid")),
    (
        Family(
            "kube_service_info",
            "How the service is reached.",
            info(
                ("cluster_ip", "spec.clusterIP"),
                ("external_name", "spec.externalName"),
                ("load_balancer_ip", "spec.loadBalancerIP"),
                ("external_traffic_policy", "spec.externalTrafficPolicy"),
            ),
        ),
        *_created("kube_service", deletion=True),
        Family("kube_service_spec_type", "Type of the service.", info(("type", "spec.type"))),
        Family(
            "kube_service_spec_external_ip",
            "External addresses.",
            lambda obj: _rows([(("external_ip", one),) for one in at(obj, "spec.externalIPs") or ()]),
        ),
        Family(
            "kube_service_status_load_balancer_ingress",
            "Where the load balancer answers.",
            lambda obj: _rows(
                [
                    (("ip", one.get("ip", "")), ("hostname", one.get("hostname", "")))
                    for one in at(obj, "status.loadBalancer.ingress") or ()
                ]
            ),
        ),
    ),
)


def _ingress_paths(obj: Object) -> Iterator[tuple[Pairs, float]]:
    for rule in at(obj, "spec.rules") or ():
        for path in at(rule, "http.paths") or ():
            backend = path.get("backend") or {}
            service, resource = backend.get("service"), backend.get("resource") or {}
            head = (
                ("host", rule.get("host", "")),
                ("path", path.get("path", "")),
                ("path_type", text(path.get("pathType"))),
            )
            if service:
                number = text(at(service, "port.number") or 0)
                yield (*head, ("service_name", service.get("name", "")), ("service_port", number)), 1.0
            else:
                yield (
                    (
                        *head,
                        ("resource_api_group", text(resource.get("apiGroup"))),
                        ("resource_kind", resource.get("kind", "")),
                        ("resource_name", resource.get("name", "")),
                    ),
                    1.0,
                )


INGRESS = Kind(
    INGRESSES,
    namespaced("ingress"),
    (
        Family(
            "kube_ingress_info",
            "Class of the ingress.",
            lambda obj: _rows([(("ingressclass", _ingress_class(obj)),)]),
        ),
        *_created("kube_ingress"),
        Family("kube_ingress_metadata_resource_version", "Version of the object.", number("metadata.resourceVersion")),
        Family("kube_ingress_path", "Hosts and paths, with where they lead.", _ingress_paths),
        Family(
            "kube_ingress_tls",
            "Hosts with a certificate.",
            lambda obj: _rows(
                [
                    (("tls_host", host), ("secret", tls.get("secretName", "")))
                    for tls in at(obj, "spec.tls") or ()
                    for host in tls.get("hosts") or ()
                ]
            ),
        ),
    ),
)


def _ingress_class(obj: Object) -> str:
    old = (obj["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class")
    return str(at(obj, "spec.ingressClassName") or old or "_default")


def _endpoints(obj: Object) -> Iterator[tuple[Pairs, float]]:
    for one in obj.get("endpoints") or ():
        labels = (
            ("ready", text(at(one, "conditions.ready"))),
            ("serving", text(at(one, "conditions.serving"))),
            ("hostname", text(one.get("hostname"))),
            ("terminating", text(at(one, "conditions.terminating"))),
            ("targetref_kind", text(at(one, "targetRef.kind"))),
            ("targetref_name", text(at(one, "targetRef.name"))),
            ("targetref_namespace", text(at(one, "targetRef.namespace"))),
            ("endpoint_nodename", text(one.get("nodeName"))),
            ("endpoint_zone", text(one.get("zone"))),
        )
        for address in one.get("addresses") or ():
            yield (*labels, ("address", address)), 1.0


def _hints(obj: Object) -> Iterator[tuple[Pairs, float]]:
    for one in obj.get("endpoints") or ():
        for address in (one.get("addresses") or ())[:1]:  # all of an endpoint's addresses lead to the same
            for zone in at(one, "hints.forZones") or ():
                yield (("address", address), ("for_zone", text(zone.get("name")))), 1.0


ENDPOINT_SLICE = Kind(
    ENDPOINT_SLICES,
    own_labels(("endpointslice", "name"), ("namespace", "namespace")),
    (
        Family("kube_endpointslice_info", "Kind of addresses.", info(("addresstype", "addressType"))),
        *_created("kube_endpointslice"),
        Family("kube_endpointslice_endpoints", "Addresses with their conditions.", _endpoints),
        Family("kube_endpointslice_endpoints_hints", "Zones that an address is meant for.", _hints),
        Family(
            "kube_endpointslice_ports",
            "Ports of the addresses.",
            lambda obj: _rows(
                [
                    (
                        ("port_name", text(one.get("name"))),
                        ("port_protocol", text(one.get("protocol"))),
                        ("port_number", text(one.get("port"))),
                    )
                    for one in obj.get("ports") or ()
                ]
            ),
        ),
    ),
)
_PDB = "kube_poddisruptionbudget"
DISRUPTION_BUDGET = Kind(
    POD_DISRUPTION_BUDGETS,
    namespaced("poddisruptionbudget"),
    (
        *_created(_PDB, deletion=True),
        Family(f"{_PDB}_status_current_healthy", "Healthy pods.", number("status.currentHealthy", zero=True)),
        Family(f"{_PDB}_status_desired_healthy", "Healthy pods wanted.", number("status.desiredHealthy", zero=True)),
        Family(
            f"{_PDB}_status_pod_disruptions_allowed",
            "Pods that may be disrupted now.",
            number("status.disruptionsAllowed", zero=True),
        ),
        Family(f"{_PDB}_status_expected_pods", "Pods counted.", number("status.expectedPods", zero=True)),
        Family(
            f"{_PDB}_status_observed_generation",
            "Generation the controller has seen.",
            number("status.observedGeneration", zero=True),
        ),
    ),
)


def _quota(obj: Object) -> Iterator[tuple[Pairs, float]]:
    for kind in ("hard", "used"):
        for resource, amount in sorted((at(obj, f"status.{kind}") or {}).items()):
            yield (("resource", resource), ("type", kind)), quantity(amount)


def _limits(obj: Object) -> Iterator[tuple[Pairs, float]]:
    for limit in at(obj, "spec.limits") or ():
        for constraint in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio"):
            for resource, amount in sorted((limit.get(constraint) or {}).items()):
                labels = (("resource", resource), ("type", limit.get("type", "")), ("constraint", constraint))
                yield labels, quantity(amount)


QUOTA = Kind(
    RESOURCE_QUOTAS,
    namespaced("resourcequota"),
    (*_created("kube_resourcequota"), Family("kube_resourcequota", "Quotas, and what is used of them.", _quota)),
)
LIMIT_RANGE = Kind(
    LIMIT_RANGES,
    namespaced("limitrange"),
    (Family("kube_limitrange", "Limits of a namespace.", _limits), *_created("kube_limitrange")),
)

KINDS = (
    NODE,
    NAMESPACE,
    VOLUME,
    CLAIM,
    STORAGE_CLASS,
    SERVICE,
    INGRESS,
    ENDPOINT_SLICE,
    DISRUPTION_BUDGET,
    QUOTA,
    LIMIT_RANGE,
)
