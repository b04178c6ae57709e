"""Structural schemas of CustomResourceDefinitions: pruning, defaults and validation, in upstream's words.

Sources: apiextensions-apiserver's ``schema`` packages and kube-openapi's ``validation/errors`` of Kubernetes 1.37.
Functions take the version's ``openAPIV3Schema`` as it is written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from flyball.localcluster.schema import fields, rules
from flyball.localcluster.schema.fields import OBJECT_META, PatchNode
from flyball.localcluster.schema.validation.causes import (
    DUPLICATE,
    INVALID,
    INVALID_TYPE,
    REQUIRED,
    TOO_LONG,
    TOO_MANY,
    UNSUPPORTED,
    Cause,
    invalid,
    quoted,
    required,
)

Node = dict[str, Any]
Object = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_RULES_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
_BEFORE_RULES = (REQUIRED, INVALID_TYPE, UNSUPPORTED, TOO_LONG, TOO_MANY)
_ROOT_FIELDS = ("apiVersion", "kind", "metadata")


def patch_schema(schema: Node) -> PatchNode:
    """The schema as patches and server-side apply need it, with the metadata that every object has."""
    return PatchNode({**schema, "properties": {**(schema.get("properties") or {}), "metadata": {"$ref": OBJECT_META}}})


# --- unknown fields -------------------------------------------------------------------------------------------------


def unknown_fields(schema: Node, obj: Object) -> list[str]:
    """Fields that the schema does not declare, as ``unknown field "spec.sise"``."""
    return [f'unknown field "{path}"' for path, _, _ in _unknown_at_root(schema, obj)]


def prune(schema: Node, obj: Object) -> None:
    """Removes undeclared fields in place."""
    for _, holder, key in list(_unknown_at_root(schema, obj)):
        del holder[key]


def _unknown_at_root(schema: Node, obj: Object) -> Iterator[tuple[str, Object, str]]:
    yield from fields.unknown({"$ref": OBJECT_META}, obj.get("metadata"), "metadata")
    yield from _unknown(schema, obj, "", _ROOT_FIELDS)


def _unknown(node: Node, value: Any, path: str, known: tuple[str, ...] = ()) -> Iterator[tuple[str, Object, str]]:
    if isinstance(value, dict):
        properties, extra = node.get("properties") or {}, node.get("additionalProperties")
        if node.get("x-kubernetes-embedded-resource"):
            known = _ROOT_FIELDS
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            if key in known:
                continue
            child = properties.get(key, extra)
            if isinstance(child, dict):
                yield from _unknown(child, item, where)
            elif child is not True and not node.get(_PRESERVE):
                yield where, value, key
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(node.get("items") or {}, item, f"{path}[{index}]")


# --- defaults -------------------------------------------------------------------------------------------------------


def default(schema: Node, obj: Object) -> None:
    """In place: nulls where none may be go, and defaults fill what is absent."""
    _default(schema, obj)


def _default(node: Node, value: Any) -> None:
    if isinstance(value, dict):
        properties, extra = node.get("properties") or {}, node.get("additionalProperties")
        for name, child in properties.items():
            if value.get(name, ...) is None and not child.get("nullable"):
                del value[name]
            if name not in value and "default" in child:
                value[name] = copy.deepcopy(child["default"])
        for name, item in value.items():
            child = properties.get(name, extra)
            if isinstance(child, dict):
                _default(child, item)
    elif isinstance(value, list):
        for item in value:
            _default(node.get("items") or {}, item)


# --- values ---------------------------------------------------------------------------------------------------------


def validate(schema: Node, obj: Object, old: Object | None = None) -> list[Cause]:
    """What is wrong with an object's values; its metadata is checked elsewhere. ``old`` is what it replaces."""
    content = {key: value for key, value in obj.items() if key not in _ROOT_FIELDS}
    causes = list(_check({**schema, "required": _required_fields(schema)}, content, ""))
    if any(cause.type in _BEFORE_RULES for cause in causes) and _has_rules(schema):
        causes.append(Cause("<nil>", INVALID, f"null: {_RULES_NOT_CHECKED}"))
    return causes or list(_check_lists(schema, content, "")) or list(rules.broken(schema, obj, old))


def check_value(node: Node, value: Any) -> Iterator[Cause]:
    """What is wrong with a value that stands under no name: a default."""
    return _check(node, value, "")


def _has_rules(node: Any) -> bool:
    if isinstance(node, dict):
        return "x-kubernetes-validations" in node or any(map(_has_rules, node.values()))
    return isinstance(node, list) and any(map(_has_rules, node))


def _required_fields(schema: Node) -> list[str]:
    return [name for name in schema.get("required") or () if name not in _ROOT_FIELDS]


def _check(node: Node, value: Any, path: str) -> Iterator[Cause]:
    if value is None and node.get("nullable"):
        return
    wrong = _type_problem(node, value, path)
    if wrong is not None:
        yield wrong
        return
    if "enum" in node and value not in node["enum"]:
        shown = ", ".join(quoted(one) for one in node["enum"])
        yield Cause(path, UNSUPPORTED, f"{quoted(value)}: supported values: {shown}")
    if isinstance(value, str):
        yield from _check_text(node, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _check_number(node, value, path)
    elif isinstance(value, list):
        yield from _check_list(node, value, path)
    elif isinstance(value, dict):
        yield from _check_object(node, value, path)
    yield from _check_combined(node, value, path)


_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def _type_problem(node: Node, value: Any, path: str) -> Cause | None:
    found = _NAMES.get(type(value), "null")
    if node.get(_INT_OR_STRING):
        wanted = "" if found in ("integer", "string") else "integer,string"
    else:
        wanted = str(node.get("type") or "")
        if (wanted == "number" and found == "integer") or (wanted == "integer" and _is_whole(value)):
            wanted = ""
    if not wanted or wanted == found:
        return None
    return Cause(path, INVALID_TYPE, f'"{found}": {path} in body must be of type {wanted}: "{found}"')


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _says(path: str, value: Any, problem: str) -> Cause:
    return invalid(path, value, f"{path} in body {problem}")


def _check_text(node: Node, value: str, path: str) -> Iterator[Cause]:
    if len(value) > node.get("maxLength", len(value)):
        yield Cause(path, TOO_LONG, f"may not be more than {node['maxLength']} bytes")
    if len(value) < node.get("minLength", 0):
        yield _says(path, value, f"should be at least {node['minLength']} chars long")
    pattern = node.get("pattern")
    if pattern and not _pattern(pattern).search(value):
        yield _says(path, value, f"should match '{pattern}'")
    form = node.get("format")
    if form in _FORMATS and not _FORMATS[form](value):
        yield Cause(path, INVALID_TYPE, f"{quoted(value)}: {path} in body must be of type {form}: {quoted(value)}")


@lru_cache(1024)
def _pattern(text: str) -> Any:
    import re2  # the patterns are users' own

    return re2.compile(text)


def _is_date_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


_FORMATS = {"date-time": _is_date_time, "ipv4": _is_ipv4, "ipv6": _is_ipv6}


def _check_number(node: Node, value: float, path: str) -> Iterator[Cause]:
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and (value <= least if node.get("exclusiveMinimum") else value < least):
        word = "greater than" if node.get("exclusiveMinimum") else "greater than or equal to"
        yield _says(path, value, f"should be {word} {least}")
    if most is not None and (value >= most if node.get("exclusiveMaximum") else value > most):
        word = "less than" if node.get("exclusiveMaximum") else "less than or equal to"
        yield _says(path, value, f"should be {word} {most}")
    step = node.get("multipleOf")
    if step and value % step:
        yield _says(path, value, f"should be a multiple of {step}")


def _check_list(node: Node, value: list[Any], path: str) -> Iterator[Cause]:
    if len(value) > node.get("maxItems", len(value)):
        yield Cause(path, TOO_MANY, f"{len(value)}: must have at most {node['maxItems']} items")
    if len(value) < node.get("minItems", 0):
        yield _says(path, len(value), f"should have at least {node['minItems']} items")
    items = node.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            yield from _check(items, item, f"{path}[{index}]")


def _check_object(node: Node, value: Object, path: str) -> Iterator[Cause]:
    if len(value) > node.get("maxProperties", len(value)):
        yield Cause(path, TOO_MANY, f"{len(value)}: must have at most {node['maxProperties']} items")
    if len(value) < node.get("minProperties", 0):
        yield _says(path, len(value), f"should have at least {node['minProperties']} properties")
    properties, extra = node.get("properties") or {}, node.get("additionalProperties")
    prefix = f"{path}." if path else ""
    if node.get("x-kubernetes-embedded-resource"):
        for name in ("apiVersion", "kind"):
            if not value.get(name):
                yield required(prefix + name)
    for name in node.get("required") or ():
        if name not in value:
            yield required(prefix + name)
    for name, item in value.items():
        child = properties.get(name, extra)
        if isinstance(child, dict):
            yield from _check(child, item, prefix + name)


def _check_combined(node: Node, value: Any, path: str) -> Iterator[Cause]:
    def holds(one: Node) -> bool:
        return next(_check(one, value, path), None) is None

    if node.get("anyOf") and not any(map(holds, node["anyOf"])):
        yield _says(path, value, "must validate at least one schema (anyOf)")
    if node.get("oneOf") and sum(map(holds, node["oneOf"])) != 1:
        yield _says(path, value, "must validate one and only one schema (oneOf)")
    for one in node.get("allOf") or ():
        yield from _check(one, value, path)
    if node.get("not") and holds(node["not"]):
        yield _says(path, value, "must not validate the schema (not)")


def _check_lists(node: Node, value: Any, path: str) -> Iterator[Cause]:
    """Elements of sets and maps that stand twice."""
    if isinstance(value, dict):
        properties, extra = node.get("properties") or {}, node.get("additionalProperties")
        for name, item in value.items():
            child = properties.get(name, extra)
            if isinstance(child, dict):
                yield from _check_lists(child, item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        kind, keys = node.get("x-kubernetes-list-type"), node.get("x-kubernetes-list-map-keys") or ()
        seen: list[Any] = []
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if kind in ("map", "set"):
                identity = {name: item[name] for name in keys if name in item} if kind == "map" else item
                if identity in seen:
                    yield Cause(where, DUPLICATE, quoted(identity))
                seen.append(identity)
            yield from _check_lists(node.get("items") or {}, item, where)
