"""What a proxy in ASGI needs: a request's body, the URL it goes on to, and an answer passed back as it comes."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from yarl import URL

CHUNK_BYTES = 64 << 10
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that are between two neighbours only (RFC 9110, section 7.6.1)."""


def onward(base: str, scope: Any) -> URL:
    """The request's path and query, word for word, below another base."""
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query = scope["query_string"].decode("latin-1")
    return URL(f"{base.rstrip('/')}{path}{'?' + query if query else ''}", encoded=True)


async def request_body(receive: Any) -> AsyncIterator[bytes]:
    """The body in pieces.

    Raises:
        ConnectionResetError: the client went away before its end.
    """
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def pass_back(answer: aiohttp.ClientResponse, send: Any) -> None:
    """The answer to the client: status, headers, and the body as it comes (its session must not decompress)."""
    headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for piece in answer.content.iter_chunked(CHUNK_BYTES):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
