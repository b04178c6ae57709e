"""Rolling from one pod template to the next: revisions, sizes and bounds of a Deployment's ReplicaSets. Pure."""

import json
import math

from flyball.localcluster.workloads.objects import (
    Object,
    annotations_of,
    controller_reference,
    is_terminating,
    name_of,
)

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes: rand.SafeEncodeString's alphabet
_GO_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
HISTORY_DEFAULT = 10


def hash_of(value: Object, collisions: int = 0) -> str:
    """A short name for a value, safe in names and labels: FNV-1 over its JSON as Go writes it, and the collisions.

    Source: kubernetes pkg/controller/history/controller_history.go, HashControllerRevision.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + str(collisions)
    hashed = 0x811C9DC5
    for byte in text.translate(_GO_ESCAPES).encode():
        hashed = (hashed * 0x01000193) & 0xFFFFFFFF ^ byte
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(hashed))


def template_hash(template: Object, collisions: int = 0) -> str:
    """The hash that names a ReplicaSet. Upstream hashes Go's memory layout, so only its form is the same."""
    return hash_of(_without_hash(template), collisions)


def same_template(left: Object, right: Object) -> bool:
    """Whether two pod templates are equal but for the hash label."""
    return _without_hash(left) == _without_hash(right)


def _without_hash(template: Object) -> Object:
    metadata = dict(template.get("metadata") or {})
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH_LABEL}
    metadata.pop("creationTimestamp", None)
    return {**template, "metadata": {**metadata, "labels": labels}}


def wanted_of(obj: Object) -> int:
    """``spec.replicas``, 1 when it is absent."""
    value = obj["spec"].get("replicas")
    return 1 if value is None else int(value)


def available_of(replica_set: Object) -> int:
    """Available pods, never more than are wanted: a status may lag behind a scale-down."""
    status = replica_set.get("status") or {}
    return min(int(status.get("availableReplicas") or 0), wanted_of(replica_set))


def bounds(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; percentages of replicas round up and down; never both 0.

    Source: kubernetes pkg/controller/deployment/util, ResolveFenceposts.
    """
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    replicas = wanted_of(deployment)
    surge = _in_pods(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _in_pods(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _in_pods(value: int | str, replicas: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return math.ceil(percent * replicas / 100) if up else percent * replicas // 100


def revision_of(obj: Object) -> int:
    """The revision annotation; 0 when absent or not a number."""
    try:
        return int(annotations_of(obj).get(REVISION, "0"))
    except ValueError:
        return 0


def by_age(replica_sets: list[Object]) -> list[Object]:
    """Oldest first; names break ties."""
    return sorted(
        replica_sets, key=lambda item: (item["metadata"].get("creationTimestamp") or "", item["metadata"]["name"])
    )


def new_replica_set_of(deployment: Object, replica_sets: list[Object]) -> Object | None:
    """The oldest ReplicaSet whose template is the deployment's."""
    template = deployment["spec"]["template"]
    for replica_set in by_age(replica_sets):
        if same_template(replica_set["spec"].get("template") or {}, template):
            return replica_set
    return None


def is_scaling(deployment: Object, replica_sets: list[Object]) -> bool:
    """Whether replicas were changed since an active ReplicaSet was last sized."""
    return any(
        annotations_of(item).get(DESIRED) not in (None, str(wanted_of(deployment)))
        for item in replica_sets
        if wanted_of(item) > 0
    )


Sizes = dict[str, int]


def plan_scale(deployment: Object, new: Object | None, olds: list[Object]) -> Sizes:
    """Sizes after a change of ``spec.replicas``, in the midst of a rollout in proportion; only changed ones.

    Source: kubernetes pkg/controller/deployment/sync.go, scale.
    """
    wanted = wanted_of(deployment)
    everyone = olds + ([new] if new is not None else [])
    active = [item for item in everyone if wanted_of(item) > 0]
    if len(active) <= 1:
        target = active[0] if active else new or (by_age(olds)[-1] if olds else None)
        return {} if target is None or wanted_of(target) == wanted else {name_of(target): wanted}
    saturated = (
        new is not None and wanted_of(new) == wanted and annotations_of(new).get(DESIRED) == str(wanted)
        and available_of(new) == wanted
    )  # fmt: skip
    if saturated:
        return {name_of(item): 0 for item in olds if wanted_of(item) > 0}
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return {}
    allowed = wanted + bounds(deployment)[0] if wanted > 0 else 0
    total = sum(map(wanted_of, active))
    to_add = allowed - total
    oldest_first = by_age(active)
    # Bigger first; among equals the newer grows first and the older shrinks first.
    ordered = sorted(oldest_first[::-1] if to_add > 0 else oldest_first, key=wanted_of, reverse=True)
    sizes: Sizes = {}
    added = 0
    for item in ordered:
        size = wanted_of(item)
        share = 0
        if to_add != 0:
            old_maximum = int(annotations_of(item).get(MAXIMUM) or total)
            share = _round_half_away(size * allowed / (old_maximum or 1)) - size
            left = to_add - added
            share = min(max(share, 0), left) if to_add > 0 else max(min(share, 0), left)
        sizes[name_of(item)] = size + share
        added += share
    if ordered and to_add != added:
        first = name_of(ordered[0])
        sizes[first] = max(0, sizes[first] + to_add - added)
    return {
        name: size for name, size in sizes.items() if size != next(wanted_of(i) for i in active if name_of(i) == name)
    }


def _round_half_away(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def plan_rolling(deployment: Object, new: Object, olds: list[Object]) -> Sizes:
    """The next step of a rolling update: grow the new one, or shrink the old ones; only changed sizes.

    Source: kubernetes pkg/controller/deployment/rolling.go.
    """
    wanted = wanted_of(deployment)
    surge, unavailable = bounds(deployment)
    size = wanted_of(new)
    total = size + sum(map(wanted_of, olds))
    if size > wanted:
        return {name_of(new): wanted}
    if size < wanted and total < wanted + surge:
        return {name_of(new): size + min(wanted + surge - total, wanted - size)}
    if not any(map(wanted_of, olds)):
        return {}
    available_min = wanted - unavailable
    removable = total - available_min - (size - available_of(new))
    if removable <= 0:
        return {}
    sizes = {name_of(item): wanted_of(item) for item in by_age(olds)}
    available = {name_of(item): available_of(item) for item in olds}
    before = dict(sizes)
    left = removable
    for name in sizes:  # unhealthy pods go first: they take nothing from availability
        take = min(left, sizes[name] - available[name])
        if sizes[name] and take > 0:
            sizes[name] -= take
            left -= take
    spare = sum(available.values()) + available_of(new) - available_min
    for name in sizes:
        take = min(sizes[name], spare, left)
        if take > 0:
            sizes[name] -= take
            spare -= take
            left -= take
    return {name: value for name, value in sizes.items() if value != before[name]}


def surplus_history(deployment: Object, olds: list[Object]) -> list[Object]:
    """Old ReplicaSets without pods beyond ``revisionHistoryLimit``, oldest revision first."""
    limit = deployment["spec"].get("revisionHistoryLimit", HISTORY_DEFAULT)
    idle = [
        item
        for item in olds
        if wanted_of(item) == 0 and not (item.get("status") or {}).get("replicas") and not is_terminating(item)
    ]
    return sorted(idle, key=revision_of)[: max(0, len(idle) - limit)] if limit is not None else []


def replica_set_of(deployment: Object, revision: int, replicas: int) -> Object:
    """The ReplicaSet for the deployment's template."""
    template = deployment["spec"]["template"]
    hashed = template_hash(template, (deployment.get("status") or {}).get("collisionCount") or 0)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: hashed}
    selector = deployment["spec"].get("selector") or {}
    spec: Object = {
        "replicas": replicas,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: hashed}},
        "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
    }
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name_of(deployment)}-{hashed}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels,
            "annotations": wanted_annotations(deployment, revision),
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": spec,
    }


def wanted_annotations(deployment: Object, revision: int) -> dict[str, str]:
    """The annotations of the new ReplicaSet: the deployment's own, the revision and the size it was made for."""
    copied = {name: value for name, value in annotations_of(deployment).items() if name not in _NOT_COPIED}
    return {**copied, REVISION: str(revision), **size_annotations(deployment)}


def size_annotations(deployment: Object) -> dict[str, str]:
    """What ``is_scaling`` and ``plan_scale`` compare with later."""
    wanted = wanted_of(deployment)
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + bounds(deployment)[0])}
