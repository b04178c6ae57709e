"""A cluster that only remembers what the node writes."""

import asyncio
import copy
import time

from flyball import clock
from flyball.errors import KubeApiError
from flyball.localcluster.node.pods import PodManager


class FakeClient:
    def __init__(self):
        self.objects = {}
        self.patches = []
        self.deleted = []
        self.token_requests = []
        self.token_life_s = 3600

    def put(self, kind, obj):
        self.objects[kind, obj["metadata"]["namespace"], obj["metadata"]["name"]] = obj

    async def get(self, resource, name, namespace=None, **_):
        try:
            return copy.deepcopy(self.objects[resource.kind, namespace, name])
        except KeyError:
            raise KubeApiError(404, "NotFound", f'{resource.plural} "{name}" not found') from None

    async def create(self, resource, body, namespace=None, *, name=None, subresource=None, **_):
        assert (resource.kind, subresource) == ("ServiceAccount", "token")
        self.token_requests.append((namespace, name, body["spec"]))
        ends = clock.rfc3339(clock.now_ms() + 1000 * self.token_life_s)
        return {"status": {"token": f"token {len(self.token_requests)}", "expirationTimestamp": ends}}

    async def patch(self, resource, name, body, namespace=None, subresource=None, **_):
        self.patches.append((resource.kind, name, copy.deepcopy(body), subresource))
        return copy.deepcopy(body)

    async def delete(self, resource, name, namespace=None, uid=None, grace_period_s=None, **_):
        self.deleted.append((resource.kind, name, uid, grace_period_s))

    def status(self, name):
        found = [body["status"] for kind, n, body, sub in self.patches if kind == "Pod" and n == name]
        return found[-1] if found else {}


class FakeRecorder:
    def __init__(self):
        self.events = []

    async def event(self, obj, kind, reason, message):
        self.events.append((obj["metadata"]["name"], kind, reason, message))

    def reasons(self):
        return [reason for _, _, reason, _ in self.events]


def pod(name, command=None, image="python:3", **container):
    spec = {"name": "main", "image": image, **container}
    if command:
        spec["command"] = command
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": "web"}},
        "spec": {"nodeName": "flyball", "containers": [spec], "terminationGracePeriodSeconds": 2},
        "status": {"phase": "Pending"},
    }


async def until(condition, timeout_s=8.0, what="the condition"):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_s} s"
        await asyncio.sleep(0.02)
    return value


def run(tmp_path, story, **options):
    async def main():
        client, recorder = FakeClient(), FakeRecorder()
        manager = PodManager(tmp_path / "node", 0, client, recorder, capacity={"cpu": "2"}, **options)
        try:
            await story(manager, client, recorder)
        finally:
            await manager.close(stop_pods=True, grace_s=0.5)

    (tmp_path / "node").mkdir(exist_ok=True)
    asyncio.run(main())
