"""Asking Prometheus servers over a socket: sharing, credentials, refusals, failover and shards."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from flyball.errors import ConfigError, QueryError, UpstreamError
from flyball.http.server import ServerTLS, serve
from flyball.localcluster import pki
from flyball.metricrules import SourceConfig
from flyball.metricrules.sourceconfig import parse_source
from flyball.sources import FailoverSource, HttpSource, MergedSource, SourceSet, source_of

AT_MS = 1_700_000_000_000


def vector(*pairs: tuple[dict[str, str], float | str]) -> bytes:
    result = [{"metric": labels, "value": [AT_MS / 1000, str(value)]} for labels, value in pairs]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


class Server:
    """Answers every request with ``status`` and ``body``, after ``wait``; remembers what was asked."""

    def __init__(self, body: bytes = vector(({}, 1)), status: int = 200) -> None:
        self.body, self.status = body, status
        self.headers: list[tuple[bytes, bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.gate: asyncio.Event | None = None
        self.port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        form = parse_qs((scope["query_string"] + b"&" + body).decode())
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.asked.append({"method": scope["method"], "path": scope["path"], "form": form, "headers": headers})
        if self.gate is not None:
            await self.gate.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serving(*servers: Server, tls: ServerTLS | None = None) -> AsyncIterator[None]:
    running = []
    for server in servers:
        running.append(await serve(server, port=0, name="test", tls=tls))
        server.port = running[-1].port
    try:
        yield
    finally:
        for one in running:
            await one.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))  # type: ignore[arg-type]


def test_equal_queries_share_a_request_and_its_answer_for_a_moment() -> None:
    async def work() -> None:
        server = Server()
        async with serving(server):
            source = HttpSource(server.url, cache_ms=500)
            server.gate = asyncio.Event()
            both = asyncio.gather(source.query("up", AT_MS), source.query("up", AT_MS + 100))
            while not server.asked:
                await asyncio.sleep(0.005)
            server.gate.set()
            assert [[sample.value for sample in answer] for answer in await both] == [[1.0], [1.0]]
            await source.query("up", AT_MS + 400)
            assert len(server.asked) == 1
            await source.query("up", AT_MS + 900)
            await source.query("down", AT_MS)
            assert len(server.asked) == 3
            await source.close()

    run(work)


def test_the_caller_that_leaves_does_not_take_the_query_along() -> None:
    async def work() -> None:
        server = Server()
        server.gate = asyncio.Event()
        async with serving(server):
            source = HttpSource(server.url)
            first = asyncio.create_task(source.query("up", AT_MS))
            while not server.asked:
                await asyncio.sleep(0.005)
            second = asyncio.create_task(source.query("up", AT_MS))
            await asyncio.sleep(0)
            first.cancel()
            server.gate.set()
            assert [sample.value for sample in await second] == [1.0]
            assert len(server.asked) == 1
            await source.close()

    run(work)


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_verb_headers_and_exact_text(verb: Any) -> None:
    async def work() -> None:
        server = Server()
        async with serving(server):
            source = HttpSource(server.url + "/prefix/", headers={"X-Scope-OrgID": "team"}, verb=verb)
            expr = 'sum(a{b=~"x|y+ %&ü"})'
            await source.query(expr, AT_MS + 123)
            (asked,) = server.asked
            assert (asked["method"], asked["path"]) == (verb, "/prefix/api/v1/query")
            assert asked["form"]["query"] == [expr] and asked["form"]["time"] == ["1700000000.123"]
            assert asked["headers"]["x-scope-orgid"] == "team"
            await source.close()

    run(work)


def test_credentials_are_read_again_at_every_request(tmp_path: Path) -> None:
    async def work() -> None:
        server = Server()
        token, password = tmp_path / "token", tmp_path / "password"
        token.write_text("one\n")
        password.write_text("secret\n")
        async with serving(server):
            bearer = HttpSource(server.url, bearer_file=str(token), cache_ms=0)
            await bearer.query("a", AT_MS)
            token.write_text("two\n")
            await bearer.query("b", AT_MS)
            basic = HttpSource(server.url, basic_file=("me", str(password)))
            await basic.query("c", AT_MS)
            given = [asked["headers"]["authorization"] for asked in server.asked]
            assert given == ["Bearer one", "Bearer two", "Basic bWU6c2VjcmV0"]
            token.unlink()
            with pytest.raises(UpstreamError, match="credential cannot be read"):
                await bearer.query("d", AT_MS)
            await bearer.close()
            await basic.close()

    run(work)


def test_sigv4_signs_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore", reason="the extra aws is not installed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")

    async def work() -> None:
        server = Server()
        async with serving(server):
            source = source_of(SourceConfig("aws", (server.url,), sigv4=("eu-central-1", "aps")))
            await source.query("up", AT_MS)
            headers = server.asked[0]["headers"]
            assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
            assert "/eu-central-1/aps/aws4_request" in headers["authorization"] and headers["x-amz-date"]
            assert server.asked[0]["form"]["query"] == ["up"]
            await source.close()  # type: ignore[attr-defined]

    run(work)


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "says"),
    [
        (400, b'{"status":"error","errorType":"bad_data","error":"parse"}', [], QueryError, "refused.*parse"),
        (422, b'{"status":"error","errorType":"execution","error":"dup"}', [], QueryError, "refused.*dup"),
        (401, b"", [], UpstreamError, "credentials"),
        (302, b"", [(b"location", b"http://127.0.0.1:1/")], UpstreamError, "redirect, which is not followed"),
        (404, b"nope", [], UpstreamError, "no Prometheus API"),
        (414, b"too long", [], UpstreamError, "HTTP 414.*too long"),
        (503, b"", [], UpstreamError, "HTTP 503"),
        (200, b"<html>", [], UpstreamError, "not a Prometheus API"),
        (200, b'{"status":"error","error":"x"}', [], UpstreamError, "not a Prometheus API"),
        (200, vector(({}, 1))[:-9], [], UpstreamError, "not a Prometheus API"),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}', [], QueryError, "gives a matrix"),
        (200, vector(({}, "one")), [], UpstreamError, "not a Prometheus API"),
    ],
)
def test_refusals_name_the_server_and_the_remedy(
    status: int, body: bytes, headers: Any, kind: type[Exception], says: str
) -> None:
    async def work() -> None:
        server = Server(body, status)
        server.headers = headers
        async with serving(server):
            source = HttpSource(server.url)
            with pytest.raises(kind, match=says):
                await source.query("up", AT_MS)
            assert source.statistics()["cache_entries"] == 0 or status == 200
            await source.close()

    run(work)


def test_a_body_over_the_limit_and_a_server_that_hangs() -> None:
    async def work() -> None:
        server = Server(vector(*(({"i": str(i)}, i) for i in range(1000))))
        async with serving(server):
            source = HttpSource(server.url, body_limit_bytes=1000)
            with pytest.raises(UpstreamError, match="larger than the limit"):
                await source.query("up", AT_MS)
            await source.close()
            server.gate = asyncio.Event()
            slow = HttpSource(server.url, timeout_s=0.1)
            with pytest.raises(UpstreamError, match="no answer to query up"):
                await slow.query("up", AT_MS)
            server.gate.set()
            await slow.close()
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await HttpSource(server.url).query("up", AT_MS)

    run(work)


def test_failover_asks_the_next_and_rests_the_one_that_failed() -> None:
    async def work() -> None:
        bad, good = Server(status=503), Server(vector(({"from": "good"}, 2)))
        async with serving(bad, good):
            source = FailoverSource([HttpSource(bad.url, cache_ms=0), HttpSource(good.url, cache_ms=0)])
            for index in range(3):
                assert [s.value for s in await source.query(f"up{index}", AT_MS)] == [2.0]
            assert (len(bad.asked), len(good.asked), source.failovers) == (1, 3, 1)
            good.status = 503
            with pytest.raises(UpstreamError, match=r"no server of the source answers.*503.*503"):
                await source.query("all", AT_MS)
            good.status, good.body = 400, b'{"status":"error","errorType":"bad_data","error":"parse"}'
            before = len(bad.asked)
            with pytest.raises(QueryError):
                await source.query("wrong", AT_MS)
            assert len(bad.asked) <= before + 1  # a wrong query is wrong everywhere
            await source.close()

    run(work)


def test_shards_are_joined_and_a_part_never_passes_for_the_whole() -> None:
    async def work() -> None:
        one = Server(vector(({"pod": "a"}, 1), ({"pod": "both"}, 5)))
        two = Server(vector(({"pod": "b"}, 2), ({"pod": "both"}, 5)))
        async with serving(one, two):
            source = MergedSource([HttpSource(one.url, cache_ms=0), HttpSource(two.url, cache_ms=0)])
            found = {dict(sample.labels)["pod"]: sample.value for sample in await source.query("up", AT_MS)}
            assert found == {"a": 1.0, "b": 2.0, "both": 5.0}
            two.body = vector(({"pod": "both"}, 6))
            with pytest.raises(UpstreamError, match="two shards of the source give different values"):
                await source.query("up2", AT_MS)
            two.status = 503
            with pytest.raises(UpstreamError, match="503"):
                await source.query("up3", AT_MS)
            await source.close()

    run(work)


def test_mutual_tls(tmp_path: Path) -> None:
    pki.ensure(tmp_path, 0)
    folder = tmp_path / "pki"

    async def work() -> None:
        server = Server()
        tls = ServerTLS(folder / "adapter.crt", folder / "adapter.key", folder / "front-proxy-ca.crt")
        async with serving(server, tls=tls):
            pair = {
                "cert_file": str(folder / "front-proxy-client.crt"),
                "key_file": str(folder / "front-proxy-client.key"),
            }
            url = server.url.replace("http://", "https://")
            source = source_of(SourceConfig("tls", (url,), ca_file=str(folder / "ca.crt"), **pair))
            assert [sample.value for sample in await source.query("up", AT_MS)] == [1.0]
            await source.close()  # type: ignore[attr-defined]
            stranger = source_of(SourceConfig("tls", (url,), ca_file=str(folder / "front-proxy-ca.crt")))
            with pytest.raises(UpstreamError, match="cannot be reached"):
                await stranger.query("up", AT_MS)
            await stranger.close()  # type: ignore[attr-defined]

    run(work)


def test_a_set_keeps_what_did_not_change() -> None:
    async def work() -> None:
        default = HttpSource("http://127.0.0.1:1")
        sources = SourceSet(default)
        one, two = SourceConfig("one", ("http://127.0.0.1:2",)), SourceConfig("two", ("http://127.0.0.1:3",))
        sources.apply([one, two])
        kept = sources.get("one")
        sources.apply([one, SourceConfig("two", ("http://127.0.0.1:4",))])
        assert sources.get("one") is kept and sources.get("") is default
        with pytest.raises(ConfigError, match=r'"three" is not in sources \(known: one, two\)'):
            sources.get("three")
        await sources.close()

    run(work)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"url": "http://a"}, "name: is missing"),
        ({"name": "a"}, "url: give one"),
        ({"name": "a", "url": "ftp://a"}, "is not the URL"),
        ({"name": "a", "url": "http://me:secret@a"}, "is not the URL"),
        ({"name": "a", "url": "http://a", "mode": "any"}, "failover or merge"),
        ({"name": "a", "url": "http://a", "nope": 1}, 'unknown field "nope"'),
        ({"name": "a", "url": "http://a", "headers": {"x": "a\nb"}}, "headers.x"),
        ({"name": "a", "url": "http://a", "sigv4": {}}, "region: is missing"),
        ({"name": "a", "url": "http://a", "sigv4": {"region": "x"}, "bearerTokenFile": "/t"}, "give one of"),
        ({"name": "a", "url": "http://a", "basicAuth": {"username": "x"}}, "username and passwordFile"),
    ],
)
def test_a_wrong_entry_names_its_field(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_source(entry, "config: sources[0]")
