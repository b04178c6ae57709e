"""Connections to a Service without a pod: held where a Governor wakes it, refused elsewhere."""

import asyncio
from functools import partial

import pytest

from flyball.localcluster.node import pending
from flyball.localcluster.node.pending import METRIC, PendingRequests
from flyball.localcluster.node.splicing import Backends, Downstream

SHOP = ("shop", "web")


def waiting(*governors: tuple[str, str, str]) -> PendingRequests:
    found = PendingRequests(None, "http://127.0.0.1:1")  # type: ignore[arg-type]
    for namespace, service, metric in governors:
        source = {"describedObject": {"kind": "Service", "name": service}, "metric": {"name": metric}}
        spec = {"metrics": [{"type": "Pods"}, {"type": "Object", "object": source}]}
        found._governors.cache[namespace, service] = {"metadata": {"namespace": namespace}, "spec": spec}
    return found


async def listening(backends: Backends):
    loop = asyncio.get_running_loop()
    tasks = set()
    server = await loop.create_server(
        partial(Downstream, backends, lambda work: tasks.add(loop.create_task(work))), "127.0.0.1", 0
    )
    return server, server.sockets[0].getsockname()[1]


async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


def test_a_request_waits_for_the_first_pod_and_is_answered():
    async def go():
        holding = waiting((*SHOP, METRIC))
        backends = Backends(SHOP, holding)
        server, port = await listening(backends)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        async with asyncio.timeout(5):
            while not holding.statistics()["waiting"]:
                await asyncio.sleep(0.005)
            pod = await asyncio.start_server(echo, "127.0.0.1", 0)
            backends.set([pod.sockets[0].getsockname()])
            assert await reader.read() == b"hello\n"
        assert holding.statistics() == {"services": 1, "waiting": 0, "failures": 0}
        writer.close()
        pod.close()
        server.close()

    asyncio.run(go())


@pytest.mark.parametrize("governors", [(), (("office", "web", METRIC),), ((*SHOP, "requests"),)])
def test_nobody_waits_where_no_governor_wakes_the_service(governors):
    async def go():
        backends = Backends(SHOP, waiting(*governors))
        server, port = await listening(backends)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        assert backends.refused == 1
        writer.close()
        server.close()

    asyncio.run(go())


def test_the_wait_is_bounded_in_time_and_number(monkeypatch):
    async def go():
        monkeypatch.setattr(pending, "HOLD_S", 0.01)
        monkeypatch.setattr(pending, "HELD_MAX", 1)
        holding = waiting((*SHOP, METRIC))
        backends = Backends(SHOP, holding)
        assert backends.holds()
        task = asyncio.create_task(backends.wait())
        await asyncio.sleep(0)
        assert not backends.holds()
        assert await task == []
        assert backends.holds()

    asyncio.run(go())
