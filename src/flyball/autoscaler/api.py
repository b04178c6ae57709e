"""Flyball's own HTTP API of the autoscaler: decisions with their reasons, what is under way, a person's number.

``GET decisions`` (with ``inputs=true`` also what each was made from), ``GET status``; ``POST`` and ``DELETE
namespaces/NS/governors/NAME/override`` and ``.../pause``; ``POST wake`` brings evaluations forward by name. All below
``/api/flyball/v1/``.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyball.clock import now_ms, parse_rfc3339_ms, rfc3339
from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.journal import DecisionRecord, Journal
from flyball.kube import KubeClient
from flyball.kube.kinds import GOVERNORS
from flyball.scaling.governor import NAME_PREFIX

V1 = "/api/flyball/v1"
LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000
BODY_MAX = 1 << 20
SECONDS_MAX = 366 * 86_400

Handler = Callable[[Request], Awaitable[Response]]


class Wakes(Protocol):
    """The part of the autoscaler that can be told of a landed sample."""

    def wake(self, namespace: str, name: str) -> None: ...

    def wake_metrics(self, namespace: str, names: frozenset[str]) -> None: ...


class _Override(msgspec.Struct, forbid_unknown_fields=True):
    replicas: int
    seconds: int | None = None


class _Wake(msgspec.Struct):
    governors: list[tuple[str, str]] = []
    series: list[tuple[str, str]] = []


def create_app(
    journal: Journal,
    token: str | None = None,
    statistics: Callable[[], dict[str, Any]] | None = None,
    *,
    client: KubeClient | None = None,
    wakes: Wakes | None = None,
    metrics_of: Callable[[str], frozenset[str]] = lambda series: frozenset({series}),
) -> Starlette:
    """The application.

    Args:
        token: the bearer token to ask for; None leaves the check to the caller.
        statistics: the autoscaler's, when one runs in this process.
        client: writes overrides and pauses; without one they are refused.
        wakes: is told of wake-ups.
        metrics_of: the names under which the metrics APIs serve a series.
    """

    def guarded(handler: Handler) -> Handler:
        async def endpoint(request: Request) -> Response:
            if not _allowed(request, token):
                return _error(401, "a bearer token is required")
            try:
                return await handler(request)
            except msgspec.MsgspecError as error:
                return _error(400, f"the body: {error}")
            except KubeApiError as error:
                return _error(error.code if error.code < 500 else error.status, str(error))
            except FlyballError as error:
                return _error(error.status, str(error))

        return endpoint

    async def decisions(request: Request) -> Response:
        text = request.query_params.get("limit", str(LIMIT_DEFAULT))
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LIMIT_MAX):
            return _error(400, f'limit "{text[:32]}" is not a number from 1 to {LIMIT_MAX}')
        at = request.query_params.get("at", "")
        try:
            until_ms = int(at) if at.isascii() and at.isdigit() else parse_rfc3339_ms(at) if at else None
        except ValueError:
            return _error(400, f'at "{at[:32]}" is not a time; write 2026-11-21T17:00:00Z or ms since the epoch')
        namespace, name = request.query_params.get("namespace", ""), request.query_params.get("name", "")
        records = await run_in_threadpool(journal.decisions, namespace, name, int(text), until_ms)
        inputs = request.query_params.get("inputs", "") == "true"
        return _json(200, {"items": [flat(record, inputs=inputs) for record in records]})

    async def status(_: Request) -> Response:
        return _json(200, {"autoscaler": statistics() if statistics else {"journal": journal.statistics()}})

    async def override(request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=_Override)
        if asked.seconds is None:
            return await change(request, {"override": {"replicas": asked.replicas, "until": None}})
        if not 1 <= asked.seconds <= SECONDS_MAX:
            return _error(400, f"seconds {asked.seconds} is not between 1 and {SECONDS_MAX}")
        until = rfc3339(now_ms() + asked.seconds * 1000)
        return await change(request, {"override": {"replicas": asked.replicas, "until": until}})

    async def change(request: Request, spec: dict[str, Any]) -> Response:
        if client is None:
            return _error(503, "this process does not write Governors; ask the autoscaler")
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        governor = await client.patch(GOVERNORS, name, {"spec": spec}, namespace)
        if wakes is not None:
            wakes.wake(namespace, NAME_PREFIX + name)
        written = governor["spec"]
        return _json(200, {"override": written.get("override"), "pause": bool(written.get("pause"))})

    async def wake(request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=_Wake)
        if wakes is None:
            return _error(503, "no autoscaler runs in this process")
        for namespace, name in asked.governors:
            wakes.wake(namespace, NAME_PREFIX + name)
        for namespace, series in asked.series:
            wakes.wake_metrics(namespace, metrics_of(series))
        return Response(status_code=204)

    governor = f"{V1}/namespaces/{{namespace}}/governors/{{name}}"
    table: list[tuple[str, str, Handler]] = [
        ("GET", f"{V1}/decisions", decisions),
        ("GET", f"{V1}/status", status),
        ("POST", f"{V1}/wake", wake),
        ("POST", f"{governor}/override", override),
        ("DELETE", f"{governor}/override", lambda request: change(request, {"override": None})),
        ("POST", f"{governor}/pause", lambda request: change(request, {"pause": True})),
        ("DELETE", f"{governor}/pause", lambda request: change(request, {"pause": None})),
    ]
    return Starlette(routes=[Route(path, guarded(handler), methods=[method]) for method, path, handler in table])


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise ConfigError(f"the body is larger than {BODY_MAX} bytes")
    return body


def flat(record: DecisionRecord, *, inputs: bool = False) -> dict[str, Any]:
    """A record as the API shows it: the decision's fields with those of its record beside them.

    ``inputs``: with all that it was made from; null where that was not kept.
    """
    body: dict[str, Any] = msgspec.to_builtins(record.decision)
    body.update(
        id=record.id,
        first_ms=record.first_ms,
        last_ms=record.last_ms,
        count=record.count,
        outcome=record.outcome,
        reproduced=record.reproduced(),
    )
    if inputs:
        body["inputs"] = msgspec.to_builtins(record.inputs)
    return body


def _allowed(request: Request, token: str | None) -> bool:
    if token is None:
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), token.encode())


def _json(code: int, body: Any) -> Response:
    return Response(msgspec.json.encode(body), code, media_type="application/json")


def _error(code: int, message: str) -> Response:
    return _json(code, {"error": message})
