"""What the embedded cluster knows about Kubernetes kinds: the table, fields, defaults, validation, tables, OpenAPI.

Pure functions on JSON-shaped values; packaged data files are read on first use, not at import, and so is every module
but the kind table. An object is the dict that JSON decodes to; `Kind` says what it is. Types are those of Kubernetes
1.37.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.localcluster.schema.kinds import ALL_VERBS, CUSTOM_VERBS, KINDS, SUBRESOURCE_KINDS, Kind, find, find_kind

if TYPE_CHECKING:
    from flyball.localcluster.schema.defaults import default
    from flyball.localcluster.schema.fields import (
        PatchNode,
        json_name,
        patch_schema,
        prune,
        type_errors,
        validate_fields,
    )
    from flyball.localcluster.schema.fieldsets import ListKeyError
    from flyball.localcluster.schema.fitting import fits
    from flyball.localcluster.schema.openapi import openapi_v3
    from flyball.localcluster.schema.protobuf import decode_protobuf
    from flyball.localcluster.schema.tables import columns, human_duration, table
    from flyball.localcluster.schema.validation import Cause, validate, validate_own

__all__ = [
    "ALL_VERBS",
    "CUSTOM_VERBS",
    "KINDS",
    "SUBRESOURCE_KINDS",
    "Cause",
    "Kind",
    "ListKeyError",
    "PatchNode",
    "columns",
    "decode_protobuf",
    "default",
    "find",
    "find_kind",
    "fits",
    "human_duration",
    "json_name",
    "openapi_v3",
    "patch_schema",
    "prune",
    "table",
    "type_errors",
    "validate",
    "validate_fields",
    "validate_own",
]

_LATER = {
    "default": "defaults",
    "ListKeyError": "fieldsets",
    "fits": "fitting",
    "PatchNode": "fields",
    "json_name": "fields",
    "patch_schema": "fields",
    "prune": "fields",
    "type_errors": "fields",
    "validate_fields": "fields",
    "openapi_v3": "openapi",
    "decode_protobuf": "protobuf",
    "columns": "tables",
    "human_duration": "tables",
    "table": "tables",
    "Cause": "validation",
    "validate": "validation",
    "validate_own": "validation",
}


def __getattr__(name: str) -> Any:
    """Imports a function's module when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found
