"""The proxy before an exporter: who may pass, and that what passes is what the exporter said."""

import asyncio
import gzip
import ssl

import pytest

from flyball.adapter.access import DelegatedAccess, FrontProxy
from flyball.adapter.rbacproxy import RbacProxy, server_tls
from flyball.http.client import new_session
from flyball.http.server import serve

PAGE = b"# TYPE up gauge\nup 1\n" * 10_000


class Reviews:
    """An API server that knows one token, and lets its user read /metrics only."""

    async def create(self, resource, body):
        spec = body["spec"]
        if resource.kind == "TokenReview":
            known = spec["token"] == "good"
            return {"status": {"authenticated": known, "user": {"username": "prometheus"} if known else {}}}
        assert spec["user"] == "prometheus"
        return {"status": {"allowed": spec["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}}}


async def exporter(scope, receive, send):
    names = {name for name, _ in scope["headers"]}
    assert b"authorization" not in names, "the token is for the proxy alone"
    packed = (b"accept-encoding", b"gzip") in scope["headers"]
    headers = [(b"content-encoding", b"gzip")] if packed else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": gzip.compress(PAGE) if packed else scope["query_string"] or PAGE})


def asked(story, **options):
    async def main():
        upstream = await serve(exporter, port=0, allowed_hosts=None)
        insecure = ssl.create_default_context()
        insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
        async with new_session(decompress=False) as session:
            access = DelegatedAccess(Reviews(), FrontProxy)
            app = RbacProxy(f"http://127.0.0.1:{upstream.port}/", access, session, **options)
            server = await serve(app, port=0, tls=server_tls(None, None, "proxy"), allowed_hosts=None)

            async def get(path, token=None, **headers):
                if token:
                    headers["authorization"] = f"Bearer {token}"
                url = f"https://127.0.0.1:{server.port}{path}"
                async with session.get(url, headers=headers, ssl=insecure) as answer:
                    return answer.status, await answer.read()

            try:
                await story(get, upstream)
            finally:
                await server.close()
                await upstream.close()

    asyncio.run(main())


def test_only_who_may_reads_the_metrics():
    async def story(get, upstream):
        assert await get("/metrics", "good") == (200, PAGE)
        assert await get("/metrics?name=a%20b", "good") == (200, b"name=a%20b")
        _, packed = await get("/metrics", "good", **{"accept-encoding": "gzip"})
        assert gzip.decompress(packed) == PAGE
        assert (await get("/metrics"))[0] == 401
        assert (await get("/metrics", "bad"))[0] == 401
        status, text = await get("/secret", "good")
        assert status == 403 and b'User "prometheus" cannot get path "/secret"' in text

    asked(story)


def test_an_exporter_that_is_down_is_told_from_one_that_refuses():
    async def story(get, upstream):
        await upstream.close()
        status, text = await get("/metrics", "good")
        assert status == 502 and b"does not answer" in text

    asked(story)


def test_open_paths_ask_nobody_and_other_paths_than_the_allowed_are_not_there():
    async def story(get, upstream):
        assert (await get("/healthz"))[0] == 200
        assert (await get("/elsewhere", "good"))[0] == 404

    asked(story, allowed=["/metrics", "/health*"], open_paths=["/health*"])


def test_files_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(OSError):
        server_tls(tmp_path / "tls.crt", tmp_path / "tls.key", "proxy")
