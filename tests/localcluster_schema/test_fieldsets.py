"""Sets of fields: their algebra as a property, and the rules of maps and lists on Deployments."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flyball.localcluster import schema
from flyball.localcluster.schema import fieldsets
from flyball.localcluster.schema.fieldsets import compare, difference, field_set, intersection, merge, remove, union

KEYS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"1"'])


def _trees(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return st.just({})
    inner = _trees(depth - 1)
    children = st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    return st.one_of(st.just({}), children, children.map(lambda node: {".": {}, **node}))


SETS = st.dictionaries(KEYS, _trees(3), max_size=3)


def members(fields: Any) -> set[str]:
    return set(fieldsets.paths(fields))


@given(SETS, SETS)
def test_trees_are_sets(left: Any, right: Any) -> None:
    assert members(union(left, right)) == members(left) | members(right)
    assert members(difference(left, right)) == members(left) - members(right)
    assert members(intersection(left, right)) == members(left) & members(right)
    assert difference(left, left) == {} and union(left, {}) == left


kind = schema.find("apps", "v1", "deployments")
assert kind is not None
DEPLOYMENT = schema.patch_schema(kind)


def pod(*containers: Any, **labels: str) -> Any:
    return {"spec": {"template": {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}}}}


def test_an_applied_configuration_claims_leaves_entries_and_elements_but_no_structs() -> None:
    config = pod({"name": "c", "image": "i", "ports": [{"containerPort": 80}], "command": ["a", "b"]}, app="w")
    config["spec"]["selector"] = {"matchLabels": {"app": "w"}}
    assert members(field_set(config, DEPLOYMENT)) == {
        ".spec.selector",
        ".spec.template.metadata.labels.app",
        '.spec.template.spec.containers[name="c"]',
        '.spec.template.spec.containers[name="c"].name',
        '.spec.template.spec.containers[name="c"].image',
        '.spec.template.spec.containers[name="c"].command',
        '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"]',
        '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"].containerPort',
    }


def test_lists_merge_by_key_and_the_servers_elements_keep_their_place() -> None:
    live = pod({"name": "side"}, {"name": "a", "image": "1", "tty": True}, {"name": "z"})
    config = pod({"name": "new"}, {"name": "a", "image": "2"})
    merged = merge(live, config, DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
    assert merged == [{"name": "side"}, {"name": "new"}, {"name": "a", "image": "2", "tty": True}, {"name": "z"}]


def test_a_comparison_names_what_was_set_and_what_went() -> None:
    old = pod({"name": "a", "image": "1", "command": ["x"]}, {"name": "b"}, app="w")
    new = pod({"name": "a", "image": "2", "command": ["x"]}, app="w", tier="t")
    set_, removed = compare(old, new, DEPLOYMENT)
    assert members(set_) == {
        ".spec.template.metadata.labels.tier",
        '.spec.template.spec.containers[name="a"].image',
    }
    assert members(removed) == {
        '.spec.template.spec.containers[name="b"]',
        '.spec.template.spec.containers[name="b"].name',
    }
    assert compare(new, new, DEPLOYMENT) == ({}, {})


def test_removal_takes_members_and_what_it_leaves_empty() -> None:
    live = pod({"name": "a", "env": [{"name": "K", "value": "1"}]}, {"name": "b"}, app="w")
    gone = field_set(pod({"name": "b"}, app="w"), DEPLOYMENT)
    gone["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"a"}'] = {"f:env": {'k:{"name":"K"}': {}}}
    assert remove(live, gone, DEPLOYMENT) == {
        "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}},
    }


def test_without_a_schema_maps_merge_and_lists_are_whole() -> None:
    assert members(field_set({"a": {"b": [1, {"c": 2}], "d": {}}}, None)) == {".a", ".a.b", ".a.d"}
    assert merge({"a": {"x": 1}, "l": [1, 2]}, {"a": {"y": 2}, "l": [3]}, None) == {"a": {"x": 1, "y": 2}, "l": [3]}
