"""The scheduler: every pod gets a node that will have it.

It promises not to reserve cpu or memory: on one machine all pods share what there is, and limits bound each.
"""

from collections import Counter

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import NODES, PODS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import condition, is_ready, is_terminating, labels_of, with_condition

SCHEDULER_NAME = "default-scheduler"
RETRY_S = 30.0  # a change of any node tries all waiting pods at once; this is only the net below it


def refusal(pod: Object, node: Object, pods_on_node: int) -> str:
    """Why a node will not have a pod, in the scheduler's words; ``""`` when it will."""
    if not is_ready(node):
        return "node(s) were not ready"
    if node["spec"].get("unschedulable") and not _tolerated(
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, pod
    ):
        return "node(s) were unschedulable"
    labels = labels_of(node)
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node["spec"].get("taints") or []:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, pod):
            value = f": {taint['value']}" if taint.get("value") else ": "
            return f"node(s) had untolerated taint {{{taint.get('key')}{value}}}"
    room = ((node.get("status") or {}).get("allocatable") or {}).get("pods")
    if room is not None and str(room).isdigit() and pods_on_node >= int(room):
        return "Too many pods"
    return ""


def _tolerated(taint: Object, pod: Object) -> bool:
    return any(
        (not toleration.get("effect") or toleration["effect"] == taint.get("effect"))
        and (not toleration.get("key") or toleration["key"] == taint.get("key"))
        and (toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or ""))
        for toleration in pod["spec"].get("tolerations") or []
    )


def choose(pod: Object, nodes: list[Object], load: Counter[str]) -> tuple[str, str]:
    """(node, "") with the fewest pods, or ("", why there is none)."""
    if not nodes:
        return "", "no nodes available to schedule pods"
    reasons: Counter[str] = Counter()
    fitting = []
    for node in nodes:
        name = node["metadata"]["name"]
        reason = refusal(pod, node, load[name])
        if reason:
            reasons[reason] += 1
        else:
            fitting.append((load[name], name))
    if fitting:
        return min(fitting)[1], ""
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return "", f"0/{len(nodes)} nodes are available: {listed}."


def waits_for_us(pod: Object) -> bool:
    """Whether the pod has no node yet and asks for this scheduler."""
    return (
        not pod["spec"].get("nodeName")
        and (pod["spec"].get("schedulerName") or SCHEDULER_NAME) == SCHEDULER_NAME
        and not pod["spec"].get("schedulingGates")
        and not is_terminating(pod)
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    )


class Scheduler(Controller):
    """Binds waiting pods; tries again whenever a node changes."""

    name = SCHEDULER_NAME

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._pods, self._nodes = informers.of(PODS), informers.of(NODES)
        self._waiting: set[Key] = set()
        self._load: Counter[str] = Counter()
        self._events = EventRecorder(client, self.name)
        self._pods.add_handler(self._on_pod)
        self._nodes.add_handler(self._on_node)

    def _on_pod(self, _change: str, old: Object | None, new: Object | None) -> None:
        if old is not None and old["spec"].get("nodeName"):
            self._load[old["spec"]["nodeName"]] -= 1
        if new is not None and new["spec"].get("nodeName"):
            self._load[new["spec"]["nodeName"]] += 1
        key = key_of(new or old or {})
        if new is not None and waits_for_us(new):
            self.queue.add(key)
        else:
            self._waiting.discard(key)

    def _on_node(self, _change: str, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _fitness(old) == _fitness(new):
            return  # a heartbeat
        for key in self._waiting:
            self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Bind one pod, or say why not."""
        pod = self._pods.cache.get(key)
        if pod is None or not waits_for_us(pod):
            self._waiting.discard(key)
            return
        node, reason = choose(pod, list(self._nodes.cache.values()), self._load)
        if not node:
            self._waiting.add(key)
            self.queue.add_after(key, RETRY_S)
            await self._unschedulable(pod, reason)
            return
        self._waiting.discard(key)
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key[1], "namespace": key[0], "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self.client.create(PODS, body, key[0], name=key[1], subresource="binding")
        except KubeApiError as exc:
            if exc.code in (404, 409):
                return  # gone, or bound already: the watch will tell
            raise
        message = f"Successfully assigned {key[0]}/{key[1]} to {node}"
        await self._events.event(pod, "Normal", "Scheduled", message)

    async def _unschedulable(self, pod: Object, reason: str) -> None:
        found = condition(pod, "PodScheduled")
        if found is None or found.get("message") != reason:
            fresh = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason}
            now = clock.rfc3339(clock.now_ms())
            conditions = with_condition((pod.get("status") or {}).get("conditions") or [], fresh, now)
            namespace, name = key_of(pod)
            await self.client.patch(PODS, name, {"status": {"conditions": conditions}}, namespace, "status")
        await self._events.event(pod, "Warning", "FailedScheduling", reason)


def _fitness(node: Object) -> tuple[object, ...]:
    spec, status = node["spec"], node.get("status") or {}
    return is_ready(node), spec.get("unschedulable"), spec.get("taints"), labels_of(node), status.get("allocatable")
