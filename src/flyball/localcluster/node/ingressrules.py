"""Which Service answers a request: the hosts and paths of Ingresses. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
CLASS = "flyball"
CONTROLLER = "flyball.dev/ingress"
_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service's port, by number or by name."""

    namespace: str
    service: str
    port: int | str


@dataclass(frozen=True, slots=True)
class Route:
    """``host`` is ``""`` for every host and may begin with ``*.``; ``exact`` tells Exact from Prefix."""

    host: str
    path: str
    exact: bool
    backend: Backend


def is_ours(ingress: Object, classes: Mapping[str, Object]) -> bool:
    """Whether we serve it: its class is ours, or nobody's.

    A class that does not exist here (``nginx`` in a manifest meant for production) is served too; one that belongs
    to another controller is not.
    """
    annotations = ingress["metadata"].get("annotations") or {}
    name = ingress.get("spec", {}).get("ingressClassName") or annotations.get(_CLASS_ANNOTATION)
    if name is None:
        default = [item for item in classes.values() if _annotation(item, _IS_DEFAULT) == "true"]
        return not default or any(_controller(item) == CONTROLLER for item in default)
    found = classes.get(name)
    return found is None or _controller(found) == CONTROLLER


def _annotation(obj: Object, name: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def _controller(ingress_class: Object) -> str:
    return str(ingress_class.get("spec", {}).get("controller") or "")


def _backend(namespace: str, source: Object | None) -> Backend | None:
    service = (source or {}).get("service") or {}
    port = service.get("port") or {}
    wanted = port.get("number") or port.get("name")
    return Backend(namespace, service["name"], wanted) if service.get("name") and wanted else None


def routes_of(ingresses: Iterable[Object]) -> list[Route]:
    """All routes; where two say the same, the older Ingress' comes first."""
    found = []
    by_age = sorted(
        ingresses,
        key=lambda one: (
            one["metadata"].get("creationTimestamp") or "",
            one["metadata"].get("namespace") or "",
            one["metadata"]["name"],
        ),
    )
    for ingress in by_age:
        namespace, spec = ingress["metadata"].get("namespace") or "default", ingress.get("spec") or {}
        for rule in spec.get("rules") or []:
            host = str(rule.get("host") or "").lower()
            for path in (rule.get("http") or {}).get("paths") or []:
                backend = _backend(namespace, path.get("backend"))
                if backend is not None:
                    found.append(Route(host, path.get("path") or "/", path.get("pathType") == "Exact", backend))
        default = _backend(namespace, spec.get("defaultBackend"))
        if default is not None:
            # After every rule: a host of its own that is less than any other.
            found.append(Route("*", "/", False, default))
    return found


def _host_rank(pattern: str, host: str) -> int:
    """How closely a rule's host fits: 3 the same, 2 one label by wildcard, 1 any, 0 a default, -1 not at all."""
    if pattern == "*":
        return 0
    if not pattern:
        return 1
    if pattern == host:
        return 3
    if pattern.startswith("*.") and host.partition(".")[2] == pattern[2:] and host.partition(".")[0]:
        return 2
    return -1


def _path_fits(route: Route, path: str) -> bool:
    if route.exact:
        return path == route.path
    prefix = route.path.rstrip("/")
    return path == prefix or path.startswith(prefix + "/") or not prefix


def route(routes: Iterable[Route], host: str, path: str) -> Backend | None:
    """The closest host, then an exact path before the longest prefix; None when nothing fits.

    A host with rules of its own does not fall back to the rules of all hosts, as in Kubernetes, where the rules of a
    host are one list; only default backends catch what is left.
    """
    name = host.rsplit(":", 1)[0].lower() if not host.endswith("]") else host.lower()
    ranked = [(rank, one) for one in routes if (rank := _host_rank(one.host, name)) >= 0]
    best = max((rank for rank, _ in ranked), default=-1)
    for rank in (best, 0):
        fitting = [one for at, one in ranked if at == rank and _path_fits(one, path)]
        if fitting:
            return max(fitting, key=lambda one: (one.exact, len(one.path.rstrip("/")))).backend
    return None
