"""Requests as a section of a configuration says: who asks, through which proxy, how the other side is verified."""

import base64
import os
from pathlib import Path
from typing import Any

import aiohttp

from flyball.errors import UpstreamError
from flyball.http.client import new_session, tls_context
from flyball.http.tokens import TokenSource
from flyball.model.clients import HttpClientConfig, proxy_of_url


class Caller:
    """A section's requests. A token is kept over them; files with secrets are read for every request."""

    def __init__(self, config: HttpClientConfig) -> None:
        self._config = config
        self._tokens = TokenSource(config.oauth2) if config.oauth2 is not None else None

    def session(self, *, timeout_s: float, connections_max: int = 100) -> aiohttp.ClientSession:
        """A session that the caller closes.

        Raises:
            OSError: a certificate's file cannot be read, or is none (``ssl.SSLError``).
        """
        tls = tls_context(self._config.tls) if self._config.tls is not None else None
        return new_session(timeout_s=timeout_s, connections_max=connections_max, tls=tls)

    async def options(self, url: str, timeout_s: float) -> dict[str, Any]:
        """The keyword arguments of a session's request for a URL, ``headers`` among them.

        Args:
            timeout_s: for the server that gives tokens.

        Raises:
            UpstreamError: a secret's file cannot be read, or there is no token.
        """
        config = self._config
        return {
            "headers": dict(config.headers) | await self.credentials(timeout_s),
            "allow_redirects": config.follow_redirects,
            "proxy": proxy_of_url(config.proxy, url, os.environ) or None,
            "proxy_headers": dict(config.proxy.connect_headers),
            "server_hostname": (config.tls.server_name if config.tls is not None else "") or None,
        }

    async def credentials(self, timeout_s: float) -> dict[str, str]:
        """The Authorization header, if there is one.

        Raises:
            UpstreamError: as for ``options``.
        """
        if self._tokens is not None:
            return {"Authorization": await self._tokens.authorization(timeout_s)}
        return authorization(self._config)


def authorization(config: HttpClientConfig) -> dict[str, str]:
    """The Authorization header of a section without ``oauth2``, if there is one.

    Raises:
        UpstreamError: a secret's file cannot be read.
    """
    if config.authorization is not None:
        auth = config.authorization
        return {"Authorization": f"{auth.type} {_secret(auth.credentials, auth.credentials_file)}"}
    if config.basic_auth is not None:
        basic = config.basic_auth
        user = _secret(basic.username, basic.username_file)
        return basic_authorization(user, _secret(basic.password, basic.password_file))
    return {}


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The header of HTTP basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _secret(value: str, file: str) -> str:
    if not file:
        return value
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "is not text"
        raise UpstreamError(f"cannot read the secret {file}: {why}; mend the file or its path") from exc
