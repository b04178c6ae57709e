"""Why a monitor finds the targets that it finds: the first thing that is missing, for each Service or pod."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flyball.model.selectors import selector_of

Object = Mapping[str, Any]


def why_no_targets(monitor: Object, objects: Mapping[str, Sequence[Object]]) -> list[str]:
    """A line for each endpoint of a ServiceMonitor or PodMonitor; it tells what the endpoint finds, or misses.

    Args:
        objects: Services, EndpointSlices and Pods, by kind.

    Raises:
        QueryError: the selector is none.
    """
    spec = monitor.get("spec") or {}
    if "endpoints" in spec:
        candidates = _selected(monitor, objects.get("Service") or ())
        about = [_service_endpoint(endpoint, candidates, objects) for endpoint in spec.get("endpoints") or ()]
        kind = "Service"
    else:
        candidates = _selected(monitor, objects.get("Pod") or ())
        about = [_pod_endpoint(endpoint, candidates) for endpoint in spec.get("podMetricsEndpoints") or ()]
        kind = "pod"
    if not candidates:
        space = spec.get("namespaceSelector") or {}
        names = space.get("matchNames") or [_metadata(monitor).get("namespace")]
        where = "any namespace" if space.get("any") else f"namespace {', '.join(map(str, names))}"
        return [f'no {kind} in {where} has the labels "{selector_of(spec.get("selector"))}"']
    return about


def _selected(monitor: Object, objects: Sequence[Object]) -> list[Object]:
    spec = monitor.get("spec") or {}
    space, selector = spec.get("namespaceSelector") or {}, selector_of(spec.get("selector"))
    names = space.get("matchNames") or [_metadata(monitor).get("namespace")]
    return [
        obj
        for obj in objects
        if (space.get("any") or _metadata(obj).get("namespace") in names)
        and selector.matches(_metadata(obj).get("labels") or {})
    ]


def _service_endpoint(endpoint: Object, services: Sequence[Object], objects: Mapping[str, Sequence[Object]]) -> str:
    port, target = endpoint.get("port"), endpoint.get("targetPort")
    found, without_port, without_endpoints = 0, [], []
    for service in services:
        ports = (service.get("spec") or {}).get("ports") or ()
        if port and port not in [item.get("name", "") for item in ports]:
            without_port.append(
                f"{_name(service)} ({', '.join(str(item.get('name') or item['port']) for item in ports)})"
            )
            continue
        ready = sum(1 for _ in _ready(service, objects.get("EndpointSlice") or ()))
        if ready == 0:
            without_endpoints.append(_name(service))
        found += ready
    said = f"port {port or target}: {f'{found} ready endpoints' if found else 'no target'}"
    if without_port:
        said += f'; no port is named "{port}" in Service {", ".join(without_port)}'
    if without_endpoints:
        said += f"; no ready endpoint in Service {', '.join(without_endpoints)}"
    return said


def _ready(service: Object, slices: Sequence[Object]) -> Iterator[Object]:
    for one in slices:
        own = (_metadata(one).get("labels") or {}).get("kubernetes.io/service-name") == _metadata(service).get("name")
        if own and _metadata(one).get("namespace") == _metadata(service).get("namespace"):
            for endpoint in one.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False:
                    yield endpoint


def _pod_endpoint(endpoint: Object, pods: Sequence[Object]) -> str:
    port = endpoint.get("port") or endpoint.get("portNumber") or endpoint.get("targetPort")
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")]
    with_port = [pod for pod in running if port is None or port in _ports(pod)]
    if with_port:
        return f"port {port}: {len(with_port)} of {len(pods)} pods"
    if not running:
        return f"port {port}: no target; all {len(pods)} pods have ended"
    declared = sorted({str(item) for pod in running for item in _ports(pod)})
    return f"port {port}: no target; no container declares it, but {', '.join(declared) or 'none'}"


def _ports(pod: Object) -> set[object]:
    found: set[object] = set()
    for container in (pod.get("spec") or {}).get("containers") or ():
        for port in container.get("ports") or ():
            found |= {port.get("name"), port.get("containerPort")}
    return found - {None}


def _metadata(obj: Object) -> Mapping[str, Any]:
    return obj.get("metadata") or {}


def _name(obj: Object) -> str:
    return f"{_metadata(obj).get('namespace')}/{_metadata(obj).get('name')}"
