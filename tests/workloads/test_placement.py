"""Which nodes will have a pod, without a server."""

import pytest

from flyball.localcluster.workloads.placement import Cluster, choose, matches_node, requests_of, tolerates
from flyball.localcluster.workloads.preemption import ineligible, preempt


def node(name, labels=None, taints=None, **allocatable):
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": taints or []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable},
    }


def pod(name="p", labels=None, cpu=None, **spec):
    container = {"name": "main", "resources": {"requests": {"cpu": cpu}} if cpu else {}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"containers": [container], **spec},
    }


def cluster(*nodes, placed=()):
    made = Cluster()
    for each in nodes:
        made.nodes[each["metadata"]["name"]] = each
    for each, where in placed:
        made.place(each, where)
    return made


def required(*expressions, fields=()):
    term = {"matchExpressions": list(expressions), "matchFields": list(fields)}
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    }


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["ssd", "nvme"], True),
        ("In", ["hdd"], False),
        ("NotIn", ["hdd"], True),
        ("NotIn", ["ssd"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_node_affinity_operators(operator, values, fits):
    spec = required({"key": "disk", "operator": operator, "values": values})
    assert matches_node(spec, node("a", {"disk": "ssd"})) is fits


def test_node_affinity_compares_numbers_and_names_nodes_by_field():
    big = required({"key": "cores", "operator": "Gt", "values": ["8"]})
    assert matches_node(big, node("a", {"cores": "16"})) and not matches_node(big, node("a", {"cores": "8"}))
    here = required(fields=[{"key": "metadata.name", "operator": "In", "values": ["b"]}])
    assert [matches_node(here, node(name)) for name in "ab"] == [False, True]
    assert not matches_node(required(), node("a"))  # an empty term matches nothing


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "a", "value": "1"}, True),
        ({"key": "a", "value": "2"}, False),
        ({"key": "a", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_tolerations(toleration, covers):
    assert tolerates({"tolerations": [toleration]}, {"key": "a", "value": "1", "effect": "NoSchedule"}) is covers


def test_the_message_counts_reasons_and_what_preemption_could_do():
    nodes = (
        node("a", cpu="1"),
        node("b", cpu="1", taints=[{"key": "gpu", "effect": "NoSchedule"}]),
        node("c", {"zone": "x"}, cpu="1"),
    )
    busy = [(pod(f"old-{name}", cpu="800m"), name) for name in "ac"]
    found, why = choose(pod(cpu="500m"), cluster(*nodes, placed=busy))
    assert found == ""
    assert why == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes "
        "are available: 2 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    )
    assert choose(pod(cpu="200m"), cluster(*nodes, placed=busy))[0] == "a"


def test_room_that_a_pod_leaves_is_free_again():
    full = cluster(node("a", cpu="1", pods="1"), placed=[(pod("old", cpu="1"), "a")])
    assert "1 Insufficient cpu, 1 Too many pods" in choose(pod(cpu="1"), full)[1]
    full.remove(("default", "old"), "a")
    assert choose(pod(cpu="1"), full)[0] == "a"


def test_init_containers_count_by_their_greediest_and_sidecars_with_the_rest():
    def one(cpu, **more):
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    asked = requests_of(
        {
            "spec": {
                "initContainers": [one("1", restartPolicy="Always"), one("3"), one("2")],
                "containers": [one("1"), one("1")],
            }
        }
    )
    assert asked == {"cpu": 4 * 10**9}  # the sidecar beside the second init container


def apart(app):
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def together(app):
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"}
    return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def test_pods_keep_apart_and_together():
    nodes = (node("a", {"zone": "x"}), node("b", {"zone": "x"}), node("c", {"zone": "y"}))
    lonely = pod("one", {"app": "db"}, **apart("db"))
    taken = cluster(*nodes, placed=[(lonely, "a")])
    assert choose(pod("two", {"app": "db"}, **apart("db")), taken)[0] == "b"
    # Also a pod that says nothing is kept away by one that is there.
    assert choose(pod("three", {"app": "db"}), taken)[0] == "b"
    assert choose(pod("web", {"app": "web"}, **together("db")), taken)[0] == "b"
    assert "3 node(s) didn't match pod affinity rules" in choose(pod("web", **together("nobody")), taken)[1]
    # The first of a group joins itself.
    assert choose(pod("first", {"app": "new"}, **together("new")), taken)[0] in "abc"


def test_preferences_choose_among_the_fitting():
    liked = {
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 5,
                        "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
                    }
                ]
            }
        }
    }
    nodes = cluster(node("a"), node("b", {"disk": "ssd"}), placed=[(pod("old"), "b")])
    assert choose(pod(**liked), nodes)[0] == "b"
    assert choose(pod(), nodes)[0] == "a"  # else the emptier one


def spread(skew=1, key="zone", when="DoNotSchedule", **more):
    constraint = {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when}
    return {"topologySpreadConstraints": [{**constraint, "labelSelector": {"matchLabels": {"app": "web"}}, **more}]}


def test_pods_are_spread_within_the_skew():
    nodes = (node("a", {"zone": "x"}), node("b", {"zone": "x"}), node("c", {"zone": "y"}), node("d"))
    web = {"app": "web"}
    taken = cluster(*nodes, placed=[(pod("one", web), "a")])
    assert choose(pod("two", web, **spread()), taken)[0] == "c"
    assert choose(pod("two", web, **spread(skew=2)), taken)[0] == "b"
    assert choose(pod("two", web, **spread(when="ScheduleAnyway")), taken)[0] in ("c", "d")
    full = cluster(*nodes[:2], nodes[3], node("e", {"zone": "y"}, cpu="1"), placed=[(pod("one", web), "a")])
    assert choose(pod("two", web, cpu="2", **spread()), full)[1] == (
        "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints (missing "
        "required label), 2 node(s) didn't match pod topology spread constraints. preemption: 0/4 nodes are available: "
        "2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    )


def test_only_nodes_that_the_pod_may_use_count_as_places_to_spread_over():
    nodes = (node("a", {"zone": "x", "disk": "ssd"}), node("b", {"zone": "y"}))
    web = {"app": "web"}
    taken = cluster(*nodes, placed=[(pod("one", web), "a")])
    ssd = {"nodeSelector": {"disk": "ssd"}}
    assert choose(pod("two", web, **spread(), **ssd), taken)[0] == "a"
    assert choose(pod("two", web, **spread(nodeAffinityPolicy="Ignore"), **ssd), taken)[0] == ""
    assert choose(pod("two", web, **spread(minDomains=2), **ssd), taken)[0] == ""


def test_what_is_asked_beyond_a_whole_node_is_not_helped_by_preemption():
    small = cluster(node("a", cpu="1"))
    assert "1 Preemption is not helpful" in choose(pod(cpu="2"), small)[1]


def test_a_node_that_is_not_ready_takes_only_who_tolerates_it():
    away = node("a")
    away["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    assert "1 node(s) had untolerated taint(s)" in choose(pod(), cluster(away))[1]
    brave = {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}
    assert choose(pod(**brave), cluster(away))[0] == "a"


# -- preemption ------------------------------------------------------------------------------------------------------


def preempted(pod, made, *budgets):
    """(node, names of the victims in order); None where nobody's going would help."""
    before = {name: dict(made.on(each).pods) for name, each in made.nodes.items()}
    found = preempt(pod, made, budgets)
    assert before == {name: dict(made.on(each).pods) for name, each in made.nodes.items()}, "it was only tried"
    return (found.node, sorted(one["metadata"]["name"] for one in found.victims)) if found else None


def test_no_more_go_than_must_and_the_least_important_first():
    placed = [(pod(name, cpu="1", priority=priority), "a") for name, priority in (("x", 1), ("y", 3), ("z", 2))]
    made = cluster(node("a", cpu="4"), placed=[*placed, (pod("top", cpu="1", priority=90), "a")])
    assert preempted(pod(cpu="1", priority=10), made) == ("a", ["x"])
    assert preempted(pod(cpu="2", priority=10), made) == ("a", ["x", "z"])
    assert preempted(pod(cpu="3", priority=3), made) is None, "its equals stay"
    assert preempted(pod(cpu="4", priority=10), made) is None


def test_the_node_with_the_least_important_victims_is_chosen():
    placed = [(pod("a1", cpu="2", priority=5), "a"), (pod("b1", cpu="1", priority=4), "b")]
    placed.append((pod("b2", cpu="1", priority=4), "b"))
    made = cluster(node("a", cpu="2"), node("b", cpu="2"), placed=placed)
    assert preempted(pod(cpu="2", priority=9), made) == ("b", ["b1", "b2"])


def test_a_budget_protects_where_another_node_can_pay():
    kept = pod("kept", {"app": "db"}, cpu="1", priority=1)
    made = cluster(node("a", cpu="1"), node("b", cpu="1"), placed=[(kept, "a"), (pod("b1", cpu="1", priority=5), "b")])
    budget = {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}},
        "status": {"disruptionsAllowed": 0},
    }
    assert preempted(pod(cpu="1", priority=9), made) == ("a", ["kept"])
    assert preempted(pod(cpu="1", priority=9), made, budget) == ("b", ["b1"])
    assert preempted(pod(cpu="1", priority=4), made, budget) == ("a", ["kept"]), "a budget is no absolute right"


def test_in_a_big_cluster_enough_nodes_that_would_do_are_tried():
    nodes = [node(f"n{number:03}", cpu="1") for number in range(300)]
    guarded = [(pod(f"p{number}", {"app": "db"}, cpu="1", priority=2), f"n{number:03}") for number in range(150)]
    free = [(pod(f"p{number}", cpu="1", priority=3), f"n{number:03}") for number in range(150, 299)]
    made = cluster(*nodes, placed=[*guarded, *free, (pod("cheapest", cpu="1", priority=1), "n299")])
    budget = {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}},
        "status": {"disruptionsAllowed": 0},
    }
    wanted = pod(cpu="1", priority=9)
    assert preempt(wanted, made, []).node == "n000", "the cheapest is beyond the first hundred"
    assert preempt(wanted, made, [budget]).node == "n150", "after a hundred that break a budget the search goes on"
    assert preempt(wanted, made, [budget], offset=290).node == "n299"


def test_where_nobodys_going_helps_and_for_whom_nobody_goes():
    tainted = node("a", taints=[{"key": "gpu", "effect": "NoSchedule"}], cpu="1")
    made = cluster(tainted, placed=[(pod("low", cpu="1"), "a")])
    assert preempted(pod(cpu="1", priority=9), made) is None
    assert ineligible(pod(priority=9, preemptionPolicy="Never"), made).endswith("preemptionPolicy=Never.")
    waiting = pod(cpu="1", priority=9) | {"status": {"nominatedNodeName": "a"}}
    assert not ineligible(waiting, made)
    leaving = pod("low", cpu="1")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    made.place(leaving, "a")
    assert ineligible(waiting, made) == "not eligible due to a terminating pod on the nominated node."
