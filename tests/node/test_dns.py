"""The cluster's DNS: records of Services and endpoints, asked for over real sockets."""

import asyncio

import dns.asyncquery
import dns.asyncresolver
import dns.flags
import dns.message
import dns.resolver
import dns.rrset
import pytest

from flyball.localcluster.node import dnsserver
from flyball.localcluster.node.dnsrecords import records_of
from flyball.localcluster.node.dnsserver import DnsServer
from flyball.localcluster.node.names import resolver_text

from .fakes import pod


def service(name, cluster_ip="None", ports=(("http", 80, "TCP"),), **spec):
    listed = [{"name": port, "port": number, "protocol": protocol} for port, number, protocol in ports]
    spec = {"clusterIP": cluster_ip, "ports": listed, **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def slice_of(name, *endpoints, ports=(("http", 8080, "TCP"),)):
    return {
        "metadata": {
            "name": f"{name}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "ports": [{"name": port, "port": number, "protocol": protocol} for port, number, protocol in ports],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": ready}, **({"hostname": host} if host else {})}
            for address, host, ready in endpoints
        ],
    }


RECORDS = records_of(
    [
        service("web", "127.11.0.7", (("http", 80, "TCP"), ("dns", 53, "UDP"))),
        service("db"),
        service("many"),
        service("far", None, type="ExternalName", externalName="elsewhere.test"),
        service("near", None, type="ExternalName", externalName="web.default.svc.cluster.local"),
    ],
    [
        slice_of("db", ("127.10.0.2", "db-0", True), ("127.10.0.3", "db-1", True), ("127.10.0.4", "db-2", False)),
        slice_of("many", *((f"127.10.1.{n}", "", True) for n in range(1, 201))),
    ],
)


def asked(story):
    async def main():
        server = DnsServer(lambda: RECORDS)
        await server.listen("127.0.0.1", 0)
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
        resolver.lifetime = 5

        async def look_up(name, kind):
            return sorted(str(one) for one in await resolver.resolve(name, kind))

        try:
            await story(look_up, server)
        finally:
            server.close()

    asyncio.run(main())


def test_services_pods_ports_and_addresses_are_found():
    async def story(look_up, server):
        end = "default.svc.cluster.local"
        assert await look_up(f"web.{end}", "A") == ["127.11.0.7"]
        assert await look_up(f"WEB.{end}", "A") == ["127.11.0.7"]
        assert await look_up(f"db.{end}", "A") == ["127.10.0.2", "127.10.0.3"]  # the third is not ready
        assert await look_up(f"db-1.db.{end}", "A") == ["127.10.0.3"]
        assert await look_up("127-10-0-2.default.pod.cluster.local", "A") == ["127.10.0.2"]
        assert await look_up(f"_http._tcp.web.{end}", "SRV") == [f"0 100 80 web.{end}."]
        assert await look_up(f"_dns._udp.web.{end}", "SRV") == [f"0 100 53 web.{end}."]
        assert await look_up(f"_http._tcp.db.{end}", "SRV") == [f"0 50 8080 db-{n}.db.{end}." for n in (0, 1)]
        assert await look_up(f"near.{end}", "CNAME") == [f"web.{end}."]
        assert await look_up(f"near.{end}", "A") == ["127.11.0.7"]
        assert await look_up("7.0.11.127.in-addr.arpa", "PTR") == [f"web.{end}."]
        assert await look_up("3.0.10.127.in-addr.arpa", "PTR") == [f"db-1.db.{end}."]

    asked(story)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("none.default.svc.cluster.local", dns.resolver.NXDOMAIN),
        ("db-2.db.default.svc.cluster.local", dns.resolver.NXDOMAIN),
        ("1.2.3.127.in-addr.arpa", dns.resolver.NXDOMAIN),  # at once: a resolver that waits here hangs programs
        ("default.svc.cluster.local", dns.resolver.NoAnswer),
        ("_tcp.web.default.svc.cluster.local", dns.resolver.NoAnswer),
    ],
)
def test_what_does_not_exist_is_told_from_what_has_no_such_record(name, error):
    async def story(look_up, server):
        with pytest.raises(error):
            await look_up(name, "A")
        with pytest.raises(dns.resolver.NoAnswer):
            await look_up("web.default.svc.cluster.local", "AAAA")

    asked(story)


def test_what_is_too_long_for_a_datagram_comes_over_tcp():
    async def story(look_up, server):
        query = dns.message.make_query("many.default.svc.cluster.local", "A")
        cut = await dns.asyncquery.udp(query, "127.0.0.1", 5, server.port)
        assert cut.flags & dns.flags.TC and not cut.answer
        assert len(await look_up("many.default.svc.cluster.local", "A")) == 200

    asked(story)


def test_other_names_are_asked_of_the_machines_own_servers(monkeypatch):
    async def story(look_up, server):
        elsewhere = DnsServer(lambda: records_of([], []))

        async def answer(data, stream):
            response = dns.message.make_response(dns.message.from_wire(data))
            response.answer.append(dns.rrset.from_text(response.question[0].name, 60, "IN", "A", "192.0.2.9"))
            return response.to_wire()

        elsewhere._answer = answer
        await elsewhere.listen("127.0.0.1", 0)
        try:
            monkeypatch.setattr(dnsserver, "UPSTREAM_PORT", elsewhere.port)
            monkeypatch.setattr(dnsserver, "nameservers", lambda: ["127.0.0.1"])
            assert await look_up("example.test", "A") == ["192.0.2.9"]
            assert await look_up("far.default.svc.cluster.local", "A") == ["192.0.2.9"]
        finally:
            elsewhere.close()
        monkeypatch.setattr(dnsserver, "nameservers", list)
        with pytest.raises(dns.resolver.NoNameservers):
            await look_up("example.test", "A")
        assert server.statistics()["failures"] >= 1

    asked(story)


def test_bytes_that_are_no_query_are_dropped():
    async def story(look_up, server):
        for junk in (b"", b"x", b"\0" * 12, bytes(range(200))):
            assert await server._answer(junk, stream=False) == b""
        assert await look_up("web.default.svc.cluster.local", "A") == ["127.11.0.7"]

    asked(story)


HOST = "# written by a network\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\noptions timeout:1\n"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            {},
            "nameserver 127.11.0.9\nsearch default.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "options ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\noptions timeout:1\n"),
        ({"hostNetwork": True}, "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\noptions timeout:1\n"),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["198.51.100.1"], "searches": ["a"], "options": [{"name": "use-vc"}]},
            },
            "nameserver 198.51.100.1\nsearch a\noptions use-vc\n",
        ),
        (
            {"dnsConfig": {"searches": ["lan", "b"], "options": [{"name": "ndots", "value": "2"}]}},
            "nameserver 127.11.0.9\nsearch default.svc.cluster.local svc.cluster.local cluster.local lan b\n"
            "options ndots:2\n",
        ),
    ],
)
def test_a_pods_resolver_is_written_as_a_kubelet_does(spec, wanted):
    one = pod("p")
    one["spec"] |= spec
    assert resolver_text(one, "127.11.0.9", HOST) == wanted
