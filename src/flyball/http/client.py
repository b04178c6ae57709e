"""The one HTTP client: aiohttp with a connection limit, a total time-out and capped bodies."""

import json
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from flyball.errors import UpstreamError
from flyball.model.clients import TLSConfig


def client_tls(
    *,
    ca_file: str | Path | None = None,
    ca_data: str | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
    cert_data: str | None = None,
    key_data: str | None = None,
    insecure_skip_verify: bool = False,
) -> ssl.SSLContext:
    """A client context; without a CA the system's roots are used. ``*_data`` is PEM text in place of a file."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None, cadata=ca_data if ca_data else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file:
        context.load_cert_chain(str(cert_file), str(key_file) if key_file else None)
    elif cert_data:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # OpenSSL reads certificates from files alone
            file.write(f"{cert_data}\n{key_data or ''}")
            file.flush()
            context.load_cert_chain(file.name)
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_context(config: TLSConfig) -> ssl.SSLContext:
    """``tls_config`` as a context; files are read anew.

    Raises:
        OSError: a file cannot be read, or is not a certificate (``ssl.SSLError``).
    """
    context = client_tls(
        ca_file=config.ca_file or None,
        ca_data=config.ca or None,
        cert_file=config.cert_file or None,
        key_file=config.key_file or None,
        cert_data=config.cert or None,
        key_data=config.key or None,
        insecure_skip_verify=config.insecure_skip_verify,
    )
    if config.min_version == "TLS13":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if config.max_version == "TLS12":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def new_session(
    *,
    timeout_s: float = 30.0,
    connections_max: int = 100,
    tls: ssl.SSLContext | None = None,
    keep_alive: bool = True,
    decompress: bool = True,
) -> aiohttp.ClientSession:
    """A session that the caller closes. It follows no proxy environment and keeps no cookies.

    Without ``decompress`` bodies stay as they came. Without ``keep_alive`` every request opens a connection of its own,
    as many clients behind one Service would.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections_max, ssl=tls if tls is not None else True, force_close=not keep_alive
        ),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=decompress,
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


async def get_json(
    session: aiohttp.ClientSession, url: str, params: Mapping[str, str] | None = None, *, limit_bytes: int = 64 << 20
) -> Any:
    """The JSON that a GET answers.

    Raises:
        UpstreamError: no answer, a status other than 200, a body above the limit or not JSON; names the URL.
    """
    try:
        async with session.get(url, params=params) as response:
            body = await read_capped(response, limit_bytes, url)
            if response.status != 200:
                raise UpstreamError(f"{url} answered {response.status}: {body[:200].decode(errors='replace')}")
            return json.loads(body)
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise UpstreamError(f"{url}: {exc or type(exc).__name__}") from exc
