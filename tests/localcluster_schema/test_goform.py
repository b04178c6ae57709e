"""Objects in the form Go would write: which zero values stand there, which do not."""

from typing import Any

import pytest

from flyball.localcluster.schema import find_kind, goform


def written(api_version: str, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    group, _, version = api_version.rpartition("/")
    found = find_kind(group, version, kind)
    assert found is not None
    goform.normalise(found, obj)
    return obj


def pod_spec(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    made = written("v1", "Pod", {"metadata": {}, "spec": {"containers": [container], **spec}})
    return made["spec"]


def test_what_a_client_left_out_is_written_where_go_has_no_word_for_absent() -> None:
    assert written("v1", "Node", {}) == {
        "metadata": {},
        "spec": {},
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": dict.fromkeys(
                (
                    "machineID",
                    "systemUUID",
                    "bootID",
                    "kernelVersion",
                    "osImage",
                    "containerRuntimeVersion",
                    "kubeletVersion",
                    "kubeProxyVersion",
                    "operatingSystem",
                    "architecture",
                ),
                "",
            ),
        },
    }
    status = written("autoscaling/v2", "HorizontalPodAutoscaler", {"status": {}})["status"]
    assert status == {"desiredReplicas": 0, "currentMetrics": None}
    for given in ({}, {"rules": []}):  # etcd's bytes know no empty list
        assert written("rbac.authorization.k8s.io/v1", "ClusterRole", given)["rules"] is None
    (condition,) = written("v1", "Pod", {"status": {"conditions": [{"type": "Ready"}]}})["status"]["conditions"]
    assert condition == {"type": "Ready", "status": "", "lastProbeTime": None, "lastTransitionTime": None}


def test_what_is_empty_goes_where_go_leaves_it_out() -> None:
    mount = {"name": "v", "mountPath": "/v", "readOnly": False, "subPath": ""}
    spec = pod_spec({"name": "c", "image": "", "args": [], "volumeMounts": [mount], "env": None}, hostNetwork=False)
    assert spec == {"containers": [{"name": "c", "resources": {}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}
    made = written("v1", "ConfigMap", {"metadata": {"labels": {}, "creationTimestamp": None}, "data": {}})
    assert made == {"metadata": {}}


def test_pointers_keep_their_zero() -> None:
    spec = pod_spec({"name": "c", "stdin": False}, terminationGracePeriodSeconds=0, automountServiceAccountToken=False)
    assert spec["terminationGracePeriodSeconds"] == 0 and spec["automountServiceAccountToken"] is False
    assert "stdin" not in spec["containers"][0]


@pytest.mark.parametrize(
    ("amount", "text"), [("1.5Gi", "1536Mi"), ("0.5", "500m"), (2, "2"), ("1000m", "1"), ("1e3", "1e3"), (None, "0")]
)
def test_quantities_are_canonical(amount: Any, text: str) -> None:
    spec = pod_spec({"name": "c", "resources": {"limits": {"memory": amount}}})
    assert spec["containers"][0]["resources"] == {"limits": {"memory": text}}


def test_embedded_structs_are_part_of_their_holder() -> None:
    spec = pod_spec({"name": "c"}, volumes=[{"name": "v", "secret": {"secretName": "", "optional": False}}])
    assert spec["volumes"] == [{"name": "v", "secret": {"optional": False}}]
    spec = pod_spec({"name": "c"}, ephemeralContainers=[{"name": "debug", "tty": False, "targetContainerName": "c"}])
    assert spec["ephemeralContainers"] == [{"name": "debug", "resources": {}, "targetContainerName": "c"}]


def test_nulls_in_maps_and_lists_are_zero_values() -> None:
    assert written("v1", "ConfigMap", {"data": {"a": None}})["data"] == {"a": ""}
    assert pod_spec({"name": "c", "env": [None]})["containers"][0]["env"] == [{"name": ""}]


def test_only_what_differs_from_the_stored_object_is_looked_at() -> None:
    kind = find_kind("", "v1", "ConfigMap")
    assert kind is not None
    stored = {"metadata": {"name": "a"}, "data": {"a": "b"}}
    new = {"metadata": {"name": "a", "labels": {}}, "data": {"a": "b"}, "binaryData": {}}
    goform.normalise(kind, new, stored)
    assert new == stored
    node = find_kind("", "v1", "Node")
    assert node is not None
    new = {"metadata": {"name": "n"}}
    goform.normalise(node, new, {"metadata": {"name": "n"}})
    assert new["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}


def test_kinds_without_a_go_type_keep_their_content() -> None:
    rule = {"metadata": {"labels": {}}, "spec": {"groups": [], "empty": None, "none": ""}}
    assert written("monitoring.coreos.com/v1", "PrometheusRule", rule) == {
        "metadata": {},
        "spec": {"groups": [], "empty": None, "none": ""},
    }
