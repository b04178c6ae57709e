"""What a pod may not say about its volumes, its own fields and where it goes, in upstream's words."""

from typing import Any

import pytest
from tests.localcluster_schema.test_validation import problems


def pod_problems(spec: dict[str, Any], **container: Any) -> list[str]:
    made = {"containers": [{"name": "c", "image": "i", **container}], **spec}
    return problems("", "v1", "Pod", {"spec": made})


@pytest.mark.parametrize(
    ("toleration", "words"),
    [
        ({"operator": "Exists", "value": "x"}, 'operator: Invalid value: "x": value must be empty when `operator` is '),
        ({"operator": "Equal"}, 'operator: Invalid value: "Equal": operator must be Exists when `key` is empty'),
        ({"key": "a", "operator": "Near"}, 'operator: Unsupported value: "Near": supported values: "Equal", "Exists"'),
        ({"key": "a", "tolerationSeconds": 5}, "effect: Invalid value: \"\": effect must be 'NoExecute'"),
        ({"key": "a", "effect": "No"}, 'effect: Unsupported value: "No": supported values: "NoSchedule", '),
        ({"key": "a b", "value": "x"}, 'key: Invalid value: "a b": name part must consist of'),
        ({"key": "a", "value": "x y"}, 'operator: Invalid value: "x y": a valid label must be'),
    ],
)
def test_tolerations(toleration: dict[str, Any], words: str) -> None:
    (found,) = pod_problems({"tolerations": [toleration]})
    assert found.startswith(f"spec.tolerations[0].{words}")


def node_terms(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def expression(**fields: Any) -> dict[str, Any]:
    return node_terms({"matchExpressions": [{"key": "disk", **fields}]})


_TERMS = "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"


@pytest.mark.parametrize(
    ("affinity", "words"),
    [
        (node_terms(), f"{_TERMS}: Required value: must have at least one node selector term"),
        (expression(operator="In"), f"{_TERMS}[0].matchExpressions[0].values: Required value: must be specified when"),
        (expression(operator="Exists", values=["x"]), f"{_TERMS}[0].matchExpressions[0].values: Forbidden: may not be"),
        (expression(operator="Gt", values=["1", "2"]), f"{_TERMS}[0].matchExpressions[0].values: Required value: must"),
        (expression(operator="Like"), f'{_TERMS}[0].matchExpressions[0].operator: Invalid value: "Like": not a valid'),
        (
            node_terms({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["n"]}]}),
            f'{_TERMS}[0].matchFields[0].key: Invalid value: "spec.x": not a valid field selector key',
        ),
        (
            {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}},
            "nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the",
        ),
    ],
)
def test_affinity(affinity: dict[str, Any], words: str) -> None:
    (found,) = pod_problems({"affinity": affinity})
    assert found.startswith(f"spec.affinity.{words}")


def test_pod_affinity_needs_a_topology() -> None:
    term = {"labelSelector": {"matchLabels": {"app": "web"}}}
    spec = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    field = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey"
    assert pod_problems(spec)[0] == f"{field}: Required value: can not be empty"
    term["topologyKey"] = "kubernetes.io/hostname"  # type: ignore[assignment]
    assert pod_problems(spec) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("metadata.name", ""),
        ("metadata.labels['app']", ""),
        (
            "spec.nosuch",
            '.fieldPath: Invalid value: "spec.nosuch": error converting fieldPath: field label not supported',
        ),
        ("spec.nodeName['a']", ".fieldPath: Invalid value: \"spec.nodeName['a']\": error converting fieldPath: field "),
        ("metadata.labels", '.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", '),
        ("metadata.labels['a b']", ': Invalid value: "a b": name part must consist of'),
    ],
)
def test_fields_of_the_pod_in_its_environment(path: str, words: str) -> None:
    found = pod_problems({}, env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}])
    field = f"spec.containers[0].env[0].valueFrom.fieldRef{words}"
    assert (found == []) if not words else (len(found) == 1 and found[0].startswith(field)), found


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMap": {"name": "x", "items": [{"key": "a", "path": "../b"}]}}, ".items[0].path: Invalid value: "),
        ({"configMap": {"name": "x", "items": [{"key": "a", "path": "..b"}]}}, ".items[0].path: Invalid value: "),
        ({"configMap": {"name": "x", "items": [{"key": "a", "path": "/b"}]}}, ".items[0].path: Invalid value: "),
        ({"secret": {"secretName": "x", "items": [{"path": "b"}]}}, ".items[0].key: Required value"),
        ({"secret": {"secretName": "x", "defaultMode": 0o1777}}, ".defaultMode: Invalid value: 1023: must be a number"),
        ({"persistentVolumeClaim": {}}, ".claimName: Required value"),
        ({"hostPath": {"path": "/a/../b"}}, ".path: Invalid value: \"/a/../b\": must not contain '..'"),
        ({"projected": {"sources": [{"serviceAccountToken": {}}]}}, ".sources[0].serviceAccountToken.path: Required"),
        ({"downwardAPI": {"items": [{"path": "a"}]}}, ".items[0]: Required value: one of fieldRef and"),
    ],
)
def test_volumes(source: dict[str, Any], words: str) -> None:
    (found,) = pod_problems({"volumes": [{"name": "v", **source}]})
    assert found.startswith(f"spec.volumes[0].{next(iter(source))}{words}")


def test_hooks_do_one_thing() -> None:
    assert pod_problems({}, lifecycle={"preStop": {}}) == [
        "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"
    ]
    both = {"exec": {"command": ["a"]}, "httpGet": {"port": 80}}
    assert pod_problems({}, lifecycle={"postStart": both}) == [
        "spec.containers[0].lifecycle.postStart.httpGet: Forbidden: may not specify more than 1 handler type"
    ]


def test_a_negative_grace_period_is_one_second() -> None:
    from flyball.localcluster import schema

    kind = schema.find_kind("", "v1", "Pod")
    assert kind is not None
    pod = {"spec": {"containers": [], "terminationGracePeriodSeconds": -7}}
    schema.default(kind, pod)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 1


def test_tolerations_may_be_added_and_nothing_else_of_the_placement_changed() -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"key": "a", "operator": "Exists"}]}
    added = {**spec, "tolerations": [*spec["tolerations"], {"key": "b", "operator": "Exists"}]}
    assert problems("", "v1", "Pod", {"spec": added}, {"spec": spec}) == []
    assert len(problems("", "v1", "Pod", {"spec": spec}, {"spec": added})) == 1
    assert len(problems("", "v1", "Pod", {"spec": {**spec, "nodeName": "n"}}, {"spec": spec})) == 1
