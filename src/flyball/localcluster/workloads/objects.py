"""Questions that controllers ask of Kubernetes objects. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from flyball import clock

Object = dict[str, Any]


def name_of(obj: Object) -> str:
    """The object's name."""
    return str(obj["metadata"]["name"])


def labels_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """The object's labels; empty without any."""
    return dict((obj.get("metadata") or {}).get("labels") or {})


def annotations_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """The object's annotations; empty without any."""
    return dict((obj.get("metadata") or {}).get("annotations") or {})


def owner_uids(obj: Mapping[str, Any]) -> list[str]:
    """The uids of all owners."""
    return [reference.get("uid", "") for reference in obj["metadata"].get("ownerReferences") or []]


def controller_of(obj: Mapping[str, Any]) -> Object | None:
    """The owner reference with ``controller: true``; None for an orphan."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            found: Object = reference
            return found
    return None


def controller_uid(obj: Mapping[str, Any]) -> str:
    """The controlling owner's uid; ``""`` for an orphan."""
    reference = controller_of(obj)
    return str(reference.get("uid", "")) if reference else ""


def controller_reference(owner: Mapping[str, Any]) -> Object:
    """The owner reference that a controller's creations carry."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_terminating(obj: Mapping[str, Any]) -> bool:
    """Whether deletion has begun."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether all containers are over for good, well or not."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_active(pod: Mapping[str, Any]) -> bool:
    """Whether the pod counts towards its controller's replicas."""
    return not has_ended(pod) and not is_terminating(pod)


def claim_keys(pod: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The claims that a pod mounts, (namespace, name) each."""
    volumes = pod["spec"].get("volumes") or []
    names = (volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume)
    return [(pod["metadata"]["namespace"], name) for name in names]


def condition(obj: Mapping[str, Any], kind: str) -> Object | None:
    """The status condition of a type."""
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found.get("type") == kind:
            result: Object = found
            return result
    return None


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's Ready condition is true."""
    found = condition(pod, "Ready")
    return found is not None and found.get("status") == "True"


def ready_since_ms(pod: Mapping[str, Any]) -> int | None:
    """When the pod became ready, ms since the epoch; None when it is not, or does not say."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True" or not found.get("lastTransitionTime"):
        return None
    return clock.parse_rfc3339_ms(found["lastTransitionTime"])


def available_in_s(pod: Mapping[str, Any], min_ready_s: int, now_ms: int) -> float | None:
    """0 when the pod is available, else the seconds until it will be; None when it is not ready."""
    if not is_ready(pod):
        return None
    if min_ready_s <= 0:
        return 0.0
    since_ms = ready_since_ms(pod)
    return None if since_ms is None else max(0.0, (since_ms + min_ready_s * 1000 - now_ms) / 1000)


def soonest_available_s(pods: Iterable[Mapping[str, Any]], min_ready_s: int, now_ms: int) -> float | None:
    """Seconds until the next pod that is ready becomes available; None when none is on its way."""
    if min_ready_s <= 0:
        return None
    waits = [wait_s for pod in pods if (wait_s := available_in_s(pod, min_ready_s, now_ms))]
    return min(waits) if waits else None


def with_condition(
    conditions: Iterable[Object], fresh: Object, now: str, *, keep_update_time: bool = False
) -> list[Object]:
    """The conditions with one replaced, in its place while its status and reason stay, else at the end.

    Its transition time moves only when its status changes.

    Args:
        now: RFC 3339.
        keep_update_time: leave ``lastUpdateTime`` as it was when neither status nor reason changes.
    """
    conditions = list(conditions)
    old = next((found for found in conditions if found.get("type") == fresh["type"]), None)
    same_status = old is not None and old.get("status") == fresh["status"]
    same = same_status and old is not None and old.get("reason") == fresh.get("reason")
    made = {**fresh, "lastTransitionTime": old["lastTransitionTime"] if same_status and old else now}
    if "lastUpdateTime" in fresh or (old and "lastUpdateTime" in old):
        made["lastUpdateTime"] = (
            old["lastUpdateTime"] if same and old and keep_update_time and "lastUpdateTime" in old else now
        )
    if same and old is not None and {**old, "lastUpdateTime": ""} == {**made, "lastUpdateTime": ""}:
        made = dict(old)
    if same:
        return [made if found.get("type") == fresh["type"] else found for found in conditions]
    return [*(found for found in conditions if found.get("type") != fresh["type"]), made]


def status_change(
    old: Mapping[str, Any] | None, fresh: Mapping[str, Any], zeros: Iterable[str] = ("replicas",)
) -> Object | None:
    """A merge patch that takes a status to ``fresh``; None when nothing differs.

    Zero counts are left out of a status, as Kubernetes leaves them out, but for those in ``zeros``.
    """
    old = old or {}
    wanted = {
        name: value
        for name, value in fresh.items()
        if name in (*zeros, "observedGeneration") or value not in (0, None, [], "")
    }
    change: Object = {
        name: _replacing(old.get(name), value) for name, value in wanted.items() if old.get(name) != value
    }
    change.update({name: None for name in fresh if name not in wanted and old.get(name) not in (None, 0, [])})
    return {"status": change} if change else None


def _replacing(old: Any, fresh: Any) -> Any:
    """The merge patch that leaves exactly ``fresh``: keys of an old map that it lacks are named as null."""
    if not isinstance(old, dict) or not isinstance(fresh, dict):
        return fresh
    return {**{name: None for name in old if name not in fresh}, **fresh}
