"""The one HTTP client: aiohttp with a connection limit, a total time-out and capped bodies."""

import ssl
from pathlib import Path

import aiohttp

from flyball.errors import UpstreamError


def client_tls(
    *,
    ca_file: str | Path | None = None,
    ca_data: str | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
    insecure_skip_verify: bool = False,
) -> ssl.SSLContext:
    """A client context; without a CA the system's roots are used."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None, cadata=ca_data if ca_data else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file:
        context.load_cert_chain(str(cert_file), str(key_file) if key_file else None)
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def new_session(
    *,
    timeout_s: float = 30.0,
    connections_max: int = 100,
    tls: ssl.SSLContext | None = None,
    keep_alive: bool = True,
) -> aiohttp.ClientSession:
    """A session that the caller closes. It follows no proxy environment and keeps no cookies.

    Without ``keep_alive`` every request opens a connection of its own, as many clients behind one Service would.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections_max, ssl=tls if tls is not None else True, force_close=not keep_alive
        ),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
    )


async def read_capped(response: aiohttp.ClientResponse, limit_bytes: int, what: str) -> bytes:
    """The (decompressed) body.

    Raises:
        UpstreamError: the body is larger than the limit.
    """
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(65536):
        size += len(chunk)
        if size > limit_bytes:
            response.close()
            raise UpstreamError(f"{what}: the body is larger than the limit of {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
