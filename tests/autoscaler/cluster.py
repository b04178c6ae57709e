"""A small Kubernetes API in memory: the calls of KubeClient that the autoscaler and informers make."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from flyball.errors import KubeApiError
from flyball.kube import ObjectList, WatchEvent
from flyball.kube.client import Meta

Object = dict[str, Any]
Answer = Callable[[], Any]


class FakeCluster:
    """Objects, scales, and answers of raw paths (a dict, an exception, or a function that may be async)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.scales: dict[str, Object] = {}
        self.answers: dict[str, Any] = {}
        self.events: list[tuple[str, str]] = []
        self.scale_writes: list[tuple[str, int]] = []
        self.status_writes = 0
        self.raw: list[tuple[str, dict[str, Any]]] = []
        self.fail_scale_writes: list[Exception] = []
        self.scale_reads = 0
        self._watchers: list[tuple[str, asyncio.Queue[tuple[str, Object]]]] = []
        self._version = 100
        self.namespace = "default"

    # --- what a test does ---

    def put(self, plural: str, obj: Object) -> Object:
        self._version += 1
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        key = (plural, meta.get("namespace", ""), meta["name"])
        change = "MODIFIED" if key in self.objects else "ADDED"
        meta["resourceVersion"] = str(self._version)
        meta.setdefault("uid", f"uid-{meta['name']}")
        self.objects[key] = obj
        self._tell(plural, change, obj)
        return obj

    def remove(self, plural: str, namespace: str, name: str) -> None:
        obj = self.objects.pop((plural, namespace, name))
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._tell(plural, "DELETED", obj)

    def _tell(self, plural: str, change: str, obj: Object) -> None:
        for watched, queue in self._watchers:
            if watched == plural:
                queue.put_nowait((change, copy.deepcopy(obj)))

    def hpa(self, name: str = "web") -> Object:
        return self.objects["horizontalpodautoscalers", "shop", name]

    # --- KubeClient ---

    async def list_objects(self, resource: Any, *_: Any, type: Any = dict, **__: Any) -> ObjectList[Any]:  # noqa: A002
        found = [obj for (plural, _, _), obj in self.objects.items() if plural == resource.plural]
        return ObjectList(
            [msgspec.convert(copy.deepcopy(obj), type) for obj in found],
            [_meta(obj) for obj in found],
            str(self._version),
        )

    async def watch(self, resource: Any, *_: Any, type: Any = dict, **__: Any) -> AsyncIterator[WatchEvent[Any]]:  # noqa: A002
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        entry = (resource.plural, queue)
        self._watchers.append(entry)
        try:
            while True:
                change, obj = await queue.get()
                yield WatchEvent(change, _meta(obj), msgspec.convert(obj, type))
        finally:
            self._watchers.remove(entry)

    async def get(
        self, resource: Any, name: str, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        if subresource == "scale":
            self.scale_reads += 1
            if name not in self.scales:
                raise KubeApiError(404, "NotFound", f'{resource.plural}.apps "{name}" not found')
            return copy.deepcopy(self.scales[name])
        return copy.deepcopy(self.objects[resource.plural, namespace or "", name])

    async def update(
        self, resource: Any, body: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        name = body["metadata"]["name"]
        if subresource == "scale":
            if self.fail_scale_writes:
                raise self.fail_scale_writes.pop(0)
            self.scale_writes.append((name, body["spec"]["replicas"]))
            self.scales[name]["spec"]["replicas"] = body["spec"]["replicas"]
            return copy.deepcopy(self.scales[name])
        assert subresource == "status"
        known = self.objects[resource.plural, namespace or "", name]
        if body["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
            raise KubeApiError(409, "Conflict", "the object has been modified")
        self.status_writes += 1
        return copy.deepcopy(self.put(resource.plural, {**known, "status": body["status"]}))

    async def create(self, resource: Any, body: Object, namespace: str | None = None, **_: Any) -> Object:
        assert resource.plural == "events"
        self.events.append((body["reason"], body["message"]))
        return body

    async def patch(self, resource: Any, name: str, body: Object, *_: Any, **__: Any) -> Object:
        return body

    async def raw_get(self, path: str, params: dict[str, Any] | None = None) -> bytes:
        self.raw.append((path, dict(params or {})))
        answer = self.answers.get(
            path, KubeApiError(404, "NotFound", "the server could not find the requested resource")
        )
        if callable(answer):
            answer = answer()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return msgspec.json.encode(answer)


def _meta(obj: Object) -> Meta:
    return msgspec.convert(
        {
            "namespace": obj["metadata"].get("namespace", ""),
            "name": obj["metadata"]["name"],
            "uid": obj["metadata"]["uid"],
            "resourceVersion": obj["metadata"]["resourceVersion"],
        },
        Meta,
    )
