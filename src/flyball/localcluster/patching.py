"""The patch formats of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

Pure functions: none changes its arguments' shared parts in a way the caller can see, except where it says "in place".
"""

import copy
from typing import Any, Protocol, cast

from flyball.errors import QueryError, QueryLimitError

JSON_PATCH_OPERATIONS_MAX = 10_000


class PatchNode(Protocol):
    """What strategic merge needs to know of a field's schema."""

    patch_strategy: str
    merge_key: str

    def property(self, name: str) -> "PatchNode | None": ...

    def items(self) -> "PatchNode | None": ...


class JsonPatchError(QueryLimitError):
    """A JSON patch is well formed but cannot be applied to this object (422 upstream)."""


class StrategicPatchError(QueryError):
    """A strategic merge patch that makes no sense to its schema (500 upstream)."""


def _go_text(value: Any) -> str:
    """A value as Go prints it (``map[image:nginx]``)."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_go_text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_go_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902.

    Raises:
        QueryError: the patch is malformed.
        JsonPatchError: a path is missing, or a test failed.
    """
    if not isinstance(operations, list):
        raise QueryError(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    if len(operations) > JSON_PATCH_OPERATIONS_MAX:
        raise QueryLimitError(
            f"The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {len(operations)}"
        )
    document = copy.deepcopy(document)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise QueryError("error decoding patch: every operation needs op and path")
        document = _apply_operation(document, operation)
    return document


def _apply_operation(document: Any, operation: dict[str, Any]) -> Any:
    name, path = operation.get("op"), _pointer(operation["path"])
    if name in ("add", "replace", "test") and "value" not in operation:
        raise QueryError(f'error decoding patch: operation "{name}" at "{operation["path"]}" needs a value')
    if name == "add":
        return _add(document, path, copy.deepcopy(operation["value"]))
    if name == "remove":
        return _remove(document, path)
    if name == "replace":
        if not path:
            return copy.deepcopy(operation["value"])
        parent, key = _parent(document, path)
        parent[_existing(parent, key, path)] = copy.deepcopy(operation["value"])
        return document
    if name in ("move", "copy"):
        source = _pointer(str(operation.get("from", "")))
        value = copy.deepcopy(_resolve(document, source))
        if name == "move":
            document = _remove(document, source)
        return _add(document, path, value)
    if name == "test":
        try:
            found = _resolve(document, path)
        except JsonPatchError:
            if operation["value"] is None:
                return document
            raise
        if found != operation["value"] or isinstance(found, bool) != isinstance(operation["value"], bool):
            raise JsonPatchError(f"testing value {operation['path']} failed")
        return document
    raise JsonPatchError(f'unexpected kind: "{name}"')


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise QueryError(f'error decoding patch: path "{text}" must start with "/"')
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _missing(path: list[str]) -> JsonPatchError:
    return JsonPatchError(f'the path "/{"/".join(path)}" does not exist in the object')


def _existing(parent: Any, key: str, path: list[str]) -> Any:
    if isinstance(parent, dict):
        if key not in parent:
            raise _missing(path)
        return key
    if isinstance(parent, list) and key.lstrip("-").isdigit():
        index = int(key)
        if -len(parent) <= index < len(parent):
            return index
    raise _missing(path)


def _resolve(document: Any, path: list[str]) -> Any:
    for key in path:
        document = document[_existing(document, key, path)]
    return document


def _parent(document: Any, path: list[str]) -> tuple[Any, str]:
    return _resolve(document, path[:-1]), path[-1]


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, key = _parent(document, path)
    if isinstance(parent, dict):
        parent[key] = value
    elif isinstance(parent, list) and key == "-":
        parent.append(value)
    elif isinstance(parent, list) and key.isdigit() and int(key) <= len(parent):
        parent.insert(int(key), value)
    else:
        raise _missing(path)
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        return None
    parent, key = _parent(document, path)
    del parent[_existing(parent, key, path)]
    return document


_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def strategic_merge(original: dict[str, Any], patch: dict[str, Any], schema: PatchNode | None) -> dict[str, Any]:
    """Kubernetes' strategic merge (apimachinery's strategicpatch): lists merge by the schema's merge key.

    Raises:
        QueryError: a directive is malformed, or a list item lacks its merge key.
    """
    return _merge_map(original, patch, schema)


def _child(schema: PatchNode | None, name: str) -> PatchNode | None:
    return schema.property(name) if schema is not None else None


def _merges(schema: PatchNode | None) -> bool:
    # The strategy may name several, as "merge,retainKeys" does.
    return schema is not None and "merge" in schema.patch_strategy.split(",")


def _merge_map(original: dict[str, Any], patch: dict[str, Any], schema: PatchNode | None) -> dict[str, Any]:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return cast("dict[str, Any]", _clean({k: v for k, v in patch.items() if k != _PATCH}))
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise StrategicPatchError(f"unknown patch type: {directive} in map: {_go_text(patch)}")
    result = dict(original)
    retain = patch.get(_RETAIN)
    if retain is not None:
        if not isinstance(retain, list):
            raise QueryError("$retainKeys must be a list")
        result = {key: value for key, value in result.items() if key in retain}
    handled: set[str] = set()
    for key, order in patch.items():
        if not key.startswith(_ORDER):
            continue
        field = key[len(_ORDER) :]
        handled.add(field)
        if not isinstance(order, list):
            raise QueryError(f"{key} must be a list")
        _merge_ordered(result, patch, field, order, _child(schema, field))
    for key, value in patch.items():
        if key in (_PATCH, _RETAIN) or key.startswith(_ORDER) or key in handled:
            continue
        if key.startswith(_DELETE_PRIMITIVES):
            field = key[len(_DELETE_PRIMITIVES) :]
            if isinstance(result.get(field), list) and field not in handled:
                result[field] = [item for item in result[field] if item not in value]
            continue
        if value is None:
            result.pop(key, None)
            continue
        child = _child(schema, key)
        before = result.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if child is not None and child.patch_strategy == "replace":
                result[key] = _clean(value)
            else:
                result[key] = _merge_map(before, value, child)
        elif isinstance(value, list) and isinstance(before, list) and _merges(child):
            result[key] = _merge_list(before, value, child)
        else:
            result[key] = _clean(value)
    return result


def _merge_ordered(
    result: dict[str, Any], patch: dict[str, Any], field: str, order: list[Any], schema: PatchNode | None
) -> None:
    """In place: the field's list merged, then its items brought into the order the client gave."""
    before, change = result.get(field), patch.get(field)
    removed = patch.get(_DELETE_PRIMITIVES + field) or []
    if before is None and change is None:
        return
    if not isinstance(before, list):
        merged = cast("list[Any]", _clean(change)) if isinstance(change, list) else []
        before = []
    elif change is None:
        merged = list(before)
    elif isinstance(change, list):
        merged = _merge_list(before, change, schema) if _merges(schema) else cast("list[Any]", _clean(change))
    else:
        raise QueryError(f"{field}: expected a list, got {type(change).__name__}")
    if removed:
        merged = [item for item in merged if item not in removed]
    result[field] = _normalize(merged, order, before, schema.merge_key if schema is not None else "")


def _identity(item: Any, key: str) -> Any:
    if isinstance(item, dict):
        value = item.get(key)
        return ("map", value) if not isinstance(value, list | dict) else ("map", str(value))
    return ("item", item)


def _normalize(merged: list[Any], order: list[Any], server: list[Any], key: str) -> list[Any]:
    """Items named by ``order`` in that order; the server's own keep theirs and slot in before their successors."""
    ranks = {_identity(item, key): rank for rank, item in reversed(list(enumerate(order)))}
    server_ranks = {_identity(item, key): rank for rank, item in reversed(list(enumerate(server)))}
    named = sorted((i for i in merged if _identity(i, key) in ranks), key=lambda i: ranks[_identity(i, key)])
    others = sorted(
        (i for i in merged if _identity(i, key) not in ranks),
        key=lambda i: server_ranks.get(_identity(i, key), len(server)),
    )
    result: list[Any] = []
    left = right = 0
    while left < len(others) or right < len(named):
        if left == len(others):
            take_left = False
        elif right == len(named):
            take_left = True
        else:
            left_rank = server_ranks.get(_identity(others[left], key))
            right_rank = server_ranks.get(_identity(named[right], key))
            take_left = left_rank is not None and right_rank is not None and left_rank < right_rank
        if take_left:
            result.append(others[left])
            left += 1
        else:
            result.append(named[right])
            right += 1
    return result


def _merge_list(original: list[Any], patch: list[Any], schema: PatchNode | None) -> list[Any]:
    if not patch:
        return list(original)
    if not any(isinstance(item, dict) for item in patch):
        merged = list(original)
        merged.extend(item for item in dict.fromkeys(patch) if item not in original)
        return _normalize(merged, patch, original, "")
    key = schema.merge_key if schema is not None else ""
    if not key:
        raise QueryError("cannot merge a list of objects whose schema names no merge key")
    if any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in patch):
        rest = [item for item in patch if not (isinstance(item, dict) and item.get(_PATCH) == "replace")]
        return cast("list[Any]", _clean(rest))
    merged = list(original)
    changed: list[Any] = []
    for item in patch:
        if not isinstance(item, dict):
            raise QueryError("cannot merge a list that mixes objects and other values")
        if key not in item:
            raise StrategicPatchError(f"map: {_go_text(item)} does not contain declared merge key: {key}")
        if item.get(_PATCH) == "delete":
            merged = [old for old in merged if not (isinstance(old, dict) and old.get(key) == item[key])]
            continue
        changed.append(item)
        inner = schema.items() if schema is not None else None
        for index, old in enumerate(merged):
            if isinstance(old, dict) and old.get(key) == item[key]:
                merged[index] = _merge_map(old, item, inner)
                break
        else:
            merged.append(_clean(item))
    return _normalize(merged, changed, original, key)


def _clean(value: Any) -> Any:
    """What a patch adds where nothing was: without directives, nulls and items marked for deletion."""
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            return {}
        return {
            key: _clean(item)
            for key, item in value.items()
            if item is not None and key not in (_PATCH, _RETAIN) and not key.startswith((_ORDER, _DELETE_PRIMITIVES))
        }
    if isinstance(value, list):
        return [
            _clean(item)
            for item in value
            if not (isinstance(item, dict) and (item.get(_PATCH) == "delete" or item == {_PATCH: "replace"}))
        ]
    return value
