"""What scrapers and health checks of a control-plane component are answered, and who may ask."""

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = "text/plain; charset=utf-8"
METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def health_slis(*types: str) -> bytes:
    """``/metrics/slis``: who answers at all is alive."""
    head = "# HELP kubernetes_healthcheck Result of a health check.\n# TYPE kubernetes_healthcheck gauge\n"
    lines = [f'kubernetes_healthcheck{{name="ping",type="{one}"}} 1\n' for one in types]
    return (head + "".join(lines)).encode()


def authorized(scope: Any, token_file: Path) -> bool:
    """Whether a request carries the bearer token that a file holds."""
    try:
        token = token_file.read_bytes().strip()
    except OSError:
        return False
    return bool(token) and hmac.compare_digest(bearer(scope).encode("latin-1"), token)


def bearer(scope: Any) -> str:
    """A request's bearer token, or empty."""
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    kind, _, value = given.decode("latin-1").partition(" ")
    return str(value.strip()) if kind.lower() == "bearer" else ""


async def answer(send: Any, status: int, body: bytes, content_type: str = TEXT) -> None:
    """One whole answer of an ASGI application."""
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class MetricsPage:
    """An ASGI application: ``/metrics`` and ``/metrics/slis`` for who has the token, health for everybody.

    Args:
        token_file: None where everybody may read.
    """

    def __init__(self, exposition: Callable[[], bytes], token_file: Path | None) -> None:
        self._exposition, self._token_file = exposition, token_file

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path in ("/healthz", "/livez", "/readyz"):
            await answer(send, 200, b"ok")
        elif self._token_file is not None and not authorized(scope, self._token_file):
            await answer(send, 401, b"Unauthorized: send the bearer token of the data directory's pki/token\n")
        elif path == "/metrics":
            await answer(send, 200, self._exposition(), METRICS_TEXT)
        elif path == "/metrics/slis":
            await answer(send, 200, health_slis("healthz", "livez"), METRICS_TEXT)
        else:
            await answer(send, 404, f"{path} is not served here; /metrics is\n".encode())
