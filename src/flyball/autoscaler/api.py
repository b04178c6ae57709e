"""Flyball's own HTTP API of the autoscaler: decisions with their reasons, and what is under way."""

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyball.clock import parse_rfc3339_ms
from flyball.errors import FlyballError
from flyball.journal import DecisionRecord, Journal

LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000


def create_app(
    journal: Journal, token: str | None = None, statistics: Callable[[], dict[str, Any]] | None = None
) -> Starlette:
    """The application that serves ``/api/flyball/v1/decisions`` and ``/api/flyball/v1/status``.

    ``token``: the bearer token to ask for; None leaves the check to the caller. ``statistics`` is the
    autoscaler's, when one runs in this process.
    """

    async def decisions(request: Request) -> Response:
        if not _allowed(request, token):
            return _error(401, "a bearer token is required")
        text = request.query_params.get("limit", str(LIMIT_DEFAULT))
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LIMIT_MAX):
            return _error(400, f'limit "{text[:32]}" is not a number from 1 to {LIMIT_MAX}')
        at = request.query_params.get("at", "")
        try:
            until_ms = int(at) if at.isascii() and at.isdigit() else parse_rfc3339_ms(at) if at else None
        except ValueError:
            return _error(400, f'at "{at[:32]}" is not a time; write 2026-11-21T17:00:00Z or ms since the epoch')
        namespace, name = request.query_params.get("namespace", ""), request.query_params.get("name", "")
        try:
            records = await run_in_threadpool(journal.decisions, namespace, name, int(text), until_ms)
        except FlyballError as error:
            return _error(error.status, str(error))
        return _json(200, {"items": [flat(record) for record in records]})

    async def status(request: Request) -> Response:
        if not _allowed(request, token):
            return _error(401, "a bearer token is required")
        try:
            body = statistics() if statistics is not None else {"journal": journal.statistics()}
        except FlyballError as error:
            return _error(error.status, str(error))
        return _json(200, {"autoscaler": body})

    return Starlette(
        routes=[
            Route("/api/flyball/v1/decisions", decisions, methods=["GET"]),
            Route("/api/flyball/v1/status", status, methods=["GET"]),
        ]
    )


def flat(record: DecisionRecord) -> dict[str, Any]:
    """A record as the API shows it: the decision's fields with those of its record beside them."""
    body: dict[str, Any] = msgspec.to_builtins(record.decision)
    body.update(
        id=record.id,
        first_ms=record.first_ms,
        last_ms=record.last_ms,
        count=record.count,
        outcome=record.outcome,
        reproduced=record.reproduced(),
    )
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
