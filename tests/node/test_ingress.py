"""Routing by host and path, and requests through the proxy to real servers."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from flyball.localcluster.node.ingress import IngressProxy
from flyball.localcluster.node.ingressrules import Backend, is_ours, route, routes_of
from flyball.localcluster.node.serviceproxy import ServiceProxy


def ingress(*rules, name="i", default=None, **spec):
    def backend(service):
        return {"service": {"name": service, "port": {"number": 80}}}

    hosts = {}
    for host, path, kind, service in rules:
        hosts.setdefault(host, []).append({"path": path, "pathType": kind, "backend": backend(service)})
    made = [{**({"host": host} if host else {}), "http": {"paths": paths}} for host, paths in hosts.items()]
    if default:
        spec["defaultBackend"] = backend(default)
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"rules": made, **spec}}


ROUTES = routes_of(
    [
        ingress(
            ("shop.example", "/", "Prefix", "shop"),
            ("shop.example", "/api", "Prefix", "api"),
            ("shop.example", "/api/health", "Exact", "health"),
            ("*.example", "/", "Prefix", "wild"),
            ("", "/any", "ImplementationSpecific", "any"),
            default="fallback",
        )
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "service"),
    [
        ("shop.example", "/", "shop"),
        ("SHOP.example:30080", "/cart", "shop"),
        ("shop.example", "/api", "api"),
        ("shop.example", "/api/", "api"),
        ("shop.example", "/apis", "shop"),  # a prefix ends at a slash
        ("shop.example", "/api/health", "health"),
        ("shop.example", "/api/health/", "api"),  # Exact means exact
        ("other.example", "/x", "wild"),
        ("a.b.example", "/any", "any"),  # a wildcard stands for one label
        ("elsewhere", "/any/thing", "any"),
        ("elsewhere", "/nothing", "fallback"),
        ("a.b.example", "/x", "fallback"),
    ],
)
def test_the_closest_host_then_the_closest_path(host, path, service):
    assert route(ROUTES, host, path) == Backend("default", service, 80)


def test_nothing_fits_without_a_default():
    assert route(routes_of([ingress(("a", "/", "Prefix", "x"))]), "b", "/") is None


def test_an_ingress_of_another_controllers_class_is_left_alone():
    nginx = {"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}}
    ours = {
        "metadata": {"name": "flyball", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "flyball.dev/ingress"},
    }
    classes = {"nginx": nginx, "flyball": ours}
    assert not is_ours(ingress(ingressClassName="nginx"), classes)
    assert is_ours(ingress(ingressClassName="nginx"), {"flyball": ours})  # nobody else would serve it
    assert is_ours(ingress(ingressClassName="flyball"), classes)
    assert is_ours(ingress(), classes)


async def application(name):
    """A server that says what it was asked; returns its port and how to end it."""

    async def answer(request):
        body = await request.text()
        return web.json_response(
            {"me": name, "path": request.raw_path, "body": body, **{k.lower(): v for k, v in request.headers.items()}}
        )

    async def echo(request):
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{name} {message.data}")
        return socket

    app = web.Application()
    app.router.add_get("/ws", echo)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return site._server.sockets[0].getsockname()[1], runner


class Client:
    def __init__(self):
        self.statuses = {}

    async def create(self, *args, **kwargs):
        return {}

    async def patch(self, resource, name, body, namespace=None, subresource=None):
        self.statuses[name] = body["status"]
        return {}


class Recorder:
    async def event(self, *args):
        pass


def service(name):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}


def endpoints(name, *ports):
    return [
        {
            "metadata": {
                "name": f"{name}-{port}",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }
        for port in ports
    ]


def test_requests_bodies_and_websockets_reach_the_service(monkeypatch):
    monkeypatch.setattr("flyball.localcluster.node.ingress.HTTP_PORT", 0)

    async def main():
        client = Client()
        services = ServiceProxy(client, Recorder())
        proxy = IngressProxy(client, Recorder(), services)
        port, runner = await application("one")
        for name in ("web", "empty", "gone"):
            services.observe_service("ADDED", service(name))
        closed, closing = await application("closed")
        await closing.cleanup()
        # One pod of two has just died: its connections are refused, and nobody notices.
        for one in [*endpoints("web", port, closed), *endpoints("gone", closed)]:
            services.observe_slice("ADDED", one)
        running = asyncio.create_task(proxy.run())
        proxy.observe_ingress(
            "ADDED",
            ingress(
                ("web.example", "/", "Prefix", "web"),
                ("web.example", "/empty", "Prefix", "empty"),
                ("web.example", "/gone", "Prefix", "gone"),
            ),
        )
        async with asyncio.timeout(10):
            while "i" not in client.statuses:
                await asyncio.sleep(0.01)
        at = client.statuses["i"]["loadBalancer"]["ingress"][0]["ports"][0]["port"]
        assert at == proxy.port
        url, named = f"http://127.0.0.1:{at}", {"Host": "web.example"}
        async with aiohttp.ClientSession() as session:
            for _ in range(4):
                async with session.post(f"{url}/a%2Fb?q=1", data=b"x" * 300_000, headers=named) as answer:
                    told = json.loads(await answer.text())
                assert (told["me"], told["path"], len(told["body"])) == ("one", "/a%2Fb?q=1", 300_000)
                assert (told["host"], told["x-forwarded-for"]) == ("web.example", "127.0.0.1")
            for path, status in (("/empty", 503), ("/gone", 502)):
                async with session.get(url + path, headers=named) as answer:
                    assert answer.status == status
            async with session.get(url, headers={"Host": "other"}) as answer:
                assert answer.status == 404
            async with session.ws_connect(f"{url}/ws", headers=named, protocols=("chat",)) as socket:
                assert socket.protocol == "chat"
                await socket.send_str("hello")
                assert await socket.receive_str() == "one hello"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await runner.cleanup()

    asyncio.run(main())
