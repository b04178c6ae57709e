"""Envelopes and errors of the Prometheus API, and the guard around every handler."""

import asyncio
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
_WATCHED_AFTER_S = 0.02


class TimedOutError(Exception):
    """The query took longer than allowed: 503 timeout."""


class UnavailableError(Exception):
    """Too much is asked at once, or a part is not ready: 503 unavailable."""


def success(data: bytes | None, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Response:
    """The envelope around ``data``, which is JSON already; None where an answer carries none."""
    body = [b'{"status":"success"']
    if data is not None:
        body += [b',"data":', data]
    if warnings:
        body += [b',"warnings":', encode(list(warnings))]
    if infos:
        body += [b',"infos":', encode(list(infos))]
    return Response(b"".join([*body, b"}"]), media_type="application/json")


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
    """The answer; the work is cancelled when the client goes away. Work that is soon done is not watched."""
    task = asyncio.current_task()
    assert task is not None
    watching: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(
        _WATCHED_AFTER_S, lambda: watching.append(asyncio.create_task(watch()))
    )
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        return Response(status_code=499)  # nobody reads it
    finally:
        timer.cancel()
        for watcher in watching:
            watcher.cancel()


def form_client(form: Form) -> str:
    return form.get(CLIENT, [""])[-1]
