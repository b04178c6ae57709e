"""Requests of every section are made alike: discovery over HTTP, remote write and alerts, as whom and through what."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from flyball.discovery.endpoints import HttpDiscovery
from flyball.errors import UpstreamError
from flyball.http.calling import Caller, authorization
from flyball.model.clients import Authorization, BasicAuth, HttpClientConfig, OAuth2, ProxyConfig
from flyball.model.prometheusconfig import PrometheusConfig, parse_prometheus_config
from flyball.remotewrite.sending import Sender
from flyball.rules.notifier import Alertmanager, Notifier, _Queue

Seen = list[tuple[str, str, dict[str, str]]]


def beside_a_proxy(steps: Callable[[str, Seen], Awaitable[None]]) -> None:
    """``steps(address of a proxy that answers itself, the requests it was asked: method, URL, headers)``."""

    async def go() -> None:
        seen: Seen = []

        async def answer(request: web.Request) -> web.Response:
            seen.append((request.method, str(request._message.path), dict(request.headers)))
            if request.path.endswith("/token"):
                return web.json_response({"access_token": "tok", "expires_in": 3600})
            return web.json_response([{"targets": ["a:1"]}])

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            await steps(f"127.0.0.1:{runner.addresses[0][1]}", seen)
        finally:
            await runner.cleanup()

    asyncio.run(go())


def configured(proxy: str) -> PrometheusConfig:
    proxy_url = f"http://u:p%40w@{proxy}"
    tokens = {"client_id": "me", "client_secret": "pw", "token_url": "http://tokens.invalid/token"}
    client = {
        "proxy_url": proxy_url,
        "http_headers": {"X-Tenant": {"values": ["a"]}},
        "oauth2": {**tokens, "proxy_url": proxy_url},
    }
    document = {
        "remote_write": [{"url": "http://far.invalid/write", **client}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["far.invalid:9093"]}], **client}]},
        "scrape_configs": [{"job_name": "j", "http_sd_configs": [{"url": "http://far.invalid/sd", **client}]}],
    }
    config, errors = parse_prometheus_config(document)
    assert not errors
    return config


async def _discovers(config: PrometheusConfig) -> None:
    sd, found = config.jobs[0].http_sd_configs[0], asyncio.Event()
    task = asyncio.create_task(HttpDiscovery(sd, "j").run(lambda _: found.set()))
    await asyncio.wait_for(found.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _writes(config: PrometheusConfig) -> None:
    receiver = config.remote_write[0]
    caller = Caller(receiver.http)
    async with caller.session(timeout_s=10) as session:
        assert await Sender(session, receiver, caller).send(b"") == ""


async def _alerts(config: PrometheusConfig) -> None:
    (found,) = config.alertmanagers
    queue = _Queue(Alertmanager(found.urls()[0], caller=Caller(found.http)))
    assert await queue._post([{"labels": {"alertname": "a"}}]) == ""


@pytest.mark.parametrize(
    ("acts", "asked"),
    [
        (_discovers, ("GET", "http://far.invalid/sd")),
        (_writes, ("POST", "http://far.invalid/write")),
        (_alerts, ("POST", "http://far.invalid:9093/api/v2/alerts")),
    ],
)
def test_a_section_with_tokens_goes_through_its_proxy_as_the_configuration_says(acts: Any, asked: Any) -> None:
    async def steps(proxy: str, seen: Seen) -> None:
        await acts(configured(proxy))
        (token, what) = seen
        assert token[:2] == ("POST", "http://tokens.invalid/token") and "X-Tenant" not in token[2]
        assert what[:2] == asked
        assert what[2]["Authorization"] == "Bearer tok" and what[2]["X-Tenant"] == "a"
        assert what[2]["Proxy-Authorization"] == "Basic dTpwQHc="

    beside_a_proxy(steps)


def test_a_token_is_kept_over_requests() -> None:
    async def steps(proxy: str, seen: Seen) -> None:
        caller = Caller(HttpClientConfig(oauth2=OAuth2("me", f"http://{proxy}/token", "pw")))
        for _ in range(3):
            assert (await caller.options("http://a/", 5.0))["headers"] == {"Authorization": "Bearer tok"}
        assert len(seen) == 1

    beside_a_proxy(steps)


def test_what_is_asked_directly_has_no_proxy() -> None:
    config = HttpClientConfig(proxy=ProxyConfig("http://proxy:3128", no_proxy="near"), follow_redirects=False)
    near, far = (asyncio.run(Caller(config).options(url, 5.0)) for url in ("http://near/", "http://far/"))
    assert (near["proxy"], far["proxy"]) == (None, "http://proxy:3128")
    assert near["allow_redirects"] is False


def test_secrets_are_read_for_every_request_and_their_lack_is_named(tmp_path: Path) -> None:
    file = tmp_path / "token"
    config = HttpClientConfig(Authorization(credentials_file=str(file)))
    with pytest.raises(UpstreamError, match=f"cannot read the secret {file}: No such file"):
        authorization(config)
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        assert authorization(config) == {"Authorization": f"Bearer {token}"}
    file.write_bytes(b"\xff")
    with pytest.raises(UpstreamError, match="is not text"):
        authorization(config)
    basic = HttpClientConfig(basic_auth=BasicAuth("u", password="p"))
    assert authorization(basic) == {"Authorization": "Basic dTpw"}


def test_an_alertmanager_without_a_token_is_told_nothing() -> None:
    async def steps(proxy: str, seen: Seen) -> None:
        http = HttpClientConfig(oauth2=OAuth2("me", "http://127.0.0.1:1/token", "pw"))
        notifier = Notifier()
        queue = _Queue(Alertmanager(f"http://{proxy}/api/v2/alerts", caller=Caller(http)))
        assert "127.0.0.1:1/token gave no token" in await queue._post([{}])
        assert not seen
        await notifier.close()

    beside_a_proxy(steps)
