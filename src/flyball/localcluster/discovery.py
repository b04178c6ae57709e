"""What clients ask before anything else: API groups, resources and OpenAPI documents."""

import asyncio
from typing import Any

from flyball.localcluster import failures, schema
from flyball.localcluster.aggregation import Aggregator
from flyball.localcluster.answers import hash_text, only_get
from flyball.localcluster.registry import (
    Registry,
    Served,
    aggregated_from_legacy,
    aggregated_version,
    legacy_resources,
)
from flyball.localcluster.requests import JSON, Request, encode

Object = dict[str, Any]

OPENAPI_V2: Object = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": {}}
OPENAPI_V2_PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# openapi.v2.Document: swagger (1), info (2) with title (1) and version (2), empty paths (8). kubectl needs no more.
OPENAPI_V2_PROTOBUF = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.37.0\x42\x00"


class Discovery:
    """Answers ``/api``, ``/apis`` and ``/openapi``; the large documents are kept until ``forget()``."""

    def __init__(self, registry: Registry, aggregator: Aggregator) -> None:
        self._registry = registry
        self._aggregator = aggregator
        self._documents: dict[str, bytes] = {}

    def forget(self) -> None:
        self._documents.clear()

    async def answer_groups(self, request: Request, root: str) -> None:
        accept = request.accept
        if "as=APIGroupDiscoveryList" in accept and ("v=v2;" in accept + ";" or "v=v2," in accept):
            key = f"aggregated {root}"
            body = self._documents.get(key)
            if body is None:
                body = self._documents[key] = encode(self._aggregated_discovery(root))
            content_type = f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            etag = f'"{hash_text(body)}"'
            headers = [(b"etag", etag.encode()), (b"vary", b"Accept")]
            if request.headers.get("if-none-match") == etag:
                await request.start(304, headers)
                await request.chunk(b"", more=False)
                return
            await request.answer(200, body, content_type, headers)
            return
        if root == "api":
            address = {"clientCIDR": "0.0.0.0/0", "serverAddress": request.headers.get("host", "")}
            await request.answer_object(
                200, {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}
            )
            return
        groups = [self._legacy_group(name) for name in self._group_names()]
        await request.answer_object(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})

    def _group_names(self) -> list[str]:
        """Named groups: ours, then those of other servers."""
        names = [name for name in self._registry.groups() if name]
        names += [backend.group for backend in self._aggregator.remote()]
        return list(dict.fromkeys(names))

    def _group_versions(self, group: str) -> list[str]:
        versions = list(self._registry.groups().get(group, {}))
        remote = [backend.version for backend in self._aggregator.remote() if backend.group == group]
        return list(dict.fromkeys([*remote, *versions]))

    def _legacy_group(self, group: str) -> Object:
        versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in self._group_versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _aggregated_discovery(self, root: str) -> Object:
        groups = self._registry.groups()
        items: list[Object] = []
        for name in [""] if root == "api" else self._group_names():
            versions = []
            for version in self._group_versions(name):
                backend = self._aggregator.find(name, version) if name else None
                if backend is None:
                    versions.append(aggregated_version(version, groups[name][version]))
                elif backend.listing is not None or backend.available:
                    versions.append(aggregated_from_legacy(version, backend.listing or {}, backend.available))
                else:
                    versions.append({"version": version, "freshness": "Stale"})
            metadata: Object = {}
            if name:
                metadata["name"] = name
            items.append({"metadata": metadata, "versions": versions})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        }

    async def answer_group(self, request: Request, group: str) -> None:
        if group not in self._group_names():
            raise failures.no_such_path()
        await request.answer_object(200, {"kind": "APIGroup", "apiVersion": "v1", **self._legacy_group(group)})

    async def answer_resources(self, request: Request, group: str, version: str) -> None:
        resources = self._registry.groups().get(group, {}).get(version)
        if resources is None:
            raise self._registry.missing(group, version)
        name = f"{group}/{version}" if group else version
        await request.answer_object(200, legacy_resources(name, resources))

    async def answer_openapi(self, request: Request, parts: list[str]) -> None:
        only_get(request)
        if parts == ["v2"]:
            if "protobuf" in request.accept:
                await request.answer(200, OPENAPI_V2_PROTOBUF, OPENAPI_V2_PROTOBUF_TYPE)
            else:
                await request.answer_object(200, OPENAPI_V2)
            return
        if parts[:1] != ["v3"]:
            raise failures.no_such_path()
        groups = self._registry.groups()
        if len(parts) == 1:
            paths = {}
            for group, versions in groups.items():
                for version, resources in versions.items():
                    path = f"apis/{group}/{version}" if group else f"api/{version}"
                    link = f"/openapi/v3/{path}?hash={self._registry.fingerprint(resources)}"
                    paths[path] = {"serverRelativeURL": link}
            await request.answer_object(200, {"paths": paths})
            return
        if parts[1] == "api" and len(parts) == 3:
            group, version = "", parts[2]
        elif parts[1] == "apis" and len(parts) == 4:
            group, version = parts[2], parts[3]
        else:
            raise failures.no_such_path()
        served = groups.get(group, {}).get(version)
        if served is None:
            raise failures.no_such_path()
        key = "openapi " + "/".join(parts)
        body = self._documents.get(key)
        if body is None:
            body = await asyncio.to_thread(lambda: encode(_openapi_document(group, version, served)))
            self._documents[key] = body
        await request.answer(200, body, JSON, [(b"etag", f'"{hash_text(body)}"'.encode())])


def _openapi_document(group: str, version: str, resources: list[Served]) -> Object:
    """The OpenAPI v3 document of one group and version (``"", "v1"`` is the core's)."""
    custom = {served.kind.kind: served.crd_schema for served in resources if served.is_custom}
    return schema.openapi_v3(group, version, [served.kind for served in resources], custom)
