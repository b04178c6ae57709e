"""Eviction: a deletion that the pod's disruption budget must allow.

Source: kubernetes pkg/registry/core/pod/storage/eviction.go.
"""

from typing import Any

from flyball.clock import now_ms, rfc3339
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.storage import Storage
from flyball.model.selectors import selector_of

Object = dict[str, Any]

BUDGETS = "policy/poddisruptionbudgets"
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


def budgets_of(storage: Storage, pod: Object) -> list[Object]:
    """Copies of the budgets that protect a pod."""
    metadata = pod["metadata"]
    return [
        record.copy()
        for record in storage.records(BUDGETS, metadata["namespace"])
        if record.object["spec"].get("selector") is not None
        and selector_of(record.object["spec"]["selector"]).matches(metadata.get("labels") or {})
    ]


def is_free_to_go(pod: Object, budget: Object) -> bool:
    """Whether the budget does not count this pod: it has ended, has not begun, or is not healthy."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed", "Pending") or pod["metadata"].get("deletionTimestamp"):
        return True
    if any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or []):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    state = budget.get("status") or {}
    return 0 < int(state.get("desiredHealthy") or 0) <= int(state.get("currentHealthy") or 0)


def spend(budget: Object, pod_name: str, at: str) -> None:
    """In place: one disruption of the budget is used.

    Raises:
        ApiFailure: 429, the budget allows none now.
    """
    status = budget.setdefault("status", {})
    name = budget["metadata"]["name"]
    if int(status.get("observedGeneration") or 0) < int(budget["metadata"].get("generation") or 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.")
    allowed = int(status.get("disruptionsAllowed") or 0)
    if allowed <= 0:
        desired, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        raise _refused(f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
    status["disruptionsAllowed"] = allowed - 1
    status.setdefault("disruptedPods", {})[pod_name] = at


def _refused(why: str) -> ApiFailure:
    causes = [{"reason": "DisruptionBudget", "message": why}]
    return ApiFailure(429, REFUSED, reason="TooManyRequests", details={"causes": causes})


def allow(storage: Storage, pod: Object, *, dry_run: bool) -> None:
    """Spends from the pod's budget, if it has one.

    Raises:
        ApiFailure: the budget does not allow it, or there are several.
    """
    budgets = budgets_of(storage, pod)
    if len(budgets) > 1:
        raise ApiFailure(
            500,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )
    if not budgets or is_free_to_go(pod, budgets[0]):
        return
    budget, metadata = budgets[0], pod["metadata"]
    spend(budget, metadata["name"], rfc3339(now_ms()))
    if not dry_run:
        storage.put(BUDGETS, metadata["namespace"], budget["metadata"]["name"], budget)
