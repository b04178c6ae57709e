"""OpenAPI v3 documents, one per group version, as ``kubectl apply`` and ``explain`` read them.

Paths are made from the kind table, schemas come from the packaged definitions. kubectl looks for the query parameter
``fieldValidation`` on a PATCH whose ``x-kubernetes-group-version-kind`` is the object's, and finds an explained kind by
a path's plural and the ``x-kubernetes-group-version-kind`` of a schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyball.localcluster.schema import fields
from flyball.localcluster.schema.kinds import SUBRESOURCE_KINDS, Kind

Node = dict[str, Any]
_REF = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def openapi_v3(
    group: str, version: str, kinds: Iterable[Kind], schemas: Mapping[str, Node] | None = None
) -> dict[str, Any]:
    """The document of one group version.

    ``kinds`` are those served there, built in or from CustomResourceDefinitions; ``schemas`` maps the kind name of the
    latter to its ``openAPIV3Schema``. A kind with neither is described as an object that preserves unknown fields.
    """
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    paths: dict[str, Any] = {}
    wanted: list[str] = [_META + "DeleteOptions", _META + "Status"]
    components: dict[str, Node] = {}
    for kind in kinds:
        if (kind.group, kind.version) != (group, version):
            continue
        name = fields.definition_name(group, version, kind.kind)
        if name is None or (schemas is not None and kind.kind in schemas):
            name = _custom_name(kind)
            given = None if schemas is None else schemas.get(kind.kind)
            components[name] = _custom(kind, given)
            components[name + "List"] = _custom_list(kind, name)
            wanted += [_META + "ObjectMeta", _META + "ListMeta"]
        else:
            wanted.append(name)
            listed = fields.definition_name(group, version, kind.list_kind)
            wanted += [listed] if listed else []
        found = _paths(root, kind, name, wanted)
        if schemas is not None and kind.kind in schemas:
            _without_strategic(found)
        paths.update(found)
    _collect(wanted, components)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.37.0"},
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }


# --- schemas --------------------------------------------------------------------------------------------------------


def _collect(names: list[str], components: dict[str, Node]) -> None:
    """Add every definition that ``names`` reach."""
    definitions = fields.definitions()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in components or name not in definitions:
            continue
        components[name] = _published(definitions[name], queue)


def _published(node: Node, reached: list[str]) -> Node:
    """A definition in published form: full references, and ``allOf`` where a reference has siblings."""
    out: Node = {}
    for key, value in node.items():
        if key == "$ref":
            reached.append(value)
        elif key == "properties":
            out[key] = {name: _published(child, reached) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _published(value, reached)
        elif key in ("oneOf", "anyOf"):
            out[key] = [_published(child, reached) for child in value]
        else:
            out[key] = value
    if "$ref" in node:
        reference = {"$ref": _REF + node["$ref"]}
        return {"allOf": [reference], **out} if out else reference
    return out


def _gvk(group: str, version: str, kind: str) -> Node:
    return {"group": group, "version": version, "kind": kind}


def _custom_name(kind: Kind) -> str:
    """Upstream's name of a custom kind's schema: the group reversed ("com.coreos.monitoring.v1.Prometheus")."""
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


_API_VERSION = {"type": "string", "description": "The versioned schema of this representation of an object."}
_KIND = {"type": "string", "description": "The REST resource this object represents."}


_OBJECT_FIELDS: Node = {
    "apiVersion": _API_VERSION,
    "kind": _KIND,
    "metadata": {"allOf": [{"$ref": f"{_REF}{_META}ObjectMeta"}]},
}


def _with_embedded(node: Node) -> Node:
    """A copy of a structural schema in which whole objects within the object have their fields, too."""
    out = dict(node)
    if isinstance(node.get("properties"), dict):
        out["properties"] = {name: _with_embedded(child) for name, child in node["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), dict):
            out[name] = _with_embedded(node[name])
    if node.get("x-kubernetes-embedded-resource"):
        out["properties"] = {**(out.get("properties") or {}), **_OBJECT_FIELDS}
        out["required"] = [*(node.get("required") or ()), "apiVersion", "kind"]
    return out


def _custom(kind: Kind, given: Node | None) -> Node:
    schema: Node = _with_embedded(given) if given is not None else {"x-kubernetes-preserve-unknown-fields": True}
    schema["type"] = "object"
    schema["properties"] = {**(schema.get("properties") or {}), **_OBJECT_FIELDS}
    schema["x-kubernetes-group-version-kind"] = [_gvk(kind.group, kind.version, kind.kind)]
    return schema


def _custom_list(kind: Kind, name: str) -> Node:
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": _API_VERSION,
            "kind": _KIND,
            "metadata": {"allOf": [{"$ref": f"{_REF}{_META}ListMeta"}]},
            "items": {"type": "array", "items": {"$ref": _REF + name}},
        },
        "x-kubernetes-group-version-kind": [_gvk(kind.group, kind.version, kind.list_kind)],
    }


# --- paths ----------------------------------------------------------------------------------------------------------


def _query(name: str, kind: str, description: str) -> Node:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": True}}


def _in_path(name: str) -> Node:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}


_DRY_RUN = _query("dryRun", "string", "All: run every step but the write.")
_MANAGER = _query("fieldManager", "string", "The name of the actor that makes these changes.")
_VALIDATION = _query("fieldValidation", "string", "What to do with unknown or duplicate fields: Ignore, Warn, Strict.")
_FORCE = _query("force", "boolean", "Take over fields that another manager owns (apply patches only).")
_WRITE = (_DRY_RUN, _MANAGER, _VALIDATION)
_LIST = (
    _query("allowWatchBookmarks", "boolean", "Send BOOKMARK events."),
    _query("continue", "string", "Where the previous page ended."),
    _query("fieldSelector", "string", "Restrict the list by fields."),
    _query("labelSelector", "string", "Restrict the list by labels."),
    _query("limit", "integer", "At most this many objects."),
    _query("resourceVersion", "string", "Not older than this version."),
    _query("resourceVersionMatch", "string", "How resourceVersion is applied."),
    _query("sendInitialEvents", "boolean", "Begin a watch with the present state."),
    _query("timeoutSeconds", "integer", "End the call after this time."),
    _query("watch", "boolean", "Stream changes."),
)
_DELETE = (
    _DRY_RUN,
    _query("gracePeriodSeconds", "integer", "Seconds before the object is deleted."),
    _query("propagationPolicy", "string", "Orphan, Background or Foreground."),
)


def _operation(action: str, gvk: Node, parameters: Iterable[Node], answer: str, body: str = "") -> Node:
    operation: Node = {
        "parameters": list(parameters),
        "responses": {"200": {"description": "OK", "content": _content(answer)}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
    }
    if action == "patch":
        reference = {"schema": {"$ref": f"{_REF}{_META}Patch"}}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys(_PATCH_TYPES, reference)}
    elif body:
        operation["requestBody"] = {"required": True, "content": {"*/*": {"schema": {"$ref": _REF + body}}}}
    return operation


def _without_strategic(paths: dict[str, Any]) -> None:
    """Custom resources take no strategic merge patch; kubectl apply reads here which patch to send."""
    for item in paths.values():
        if "patch" in item:
            content = item["patch"]["requestBody"]["content"]
            item["patch"]["requestBody"]["content"] = {t: v for t, v in content.items() if "strategic" not in t}


def _content(name: str) -> Node:
    schema = {"schema": {"$ref": _REF + name}} if name else {"schema": {"type": "string"}}
    return {"application/json": schema}


def _paths(root: str, kind: Kind, name: str, wanted: list[str]) -> dict[str, Node]:
    gvk = _gvk(kind.group, kind.version, kind.kind)
    status, options = _META + "Status", _META + "DeleteOptions"
    listed = fields.definition_name(kind.group, kind.version, kind.list_kind) or name + "List"
    scope = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    common = [_in_path("namespace")] if kind.namespaced else []
    collection: Node = {"parameters": common}
    one: Node = {"parameters": [_in_path("name"), *common]}
    verbs = set(kind.verbs)
    if "list" in verbs:
        collection["get"] = _operation("list", gvk, _LIST, listed)
    if "create" in verbs:
        collection["post"] = _operation("post", gvk, _WRITE, name, name)
    if "deletecollection" in verbs:
        collection["delete"] = _operation("deletecollection", gvk, (*_LIST, *_DELETE), status, options)
    if "get" in verbs:
        one["get"] = _operation("get", gvk, (), name)
    if "update" in verbs:
        one["put"] = _operation("put", gvk, _WRITE, name, name)
    if "patch" in verbs:
        one["patch"] = _operation("patch", gvk, (*_WRITE, _FORCE), name)
        wanted.append(_META + "Patch")
    if "delete" in verbs:
        one["delete"] = _operation("delete", gvk, _DELETE, status, options)
    paths = {scope: collection}
    if len(one) > 1:
        paths[f"{scope}/{{name}}"] = one
    if kind.namespaced and "list" in verbs:
        paths[f"{root}/{kind.plural}"] = {"get": _operation("list", gvk, _LIST, listed)}
    for subresource in kind.subresources:
        paths[f"{scope}/{{name}}/{subresource}"] = _subresource(kind, subresource, name, common, wanted)
    return paths


def _subresource(kind: Kind, subresource: str, name: str, common: list[Node], wanted: list[str]) -> Node:
    item: Node = {"parameters": [_in_path("name"), *common]}
    group, version, carried = SUBRESOURCE_KINDS.get(subresource, (kind.group, kind.version, kind.kind))
    gvk = _gvk(group, version, carried)
    body = fields.definition_name(group, version, carried) if subresource in SUBRESOURCE_KINDS else name
    if body is None:  # streams (exec, portforward...) and logs have options, no body
        item["get"] = _operation("connect", gvk, (), "")
        item["post"] = _operation("connect", gvk, (), "")
        return item
    if subresource != name and body != name:
        wanted.append(body)
    if subresource == "log":
        item["get"] = _operation("get", gvk, (_query("container", "string", "Whose log."),), "")
    elif subresource in ("eviction", "binding", "token"):
        item["post"] = _operation("post", gvk, _WRITE, body, body)
    elif subresource == "finalize":
        item["put"] = _operation("put", gvk, _WRITE, body, body)
    else:
        item["get"] = _operation("get", gvk, (), body)
        item["put"] = _operation("put", gvk, _WRITE, body, body)
        item["patch"] = _operation("patch", gvk, (*_WRITE, _FORCE), body)
    return item
