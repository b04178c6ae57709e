"""Kubernetes objects to target groups, one pure function a role.

Names and order follow prometheus discovery/kubernetes/{node,pod,service,endpoints,endpointslice}.go; objects are
the API's JSON as dicts.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flyball.model.scrapeconfigs import TargetGroup

Object = Mapping[str, Any]
Lookup = Callable[[str, str], Object | None]

_META = "__meta_kubernetes_"
_INVALID = re.compile(r"[^a-zA-Z0-9_]")


def sanitised(name: str) -> str:
    """A Kubernetes label's name as part of a Prometheus label's."""
    return _INVALID.sub("_", name)


def _metadata(obj: Object) -> Mapping[str, Any]:
    return obj.get("metadata") or {}


def object_labels(obj: Object, role: str) -> dict[str, str]:
    """Labels and annotations, with ``present`` marks."""
    found = {}
    for kind in ("label", "annotation"):
        for name, value in (_metadata(obj).get(f"{kind}s") or {}).items():
            found[f"{_META}{role}_{kind}_{sanitised(name)}"] = str(value)
            found[f"{_META}{role}_{kind}present_{sanitised(name)}"] = "true"
    return found


def join_host_port(host: str, port: object) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def node_group(node: Object) -> TargetGroup:
    """One target: the kubelet's address."""
    name = str(_metadata(node).get("name", ""))
    status = node.get("status") or {}
    addresses: dict[str, str] = {}
    for item in status.get("addresses") or ():
        addresses.setdefault(item["type"], item["address"])
    order = ("InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname")
    host = next((addresses[kind] for kind in order if kind in addresses), "")
    if not host:
        return TargetGroup(f"node/{name}")
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", 10250)
    labels = {f"{_META}node_name": name, f"{_META}node_provider_id": (node.get("spec") or {}).get("providerID", "")}
    labels |= object_labels(node, "node")
    target = {"__address__": join_host_port(host, port), "instance": name}
    target |= {f"{_META}node_address_{sanitised(kind)}": address for kind, address in addresses.items()}
    return TargetGroup(f"node/{name}", labels, (target,))


def pod_labels(pod: Object) -> dict[str, str]:
    """What every target of a pod carries."""
    metadata, spec, status = _metadata(pod), pod.get("spec") or {}, pod.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = next((item.get("status", "") for item in conditions if item.get("type") == "Ready"), "Unknown")
    labels = {
        f"{_META}pod_name": str(metadata.get("name", "")),
        f"{_META}pod_ip": str(status.get("podIP", "")),
        f"{_META}pod_ready": str(ready).lower(),
        f"{_META}pod_phase": str(status.get("phase", "")),
        f"{_META}pod_node_name": str(spec.get("nodeName", "")),
        f"{_META}pod_host_ip": str(status.get("hostIP", "")),
        f"{_META}pod_uid": str(metadata.get("uid", "")),
    }
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            labels[f"{_META}pod_controller_kind"] = str(owner.get("kind", ""))
            labels[f"{_META}pod_controller_name"] = str(owner.get("name", ""))
    return labels | object_labels(pod, "pod")


def _containers(pod: Object) -> list[tuple[Mapping[str, Any], bool, str]]:
    """(container, is init, its id)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    found = []
    for field, statuses, init in (
        ("containers", "containerStatuses", False),
        ("initContainers", "initContainerStatuses", True),
    ):
        ids = {item.get("name"): item.get("containerID", "") for item in status.get(statuses) or ()}
        found += [(item, init, str(ids.get(item.get("name"), ""))) for item in spec.get(field) or ()]
    return found


def _container_labels(container: Mapping[str, Any], init: bool, container_id: str) -> dict[str, str]:
    return {
        f"{_META}pod_container_name": str(container.get("name", "")),
        f"{_META}pod_container_id": container_id,
        f"{_META}pod_container_image": str(container.get("image", "")),
        f"{_META}pod_container_init": "true" if init else "false",
    }


def _port_labels(port: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{_META}pod_container_port_number": str(port.get("containerPort", "")),
        f"{_META}pod_container_port_name": str(port.get("name", "")),
        f"{_META}pod_container_port_protocol": str(port.get("protocol") or "TCP"),
    }


def pod_group(pod: Object) -> TargetGroup:
    """One target a declared port; a container without ports is one target without a port."""
    metadata, status = _metadata(pod), pod.get("status") or {}
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    source, ip = f"pod/{namespace}/{name}", str(status.get("podIP") or "")
    if not ip:
        return TargetGroup(source)  # not started; it comes with its address
    targets = []
    for container, init, container_id in _containers(pod):
        base = _container_labels(container, init, container_id)
        ports = container.get("ports") or ()
        if not ports:
            targets.append({"__address__": f"[{ip}]" if ":" in ip else ip, **base})
        for port in ports:
            targets.append({"__address__": join_host_port(ip, port.get("containerPort")), **base, **_port_labels(port)})
    return TargetGroup(source, {f"{_META}namespace": namespace, **pod_labels(pod)}, tuple(targets))


def service_labels(service: Object) -> dict[str, str]:
    """What every target of a service's endpoints carries."""
    metadata = _metadata(service)
    labels = {
        f"{_META}namespace": str(metadata.get("namespace", "")),
        f"{_META}service_name": str(metadata.get("name", "")),
    }
    return labels | object_labels(service, "service")


def service_group(service: Object) -> TargetGroup:
    """One target a service port, by DNS name."""
    metadata, spec = _metadata(service), service.get("spec") or {}
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    targets = []
    for port in spec.get("ports") or ():
        target = {
            "__address__": join_host_port(f"{name}.{namespace}.svc", port.get("port")),
            f"{_META}service_port_name": str(port.get("name", "")),
            f"{_META}service_port_number": str(port.get("port", "")),
            f"{_META}service_port_protocol": str(port.get("protocol") or "TCP"),
            f"{_META}service_type": str(spec.get("type") or "ClusterIP"),
        }
        if spec.get("type") == "ExternalName":
            target[f"{_META}service_external_name"] = str(spec.get("externalName", ""))
        elif spec.get("clusterIP"):
            target[f"{_META}service_cluster_ip"] = str(spec["clusterIP"])
        targets.append(target)
    return TargetGroup(f"svc/{namespace}/{name}", service_labels(service), tuple(targets))


def _pod_target(
    address: str, port: Mapping[str, Any], labels: dict[str, str], pod: Object, seen: dict[str, set[int]]
) -> dict[str, str]:
    target = {"__address__": address, **labels, **pod_labels(pod)}
    key = f"{_metadata(pod).get('namespace')}/{_metadata(pod).get('name')}"
    ports = seen.setdefault(key, set())
    for container, init, container_id in _containers(pod):
        for container_port in container.get("ports") or ():
            if container_port.get("containerPort") == port.get("port"):
                target |= _container_labels(container, init, container_id) | _port_labels(container_port)
                ports.add(int(container_port.get("containerPort", 0)))
                return target
    return target


def _other_ports(pods: Mapping[str, Object], seen: Mapping[str, set[int]]) -> list[dict[str, str]]:
    """Declared ports of backing pods that no endpoint names: scrape rules may want them."""
    found = []
    for key, pod in pods.items():
        ip = str((pod.get("status") or {}).get("podIP") or "")
        for container, init, container_id in _containers(pod):
            for port in container.get("ports") or ():
                if not ip or port.get("containerPort") in seen.get(key, ()):
                    continue
                found.append(
                    {
                        "__address__": join_host_port(ip, port.get("containerPort")),
                        **pod_labels(pod),
                        **_container_labels(container, init, container_id),
                        **_port_labels(port),
                    }
                )
    return found


def endpoints_group(endpoints: Object, service_of: Lookup, pod_of: Lookup) -> TargetGroup:
    """One target an address and port, with the labels of its pod and its service."""
    metadata = _metadata(endpoints)
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    labels = {f"{_META}namespace": namespace, f"{_META}endpoints_name": name, **object_labels(endpoints, "endpoints")}
    service = service_of(namespace, name)
    if service is not None:
        labels |= service_labels(service)
    targets: list[dict[str, str]] = []
    pods: dict[str, Object] = {}
    seen: dict[str, set[int]] = {}
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            for ready, addresses in (("true", "addresses"), ("false", "notReadyAddresses")):
                for item in subset.get(addresses) or ():
                    own = {
                        f"{_META}endpoint_port_name": str(port.get("name", "")),
                        f"{_META}endpoint_port_protocol": str(port.get("protocol") or "TCP"),
                        f"{_META}endpoint_ready": ready,
                    }
                    targets.append(
                        _endpoint(item, item.get("ip", ""), port, own, "endpoint", pod_of, namespace, pods, seen)
                    )
    return TargetGroup(f"endpoints/{namespace}/{name}", labels, (*targets, *_other_ports(pods, seen)))


def endpoint_slice_group(endpoint_slice: Object, service_of: Lookup, pod_of: Lookup) -> TargetGroup:
    """One target an address and port, with the labels of its pod and its service."""
    metadata = _metadata(endpoint_slice)
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    labels = {
        f"{_META}namespace": namespace,
        f"{_META}endpointslice_name": name,
        f"{_META}endpointslice_address_type": str(endpoint_slice.get("addressType", "")),
        **object_labels(endpoint_slice, "endpointslice"),
    }
    service_name = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
    service = service_of(namespace, service_name) if service_name else None
    if service is not None:
        labels |= service_labels(service)
    targets: list[dict[str, str]] = []
    pods: dict[str, Object] = {}
    seen: dict[str, set[int]] = {}
    for port in endpoint_slice.get("ports") or ():
        if port.get("port") is None:
            continue
        for item in endpoint_slice.get("endpoints") or ():
            conditions = item.get("conditions") or {}
            own = {
                f"{_META}endpointslice_port": str(port["port"]),
                f"{_META}endpointslice_port_name": str(port.get("name") or ""),
                f"{_META}endpointslice_port_protocol": str(port.get("protocol") or "TCP"),
            }
            for condition in ("ready", "serving", "terminating"):
                if conditions.get(condition) is not None:
                    own[f"{_META}endpointslice_endpoint_conditions_{condition}"] = str(conditions[condition]).lower()
            if item.get("hostname"):
                own[f"{_META}endpointslice_endpoint_hostname"] = item["hostname"]
            if item.get("nodeName"):
                own[f"{_META}endpointslice_endpoint_node_name"] = item["nodeName"]
            for address in item.get("addresses") or ():
                targets.append(_endpoint(item, address, port, own, "endpointslice", pod_of, namespace, pods, seen))
    return TargetGroup(f"endpointslice/{namespace}/{name}", labels, (*targets, *_other_ports(pods, seen)))


def _endpoint(
    item: Mapping[str, Any],
    address: str,
    port: Mapping[str, Any],
    labels: dict[str, str],
    role: str,
    pod_of: Lookup,
    namespace: str,
    pods: dict[str, Object],
    seen: dict[str, set[int]],
) -> dict[str, str]:
    host_port = join_host_port(address, port.get("port"))
    own = dict(labels)
    reference = item.get("targetRef") or {}
    if reference:
        own[f"{_META}{role}_address_target_kind"] = str(reference.get("kind", ""))
        own[f"{_META}{role}_address_target_name"] = str(reference.get("name", ""))
    if role == "endpoint":
        if item.get("nodeName"):
            own[f"{_META}endpoint_node_name"] = item["nodeName"]
        if item.get("hostname"):
            own[f"{_META}endpoint_hostname"] = item["hostname"]
    if reference.get("kind") == "Pod":
        space = str(reference.get("namespace") or namespace)
        pod = pod_of(space, str(reference.get("name", "")))
        if pod is not None:
            pods[f"{space}/{reference.get('name')}"] = pod
            return _pod_target(host_port, port, own, pod, seen)
    return {"__address__": host_port, **own}


#: role -> how the group's source begins.
GROUPS_OF_ROLE: Mapping[str, str] = {
    "node": "node",
    "pod": "pod",
    "service": "svc",
    "endpoints": "endpoints",
    "endpointslice": "endpointslice",
}
