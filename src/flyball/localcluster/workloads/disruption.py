"""PodDisruptionBudgets: how many pods may be evicted now.

Source: kubernetes pkg/controller/disruption/disruption.go.
"""

import math
from collections.abc import Callable
from typing import Any

from flyball import clock
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, by_namespace, key_of
from flyball.localcluster.workloads.objects import (
    controller_of,
    is_ready,
    is_terminating,
    labels_of,
    name_of,
    status_change,
    with_condition,
)
from flyball.localcluster.workloads.rollout import wanted_of
from flyball.model.selectors import selector_of

DISRUPTED_MAX_S = 120.0
STATUS_ZEROS = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")

Scale = Callable[[Object], tuple[str, int] | None]
"""A pod -> its controller (some name of its own) and the replicas that it wants; None without one."""


def selected(budget: Object, pods: list[Object]) -> list[Object]:
    """The pods that a budget protects, also on their way out; an absent selector selects none, an empty one all."""
    spec_selector = budget["spec"].get("selector")
    if spec_selector is None:
        return []
    chosen = selector_of(spec_selector)
    return [pod for pod in pods if chosen.matches(labels_of(pod))]


def unmanaged(budget: Object, pods: list[Object]) -> str:
    """The warning that no share of these pods can be told, since nobody controls some of them; ``""`` without any."""
    spec = budget["spec"]
    counted = spec.get("maxUnavailable") is None and isinstance(spec.get("minAvailable"), int)
    if counted or all(controller_of(pod) for pod in pods):
        return ""
    chosen = _go_selector(spec.get("selector") or {})
    return (
        f"Pods selected by this PodDisruptionBudget (selector: {chosen}) were found to be unmanaged. As a result, the "
        "status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for "
        'these pods please set ".spec.minAvailable" field of the PDB to an integer value.'
    )


def _go_selector(selector: Object) -> str:
    """A LabelSelector as Go prints it."""
    labels = "".join(f"{name}: {value}," for name, value in sorted((selector.get("matchLabels") or {}).items()))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{one['key']},Operator:{one['operator']},"
        f"Values:[{' '.join(one.get('values') or [])}],}},"
        for one in selector.get("matchExpressions") or []
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


def bounds(budget: Object, pods: list[Object], scale_of: Scale) -> tuple[int, int]:
    """(expected, desired healthy) pods.

    Raises:
        LookupError: a percentage or maxUnavailable is asked for, and a pod's controller is none that can be scaled.
            Pods without a controller are not counted.
    """
    spec = budget["spec"]
    at_least, at_most_missing = spec.get("minAvailable"), spec.get("maxUnavailable")
    if at_most_missing is None and isinstance(at_least, int):
        return len(pods), at_least
    scales: dict[str, int] = {}
    for pod in pods:
        if controller_of(pod) is None:
            continue
        found = scale_of(pod)
        if found is None:
            raise LookupError(f'found no controllers for pod "{name_of(pod)}"')
        scales[found[0]] = found[1]
    expected = sum(scales.values())
    if at_most_missing is not None:
        return expected, max(0, expected - _in_pods(at_most_missing, expected))
    return expected, _in_pods(at_least if at_least is not None else 0, expected)


def _in_pods(value: int | str, total: int) -> int:
    return math.ceil(int(value.removesuffix("%")) * total / 100) if isinstance(value, str) else int(value)


def still_disrupted(budget: Object, pods: list[Object], now_ms: int) -> dict[str, str]:
    """Evicted pods whose end has not been seen: they are not healthy any more, for at most two minutes."""
    here = {name_of(pod): pod for pod in pods}
    found: dict[str, str] = (budget.get("status") or {}).get("disruptedPods") or {}
    return {
        name: at
        for name, at in found.items()
        if name in here
        and not is_terminating(here[name])
        and now_ms - clock.parse_rfc3339_ms(at) < DISRUPTED_MAX_S * 1000
    }


def status_of(budget: Object, pods: list[Object], scale_of: Scale, now_ms: int) -> Object:
    """The status that the selected pods amount to. A budget that cannot be computed allows nothing."""
    disrupted = still_disrupted(budget, pods, now_ms)
    healthy = sum(is_ready(pod) and not is_terminating(pod) and name_of(pod) not in disrupted for pod in pods)
    reason, message = "", ""
    try:
        expected, desired = bounds(budget, pods, scale_of)
    except LookupError as exc:
        expected, desired, reason, message = len(pods), len(pods), "SyncFailed", str(exc)
    allowed = 0 if reason or expected <= 0 else max(0, healthy - desired)
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": reason or ("SufficientPods" if allowed else "InsufficientPods"),
        "message": message,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    before = (budget.get("status") or {}).get("conditions") or []
    return {
        "observedGeneration": budget["metadata"].get("generation", 0),
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "disruptedPods": disrupted or None,
        "conditions": with_condition(before, condition, clock.rfc3339(now_ms)),
    }


class DisruptionController(Controller):
    """Keeps the status of every budget, by which the API server answers evictions."""

    name = "disruption-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._budgets = informers.of(POD_DISRUPTION_BUDGETS)
        owners = (DEPLOYMENTS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS)
        self._owners = {resource.kind: informers.of(resource) for resource in owners}
        pods = informers.of(PODS)
        self._pods = informers.index(PODS, by_namespace)
        self._events = EventRecorder(client, "controllermanager")
        self._budgets.add_handler(lambda _change, old, new: self.queue.add(key_of(new or old)))
        pods.add_handler(self._on_change)
        for informer in self._owners.values():
            informer.add_handler(self._on_change)

    def _on_change(self, _change: str, old: Object | None, new: Object | None) -> None:
        namespace = (new or old or {})["metadata"]["namespace"]
        for key in self._budgets.cache:
            if key[0] == namespace:
                self.queue.add_gathered(key, self._pods.count(namespace))

    def _scale(self, pod: Object) -> tuple[str, int] | None:
        found: Object | None = pod
        for _ in range(2):  # pod -> ReplicaSet -> Deployment, or pod -> StatefulSet
            reference: dict[str, Any] | None = controller_of(found) if found is not None else None
            owners = self._owners.get((reference or {}).get("kind", ""))
            if reference is None or owners is None:
                break
            found = owners.cache.get((pod["metadata"]["namespace"], reference["name"]))
        if found is None or found is pod:
            return None
        return found["metadata"]["uid"], wanted_of(found)

    async def reconcile(self, key: Key) -> None:
        """Bring one budget's status up to date."""
        budget = self._budgets.cache.get(key)
        if budget is None or is_terminating(budget):
            return
        now_ms = clock.now_ms()
        pods = selected(budget, self._pods.get(key[0]))
        if not pods:
            await self._events.event(budget, "Normal", "NoPods", "No matching pods found")
        if warning := unmanaged(budget, pods):
            await self._events.event(budget, "Warning", "UnmanagedPods", warning)
        status = status_of(budget, pods, self._scale, now_ms)
        change = status_change(budget.get("status"), status, zeros=STATUS_ZEROS)
        if change is not None:
            # An eviction may have been allowed meanwhile: it must not be forgotten.
            change["metadata"] = {"resourceVersion": budget["metadata"]["resourceVersion"]}
            await self.client.patch(POD_DISRUPTION_BUDGETS, key[1], change, key[0], "status")
        if status["disruptedPods"]:
            self.queue.add_after(key, DISRUPTED_MAX_S + 1.0)
