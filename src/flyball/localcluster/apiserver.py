"""The embedded Kubernetes API server: raw ASGI over one ``Storage``.

Every handler between reading an object and writing it back runs without awaiting, so no two writes interleave.
"""

import asyncio
import base64
import contextlib
import copy
import hmac
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from flyball import __version__
from flyball.clock import monotonic_s, now_ms, parse_rfc3339_ms, rfc3339
from flyball.errors import FlyballError, QueryError, QueryLimitError, StoreError
from flyball.http.client import client_tls
from flyball.localcluster import admission, failures, openapi, patching, pki, schema, selectors
from flyball.localcluster.aggregation import Aggregator, Backend
from flyball.localcluster.convert import convert
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.registry import (
    SUBRESOURCE_VERBS,
    Registry,
    Served,
    aggregated_from_legacy,
    aggregated_version,
    legacy_resources,
)
from flyball.localcluster.requests import JSON, Request, decode, duplicate_fields, encode
from flyball.localcluster.storage import ADDED, DELETED, MODIFIED, Event, Expired, Record, Storage
from flyball.localcluster.tables import partial, table_of, wants

log = logging.getLogger(__name__)

Object = dict[str, Any]

KUBERNETES_VERSION = "v1.37.0"
BOOKMARK_EVERY_S = 30.0
WATCH_MAX_S = 3600.0
WATCH_BATCH_BYTES = 1 << 20
EVENT_TTL_MS = 3_600_000
HOUSEKEEPING_EVERY_S = 60.0
NODE_PORT = 10250
_CRD = "apiextensions.k8s.io/customresourcedefinitions"
_OPEN_PATHS = ("healthz", "livez", "readyz", "version")
_PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_SCALABLE = frozenset({"apps/deployments", "apps/replicasets", "apps/statefulsets", "/replicationcontrollers"})
ADMIN, ADMIN_GROUPS = "admin", ("system:masters", "system:authenticated")


class Application:
    """The ASGI application. ``start()`` and ``close()`` run its background tasks."""

    def __init__(self, data_dir: Path, storage: Storage, *, port_offset: int = 0) -> None:
        self.storage = storage
        self.registry = Registry()
        self._pki = data_dir / "pki"
        self._token = pki.token(data_dir).encode()
        self._port_offset = port_offset
        self._documents: dict[str, bytes] = {}
        self._node: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.requests = 0
        self.failed = 0
        self.watches_expired = 0
        for record in storage.records(_CRD):
            self.registry.add_definition(record.object)
        self._bootstrap()
        storage.listen(self._on_event)
        self.aggregator = Aggregator(storage, self._pki, self._forget_documents, self._set_api_service_status)

    # life

    def _bootstrap(self) -> None:
        """The objects that exist before any client comes; present ones are left as they are."""
        namespaces = self._served("", "v1", "namespaces")
        for name in admission.SYSTEM_NAMESPACES:
            if self.storage.get("/namespaces", "", name) is None:
                self.create(namespaces, "", {"metadata": {"name": name}})
        config_maps = self._served("", "v1", "configmaps")
        ca = (self._pki / "ca.crt").read_text(encoding="ascii")
        data = {
            "client-ca-file": ca,
            "requestheader-client-ca-file": (self._pki / "front-proxy-ca.crt").read_text(encoding="ascii"),
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
        self._ensure(config_maps, "kube-system", "extension-apiserver-authentication", {"data": data})
        self._ensure(config_maps, "default", "kube-root-ca.crt", {"data": {"ca.crt": ca}})
        if self.storage.get("/services", "default", "kubernetes") is None:
            port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": pki.API_PORT + self._port_offset}
            body: Object = {
                "metadata": {
                    "name": "kubernetes",
                    "labels": {"component": "apiserver", "provider": "kubernetes"},
                },
                "spec": {"clusterIP": "None", "ports": [port]},
            }
            self.create(self._served("", "v1", "services"), "default", body)

    def _ensure(self, served: Served, namespace: str, name: str, content: Object) -> None:
        record = self.storage.get(served.store, namespace, name)
        if record is None:
            self.create(served, namespace, {"metadata": {"name": name}, **copy.deepcopy(content)})
        else:
            obj = record.copy()
            obj.update(copy.deepcopy(content))
            self.update(served, namespace, name, obj)

    def start(self) -> None:
        self.aggregator.start()
        self._tasks.append(asyncio.create_task(self._housekeep(), name="apiserver housekeeping"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.aggregator.close()
        if self._node:
            await self._node.close()

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)
            try:
                self._expire_events(now_ms())
            except StoreError as exc:
                log.warning("old events are kept for now: %s", exc)

    def _expire_events(self, at_ms: int) -> None:
        """Events live an hour, as upstream's default."""
        for record in self.storage.records("/events"):
            obj = record.object
            stamp = obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
            try:
                if at_ms - parse_rfc3339_ms(str(stamp)) <= EVENT_TTL_MS:
                    continue
            except ValueError:
                pass
            self.storage.delete("/events", obj["metadata"]["namespace"], obj["metadata"]["name"])

    def _on_event(self, event: Event) -> None:
        if event.bucket == _CRD:
            if event.type == DELETED or event.record.object["metadata"].get("deletionTimestamp"):
                self.registry.remove_definition(event.record.object)
            else:
                self.registry.add_definition(event.record.object)
            self._forget_documents()
        elif event.bucket == "/namespaces" and event.type != DELETED:
            self._namespace_ca(event)

    def _namespace_ca(self, event: Event) -> None:
        obj = event.record.object
        if (
            event.type == ADDED
            and not obj["metadata"].get("deletionTimestamp")
            and event.name not in (admission.SYSTEM_NAMESPACES)
        ):
            ca = (self._pki / "ca.crt").read_text(encoding="ascii")
            body = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ca}}
            try:
                self.create(self._served("", "v1", "configmaps"), event.name, body)
            except FlyballError as exc:
                log.warning("namespace %s: kube-root-ca.crt is not written: %s", event.name, exc)

    def _forget_documents(self) -> None:
        self._documents.clear()

    def _set_api_service_status(self, name: str, status: Object) -> None:
        served = self._served("apiregistration.k8s.io", "v1", "apiservices")
        record = self.storage.get(served.store, "", name)
        if record is not None:
            try:
                self.update(served, "", name, {**record.copy(), "status": status}, subresource="status")
            except FlyballError as exc:
                log.warning("APIService %s: its condition is not written: %s", name, exc)

    def statistics(self) -> dict[str, int]:
        return {
            "requests": self.requests,
            "requests_failed": self.failed,
            "watches_expired": self.watches_expired,
            **self.storage.statistics(),
            **self.aggregator.statistics(),
        }

    # ASGI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send(
                {"type": "websocket.close", "code": 1008, "reason": "exec, attach and port-forward are not served"}
            )
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        self.requests += 1
        try:
            await self._handle(request)
        except ConnectionResetError:
            pass
        except ApiFailure as exc:
            await self._fail(request, exc)
        except Expired as exc:
            await self._fail(request, ApiFailure(410, str(exc)))
        except patching.JsonPatchError as exc:
            await self._fail(request, ApiFailure(422, str(exc), details={}))
        except QueryLimitError as exc:
            await self._fail(request, ApiFailure(413, str(exc)))
        except QueryError as exc:
            await self._fail(request, failures.bad_request(str(exc)))
        except StoreError as exc:
            log.error("%s %s: %s", request.method, request.raw_path, exc)
            await self._fail(request, ApiFailure(500, f"Internal error occurred: {exc}"))
        except Exception as exc:
            log.exception("%s %s failed", request.method, request.raw_path)
            await self._fail(request, ApiFailure(500, f"Internal error occurred: {type(exc).__name__}: {exc}"))

    async def _fail(self, request: Request, failure: ApiFailure) -> None:
        self.failed += 1
        if not request.started:
            await request.answer_object(failure.code, failure.body())

    def _authenticate(self, request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            request.user, request.groups = ADMIN, ADMIN_GROUPS
            return
        if not given and request.segments and request.segments[0] in _OPEN_PATHS:
            request.user, request.groups = "system:anonymous", ("system:unauthenticated",)
            return
        raise ApiFailure(401, "Unauthorized")

    async def _handle(self, request: Request) -> None:
        self._authenticate(request)
        parts = request.segments
        if not parts:
            await request.answer_object(
                200,
                {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]},
            )
        elif parts[0] in ("healthz", "livez", "readyz"):
            await request.answer(200, b"ok", "text/plain; charset=utf-8")
        elif parts == ["version"]:
            await request.answer_object(200, version_info())
        elif parts[0] == "openapi":
            await self._openapi(request, parts[1:])
        elif parts[0] in ("api", "apis"):
            await self._api(request, parts)
        else:
            raise failures.no_such_path()

    async def _api(self, request: Request, parts: list[str]) -> None:
        if len(parts) == 1:
            _only_get(request)
            await self._discovery(request, parts[0])
            return
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        elif len(parts) == 2:
            _only_get(request)
            await self._group(request, parts[1])
            return
        else:
            group, version, rest = parts[1], parts[2], parts[3:]
        backend = self.aggregator.find(group, version)
        if backend is not None:
            await self._proxy(request, backend)
        elif not rest:
            _only_get(request)
            await self._group_version(request, group, version)
        else:
            await self._resource(request, group, version, rest)

    async def _proxy(self, request: Request, backend: Backend) -> None:
        await self.aggregator.proxy(
            backend,
            method=request.method,
            path=request.raw_path,
            query=request.query,
            headers=request.header_list,
            body=await request.body() if request.method not in ("GET", "HEAD") else b"",
            send=request.send,
            user=request.user,
            groups=request.groups,
        )

    # discovery

    async def _discovery(self, request: Request, root: str) -> None:
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
        names = [name for name in self.registry.groups() if name]
        names += [backend.group for backend in self.aggregator.remote()]
        return list(dict.fromkeys(names))

    def _group_versions(self, group: str) -> list[str]:
        versions = list(self.registry.groups().get(group, {}))
        remote = [backend.version for backend in self.aggregator.remote() if backend.group == group]
        return list(dict.fromkeys([*remote, *versions]))

    def _legacy_group(self, group: str) -> Object:
        versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in self._group_versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _aggregated_discovery(self, root: str) -> Object:
        groups = self.registry.groups()
        items: list[Object] = []
        for name in [""] if root == "api" else self._group_names():
            versions = []
            for version in self._group_versions(name):
                backend = self.aggregator.find(name, version) if name else None
                if backend is None:
                    versions.append(aggregated_version(version, groups[name][version]))
                elif backend.listing is not None or backend.available:
                    versions.append(aggregated_from_legacy(version, backend.listing or {}, backend.available))
                else:
                    versions.append({"version": version, "freshness": "Stale"})
            metadata: Object = {"creationTimestamp": None}
            if name:
                metadata["name"] = name
            items.append({"metadata": metadata, "versions": versions})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        }

    async def _group(self, request: Request, group: str) -> None:
        if group not in self._group_names():
            raise failures.no_such_path()
        await request.answer_object(200, {"kind": "APIGroup", "apiVersion": "v1", **self._legacy_group(group)})

    async def _group_version(self, request: Request, group: str, version: str) -> None:
        resources = self.registry.groups().get(group, {}).get(version)
        if resources is None:
            raise failures.no_such_path()
        name = f"{group}/{version}" if group else version
        await request.answer_object(200, legacy_resources(name, resources))

    async def _openapi(self, request: Request, parts: list[str]) -> None:
        _only_get(request)
        if parts == ["v2"]:
            if "protobuf" in request.accept:
                await request.answer(200, openapi.V2_PROTOBUF, openapi.V2_PROTOBUF_TYPE)
            else:
                await request.answer_object(200, openapi.V2_DOCUMENT)
            return
        if parts[:1] != ["v3"]:
            raise failures.no_such_path()
        groups = self.registry.groups()
        if len(parts) == 1:
            paths = {}
            for group, versions in groups.items():
                for version, resources in versions.items():
                    path = f"apis/{group}/{version}" if group else f"api/{version}"
                    link = f"/openapi/v3/{path}?hash={self.registry.fingerprint(resources)}"
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
            body = await asyncio.to_thread(lambda: encode(openapi.document(group, version, served)))
            self._documents[key] = body
        await request.answer(200, body, JSON, [(b"etag", f'"{hash_text(body)}"'.encode())])

    # resources

    def _served(self, group: str, version: str, plural: str) -> Served:
        served = self.registry.find(group, version, plural)
        if served is None:
            raise failures.no_such_path()
        return served

    async def _resource(self, request: Request, group: str, version: str, rest: list[str]) -> None:
        namespace = ""
        watch_prefix = rest[0] == "watch" and len(rest) > 1
        if watch_prefix:  # the old /api/v1/watch/... form
            rest = rest[1:]
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        served = self._served(group, version, rest[0])
        if served.kind.namespaced != bool(namespace) and not (
            served.kind.namespaced and len(rest) == 1 and request.method in ("GET", "DELETE")
        ):
            if "create" in served.kind.verbs and len(served.kind.verbs) == 1 and request.method == "POST":
                pass
            elif served.kind.namespaced and request.method == "POST" and len(rest) == 1:
                raise failures.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            else:
                raise failures.no_such_path()
        if served.kind.verbs == ("create",):
            await self._review(request, served, namespace)
        elif len(rest) == 1:
            await self._collection(request, served, namespace, watch_prefix)
        elif len(rest) == 2:
            await self._item(request, served, namespace, rest[1])
        else:
            await self._subresource(request, served, namespace, rest[1], rest[2:])

    async def _collection(self, request: Request, served: Served, namespace: str, watching: bool) -> None:
        if request.method == "GET":
            if watching or request.flag("watch"):
                await self._watch(request, served, namespace, request.param("fieldSelector"))
            else:
                await self._list(request, served, namespace)
        elif request.method == "POST":
            obj = await request.object()
            self._check_body(request, served, obj, await request.body())
            created = self.create(served, namespace, obj, dry_run=_dry_run(request))
            await self._answer(request, served, 201, created)
        elif request.method == "DELETE":
            await self._delete_collection(request, served, namespace)
        else:
            raise failures.method_not_allowed()

    async def _item(self, request: Request, served: Served, namespace: str, name: str) -> None:
        if request.method == "GET":
            if request.flag("watch"):
                await self._watch(request, served, namespace, f"metadata.name={name}")
                return
            await self._answer_record(request, served, self._get(served, namespace, name))
        elif request.method == "PUT":
            obj = await request.object()
            self._check_body(request, served, obj, await request.body())
            self._get(served, namespace, name)
            updated = self.update(served, namespace, name, obj, dry_run=_dry_run(request))
            await self._answer(request, served, 200, updated)
        elif request.method == "PATCH":
            await self._patch(request, served, namespace, name, "")
        elif request.method == "DELETE":
            body = await request.body()
            options = decode(body, request.content_type) if body.strip() else {}
            await self._delete_one(request, served, namespace, name, options)
        else:
            raise failures.method_not_allowed()

    async def _subresource(self, request: Request, served: Served, namespace: str, name: str, path: list[str]) -> None:
        sub = path[0]
        if sub not in served.kind.subresources or sub not in SUBRESOURCE_VERBS or len(path) > 1:
            raise failures.no_such_path()
        if sub == "log":
            _only_get(request)
            await self._pod_log(request, namespace, name)
        elif sub == "binding":
            await self._bind(request, served, namespace, name)
        elif sub == "eviction":
            await self._evict(request, served, namespace, name)
        elif sub == "scale":
            await self._scale(request, served, namespace, name)
        elif request.method == "GET":
            await self._answer_record(request, served, self._get(served, namespace, name))
        elif request.method == "PUT":
            obj = await request.object()
            self._check_body(request, served, obj, await request.body())
            self._get(served, namespace, name)
            updated = self.update(served, namespace, name, obj, subresource=sub, dry_run=_dry_run(request))
            await self._answer(request, served, 200, updated)
        elif request.method == "PATCH":
            await self._patch(request, served, namespace, name, sub)
        else:
            raise failures.method_not_allowed()

    def _get(self, served: Served, namespace: str, name: str) -> Record:
        record = self.storage.get(served.store, namespace, name)
        if record is None:
            raise failures.not_found(served.kind.group, served.kind.plural, name)
        return record

    # answers

    def _present(self, served: Served, record: Record) -> bytes:
        """The record's bytes in the served version; the stored bytes themselves where that is the stored version."""
        if served.kind == served.storage:
            return record.encoded
        return encode(convert(record.object, served.group_version))

    async def _answer_record(self, request: Request, served: Served, record: Record) -> None:
        if wants(request.accept):
            await self._answer(request, served, 200, record.object)
        else:
            await request.answer(200, self._present(served, record))

    async def _answer(self, request: Request, served: Served, code: int, stored: Object) -> None:
        """The object, or its Table or metadata when the client prefers that; ``stored`` is in the storage version."""
        form = wants(request.accept)
        obj = convert(stored, served.group_version)
        if form == "Table":
            rv = stored["metadata"].get("resourceVersion", "")
            body = table_of(served, [obj], now_ms(), {"resourceVersion": rv}, request.param("includeObject"))
            await request.answer_object(code, body)
        elif form:
            await request.answer_object(code, partial(obj))
        else:
            await request.answer_object(code, obj)

    # list

    def _select(self, request: Request, served: Served, fields: str) -> tuple[Any, Any]:
        try:
            labels = selectors.parse_labels(request.param("labelSelector"))
        except QueryError as exc:
            raise failures.bad_request(str(exc)) from exc
        try:
            return labels, selectors.parse_fields(fields, served.store)
        except QueryError as exc:
            gv = f"{served.group_version}, Resource={served.kind.plural}"
            label_text = request.param("labelSelector")
            raise failures.bad_request(
                f'Unable to find "{gv}" that match label selector "{label_text}", field selector "{fields}": {exc}'
            ) from exc

    async def _list(self, request: Request, served: Served, namespace: str) -> None:
        labels, fields = self._select(request, served, request.param("fieldSelector"))
        limit = request.integer("limit") or 0
        asked = request.integer("resourceVersion") or 0
        if asked > self.storage.revision:
            message = f"Too large resource version: {asked}, current: {self.storage.revision}"
            details = {
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            }
            raise ApiFailure(504, message, details=details)
        if request.param("resourceVersionMatch") == "Exact" and 0 < asked < self.storage.revision:
            raise Expired("The provided resource version is too old to be listed exactly")
        revision, start = self.storage.revision, None
        token = request.param("continue")
        if token:
            revision, start = _continue_position(token)
            if revision < self.storage.compacted:
                raise Expired("The provided continue parameter is too old to display a consistent list result.")
        found: list[Record] = []
        more: tuple[str, str] | None = None
        remaining = 0
        for key in self.storage.keys(served.store):
            if (namespace and key[0] != namespace) or (start is not None and key <= start):
                continue
            record = self.storage.get(served.store, *key)
            assert record is not None
            if labels is not None and not labels(record.object["metadata"].get("labels") or {}):
                continue
            if fields is not None and not fields(record.object):
                continue
            if limit and len(found) >= limit:
                remaining += 1
                continue
            found.append(record)
            more = key
        metadata: Object = {"resourceVersion": str(revision)}
        if remaining and more is not None:
            metadata["continue"] = _continue_token(revision, more)
            if labels is None and fields is None:
                metadata["remainingItemCount"] = remaining
        form = wants(request.accept)
        if form == "Table":
            objects = [convert(record.object, served.group_version) for record in found]
            body = encode(table_of(served, objects, now_ms(), metadata, request.param("includeObject")))
        elif form:
            items = [partial(record.object) for record in found]
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            body = encode({**kind, "metadata": metadata, "items": items})
        else:
            head = {"kind": served.kind.list_kind, "apiVersion": served.group_version, "metadata": metadata}
            body = b"".join(
                (encode(head)[:-1], b',"items":[', b",".join(self._present(served, r) for r in found), b"]}")
            )
        await request.answer(200, body)

    # watch

    async def _watch(self, request: Request, served: Served, namespace: str, field_text: str) -> None:
        labels, fields = self._select(request, served, field_text)
        timeout_s = min(float(request.integer("timeoutSeconds") or WATCH_MAX_S), WATCH_MAX_S)
        deadline = monotonic_s() + timeout_s
        form = wants(request.accept)
        line = _Lines(self, request, served, form)
        asked = request.integer("resourceVersion") or 0
        initial = request.flag("sendInitialEvents") if request.param("sendInitialEvents") else asked == 0
        bookmarks = request.flag("allowWatchBookmarks")

        def matches(record: Record | None) -> bool:
            return (
                record is not None
                and (labels is None or labels(record.object["metadata"].get("labels") or {}))
                and (fields is None or fields(record.object))
            )

        # Subscribe before looking at the present: nothing awaits in between, so no event is missed or seen twice.
        subscription = self.storage.subscribe(served.store, namespace)
        gone = asyncio.create_task(_until_gone(request.receive, subscription.close))
        try:
            content_type = JSON if not form else f"{JSON};stream=watch"
            start: list[bytes] = []
            error: ApiFailure | None = None
            revision = self.storage.revision
            if initial:
                for record in self.storage.records(served.store, namespace):
                    if matches(record):
                        start.append(line.of(ADDED, record, None))
                if bookmarks and request.param("sendInitialEvents"):
                    start.append(line.bookmark(revision, initial_end=True))
            elif asked:
                try:
                    history = self.storage.since(served.store, asked, namespace)
                except Expired as exc:
                    self.watches_expired += 1
                    error = ApiFailure(410, str(exc))
                else:
                    start.extend(_event_lines(history, line, matches, labels is None and fields is None))
            await request.start(
                200, [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache, private")]
            )
            await request.chunk(b"".join(start))
            if error is not None:
                await request.chunk(b'{"type":"ERROR","object":' + encode(error.body()) + b"}\n")
                await request.chunk(b"", more=False)
                return
            start.clear()
            every = labels is None and fields is None
            next_bookmark = monotonic_s() + BOOKMARK_EVERY_S
            while True:
                now = monotonic_s()
                if now >= deadline:
                    break
                if not subscription.events:
                    if subscription.closed:
                        break
                    if bookmarks and now >= next_bookmark:
                        await request.chunk(line.bookmark(self.storage.revision))
                        next_bookmark = now + BOOKMARK_EVERY_S
                    await subscription.wait(min(deadline, next_bookmark if bookmarks else deadline) - now)
                    continue
                batch: list[Event] = []
                size = 0
                while subscription.events and size < WATCH_BATCH_BYTES:
                    event = subscription.events.popleft()
                    size += len(event.record.encoded)
                    batch.append(event)
                data = b"".join(_event_lines(batch, line, matches, every))
                if data:
                    await request.chunk(data)
            await request.chunk(b"", more=False)
        finally:
            subscription.close()
            gone.cancel()

    # writing

    def _check_body(
        self, request: Request, served: Served, obj: Object, body: bytes = b"", *, patch: bool = False
    ) -> None:
        """Kind, types and unknown fields of an object a client sent; in place, unknown fields are dropped.

        Raises:
            ApiFailure: 400 when it cannot be what the path says.
        """
        kind = served.kind
        given_version, given_kind = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
        named = f'{given_kind} in version "{given_version.rpartition("/")[2]}" cannot be handled as a {kind.kind}: '
        if given_kind != kind.kind:
            raise failures.bad_request(named + f'no kind "{given_kind}" is served at this path')
        if given_version != kind.api_version:
            raise failures.bad_request(
                f"the API version in the data ({given_version}) does not match the expected API version "
                f"({kind.api_version})"
            )
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        if not isinstance(obj.get("metadata") or {}, dict):
            raise failures.bad_request(named + "json: cannot unmarshal value into field metadata of type v1.ObjectMeta")
        if served.is_custom:
            return
        mode = request.param("fieldValidation") or "Warn"
        if mode not in ("Strict", "Warn", "Ignore"):
            raise failures.ApiFailure(
                422, f'fieldValidation: Unsupported value: "{mode}": supported values: "Ignore", "Warn", "Strict"'
            )
        wrong = schema.type_errors(kind, obj)
        if wrong:
            raise failures.bad_request((named if not patch else "") + wrong[0])
        unknown = schema.validate_fields(kind, obj)
        if mode != "Ignore":
            if body and request.content_type in ("", JSON):
                unknown = [*unknown, *duplicate_fields(body)]
            if unknown and mode == "Strict":
                text = "strict decoding error: " + ", ".join(unknown)
                raise failures.bad_request(text if patch else named + text)
            request.warnings.extend(unknown)
        if unknown:
            schema.prune(kind, obj)

    def _identify(self, served: Served, namespace: str, obj: Object) -> Object:
        """In place: metadata made a dict in the right namespace."""
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            metadata = obj["metadata"] = {}
        if served.kind.namespaced:
            given = metadata.get("namespace") or namespace
            if given != namespace:
                raise failures.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        return metadata

    def create(self, served: Served, namespace: str, obj: Object, *, dry_run: bool = False) -> Object:
        """Stores a new object and returns it in the storage version. ``obj`` is changed.

        Raises:
            ApiFailure: it cannot be created; the Status says why.
            StoreError: the disk refused.
        """
        kind = served.kind
        metadata = self._identify(served, namespace, obj)
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        if not metadata.get("name"):
            prefix = metadata.get("generateName")
            if not prefix:
                cause = {
                    "reason": "FieldValueRequired",
                    "message": "Required value: name or generateName is required",
                    "field": "metadata.name",
                }
                raise failures.invalid(kind.group, kind.kind, "", [cause])
            metadata["name"] = admission.generated_name(str(prefix))
        name = str(metadata["name"])
        if metadata.get("resourceVersion"):
            raise failures.bad_request("resourceVersion should not be set on objects to be created")
        if namespace:
            self._check_namespace(kind.group, kind.plural, name, namespace)
        at_ms = now_ms()
        admission.stamp_new(obj, at_ms)
        stored = convert(obj, served.storage.api_version)
        if "status" in served.storage.subresources:
            stored.pop("status", None)
        self._default(served, stored)
        admission.initial_state(served.store, stored, at_ms)
        if admission.counts_generations(served.store, served.storage.subresources) or served.is_custom:
            stored["metadata"]["generation"] = 1
        if self.storage.get(served.store, namespace, name) is not None:
            raise failures.already_exists(kind.group, kind.plural, name)
        if served.store == "/services":
            admission.allocate_service(self.storage, stored, None)
        self._validate(served, stored, None)
        stored = _ordered(stored)
        if not dry_run:
            self.storage.put(served.store, namespace, name, stored)
        return stored

    def _check_namespace(self, group: str, plural: str, name: str, namespace: str) -> None:
        record = self.storage.get("/namespaces", "", namespace)
        if record is None:
            raise failures.not_found("", "namespaces", namespace)
        if record.object["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise failures.forbidden(group, plural, name, why, [cause])

    def _default(self, served: Served, obj: Object) -> None:
        if not served.is_custom:
            schema.default(served.storage, obj)

    def _validate(self, served: Served, obj: Object, old: Object | None) -> None:
        if served.is_custom:
            return
        found = schema.validate(served.storage, obj, old)
        if found:
            causes = [{"reason": c.reason, "message": c.message, "field": c.field} for c in found]
            raise failures.invalid(served.kind.group, served.kind.kind, obj["metadata"].get("name", ""), causes)

    def update(
        self,
        served: Served,
        namespace: str,
        name: str,
        obj: Object,
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Replaces the object, or its status, and returns it in the storage version. ``obj`` is changed.

        An update that changes nothing is not written and keeps its resourceVersion.

        Raises:
            ApiFailure: it cannot be updated; the Status says why.
            StoreError: the disk refused.
        """
        kind = served.kind
        record = self._get(served, namespace, name)
        old = record.object
        metadata = self._identify(served, namespace, obj)
        if metadata.setdefault("name", name) != name:
            raise failures.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        before = old["metadata"]
        given_rv, given_uid = metadata.get("resourceVersion"), metadata.get("uid")
        if given_uid and given_uid != before["uid"]:
            why = f"Precondition failed: UID in precondition: {given_uid}, UID in object meta: {before['uid']}"
            raise failures.conflict(kind.group, kind.plural, name, why)
        if given_rv and given_rv not in ("0", before["resourceVersion"]):
            raise failures.conflict(kind.group, kind.plural, name)
        new = convert(obj, served.storage.api_version)
        if subresource:
            new = _only_subresource(record.copy(), new, subresource)
        else:
            if "status" in served.storage.subresources:
                new.pop("status", None)
                if "status" in old:
                    new["status"] = old["status"]
            self._keep_metadata(new["metadata"], before)
        self._default(served, new)
        if served.store == "/services" and not subresource:
            admission.allocate_service(self.storage, new, old)
        if served.store == _CRD and not subresource:
            new["status"] = admission.crd_status(new, now_ms())
        if before.get("deletionTimestamp"):
            added = set(new["metadata"].get("finalizers") or ()) - set(before.get("finalizers") or ())
            if added:
                cause = {
                    "reason": "FieldValueForbidden",
                    "message": "Forbidden: no new finalizers can be added if the object is being deleted, "
                    f"found new finalizers {sorted(added)}",
                    "field": "metadata.finalizers",
                }
                raise failures.invalid(kind.group, kind.kind, name, [cause])
        self._validate(served, new, old)
        counts = admission.counts_generations(served.store, served.storage.subresources) or served.is_custom
        if counts and not subresource and _content(new) != _content(old):
            new["metadata"]["generation"] = int(before.get("generation") or 0) + 1
        new = _ordered(new)
        new["metadata"]["resourceVersion"] = before["resourceVersion"]
        if new == old:
            return new
        if dry_run:
            return new
        if self._is_finished(served, new):
            self._remove(served, namespace, name, new)
        else:
            self.storage.put(served.store, namespace, name, new)
        return new

    def _keep_metadata(self, metadata: Object, before: Object) -> None:
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            if field in before:
                metadata[field] = before[field]
            else:
                metadata.pop(field, None)
        for field in ("selfLink", "managedFields"):
            metadata.pop(field, None)
        if "generateName" in before:
            metadata.setdefault("generateName", before["generateName"])

    def _is_finished(self, served: Served, obj: Object) -> bool:
        """A deleted object that nothing holds any more."""
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
            return False
        if served.store == "/namespaces" and (obj.get("spec") or {}).get("finalizers"):
            return False
        return not metadata.get("deletionGracePeriodSeconds")

    # patch

    async def _patch(self, request: Request, served: Served, namespace: str, name: str, subresource: str) -> None:
        body = await request.body()
        how = _PATCH_TYPES.get(request.content_type)
        if how is None or how == "apply" or (how == "strategic" and served.is_custom):
            accepted = [t for t, kind in _PATCH_TYPES.items() if kind in ("json", "merge")]
            if not served.is_custom:
                accepted.append("application/strategic-merge-patch+json")
            if how == "apply":
                raise ApiFailure(
                    415,
                    "server-side apply is not supported by this server; use client-side apply "
                    "(kubectl apply without --server-side). Accepted media types include: " + ", ".join(accepted),
                )
            raise failures.unsupported_media_type(request.content_type, accepted)
        try:
            patch = msgspec.json.decode(body)
        except msgspec.DecodeError as exc:
            raise failures.bad_request(f"error decoding patch: {exc}") from exc
        record = self._get(served, namespace, name)
        current = convert(record.copy(), served.group_version)
        patched = apply_patch(served, how, current, patch)
        self._check_body(request, served, patched, patch=True)
        if patched.get("metadata", {}).get("resourceVersion") is None:
            patched.setdefault("metadata", {})["resourceVersion"] = record.object["metadata"]["resourceVersion"]
        updated = self.update(served, namespace, name, patched, subresource=subresource, dry_run=_dry_run(request))
        await self._answer(request, served, 200, updated)

    # delete

    async def _delete_one(self, request: Request, served: Served, namespace: str, name: str, options: Object) -> None:
        for option in ("propagationPolicy", "gracePeriodSeconds", "orphanDependents"):
            if request.param(option) and option not in options:
                text = request.param(option)
                options[option] = request.integer(option) if option == "gracePeriodSeconds" else text
        dry_run = _dry_run(request) or bool(options.get("dryRun"))
        removed, obj = self.delete(served, namespace, name, options, dry_run=dry_run)
        if removed and served.store not in ("/pods", "/namespaces"):
            details: Object = {"name": name, "kind": served.kind.plural, "uid": obj["metadata"]["uid"]}
            if served.kind.group:
                details["group"] = served.kind.group
            await request.answer_object(
                200,
                {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details},
            )
        else:
            await self._answer(request, served, 200, obj)

    def delete(
        self, served: Served, namespace: str, name: str, options: Object, *, dry_run: bool = False
    ) -> tuple[bool, Object]:
        """Deletes, or marks for deletion what finalizers or a grace period still hold.

        Returns:
            Whether it is gone, and its last state in the storage version.

        Raises:
            ApiFailure: no such object, or a precondition failed.
        """
        kind = served.kind
        record = self._get(served, namespace, name)
        obj = record.copy()
        metadata = obj["metadata"]
        preconditions = options.get("preconditions") or {}
        for field, shown in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            wanted = preconditions.get(field)
            if wanted and wanted != metadata[field]:
                why = (
                    f"Precondition failed: {shown} in precondition: {wanted}, {shown} in object meta: {metadata[field]}"
                )
                raise failures.conflict(kind.group, kind.plural, name, why)
        if served.store == "/namespaces" and name in admission.SYSTEM_NAMESPACES:
            raise failures.forbidden("", "namespaces", name, "this namespace may not be deleted")
        policy = options.get("propagationPolicy")
        if policy not in (None, "", "Background", "Foreground", "Orphan"):
            raise failures.bad_request(f'invalid propagationPolicy "{policy}"')
        finalizers = [f for f in metadata.get("finalizers") or [] if f not in ("orphan", "foregroundDeletion")]
        held = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}.get(policy or "")
        if policy is None:
            finalizers = list(metadata.get("finalizers") or [])
        if held:
            finalizers.append(held)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        grace = self._grace(served, obj, options)
        at_ms = now_ms()
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = rfc3339(at_ms + grace * 1000)
            metadata["deletionGracePeriodSeconds"] = grace
            if admission.counts_generations(served.store, served.storage.subresources) or served.is_custom:
                metadata["generation"] = int(metadata.get("generation") or 0) + 1
        elif grace < int(metadata.get("deletionGracePeriodSeconds") or 0):
            metadata["deletionTimestamp"] = rfc3339(at_ms + grace * 1000)
            metadata["deletionGracePeriodSeconds"] = grace
        if served.store == "/namespaces":
            obj.setdefault("status", {})["phase"] = "Terminating"
        finished = self._is_finished(served, obj)
        if not dry_run:
            if finished:
                self._remove(served, namespace, name, obj)
            elif obj != record.object:
                self.storage.put(served.store, namespace, name, obj)
        return finished, obj

    def _grace(self, served: Served, obj: Object, options: Object) -> int:
        """Seconds; only a pod on a node has any."""
        if served.store != "/pods" or not (obj.get("spec") or {}).get("nodeName"):
            return 0
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        given = options.get("gracePeriodSeconds")
        if given is None:
            given = (obj.get("spec") or {}).get("terminationGracePeriodSeconds", 30)
        return max(0, int(given))

    def _remove(self, served: Served, namespace: str, name: str, last: Object) -> None:
        if served.store == _CRD:
            self._remove_custom_objects(last)
        self.storage.delete(served.store, namespace, name, last)

    def _remove_custom_objects(self, crd: Object) -> None:
        spec = crd.get("spec") or {}
        group, plural = spec.get("group", ""), (spec.get("names") or {}).get("plural", "")
        if not self.registry.has_builtin(group, plural):
            for key in list(self.storage.keys(f"{group}/{plural}")):
                self.storage.delete(f"{group}/{plural}", *key)

    async def _delete_collection(self, request: Request, served: Served, namespace: str) -> None:
        if served.kind.namespaced and not namespace:
            raise failures.method_not_allowed()
        labels, fields = self._select(request, served, request.param("fieldSelector"))
        body = await request.body()
        options = decode(body, request.content_type) if body.strip() else {}
        items = []
        for record in self.storage.records(served.store, namespace):
            metadata = record.object["metadata"]
            if (labels is None or labels(metadata.get("labels") or {})) and (fields is None or fields(record.object)):
                items.append(metadata["name"])
        deleted = []
        for name in items:
            with contextlib.suppress(ApiFailure):
                _, obj = self.delete(served, namespace, name, dict(options), dry_run=_dry_run(request))
                deleted.append(convert(obj, served.group_version))
        await request.answer_object(
            200,
            {
                "kind": served.kind.list_kind,
                "apiVersion": served.group_version,
                "metadata": {"resourceVersion": str(self.storage.revision)},
                "items": deleted,
            },
        )

    # subresources

    async def _scale(self, request: Request, served: Served, namespace: str, name: str) -> None:
        record = self._get(served, namespace, name)
        if request.method == "GET":
            await request.answer_object(200, scale_of(served, record.object))
            return
        current = scale_of(served, record.object)
        if request.method == "PUT":
            scale = await request.object()
        elif request.method == "PATCH":
            how = _PATCH_TYPES.get(request.content_type)
            if how not in ("json", "merge", "strategic"):
                raise failures.unsupported_media_type(request.content_type, list(_PATCH_TYPES)[:3])
            try:
                patch = msgspec.json.decode(await request.body())
            except msgspec.DecodeError as exc:
                raise failures.bad_request(f"error decoding patch: {exc}") from exc
            scale = patching.json_patch(current, patch) if how == "json" else patching.merge_patch(current, patch)
        else:
            raise failures.method_not_allowed()
        record = self._get(served, namespace, name)
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if not isinstance(replicas, int) or replicas < 0:
            cause = {
                "reason": "FieldValueInvalid",
                "message": f"Invalid value: {replicas}: must be greater than or equal to 0",
                "field": "spec.replicas",
            }
            raise failures.invalid("autoscaling", "Scale", name, [cause])
        obj = record.copy()
        given = (scale.get("metadata") or {}).get("resourceVersion")
        if given and request.method == "PUT" and given != obj["metadata"]["resourceVersion"]:
            raise failures.conflict(served.kind.group, served.kind.plural, name)
        _set_path(obj, served.scale_paths()[0], replicas)
        updated = self.update(
            Served(served.storage, served.storage, served.crd_version), namespace, name, obj, dry_run=_dry_run(request)
        )
        await request.answer_object(200, scale_of(served, updated))

    async def _bind(self, request: Request, served: Served, namespace: str, name: str) -> None:
        if request.method != "POST":
            raise failures.method_not_allowed()
        binding = await request.object()
        target = (binding.get("target") or {}).get("name")
        if not target:
            cause = {"reason": "FieldValueRequired", "message": "Required value", "field": "target.name"}
            raise failures.invalid("", "Binding", name, [cause])
        obj = self._get(served, namespace, name).copy()
        spec = obj.setdefault("spec", {})
        if spec.get("nodeName"):
            why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
            raise failures.conflict("", "pods/binding", name, why)
        if obj["metadata"].get("deletionTimestamp"):
            raise failures.conflict(
                "", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host"
            )
        if not _dry_run(request):
            spec["nodeName"] = target
            conditions = [
                c for c in (obj.setdefault("status", {}).get("conditions") or []) if c.get("type") != "PodScheduled"
            ]
            conditions.append(
                {
                    "type": "PodScheduled",
                    "status": "True",
                    "lastProbeTime": None,
                    "lastTransitionTime": rfc3339(now_ms()),
                }
            )
            obj["status"]["conditions"] = conditions
            self.storage.put(served.store, namespace, name, obj)
        await request.answer_object(
            201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        )

    async def _evict(self, request: Request, served: Served, namespace: str, name: str) -> None:
        if request.method != "POST":
            raise failures.method_not_allowed()
        eviction = await request.object()
        options = eviction.get("deleteOptions") or {}
        self.delete(served, namespace, name, dict(options), dry_run=_dry_run(request) or bool(options.get("dryRun")))
        await request.answer_object(
            201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        )

    async def _pod_log(self, request: Request, namespace: str, name: str) -> None:
        pod = self._get(self._served("", "v1", "pods"), namespace, name).object
        spec = pod.get("spec") or {}
        names = [c.get("name", "") for field in ("initContainers", "containers") for c in spec.get(field) or []]
        container = request.param("container")
        if not container:
            regular = [c.get("name", "") for c in spec.get("containers") or []]
            default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
            if len(regular) == 1:
                container = regular[0]
            elif default in regular:
                container = str(default)
            else:
                raise failures.bad_request(
                    f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
                )
        elif container not in names:
            raise failures.bad_request(f"container {container} is not valid for pod {name}")
        if not spec.get("nodeName"):
            await request.answer(200, b"", "text/plain")
            return
        await self._from_node(request, f"/containerLogs/{namespace}/{name}/{container}")

    async def _from_node(self, request: Request, path: str) -> None:
        if self._node is None:
            tls = client_tls(
                ca_file=self._pki / "ca.crt",
                cert_file=self._pki / "apiserver.crt",
                key_file=self._pki / "apiserver.key",
            )
            self._node = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=tls),
                timeout=aiohttp.ClientTimeout(total=None, connect=3.0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        url = f"https://127.0.0.1:{NODE_PORT + self._port_offset}{path}?{request.query}"
        headers = {"Authorization": f"Bearer {self._token.decode()}"}
        closed = asyncio.Event()
        gone = asyncio.create_task(_until_gone(request.receive, closed.set))
        try:
            async with self._node.get(url, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    text = (await response.content.read(65536)).decode("utf-8", "replace").strip()
                    raise _node_failure(response.status, text)
                await request.start(200, [(b"content-type", b"text/plain"), (b"cache-control", b"no-cache, private")])
                stopping = asyncio.create_task(closed.wait())
                try:
                    while True:
                        reading = asyncio.ensure_future(response.content.readany())
                        done, _ = await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                        if reading not in done:
                            reading.cancel()
                            return
                        data = reading.result()
                        if not data:
                            break
                        await request.chunk(data)
                finally:
                    stopping.cancel()
                await request.chunk(b"", more=False)
        except (OSError, aiohttp.ClientError, TimeoutError) as exc:
            if request.started:
                raise ConnectionResetError("the node went away") from exc
            raise ApiFailure(
                500,
                f"Internal error occurred: the node does not answer at 127.0.0.1:{NODE_PORT + self._port_offset} "
                f"({exc}); it may be restarting, try again",
            ) from exc
        finally:
            gone.cancel()

    async def _review(self, request: Request, served: Served, namespace: str) -> None:
        if request.method != "POST":
            raise failures.method_not_allowed()
        obj = await request.object()
        obj["apiVersion"], obj["kind"] = served.group_version, served.kind.kind
        obj.setdefault("metadata", {})
        plural, spec = served.kind.plural, obj.get("spec") or {}
        if plural == "bindings":
            await self._bind(request, self._served("", "v1", "pods"), namespace, obj["metadata"].get("name", ""))
            return
        if plural == "selfsubjectaccessreviews":
            obj["status"] = {"allowed": True, "reason": "the embedded cluster has one user, its administrator"}
        elif plural in ("subjectaccessreviews", "localsubjectaccessreviews"):
            allowed = spec.get("user") not in (None, "", "system:anonymous")
            obj["status"] = {"allowed": allowed}
            if not allowed:
                obj["status"]["reason"] = "anonymous users may read health and version only"
        elif plural == "selfsubjectrulesreviews":
            every = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            obj["status"] = {
                "resourceRules": [every],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
        elif plural == "selfsubjectreviews":
            obj["status"] = {"userInfo": {"username": request.user, "groups": list(request.groups)}}
        elif plural == "tokenreviews":
            token = str(spec.get("token") or "").encode()
            if hmac.compare_digest(token, self._token):
                user = {"username": ADMIN, "uid": ADMIN, "groups": list(ADMIN_GROUPS)}
                obj["status"] = {"authenticated": True, "user": user, "audiences": spec.get("audiences") or []}
            else:
                obj["status"] = {"authenticated": False, "error": "invalid bearer token"}
        await request.answer_object(201, obj)


class _Lines:
    """Encoded watch lines for one watcher; plain JSON lines are shared with every other watcher of the version."""

    def __init__(self, app: Application, request: Request, served: Served, form: str) -> None:
        self._app = app
        self._served = served
        self._form = form
        self._include = request.param("includeObject")
        self._columns_sent = False

    def of(self, type_: str, record: Record, event: Event | None) -> bytes:
        if self._form:
            obj = convert(record.object, self._served.group_version)
            if self._form == "Table":
                metadata = {"resourceVersion": str(record.rv)}
                body = table_of(self._served, [obj], now_ms(), metadata, self._include)
                if self._columns_sent:
                    body["columnDefinitions"] = None
                self._columns_sent = True
            else:
                body = partial(obj)
            return encode({"type": type_, "object": body}) + b"\n"
        key = (type_, self._served.group_version, record.rv)
        line = event.lines.get(key) if event is not None else None
        if line is None:
            line = b'{"type":"%s","object":%s}\n' % (type_.encode(), self._app._present(self._served, record))
            if event is not None:
                event.lines[key] = line
        return line

    def bookmark(self, revision: int, initial_end: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = self._served.kind
        body: Object = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        if self._form == "Table":
            body = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": None,
                "rows": [],
            }
        elif self._form:
            body = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return encode({"type": "BOOKMARK", "object": body}) + b"\n"


def _event_lines(events: list[Event], line: _Lines, matches: Any, every: bool) -> list[bytes]:
    """The lines a watcher with this selector sees: entering it is ADDED, leaving it DELETED."""
    found = []
    for event in events:
        if every:
            found.append(line.of(event.type, event.record, event))
            continue
        before = matches(event.previous)
        after = event.type != DELETED and matches(event.record)
        if after:
            found.append(line.of(MODIFIED if before else ADDED, event.record, event))
        elif before:
            record = event.record
            if event.type != DELETED and event.previous is not None:
                # The watcher knows the object as it was, at the version that took it out of the selection.
                obj = event.previous.copy()
                obj["metadata"]["resourceVersion"] = str(event.rv)
                record = Record(encode(obj), event.rv, obj)
            found.append(line.of(DELETED, record, event if record is event.record else None))
    return found


async def _until_gone(receive: Any, then: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            then()
            return


def _only_get(request: Request) -> None:
    if request.method != "GET":
        raise failures.method_not_allowed()


def _dry_run(request: Request) -> bool:
    values = request.params.get("dryRun") or []
    if any(value not in ("All", "") for value in values):
        cause = {
            "reason": "FieldValueNotSupported",
            "message": f'Unsupported value: {json.dumps(values)}: supported values: "All"',
            "field": "dryRun",
        }
        raise failures.invalid("meta.k8s.io", "CreateOptions", "", [cause])
    return "All" in values


def hash_text(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()[:32].upper()


def version_info() -> Object:
    import platform

    return {
        "major": "1",
        "minor": "37",
        "gitVersion": f"{KUBERNETES_VERSION}+flyball",
        "gitCommit": f"flyball-{__version__}",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "python",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _continue_token(revision: int, key: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(encode({"v": "meta.k8s.io/v1", "rv": revision, "start": list(key)})).decode()


def _continue_position(token: str) -> tuple[int, tuple[str, str]]:
    try:
        value = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()))
        namespace, name = value["start"]
        return int(value["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError, msgspec.MsgspecError) as exc:
        raise failures.bad_request("continue key is not valid") from exc


_FIELD_ORDER = ("apiVersion", "kind", "metadata")


def _ordered(obj: Object) -> Object:
    """apiVersion, kind and metadata first, status last, as people expect to read it."""
    ordered = {key: obj[key] for key in _FIELD_ORDER if key in obj}
    ordered.update((key, value) for key, value in obj.items() if key not in ordered and key != "status")
    if "status" in obj:
        ordered["status"] = obj["status"]
    return ordered


def _content(obj: Object) -> Object:
    """What a generation counts: all but metadata and status."""
    return {key: value for key, value in obj.items() if key not in ("metadata", "status", "apiVersion", "kind")}


def _only_subresource(old: Object, new: Object, subresource: str) -> Object:
    """The old object with just the part that the subresource may change."""
    if subresource == "finalize":
        old.setdefault("spec", {})["finalizers"] = (new.get("spec") or {}).get("finalizers") or []
    elif subresource == "resize":
        old["spec"] = new.get("spec") or {}
    elif "status" in new:
        old["status"] = new["status"]
    else:
        old.pop("status", None)
    return old


def apply_patch(served: Served, how: str, current: Object, patch: Any) -> Object:
    """The patched object; ``how`` is json, merge or strategic.

    Raises:
        QueryError: the patch is malformed or does not apply.
    """
    if how == "json":
        patched = patching.json_patch(current, patch)
    elif not isinstance(patch, dict):
        raise QueryError("error decoding patch: the patch must be an object")
    elif how == "merge":
        patched = patching.merge_patch(current, patch)
    else:
        node: Any = schema.patch_schema(served.kind)
        patched = patching.strategic_merge(current, patch, node)
    if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
        raise QueryError("the patch leaves no object with metadata")
    return patched


def _path(text: str) -> list[str]:
    return [part for part in text.lstrip(".").split(".") if part]


def _get_path(obj: Any, text: str) -> Any:
    for part in _path(text):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _set_path(obj: Object, text: str, value: Any) -> None:
    parts = _path(text)
    for part in parts[:-1]:
        obj = obj.setdefault(part, {})
    obj[parts[-1]] = value


def scale_of(served: Served, obj: Object) -> Object:
    """autoscaling/v1 Scale of a scalable object (storage version)."""
    spec_path, status_path, selector_path = served.scale_paths()
    metadata = obj["metadata"]
    kept = {
        k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if k in metadata
    }
    status: Object = {"replicas": _get_path(obj, status_path) or 0}
    if served.store in _SCALABLE:
        selector = selector_text((obj.get("spec") or {}).get("selector"))
    else:
        selector = str(_get_path(obj, selector_path) or "") if selector_path else ""
    if selector:
        status["selector"] = selector
    replicas = _get_path(obj, spec_path)
    spec = {} if replicas is None else {"replicas": replicas}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept, "spec": spec, "status": status}


def selector_text(selector: Any) -> str:
    """A LabelSelector (or a plain label map) as a selector string, keys in order."""
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))
    terms = [(k, f"{k}={v}") for k, v in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression.get("key", ""), expression.get("operator")
        values = ",".join(sorted(expression.get("values") or []))
        text = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
        }
        terms.append((key, text.get(str(operator), key)))
    return ",".join(term for _, term in sorted(terms))


def _node_failure(status: int, text: str) -> ApiFailure:
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(text.encode())
            if isinstance(value, dict) and value.get("message"):
                return ApiFailure(int(value.get("code") or status), str(value["message"]), reason=value.get("reason"))
    return ApiFailure(status if status in (400, 404, 503) else 500, text or f"the node answered {status}")
