"""Tables and metadata-only forms of objects, for clients that ask for them in ``Accept``."""

from typing import Any

from flyball.clock import parse_rfc3339_ms
from flyball.localcluster import failures, schema
from flyball.localcluster.registry import Served
from flyball.localcluster.schema import Kind, human_duration

Object = dict[str, Any]


def wants(accept: str) -> str:
    """``Table``, ``PartialObjectMetadata`` or "" for the object itself: the first form we can give."""
    for part in accept.split(","):
        if "as=Table" in part and "g=meta.k8s.io" in part and "v=v1;" in part.strip() + ";":
            return "Table"
        if "as=PartialObjectMetadata" in part and "v=v1;" in part.strip() + ";":
            return "PartialObjectMetadata"
        if not part.strip() or (part.strip().startswith(("application/json", "*/*")) and ";as=" not in part):
            return ""
    return ""


def partial(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


_FINISHED = {
    "Succeeded": ("Succeeded", "The pod has completed successfully."),
    "Failed": ("Failed", "The pod failed."),
}


def table_of(served: Served, objects: list[Object], now_ms: int, metadata: Object, include: str) -> Object:
    """A ``meta.k8s.io/v1`` Table; ``include`` is the includeObject parameter (None, Metadata or Object)."""
    if include not in ("", "None", "Metadata", "Object"):
        raise failures.bad_request(
            f'Unable to convert to Table as requested: includeObject: Invalid value: "{include}": must be '
            "'Metadata', 'Object', 'None', or empty"
        )
    if served.is_custom:
        columns, cells = _custom(served, objects, now_ms)
    else:
        columns, cells = schema.table(served.kind, objects, now_ms)
    rows = []
    for obj, row in zip(objects, cells, strict=True):
        entry: Object = {"cells": row}
        finished = _FINISHED.get((obj.get("status") or {}).get("phase", "")) if served.store == "/pods" else None
        if finished:
            reason, message = finished
            entry["conditions"] = [{"type": "Completed", "status": "True", "reason": reason, "message": message}]
        if include == "Object":
            entry["object"] = obj
        else:
            entry["object"] = None if include == "None" else partial(obj)
        rows.append(entry)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


_PLAIN = Kind("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount")  # NAME and AGE, as all have them


def _custom(served: Served, objects: list[Object], now_ms: int) -> tuple[list[Object], list[list[Any]]]:
    asked = served.printer_columns or ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)
    columns = schema.columns(_PLAIN)[:1]
    for column in asked:
        columns.append(
            {
                "name": column.get("name", ""),
                "type": column.get("type", "string"),
                "format": column.get("format", ""),
                "description": column.get("description")
                or f"Custom resource definition column (in JSONPath format): {column.get('jsonPath', '')}",
                "priority": column.get("priority", 0),
            }
        )
    rows = []
    for obj in objects:
        row: list[Any] = [obj["metadata"].get("name", "")]
        for column in asked:
            value = _at(obj, str(column.get("jsonPath", "")))
            if column.get("type") == "date":
                value = _age(value, now_ms)
            elif isinstance(value, dict | list):
                import json

                value = json.dumps(value, separators=(",", ":"))
            row.append(value)
        rows.append(row)
    return columns, rows


def _age(value: Any, now_ms: int) -> str | None:
    try:
        return human_duration((now_ms - parse_rfc3339_ms(value)) / 1000) if isinstance(value, str) else None
    except ValueError:
        return "<invalid>"


def _at(obj: Any, path: str) -> Any:
    """The value at a simple JSON path: names, indexes and ``[?(@.key=="value")]`` filters."""
    import re

    for name, index, quoted, key, wanted in re.findall(
        r"\.([\w/-]+)|\[(\d+)\]|\['([^']+)'\]|\[\?\(@\.(\w+)==[\"']([^\"']*)[\"']\)\]", path.replace("\\.", "\0")
    ):
        if name or quoted:
            word = (name or quoted).replace("\0", ".")
            obj = obj.get(word) if isinstance(obj, dict) else None
        elif index:
            obj = obj[int(index)] if isinstance(obj, list) and int(index) < len(obj) else None
        else:
            obj = (
                next((i for i in obj if isinstance(i, dict) and i.get(key) == wanted), None)
                if isinstance(obj, list)
                else None
            )
    return obj
