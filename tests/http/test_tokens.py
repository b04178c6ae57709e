"""Tokens of OAuth 2: asked for once, asked for anew when they end, by whichever way the server knows."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from flyball import clock
from flyball.errors import UpstreamError
from flyball.http.tokens import TokenSource
from flyball.model.clients import OAuth2

Steps = Callable[[str, list[tuple[str, dict[str, str]]], dict[str, Any]], Awaitable[None]]


def with_server(steps: Steps) -> None:
    """``steps(url, what was asked, how it answers)``."""

    async def go() -> None:
        asked: list[tuple[str, dict[str, str]]] = []
        answers: dict[str, Any] = {"expires_in": 60, "in_body": False}

        async def token(request: web.Request) -> web.Response:
            form = {name: str(value) for name, value in (await request.post()).items()}
            asked.append((request.headers.get("Authorization", ""), form))
            if answers["in_body"] and "client_id" not in form:
                return web.json_response({"error": "invalid_client"}, status=401)
            body = {"access_token": f"t{len(asked)}", "token_type": "bearer", "expires_in": answers["expires_in"]}
            return web.json_response(answers.get("body", body))

        app = web.Application()
        app.router.add_post("/token", token)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            await steps(f"http://127.0.0.1:{runner.addresses[0][1]}/token", asked, answers)
        finally:
            await runner.cleanup()

    asyncio.run(go())


def test_a_token_is_kept_until_it_ends_and_asked_for_once_by_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])

    async def steps(url: str, asked: list[tuple[str, dict[str, str]]], _: dict[str, Any]) -> None:
        params = (("audience", "metrics"),)
        source = TokenSource(OAuth2("me", url, "p:w", scopes=("a", "b"), endpoint_params=params))
        found = await asyncio.gather(*(source.authorization(5.0) for _ in range(3)))
        assert found == ["Bearer t1"] * 3
        header = "Basic " + base64.b64encode(b"me:p%3Aw").decode()
        assert asked == [(header, {"grant_type": "client_credentials", "audience": "metrics", "scope": "a b"})]
        now[0] += 45
        assert await source.authorization(5.0) == "Bearer t1"
        now[0] += 10  # ten seconds before its end at the latest
        assert await source.authorization(5.0) == "Bearer t2"

    with_server(steps)


def test_a_server_that_wants_the_credentials_in_the_body_gets_them_there() -> None:
    async def steps(url: str, asked: list[tuple[str, dict[str, str]]], answers: dict[str, Any]) -> None:
        answers |= {"in_body": True, "expires_in": 5}  # so that every use asks anew
        source = TokenSource(OAuth2("me", url, "pw"))
        assert await source.authorization(5.0) == "Bearer t2"
        assert asked[1] == ("", {"grant_type": "client_credentials", "client_id": "me", "client_secret": "pw"})
        assert await source.authorization(5.0) == "Bearer t3", "the way is known by now"

    with_server(steps)


def test_an_answer_without_a_token_is_an_error_that_names_the_url() -> None:
    async def steps(url: str, _: list[tuple[str, dict[str, str]]], answers: dict[str, Any]) -> None:
        answers["body"] = {"error": "no"}
        with pytest.raises(UpstreamError, match="/token gave no token: the answer has no access_token"):
            await TokenSource(OAuth2("me", url, "pw")).authorization(5.0)

    with_server(steps)
