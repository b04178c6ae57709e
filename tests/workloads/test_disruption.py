"""Disruption budgets and evictions on the embedded API server."""

import asyncio

import pytest

from flyball.errors import KubeApiError
from flyball.kube.kinds import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS
from flyball.localcluster.workloads.disruption import bounds, selected, status_of, unmanaged

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
    """Ready pods, each controlled by the owner named; None: by nobody."""
    return [
        {
            "metadata": {"name": str(n), "labels": {"app": "web"}}
            | ({"ownerReferences": [{"uid": owner, "controller": True}]} if owner else {}),
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        for n, owner in enumerate(owners)
    ]


def scale_of(**owners):
    def scale(pod):
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        return (uid, owners[uid]) if uid in owners else None

    return scale


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
    assert bounds(budget(**spec), pods("a", "a", "b"), scale_of(a=4, b=5)) == expected


def test_a_pod_whose_controller_cannot_be_scaled_has_no_percentage():
    with pytest.raises(LookupError, match='pod "0"'):
        bounds(budget(minAvailable="50%"), pods("x"), scale_of())


def test_a_pod_that_nobody_controls_is_left_out_and_told_of():
    found = pods("a", None)
    assert bounds(budget(minAvailable="50%"), found, scale_of(a=4)) == (4, 2)
    assert "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,}," in unmanaged(
        budget(maxUnavailable=1), found
    )
    assert unmanaged(budget(minAvailable=1), found) == unmanaged(budget(maxUnavailable=1), found[:1]) == ""


def test_a_pod_on_its_way_out_is_expected_but_not_healthy():
    found = pods("a", "a")
    found[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    chosen = selected(budget(minAvailable=1), found)
    status = status_of({**budget(minAvailable=1), "status": {}}, chosen, scale_of(a=2), 0)
    assert (status["expectedPods"], status["currentHealthy"], status["disruptionsAllowed"]) == (2, 1, 0)
