"""One target's pages: headers, credentials, redirects, time-out."""

import asyncio
import base64
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from functools import cache
from urllib.parse import unquote, urljoin, urlsplit

from flyball.errors import ScrapeError, UpstreamError
from flyball.exposition import DEFAULT_PROTOCOLS, NATIVE_PROTOCOLS, accept_header
from flyball.http.calling import authorization
from flyball.http.client import client_tls
from flyball.http.tokens import TokenSource
from flyball.model.clients import proxy_of
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.scrape.connection import Answer, Connection, Place, Tunnel, place_of, write_connect, write_request

_REDIRECTS_MAX = 10
_REDIRECTS = (301, 302, 303, 307, 308)


@cache
def _system_tls() -> ssl.SSLContext:
    return client_tls()


def _default_protocols(config: ScrapeConfig) -> Sequence[str]:
    return NATIVE_PROTOCOLS if config.scrape_native_histograms else DEFAULT_PROTOCOLS


def request_headers(config: ScrapeConfig, timeout_ms: int, protocols: Sequence[str] = ()) -> dict[str, str]:
    """The request's headers without credentials."""
    headers = {
        "Accept": accept_header(protocols or config.scrape_protocols or _default_protocols(config)),
        "Accept-Encoding": "gzip" if config.enable_compression else "identity",
        "User-Agent": "flyball",
        "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_ms / 1000:g}",
    }
    return headers | dict(config.http.headers)


def proxy_authorization(url: str) -> dict[str, str]:
    """The header for a proxy whose URL has a user."""
    parts = urlsplit(url)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 2852039166 and 0xa9fea9fe are addresses too
        except OSError:
            return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_link_local


class Fetcher:
    """Fetches one URL again and again over a kept-alive connection.

    Args:
        tls: the job's context; None for the system's roots.
        tokens: the job's, for ``oauth2``.
    """

    def __init__(
        self, url: str, config: ScrapeConfig, tls: ssl.SSLContext | None, tokens: TokenSource | None = None
    ) -> None:
        self._url, self._config, self._tls, self._tokens = url, config, tls, tokens
        self._place: Place | None = None
        self._connection: Connection | None = None
        self._origin: tuple[str, str, int] | None = None
        self._requests: dict[tuple[int, Sequence[str]], bytes] = {}

    async def fetch(self, timeout_ms: int, protocols: Sequence[str] = ()) -> tuple[bytes, str | None]:
        """(body, Content-Type). Reading stops at the limit, before and after decompression.

        Raises:
            ScrapeError: no answer in time, a status other than 200, or a body over the limit.
        """
        try:
            answer = await self._answer(timeout_ms, tuple(protocols))
        except TimeoutError:
            raise ScrapeError(f"no complete answer within {timeout_ms / 1000:g} s; raise scrape_timeout") from None
        except ssl.SSLError as exc:
            raise ScrapeError(f"TLS: {exc.reason or exc}; mend tls_config or the target's certificate") from exc
        except OSError as exc:
            raise ScrapeError(str(exc) or type(exc).__name__) from exc
        except UpstreamError as exc:
            if isinstance(exc, ScrapeError):
                raise
            raise ScrapeError(str(exc)) from exc  # of a secret, or of the server that gives tokens
        if answer.status != 200:
            raise ScrapeError(f"the server answered HTTP status {answer.status} {answer.reason}".rstrip())
        return answer.body, answer.headers.get("content-type")

    async def _answer(self, timeout_ms: int, protocols: Sequence[str]) -> Answer:
        config = self._config
        deadline_s = asyncio.get_running_loop().time() + timeout_ms / 1000
        if self._place is None:
            self._place = place_of(self._url)
        place = first = self._place
        token = await self._tokens.authorization(timeout_ms / 1000) if self._tokens is not None else ""
        for _ in range(_REDIRECTS_MAX + 1):
            request = self._request(place, first, timeout_ms, protocols, token)
            answer = await self._connected(place).get(request, config.body_size_limit_bytes, deadline_s)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location or not config.http.follow_redirects:
                return answer
            place = place_of(urljoin(f"{place.scheme}://{place.authority}{place.path}", location))
            if _is_link_local(place.host):
                raise ScrapeError(
                    f"a redirect to {place.host}: a link-local address, such as cloud metadata, is refused"
                )
        raise ScrapeError(f"more than {_REDIRECTS_MAX} redirects")

    def _request(self, place: Place, first: Place, timeout_ms: int, protocols: Sequence[str], token: str) -> bytes:
        known = self._requests.get((timeout_ms, protocols)) if place is first else None
        if known is not None:
            return known
        headers = request_headers(self._config, timeout_ms, protocols)
        proxy = self._proxy_for(place) if place.scheme == "http" else ""
        whole = bool(proxy)
        if proxy:
            headers |= proxy_authorization(proxy)
        if place.origin != first.origin:  # no credentials for anyone else
            own = {name for name, _ in self._config.http.headers}
            kept = {name: value for name, value in headers.items() if name not in own}
            return write_request(place, kept, whole=whole)
        credentials = {"Authorization": token} if token else authorization(self._config.http)
        request = write_request(place, headers | credentials, whole=whole)
        if place is first and not credentials:  # those may change in their files
            self._requests[timeout_ms, protocols] = request
        return request

    def _connected(self, place: Place) -> Connection:
        if self._connection is None or self._origin != place.origin:
            self.close()
            tls = None
            if place.scheme == "https":
                tls = self._tls if self._tls is not None else _system_tls()
            server_name = self._config.http.tls.server_name if self._config.http.tls is not None else ""
            proxy = self._proxy_for(place)
            if proxy:
                self._connection = self._through(proxy, place, tls, server_name)
            else:
                self._connection = Connection(place.host, place.port, tls, server_name)
            self._origin = place.origin
        return self._connection

    def _proxy_for(self, place: Place) -> str:
        return proxy_of(self._config.http.proxy, place.scheme, place.host, place.port, os.environ)

    def _through(self, proxy: str, place: Place, tls: ssl.SSLContext | None, server_name: str) -> Connection:
        """To what speaks TLS the proxy passes the connection on; of the rest it fetches pages itself."""
        at = urlsplit(proxy)
        host, port = at.hostname or "", at.port or 80
        if tls is None:
            return Connection(host, port, None)
        headers = {"User-Agent": "flyball", **proxy_authorization(proxy)}
        headers |= dict(self._config.http.proxy.connect_headers)
        return Connection(place.host, place.port, tls, server_name, Tunnel(host, port, write_connect(place, headers)))

    def close(self) -> None:
        """Closes the connection; the next fetch opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
