"""Ingresses over TLS: each host shows its own Secret's certificate."""

import asyncio
import base64
import ssl

import aiohttp

from flyball import clock
from flyball.http import certificates
from flyball.localcluster.node.ingress import IngressProxy
from flyball.localcluster.node.ingresstls import secret_of, wanted
from flyball.localcluster.node.serviceproxy import ServiceProxy

from .test_ingress import Client, application, endpoints, ingress, service

NOW_MS = clock.now_ms()
AUTHORITY = certificates.authority("test", 1, NOW_MS)


class Recorder:
    def __init__(self):
        self.told = []

    async def event(self, obj, kind, reason, message):
        self.told.append((obj["metadata"]["name"], kind, reason, message))


def secret(name, *hosts, key=None):
    pair = certificates.leaf(AUTHORITY, name, 1, NOW_MS, names=hosts)
    data = {"tls.crt": pair.certificate_pem, "tls.key": key or pair.key_pem}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }


def test_a_host_has_the_closest_secret():
    hosts = wanted(
        [
            ingress(tls=[{"hosts": ["a.example", "*.example"], "secretName": "first"}]),
            ingress(tls=[{"hosts": ["A.example"], "secretName": "late"}, {"secretName": "every"}, {"hosts": ["x"]}]),
        ]
    )
    chosen = {host: (secret_of(hosts, host) or ("", ""))[1] for host in ("a.example", "b.Example", "b.c.example", "x")}
    assert chosen == {"a.example": "first", "b.Example": "first", "b.c.example": "every", "x": "every"}
    assert secret_of({"a.example": ("default", "first")}, "b.example") is None


def test_the_name_in_the_hello_chooses_the_certificate(monkeypatch):
    for name in ("HTTP_PORT", "HTTPS_PORT"):
        monkeypatch.setattr(f"flyball.localcluster.node.ingress.{name}", 0)

    async def certificate(port, host):
        """The common name that is shown to a client that trusts nobody else than our authority."""
        trusting = ssl.create_default_context(cadata=AUTHORITY.certificate_pem)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=host)
        shown = writer.get_extra_info("peercert")["subject"][-1][0][1]
        writer.close()
        return shown

    async def main():
        recorder, services = Recorder(), ServiceProxy(Client(), Recorder())
        proxy = IngressProxy(client := Client(), recorder, services)
        at, runner = await application("one")
        services.observe_service("ADDED", service("web"))
        for one in endpoints("web", at):
            services.observe_slice("ADDED", one)
        proxy.observe_secret("ADDED", secret("shop", "shop.a.example"))
        proxy.observe_secret("ADDED", secret("wild", "*.a.example"))
        proxy.observe_secret("ADDED", secret("broken", "broken.a.example", key="no key"))
        tls = [
            {"hosts": [host], "secretName": name}
            for host, name in (
                ("shop.a.example", "shop"),
                ("*.a.example", "wild"),
                ("broken.a.example", "broken"),
                ("none.a.example", "none"),
            )
        ]
        proxy.observe_ingress("ADDED", ingress(("", "/", "Prefix", "web"), tls=tls))
        running = asyncio.create_task(proxy.run())
        async with asyncio.timeout(10):
            while "i" not in client.statuses or len(recorder.told) < 2:
                await asyncio.sleep(0.01)
        port = proxy.tls_port
        listed = client.statuses["i"]["loadBalancer"]["ingress"][0]["ports"]
        assert [one["port"] for one in listed] == [proxy.port, port]
        assert [await certificate(port, f"{name}.a.example") for name in ("shop", "other")] == ["shop", "wild"]
        # A Secret that cannot be used is said; only its host suffers.
        said = {message.split('"')[1]: reason for _, kind, reason, message in recorder.told if kind == "Warning"}
        assert said == {"broken": "InvalidCertificate", "none": "InvalidCertificate"}
        for stranger in ("broken.a.example", "none.a.example"):
            try:
                await certificate(port, stranger)
            except ssl.SSLCertVerificationError:
                continue
            raise AssertionError(f"{stranger} is served with a certificate that is not its own")
        # A renewed Secret is shown to the next client.
        proxy.observe_secret(
            "MODIFIED", {**secret("renewed", "shop.a.example"), "metadata": secret("shop")["metadata"]}
        )
        assert await certificate(port, "shop.a.example") == "renewed"
        trusting = ssl.create_default_context(cadata=AUTHORITY.certificate_pem)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/x", ssl=trusting, server_hostname="shop.a.example") as answer,
        ):
            told = await answer.json(content_type=None)
            assert (told["me"], told["x-forwarded-proto"]) == ("one", "https")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await runner.cleanup()

    asyncio.run(main())
