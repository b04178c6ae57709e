"""Absent is not zero: what a metric server may answer wrongly, through each metrics API: never a zero, never fewer."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from flyball import clock
from flyball.http.server import serve
from flyball.sources import HttpSource
from gate.adapter_world import CONFIG, LOAD, QUEUE, USAGE
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
    del quick  # the table is small
    return asyncio.run(_work())


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
