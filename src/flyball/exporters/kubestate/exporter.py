"""Keeps the text of every object's series in step with the cluster, and serves it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from flyball.exporters.kubestate import KINDS
from flyball.exporters.kubestate.families import Kind, Object
from flyball.exporters.text import CONTENT_TYPE, labels_text, number_text
from flyball.kube import Informer, KubeClient

Key = tuple[str, str]
#: Bytes handed over to a connection; what the system does not take of them is copied.
_AT_ONCE = 1 << 18


def render(kind: Kind, obj: Object) -> list[str]:
    """The lines of an object, one text a family."""
    own = labels_text(kind.own(obj))[1:-1]
    texts = []
    for family in kind.families:
        lines = []
        for labels, value in family.series(obj):
            inside = ",".join(filter(None, (own, labels_text(labels)[1:-1])))
            lines.append(f"{family.name}{'{' + inside + '}' if inside else ''} {number_text(value)}\n")
        texts.append("".join(lines))
    return texts


class KindState:
    """The rendered objects of one kind. An object is rendered when it changes, not when it is scraped."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._heads = [
            f"# HELP {one.name} {one.help}\n# TYPE {one.name} {one.type}\n".encode() for one in kind.families
        ]
        self._texts: list[dict[Key, bytes]] = [{} for _ in kind.families]
        self._joined: dict[int, bytes] = {}  # by the family's place, while it stays as it is

    def put(self, key: Key, obj: Object) -> None:
        for place, text in enumerate(render(self.kind, obj)):
            self._set(place, key, text.encode())

    def drop(self, key: Key) -> None:
        for place in range(len(self._texts)):
            self._set(place, key, b"")

    def _set(self, place: int, key: Key, text: bytes) -> None:
        texts = self._texts[place]
        if texts.get(key, b"") == text:
            return
        self._joined.pop(place, None)
        if text:
            texts[key] = text
        else:
            del texts[key]

    def exposition(self) -> list[bytes]:
        """A text a family."""
        for place, texts in enumerate(self._texts):
            if place not in self._joined:
                self._joined[place] = b"".join((self._heads[place], *texts.values()))
        return [self._joined[place] for place in range(len(self._texts))]


class KubeState:
    """Watches the cluster.

    Args:
        resources: plural names to watch; empty means all there are families for.
        namespace: one namespace, or empty for all.
    """

    def __init__(self, client: KubeClient, *, resources: Sequence[str] = (), namespace: str = "") -> None:
        self.registry = CollectorRegistry()
        self._events = Counter(
            "kube_state_metrics_watch", "Changes seen.", ["resource", "result"], registry=self.registry
        )
        self._kinds = [KindState(kind) for kind in KINDS if not resources or kind.resource.plural in resources]
        self._informers: list[Informer[dict[str, Any]]] = []
        for state in self._kinds:
            inside = namespace if namespace and state.kind.resource.namespaced else None
            informer: Informer[dict[str, Any]] = Informer(client, state.kind.resource, inside)
            informer.add_handler(self._handler(state))
            self._informers.append(informer)

    def _handler(self, state: KindState) -> Any:
        def handle(change: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            obj = new if new is not None else old
            assert obj is not None
            self._events.labels(f"*v1.{state.kind.resource.kind}", "success").inc()
            key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            if change == "DELETED":
                state.drop(key)
            else:
                state.put(key, obj)

        return handle

    async def run(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run(), name=f"kube-state {informer.resource}")

    async def wait_synced(self) -> None:
        for informer in self._informers:
            await informer.wait_synced()

    def exposition(self) -> list[bytes]:
        """The body of /metrics, in parts."""
        return [text for state in self._kinds for text in state.exposition()]

    def app(self) -> Starlette:
        """/metrics of the cluster, /telemetry of the exporter, /healthz."""

        async def metrics(_: Request) -> Response:
            parts = self.exposition()  # at once: all families show one state
            length = str(sum(map(len, parts)))

            async def body() -> AsyncIterator[memoryview]:
                for part in parts:
                    for at in range(0, len(part), _AT_ONCE):
                        yield memoryview(part)[at : at + _AT_ONCE]

            return StreamingResponse(body(), headers={"content-type": CONTENT_TYPE, "content-length": length})

        async def telemetry(_: Request) -> Response:
            return Response(generate_latest(self.registry), headers={"content-type": CONTENT_TYPE})

        async def healthz(_: Request) -> Response:
            return PlainTextResponse("OK")

        routes = [("/metrics", metrics), ("/telemetry", telemetry), ("/healthz", healthz), ("/livez", healthz)]
        return Starlette(routes=[Route(path, handler) for path, handler in routes])


__all__ = ["KindState", "KubeState", "render"]
