"""Envelopes and errors of the Prometheus API, and the guard around every handler."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from flyball.errors import FlyballError, QueryError
from flyball.promql.values import valid_text
from flyball.web.parameters import BadDataError, Form, read_form

log = logging.getLogger(__name__)
encode = msgspec.json.encode

Handler = Callable[..., Awaitable[Response]]

#: ``(request's form, who asks)``; who asks is the share in the queue of queries.
CLIENT = "client"


class TimedOutError(Exception):
    """The query took longer than allowed: 503 timeout."""


class UnavailableError(Exception):
    """Too much is asked at once, or a part is not ready: 503 unavailable."""


def success(data: bytes | None, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Response:
    """The envelope around ``data``, which is JSON already; None where an answer carries none."""
    body = b'{"status":"success"' + (b',"data":' + data if data is not None else b"")
    if warnings:
        body += b',"warnings":' + encode(list(warnings))
    if infos:
        body += b',"infos":' + encode(list(infos))
    return Response(body + b"}", media_type="application/json")


def error(status: int, kind: str, message: str) -> Response:
    body = encode({"status": "error", "errorType": kind, "error": valid_text(message)})
    return Response(body, status, media_type="application/json")


def truncated(found: Sequence[Any], limit: int) -> list[str]:
    """The warning of an answer that a limit cut."""
    return ["results truncated due to limit"] if limit and len(found) > limit else []


def guarded(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Reads the form, calls ``handler(form, **path parameters)``, answers what goes wrong, and cancels the handler
    when the client goes away."""

    async def endpoint(request: Request) -> Response:
        try:
            form = await read_form(request)
            form.setdefault(CLIENT, [client_of(request)])
            return await _unless_gone(request, handler(form, **request.path_params))
        except BadDataError as exc:
            return error(400, "bad_data", str(exc))
        except TimedOutError as exc:
            return error(503, "timeout", str(exc))
        except UnavailableError as exc:
            return error(503, "unavailable", str(exc))
        except QueryError as exc:
            return error(exc.status, "execution" if exc.status == 422 else "bad_data", str(exc))
        except UnicodeEncodeError:
            return error(422, "execution", "the query makes text that is not valid UTF-8")
        except (RecursionError, MemoryError) as exc:
            return error(422, "execution", f"the query is too large: {type(exc).__name__}")
        except FlyballError as exc:
            return error(exc.status, {404: "not_found", 503: "unavailable"}.get(exc.status, "internal"), str(exc))
        except Exception as exc:
            log.exception("request_failed path=%s", request.url.path)
            return error(500, "internal", f"{type(exc).__name__}; the server's log says more")

    return endpoint


def client_of(request: Request) -> str:
    """Who shares a turn in the queue: one program at one address."""
    host = request.client.host if request.client is not None else ""
    return f"{host} {request.headers.get('user-agent', '')[:100]}"


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return Response(status_code=499)  # nobody reads it
        return await task
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def form_client(form: Form) -> str:
    return form.get(CLIENT, [""])[-1]
