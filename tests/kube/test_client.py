"""The client against a server that answers as told."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from flyball.errors import ConfigError, KubeApiError, UpstreamError
from flyball.kube import Access, EventRecorder, KubeClient
from flyball.kube.auth import TokenFileCredentials
from flyball.kube.kinds import DEPLOYMENTS, EVENTS, KNOWN, NODES, PODS, resource_of


@asynccontextmanager
async def serving(handler, **access):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with KubeClient(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", **access)) as client:
        yield client
    await runner.cleanup()


def test_paths_of_core_grouped_and_cluster_scoped_resources():
    assert PODS.path() == "/api/v1/pods"
    assert DEPLOYMENTS.path("shop", "web", "scale") == "/apis/apps/v1/namespaces/shop/deployments/web/scale"
    assert NODES.path("ignored", "flyball") == "/api/v1/nodes/flyball"
    assert resource_of("apps/v1", "Deployment") is DEPLOYMENTS
    assert len(KNOWN) > 40


def test_a_401_is_answered_with_a_fresh_credential_once(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("old")
    seen = []

    async def handler(request):
        seen.append(request.headers["Authorization"])
        token.write_text("new")
        if seen[-1] != "Bearer new":
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        return web.json_response({"kind": "Pod", "metadata": {"name": "a"}})

    async def main():
        async with serving(handler, credentials=TokenFileCredentials(token)) as client:
            await client.get(PODS, "a")
            assert client.statistics()["reauthentications"] == 1

    asyncio.run(main())
    assert seen == ["Bearer old", "Bearer new"]


def test_a_401_that_stays_names_the_credentials():
    async def handler(request):
        return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)

    async def main():
        async with serving(handler, origin="kubeconfig x") as client:
            with pytest.raises(KubeApiError, match="does not accept kubeconfig x") as caught:
                await client.get(PODS, "a")
            assert (caught.value.code, caught.value.reason) == (401, "Unauthorized")
            assert client.statistics()["requests"] == 2

    asyncio.run(main())


def test_failures_carry_their_status_and_plain_text_its_meaning():
    async def handler(request):
        if request.path.endswith("/json"):
            status = {"kind": "Status", "reason": "Conflict", "message": "modified", "details": {"name": "json"}}
            return web.json_response(status, status=409)
        return web.Response(text="upstream is\n away", status=503, headers={"Retry-After": "7"})

    async def main():
        async with serving(handler) as client:
            with pytest.raises(KubeApiError) as caught:
                await client.get(PODS, "json")
            error = caught.value
            assert (error.code, error.reason, error.message, error.details) == (
                409,
                "Conflict",
                "modified",
                {"name": "json"},
            )
            with pytest.raises(KubeApiError, match="upstream is away") as caught:
                await client.get(PODS, "text")
            assert (caught.value.reason, caught.value.retry_after_s) == ("ServiceUnavailable", 7.0)

    asyncio.run(main())


def test_a_server_that_is_not_there_is_named_with_the_remedy():
    async def main():
        async with KubeClient(Access("http://127.0.0.1:1")) as client:
            with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:1/api/v1/pods.*check that the server"):
                await client.list(PODS)

    asyncio.run(main())


def test_an_object_without_a_name_never_reaches_the_collection():
    async def main():
        async with KubeClient(Access("http://127.0.0.1:1")) as client:
            with pytest.raises(ConfigError, match="no name"):
                await client.delete(PODS, "")

    asyncio.run(main())


def test_selectors_and_metric_paths_arrive_as_written():
    seen = []

    async def handler(request):
        seen.append((request.raw_path.split("?")[0], dict(request.query)))
        return web.json_response({"items": None, "metadata": {}})

    async def main():
        async with serving(handler) as client:
            assert await client.list(PODS, "shop", "a in (x,y),b!=c&d", "status.phase=Running") == []
            await client.raw_get("/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/requests")

    asyncio.run(main())
    assert seen[0] == (
        "/api/v1/namespaces/shop/pods",
        {"labelSelector": "a in (x,y),b!=c&d", "fieldSelector": "status.phase=Running", "limit": "500"},
    )
    assert seen[1][0] == "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/requests"


def test_repeated_events_are_counted_and_a_lost_one_does_not_raise():
    requests = []

    async def handler(request):
        requests.append((request.method, await request.json()))
        return web.json_response({}, status=500 if len(requests) > 2 else 201)

    async def main():
        async with serving(handler) as client:
            recorder = EventRecorder(client, "tester")
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "shop", "uid": "u"}}
            await recorder.event(pod, "Normal", "Did", "it")
            await recorder.event(pod, "Normal", "Did", "it")
            await recorder.event(pod, "Normal", "Did", "another")
            assert recorder.statistics()["events_lost"] == 1

    asyncio.run(main())
    assert [method for method, _ in requests] == ["POST", "PATCH", "POST"]
    assert requests[0][1]["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "a",
        "uid": "u",
    }
    assert requests[1][1]["count"] == 2
    assert EVENTS.plural == "events"
