"""The kind table, unknown and wrongly typed fields, patch schemas."""

import copy
import subprocess
import sys
from typing import Any

import pytest

from flyball.localcluster import schema


def kind(name: str, group: str = "apps", version: str = "v1") -> schema.Kind:
    found = schema.find_kind(group, version, name)
    assert found is not None, (group, version, name)
    return found


DEPLOYMENT = kind("Deployment")


def test_one_kind_served_in_two_versions_or_groups_shares_a_store() -> None:
    hpas = {k.version: k.store for k in schema.KINDS if k.kind == "HorizontalPodAutoscaler"}
    assert hpas == {"v2": "autoscaling/horizontalpodautoscalers", "v1": "autoscaling/horizontalpodautoscalers"}
    assert kind("Event", "").store == kind("Event", "events.k8s.io").store == "/events"


def test_find_by_plural_and_by_kind_agree_and_miss_the_unknown() -> None:
    for one in schema.KINDS:
        assert schema.find(one.group, one.version, one.plural) is one
        assert schema.find_kind(one.group, one.version, one.kind) is one
    assert schema.find("apps", "v1beta1", "deployments") is None
    assert schema.find_kind("", "v1", "Deployment") is None


def test_table_holds_what_discovery_needs() -> None:
    assert DEPLOYMENT.short_names == ("deploy",)
    assert DEPLOYMENT.categories == ("all",)
    assert set(DEPLOYMENT.subresources) == {"scale", "status"}
    assert not kind("Node", "").namespaced
    assert kind("SelfSubjectAccessReview", "authorization.k8s.io").verbs == ("create",)
    assert {"log", "exec", "portforward", "eviction", "binding", "status", "ephemeralcontainers"} <= set(
        kind("Pod", "").subresources
    )


def test_every_built_in_kind_but_the_operator_s_has_a_definition() -> None:
    schemaless = {k.group for k in schema.KINDS if schema.patch_schema(k) is None}
    assert schemaless == {"monitoring.coreos.com"}


def test_unknown_fields_are_named_by_their_path() -> None:
    obj = {
        "spec": {
            "minReplicaz": 1,
            "selector": {"matchLabels": {"any-key": "x"}},
            "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x", "env": [{"nam": "x"}]}]}},
        }
    }
    assert schema.validate_fields(DEPLOYMENT, obj) == [
        'unknown field "spec.minReplicaz"',
        'unknown field "spec.template.spec.containers[1].imagee"',
        'unknown field "spec.template.spec.containers[1].env[0].nam"',
    ]


def test_prune_removes_exactly_the_unknown_fields() -> None:
    obj: dict[str, Any] = {"spec": {"replicas": 2, "nope": {"deep": 1}}, "metadata": {"labels": {"a": "b"}}}
    schema.prune(DEPLOYMENT, obj)
    assert obj == {"spec": {"replicas": 2}, "metadata": {"labels": {"a": "b"}}}


def test_a_crd_s_own_schema_and_raw_extensions_take_any_field() -> None:
    crd = {
        "spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"x": {"x-kubernetes-foo": 1}}}}}]},
    }
    assert schema.validate_fields(kind("CustomResourceDefinition", "apiextensions.k8s.io"), crd) == []
    assert schema.validate_fields(kind("ControllerRevision"), {"data": {"any": {"thing": 1}}}) == []
    assert schema.validate_fields(kind("ServiceMonitor", "monitoring.coreos.com"), {"spec": {"x": 1}}) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"replicas": "3"},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        ({"paused": 1}, "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool"),
        (
            {"template": {"spec": {"containers": {}}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type "
            "[]v1.Container",
        ),
        (
            {"replicas": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"replicas": 2**31},
            "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"selector": []},
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.selector of type v1.LabelSelector",
        ),
    ],
)
def test_wrong_json_types_in_go_s_words(spec: dict[str, Any], words: str) -> None:
    assert schema.type_errors(DEPLOYMENT, {"spec": spec}) == [words]


def test_quantities_ports_and_nulls_of_every_legal_type_pass() -> None:
    container = {
        "name": "a",
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 0.5}},
        "livenessProbe": {"httpGet": {"port": "http"}},
        "readinessProbe": {"httpGet": {"port": 80}},
        "command": None,
    }
    obj = {"spec": {"replicas": None, "template": {"spec": {"containers": [container]}}}}
    assert schema.type_errors(DEPLOYMENT, obj) == []
    container["resources"] = {"limits": {"cpu": "lots"}}
    assert schema.type_errors(DEPLOYMENT, obj) == [
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    ]


def test_label_values_must_be_text() -> None:
    errors = schema.type_errors(DEPLOYMENT, {"metadata": {"labels": {"a": 1}}})
    assert errors == ["json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"]


def test_metadata_has_types_even_in_schemaless_kinds() -> None:
    errors = schema.type_errors(kind("ServiceMonitor", "monitoring.coreos.com"), {"metadata": {"labels": 3}, "spec": 1})
    assert errors == [
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type map[string]string"
    ]


def test_patch_schema_knows_merge_keys_and_strategies() -> None:
    root = schema.patch_schema(DEPLOYMENT)
    assert root is not None

    def at(*path: str) -> schema.PatchNode:
        node = root
        for name in path:
            node = node.property(name) if node is not None else None
        assert node is not None, path
        return node

    containers = at("spec", "template", "spec", "containers")
    assert (containers.patch_strategy, containers.merge_key) == ("merge", "name")
    item = containers.items()
    assert item is not None
    ports = item.property("ports")
    assert ports is not None and ports.merge_key == "containerPort"
    assert ports.list_map_keys == ("containerPort", "protocol")
    volumes = at("spec", "template", "spec", "volumes")
    assert volumes.patch_strategy == "merge,retainKeys"
    assert at("spec", "strategy").patch_strategy == "retainKeys"
    assert at("metadata", "finalizers").patch_strategy == "merge"
    assert at("spec", "selector").map_type == "atomic"
    assert at("spec").property("nope") is None
    label = at("metadata", "labels").property("any")
    assert label is not None and label.type == "string"
    assert (item.patch_strategy, item.items()) == ("", None)


def test_checks_leave_the_object_alone() -> None:
    obj = {"spec": {"replicas": None, "template": {"spec": {"containers": [{"name": 1}]}}}}
    before = copy.deepcopy(obj)
    schema.validate_fields(DEPLOYMENT, obj)
    schema.type_errors(DEPLOYMENT, obj)
    assert obj == before


def test_import_reads_no_data_files_and_no_heavy_module() -> None:
    code = (
        "import sys, flyball.localcluster.schema as s; s.find('', 'v1', 'pods');"
        "print([m for m in ('msgspec', 'gzip', 'decimal', 'flyball.localcluster.schema.fields') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
