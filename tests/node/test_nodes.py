"""Several nodes on one machine, and nodes whose pods only have a status."""

import asyncio

from flyball.localcluster.node import figures, nodeobjects
from flyball.localcluster.node.pods import PodManager
from flyball.localcluster.node.simulated import SimulatedNodes, address

from .fakes import FakeClient, FakeRecorder, pod, until


def test_nodes_share_the_machine():
    capacity = {"cpu": "2", "memory": "3000Ki", "pods": "250"}
    assert nodeobjects.share(capacity, 1) == capacity
    assert nodeobjects.share(capacity, 3) == {"cpu": "666m", "memory": "1000Ki", "pods": "250"}
    assert nodeobjects.names(3) == ["flyball", "flyball-2", "flyball-3"]


def test_each_node_shows_the_figures_of_its_own_pods(tmp_path):
    async def main():
        (tmp_path / "node").mkdir()
        manager = PodManager(tmp_path / "node", 0, FakeClient(), FakeRecorder(), nodes=("flyball", "flyball-2"))
        for name, where in (("a", "flyball"), ("b", "flyball-2")):
            one = pod(name, ["sleep", "60"])
            one["spec"]["nodeName"] = where
            manager.observe("ADDED", one)
        try:
            await until(lambda: manager.statistics()["containers"] == 2)

            def shown(node):
                text = figures.exposition(manager, node).decode()
                lines = text.splitlines()
                pods = {line.split('pod="')[1].split('"')[0] for line in lines if 'pod="' in line}
                return pods, any(line.startswith("node_memory_working_set_bytes ") for line in lines)

            await until(lambda: shown("flyball-2") == ({"b"}, True))
            assert shown("flyball") == ({"a"}, True)
            assert shown("fake") == (set(), False)
        finally:
            await manager.close(stop_pods=True, grace_s=0.5)

    asyncio.run(main())


def test_pods_of_a_fake_node_only_have_a_status():
    async def main():
        client = FakeClient()
        simulated = SimulatedNodes(client)
        running = asyncio.create_task(simulated.run())
        one, work, real = pod("one"), pod("work"), pod("real")
        one["spec"]["nodeName"] = work["spec"]["nodeName"] = "fake"
        work["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": "j"}]
        for each in (one, real, work):
            simulated.observe_pod("ADDED", each)
        # The node is seen after its pods: they are caught up with.
        annotations = {"kwok.x-k8s.io/node": "fake"}
        simulated.observe_node("ADDED", {"metadata": {"name": "fake", "annotations": annotations}})
        await until(lambda: client.status("one") and client.status("work"))
        assert client.status("one")["phase"] == "Running"
        assert client.status("one")["containerStatuses"][0]["ready"] is True
        assert client.status("work")["phase"] == "Succeeded"
        assert client.status("one")["podIP"] != client.status("work")["podIP"]
        assert client.status("real") == {}
        node = next(body for kind, name, body, sub in client.patches if kind == "Node")
        assert {c["type"] for c in node["status"]["conditions"] if c["status"] == "True"} == {"Ready"}
        gone = pod("one")
        gone["spec"]["nodeName"] = "fake"
        gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        simulated.observe_pod("MODIFIED", gone)
        await until(lambda: client.deleted == [("Pod", "one", "uid-one", 0)])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_simulated_addresses_are_all_different():
    assert len({address(number) for number in range(70_000)}) == 70_000
    assert address(0) == "10.64.1.1"
