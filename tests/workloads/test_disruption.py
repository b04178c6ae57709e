"""Disruption budgets and evictions on the embedded API server."""

import asyncio

import pytest

from flyball.errors import KubeApiError
from flyball.kube.kinds import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS
from flyball.localcluster.workloads.disruption import bounds

from .cluster import deployment, run, settled, until


def budget(**spec):
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }


async def evict(client, name):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
    await client.create(PODS, body, "default", name=name, subresource="eviction")


def test_evictions_stop_where_the_budget_does_and_go_on_when_pods_are_back(tmp_path):
    async def body(client, node):
        await client.create(DEPLOYMENTS, deployment(replicas=3))
        await settled(client, replicas=3)
        await client.create(POD_DISRUPTION_BUDGETS, budget(minAvailable="60%"))

        async def allowing(count):
            found = (await client.get(POD_DISRUPTION_BUDGETS, "web", "default")).get("status") or {}
            return found if found.get("disruptionsAllowed") == count and found.get("expectedPods") == 3 else None

        status = await until(lambda: allowing(1))
        assert (status["currentHealthy"], status["desiredHealthy"]) == (3, 2)
        assert status["conditions"][0]["reason"] == "SufficientPods"
        names = [pod["metadata"]["name"] for pod in await client.list(PODS, "default")]
        # Both at once: one of them is too many, however fast the controller is.
        answers = await asyncio.gather(*(evict(client, name) for name in names[:2]), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, KubeApiError)]
        assert len(refused) == 1
        assert refused[0].code == 429
        assert "would violate the pod's disruption budget" in str(refused[0])
        await until(lambda: allowing(1))
        await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 0}}, "default")
        await settled(client, replicas=0)

    run(tmp_path, body)


def pods(*owners):
    return [{"metadata": {"name": str(n), "uid": str(n), "owner": owner}} for n, owner in enumerate(owners)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 2}, (3, 2)),
        ({"minAvailable": "50%"}, (9, 5)),  # of what the owners want, not of what is there
        ({"maxUnavailable": 1}, (9, 8)),
        ({"maxUnavailable": "30%"}, (9, 6)),
    ],
)
def test_bounds_count_the_owners_replicas(spec, expected):
    owners = {"a": 4, "b": 5}
    found = pods("a", "a", "b")
    assert bounds(budget(**spec), found, lambda pod: (o := pod["metadata"]["owner"], owners[o])) == expected


def test_a_pod_without_a_known_controller_has_no_percentage():
    with pytest.raises(LookupError, match="0"):
        bounds(budget(minAvailable="50%"), pods("x"), lambda pod: None)
