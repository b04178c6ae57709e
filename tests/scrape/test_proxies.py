"""Scrapes through a proxy, plain and tunnelled, and with tokens."""

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from flyball.errors import ScrapeError
from flyball.http.client import client_tls
from flyball.http.server import ServerTLS
from flyball.http.tokens import TokenSource
from flyball.localcluster import pki
from flyball.model.clients import HttpClientConfig, OAuth2, ProxyConfig
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.scrape.fetch import Fetcher

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\na 1\n"
TOKEN = b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\nConnection: close\r\n\r\n{"access_token":"tok"}'


class Peer:
    """A server that keeps the heads of requests; a proxy where it is told a place to pass connections on to."""

    def __init__(self, answer: bytes = PAGE, tls: Any = None, onward: str = "") -> None:
        self.answer, self.tls, self.onward = answer, tls, onward
        self.heads: list[list[str]] = []

    async def __aenter__(self) -> "Peer":
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.at = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                self.heads.append(head)
                if head[0].startswith("CONNECT ") and self.onward:
                    await self.pass_on(reader, writer)
                    break
                writer.write(self.answer)
        writer.close()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.onward.partition(":")
        there, out = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, out), copy(there, writer))


def run(work: Callable[[], Awaitable[None]]) -> None:
    """On the loop that the server runs on."""

    async def main() -> None:
        await work()

    uvloop.run(main())


def config_of(proxy: ProxyConfig) -> ScrapeConfig:
    return ScrapeConfig("j", http=HttpClientConfig(proxy=proxy))


def test_of_a_plain_target_the_proxy_is_told_the_whole_url_and_who_asks() -> None:
    async def work() -> None:
        async with Peer() as proxy:
            config = config_of(ProxyConfig(f"http://u:p%40w@{proxy.at}"))
            fetcher = Fetcher("http://target.invalid:9100/metrics?x=y", config, None)
            for _ in range(2):
                assert (await fetcher.fetch(5000))[0] == b"a 1\n"
            fetcher.close()
            assert proxy.heads[0][0] == "GET http://target.invalid:9100/metrics?x=y HTTP/1.1"
            assert proxy.heads[0][1] == "Host: target.invalid:9100"
            assert f"Proxy-Authorization: Basic {base64.b64encode(b'u:p@w').decode()}" in proxy.heads[0]

    run(work)


def test_to_a_tls_target_the_proxy_passes_the_connection_on(tmp_path: Path) -> None:
    async def work() -> None:
        pki.ensure(tmp_path, 0)
        certificates = ServerTLS(tmp_path / "pki/node.crt", tmp_path / "pki/node.key")
        context = client_tls(ca_file=tmp_path / "pki/ca.crt")
        async with (
            Peer(tls=_server_context(certificates)) as target,
            Peer(onward=target.at) as proxy,
        ):
            headers = (("X-Tenant", "a"),)
            config = config_of(ProxyConfig(f"http://{proxy.at}", connect_headers=headers))
            fetcher = Fetcher(f"https://{target.at}/metrics", config, context)
            assert (await fetcher.fetch(5000))[0] == b"a 1\n"
            fetcher.close()
            assert proxy.heads[0][0] == f"CONNECT {target.at} HTTP/1.1" and "X-Tenant: a" in proxy.heads[0]
            assert target.heads[0][0] == "GET /metrics HTTP/1.1" and "X-Tenant: a" not in target.heads[0]
            await asyncio.sleep(0)

    run(work)


def _server_context(certificates: ServerTLS) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


def test_a_proxy_that_refuses_is_named() -> None:
    async def work() -> None:
        async with Peer(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
            config = config_of(ProxyConfig(f"http://{proxy.at}"))
            fetcher = Fetcher("https://target.invalid/metrics", config, client_tls())
            with pytest.raises(ScrapeError, match=f"the proxy {proxy.at} refused the connection: HTTP/1.1 403"):
                await fetcher.fetch(5000)

    run(work)


def test_a_token_signs_the_request_and_a_lack_of_one_is_the_scrapes_error() -> None:
    async def work() -> None:
        async with Peer() as target, Peer(TOKEN) as tokens:
            oauth2 = OAuth2("me", f"http://{tokens.at}/token", "pw")
            config = ScrapeConfig("j", http=HttpClientConfig(oauth2=oauth2))
            fetcher = Fetcher(f"http://{target.at}/m", config, None, TokenSource(oauth2))
            for _ in range(2):
                await fetcher.fetch(5000)
            fetcher.close()
            assert [head[-3] for head in target.heads] == ["Authorization: Bearer tok"] * 2 and len(tokens.heads) == 1
            tokens.answer = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            fetcher = Fetcher(f"http://{target.at}/m", config, None, TokenSource(oauth2))
            with pytest.raises(ScrapeError, match="gave no token: HTTP status 500"):
                await fetcher.fetch(5000)

    run(work)
