"""The connection to a target, against servers that send bytes as the test says: good, odd, hostile."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
import zstandard

from flyball.errors import ScrapeError
from flyball.model.clients import Authorization, HttpClientConfig
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.scrape.connection import _Protocol, place_of
from flyball.scrape.fetch import Fetcher

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
Speak = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Target:
    """Answers each request with ``speak(request, writer)``."""

    def __init__(self, speak: Speak) -> None:
        self.speak = speak
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> "Target":
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/metrics"
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(request)
                await self.speak(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def run(work: Awaitable[Any]) -> Any:
    """On the loop that the server runs on; test_scraping runs on the other one."""

    async def main() -> Any:
        return await work

    return uvloop.run(main())


def fetched(answer: bytes, times: int = 1, **settings: Any) -> tuple[list[Any], Target]:
    """What so many fetches of a target that always sends ``answer`` give."""

    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async def go() -> tuple[list[Any], Target]:
        async with Target(speak) as target:
            fetcher = Fetcher(target.url, ScrapeConfig("j", **settings), None)
            found: list[Any] = []
            for _ in range(times):
                try:
                    found.append(await fetcher.fetch(5000))
                except ScrapeError as exc:
                    found.append(str(exc))
            fetcher.close()
            return found, target

    return run(go())


def sized(body: bytes, *headers: bytes) -> bytes:
    return OK + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*chunks: bytes) -> bytes:
    parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


@pytest.mark.parametrize("answer", [sized(b"a 1\n"), chunked(b"a ", b"1\n")], ids=["sized", "chunked"])
def test_one_connection_serves_many_scrapes(answer: bytes) -> None:
    found, target = fetched(answer, times=3)
    assert found == [(b"a 1\n", "text/plain")] * 3
    assert target.connections == 1
    assert target.requests[0].startswith(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(gzip.compress(b"a 1\n"), b"gzip"), (zstandard.compress(b"a 1\n"), b"zstd")],
    ids=["gzip", "zstd"],
)
def test_compressed(body: bytes, encoding: bytes) -> None:
    assert fetched(sized(body, b"Content-Encoding: " + encoding))[0] == [(b"a 1\n", "text/plain")]


def test_a_target_that_closes_each_connection() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\na 1\n")  # neither length nor chunks: the end of the connection is the end
        await writer.drain()
        writer.close()

    async def go() -> None:
        async with Target(speak) as target:
            fetcher = Fetcher(target.url, ScrapeConfig("j"), None)
            assert [await fetcher.fetch(5000) for _ in range(2)] == [(b"a 1\n", "text/plain")] * 2

    run(go())


def test_a_kept_connection_that_the_target_has_left() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sized(b"a 1\n"))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()  # after the answer, as a server does that is idle for too long

    async def go() -> None:
        async with Target(speak) as target:
            fetcher = Fetcher(target.url, ScrapeConfig("j"), None)
            for _ in range(3):
                assert (await fetcher.fetch(5000))[0] == b"a 1\n"
                await asyncio.sleep(0.03)
            fetcher.close()

    run(go())


def test_redirects_carry_no_credentials_elsewhere() -> None:
    async def go() -> None:
        async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(sized(b"a 1\n"))

        async with Target(answer) as far:

            async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
                to = b"/here" if request.startswith(b"GET /metrics") else far.url.encode()
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % to)

            http = HttpClientConfig(Authorization(credentials="s3cret"), headers=(("X-A", "k3y"),))
            config = ScrapeConfig("j", http=http)
            async with Target(speak) as near:
                fetcher = Fetcher(near.url, config, None)
                assert (await fetcher.fetch(5000))[0] == b"a 1\n"
                assert all(b"s3cret" in request and b"k3y" in request for request in near.requests)
                assert near.requests[1].startswith(b"GET /here")
                assert b"s3cret" not in far.requests[0] and b"k3y" not in far.requests[0]
                fetcher.close()

            async def loop(_: bytes, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n")

            async with Target(loop) as near:
                with pytest.raises(ScrapeError, match="10 redirects"):
                    await Fetcher(near.url, config, None).fetch(5000)
                with pytest.raises(ScrapeError, match="302"):
                    await Fetcher(
                        near.url, ScrapeConfig("j", http=HttpClientConfig(follow_redirects=False)), None
                    ).fetch(5000)

    run(go())


BOMB = gzip.compress(bytes(50_000_000))
ZSTD_BOMB = zstandard.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OK + b"Content-Length: 1073741824\r\n\r\n", "larger than the limit of 1000 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n%s\r\n" % bytes(1024), "larger than the limit"),
        (sized(BOMB, b"Content-Encoding: gzip"), "larger than the limit"),
        (sized(gzip.compress(bytes(2000)), b"Content-Encoding: gzip"), "larger than the limit"),
        (sized(zstandard.compress(bytes(2000)), b"Content-Encoding: zstd"), "larger than the limit"),
        (sized(zstandard.compress(bytes(200))[:-4], b"Content-Encoding: zstd"), "cut short"),
        (sized(gzip.compress(b"a 1\n")[:-4], b"Content-Encoding: gzip"), "cut short"),
        (sized(b"a 1\n" * 9, b"Content-Encoding: gzip"), "not gzip"),
        (sized(b"a 1\n", b"Content-Encoding: zstd"), "not zstd"),
        (sized(zlib.compress(b"a"), b"Content-Encoding: deflate"), '"deflate" is not supported'),
        (sized(b"x", b"Content-Encoding: gzip, gzip"), "not supported"),
        (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n", "headers are larger"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "HTTP status 503 Busy"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "101"),
    ],
)
def test_what_is_refused(answer: bytes, said: str) -> None:
    found, _ = fetched(answer, times=2, body_size_limit_bytes=1000)
    assert all(isinstance(text, str) and said in text for text in found), found


@pytest.mark.parametrize(("packed", "encoding"), [(BOMB, b"gzip"), (ZSTD_BOMB, b"zstd")])
def test_a_bomb_takes_no_more_memory_than_the_limit(packed: bytes, encoding: bytes) -> None:
    answer = sized(packed, b"Content-Encoding: " + encoding)
    tracemalloc.start()
    try:
        found, _ = fetched(answer, body_size_limit_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "larger than the limit" in found[0]
    assert peak < 12_000_000


def test_a_slow_target_is_cut_off_and_later_bytes_are_nobodys() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 4\r\n\r\n")
        for byte in b"a 1\n":
            await asyncio.sleep(0.02)
            writer.write(bytes([byte]))
            await writer.drain()

    async def go() -> None:
        async with Target(speak) as target:
            fetcher = Fetcher(target.url, ScrapeConfig("j"), None)
            with pytest.raises(ScrapeError, match=r"within 0\.03 s"):
                await fetcher.fetch(30)
            assert (await fetcher.fetch(5000))[0] == b"a 1\n"
            assert target.connections == 2
            fetcher.close()

    run(go())


def test_nobody_listens() -> None:
    with pytest.raises(ScrapeError, match=r"(?i)refused|connect"):
        run(Fetcher("http://127.0.0.1:1/metrics", ScrapeConfig("j"), None).fetch(5000))


def test_urls() -> None:
    place = place_of("https://user:pw@[::1]:8443/a/b?c=d")
    assert (place.host, place.port, place.authority, place.path) == ("::1", 8443, "[::1]:8443", "/a/b?c=d")
    assert place_of("http://h").path == "/" and place_of("http://h").port == 80
    for url in ("ftp://x", "http://", "http://h:99999/", "http://h/a b", "http://h/\r\nX: y"):
        with pytest.raises(ScrapeError):
            place_of(url)
    with pytest.raises(ScrapeError, match="line break"):
        run(
            Fetcher(
                "http://127.0.0.1:1/", ScrapeConfig("j", http=HttpClientConfig(headers=(("A", "b\r\nC: d"),))), None
            ).fetch(100)
        )


def test_an_answer_that_was_there_in_time_counts_though_it_is_read_late() -> None:
    class Wire:
        def write(self, data: bytes) -> None:
            pass

        def abort(self) -> None:
            pass

    def sent() -> tuple[_Protocol, asyncio.Future]:
        protocol = _Protocol()
        protocol.connection_made(Wire())
        return protocol, protocol.send(b"GET / HTTP/1.1\r\n\r\n", 100)

    async def go() -> None:
        protocol, late = sent()
        protocol.expire()  # the loop looks at its timers before it looks at its sockets
        protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert (await late).body == b"ok"
        again = protocol.send(b"GET / HTTP/1.1\r\n\r\n", 100)  # which the time-out of the first must not end
        other, never = sent()
        other.expire()
        with pytest.raises(TimeoutError):
            await never
        assert other.closed
        assert not protocol.closed
        assert not again.done()

    asyncio.run(go())
