"""EndpointSlices and Endpoints: which pods stand behind a Service, and whether they may be sent traffic."""

import hashlib
from typing import Any

from flyball.errors import KubeApiError
from flyball.kube import KubeClient
from flyball.kube.kinds import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, by_namespace, key_of
from flyball.localcluster.workloads.objects import (
    annotations_of,
    condition,
    controller_reference,
    has_ended,
    is_ready,
    is_terminating,
    labels_of,
    name_of,
)
from flyball.model.selectors import selector_of_labels

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
ENDPOINTS_PER_SLICE_MAX = 100

HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"

Port = tuple[str, str, int, str]  # name, protocol, number, application protocol


def ports_of(service: Object, pod: Object) -> tuple[Port, ...]:
    """The pod's ports behind the Service's; a named targetPort that the pod lacks is left out."""
    found = []
    for port in service["spec"].get("ports") or []:
        protocol = port.get("protocol") or "TCP"
        number = _resolved(port, protocol, pod)
        if number:
            found.append((port.get("name") or "", protocol, number, port.get("appProtocol") or ""))
    return tuple(found)


def _resolved(port: Object, protocol: str, pod: Object) -> int:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    if target.isdigit():
        return int(target)
    for container in pod["spec"].get("containers") or []:
        for offered in container.get("ports") or []:
            if offered.get("name") == target and (offered.get("protocol") or "TCP") == protocol:
                return int(offered["containerPort"])
    return 0


def backends_of(service: Object, pods: list[Object]) -> list[Object]:
    """The pods that have an address and have not ended, by name."""
    chosen = selector_of_labels(service["spec"].get("selector"))
    return sorted(
        (
            pod
            for pod in pods
            if chosen.matches(labels_of(pod)) and (pod.get("status") or {}).get("podIP") and not has_ended(pod)
        ),
        key=lambda pod: str(pod["metadata"]["name"]),
    )


def endpoint_of(service: Object, pod: Object) -> Object:
    """One endpoint of a slice. A terminating pod is never ready, but serves while its probe says so."""
    serving, terminating = is_ready(pod), is_terminating(pod)
    open_early = bool(service["spec"].get("publishNotReadyAddresses"))
    made: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": open_early or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": _reference(pod),
    }
    if pod["spec"].get("nodeName"):
        made["nodeName"] = pod["spec"]["nodeName"]
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
        made["hostname"] = pod["spec"]["hostname"]
    return made


def _reference(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}


def slices_of(service: Object, pods: list[Object]) -> list[Object]:
    """The slices that describe a Service: one set of ports each, at most 100 endpoints; one empty without any.

    Their names follow from the Service and their place, so that making them twice makes them once.
    """
    groups: dict[tuple[Port, ...], list[Object]] = {}
    for pod in backends_of(service, pods):
        groups.setdefault(ports_of(service, pod), []).append(endpoint_of(service, pod))
    pages = [
        (ports, endpoints[start : start + ENDPOINTS_PER_SLICE_MAX])
        for ports, endpoints in sorted(groups.items(), key=lambda item: item[0])
        for start in range(0, len(endpoints), ENDPOINTS_PER_SLICE_MAX)
    ] or [((), [])]
    return [_slice(service, index, ports, endpoints) for index, (ports, endpoints) in enumerate(pages)]


def _slice(service: Object, index: int, ports: tuple[Port, ...], endpoints: list[Object]) -> Object:
    metadata = service["metadata"]
    suffix = hashlib.sha256(f"{metadata['uid']}/{index}".encode()).hexdigest()[:5]
    labels = {name: value for name, value in labels_of(service).items() if name not in (SERVICE_NAME, MANAGED_BY)} | {
        SERVICE_NAME: metadata["name"],
        MANAGED_BY: MANAGER,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name']}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": labels | _headless(service),
            "ownerReferences": [controller_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [_slice_port(port) for port in ports],
    }


def _slice_port(port: Port) -> Object:
    name, protocol, number, application = port
    made: Object = {"name": name, "protocol": protocol, "port": number}
    if application:
        made["appProtocol"] = application
    return made


def endpoints_of(service: Object, pods: list[Object]) -> Object:
    """The older Endpoints object: subsets of equal ports, ready and not ready addresses apart."""
    groups: dict[tuple[Port, ...], tuple[list[Object], list[Object]]] = {}
    for pod in backends_of(service, pods):
        endpoint = endpoint_of(service, pod)
        if endpoint["conditions"]["terminating"] and not endpoint["conditions"]["ready"]:
            continue
        address: Object = {"ip": pod["status"]["podIP"], "targetRef": endpoint["targetRef"]}
        for name in ("nodeName", "hostname"):
            if name in endpoint:
                address[name] = endpoint[name]
        ready, not_ready = groups.setdefault(ports_of(service, pod), ([], []))
        (ready if endpoint["conditions"]["ready"] else not_ready).append(address)
    subsets = []
    for ports, (ready, not_ready) in sorted(groups.items(), key=lambda item: item[0]):
        subset: Object = {}
        if ready:
            subset["addresses"] = ready
        if not_ready:
            subset["notReadyAddresses"] = not_ready
        if ports:
            subset["ports"] = [
                {name: value for name, value in _slice_port(port).items() if name != "name" or value} for port in ports
            ]
        subsets.append(subset)
    metadata = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {
                **labels_of(service),
                "endpoints.kubernetes.io/managed-by": "endpoint-controller",
                **_headless(service),
            },
        },
        "subsets": subsets,
    }


def _headless(service: Object) -> dict[str, str]:
    return {HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else {}


def ready_times(service: Object, pods: list[Object]) -> dict[str, str]:
    """When each of the Service's pods became ready, or ceased to be: RFC 3339 by name."""
    chosen = selector_of_labels(service["spec"].get("selector"))
    turned = ((name_of(pod), condition(pod, "Ready")) for pod in pods if chosen.matches(labels_of(pod)))
    return {name: ready["lastTransitionTime"] for name, ready in turned if ready and ready.get("lastTransitionTime")}


def trigger_time(service: Object, before: dict[str, str] | None, now: dict[str, str]) -> str:
    """The earliest change that the slices do not show yet; ``""`` when it was no pod's readiness.

    Args:
        before, now: ``ready_times`` at the last look, None at the first, and at this one.

    Source: kubernetes staging endpointslice/util/trigger_time_tracker.go.
    """
    if before is None:
        return str(service["metadata"]["creationTimestamp"])
    return min((at for name, at in now.items() if at > before.get(name, "")), default="")


class EndpointsController(Controller):
    """Keeps the slices and the Endpoints of every Service that has a selector."""

    name = "endpointslice-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._services = informers.of(SERVICES)
        self._endpoints = informers.of(ENDPOINTS)
        slices, pods = informers.of(ENDPOINT_SLICES), informers.of(PODS)
        self._pods = informers.index(PODS, by_namespace)
        self._slices = informers.index(ENDPOINT_SLICES, _service_words)
        self._ready_times: dict[Key, dict[str, str]] = {}
        self._services.add_handler(lambda _change, old, new: self.queue.add(key_of(new or old)))
        self._endpoints.add_handler(lambda _change, old, new: self.queue.add(key_of(new or old)))
        slices.add_handler(self._on_slice)
        pods.add_handler(self._on_pod)

    def _on_slice(self, _change: str, old: Object | None, new: Object | None) -> None:
        for word in _service_words(new or old or {"metadata": {}}):
            namespace, name = word.split("/", 1)
            self.queue.add((namespace, name))

    def _on_pod(self, _change: str, old: Object | None, new: Object | None) -> None:
        namespace = (new or old or {})["metadata"]["namespace"]
        for key, service in self._services.cache.items():
            if key[0] != namespace:
                continue
            chosen = selector_of_labels(service["spec"].get("selector"))
            if any(pod is not None and chosen.matches(labels_of(pod)) for pod in (old, new)):
                self.queue.add_gathered(key, self._pods.count(namespace))

    async def reconcile(self, key: Key) -> None:
        """Bring one Service's slices and Endpoints up to date."""
        service = self._services.cache.get(key)
        known = {item["metadata"]["name"]: item for item in self._slices.get("/".join(key))}
        if service is None or is_terminating(service):
            self._ready_times.pop(key, None)
            for name in known:
                await self._gone(ENDPOINT_SLICES, name, key[0])
            if service is None and _is_ours(self._endpoints.cache.get(key)):
                await self._gone(ENDPOINTS, key[1], key[0])
            return
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return
        pods = self._pods.get(key[0])
        times = ready_times(service, pods)
        changed_at = trigger_time(service, self._ready_times.get(key), times)
        self._ready_times[key] = times
        for wanted in slices_of(service, pods):
            await self._put(ENDPOINT_SLICES, known.pop(wanted["metadata"]["name"], None), wanted, changed_at)
        for name in known:
            await self._gone(ENDPOINT_SLICES, name, key[0])
        await self._put(ENDPOINTS, self._endpoints.cache.get(key), endpoints_of(service, pods), changed_at)

    async def _put(self, resource: Any, current: Object | None, wanted: Object, changed_at: str) -> None:
        if current is not None and _same(current, wanted):
            return
        metadata = {**(current or wanted)["metadata"], **wanted["metadata"]}
        annotations = {name: value for name, value in annotations_of(current or {}).items() if name != TRIGGER_TIME}
        metadata["annotations"] = annotations | ({TRIGGER_TIME: changed_at} if changed_at else {})
        write = self.client.create if current is None else self.client.update
        await write(resource, {**wanted, "metadata": metadata})

    async def _gone(self, resource: Any, name: str, namespace: str) -> None:
        try:
            await self.client.delete(resource, name, namespace)
        except KubeApiError as exc:
            if exc.code != 404:
                raise


def _service_words(item: Object) -> list[str]:
    labels = labels_of(item)
    if labels.get(MANAGED_BY) != MANAGER or SERVICE_NAME not in labels:
        return []
    return [f"{item['metadata']['namespace']}/{labels[SERVICE_NAME]}"]


def _is_ours(endpoints: Object | None) -> bool:
    return endpoints is not None and "endpoints.kubernetes.io/managed-by" in labels_of(endpoints)


def _same(current: Object, wanted: Object) -> bool:
    return labels_of(current) == labels_of(wanted) and all(
        (current.get(name) or []) == (wanted.get(name) or []) for name in ("endpoints", "ports", "subsets")
    )
