"""What the embedded cluster knows about Kubernetes kinds: the table, fields, defaults, validation, tables, OpenAPI.

Pure functions on JSON-shaped values; packaged data files are read on first use, not at import. An object is the dict
that JSON decodes to; `Kind` says what it is. Types are those of Kubernetes 1.37.
"""

from __future__ import annotations

from flyball.localcluster.schema.defaults import default
from flyball.localcluster.schema.fields import PatchNode, patch_schema, prune, type_errors, validate_fields
from flyball.localcluster.schema.kinds import ALL_VERBS, KINDS, SUBRESOURCE_KINDS, Kind, find, find_kind
from flyball.localcluster.schema.tables import human_duration, table

__all__ = [
    "ALL_VERBS",
    "KINDS",
    "SUBRESOURCE_KINDS",
    "Kind",
    "PatchNode",
    "default",
    "find",
    "find_kind",
    "human_duration",
    "patch_schema",
    "prune",
    "table",
    "type_errors",
    "validate_fields",
]
