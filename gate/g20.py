"""Absent is not zero: what a metric server may answer wrongly, through each metrics API: never a zero, never fewer."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from flyball import clock
from flyball.errors import KubeApiError, UpstreamError
from flyball.http.server import serve
from flyball.sources import HttpSource
from gate import autoscaler_world
from gate.adapter_world import CONFIG, LOAD, QUEUE, USAGE
from gate.autoscaler_world import Subject
from gate.report import demand

PODS = ("web-0", "web-1")


def _document(result: list[Any], kind: str = "vector", **more: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **more}).encode()


def _vector(value: str, query: str, *, times_ago_s: float = 1.0, copies: int = 1) -> bytes:
    """An answer grouped as the query asks: the value, or the newest samples' times."""
    now_s = clock.now_ms() / 1000
    shown = f"{now_s - times_ago_s:.3f}" if "timestamp(" in query else value
    grouped = re.search(r"by \(([^)]*)\)", query)
    wanted = [name.strip() for name in grouped.group(1).split(",")] if grouped else []
    result: list[Any] = []
    for pod in PODS:
        labels = {"namespace": "default", "pod": pod, "container": "main", "name": "jobs"}
        element = {"metric": {name: labels[name] for name in wanted}, "value": [now_s, shown]}
        result += [element] * copies if element not in result else []
    return _document(result)


@dataclass(frozen=True)
class Input:
    """``answer(query)`` gives (status, body), or None to hang; ``value`` is what may be served."""

    name: str
    answer: Callable[[str], tuple[int, bytes] | None]
    value: float | None = None


def _valued(name: str, value: str, served: float | None = None, **more: Any) -> Input:
    return Input(name, lambda query: (200, _vector(value, query, **more)), served)


def _body(name: str, status: int, body: bytes) -> Input:
    return Input(name, lambda _: (status, body))


INPUTS = [
    _valued("a plain value", "7", 7.0),
    _valued("NaN", "NaN"),
    _valued("+Inf", "+Inf"),
    _valued("-Inf", "-Inf"),
    _valued("larger than a quantity", "1e300"),
    _valued("the newest sample is an hour old", "7", times_ago_s=3600),
    _valued("the same series twice", "7", 7.0, copies=2),
    _valued("a value that is no number", "seven"),
    _valued("an empty value", ""),
    Input("values without times", lambda query: (200, _document([]) if "timestamp(" in query else _vector("7", query))),
    _body("an empty vector", 200, _document([])),
    _body("a vector that is null", 200, b'{"status":"success","data":{"resultType":"vector","result":null}}'),
    _body("data that is null", 200, b'{"status":"success","data":null}'),
    _body("an empty vector with a warning of a partial answer", 200, _document([], warnings=["partial response"])),
    _body("a matrix", 200, _document([], "matrix")),
    _body("a string", 200, _document([], "string")),
    _body("HTTP 200 with an error body", 200, b'{"status":"error","errorType":"execution","error":"x"}'),
    _body("HTTP 200 with a page", 200, b"<html>maintenance</html>"),
    _body("truncated JSON", 200, _document([{"metric": {}, "value": [1, "7"]}])[:-12]),
    _body("an empty body", 200, b""),
    _body("HTTP 500", 500, b"oops"),
    _body("HTTP 503", 503, b""),
    _body("HTTP 302", 302, b""),
    _body("HTTP 401", 401, b""),
    _body("HTTP 422", 422, b'{"status":"error","errorType":"execution","error":"too many samples"}'),
    Input("no answer in time", lambda _: None),
]


def run(*, quick: bool = False) -> list[str]:
    return [*asyncio.run(_work()), *_autoscaler(quick)]


async def _work() -> list[str]:
    current = INPUTS[0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        form = parse_qs(message.get("body", b"").decode() + "&" + scope["query_string"].decode())
        query = form.get("query", [""])[0]
        status, body = 200, b""
        if scope["path"].endswith("/series"):
            labels = {"namespace": "default", "pod": "web-0", "name": "jobs"}
            body = json.dumps({"status": "success", "data": [{"__name__": form["match[]"][0], **labels}]}).encode()
        else:
            found = current.answer(query)
            if found is None:
                while message["type"] != "http.disconnect":  # it hangs for as long as anybody waits
                    message = await receive()
                return
            status, body = found
        await send({"type": "http.response.start", "status": status, "headers": [(b"location", b"/elsewhere")]})
        await send({"type": "http.response.body", "body": body})

    server = await serve(app, port=0, name="metrics")
    ask, close = await _adapter(f"http://127.0.0.1:{server.port}")
    cells, served = 0, 0
    try:
        for current in INPUTS:
            for path in (LOAD, QUEUE, USAGE):
                status, document = await ask(path)
                values = _values(document) if status == 200 else []
                cells += 1
                where = f"{current.name}, {path.split('/')[2]}"
                if current.value is None:
                    demand(not values, f"{where}: serves {values}")
                else:
                    demand(bool(values) and 0.0 not in values, f"{where}: serves {values}, status {status}")
                    served += 1
    finally:
        await close()
        await server.close()
    return [f"{len(INPUTS)} inputs x 3 APIs = {cells} cells: 0 zeros, 0 values of what is absent, {served} true values"]


def _values(document: Any) -> list[float]:
    from flyball.model.quantities import parse_quantity

    found = []
    for item in document["items"]:
        shown = [item["value"]] if "value" in item else [v for c in item["containers"] for v in c["usage"].values()]
        found += [parse_quantity(text).as_float() for text in shown]
    return found


async def _adapter(url: str) -> tuple[Callable[[str], Awaitable[tuple[int, Any]]], Callable[[], Awaitable[None]]]:
    """An adapter in this process that knows two pods; every question is asked anew."""
    from flyball.adapter.explaining import ask_path
    from flyball.adapter.objects import MetaObject, ObjectMeta, Status
    from flyball.adapter.service import Adapter

    source = HttpSource(url, timeout_s=0.3, cache_ms=0)
    adapter = Adapter(None, source, CONFIG, share_s=0.0, watch_config_maps=False)  # type: ignore[arg-type]
    for name in PODS:
        meta = ObjectMeta(name, "default", {"app": "web"})
        adapter._pods.apply("ADDED", None, MetaObject(meta, Status("Running")))
    adapter._pods._informer._synced.set()
    await adapter.relist()

    async def ask(path: str) -> tuple[int, Any]:
        status, body = await ask_path(adapter, path)
        return status, json.loads(body)

    return ask, source.close


# --- the autoscaler's side: what a metrics API may answer ---


def _items(subject: Subject, **fields: Any) -> Any:
    """The true answer with other fields in every item."""
    return {"items": [item | fields for item in subject.answer()["items"]]}


def _quantity(text: str) -> Callable[[Subject], Any]:
    """Every value replaced."""

    def answer(subject: Subject) -> Any:
        if subject.kind == "Resource":
            return _items(subject, containers=[{"name": "main", "usage": {"cpu": text}}])
        return _items(subject, value=text)

    return answer


def _error(code: int) -> Callable[[Subject], Any]:
    return lambda _: KubeApiError(code, "Failure", "refused")


def _said(text: bytes) -> Callable[[Subject], Any]:
    return lambda _: msgspec.Raw(text)


async def _never() -> None:
    await asyncio.Event().wait()


ANSWERS: dict[str, Callable[[Subject], Any]] = {
    "no items": lambda _: {"items": []},
    "items that are null": lambda _: {"items": None},
    "no list at all": lambda _: {},
    "a null": lambda _: None,
    "a string": lambda _: "down for maintenance",
    "a list": lambda _: [],
    "an item that is null": lambda _: {"items": [None]},
    "an item without fields": lambda _: {"items": [{}]},
    "NaN": _quantity("NaN"),
    "+Inf": _quantity("+Inf"),
    "-Inf": _quantity("-Inf"),
    "no quantity": _quantity("seven"),
    "an empty quantity": _quantity(""),
    "a quantity beyond all bounds": _quantity("1" + "0" * 400),
    "an object for a quantity": lambda s: _items(s, value={}, containers=[{"name": "main", "usage": {"cpu": {}}}]),
    "a null for a quantity": lambda s: _items(s, value=None, containers=[{"name": "main", "usage": {}}]),
    "a time that is none": lambda s: _items(s, timestamp="yesterday"),
    "truncated JSON": _said(b'{"items": [{"value": "7"'),
    "an empty body": _said(b" "),
    "a page": _said(b"<html>maintenance</html>"),
    "HTTP 401": _error(401),
    "HTTP 403": _error(403),
    "HTTP 404": _error(404),
    "HTTP 429": _error(429),
    "HTTP 500": _error(500),
    "HTTP 503": _error(503),
    "no connection": lambda _: UpstreamError("connection refused"),
    "a TLS failure": lambda _: UpstreamError("certificate verify failed"),
    "no answer in time": lambda _: _never,
    "one pod of all, or no value": lambda s: s.answer(without=1) if s.kind in ("Pods", "Resource") else {"items": []},
    # true words about another time, and what no load can be; the stock HPA takes both at their word
    "no load, an hour ago": lambda s: s.answer(share=0.0, age_s=3600),
    "no load, in an hour": lambda s: s.answer(share=0.0, age_s=-3600),
    "a negative load": lambda s: s.answer(share=-1.0),
}
TAKEN_AT_THEIR_WORD = {"no load, an hour ago", "no load, in an hour", "a negative load"}
BEATS = 24  # more than any window lasts


def _autoscaler(quick: bool) -> list[str]:
    logging.getLogger("flyball.autoscaler").setLevel(logging.ERROR)  # it warns of each, as it should
    cells = 0

    async def work(subject: Subject) -> None:
        nonlocal cells
        for name, answer in ANSWERS.items():
            if name in TAKEN_AT_THEIR_WORD and subject.profile != "fast":
                continue
            for _ in range(BEATS // 8 if quick and name not in TAKEN_AT_THEIR_WORD else BEATS):
                await subject.beat(answer)
                where = f"{name}: {subject.profile} by {subject.kind}"
                demand(subject.size >= autoscaler_world.PODS, f"{where}: down to {subject.size}")
            for _ in range(2):
                await subject.beat()
            cells += 1
        for _ in range(BEATS):
            await subject.beat(lambda one: one.answer(share=0.4))
        demand(subject.size < autoscaler_world.PODS, f"{subject.profile} by {subject.kind}: never scales down at all")

    subjects = autoscaler_world.with_journal(lambda journal: autoscaler_world.each(journal, work))
    return [
        f"autoscaler: {len(ANSWERS)} answers x 4 types of metric x HPA, Governor parity and fast = {cells} cells"
        f" of {BEATS} beats: 0 scale-downs; {len(TAKEN_AT_THEIR_WORD)} answers are the stock HPA's to believe and are"
        f" asked of fast alone; all {subjects} scale down when the load truly falls"
    ]
