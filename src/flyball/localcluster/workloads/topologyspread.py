"""Pods spread evenly over the values of a node label (``topologySpreadConstraints``). Pure.

Source: kubernetes pkg/scheduler/framework/plugins/podtopologyspread.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flyball.localcluster.workloads.objects import Object, is_terminating, labels_of
from flyball.model.selectors import selector_of

HARD, SOFT = "DoNotSchedule", "ScheduleAnyway"
NO_LABEL = "node(s) didn't match pod topology spread constraints (missing required label)"
UNEVEN = "node(s) didn't match pod topology spread constraints"


@dataclass(frozen=True, slots=True)
class _Constraint:
    key: str
    skew_max: int
    hard: bool
    own: int  # 1 when the pod counts itself
    counts: dict[str, int]  # matching pods by the label's value
    fewest: int

    def skew(self, value: str) -> int:
        return self.counts.get(value, 0) + self.own - self.fewest


class Spread:
    """How evenly a pod would lie on each node.

    Args:
        placed: each node with the pods on it.
        is_eligible: whether the pod's node affinity, or its tolerations, let it onto a node:
            ``is_eligible(node, "affinity")``, ``is_eligible(node, "taints")``.
    """

    def __init__(
        self, pod: Object, placed: Iterable[tuple[Object, Iterable[Object]]], is_eligible: Callable[[Object, str], bool]
    ) -> None:
        asked = pod["spec"].get("topologySpreadConstraints") or []
        nodes = list(placed) if asked else []
        self._constraints = [_counted(pod, constraint, nodes, is_eligible) for constraint in asked]

    def refusal(self, node: Object) -> str:
        """Why a hard constraint keeps the pod off a node; ``""`` when none does."""
        for constraint in self._constraints:
            if constraint.hard:
                value = labels_of(node).get(constraint.key)
                if value is None:
                    return NO_LABEL
                if constraint.skew(value) > constraint.skew_max:
                    return UNEVEN
        return ""

    def crowd(self, node: Object) -> int:
        """The pods beside which this one would lie, by its soft constraints; fewer is better."""
        soft = [constraint for constraint in self._constraints if not constraint.hard]
        return sum(constraint.counts.get(labels_of(node).get(constraint.key, ""), 0) for constraint in soft)


def _counted(
    pod: Object,
    constraint: Object,
    nodes: list[tuple[Object, Iterable[Object]]],
    is_eligible: Callable[[Object, str], bool],
) -> _Constraint:
    namespace, labels = pod["metadata"].get("namespace", ""), labels_of(pod)
    selector = dict(constraint.get("labelSelector") or {})
    kept = {key: labels[key] for key in constraint.get("matchLabelKeys") or [] if key in labels}
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **kept}
    chosen = selector_of(selector)
    key = constraint.get("topologyKey") or ""
    heeded = []  # upstream's defaults: affinity is heeded, taints are not
    if (constraint.get("nodeAffinityPolicy") or "Honor") == "Honor":
        heeded.append("affinity")
    if constraint.get("nodeTaintsPolicy") == "Honor":
        heeded.append("taints")
    counts: dict[str, int] = {}
    for node, pods in nodes:
        value = labels_of(node).get(key)
        if value is None or not all(is_eligible(node, what) for what in heeded):
            continue
        counts[value] = counts.get(value, 0) + sum(
            other["metadata"].get("namespace", "") == namespace
            and not is_terminating(other)
            and chosen.matches(labels_of(other))
            for other in pods
        )
    enough = len(counts) >= int(constraint.get("minDomains") or 1)
    return _Constraint(
        key=key,
        skew_max=int(constraint.get("maxSkew") or 1),
        hard=constraint.get("whenUnsatisfiable", HARD) == HARD,
        own=int(chosen.matches(labels)),
        counts=counts,
        fewest=min(counts.values(), default=0) if enough else 0,
    )
