"""Tokens of OAuth 2 for client credentials (RFC 6749, section 4.4): asked for when needed, kept until they end."""

import asyncio
import base64
import json
import os
from pathlib import Path
from urllib.parse import quote_plus

import aiohttp

from flyball import clock
from flyball.errors import UpstreamError
from flyball.http.client import new_session, read_capped, tls_context
from flyball.model.clients import OAuth2, proxy_of_url

_ANSWER_MAX_BYTES = 1 << 20
_EARLY_S = 10.0  # a token is not used to its last moment


class TokenSource:
    """The token in force; those who wait for a new one share one request."""

    def __init__(self, config: OAuth2) -> None:
        self._config = config
        self._authorization, self._ends_s = "", 0.0
        self._in_body = False  # how this server takes the credentials, once it is known
        self._asking = asyncio.Lock()

    async def authorization(self, timeout_s: float) -> str:
        """The Authorization header.

        Raises:
            UpstreamError: there is no token; names the URL.
        """
        async with self._asking:
            if not self._authorization or clock.monotonic_s() >= self._ends_s - _EARLY_S:
                await self._ask(timeout_s)
        return self._authorization

    async def _ask(self, timeout_s: float) -> None:
        url = self._config.token_url
        try:
            tls = tls_context(self._config.tls) if self._config.tls is not None else None
            async with new_session(timeout_s=timeout_s, tls=tls, keep_alive=False) as session:
                status, body = await self._asked(session, in_body=self._in_body)
                if status != 200 and not self._in_body:  # not every server reads the header
                    status, body = await self._asked(session, in_body=True)
                    self._in_body = status == 200
            if status != 200:
                raise UpstreamError(f"{url} gave no token: HTTP status {status}: {body[:200].decode(errors='replace')}")
            answer = json.loads(body)
            token, lasts_s = answer["access_token"], float(answer.get("expires_in") or float("inf"))
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise UpstreamError(f"{url} gave no token: {exc or type(exc).__name__}") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UpstreamError(f"{url} gave no token: the answer has no access_token") from exc
        kind = str(answer.get("token_type") or "Bearer")
        self._authorization = f"{'Bearer' if kind.lower() == 'bearer' else kind} {token}"
        self._ends_s = clock.monotonic_s() + lasts_s

    async def _asked(self, session: aiohttp.ClientSession, *, in_body: bool) -> tuple[int, bytes]:
        config, secret = self._config, self._secret()
        form = {"grant_type": "client_credentials", **dict(config.endpoint_params)}
        if config.scopes:
            form["scope"] = " ".join(config.scopes)
        headers = {}
        if in_body:
            form |= {"client_id": config.client_id, **({"client_secret": secret} if secret else {})}
        else:
            pair = f"{quote_plus(config.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        async with session.post(
            config.token_url,
            data=form,
            headers=headers,
            proxy=proxy_of_url(config.proxy, config.token_url, os.environ) or None,
            proxy_headers=dict(config.proxy.connect_headers),
            allow_redirects=False,
        ) as answer:
            return answer.status, await read_capped(answer, _ANSWER_MAX_BYTES, config.token_url)

    def _secret(self) -> str:
        if not self._config.client_secret_file:
            return self._config.client_secret
        return Path(self._config.client_secret_file).read_text().strip()
