"""Simulated nodes: thousands of pods that only have a status.

A Node that anyone creates with the annotation ``kwok.x-k8s.io/node: fake`` is kept ready, and pods that are bound to
it run at once, without a process: Jobs' pods succeed, all others stay ready until they are deleted.
"""

import asyncio
from typing import Any

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import NODES, PODS
from flyball.localcluster.node.nodeobjects import conditions, is_fake
from flyball.localcluster.node.status import qos_class

Object = dict[str, Any]
Key = tuple[str, str]

WORKERS = 16
HEARTBEAT_S = 30.0
RETRY_S = 1.0
ADDRESSES = 254 * 254 * 64


def address(number: int) -> str:
    """The number-th address of 10.64.0.0/10, which nothing of this machine listens on."""
    number %= ADDRESSES
    rest, last = divmod(number, 254)
    second, third = divmod(rest, 254)
    return f"10.{64 + second}.{third + 1}.{last + 1}"


def running_status(pod: Object, ip: str, now: str) -> Object:
    """The status of a pod whose containers all run."""

    def container(one: Object, state: Object, ready: bool) -> Object:
        return {
            "name": one["name"],
            "image": one.get("image") or "",
            "imageID": "",
            "containerID": f"simulated://{pod['metadata']['uid']}/{one['name']}",
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "state": state,
        }

    spec = pod["spec"]
    ends = any(owner.get("kind") == "Job" for owner in pod["metadata"].get("ownerReferences") or [])
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    running = {"running": {"startedAt": now}}
    made: Object = {
        "phase": "Succeeded" if ends else "Running",
        "startTime": now,
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "qosClass": qos_class(spec),
        "containerStatuses": [container(one, ended if ends else running, not ends) for one in spec["containers"]],
        "conditions": [
            {"type": kind, "status": "False" if ends and kind != "PodScheduled" else "True", "lastTransitionTime": now}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
    }
    if spec.get("initContainers"):
        made["initContainerStatuses"] = [container(one, ended, True) for one in spec["initContainers"]]
    return made


class SimulatedNodes:
    """Follows fake nodes and the pods on them."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._pods: dict[Key, Object] = {}
        self._fake: set[str] = set()
        self._since: dict[str, str] = {}
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._serial = 0

    def observe_node(self, change: str, node: Object) -> None:
        name = node["metadata"]["name"]
        if change == "DELETED" or not is_fake(node):
            self._fake.discard(name)
            return
        if name not in self._fake:
            self._fake.add(name)
            self._queue.put_nowait(("", name))
            for key, pod in self._pods.items():
                if pod["spec"].get("nodeName") == name:
                    self._queue.put_nowait(key)

    def observe_pod(self, change: str, pod: Object) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if change == "DELETED":
            self._pods.pop(key, None)
        elif pod["spec"].get("nodeName"):
            self._pods[key] = pod
            if pod["spec"]["nodeName"] in self._fake:
                self._queue.put_nowait(key)

    def statistics(self) -> dict[str, int]:
        return {"nodes": len(self._fake), "queue": self._queue.qsize()}

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"simulated pods {number}")
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                for name in self._fake:
                    self._queue.put_nowait(("", name))

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._beat(key[1]) if not key[0] else await self._advance(key)
            except KubeApiError as exc:
                if exc.code not in (404, 409):
                    asyncio.get_running_loop().call_later(RETRY_S, self._queue.put_nowait, key)
            except FlyballError:
                asyncio.get_running_loop().call_later(RETRY_S, self._queue.put_nowait, key)

    async def _beat(self, name: str) -> None:
        now = clock.rfc3339(clock.now_ms())
        since = self._since.setdefault(name, now)
        status = {"conditions": conditions(now, since, "pods are simulated")}
        await self._client.patch(NODES, name, {"status": status}, subresource="status")

    async def _advance(self, key: Key) -> None:
        pod = self._pods.get(key)
        if pod is None or pod["spec"]["nodeName"] not in self._fake:
            return
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            await self._client.delete(PODS, key[1], key[0], uid=metadata["uid"], grace_period_s=0)
        elif (pod.get("status") or {}).get("phase") == "Pending":
            self._serial += 1
            status = running_status(pod, address(self._serial), clock.rfc3339(clock.now_ms()))
            change = {"metadata": {"uid": metadata["uid"]}, "status": status}
            await self._client.patch(PODS, key[1], change, key[0], "status")


def follow(simulated: SimulatedNodes, nodes: Informer[Object], pods: Informer[Object]) -> None:
    """Tells the simulation what two informers see."""
    nodes.add_handler(lambda change, old, new: simulated.observe_node(change, new or old))
    pods.add_handler(lambda change, old, new: simulated.observe_pod(change, new or old))
