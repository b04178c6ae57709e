"""Sets of fields, as server-side apply counts them: who owns what, what changed, what may go.

A set is a tree in the form of ``FieldsV1``: a key names a field (``f:replicas``), a list's element by its keys
(``k:{"name":"web"}``) or by its value (``v:"x"``); an empty node is a member, and a node with children is one when it
also holds ``"."``. The rules are those of sigs.k8s.io/structured-merge-diff 6: maps and lists merge or are owned whole
as the schema says, and what has no schema merges as maps and is owned whole as lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from flyball.localcluster.schema.fields import PatchNode

Fields = dict[str, Any]
"""A set of fields (FieldsV1)."""

Node = PatchNode | None

_SELF = "."
_encode = msgspec.json.Encoder().encode


class ListKeyError(ValueError):
    """An element of an associative list lacks a field that identifies it."""


# --- sets -----------------------------------------------------------------------------------------------------------


def is_member(node: Fields) -> bool:
    return not node or _SELF in node


def _children(node: Fields) -> Fields:
    return {key: child for key, child in node.items() if key != _SELF} if _SELF in node else node


def _node(member: bool, children: Fields) -> Fields | None:
    """A node from its two parts; None when it is neither a member nor has children."""
    if not children:
        return {} if member else None
    return {_SELF: {}, **children} if member else children


def union(left: Fields, right: Fields) -> Fields:
    """The members of both; ``left`` itself where it has them all."""
    merged = left
    for key, node in right.items():
        known = left.get(key)
        joined = node if known is None else _joined(known, node)
        if joined is not known:
            if merged is left:
                merged = {_SELF: {}, **left} if key == _SELF else dict(left)
            merged[key] = joined
    return merged


def _joined(left: Fields, right: Fields) -> Fields:
    """The same for two nodes, of which an empty one is a member."""
    if left == right:
        return left
    if not (left and right):
        node = left or right
        return node if _SELF in node else {_SELF: {}, **node}
    return union(left, right)


def difference(left: Fields, right: Fields) -> Fields:
    """The members of ``left`` that are not in ``right``."""
    if not right:
        return left
    kept: Fields = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            kept[key] = node
            continue
        children = difference(_children(node), _children(other))
        rest = _node(is_member(node) and not is_member(other), children)
        if rest is not None:
            kept[key] = rest
    return kept


def intersection(left: Fields, right: Fields) -> Fields:
    kept: Fields = {}
    for key, node in left.items():
        other = right.get(key)
        if other is not None:
            children = intersection(_children(node), _children(other))
            both = _node(is_member(node) and is_member(other), children)
            if both is not None:
                kept[key] = both
    return kept


def with_named_fields(fields: Fields, schema: Node) -> Fields:
    """The set and the struct fields on the way to its members, which a set of leaves leaves out."""
    out: Fields = {}
    for key, node in fields.items():
        if key == _SELF:
            out[key] = node
            continue
        children = with_named_fields(_children(node), _below(schema, key))
        named = schema is not None and key.startswith("f:") and schema.is_named(key[2:])
        out[key] = _node(named or is_member(node), children)
    return out


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """The members as people read them: ``.spec.template.spec.containers[name="web"].image``."""
    for key, node in fields.items():
        if key == _SELF:
            continue
        where = prefix + _shown(key)
        if is_member(node):
            yield where
        yield from paths(node, where)


def _shown(key: str) -> str:
    kind, _, text = key.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "k":
        values = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(json.loads(text).items()))
        return f"[{values}]"
    return f"[={text}]" if kind == "v" else f"[{text}]"


# --- values under a schema ------------------------------------------------------------------------------------------


def _below(schema: Node, key: str) -> Node:
    if schema is None:
        return None
    return schema.property(key[2:]) if key.startswith("f:") else schema.items()


def _merges(value: Any, schema: Node) -> bool:
    """Whether a value's parts are owned one by one; else it is owned as a whole."""
    if isinstance(value, dict):
        return schema is None or schema.map_type != "atomic"
    if isinstance(value, list):
        return schema is not None and schema.associative_keys is not None
    return False


def elements(items: list[Any], schema: PatchNode) -> dict[str, Any]:
    """An associative list's elements by their key, in order.

    Raises:
        ListKeyError: an element lacks a field that identifies it.
    """
    keys = schema.associative_keys or ()
    if not keys:
        return {"v:" + json.dumps(item): item for item in items}
    below = schema.items()
    found: dict[str, Any] = {}
    for item in items:
        identity = {}
        for name in sorted(keys):
            value = item.get(name) if isinstance(item, dict) else None
            if value is None and below is not None:
                value = below.default_of(name)
            if value is None:
                raise ListKeyError(
                    f'associative list with keys has an element that omits key field "{name}" '
                    "(and doesn't have default value)"
                )
            identity[name] = value
        found["k:" + _encode(identity).decode()] = item
    return found


def _parts(value: Any, schema: Node) -> dict[str, Any]:
    """The parts of a merging value by key."""
    if isinstance(value, dict):
        return {f"f:{name}": item for name, item in value.items()}
    return elements(value, schema) if schema is not None and value else {}


def field_set(value: Any, schema: Node) -> Fields:
    """What an applied configuration claims: its leaves, its map entries and its list elements."""
    out: Fields = {}
    for key, item in _parts(value, schema).items():
        below = _below(schema, key)
        children = field_set(item, below) if _merges(item, below) else {}
        named = key.startswith("f:") and schema is not None and schema.is_named(key[2:])
        out[key] = children if named or not children else {_SELF: {}, **children}
    return out


def everything(value: Any, schema: Node) -> Fields:
    """The node for a value that came or went as a whole: itself and all below it."""
    if not value or not isinstance(value, (dict, list)) or not _merges(value, schema):
        return {}
    out: Fields = {_SELF: {}}
    for key, item in _parts(value, schema).items():
        out[key] = everything(item, _below(schema, key)) if isinstance(item, (dict, list)) and item else {}
    return out


def created(value: Any, schema: Node) -> Fields:
    """What the creator of an object owns. Structs that Go always writes were there before, so they are not counted."""
    out: Fields = {}
    for key, item in _parts(value, schema).items():
        if not isinstance(item, (dict, list)):
            out[key] = {}
            continue
        below = _below(schema, key)
        if schema is None or not _merges(item, below) or not schema.is_always_present(key[2:]):
            out[key] = everything(item, below)
        elif item and (children := created(item, below)):
            out[key] = children
    return out


_ABSENT: Any = object()


def compare(old: Any, new: Any, schema: Node) -> tuple[Fields, Fields]:
    """What a write did: (fields set or changed, fields removed)."""
    set_: Fields = {}
    removed: Fields = {}
    before, after = _parts(old, schema), _parts(new, schema)
    for key, item in after.items():
        known = before.get(key, _ABSENT)
        below = _below(schema, key)
        if known is _ABSENT:
            set_[key] = everything(item, below)
        elif known != item or type(known) is not type(item):
            if (known or item) and _comparable(known, item) and _merges(item or known, below):
                inner_set, inner_removed = compare(known or type(item)(), item or type(known)(), below)
                if inner_set:
                    set_[key] = inner_set
                if inner_removed:
                    removed[key] = inner_removed
            else:
                set_[key] = {}
    for key, item in before.items():
        if key not in after:
            removed[key] = everything(item, _below(schema, key))
    return set_, removed


def _comparable(known: Any, item: Any) -> bool:
    return type(known) is type(item) or known is None or item is None


def merge(live: Any, config: Any, schema: Node) -> Any:
    """The live value with the configuration laid over it."""
    if not (_comparable(live, config) and config is not None and _merges(config, schema)):
        return config
    if isinstance(config, dict):
        merged = dict(live or {})
        for name, item in config.items():
            below = schema.property(name) if schema is not None else None
            merged[name] = merge(merged[name], item, below) if name in merged else item
        return merged
    assert schema is not None
    before, after = elements(live or [], schema), elements(config, schema)
    below = schema.items()
    return [
        merge(before[key], after[key], below) if key in before and key in after else after.get(key, before.get(key))
        for key in _merged_order(list(before), list(after))
    ]


def _merged_order(live: list[str], config: list[str]) -> list[str]:
    """The configuration's order; what only the live list has stays before the shared element it stood before."""
    claimed, known = set(config), set(live)
    shared = iter([key for key in config if key in known])
    next_shared = next(shared, None)
    order: list[str] = []
    at = 0
    for key in config:
        while at < len(live) and live[at] != next_shared:
            if live[at] not in claimed:
                order.append(live[at])
            at += 1
        order.append(key)
        if key == next_shared:
            next_shared = next(shared, None)
    return order + [key for key in live[at:] if key not in claimed]


def remove(value: Any, fields: Fields, schema: Node) -> Any:
    """The value without the members of a set; what that leaves empty goes too."""
    if not fields or not _merges(value, schema):
        return value
    kept: dict[str, Any] = {}
    for key, item in _parts(value, schema).items():
        node = fields.get(key)
        if node is None:
            kept[key] = item
        elif not is_member(node):
            rest = remove(item, node, _below(schema, key))
            if rest or not item:
                kept[key] = rest
    return {key[2:]: item for key, item in kept.items()} if isinstance(value, dict) else list(kept.values())
