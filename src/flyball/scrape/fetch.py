"""One HTTP fetch: headers, limits, decompression with a cap."""

import base64
import ssl
import zlib
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from flyball.errors import ScrapeError
from flyball.exposition import DEFAULT_PROTOCOLS, accept_header
from flyball.http.client import client_tls
from flyball.model.scrapeconfigs import ScrapeConfig, TLSConfig

_REDIRECTS_MAX = 10


def tls_context(tls: TLSConfig | None) -> ssl.SSLContext | None:
    """The job's verification settings as a context; None for the system's roots."""
    if tls is None:
        return None
    context = client_tls(
        ca_file=tls.ca_file or None,
        ca_data=tls.ca or None,
        cert_file=tls.cert_file or None,
        key_file=tls.key_file or None,
        insecure_skip_verify=tls.insecure_skip_verify,
    )
    if tls.min_version == "TLS13":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def request_headers(config: ScrapeConfig, timeout_ms: int, protocols: Sequence[str] = ()) -> dict[str, str]:
    """The request's headers; files with secrets are read anew.

    Raises:
        ScrapeError: a secret's file cannot be read.
    """
    headers = {
        "Accept": accept_header(protocols or config.scrape_protocols or DEFAULT_PROTOCOLS),
        "Accept-Encoding": "gzip" if config.enable_compression else "identity",
        "User-Agent": "flyball",
        "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_ms / 1000:g}",
    }
    for name, values in config.http_headers.items():
        headers[name] = ", ".join(values)
    if config.authorization is not None:
        auth = config.authorization
        secret = auth.credentials or (_secret(auth.credentials_file) if auth.credentials_file else "")
        headers["Authorization"] = f"{auth.type} {secret}"
    elif config.basic_auth is not None:
        basic = config.basic_auth
        user = _secret(basic.username_file) if basic.username_file else basic.username
        password = _secret(basic.password_file) if basic.password_file else basic.password
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return headers


def _secret(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as exc:
        raise ScrapeError(f"cannot read the secret {path}: {exc.strerror}; mend the file or its path") from exc


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    config: ScrapeConfig,
    timeout_ms: int,
    tls: ssl.SSLContext | None,
    protocols: Sequence[str] = (),
) -> tuple[bytes, str | None]:
    """(body, Content-Type). Reading stops at the limit, before and after decompression.

    Raises:
        ScrapeError: no answer in time, a status other than 200, or a body over the limit.
    """
    try:
        async with session.get(
            url,
            headers=request_headers(config, timeout_ms, protocols),
            timeout=aiohttp.ClientTimeout(total=timeout_ms / 1000),
            ssl=tls if tls is not None else True,
            server_hostname=(config.tls.server_name or None) if config.tls is not None else None,
            allow_redirects=config.follow_redirects,
            max_redirects=_REDIRECTS_MAX,
            auto_decompress=False,
        ) as response:
            if response.status != 200:
                raise ScrapeError(f"the server answered HTTP status {response.status} {response.reason or ''}".rstrip())
            body = await _read(response, config.body_size_limit_bytes)
            return body, response.headers.get("Content-Type")
    except TimeoutError:
        raise ScrapeError(f"no complete answer within {timeout_ms / 1000:g} s; raise scrape_timeout") from None
    except aiohttp.TooManyRedirects:
        raise ScrapeError(f"more than {_REDIRECTS_MAX} redirects") from None
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise ScrapeError(str(exc) or type(exc).__name__) from exc


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "").lower()
    if encoding not in ("", "identity", "gzip"):
        raise ScrapeError(f'the Content-Encoding "{encoding}" is not supported')
    inflate = zlib.decompressobj(31) if encoding == "gzip" else None
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(65536):
        if inflate is not None:
            try:
                chunk = inflate.decompress(chunk, limit + 1 - size)
            except zlib.error as exc:
                raise ScrapeError(f"the body is not gzip: {exc}") from exc
        size += len(chunk)
        if size > limit:
            response.close()
            raise ScrapeError(f"the body is larger than the limit of {limit} bytes")
        chunks.append(chunk)
    if inflate is not None and not inflate.eof:
        raise ScrapeError("the gzip body was cut short")
    return b"".join(chunks)
