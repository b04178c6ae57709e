"""The Prometheus HTTP API v1 (reference/stack.md 1.1): queries, series, labels, targets, status."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flyball import __version__, clock
from flyball.errors import FlyballError, QueryError
from flyball.model.durations import parse_duration_ms
from flyball.model.frames import Frame
from flyball.model.labels import Labels, Matcher
from flyball.promql import EvaluationError, Options, Value, data_json, evaluate, parse, parse_selector
from flyball.promql.values import valid_text

TIMEOUT_MAX_S = 120.0
BODY_MAX = 1 << 20
TIME_MIN_MS, TIME_MAX_MS = -(1 << 53), 1 << 53
_encode = msgspec.json.encode


class Store(Protocol):
    """What the API asks of a store; ``flyball.store.Head`` is one."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]: ...
    def label_names(self, matcher_sets: Any, start_ms: int, end_ms: int) -> Any: ...
    def label_values(self, name: str, matcher_sets: Any, start_ms: int, end_ms: int) -> Any: ...
    def series(self, matcher_sets: Any, start_ms: int, end_ms: int) -> list[Labels]: ...


class _BadDataError(Exception):
    """A parameter is wrong: 400 bad_data."""


class _TimedOutError(Exception):
    """The query took longer than allowed: 503 timeout."""


Form = dict[str, list[str]]


def unescape_label(name: str) -> str:
    """A label name of a URL: ``U__foo_2e_bar`` is ``foo.bar``, ``__`` within is ``_``."""
    if not name.startswith("U__"):
        return name
    text, out, at = name[3:], "", 0
    while at < len(text):
        if text[at] != "_":
            out += text[at]
            at += 1
        elif text[at + 1 : at + 2] == "_":
            out += "_"
            at += 2
        else:
            end = text.find("_", at + 1)
            try:
                out += chr(int(text[at + 1 : end], 16)) if end > 0 else ""
            except (ValueError, OverflowError):
                return name
            if end < 0:
                return name
            at = end + 1
    return out


def parse_time_ms(text: str) -> int:
    """Unix seconds as a decimal, or RFC 3339.

    Raises:
        ValueError: it is neither, or out of range.
    """
    try:
        seconds = float(text)
    except ValueError:
        return clock.parse_rfc3339_ms(text)
    if not math.isfinite(seconds) or not TIME_MIN_MS <= seconds * 1000 <= TIME_MAX_MS:
        raise ValueError(f"{text} is out of range")
    return round(seconds * 1000)


def _time(form: Form, name: str, default: int | None) -> int:
    text = form.get(name, [""])[0]
    if not text:
        if default is None:
            raise _BadDataError(f'invalid parameter "{name}": cannot parse "" to a valid timestamp')
        return default
    try:
        return parse_time_ms(text)
    except ValueError:
        raise _BadDataError(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp') from None


def _duration(form: Form, name: str) -> int | None:
    text = form.get(name, [""])[0]
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            return parse_duration_ms(text)
        except FlyballError:
            raise _BadDataError(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration') from None
    if not math.isfinite(seconds) or abs(seconds) > 9_223_372_036:
        raise _BadDataError(
            f'invalid parameter "{name}": cannot parse "{text}" to a valid duration. It overflows int64'
        )
    return round(seconds * 1000)


def _limit(form: Form) -> int:
    text = form.get("limit", [""])[0]
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise _BadDataError(f'invalid parameter "limit": cannot parse "{text}" to a valid limit')
    return int(text)


def _matcher_sets(form: Form, *, required: bool = False) -> list[tuple[Matcher, ...]]:
    texts = form.get("match[]", [])
    if required and not texts:
        raise _BadDataError("no match[] parameter provided")
    try:
        return [parse_selector(text) for text in texts]
    except QueryError as exc:
        raise _BadDataError(f'invalid parameter "match[]": {exc}') from None


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _success(data: bytes, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Response:
    body = b'{"status":"success","data":' + data
    if warnings:
        body += b',"warnings":' + _encode(list(warnings))
    if infos:
        body += b',"infos":' + _encode(list(infos))
    return _json(body + b"}")


def _error(status: int, kind: str, message: str) -> Response:
    return _json(_encode({"status": "error", "errorType": kind, "error": valid_text(message)}), status)


async def _form(request: Request) -> Form:
    """Parameters of the URL and of a POSTed form."""
    form: Form = {}
    for name, value in request.query_params.multi_items():
        form.setdefault(name, []).append(value)
    if request.method == "POST":
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX:
                raise _BadDataError(f"the form is larger than the limit of {BODY_MAX} bytes")
        from urllib.parse import parse_qsl

        kind = request.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True):
                form.setdefault(name, []).insert(0, value)
    return form


class PrometheusApi:
    """The handlers. Queries run one after another in ``executor``; the event loop never computes."""

    def __init__(
        self,
        storage: Store,
        targets_provider: Callable[[], Any],
        executor: Executor,
        *,
        timeout_s: float = TIMEOUT_MAX_S,
        metadata_provider: Callable[[], dict[str, list[dict[str, str]]]] | None = None,
    ) -> None:
        self.storage = storage
        self.targets_provider = targets_provider
        self.executor = executor
        self.timeout_s = timeout_s
        self.metadata_provider = metadata_provider

    async def in_worker(self, work: Callable[[Callable[[], bool]], Any], timeout_ms: int | None = None) -> Any:
        """Runs ``work(cancelled)`` in the worker, at most as long as allowed, waiting for the worker included."""
        allowed = self.timeout_s if timeout_ms is None else min(self.timeout_s, timeout_ms / 1000)
        over = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(
            self.executor, lambda: None if over.is_set() else work(over.is_set)
        )
        try:
            return await asyncio.wait_for(asyncio.shield(future), allowed)
        except TimeoutError:
            over.set()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise _TimedOutError("query timed out in query execution") from None
        except asyncio.CancelledError:  # the client went away
            over.set()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def query(self, form: Form) -> Response:
        now = clock.now_ms()
        at = _time(form, "time", now)
        return await self.evaluated(form, at, at, 0)

    async def query_range(self, form: Form) -> Response:
        start, end = _time(form, "start", None), _time(form, "end", None)
        if end < start:
            raise _BadDataError('invalid parameter "end": end timestamp must not be before start time')
        step = _duration(form, "step")
        if step is None:
            raise _BadDataError('invalid parameter "step": cannot parse "" to a valid duration')
        if step <= 0:
            message = "zero or negative query resolution step widths are not accepted. Try a positive integer"
            raise _BadDataError(f'invalid parameter "step": {message}')
        if (end - start) // step > 11_000:
            message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution"
            raise _BadDataError(f"{message} (?step=XX)")
        return await self.evaluated(form, start, end, step)

    async def evaluated(self, form: Form, start: int, end: int, step: int) -> Response:
        timeout, lookback, limit = _duration(form, "timeout"), _duration(form, "lookback_delta") or 0, _limit(form)
        lookback = lookback if lookback > 0 else 300_000
        text = form.get("query", [""])[0]
        try:
            expr = parse(text)
        except QueryError as exc:
            raise _BadDataError(f'invalid parameter "query": {exc}') from None
        if step and expr.type.value not in ("scalar", "vector"):
            kind = expr.type.documented
            message = f'invalid expression type "{kind}" for range query, must be Scalar or instant Vector'
            raise _BadDataError(f'invalid parameter "query": {message}')

        def work(cancelled: Callable[[], bool]) -> tuple[Value, bytes]:
            options = Options(cancelled=cancelled)
            value = evaluate(expr, self.storage, start, end, step, lookback, options=options, text=text)
            return value, data_json(value, limit)

        value, data = await self.in_worker(work, timeout)
        warnings = list(value.warnings)
        if limit and len(getattr(value, "labels", ())) > limit:
            warnings.append("results truncated due to limit")
        return _success(data, warnings, value.infos)

    async def series(self, form: Form) -> Response:
        sets, limit = _matcher_sets(form, required=True), _limit(form)
        start, end = _time(form, "start", TIME_MIN_MS), _time(form, "end", TIME_MAX_MS)
        found = await self.in_worker(lambda _: sorted(self.storage.series(sets, start, end)))
        data = b"[" + b",".join(_encode(dict(labels)) for labels in (found[:limit] if limit else found)) + b"]"
        return _success(data, self.truncated(found, limit))

    def truncated(self, found: list[Any], limit: int) -> list[str]:
        return ["results truncated due to limit"] if limit and len(found) > limit else []

    async def names(self, form: Form) -> Response:
        sets, limit = _matcher_sets(form), _limit(form)
        start, end = _time(form, "start", TIME_MIN_MS), _time(form, "end", TIME_MAX_MS)
        found = await self.in_worker(lambda _: sorted(self.storage.label_names(sets, start, end)))
        return _success(_encode(found[:limit] if limit else found), self.truncated(found, limit))

    async def label_values(self, form: Form, name: str) -> Response:
        name = unescape_label(name)
        if not name:
            raise _BadDataError(f'invalid label name: "{name}"')
        sets, limit = _matcher_sets(form), _limit(form)
        start, end = _time(form, "start", TIME_MIN_MS), _time(form, "end", TIME_MAX_MS)
        found = await self.in_worker(lambda _: sorted(self.storage.label_values(name, sets, start, end)))
        return _success(_encode(found[:limit] if limit else found), self.truncated(found, limit))

    async def targets(self, form: Form) -> Response:
        found = self.targets_provider()
        if not isinstance(found, dict):
            found = {"activeTargets": list(found), "droppedTargets": []}
        state, pool = form.get("state", ["any"])[0].lower(), form.get("scrapePool", [""])[0]
        active = [t for t in found.get("activeTargets", []) if not pool or t.get("scrapePool") == pool]
        dropped = found.get("droppedTargets", [])
        data = {
            "activeTargets": active if state != "dropped" else [],
            "droppedTargets": dropped if state != "active" else [],
            "droppedTargetCounts": found.get("droppedTargetCounts", {}),
        }
        return _success(_encode(data))

    async def metadata(self, form: Form) -> Response:
        found = self.metadata_provider() if self.metadata_provider else {}
        metric, limit = form.get("metric", [""])[0], _limit(form)
        if metric:
            found = {metric: found[metric]} if metric in found else {}
        if limit:
            found = dict(list(found.items())[:limit])
        return _success(_encode(found))

    async def format_query(self, form: Form) -> Response:
        try:
            return _success(_encode(str(parse(form.get("query", [""])[0]))))
        except QueryError as exc:
            raise _BadDataError(f'invalid parameter "query": {exc}') from None

    async def buildinfo(self, form: Form) -> Response:
        info = {
            "version": "3.14.0",
            "revision": f"flyball-{__version__}",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }
        return _success(_encode(info))


def _guarded(handler: Callable[..., Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(await _form(request), **request.path_params)
        except _BadDataError as exc:
            return _error(400, "bad_data", str(exc))
        except _TimedOutError as exc:
            return _error(503, "timeout", str(exc))
        except EvaluationError as exc:
            return _error(422, "execution", str(exc))
        except QueryError as exc:
            return _error(exc.status, "execution" if exc.status == 422 else "bad_data", str(exc))
        except UnicodeEncodeError:
            return _error(422, "execution", "the query makes text that is not valid UTF-8")
        except FlyballError as exc:
            return _error(exc.status, {404: "not_found", 503: "unavailable"}.get(exc.status, "internal"), str(exc))

    return endpoint


def create_app(
    storage: Store,
    targets_provider: Callable[[], Any],
    executor: Executor,
    routes: Sequence[BaseRoute] = (),
    *,
    timeout_s: float = TIMEOUT_MAX_S,
    metadata_provider: Callable[[], dict[str, list[dict[str, str]]]] | None = None,
    ready: Callable[[], bool] = lambda: True,
) -> Starlette:
    """The API as an ASGI app.

    Args:
        targets_provider: the ``activeTargets`` dicts, or a dict with ``activeTargets`` and ``droppedTargets``.
        executor: one worker thread in which queries run.
        routes: more routes, tried first.
    """
    api = PrometheusApi(storage, targets_provider, executor, timeout_s=timeout_s, metadata_provider=metadata_provider)

    async def healthy(_: Request) -> Response:
        return Response("Flyball is Healthy.\n", media_type="text/plain")

    async def is_ready(_: Request) -> Response:
        if ready():
            return Response("Flyball is Ready.\n", media_type="text/plain")
        return Response("Service Unavailable\n", 503, media_type="text/plain")

    async def metrics(_: Request) -> Response:
        body = await run_in_threadpool(generate_latest)
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})

    async def unknown(request: Request) -> Response:
        return _error(404, "not_found", f"no such endpoint: {request.url.path}")

    get, both = ["GET"], ["GET", "POST"]
    v1 = "/api/v1"
    return Starlette(
        routes=[
            *routes,
            Route(f"{v1}/query", _guarded(api.query), methods=both),
            Route(f"{v1}/query_range", _guarded(api.query_range), methods=both),
            Route(f"{v1}/series", _guarded(api.series), methods=both),
            Route(f"{v1}/labels", _guarded(api.names), methods=both),
            Route(f"{v1}/label/{{name}}/values", _guarded(api.label_values), methods=get),
            Route(f"{v1}/targets", _guarded(api.targets), methods=get),
            Route(f"{v1}/metadata", _guarded(api.metadata), methods=get),
            Route(f"{v1}/format_query", _guarded(api.format_query), methods=both),
            Route(f"{v1}/status/buildinfo", _guarded(api.buildinfo), methods=get),
            Route("/-/healthy", healthy, methods=["GET", "HEAD"]),
            Route("/-/ready", is_ready, methods=["GET", "HEAD"]),
            Route("/metrics", metrics, methods=get),
            Route(f"{v1}/{{rest:path}}", unknown, methods=both),
        ]
    )
