"""How far a Deployment's rollout is: its status and conditions. Pure.

Source: kubernetes pkg/controller/deployment/{sync,progress}.go.
"""

from flyball import clock
from flyball.localcluster.workloads.objects import Object, condition, name_of, with_condition
from flyball.localcluster.workloads.rollout import bounds, wanted_of

DEADLINE_DEFAULT_S = 600


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether every pod is of the new template and available."""
    wanted = wanted_of(deployment)
    return bool(
        status["updatedReplicas"] == wanted
        and status["replicas"] == wanted
        and status["availableReplicas"] == wanted
        and status["observedGeneration"] >= deployment["metadata"].get("generation", 0)
    )


def status_of(deployment: Object, new: Object | None, olds: list[Object], now_ms: int) -> Object:
    """The status that the ReplicaSets amount to, conditions included."""
    everyone = olds + ([new] if new is not None else [])
    old_status = deployment.get("status") or {}
    now = clock.rfc3339(now_ms)

    def total(field: str) -> int:
        return sum(int((item.get("status") or {}).get(field) or 0) for item in everyone)

    status: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": total("replicas"),
        "updatedReplicas": int(((new or {}).get("status") or {}).get("replicas") or 0),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": total("availableReplicas"),
        "terminatingReplicas": total("terminatingReplicas"),
        "collisionCount": old_status.get("collisionCount"),
    }
    status["unavailableReplicas"] = max(0, sum(map(wanted_of, everyone)) - status["availableReplicas"])
    enough = status["availableReplicas"] >= wanted_of(deployment) - bounds(deployment)[1]
    available = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        "lastUpdateTime": now,
    }
    conditions = with_condition(old_status.get("conditions") or [], available, now, keep_update_time=True)
    progressing = _progressing(deployment, new, status, old_status, now_ms)
    if progressing is not None:
        conditions = with_condition(conditions, progressing, now, keep_update_time=_settled(progressing))
    failures = [found for item in everyone if (found := condition(item, "ReplicaFailure")) is not None]
    conditions = [item for item in conditions if item["type"] != "ReplicaFailure"]
    if failures:
        carried = {name: failures[0].get(name, "") for name in ("type", "status", "reason", "message")}
        conditions = with_condition(
            [*conditions, *[c for c in old_status.get("conditions") or [] if c["type"] == "ReplicaFailure"]],
            {**carried, "lastUpdateTime": now},
            now,
            keep_update_time=True,
        )
    status["conditions"] = conditions
    return status


def _settled(progressing: Object) -> bool:
    """Progress that goes on renews its time, so that the deadline counts from the last step."""
    return str(progressing["reason"]) != "ReplicaSetUpdated"


def _progressing(
    deployment: Object, new: Object | None, status: Object, old_status: Object, now_ms: int
) -> Object | None:
    spec = deployment["spec"]
    current = condition(deployment, "Progressing")
    named = f'ReplicaSet "{name_of(new)}"' if new is not None else f'Deployment "{name_of(deployment)}"'

    def made(state: str, reason: str, message: str) -> Object:
        return {
            "type": "Progressing",
            "status": state,
            "reason": reason,
            "message": message,
            "lastUpdateTime": clock.rfc3339(now_ms),
        }

    if spec.get("paused"):
        return made("Unknown", "DeploymentPaused", "Deployment is paused")
    if current is not None and current.get("reason") == "DeploymentPaused":
        return made("Unknown", "DeploymentResumed", "Deployment is resumed")
    if is_complete(deployment, status):
        return made("True", "NewReplicaSetAvailable", f"{named} has successfully progressed.")
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        # A pod lost after the rollout is no rollout; only a new template starts the clock again.
        if current is not None and (new is None or status["updatedReplicas"] == status["replicas"]):
            return None
        return made("True", "NewReplicaSetCreated", f'Created new replica set "{name_of(new)}"') if new else None
    advanced = (
        status["updatedReplicas"] > int(old_status.get("updatedReplicas") or 0)
        or status["readyReplicas"] > int(old_status.get("readyReplicas") or 0)
        or status["availableReplicas"] > int(old_status.get("availableReplicas") or 0)
        or status["replicas"] - status["updatedReplicas"]
        < int(old_status.get("replicas") or 0) - int(old_status.get("updatedReplicas") or 0)
    )
    if advanced:
        return made("True", "ReplicaSetUpdated", f"{named} is progressing.")
    if current.get("reason") != "ProgressDeadlineExceeded" and deadline_in_s(deployment, now_ms) == 0:
        return made("False", "ProgressDeadlineExceeded", f"{named} has timed out progressing.")
    return None


def deadline_in_s(deployment: Object, now_ms: int) -> float | None:
    """Seconds until progress is overdue, 0 when it is; None while nothing is awaited."""
    current = condition(deployment, "Progressing")
    if current is None or current.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return None
    deadline_s: int | None = deployment["spec"].get("progressDeadlineSeconds", DEADLINE_DEFAULT_S)
    if deployment["spec"].get("paused") or deadline_s is None or not current.get("lastUpdateTime"):
        return None
    since_ms = clock.parse_rfc3339_ms(current["lastUpdateTime"])
    return max(0.0, (since_ms + deadline_s * 1000 - now_ms) / 1000)
