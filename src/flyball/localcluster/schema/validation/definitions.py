"""CustomResourceDefinitions: names, versions, and schemas that must be structural.

Source: apiextensions-apiserver's ``apis/apiextensions/validation`` and ``apiserver/schema`` of Kubernetes 1.37. How
much a rule in CEL may cost is not estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import FORBIDDEN, Cause, Object, invalid, required, unsupported
from flyball.localcluster.schema.validation.names import dns1035_problems

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_RULES = "x-kubernetes-validations"
_WHERE = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}


def check_definition(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group") or ""
    causes = []
    name = (obj.get("metadata") or {}).get("name") or ""
    if name != f"{names.get('plural') or ''}.{group}":
        causes.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        causes.append(required("spec.group"))
    elif "." not in group:
        causes.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        causes.append(unsupported("spec.scope", spec.get("scope") or "", ("Cluster", "Namespaced")))
    versions = spec.get("versions") or []
    causes += _check_versions(versions)
    for field in ("plural", "kind"):
        if not names.get(field):
            causes.append(required(f"spec.names.{field}"))
    causes += _check_names(names)
    causes += _check_schemas(versions)
    if old is not None and (old.get("spec") or {}).get("scope") not in (None, spec.get("scope")):
        causes.append(invalid("spec.scope", spec.get("scope"), "field is immutable"))
    if not (obj.get("status") or {}).get("storedVersions"):
        causes.append(invalid("status.storedVersions", None, "must have at least one stored version"))
    return causes


def _check_names(names: Object) -> Iterator[Cause]:
    for field in ("plural", "singular", "kind", "listKind"):
        name = names.get(field) or ""
        is_kind = field in ("kind", "listKind")
        prefix = "may have mixed case, but should otherwise match: " if is_kind else ""
        for text in dns1035_problems(name.lower() if is_kind else name) if name else ():
            yield invalid(f"spec.names.{field}", name, prefix + text)
    for index, name in enumerate(names.get("shortNames") or ()):
        yield from (invalid(f"spec.names.shortNames[{index}]", name, text) for text in dns1035_problems(name))


def _check_versions(versions: list[Object]) -> Iterator[Cause]:
    for index, one in enumerate(versions):
        for text in dns1035_problems(one.get("name") or ""):
            yield invalid(f"spec.versions[{index}].name", one.get("name"), text)
            if index == 0:  # upstream's internal type has the first one a second time
                yield invalid("spec.version", one.get("name"), text)
    if sum(1 for one in versions if one.get("storage")) != 1:
        yield invalid("spec.versions", versions, "must have exactly one version marked as storage version")
    if len({one.get("name") for one in versions}) < len(versions):
        yield invalid("spec.versions", list(map(_shown, versions)), "must contain unique version names")


def _shown(version: Object) -> Object:
    """As upstream's internal type, which holds what all versions share elsewhere."""
    nothing = ("Schema", "Subresources", "AdditionalPrinterColumns", "SelectableFields")
    flags = {name.capitalize(): bool(version.get(name)) for name in ("served", "storage", "deprecated")}
    warning = {"DeprecationWarning": version.get("deprecationWarning")}
    return {"Name": version.get("name"), **flags, **warning, **dict.fromkeys(nothing)}


def _check_schemas(versions: list[Object]) -> Iterator[Cause]:
    schemas = [(one.get("schema") or {}).get("openAPIV3Schema") for one in versions]
    for index, schema in enumerate(schemas):
        if not schema:
            yield required(f"spec.versions[{index}].schema.openAPIV3Schema")
    if schemas and all(one == schemas[0] for one in schemas):
        yield from _check_schema(schemas[0], "spec.validation.openAPIV3Schema")
        return
    for index, schema in enumerate(schemas):
        yield from _check_schema(schema, f"spec.versions[{index}].schema.openAPIV3Schema")


def _check_schema(schema: Any, field: str) -> Iterator[Cause]:
    if isinstance(schema, dict) and schema:
        found = list(_check_types(schema, field))
        yield from found or _check_structure(schema, field, "root")
        if not found:
            yield from _check_defaults(schema, field)
            yield from _check_rules(schema, field)


def _children(node: Object, field: str) -> Iterator[tuple[Object, str, str]]:
    """The nodes below one: each with its path and what it is of."""
    if isinstance(node.get("items"), dict):
        yield node["items"], f"{field}.items", "item"
    for name, child in (node.get("properties") or {}).items():
        if isinstance(child, dict):
            yield child, f"{field}.properties[{name}]", "field"
    if isinstance(node.get("additionalProperties"), dict):
        yield node["additionalProperties"], f"{field}.additionalProperties", "field"


def _check_types(node: Object, field: str) -> Iterator[Cause]:
    if node.get("type") and node["type"] not in _TYPES:
        yield unsupported(f"{field}.type", node["type"], _TYPES)
    for child, path, _ in _children(node, field):
        yield from _check_types(child, path)


def _check_structure(node: Object, field: str, level: str) -> Iterator[Cause]:
    if node.get("type") == "array" and not node.get("items"):
        yield required(f"{field}.items", "must be specified")
    for child, path, place in _children(node, field):
        yield from _check_structure(child, path, place)
    embedded = node.get("x-kubernetes-embedded-resource")
    if embedded and node.get("type") != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        yield invalid(f"{field}.type", node["type"], why) if node.get("type") else required(f"{field}.type", why)
    elif not node.get("type") and not (
        node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
    ):
        yield required(f"{field}.type", f"must not be empty {_WHERE[level]}")
    metadata = (node.get("properties") or {}).get("metadata")
    if isinstance(metadata, dict) and (embedded or level == "root"):
        where = f"{field}.properties[metadata]"
        if metadata.get("type") != "object":
            yield invalid(f"{where}.type", metadata.get("type") or "", "must be object")
        if set(metadata.get("properties") or ()) - {"name", "generateName"}:
            why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            yield Cause(where, FORBIDDEN, why)


def _check_defaults(node: Object, field: str) -> Iterator[Cause]:
    from flyball.localcluster.schema import structural  # it reads causes from this package

    if "default" in node:
        for cause in structural.check_value(node, node["default"]):
            yield Cause(f"{field}.default", cause.type, cause.detail)
    for child, path, _ in _children(node, field):
        yield from _check_defaults(child, path)


def _check_rules(node: Object, field: str) -> Iterator[Cause]:
    from flyball.localcluster.schema import rules

    for index, rule in enumerate(node.get(_RULES) or ()):
        where, text = f"{field}.{_RULES}[{index}].rule", str(rule.get("rule") or "").strip()
        problem = rules.problem(text) if text else ""
        if not text:
            yield required(where, "rule is not specified")
        elif problem:
            fields = ("rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf")
            pointers = ("reason", "optionalOldSelf")
            shown = {one[:1].upper() + one[1:]: rule.get(one, None if one in pointers else "") for one in fields}
            yield invalid(where, shown, f"compilation failed: {problem}")
    for child, path, _ in _children(node, field):
        yield from _check_rules(child, path)
