"""What upstream's admission plugins write into a new pod: account and token, tolerations, priority, first status.

Sources: kubernetes plugin/pkg/admission/{serviceaccount,defaulttolerationseconds,priority}, pkg/registry/core/pod.
"""

import os
from typing import Any

from flyball.clock import rfc3339
from flyball.localcluster import failures
from flyball.localcluster.storage import Storage
from flyball.localcluster.tokens import STORE as SERVICE_ACCOUNTS

Object = dict[str, Any]

PRIORITY_CLASSES = "scheduling.k8s.io/priorityclasses"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_VOLUME = "kube-api-access-"
_TOKEN_S = 3607  # upstream's, so that a token asked for here is told from one that was asked for an hour
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_TOLERATED_S = 300  # how long a pod stays on a node that is not ready or not reached


_NAME_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, so that no words appear


def generated_name(prefix: str) -> str:
    """A name that nobody else has."""
    return prefix[:58] + "".join(_NAME_CHARACTERS[byte % len(_NAME_CHARACTERS)] for byte in os.urandom(5))


def admit(storage: Storage, pod: Object, now_ms: int) -> None:
    """In place, after defaulting.

    Raises:
        ApiFailure: the pod's service account or priority class does not exist.
    """
    spec = pod.setdefault("spec", {})
    _set_account(storage, pod, spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(one, key) for one in tolerations):
            wait = {"effect": "NoExecute", "tolerationSeconds": _TOLERATED_S}
            tolerations.append({"key": key, "operator": "Exists", **wait})
    name = spec.get("priorityClassName") or ""
    value, policy = _priority(storage, pod, name)
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        pod["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": rfc3339(now_ms),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def _set_account(storage: Storage, pod: Object, spec: Object) -> None:
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    namespace = pod["metadata"]["namespace"]
    record = storage.get(SERVICE_ACCOUNTS, namespace, name)
    if record is None and name != "default":
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise failures.forbidden("", "pods", pod["metadata"].get("name", ""), why)
    # A namespace gets its default account a moment after its birth; its first pods need not wait for that.
    account = record.object if record is not None else {}
    wanted = [spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")]
    if next((one for one in wanted if one is not None), True):
        _mount_token(spec)
    if account.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]


def _mount_token(spec: Object) -> None:
    """In place: a token, the cluster's authority and the namespace, where every client library looks for them."""
    volumes = spec.get("volumes") or []
    present = next((one["name"] for one in volumes if str(one.get("name")).startswith(_TOKEN_VOLUME)), "")
    name = present or generated_name(_TOKEN_VOLUME)
    needed = False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mounts = container.setdefault("volumeMounts", [])
        if all(mount.get("mountPath") != TOKEN_PATH for mount in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": TOKEN_PATH})
            needed = True
    if not needed or present:
        return
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_S, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]
    spec["volumes"] = [*volumes, {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}]


def _tolerates(toleration: Object, key: str) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


def _priority(storage: Storage, pod: Object, name: str) -> tuple[int, str]:
    """A class' value and preemption policy; the class that is the default for all when none is named."""
    if name in _SYSTEM_PRIORITIES:
        return _SYSTEM_PRIORITIES[name], "PreemptLowerPriority"
    for record in storage.records(PRIORITY_CLASSES):
        found = record.object
        if found["metadata"]["name"] == name or (not name and found.get("globalDefault")):
            if not name:
                pod["spec"]["priorityClassName"] = found["metadata"]["name"]
            return int(found.get("value") or 0), str(found.get("preemptionPolicy") or "PreemptLowerPriority")
    if name:
        why = f"no PriorityClass with name {name} was found"
        raise failures.forbidden("", "pods", pod["metadata"].get("name", ""), why)
    return 0, "PreemptLowerPriority"


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory of all containers."""
    any_set, guaranteed = False, True
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            if name in requests or name in limits:
                any_set = True
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
