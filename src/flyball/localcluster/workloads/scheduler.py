"""The scheduler: every pod gets a node that will have it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import NODES, PERSISTENT_VOLUME_CLAIMS, POD_DISRUPTION_BUDGETS, PODS
from flyball.localcluster.durations import Durations, exponential
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, key_of
from flyball.localcluster.workloads.objects import (
    claim_keys,
    condition,
    has_ended,
    is_ready,
    is_terminating,
    labels_of,
    name_of,
    with_condition,
)
from flyball.localcluster.workloads.placement import Cluster, choose
from flyball.localcluster.workloads.preemption import LEAVING, Preemption, ineligible, preempt, priority_of

SCHEDULER_NAME = "default-scheduler"
ATTEMPT_BUCKETS_S = exponential(0.001, 2, 15)
SLI_BUCKETS_S = exponential(0.01, 2, 20)
ATTEMPTS_TOLD_MAX = 16  # a label's value
_NO_POD: Object = {"spec": {}}
RETRY_S = 30.0  # a change of nodes, claims or other pods tries all waiting pods at once; this is the net below it


def waits_for_us(pod: Object) -> bool:
    """Whether the pod has no node yet and asks for this scheduler."""
    return (
        not pod["spec"].get("nodeName")
        and (pod["spec"].get("schedulerName") or SCHEDULER_NAME) == SCHEDULER_NAME
        and not pod["spec"].get("schedulingGates")
        and not is_terminating(pod)
        and not has_ended(pod)
    )


def _node_of(pod: Object | None) -> str:
    """The node on which a pod takes room; ``""`` for one that has none or has ended."""
    if pod is None or has_ended(pod):
        return ""
    return str(pod["spec"].get("nodeName") or "")


class Scheduler(Controller):
    """Binds waiting pods; tries again whenever something changes that could help.

    Attributes:
        attempts: by result: scheduled, unschedulable or error.
    """

    name = SCHEDULER_NAME
    workers = 16  # each waits for two answers a pod

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._pods = informers.of(PODS)
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._budgets = informers.of(POD_DISRUPTION_BUDGETS)
        self._cluster = Cluster()
        self._assumed: dict[Key, str] = {}  # bound by us; the cache does not show it yet
        self._waiting: set[Key] = set()
        self._first: dict[Key, tuple[float, int]] = {}  # when a pod was looked at first, and how often
        self.attempts: Counter[str] = Counter()
        self.attempt_durations = Durations(ATTEMPT_BUCKETS_S, ("result", "profile"))
        self.algorithm_durations = Durations(ATTEMPT_BUCKETS_S)
        self.sli_durations = Durations(SLI_BUCKETS_S, ("attempts",))
        self._events = EventRecorder(client, self.name)
        self._pods.add_handler(self._on_pod)
        informers.of(NODES).add_handler(self._on_node)
        self._claims.add_handler(lambda *_: self._try_waiting())

    def _on_pod(self, _change: str, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        before, after = _node_of(old), _node_of(new)
        if new is None or new["spec"].get("nodeName"):
            before = self._assumed.pop(key, before)
        if before and before != after:
            self._cluster.remove(key, before)
            self._try_waiting()
        if new is not None and after:
            self._cluster.place(new, after)
        if new is not None and waits_for_us(new):
            self.queue.add(key)
        else:
            self._waiting.discard(key)
            self._first.pop(key, None)

    def _on_node(self, _change: str, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._cluster.nodes.pop(name_of(old or {}), None)
            return
        self._cluster.nodes[name_of(new)] = new
        if old is None or _fitness(old) != _fitness(new):  # more than a heartbeat
            self._try_waiting()

    def _try_waiting(self) -> None:
        for key in sorted(self._waiting, key=lambda key: -priority_of(self._pods.cache.get(key) or _NO_POD)):
            self.queue.add(key)

    def pending(self) -> Mapping[str, int]:
        """How many pods wait to be looked at, and how many found no node."""
        return {"active": len(self.queue), "unschedulable": len(self._waiting)}

    async def reconcile(self, key: Key) -> None:
        """Bind one pod, or say why not."""
        pod = self._pods.cache.get(key)
        if pod is None or key in self._assumed or not waits_for_us(pod):
            self._waiting.discard(key)
            return
        began_s = clock.monotonic_s()
        first_s, tried = self._first.get(key, (began_s, 0))
        self._first[key] = (first_s, tried + 1)
        node, reason = "", self._unbound_claim(pod)
        preemption: Preemption | None = None
        if not reason:
            with self._nominated_placed(key, pod):
                node, reason = choose(pod, self._cluster)
                if not node:
                    preemption, reason = self._preemption(pod, reason)
        self.algorithm_durations.observe(clock.monotonic_s() - began_s)
        if not node:
            self._tried("unschedulable", began_s)
            self._waiting.add(key)
            self.queue.add_after(key, RETRY_S)
            if reason:
                await self._unschedulable(pod, reason, preemption.node if preemption is not None else "")
            if preemption is not None:
                for victim in preemption.victims:
                    await self._send_away(victim, pod, preemption.node)
            return
        # Taken at once, before anything is awaited: the next decision counts it.
        self._cluster.place(pod, node)
        self._assumed[key] = node
        self._waiting.discard(key)
        try:
            await self._bind(pod, node)
        except FlyballError as exc:
            if self._assumed.pop(key, None) is not None:
                self._cluster.remove(key, node)
            if isinstance(exc, KubeApiError) and exc.code in (404, 409):
                return  # gone, or bound already: the watch will tell
            self._tried("error", began_s)
            raise
        self._tried("scheduled", began_s)
        self.sli_durations.observe(clock.monotonic_s() - first_s, (str(min(tried + 1, ATTEMPTS_TOLD_MAX)),))
        await self._events.event(pod, "Normal", "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {node}")

    @contextmanager
    def _nominated_placed(self, key: Key, pod: Object) -> Iterator[None]:
        """While this lasts, pods of no lower priority that wait for room made for them take it up."""
        placed = []
        for other in self._waiting - {key}:
            waiting = self._pods.cache.get(other) or _NO_POD
            node = (waiting.get("status") or {}).get("nominatedNodeName")
            if node and priority_of(waiting) >= priority_of(pod):
                self._cluster.place(waiting, node)
                placed.append((other, node))
        try:
            yield
        finally:
            for other, node in placed:
                self._cluster.remove(other, node)

    def _preemption(self, pod: Object, reason: str) -> tuple[Preemption | None, str]:
        """Who goes to make room for the pod, and why it has none; ``""`` while they are on their way."""
        why, _, _ = reason.partition(" preemption: ")
        refused = ineligible(pod, self._cluster)
        if refused:
            return None, "" if refused == LEAVING else f"{why} preemption: {refused}"
        found = preempt(pod, self._cluster, self._budgets.cache.values(), self.attempts.total())
        if found is None:
            return None, reason
        placed = f"found a potential placement for pod on node {found.node}, preempting {len(found.victims)} victims"
        return found, f"{why} preemption: {placed}"

    async def _send_away(self, victim: Object, pod: Object, node: str) -> None:
        namespace, name = key_of(victim)
        if is_terminating(victim):
            return
        told: Object = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        told["message"] = f"{self.name}: preempting to accommodate a higher priority pod"
        told["observedGeneration"] = victim["metadata"].get("generation", 1)
        before = (victim.get("status") or {}).get("conditions") or []
        conditions = with_condition(before, told, clock.rfc3339(clock.now_ms()))
        try:
            await self.client.patch(PODS, name, {"status": {"conditions": conditions}}, namespace, "status")
            await self.client.delete(PODS, name, namespace, uid=victim["metadata"]["uid"])
        except KubeApiError as exc:
            if exc.code not in (404, 409):
                raise
        message = f"Preempted by pod {pod['metadata']['uid']} on node {node}"
        await self._events.event(victim, "Normal", "Preempted", message)

    def _tried(self, result: str, began_s: float) -> None:
        self.attempts[result] += 1
        self.attempt_durations.observe(clock.monotonic_s() - began_s, (result, self.name))

    async def _bind(self, pod: Object, node: str) -> None:
        namespace, name = key_of(pod)
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self.client.create(PODS, body, namespace, name=name, subresource="binding")

    def _unbound_claim(self, pod: Object) -> str:
        why = ""
        for key in claim_keys(pod):
            claim = self._claims.cache.get(key)
            if claim is None:
                why = f'persistentvolumeclaim "{key[1]}" not found'
            elif is_terminating(claim):
                why = f'persistentvolumeclaim "{key[1]}" is being deleted'
            elif (claim.get("status") or {}).get("phase") != "Bound":
                why = "pod has unbound immediate PersistentVolumeClaims"
            if why:  # "not found" is what the scheduler says of its search for pods to preempt
                return f"0/{len(self._cluster.nodes)} nodes are available: {why}. not found"
        return ""

    async def _unschedulable(self, pod: Object, reason: str, nominated: str) -> None:
        found, status = condition(pod, "PodScheduled"), pod.get("status") or {}
        if found is None or found.get("message") != reason or nominated not in ("", status.get("nominatedNodeName")):
            fresh: Object = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason}
            fresh["observedGeneration"] = pod["metadata"].get("generation", 1)
            now = clock.rfc3339(clock.now_ms())
            conditions = with_condition((pod.get("status") or {}).get("conditions") or [], fresh, now)
            namespace, name = key_of(pod)
            change = {"conditions": conditions} | ({"nominatedNodeName": nominated} if nominated else {})
            await self.client.patch(PODS, name, {"status": change}, namespace, "status")
        await self._events.event(pod, "Warning", "FailedScheduling", reason)


def _fitness(node: Object) -> tuple[object, ...]:
    spec, status = node["spec"], node.get("status") or {}
    return is_ready(node), spec.get("unschedulable"), spec.get("taints"), labels_of(node), status.get("allocatable")
