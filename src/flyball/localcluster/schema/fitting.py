"""Whether an object fits its definition, as a msgspec type that is made of the definition: one pass in C.

It says yes only to what ``fields`` would find nothing wrong with; what it refuses ``fields`` looks at, and names.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, Any

import msgspec

from flyball.localcluster.schema.fields import INT_OR_STRING, QUANTITY, definition_name, definitions
from flyball.localcluster.schema.kinds import Kind

_PLAIN_QUANTITY = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i)?\Z", max_length=18)]
_TEXTS: dict[str, Any] = {"date-time": Annotated[datetime, msgspec.Meta(tz=True)], "byte": bytes}
_SIZES: dict[str, Any] = {
    "int32": Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)],
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
}


def fits(kind: Kind, obj: dict[str, Any]) -> bool:
    """Whether no field of the object is unknown or of the wrong JSON type; False also when that is hard to tell."""
    name = definition_name(kind.group, kind.version, kind.kind)
    if name is None:
        return False
    try:
        msgspec.convert(obj, _named(name))
    except msgspec.ValidationError:
        return False
    return True


@cache
def _named(name: str) -> Any:
    if name == QUANTITY:
        return _PLAIN_QUANTITY
    if name == INT_OR_STRING:
        return int | str
    if name.endswith((".JSONSchemaProps", ".JSON", "OrArray", "OrBool", "OrStringArray")):
        return Any
    return _type(definitions()[name], name)


def _type(node: dict[str, Any], name: str = "") -> Any:
    """The type of a node; of any field null is accepted besides."""
    if "$ref" in node:
        return _named(node["$ref"])
    if node.get("format") == "int-or-string":
        return int | str
    kind = node.get("type")
    if kind == "object":
        if "properties" in node:
            return _struct(node, name)
        extra = node.get("additionalProperties")
        return dict[str, _type(extra) | None] if isinstance(extra, dict) else dict  # type: ignore[misc]
    if kind == "array":
        return list[_type(node.get("items", {})) | None]  # type: ignore[misc]
    if kind == "string":
        return _TEXTS.get(node.get("format", ""), str)
    if kind == "integer":
        return _SIZES[node.get("format") or "int64"]
    return {"boolean": bool, "number": float}.get(str(kind), Any)


def _struct(node: dict[str, Any], name: str) -> Any:
    fields = [
        (f"field_{number}", _type(child) | None, None) for number, child in enumerate(node["properties"].values())
    ]
    names = {f"field_{number}": key for number, key in enumerate(node["properties"])}
    strict = not node.get("x-kubernetes-preserve-unknown-fields")
    title = name.rpartition(".")[2] or "Object"
    return msgspec.defstruct(title, fields, rename=names, forbid_unknown_fields=strict, gc=False)
