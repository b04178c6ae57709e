"""Watches: the events of one resource from a version on, encoded once and shared by all watchers."""

import asyncio
from typing import Any

from flyball.clock import monotonic_s, now_ms
from flyball.localcluster.answers import present, until_gone
from flyball.localcluster.convert import convert
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.listing import Selection, check_options, resource_version, selection
from flyball.localcluster.registry import Served
from flyball.localcluster.requests import JSON, Request, encode
from flyball.localcluster.storage import ADDED, DELETED, MODIFIED, Event, Expired, Record, Storage
from flyball.localcluster.tables import partial, table_of, wants

Object = dict[str, Any]

BOOKMARK_EVERY_S = 30.0
WATCH_MAX_S = 3600.0
WATCH_BATCH_BYTES = 1 << 20


async def answer_watch(storage: Storage, request: Request, served: Served, namespace: str, field_text: str) -> None:
    check_options(request, watching=True)
    chosen = selection(request, served, field_text)
    timeout_s = min(float(request.integer("timeoutSeconds") or WATCH_MAX_S), WATCH_MAX_S)
    deadline = monotonic_s() + timeout_s
    form = wants(request.accept)
    line = _Lines(request, served, form)
    asked = resource_version(request, watching=True)
    initial = request.flag("sendInitialEvents") if request.param("sendInitialEvents") else asked == 0
    bookmarks = request.flag("allowWatchBookmarks")

    # Subscribe before looking at the present: nothing awaits in between, so no event is missed or seen twice.
    subscription = storage.subscribe(served.store, namespace)
    gone = asyncio.create_task(until_gone(request.receive, subscription.close))
    try:
        start: list[bytes] = []
        error: ApiFailure | None = None
        revision = storage.revision
        if initial:
            for record in storage.records(served.store, namespace):
                if chosen.matches(record):
                    start.append(line.of(ADDED, record, None))
            if bookmarks and request.param("sendInitialEvents"):
                start.append(line.bookmark(revision, initial_end=True))
        elif asked:
            try:
                history = storage.since(served.store, asked, namespace)
            except Expired as exc:
                storage.watches_expired += 1
                error = ApiFailure(410, str(exc))
            else:
                start.extend(_event_lines(history, line, chosen))
        await request.start(200, [(b"content-type", JSON.encode()), (b"cache-control", b"no-cache, private")])
        await request.chunk(b"".join(start))
        if error is not None:
            await request.chunk(b'{"type":"ERROR","object":' + encode(error.body()) + b"}\n")
            await request.chunk(b"", more=False)
            return
        start.clear()
        next_bookmark = monotonic_s() + BOOKMARK_EVERY_S
        while True:
            now = monotonic_s()
            if now >= deadline or subscription.closed:
                break
            if not subscription.is_behind:
                if bookmarks and now >= next_bookmark:
                    await request.chunk(line.bookmark(storage.revision))
                    next_bookmark = now + BOOKMARK_EVERY_S
                await subscription.wait(min(deadline, next_bookmark if bookmarks else deadline) - now)
                continue
            data = b"".join(_event_lines(subscription.take(WATCH_BATCH_BYTES), line, chosen))
            if data:
                await request.chunk(data)
        await request.chunk(b"", more=False)
    finally:
        subscription.close()
        gone.cancel()


class _Lines:
    """Encoded watch lines for one watcher; plain JSON lines are shared with every other watcher of the version."""

    def __init__(self, request: Request, served: Served, form: str) -> None:
        self._served = served
        self._form = form
        self._include = request.param("includeObject")
        self._columns_sent = False

    def of(self, type_: str, record: Record, event: Event | None) -> bytes:
        if self._form:
            obj = convert(record.object, self._served.group_version)
            if self._form == "Table":
                metadata = {"resourceVersion": str(record.rv)}
                body = table_of(self._served, [obj], now_ms(), metadata, self._include)
                if self._columns_sent:
                    body["columnDefinitions"] = None
                self._columns_sent = True
            else:
                body = partial(obj)
            return encode({"type": type_, "object": body}) + b"\n"
        key = (type_, self._served.group_version, record.rv)
        line = event.lines.get(key) if event is not None else None
        if line is None:
            line = b'{"type":"%s","object":%s}\n' % (type_.encode(), present(self._served, record))
            if event is not None:
                event.lines[key] = line
        return line

    def bookmark(self, revision: int, initial_end: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = self._served.kind
        body: Object = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        if self._form == "Table":
            body = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": None,
                "rows": [],
            }
        elif self._form:
            body = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return encode({"type": "BOOKMARK", "object": body}) + b"\n"


def _event_lines(events: list[Event], line: _Lines, chosen: Selection) -> list[bytes]:
    """The lines a watcher with this selector sees: entering it is ADDED, leaving it DELETED."""
    found = []
    for event in events:
        if chosen.is_everything:
            found.append(line.of(event.type, event.record, event))
            continue
        before = event.previous is not None and chosen.matches(event.previous)
        after = event.type != DELETED and chosen.matches(event.record)
        if after:
            found.append(line.of(MODIFIED if before else ADDED, event.record, event))
        elif before:
            record = event.record
            if event.type != DELETED and event.previous is not None:
                # The watcher knows the object as it was, at the version that took it out of the selection.
                obj = event.previous.copy()
                obj["metadata"]["resourceVersion"] = str(event.rv)
                record = Record(encode(obj), event.rv, obj)
            found.append(line.of(DELETED, record, event if record is event.record else None))
    return found
