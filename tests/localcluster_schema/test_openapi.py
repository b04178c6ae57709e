"""OpenAPI v3 documents, as far as kubectl reads them."""

import json
import re

import pytest

from flyball.localcluster import schema


@pytest.mark.parametrize(
    ("group", "version"), sorted({(k.group, k.version) for k in schema.KINDS}), ids=lambda part: part or "core"
)
def test_every_reference_resolves_and_every_kind_can_be_applied(group: str, version: str) -> None:
    document = schema.openapi_v3(group, version, schema.KINDS)
    components = document["components"]["schemas"]
    text = json.dumps(document)
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(components)
    explained = {gvk["kind"] for node in components.values() for gvk in node.get("x-kubernetes-group-version-kind", ())}
    patched = {}
    for item in document["paths"].values():
        if "patch" in item:
            gvk = item["patch"]["x-kubernetes-group-version-kind"]
            patched[gvk["kind"]] = {one["name"] for one in item["patch"]["parameters"]}
    for kind in schema.KINDS:
        if (kind.group, kind.version) == (group, version):
            assert kind.kind in explained
            if "patch" in kind.verbs:
                assert {"fieldValidation", "dryRun", "fieldManager"} <= patched[kind.kind]


def test_paths_follow_scope_and_subresources() -> None:
    paths = schema.openapi_v3("apps", "v1", schema.KINDS)["paths"]
    one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    assert paths[one]["get"]["x-kubernetes-action"] == "get"
    assert paths[f"{one}/scale"]["put"]["x-kubernetes-group-version-kind"]["kind"] == "Scale"
    assert "/apis/apps/v1/deployments" in paths
    core = schema.openapi_v3("", "v1", schema.KINDS)["paths"]
    assert "/api/v1/nodes/{name}" in core and "/api/v1/namespaces/{namespace}/nodes" not in core
    assert core["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]


def test_a_custom_kind_is_published_with_its_own_schema() -> None:
    kind = schema.Kind("example.com", "v1", "Widget", "widgets", "widget", store="example.com/widgets")
    given = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    document = schema.openapi_v3("example.com", "v1", [kind], {"Widget": given})
    widget = document["components"]["schemas"]["com.example.v1.Widget"]
    assert widget["properties"]["spec"] == given["properties"]["spec"]
    assert "metadata" in widget["properties"]
    assert widget["x-kubernetes-group-version-kind"] == [{"group": "example.com", "version": "v1", "kind": "Widget"}]
    assert "apiVersion" not in given["properties"], "the caller's schema is not changed"


def test_references_with_siblings_become_all_of() -> None:
    schemas = schema.openapi_v3("apps", "v1", schema.KINDS)["components"]["schemas"]
    selector = schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["selector"]
    assert selector["allOf"] == [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"}]
    assert selector["description"].startswith("Label selector for pods")


def test_a_custom_resource_offers_no_strategic_merge_patch() -> None:
    kind = next(kind for kind in schema.KINDS if kind.kind == "ServiceMonitor")
    given = {"ServiceMonitor": {"type": "object"}}
    for schemas, offered in ((given, False), (None, True)):
        document = schema.openapi_v3(kind.group, kind.version, [kind], schemas)
        patches = [item["patch"]["requestBody"]["content"] for item in document["paths"].values() if "patch" in item]
        assert patches and all(("application/strategic-merge-patch+json" in types) == offered for types in patches)
