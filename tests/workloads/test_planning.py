"""Planning without a server."""

import pytest

from flyball.localcluster.workloads.replicaset import plan
from flyball.localcluster.workloads.rollout import bounds, plan_rolling, plan_scale


def deployment(replicas, surge, unavailable):
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"metadata": {"name": "d"}, "spec": {"replicas": replicas, "strategy": {"rollingUpdate": rolling}}}


def replica_set(name, replicas, available, maximum=None):
    annotations = {"deployment.kubernetes.io/max-replicas": str(maximum)} if maximum else {}
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{name[-1]}Z", "annotations": annotations}
    return {"metadata": metadata, "spec": {"replicas": replicas}, "status": {"availableReplicas": available}}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (4, "25%", "25%", (1, 1)),
        (1, "25%", "25%", (1, 0)),
        (10, 2, 3, (2, 3)),
        (3, 0, "10%", (0, 1)),
        (2, 0, 5, (0, 2)),
    ],
)
def test_percentages_round_up_for_surge_and_down_for_unavailable(replicas, surge, unavailable, expected):
    assert bounds(deployment(replicas, surge, unavailable)) == expected


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ((0, 0), (10, 10), {"rs-2": 2}),  # surge first
        ((2, 0), (10, 10), {"rs-1": 8}),  # two may be missing
        ((4, 4), (8, 8), {"rs-1": 4}),  # what is available now may be given up
        ((2, 0), (8, 8), {"rs-2": 4}),  # the room left by the old pods is used
        ((10, 10), (2, 2), {"rs-1": 0}),
        ((4, 0), (8, 5), {}),  # nothing more may go: 8 of 10 must stay, and 4 new ones are not ready
        ((12, 12), (0, 0), {"rs-2": 10}),
    ],
)
def test_a_rolling_update_steps_within_its_bounds(new, old, expected):
    sizes = plan_rolling(deployment(10, 2, 2), replica_set("rs-2", *new), [replica_set("rs-1", *old)])
    assert sizes == expected


def test_a_resize_amid_a_rollout_is_shared_in_proportion():
    new, old = replica_set("rs-2", 5, 5, maximum=10), replica_set("rs-1", 5, 5, maximum=10)
    sizes = plan_scale(deployment(20, 0, 1), new, [old])
    assert sizes == {"rs-2": 10, "rs-1": 10}


def test_pods_that_cost_least_to_lose_go_first():
    def pod(name, node="flyball", ready=True, since="2026-01-01T00:00:00Z", cost=None):
        conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}]
        annotations = {"controller.kubernetes.io/pod-deletion-cost": cost} if cost else {}
        return {
            "metadata": {"name": name, "annotations": annotations, "creationTimestamp": since},
            "spec": {"nodeName": node} if node else {},
            "status": {"phase": "Running" if node else "Pending", "conditions": conditions},
        }

    pods = [
        pod("old"),
        pod("young", since="2026-01-02T00:00:00Z"),
        pod("dear", cost="5"),
        pod("sick", ready=False),
        pod("nowhere", node="", ready=False),
    ]
    planned = plan({"spec": {"replicas": 1}}, pods)
    assert [item["metadata"]["name"] for item in planned.delete] == ["nowhere", "sick", "young", "old"]
    assert plan({"spec": {"replicas": 7}}, pods).create == 2
