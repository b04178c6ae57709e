"""OpenAPI documents: v3 from the schema tables and custom definitions, v2 as the stub that kubectl needs to parse."""

from typing import Any

from flyball.localcluster import schema
from flyball.localcluster.registry import Served

Object = dict[str, Any]

V2_DOCUMENT: Object = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": {}}
V2_PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# openapi.v2.Document: swagger (1), info (2) with title (1) and version (2), empty paths (8).
V2_PROTOBUF = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.37.0\x42\x00"


def document(group: str, version: str, resources: list[Served]) -> Object:
    """The OpenAPI v3 document of one group and version (``"", "v1"`` is the core's)."""
    custom = {
        served.kind.kind: ((served.crd_version or {}).get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        for served in resources
        if served.is_custom
    }
    return schema.openapi_v3(group, version, [served.kind for served in resources], custom)
