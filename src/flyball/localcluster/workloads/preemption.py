"""Which pods of lower priority must go so that one of higher priority gets a node. Pure, but for the cluster it tries
on and leaves as it was.

Source: kubernetes pkg/scheduler/framework/plugins/defaultpreemption, pkg/scheduler/framework/preemption.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flyball.localcluster.workloads.controller import Key, key_of
from flyball.localcluster.workloads.objects import Object, is_terminating, labels_of, name_of
from flyball.localcluster.workloads.placement import Cluster, Refusal, refusals, requests_of, spread_of
from flyball.localcluster.workloads.topologyspread import Spread
from flyball.model.selectors import selector_of

# At least so many nodes that would do, upstream's defaults: a tenth of those that could, and no fewer than a hundred.
CANDIDATES_PERCENT, CANDIDATES_MIN = 10, 100
LEAVING = "not eligible due to a terminating pod on the nominated node."


@dataclass(frozen=True, slots=True)
class Preemption:
    """A node, and who leaves it."""

    node: str
    victims: tuple[Object, ...]


def priority_of(pod: Object) -> int:
    """The pod's priority; without one 0."""
    return int(pod["spec"].get("priority") or 0)


def ineligible(pod: Object, cluster: Cluster) -> str:
    """Why a pod may not send others away, in the scheduler's words; ``""`` when it may."""
    if pod["spec"].get("preemptionPolicy") == "Never":
        return "not eligible due to preemptionPolicy=Never."
    nominated = (pod.get("status") or {}).get("nominatedNodeName")
    if nominated in cluster.nodes:
        leaving = (other for other in cluster.on(cluster.nodes[nominated]).pods.values() if is_terminating(other))
        if any(priority_of(other) < priority_of(pod) for other in leaving):
            return LEAVING
    return ""


def preempt(pod: Object, cluster: Cluster, budgets: Iterable[Object], offset: int = 0) -> Preemption | None:
    """The node where it costs least to make room, by upstream's order; None where no pod's going would help.

    In a big cluster not every node is tried: it ends with enough that would do, if one of them breaks no budget.

    Fewest broken budgets, then the least important victim, the smallest sum of priorities, the fewest victims, and the
    one whose important victims started last.

    Args:
        budgets: PodDisruptionBudgets.
        offset: of the first node to try, so that it need not be the same ones each time.
    """
    best: tuple[tuple[object, ...], Preemption] | None = None
    spread = spread_of(pod, cluster)
    hopeful = [node for node in cluster.nodes.values() if not _never(pod, node, cluster, spread)]
    enough = max(len(hopeful) * CANDIDATES_PERCENT // 100, CANDIDATES_MIN)
    found = harmless = 0
    for number in range(len(hopeful)):
        node = hopeful[(offset + number) % len(hopeful)]
        lower = [one for one in cluster.on(node).pods.values() if priority_of(one) < priority_of(pod)]
        broken = _breaking(lower, budgets)
        victims = _victims(pod, node, cluster, lower, broken)
        if not victims:
            continue
        greatest = max(map(priority_of, victims))
        started = [_started(one) for one in victims if priority_of(one) == greatest]
        cost = (
            sum(key_of(one) in broken for one in victims),
            greatest,
            sum(priority_of(one) + 2**31 for one in victims),
            len(victims),
            [-ord(letter) for letter in min(started)],
            name_of(node),
        )
        if best is None or cost < best[0]:
            best = cost, Preemption(name_of(node), tuple(victims))
        found += 1
        harmless += cost[0] == 0
        if harmless and found >= enough:
            break
    return best[1] if best is not None else None


def _never(pod: Object, node: Object, cluster: Cluster, spread: Spread) -> bool:
    """Whether the node would not have the pod whoever left it."""
    return any(one.for_good for one in refusals(pod, requests_of(pod), spread, node, cluster))


def _refusals(pod: Object, node: Object, cluster: Cluster) -> list[Refusal]:
    return refusals(pod, requests_of(pod), spread_of(pod, cluster), node, cluster)


def _victims(pod: Object, node: Object, cluster: Cluster, lower: list[Object], broken: set[Key]) -> list[Object]:
    """Those of the lower pods without whose going there is no room; the important ones stay where they can."""
    name, victims = name_of(node), []
    with _without(lower, name, cluster):
        if _refusals(pod, node, cluster):
            return []
        for other in sorted(lower, key=lambda one: (key_of(one) not in broken, -priority_of(one), _started(one))):
            cluster.place(other, name)
            if _refusals(pod, node, cluster):
                cluster.remove(key_of(other), name)
                victims.append(other)
    return victims


@contextmanager
def _without(pods: list[Object], node: str, cluster: Cluster) -> Iterator[None]:
    for one in pods:
        cluster.remove(key_of(one), node)
    try:
        yield
    finally:
        for one in pods:
            cluster.place(one, node)


def _started(pod: Object) -> str:
    status = pod.get("status") or {}
    return str(status.get("startTime") or pod["metadata"].get("creationTimestamp") or "")


def _breaking(pods: list[Object], budgets: Iterable[Object]) -> set[Key]:
    """The keys of the pods whose going a budget does not allow, once the others before them have gone."""
    left: dict[Key, int] = {}
    broken: set[Key] = set()
    chosen = [one for one in budgets if one["spec"].get("selector") is not None]
    for pod in pods:
        for budget in chosen:
            key, status = key_of(budget), budget.get("status") or {}
            selector = selector_of(budget["spec"]["selector"])
            if key[0] != pod["metadata"].get("namespace") or not selector.matches(labels_of(pod)):
                continue
            if name_of(pod) in (status.get("disruptedPods") or {}):
                continue
            left[key] = left.get(key, int(status.get("disruptionsAllowed") or 0)) - 1
            if left[key] < 0:
                broken.add(key_of(pod))
    return broken
