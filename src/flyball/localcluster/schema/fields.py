"""What the OpenAPI definitions say about an object's fields: unknown ones, wrongly typed ones, patch behaviour.

The definitions are those of Kubernetes 1.37 (see ``tools/schema/definitions.py``), read on first use. Kinds without
one (monitoring.coreos.com) are schemaless: nothing is unknown there and lists are replaced by patches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from flyball.localcluster.schema import quantity
from flyball.localcluster.schema.kinds import Kind

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
OBJECT_META = _META + "ObjectMeta"


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """Definition name ("io.k8s.api.apps.v1.DeploymentSpec") -> node; ``$ref`` holds a bare definition name."""
    found = packaged("definitions-1.37.json.gz")
    for name in ("ContainerPort", "ServicePort"):  # the one default that identifies a list's elements
        found[f"io.k8s.api.core.v1.{name}"]["properties"]["protocol"]["default"] = "TCP"
    return found


@cache
def go_fields() -> dict[str, dict[str, Any]]:
    """Go's types: ``packages`` (apiVersion -> package) and ``messages`` (type -> number -> JSON name, type, flags)."""
    return packaged("protobuf-1.37.json.gz")


def packaged(name: str) -> dict[str, dict[str, Any]]:
    """A packaged ``.json.gz`` file. The readers are imported here: most commands never need them."""
    import gzip
    from pathlib import Path

    import msgspec

    packed = Path(__file__).with_name(name).read_bytes()
    loaded: dict[str, dict[str, Any]] = msgspec.json.decode(gzip.decompress(packed))
    return loaded


@cache
def _names() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) -> definition name; shared meta kinds (DeleteOptions...) are left out."""
    found = {}
    for name, node in definitions().items():
        gvks = node.get("x-kubernetes-group-version-kind", ())
        if len(gvks) == 1:
            found[gvks[0]["group"], gvks[0]["version"], gvks[0]["kind"]] = name
    return found


def definition_name(group: str, version: str, kind: str) -> str | None:
    """The definition of a kind (or of its list), None when it is schemaless."""
    return _names().get((group, version, kind))


def _root(kind: Kind) -> dict[str, Any] | None:
    name = definition_name(kind.group, kind.version, kind.kind)
    return {"$ref": name} if name else None


_META_ONLY: dict[str, Any] = {
    "type": "object",
    "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": OBJECT_META}},
}


def _root_or_meta(kind: Kind) -> dict[str, Any]:
    """Of schemaless kinds only the metadata has types."""
    return _root(kind) or _META_ONLY


def _resolved(node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(definition name or "", node behind the reference)."""
    name = node.get("$ref", "")
    return (name, definitions()[name]) if name else ("", node)


# --- unknown fields -------------------------------------------------------------------------------------------------


def validate_fields(kind: Kind, obj: dict[str, Any]) -> list[str]:
    """Unknown fields in upstream's words, in document order: ``unknown field "spec.minReplicaz"``.

    For ``fieldValidation=Strict`` (reject) and ``Warn`` (warn). Empty for schemaless kinds.
    """
    root = _root(kind)
    return [] if root is None else [f'unknown field "{path}"' for path, _, _ in unknown(root, obj, "")]


def prune(kind: Kind, obj: dict[str, Any]) -> None:
    """Remove unknown fields in place, as decoding into Go structs does."""
    root = _root(kind)
    if root is not None:
        for _, holder, key in list(unknown(root, obj, "")):
            del holder[key]


def unknown(node: dict[str, Any], value: Any, path: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Undeclared fields below a node of the definitions: (path, the object that holds it, its name)."""
    name, node = _resolved(node)
    if isinstance(value, dict):
        properties = node.get("properties")
        extra = node.get("additionalProperties")
        if properties is None:
            if isinstance(extra, dict) and ("$ref" in extra or extra.get("type") in ("object", "array")):
                for key, item in value.items():
                    yield from unknown(extra, item, f"{path}.{key}" if path else key)
            return
        if node.get("x-kubernetes-preserve-unknown-fields") or name.endswith(".JSONSchemaProps"):
            return
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            child = properties.get(key)
            if child is None:
                yield where, value, key
            elif isinstance(item, (dict, list)):
                yield from unknown(child, item, where)
    elif isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            if isinstance(item, (dict, list)):
                yield from unknown(node["items"], item, f"{path}[{index}]")


# --- JSON types -----------------------------------------------------------------------------------------------------


def type_errors(kind: Kind, obj: dict[str, Any]) -> list[str]:
    """Values of the wrong JSON type in Go's words, in document order.

    ``json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32``. Upstream stops at
    the first one; callers show ``[0]``. A null is always accepted.
    """
    return list(_mistyped(_root_or_meta(kind), obj, "", ""))


_JSON_NAMES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}


def json_name(value: Any) -> str:
    """What Go's decoder calls a value: object, array, string, number, bool."""
    return _JSON_NAMES.get(type(value), "value")


def _go_type(node: dict[str, Any]) -> str:
    name, inner = _resolved(node)
    if name and "properties" in inner:
        parts = name.split(".")
        return f"{parts[-2]}.{parts[-1]}"
    kind = inner.get("type")
    if kind == "integer":
        return str(inner.get("format") or "int64")
    if kind == "number":
        return "float64"
    if kind == "boolean":
        return "bool"
    if kind == "array":
        return "[]" + _go_type(inner.get("items", {}))
    if kind == "object":
        return "map[string]" + _go_type(inner.get("additionalProperties") or {"type": "string"})
    return "string"


def _mistyped(node: dict[str, Any], value: Any, struct: str, path: str) -> Iterator[str]:
    if value is None:
        return
    name, inner = _resolved(node)
    if name == QUANTITY:
        problem: str | None = _quantity_problem(value)
        if problem:
            yield problem
        return
    if name == INT_OR_STRING or inner.get("format") == "int-or-string":
        if not isinstance(value, str) and (isinstance(value, bool) or not isinstance(value, int)):
            yield _cannot(value, struct, path, "int32")
        return
    wanted = inner.get("type")
    if wanted is None or name.endswith((".JSONSchemaProps", ".JSON", "OrArray", "OrBool", "OrStringArray")):
        return
    if wanted == "object":
        if not isinstance(value, dict):
            yield _cannot(value, struct, path, _go_type(node))
            return
        properties, extra = inner.get("properties"), inner.get("additionalProperties")
        owner = name.rsplit(".", 1)[-1] if name else struct
        if properties is not None:
            for key, item in value.items():
                if key in properties:
                    yield from _mistyped(properties[key], item, owner, f"{path}.{key}" if path else key)
        elif isinstance(extra, dict):
            for item in value.values():
                yield from _mistyped(extra, item, owner, path)
    elif wanted == "array":
        if not isinstance(value, list):
            yield _cannot(value, struct, path, _go_type(node))
            return
        for item in value:
            yield from _mistyped(inner.get("items", {}), item, struct, path)
    else:
        problem = _scalar_problem(inner, wanted, value)
        if problem is not None:
            yield problem or _cannot(value, struct, path, _go_type(node))


def _cannot(value: Any, struct: str, path: str, go_type: str) -> str:
    """Go's words for a value that does not fit; a number that does not fit is shown."""
    got = json_name(value)
    if got == "number" and go_type in ("int32", "int64"):
        got = f"number {int(value) if float(value).is_integer() else value}"
    where = f"Go struct field {struct}.{path}" if path else "Go value"
    return f"json: cannot unmarshal {got} into {where} of type {go_type}"


def _quantity_problem(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return quantity.NOT_A_QUANTITY
    try:
        quantity.parse(value)
    except ValueError as error:
        return str(error)
    return ""


def _scalar_problem(node: dict[str, Any], wanted: str, value: Any) -> str | None:
    """What is wrong with a text, number or truth value: "" for its type, None for nothing."""
    fine = True
    if wanted == "string":
        if isinstance(value, str) and node.get("format") == "date-time" and not _is_time(value):
            return f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
        fine = isinstance(value, str)
        if fine and node.get("format") == "byte":
            return _base64_problem(value)
    elif wanted == "boolean":
        fine = isinstance(value, bool)
    elif wanted == "integer":
        fine = isinstance(value, (int, float)) and not isinstance(value, bool)
        fine = fine and float(value).is_integer() and _fits(int(value), str(node.get("format") or "int64"))
    elif wanted == "number":
        fine = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if fine else ""


_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=\r\n]")


def _base64_problem(text: str) -> str | None:
    """In Go's words, which name the byte."""
    foreign = _NOT_BASE64.search(text)
    if foreign is not None:
        return f"illegal base64 data at input byte {foreign.start()}"
    plain = text.replace("\r", "").replace("\n", "")
    padding = plain.find("=")
    if padding >= 0 and plain[padding:] not in ("=", "=="):
        return f"illegal base64 data at input byte {padding}"
    return f"illegal base64 data at input byte {len(plain) // 4 * 4}" if len(plain) % 4 else None


def _fits(value: int, size: str) -> bool:
    bits = 31 if size == "int32" else 63
    return bool(-(2**bits) <= value < 2**bits)


def _is_time(text: str) -> bool:
    from datetime import datetime  # kept off the import path of the package

    if text == "":
        return False
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


# --- patches --------------------------------------------------------------------------------------------------------


# Structs held by value: Go's JSON writes them even when they are empty.
_NEVER_OMITTED = frozenset(
    {"metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "resources", "loadBalancer"}
)


class PatchNode:
    """Where a strategic merge or an apply patch stands in a schema. Nodes below are made once."""

    __slots__ = ("_below", "_inner", "_is_struct", "_outer", "associative_keys", "map_type")

    def __init__(self, node: dict[str, Any]) -> None:
        self._outer = node
        name, self._inner = _resolved(node)
        self._is_struct = bool(name)
        self._below: dict[str | None, PatchNode | None] = {}  # by a field's name; None: a list's elements
        self.associative_keys = self._associative_keys()
        #: "atomic" for objects that server-side apply owns as a whole, else "granular" or "".
        self.map_type = str(self._extension("x-kubernetes-map-type") or "")

    def items(self) -> PatchNode | None:
        """The schema of a list's elements; None when this is no list."""
        if None not in self._below:
            child = self._inner.get("items")
            self._below[None] = PatchNode(child) if isinstance(child, dict) else None
        return self._below[None]

    def _extension(self, name: str) -> Any:
        return self._outer.get(name, self._inner.get(name))

    @property
    def type(self) -> str:
        """One of "object", "array", "string"..., "" where any is allowed."""
        return str(self._inner.get("type") or "")

    @property
    def patch_strategy(self) -> str:
        """One of "merge", "retainKeys", "merge,retainKeys", "replace", or "" when none is given."""
        return str(self._extension("x-kubernetes-patch-strategy") or "")

    @property
    def merge_key(self) -> str:
        """The field that identifies a list's element in a strategic merge patch, "" when none."""
        return str(self._extension("x-kubernetes-patch-merge-key") or "")

    @property
    def list_type(self) -> str:
        """One of "map", "set", "atomic", or "" (then server-side apply treats the list as atomic)."""
        return str(self._extension("x-kubernetes-list-type") or "")

    @property
    def list_map_keys(self) -> tuple[str, ...]:
        """The fields that identify a list's element in server-side apply."""
        return tuple(self._extension("x-kubernetes-list-map-keys") or ())

    def _associative_keys(self) -> tuple[str, ...] | None:
        """What tells a list's elements apart in server-side apply; () their value; None: the list is owned whole."""
        kind = self.list_type
        if kind == "map":
            return self.list_map_keys
        if kind == "set":
            return ()
        if not kind and "merge" in self.patch_strategy.split(","):
            return (self.merge_key,) if self.merge_key else ()
        return None

    def is_named(self, name: str) -> bool:
        """Whether the schema declares this field by name (a map's keys are not declared)."""
        return name in (self._inner.get("properties") or ())

    def is_always_present(self, name: str) -> bool:
        """Whether Go writes this field of a struct even when nothing is in it."""
        if not self._is_struct:  # a custom resource is a map; only its metadata is a struct
            return name == "metadata"
        return name in _NEVER_OMITTED or (self.is_named(name) and name in (self._inner.get("required") or ()))

    def default_of(self, name: str) -> Any:
        """The default of one field, None without one (list keys such as ``protocol`` need it)."""
        child = self.property(name)
        return None if child is None else child._outer.get("default", child._inner.get("default"))

    # Last in the class, since it hides the builtin decorator used above.
    def property(self, name: str) -> PatchNode | None:
        """The schema of a field (or of a map's value); None when unknown."""
        properties = self._inner.get("properties")
        known = name if properties is not None else ""  # a map has as many keys as users like
        if known not in self._below:
            child = properties.get(name) if properties is not None else self._inner.get("additionalProperties")
            if not isinstance(child, dict):
                return None
            self._below[known] = PatchNode(child)
        return self._below[known]


@cache
def patch_schema(kind: Kind) -> PatchNode | None:
    """The root node of a kind for patches; None for schemaless kinds (lists are then replaced whole)."""
    root = _root(kind)
    return None if root is None else PatchNode(root)
