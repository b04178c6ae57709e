"""A pod's status from the states of its containers (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flyball import clock

Object = dict[str, Any]
HOST_IP = "127.0.0.1"


@dataclass(slots=True)
class ContainerState:
    """What is known of one container. Exactly one of waiting, running and terminated holds."""

    name: str
    image: str
    init: bool = False
    sidecar: bool = False
    ephemeral: bool = False
    restart_count: int = 0
    running_since_ms: int | None = None
    terminated: Object | None = None
    waiting: tuple[str, str] | None = ("ContainerCreating", "")
    last_terminated: Object | None = None
    started: bool = False
    ready: bool = False
    container_id: str = ""

    @property
    def running(self) -> bool:
        return self.running_since_ms is not None

    def to_status(self) -> Object:
        if self.running_since_ms is not None:
            state: Object = {"running": {"startedAt": clock.rfc3339(self.running_since_ms)}}
        elif self.terminated is not None and self.waiting is None:
            state = {"terminated": self.terminated}
        else:
            reason, message = self.waiting or ("ContainerCreating", "")
            state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        finished = self.init and self.terminated is not None and self.terminated.get("exitCode") == 0
        status: Object = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": not self.ephemeral
            and bool(finished if self.init and not self.sidecar else self.ready and self.running),
            "started": self.started and self.running,
            "restartCount": self.restart_count,
            "state": state,
            "lastState": {"terminated": self.last_terminated} if self.last_terminated else {},
        }
        if self.container_id:
            status["containerID"] = self.container_id
        return status


@dataclass(slots=True)
class PodState:
    """What is known of a pod besides its containers."""

    ip: str = ""
    started_ms: int = 0
    initialized: bool = False
    failed: tuple[str, str] | None = None  # (reason, message) that ended the whole pod
    containers: list[ContainerState] = field(default_factory=list)

    @property
    def mains(self) -> list[ContainerState]:
        """Those that the pod is for."""
        return [one for one in self.containers if not (one.init or one.ephemeral)]


def phase(pod: Object, state: PodState) -> str:
    """Pending, Running, Succeeded or Failed; a pod that the API has as ended stays so.

    Source: kubernetes pkg/kubelet/kubelet_pods.go, generateAPIPodStatus.
    """
    before = (pod.get("status") or {}).get("phase")
    if before in ("Succeeded", "Failed"):
        return str(before)
    restart_policy = pod.get("spec", {}).get("restartPolicy") or "Always"
    if state.failed:
        return "Failed"
    inits = [one for one in state.containers if one.init]
    mains = state.mains
    ended = [one for one in mains if one.terminated is not None and not one.running]
    if not state.initialized:
        broken = any(one.terminated and one.terminated["exitCode"] != 0 and not one.sidecar for one in inits)
        return "Failed" if restart_policy == "Never" and broken else "Pending"
    if mains and len(ended) == len(mains):
        good = all(one.terminated and one.terminated["exitCode"] == 0 for one in mains)
        if restart_policy == "Never":
            return "Succeeded" if good else "Failed"
        if restart_policy == "OnFailure" and good:
            return "Succeeded"
    if all(one.running or one.terminated is not None for one in mains):
        return "Running"
    return "Pending"


def conditions(pod: Object, state: PodState, pod_phase: str, now_ms: int) -> list[Object]:
    """The pod's conditions; a transition time moves only with its status, foreign conditions stay."""
    before = {one["type"]: one for one in pod.get("status", {}).get("conditions") or []}
    mains = state.mains
    unready = [one.name for one in mains if not (one.ready and one.running)]
    done = pod_phase in ("Succeeded", "Failed")
    gates = [gate["conditionType"] for gate in pod.get("spec", {}).get("readinessGates") or []]
    closed = [gate for gate in gates if before.get(gate, {}).get("status") != "True"]
    unready_text = f"containers with unready status: [{' '.join(unready)}]"
    reasons = (one.waiting for one in state.containers if one.waiting and not one.ephemeral)
    waiting = next((one for one in reasons if one[1]), None)
    if waiting and not done:
        unready_text += f": {waiting[1]}"
    completed = "PodCompleted" if pod_phase == "Succeeded" else "PodFailed"
    unready_why = (completed, "") if done else ("ContainersNotReady", unready_text)
    incomplete = [one.name for one in state.containers if one.init and not (one.terminated or one.running)]
    uninit = ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")
    ready = not unready and not done
    started = any(one.running or one.terminated for one in state.containers)
    wanted: list[tuple[str, bool, tuple[str, str]]] = [
        ("PodReadyToStartContainers", started or bool(state.ip), ("", "")),
        ("Initialized", state.initialized, ("", "") if state.initialized else uninit),
        (
            "Ready",
            ready and not closed,
            ("", "")
            if ready and not closed
            else unready_why
            if not ready
            else ("ReadinessGatesNotReady", f"corresponding condition of pod readiness gate {closed[0]} is not True"),
        ),
        ("ContainersReady", ready, ("", "") if ready else unready_why),
        ("PodScheduled", True, ("", "")),
    ]
    out = []
    for kind, holds, (reason, message) in wanted:
        status = "True" if holds else "False"
        old = before.get(kind)
        since = old.get("lastTransitionTime") if old and old.get("status") == status else None
        one = {
            "type": kind,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": since or clock.rfc3339(now_ms),
        }
        if reason:
            one["reason"] = reason
        if message:
            one["message"] = message
        out.append(one)
    known = {one["type"] for one in out}
    return out + [one for kind, one in before.items() if kind not in known]


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers: Sequence[Object] = spec.get("containers") or []
    resources = [one.get("resources") or {} for one in containers]
    if not any(one.get("limits") or one.get("requests") for one in resources):
        return "BestEffort"
    for one in resources:
        limits, requests = one.get("limits") or {}, one.get("requests") or {}
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                return "Burstable"
    return "Guaranteed"


def build(pod: Object, state: PodState, now_ms: int) -> Object:
    """The whole status, as the node writes it."""
    pod_phase = phase(pod, state)
    status: Object = {
        "phase": pod_phase,
        "conditions": conditions(pod, state, pod_phase, now_ms),
        "hostIP": HOST_IP,
        "hostIPs": [{"ip": HOST_IP}],
        "qosClass": qos_class(pod.get("spec", {})),
        "containerStatuses": [one.to_status() for one in state.mains],
        "reason": state.failed[0] if state.failed else None,
        "message": state.failed[1] if state.failed else None,
    }
    if state.ip:
        status["podIP"] = state.ip
        status["podIPs"] = [{"ip": state.ip}]
    if state.started_ms:
        status["startTime"] = clock.rfc3339(state.started_ms)
    inits = [one.to_status() for one in state.containers if one.init]
    if inits:
        status["initContainerStatuses"] = inits
    ephemeral = [one.to_status() for one in state.containers if one.ephemeral]
    if ephemeral:
        status["ephemeralContainerStatuses"] = ephemeral
    return status
