"""What the server itself decides about an object being written: identity, generation, addresses, first status."""

import ipaddress
import uuid
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from flyball.clock import rfc3339
from flyball.localcluster import failures, podadmission
from flyball.localcluster.storage import Storage

Object = dict[str, Any]

CLUSTER_NETWORK = ipaddress.IPv4Network("127.11.0.0/16")
NODE_PORTS = range(30000, 32768)
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "flyball-system")
KUBERNETES_SERVICE_IP = "127.11.0.1"
# Kinds with a status subresource whose strategy upstream does not count generations.
_NO_GENERATION = frozenset(
    {
        "/namespaces",
        "/nodes",
        "/services",
        "/persistentvolumes",
        "/persistentvolumeclaims",
        "/resourcequotas",
        "networking.k8s.io/servicecidrs",
        "resource.k8s.io/resourceclaims",
        "storage.k8s.io/csinodes",
        "storage.k8s.io/volumeattachments",
        "storagemigration.k8s.io/storageversionmigrations",
        "apiregistration.k8s.io/apiservices",
    }
)
# And those that count them without one.
_GENERATION_WITHOUT_STATUS = frozenset(
    {
        "/podtemplates",
        "resource.k8s.io/deviceclasses",
        "resource.k8s.io/resourceslices",
        "admissionregistration.k8s.io/mutatingadmissionpolicies",
        "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
        "admissionregistration.k8s.io/mutatingwebhookconfigurations",
        "admissionregistration.k8s.io/validatingadmissionpolicybindings",
        "admissionregistration.k8s.io/validatingwebhookconfigurations",
        "discovery.k8s.io/endpointslices",
        "networking.k8s.io/ingressclasses",
        "networking.k8s.io/networkpolicies",
        "scheduling.k8s.io/priorityclasses",
    }
)


_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
# What a claim or volume is born with, so that it does not go while it is used (StorageObjectInUseProtection).
_PROTECTORS = {
    "/persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "/persistentvolumes": "kubernetes.io/pv-protection",
}


def counts_generations(store: str, subresources: tuple[str, ...]) -> bool:
    return store not in _NO_GENERATION and ("status" in subresources or store in _GENERATION_WITHOUT_STATUS)


def stamp_new(obj: Object, now_ms: int) -> None:
    """In place: the identity of a new object."""
    metadata = obj["metadata"]
    for name in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "managedFields"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = rfc3339(now_ms)


def initial_state(storage: Storage, store: str, obj: Object, now_ms: int) -> None:
    """In place: what upstream's strategies and admission put into a new object, beyond plain defaults.

    Raises:
        ApiFailure: a pod's service account or priority class does not exist.
    """
    protector = _PROTECTORS.get(store)
    if protector and protector not in (finalizers := obj["metadata"].setdefault("finalizers", [])):
        finalizers.append(protector)
    if store == "/namespaces":
        spec = obj.setdefault("spec", {})
        if "kubernetes" not in spec.setdefault("finalizers", []):
            spec["finalizers"].append("kubernetes")
        obj["status"] = {"phase": "Active"}
    elif store == "/pods":
        podadmission.admit(storage, obj, now_ms)
    elif store == "apiextensions.k8s.io/customresourcedefinitions":
        obj["status"] = crd_status(obj, now_ms)
    elif store == "/services":
        obj.setdefault("status", {"loadBalancer": {}})
    elif store == "/persistentvolumes":
        note_phase(store, obj, None, now_ms)
    elif store == "apps/daemonsets":
        obj["metadata"].setdefault("annotations", {})[_TEMPLATE_GENERATION] = "1"
    elif store == "batch/jobs" and not (obj.get("spec") or {}).get("manualSelector"):
        select_own_pods(obj)


def count_templates(daemon_set: Object, old: Object) -> None:
    """In place: the server alone says how often a DaemonSet's template was changed."""
    count = int((old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION) or 0)
    count += daemon_set["spec"].get("template") != old["spec"].get("template")
    annotations = daemon_set["metadata"].get("annotations") or {}
    daemon_set["metadata"]["annotations"] = {**annotations, _TEMPLATE_GENERATION: str(count)}


def note_phase(store: str, new: Object, old: Object | None, now_ms: int) -> None:
    """In place: when a volume came into its phase."""
    if store == "/persistentvolumes":
        before, status = (old or {}).get("status") or {}, new.setdefault("status", {})
        if before.get("phase") != status.get("phase"):
            status["lastPhaseTransitionTime"] = rfc3339(now_ms)


def select_own_pods(job: Object) -> None:
    """In place: the labels by which a Job knows its pods. Source: kubernetes pkg/registry/batch/job/strategy.go."""
    metadata, spec = job["metadata"], job["spec"]
    own = {"controller-uid": metadata["uid"], "job-name": metadata["name"]}
    own |= {f"batch.kubernetes.io/{name}": value for name, value in own.items()}
    template = spec["template"].setdefault("metadata", {})
    template["labels"] = {**(template.get("labels") or {}), **own}
    if not metadata.get("labels"):  # a Job without labels has those of its template
        metadata["labels"] = dict(template["labels"])
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}


def crd_status(crd: Object, now_ms: int) -> Object:
    spec = crd.get("spec") or {}
    stored = [v.get("name") for v in spec.get("versions") or [] if v.get("storage")]
    old = crd.get("status") or {}
    names = dict(spec.get("names") or {})
    names.setdefault("listKind", str(names.get("kind", "")) + "List")
    names.setdefault("singular", str(names.get("kind", "")).lower())
    kept = {c.get("type"): c for c in old.get("conditions") or []}
    conditions = []
    for type_, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        since = kept.get(type_, {}).get("lastTransitionTime", rfc3339(now_ms))
        conditions.append(
            {"type": type_, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message}
        )
    versions = list(dict.fromkeys([*(old.get("storedVersions") or []), *stored]))
    return {"acceptedNames": names, "conditions": conditions, "storedVersions": versions}


def terminating(now_ms: int) -> Object:
    """The condition of a CustomResourceDefinition whose objects are being deleted."""
    return {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": rfc3339(now_ms),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }


def first_host(data_dir: Path, port_offset: int) -> int:
    """Where in the network a cluster begins to give out addresses; another one on this machine has another offset."""
    # The first 256 are left for addresses that people choose by hand, as upstream's static band.
    return 256 * (zlib.crc32(str(data_dir).encode()) % 250 + 4 if port_offset else 1)


def allocate_service(storage: Storage, obj: Object, old: Object | None, first: int) -> None:
    """In place: cluster address and node ports, kept from ``old`` where the new object leaves them out.

    ``first`` is the host number where the search for a free address begins.

    Raises:
        ApiFailure: an asked-for address or port is taken or outside the range.
    """
    spec = obj.setdefault("spec", {})
    before = (old or {}).get("spec") or {}
    kind = spec.get("type", "ClusterIP")
    name = obj["metadata"].get("name", "")
    if kind == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return
    if not spec.get("clusterIP") and before.get("clusterIP") and before.get("type") != "ExternalName":
        spec["clusterIP"] = before["clusterIP"]
    wanted = spec.get("clusterIP", "")
    if wanted and before.get("clusterIP") and before["clusterIP"] != wanted and before.get("type") != "ExternalName":
        raise _invalid(name, "spec.clusterIPs[0]", f'Invalid value: ["{wanted}"]: may not change once set')
    taken_addresses, taken_ports = _taken(storage, obj["metadata"].get("namespace", ""), name)
    if not wanted:
        spec["clusterIP"] = wanted = _free_address(taken_addresses, first)
    elif wanted != "None" and wanted != before.get("clusterIP"):
        _check_address(name, wanted, taken_addresses)
    spec["clusterIPs"] = [wanted]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
        if kind == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
        _allocate_node_ports(name, spec, before, taken_ports)
    elif before.get("type") in ("NodePort", "LoadBalancer"):  # what came with the former type goes with it
        held = {port.get("nodePort") for port in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            if port.get("nodePort") in held:
                del port["nodePort"]
        for name in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
            if spec.get(name) == before.get(name):
                spec.pop(name, None)


def _invalid(name: str, field: str, message: str) -> failures.ApiFailure:
    cause = {"reason": "FieldValueInvalid", "message": message, "field": field}
    return failures.invalid("", "Service", name, [cause])


def _taken(storage: Storage, namespace: str, name: str) -> tuple[set[str], set[tuple[str, int]]]:
    addresses, ports = {KUBERNETES_SERVICE_IP}, set()
    for record in storage.records("/services"):
        metadata, spec = record.object["metadata"], record.object.get("spec") or {}
        if metadata.get("namespace") == namespace and metadata.get("name") == name:
            continue
        addresses.add(spec.get("clusterIP", ""))
        for port in spec.get("ports") or []:
            if port.get("nodePort"):
                ports.add((port.get("protocol", "TCP"), int(port["nodePort"])))
    return addresses, ports


def _free_address(taken: set[str], first: int) -> str:
    hosts = int(CLUSTER_NETWORK.network_address)
    for number in chain(range(first, CLUSTER_NETWORK.num_addresses - 1), range(256, first)):
        address = str(ipaddress.IPv4Address(hosts + number))
        if address not in taken:
            return address
    raise failures.ApiFailure(500, f"failed to allocate a serviceIP: the range {CLUSTER_NETWORK} is full")


def _check_address(name: str, wanted: str, taken: set[str]) -> None:
    shown = f'Invalid value: ["{wanted}"]: failed to allocate IP {wanted}: '
    try:
        inside = ipaddress.IPv4Address(wanted) in CLUSTER_NETWORK
    except ValueError:
        shown = f'Invalid value: "{wanted}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
        raise _invalid(name, "spec.clusterIPs[0]", shown) from None
    if not inside:
        raise _invalid(name, "spec.clusterIPs", shown + "the provided network does not match the current range")
    if wanted in taken:
        raise _invalid(name, "spec.clusterIPs", shown + "provided IP is already allocated")


def _allocate_node_ports(name: str, spec: Object, before: Object, taken: set[tuple[str, int]]) -> None:
    old = {
        (port.get("name", ""), port.get("port"), port.get("protocol", "TCP")): port.get("nodePort")
        for port in before.get("ports") or []
    }
    free: Iterator[int] = iter(NODE_PORTS)
    for index, port in enumerate(spec.get("ports") or []):
        protocol = port.get("protocol", "TCP")
        chosen = port.get("nodePort") or old.get((port.get("name", ""), port.get("port"), protocol))
        if chosen:
            if chosen not in NODE_PORTS:
                raise _invalid(
                    name,
                    f"spec.ports[{index}].nodePort",
                    f"Invalid value: {chosen}: provided port is not in the valid range. "
                    f"The range of valid ports is {NODE_PORTS.start}-{NODE_PORTS.stop - 1}",
                )
            if (protocol, chosen) in taken:
                raise _invalid(
                    name,
                    f"spec.ports[{index}].nodePort",
                    f"Invalid value: {chosen}: provided port is already allocated",
                )
        else:
            chosen = next((number for number in free if (protocol, number) not in taken), None)
            if chosen is None:
                raise failures.ApiFailure(500, "failed to allocate a nodePort: range is full")
        port["nodePort"] = chosen
        taken.add((protocol, chosen))
