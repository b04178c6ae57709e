"""Real sockets: balancing over ready endpoints, none ready, a taken port."""

import asyncio
import socket

import pytest

from flyball.localcluster.node.serviceproxy import ServiceProxy

from .fakes import FakeClient, FakeRecorder, until


def free_port(below=30000):
    for port in range(20011, below):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def service(port):
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "clusterIP": "127.11.77.5", "ports": [{"port": port}]},
    }


def endpoint_slice(addresses, port):
    return {
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"port": port}],
        "endpoints": [{"addresses": [one], "conditions": {"ready": True}} for one in addresses],
    }


async def ask(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"x" * 200_000)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def run(story):
    async def main():
        servers, target = [], 0
        for number in (1, 2):
            host = f"127.10.77.{number}"

            async def serve(reader, writer, host=host):
                body = await reader.read(-1)
                writer.write(f"{host} {len(body)}".encode())
                writer.close()

            server = await asyncio.start_server(serve, host, target)
            target = server.sockets[0].getsockname()[1]
            servers.append(server)
        client, recorder = FakeClient(), FakeRecorder()
        proxy = ServiceProxy(client, recorder)
        task = asyncio.create_task(proxy.run())
        try:
            await story(proxy, client, recorder, target)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for server in servers:
                server.close()

    asyncio.run(main())


def test_connections_spread_over_ready_endpoints():
    async def story(proxy, client, recorder, target):
        port = free_port()
        proxy.observe_service("ADDED", service(port))
        proxy.observe_slice("ADDED", endpoint_slice(["127.10.77.1", "127.10.77.2"], target))
        await until(lambda: len(client.patches) >= 2)
        answers = [await ask("127.0.0.1", port) for _ in range(6)] + [await ask("127.11.77.5", port) for _ in range(4)]
        assert {one: answers.count(one) for one in set(answers)} == {
            b"127.10.77.1 200000": 5,
            b"127.10.77.2 200000": 5,
        }
        proxy.withdraw("127.10.77.1")
        assert {await ask("127.0.0.1", port) for _ in range(4)} == {b"127.10.77.2 200000"}
        # One that does not answer is passed over, as nothing was sent to it yet.
        proxy.observe_slice("MODIFIED", endpoint_slice(["127.10.77.2", "127.10.77.9"], target))
        assert {await ask("127.0.0.1", port) for _ in range(4)} == {b"127.10.77.2 200000"}
        proxy.observe_slice("DELETED", endpoint_slice([], target))
        with pytest.raises(ConnectionError):
            await ask("127.0.0.1", port)

    run(story)


def test_a_taken_port_is_served_elsewhere_and_said():
    async def story(proxy, client, recorder, target):
        port = free_port()
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            proxy.observe_slice("ADDED", endpoint_slice(["127.10.77.1"], target))
            proxy.observe_service("ADDED", service(port))
            await until(lambda: len(client.patches) >= 2)
        served = client.patches[0][2]["status"]["loadBalancer"]["ingress"][0]["ports"][0]["port"]
        assert served >= 30000 + port
        assert client.patches[1][2]["metadata"]["annotations"] == {"flyball.dev/served-at": f"127.0.0.1:{served}"}
        assert str(served) in recorder.events[0][3]
        assert await ask("127.0.0.1", served) == b"127.10.77.1 200000"

    run(story)


def test_a_port_that_a_pod_takes_on_every_address_returns_when_the_pod_ends():
    async def story(proxy, client, recorder, _):
        target = free_port()

        async def serve(reader, writer):
            host = writer.get_extra_info("sockname")[0]
            writer.write(f"{host} {len(await reader.read(-1))}".encode())
            writer.close()

        servers = [await asyncio.start_server(serve, f"127.10.77.{number}", target) for number in (1, 2)]
        proxy.observe_slice("ADDED", endpoint_slice(["127.10.77.1"], target))
        proxy.observe_service("ADDED", service(target))

        def published():
            found = [body["status"]["loadBalancer"] for _, _, body, _ in client.patches if "status" in body]
            return found[-1]["ingress"][0]["ports"][0]["port"] if found else 0

        await until(lambda: published() == target)
        proxy.yield_ports({target}, "127.10.77.9")
        await until(lambda: published() != target)
        assert await ask("127.0.0.1", published()) == b"127.10.77.1 200000"
        # The pod that took the port becomes ready: it answers there itself.
        proxy.observe_slice("MODIFIED", endpoint_slice(["127.10.77.9"], target))
        await until(lambda: published() == target)
        with pytest.raises(ConnectionError):
            await ask("127.0.0.1", target)
        proxy.observe_slice("MODIFIED", endpoint_slice(["127.10.77.2"], target))
        proxy.take_back({target}, "127.10.77.8")  # another pod's
        with pytest.raises(ConnectionError):
            await ask("127.0.0.1", target)
        proxy.take_back({target}, "127.10.77.9")
        await until(lambda: proxy.statistics()["listeners"] == 2)
        assert await ask("127.0.0.1", target) == b"127.10.77.2 200000"
        for server in servers:
            server.close()

    run(story)


class Shouting(asyncio.DatagramProtocol):
    """A pod's UDP server: what it gets comes back louder, with its own address."""

    def connection_made(self, transport):
        self.transport = transport
        self.name = transport.get_extra_info("sockname")[0]

    def datagram_received(self, data, address):
        self.transport.sendto(data.upper() + b" " + self.name.encode(), address)


class Asking(asyncio.DatagramProtocol):
    def __init__(self):
        self.answers = asyncio.Queue()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.answers.put_nowait(data)

    async def ask(self, data):
        self.transport.sendto(data)
        return await asyncio.wait_for(self.answers.get(), 5)


def test_a_udp_client_keeps_its_endpoint_until_that_is_gone():
    async def main():
        loop = asyncio.get_running_loop()
        port = free_port()
        hosts = ["127.10.78.1", "127.10.78.2"]
        pods = [await loop.create_datagram_endpoint(Shouting, local_addr=(host, port)) for host in hosts]
        client = FakeClient()
        proxy = ServiceProxy(client, FakeRecorder())
        running = asyncio.create_task(proxy.run())
        one = service(port)
        one["spec"] |= {"clusterIP": "127.11.78.5", "type": "ClusterIP"}
        one["spec"]["ports"][0]["protocol"] = "UDP"
        proxy.observe_slice("ADDED", endpoint_slice(hosts, port))
        proxy.observe_service("ADDED", one)
        await until(lambda: proxy.table()["names"] and proxy._listeners)
        connected = {"remote_addr": ("127.11.78.5", port)}
        asking = [(await loop.create_datagram_endpoint(Asking, **connected))[1] for _ in range(4)]
        first = [await one.ask(b"hi") for one in asking]
        assert sorted(first) == sorted(2 * [f"HI {host}".encode() for host in hosts]), "spread evenly"
        assert [await one.ask(b"hi") for one in asking] == first, "and each stays where it is"
        proxy.observe_slice("MODIFIED", endpoint_slice(hosts[:1], port))
        assert {await one.ask(b"hi") for one in asking} == {f"HI {hosts[0]}".encode()}
        proxy.observe_service("DELETED", one)
        await until(lambda: not proxy._listeners)
        for transport, _ in pods:
            transport.close()
        for one in asking:
            one.transport.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
