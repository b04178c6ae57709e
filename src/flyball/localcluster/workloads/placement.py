"""Which nodes will have a pod: taints, node affinity, pod affinity, requests. Pure.

Source: the filter plugins of kubernetes pkg/scheduler/framework/plugins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flyball.localcluster.workloads.controller import Key, key_of
from flyball.localcluster.workloads.objects import Object, is_ready, labels_of, name_of
from flyball.localcluster.workloads.topologyspread import NO_LABEL, Spread
from flyball.model.quantities import parse_quantity
from flyball.model.selectors import selector_of

NO_MATCH = "node(s) didn't match Pod's node affinity/selector"
UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_REFUSING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node will not have a pod, in the scheduler's words; ``for_good`` when no other pod's going would help."""

    reason: str
    for_good: bool = False


def covers(toleration: Object, taint: Object) -> bool:
    """Whether a toleration speaks of a taint; no key with Exists covers all, no effect every effect."""
    return (
        (not toleration.get("effect") or toleration["effect"] == taint.get("effect"))
        and (not toleration.get("key") or toleration["key"] == taint.get("key"))
        and (toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or ""))
    )


def tolerates(spec: Object, taint: Object) -> bool:
    """Whether a pod's tolerations cover a taint."""
    return any(covers(toleration, taint) for toleration in spec.get("tolerations") or [])


def untolerated(spec: Object, node: Object, effects: Sequence[str] = _REFUSING) -> Object | None:
    """The first taint of a node, with one of these effects, that keeps the pod away."""
    taints: list[Object] = (node.get("spec") or {}).get("taints") or []
    refused = (taint for taint in taints if taint.get("effect") in effects and not tolerates(spec, taint))
    return next(refused, None)


def matches_node(spec: Object, node: Object) -> bool:
    """``nodeSelector`` and the required node affinity."""
    labels = labels_of(node)
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    required = _affinity(spec, "nodeAffinity").get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term_matches(term, node) for term in required.get("nodeSelectorTerms") or [])


def preference(spec: Object, node: Object) -> int:
    """The sum of the weights of the preferred node affinities that a node meets."""
    preferred = _affinity(spec, "nodeAffinity").get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return sum(int(item.get("weight") or 0) for item in preferred if _term_matches(item.get("preference") or {}, node))


def _affinity(spec: Object, kind: str) -> Object:
    found: Object = (spec.get("affinity") or {}).get(kind) or {}
    return found


def _term_matches(term: Object, node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False  # an empty term matches nothing
    return all(_holds(item, labels_of(node)) for item in expressions) and all(
        _holds(item, {"metadata.name": name_of(node)}) for item in fields
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    operator, values = expression.get("operator"), expression.get("values") or []
    value = labels.get(expression.get("key", ""))
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator == "NotIn":
        return value is None or value not in values
    if value is None:
        return False
    if operator in ("Gt", "Lt"):
        try:
            number, bound = int(value), int(values[0])
        except (ValueError, IndexError):
            return False
        return number > bound if operator == "Gt" else number < bound
    return operator == "In" and value in values


# -- resources -------------------------------------------------------------------------------------------------------


def requests_of(pod: Object) -> dict[str, int]:
    """What a pod asks for, in nano units: its containers and sidecars together, or its greediest init container."""
    spec = pod.get("spec") or {}
    running = _sum(_asked(one) for one in spec.get("containers") or [])
    sidecars: dict[str, int] = {}
    greatest: dict[str, int] = {}
    for one in spec.get("initContainers") or []:
        asked = _sum([_asked(one), sidecars])
        if one.get("restartPolicy") == "Always":
            sidecars = asked
        greatest = {name: max(greatest.get(name, 0), asked.get(name, 0)) for name in greatest | asked}
    total = _sum([running, sidecars])
    total = {name: max(total.get(name, 0), greatest.get(name, 0)) for name in total | greatest}
    return _sum([total, {name: nano_of(value) for name, value in (spec.get("overhead") or {}).items()}])


def _asked(container: Object) -> dict[str, int]:
    requests = (container.get("resources") or {}).get("requests") or {}
    return {name: nano_of(value) for name, value in requests.items()}


@lru_cache(maxsize=4096)
def nano_of(quantity: str) -> int:
    """The quantity in nano units; the same few are asked for again and again."""
    return parse_quantity(quantity).nano


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


# -- the cluster -----------------------------------------------------------------------------------------------------


class Placed:
    """The pods on one node that have not ended, and what they ask for together, kept as they come and go."""

    def __init__(self) -> None:
        self.pods: dict[Key, Object] = {}
        self.used: dict[str, int] = {}
        self._asked: dict[Key, dict[str, int]] = {}

    def add(self, pod: Object) -> None:
        key = key_of(pod)
        self.remove(key)
        self.pods[key] = pod
        self._asked[key] = requests_of(pod)
        for name, nano in self._asked[key].items():
            self.used[name] = self.used.get(name, 0) + nano

    def remove(self, key: Key) -> None:
        if self.pods.pop(key, None) is not None:
            for name, nano in self._asked.pop(key).items():
                self.used[name] -= nano


class Cluster:
    """What a decision is made on: the nodes and the pods placed on each."""

    def __init__(self) -> None:
        self.nodes: dict[str, Object] = {}
        self._placed: dict[str, Placed] = {}
        self._apart: dict[Key, Object] = {}  # those that keep others away

    def on(self, node: Object) -> Placed:
        """What is placed on a node."""
        return self._placed.setdefault(name_of(node), Placed())

    def place(self, pod: Object, node: str) -> None:
        """The pod is, or is about to be, on a node."""
        self._placed.setdefault(node, Placed()).add(pod)
        if _terms(pod, "podAntiAffinity"):
            self._apart[key_of(pod)] = pod

    def remove(self, key: Key, node: str) -> None:
        """The pod is there no more."""
        self._placed.setdefault(node, Placed()).remove(key)
        self._apart.pop(key, None)

    def keeping_apart(self) -> Iterable[tuple[Object, Object]]:
        """Each placed pod with required anti-affinity, and its node."""
        for key, pod in self._apart.items():
            for name, placed in self._placed.items():
                if key in placed.pods and name in self.nodes:
                    yield pod, self.nodes[name]


def insufficient(asked: Mapping[str, int], node: Object, placed: Placed) -> list[Refusal]:
    """The resources of which a node has too little left beside its other pods; for good where it has too little at all.

    Args:
        asked: what the pod asks for, in nano units.
    """
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    found = []
    if "pods" in allocatable and len(placed.pods) >= nano_of(allocatable["pods"]) // 10**9:
        found.append(Refusal("Too many pods"))
    for name, nano in sorted(asked.items()):
        # A plain resource that the node does not name is not counted there; an extended one is missing.
        if not nano or (name not in allocatable and "/" not in name):
            continue
        room = nano_of(allocatable.get(name, "0"))
        if nano + placed.used.get(name, 0) > room:
            found.append(Refusal(f"Insufficient {name}", for_good=nano > room))
    return found


# -- pods beside pods ------------------------------------------------------------------------------------------------


def _in_domain(term: Object, node: Object, cluster: Cluster) -> Iterable[Object]:
    """The pods on the nodes that share the topology of ``node``."""
    key = term.get("topologyKey") or ""
    value = labels_of(node).get(key)
    if value is None:
        return
    for other in cluster.nodes.values():
        if labels_of(other).get(key) == value:
            yield from cluster.on(other).pods.values()


def _term_covers(term: Object, owner: Object, candidate: Object) -> bool:
    """Whether a pod (anti-)affinity term of ``owner`` speaks of ``candidate``."""
    own = owner["metadata"].get("namespace", "")
    namespaces = term.get("namespaces") or []
    everywhere = term.get("namespaceSelector") == {}
    if not everywhere and candidate["metadata"].get("namespace", "") not in (namespaces or [own]):
        return False
    selector = term.get("labelSelector")
    return selector is not None and selector_of(selector).matches(labels_of(candidate))


def _terms(pod: Object, kind: str) -> list[Object]:
    found: list[Object] = _affinity(pod["spec"], kind).get("requiredDuringSchedulingIgnoredDuringExecution") or []
    return found


def pod_affinity_refusal(pod: Object, node: Object, cluster: Cluster) -> Refusal | None:
    """Why the pods already placed keep this one off a node; None when they do not."""
    for term in _terms(pod, "podAffinity"):
        if term.get("topologyKey") not in labels_of(node):
            return Refusal("node(s) didn't match pod affinity rules", for_good=True)
        if any(_term_covers(term, pod, other) for other in _in_domain(term, node, cluster)):
            continue
        # The first of a group that wants to be together has nobody to join yet.
        everyone = (other for each in cluster.nodes.values() for other in cluster.on(each).pods.values())
        anyone = any(_term_covers(term, pod, other) for other in everyone)
        if anyone or not _term_covers(term, pod, pod):
            return Refusal("node(s) didn't match pod affinity rules", for_good=True)
    for term in _terms(pod, "podAntiAffinity"):
        if any(_term_covers(term, pod, other) for other in _in_domain(term, node, cluster)):
            return Refusal("node(s) didn't match pod anti-affinity rules")
    for other, its_node in cluster.keeping_apart():
        for term in _terms(other, "podAntiAffinity"):
            key = term.get("topologyKey") or ""
            shared = labels_of(node).get(key)
            if shared is not None and shared == labels_of(its_node).get(key) and _term_covers(term, other, pod):
                return Refusal("node(s) didn't satisfy existing pods anti-affinity rules")
    return None


def pod_preference(pod: Object, node: Object, cluster: Cluster) -> int:
    """Weights of preferred pod affinities met on a node, less those of anti-affinities."""
    score = 0
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for item in _affinity(pod["spec"], kind).get("preferredDuringSchedulingIgnoredDuringExecution") or []:
            term = item.get("podAffinityTerm") or {}
            met = sum(_term_covers(term, pod, other) for other in _in_domain(term, node, cluster))
            score += sign * int(item.get("weight") or 0) * met
    return score


def _host_ports(pod: Object) -> set[tuple[int, str, str]]:
    return {
        (int(port["hostPort"]), port.get("protocol") or "TCP", port.get("hostIP") or "")
        for one in pod["spec"].get("containers") or []
        for port in one.get("ports") or []
        if port.get("hostPort")
    }


# -- the whole question ----------------------------------------------------------------------------------------------


def refusals(pod: Object, asked: Mapping[str, int], spread: Spread, node: Object, cluster: Cluster) -> list[Refusal]:
    """Why a node will not have a pod, in the scheduler's words; empty when it will. The first filter decides."""
    spec = pod["spec"]
    if node["spec"].get("unschedulable") and not tolerates(spec, UNSCHEDULABLE):
        return [Refusal("node(s) were unschedulable", for_good=True)]
    # A node that is not ready counts as tainted, whether or not a controller has said so.
    if untolerated(spec, node) is not None or not (is_ready(node) or tolerates(spec, NOT_READY)):
        return [Refusal("node(s) had untolerated taint(s)", for_good=True)]
    if not matches_node(spec, node):
        return [Refusal(NO_MATCH, for_good=True)]
    ports = _host_ports(pod)
    if ports and any(ports & _host_ports(other) for other in cluster.on(node).pods.values()):
        return [Refusal("node(s) didn't have free ports for the requested pod ports")]
    short = insufficient(asked, node, cluster.on(node))
    if short:
        return short
    uneven = spread.refusal(node)
    if uneven:
        return [Refusal(uneven, for_good=uneven == NO_LABEL)]
    apart = pod_affinity_refusal(pod, node, cluster)
    return [apart] if apart else []


def spread_of(pod: Object, cluster: Cluster) -> Spread:
    """How evenly a pod would lie on each node, by its topology constraints."""
    spec = pod["spec"]

    def is_eligible(node: Object, what: str) -> bool:
        return matches_node(spec, node) if what == "affinity" else untolerated(spec, node) is None

    placed = ((node, cluster.on(node).pods.values()) for node in cluster.nodes.values())
    return Spread(pod, placed, is_eligible)


def choose(pod: Object, cluster: Cluster) -> tuple[str, str]:
    """(node, "") for the best node, or ("", why there is none).

    Among the nodes that fit, preferences decide, then the even spread, then the fewest untolerated PreferNoSchedule
    taints, then the fewest pods, then the name.
    """
    if not cluster.nodes:
        return "", "no nodes available to schedule pods"
    spec, asked, spread = pod["spec"], requests_of(pod), spread_of(pod, cluster)
    reasons: dict[str, int] = {}
    hopeless = 0
    fitting: list[tuple[Any, ...]] = []
    for node in cluster.nodes.values():
        found = refusals(pod, asked, spread, node, cluster)
        for refusal in found:
            reasons[refusal.reason] = reasons.get(refusal.reason, 0) + 1
        hopeless += any(refusal.for_good for refusal in found)
        if not found:
            liked = preference(spec, node) + pod_preference(pod, node, cluster)
            disliked = untolerated(spec, node, ("PreferNoSchedule",)) is not None
            fitting.append((-liked, spread.crowd(node), disliked, len(cluster.on(node).pods), name_of(node)))
    if fitting:
        return str(min(fitting)[-1]), ""
    why = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    rest = []
    if len(cluster.nodes) - hopeless:
        rest.append(f"{len(cluster.nodes) - hopeless} No preemption victims found for incoming pod")
    if hopeless:
        rest.append(f"{hopeless} Preemption is not helpful for scheduling")
    nodes = f"0/{len(cluster.nodes)} nodes are available"
    return "", f"{nodes}: {why}. preemption: {nodes}: {', '.join(rest)}."
