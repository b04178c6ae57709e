"""Pods that must leave their node: it has a NoExecute taint that they do not tolerate, or it is gone.

Source: kubernetes pkg/controller/tainteviction/taint_eviction.go, pkg/controller/podgc/gc_controller.go.
"""

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import NODES, PODS
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import is_terminating, name_of
from flyball.localcluster.workloads.placement import covers

ORPHAN_GRACE_S = 40.0


def stays_s(pod: Object, taints: list[Object]) -> float | None:
    """Seconds for which a pod tolerates a node's NoExecute taints; None for ever, 0 not at all.

    Of several tolerations with a time the shortest counts, from when the last of the taints was added.
    """
    tolerations = pod["spec"].get("tolerations") or []
    times: list[float] = []
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        matching = [item for item in tolerations if covers(item, taint)]
        if not matching:
            return 0.0
        bounded = [float(item["tolerationSeconds"]) for item in matching if item.get("tolerationSeconds") is not None]
        if bounded:
            times.append(max(0.0, min(bounded)))
    return min(times) if times else None


class NodeLifecycleController(Controller):
    """Deletes what a taint drives away, and what a deleted node left behind."""

    name = "node-lifecycle-controller"

    def __init__(self, client: KubeClient, informers: Informers, *, orphan_grace_s: float = ORPHAN_GRACE_S) -> None:
        super().__init__(client)
        self._pods, self._nodes = informers.of(PODS), informers.of(NODES)
        self._events = EventRecorder(client, "taint-eviction-controller")
        self._orphan_grace_s = orphan_grace_s
        self._due: dict[Key, float] = {}  # when a pod goes, monotonic seconds
        self._pods.add_handler(self._on_pod)
        self._nodes.add_handler(self._on_node)

    def _on_pod(self, change: str, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        if new is None:
            self._due.pop(key, None)
        elif new["spec"].get("nodeName") and (old is None or _stand(old) != _stand(new)):
            self.queue.add(key)

    def _on_node(self, _change: str, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _taints(old) == _taints(new):
            return  # a heartbeat
        name = name_of(new or old or {})
        for key, pod in self._pods.cache.items():
            if pod["spec"].get("nodeName") == name:
                self.queue.add(key)

    async def reconcile(self, key: Key) -> None:
        """Let one pod stay, wait or go."""
        pod = self._pods.cache.get(key)
        if pod is None or not pod["spec"].get("nodeName"):
            self._due.pop(key, None)
            return
        node = self._nodes.cache.get(("", pod["spec"]["nodeName"]))
        wait_s = self._orphan_grace_s if node is None else stays_s(pod, _taints(node))
        if wait_s is None or (node is not None and is_terminating(pod)):
            self._due.pop(key, None)
            return
        now_s = clock.monotonic_s()
        due_s = min(self._due.get(key, now_s + wait_s), now_s + wait_s)
        self._due[key] = due_s
        if due_s > now_s:
            self.queue.add_after(key, due_s - now_s + 0.01)
            return
        del self._due[key]
        await self._delete(pod, force=node is None)

    async def _delete(self, pod: Object, *, force: bool) -> None:
        namespace, name = key_of(pod)
        if not force:
            message = f"Marking for deletion Pod {namespace}/{name}"
            await self._events.event(pod, "Normal", "TaintManagerEviction", message)
        try:
            # Nobody is left on a node that is gone to end the pod in its own time.
            grace_s = 0 if force else None
            await self.client.delete(PODS, name, namespace, uid=pod["metadata"]["uid"], grace_period_s=grace_s)
        except KubeApiError as exc:
            if exc.code not in (404, 409):
                raise


def _taints(node: Object) -> list[Object]:
    found: list[Object] = (node.get("spec") or {}).get("taints") or []
    return found


def _stand(pod: Object) -> tuple[object, ...]:
    return pod["spec"].get("nodeName"), pod["spec"].get("tolerations"), is_terminating(pod)
