"""Pods that a taint or a deleted node drives away."""

import pytest

from flyball.kube.kinds import DEPLOYMENTS, EVENTS, NODES, PODS
from flyball.localcluster.workloads import nodelifecycle
from flyball.localcluster.workloads.nodelifecycle import stays_s

from .cluster import add_node, deployment, run, settled, until

TAINT = {"key": "a", "value": "1", "effect": "NoExecute"}


def pod(*tolerations):
    return {"spec": {"tolerations": list(tolerations)}}


def tolerating(seconds=None, **more):
    made = {"key": "a", "operator": "Exists", **more}
    return made if seconds is None else {**made, "tolerationSeconds": seconds}


@pytest.mark.parametrize(
    ("tolerations", "taints", "expected"),
    [
        ([], [TAINT], 0.0),
        ([], [{**TAINT, "effect": "NoSchedule"}], None),
        ([tolerating()], [TAINT], None),
        ([tolerating(60)], [TAINT], 60.0),
        ([tolerating(60), tolerating(5)], [TAINT], 5.0),
        ([tolerating(60)], [TAINT, {**TAINT, "key": "b"}], 0.0),
        ([tolerating(-1)], [TAINT], 0.0),
        ([tolerating(60)], [], None),
    ],
)
def test_how_long_a_pod_stays(tolerations, taints, expected):
    assert stays_s(pod(*tolerations), taints) == expected


def test_a_taint_moves_pods_and_a_deleted_nodes_pods_go(tmp_path, monkeypatch):
    monkeypatch.setitem(nodelifecycle.NodeLifecycleController.__init__.__kwdefaults__, "orphan_grace_s", 0.3)

    async def body(client, node):
        await add_node(client, "spare", taints=[{"key": "b", "effect": "NoSchedule"}])
        await client.create(DEPLOYMENTS, deployment(replicas=2))
        await settled(client, replicas=2)

        async def on(name):
            pods = [p for p in await client.list(PODS, "default") if not p["metadata"].get("deletionTimestamp")]
            return len(pods) == 2 and {p["spec"].get("nodeName") for p in pods} == {name}

        await until(lambda: on("flyball"))
        await client.patch(NODES, "spare", {"spec": {"taints": None}})
        await client.patch(NODES, "flyball", {"spec": {"taints": [TAINT]}})
        await until(lambda: on("spare"))
        assert "TaintManagerEviction" in {event["reason"] for event in await client.list(EVENTS, "default")}
        await client.patch(NODES, "flyball", {"spec": {"taints": None}})
        await client.delete(NODES, "spare")
        await until(lambda: on("flyball"))

    run(tmp_path, body)
