"""The adapter's HTTP face: discovery, the three metrics APIs, health, and who may ask.

Facts: reference/adapter.md section 2.
"""

import hmac
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from flyball import __version__, clock
from flyball.adapter.service import Adapter, MetricValue, ObjectUsage, Usage
from flyball.errors import ConfigError, FlyballError, KubeApiError, NotFoundError, QueryError, UpstreamError
from flyball.http.server import LOOPBACK_HOSTS, Server, ServerTLS
from flyball.http.server import serve as serve_http
from flyball.metricrules import Kind
from flyball.model.quantities import Format, Quantity
from flyball.model.selectors import Selector, parse_selector

log = logging.getLogger(__name__)

CUSTOM = "custom.metrics.k8s.io"
EXTERNAL = "external.metrics.k8s.io"
RESOURCE = "metrics.k8s.io"
GROUPS: dict[str, tuple[str, ...]] = {
    CUSTOM: ("v1beta1", "v1beta2"),  # the first is the preferred one, as upstream
    EXTERNAL: ("v1beta1",),
    RESOURCE: ("v1beta1",),
}
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
FRONT_PROXY_NAMES = frozenset({"front-proxy-client"})
SERVICE_HOSTS = LOOPBACK_HOSTS | {
    "flyball-adapter.flyball-system.svc",
    "flyball-adapter.flyball-system.svc.cluster.local",
    "flyball-adapter",
}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    500: "InternalError",
}
_JSON = "application/json"
_AGGREGATED = "APIGroupDiscoveryList"


class _Failure(Exception):  # noqa: N818
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class MetricsApp:
    """The ASGI application.

    Args:
        token: a bearer token equal to it may ask; "" turns tokens off.
        front_proxy_names: names (CN) a verified peer certificate may have. The server must verify it against the
            front-proxy CA and no other.
        extra_app: serves everything below ``/api/flyball/`` but ``/api/flyball/v1/rules``, with paths left whole.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        token: str,
        front_proxy_names: Iterable[str] = FRONT_PROXY_NAMES,
        extra_app: Any = None,
    ) -> None:
        self._adapter, self._token, self._extra = adapter, token, extra_app
        self._names = frozenset(front_proxy_names)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        path: str = scope["path"]
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = None if path in OPEN_PATHS else self._refused(scope, headers)
        if scope["type"] == "websocket":
            if refused is None and self._extra is not None and path.startswith("/api/flyball/"):
                await self._extra(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        if refused is not None:
            await _send_failure(send, refused)
            return
        if self._extra is not None and path.startswith("/api/flyball/") and path != "/api/flyball/v1/rules":
            await self._extra(scope, receive, send)
            return
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise _Failure(405, f"{scope['method']} is not supported here; the metrics APIs are read with GET")
            raw = scope.get("raw_path") or path.encode()
            parts = [unquote(part) for part in raw.split(b"?")[0].decode("latin-1").split("/")[1:]]
            query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            document, content_type = await self._answer(path, parts, query, headers.get("accept", ""))
        except _Failure as exc:
            await _send_failure(send, exc)
        except FlyballError as exc:
            await _send_failure(send, _failure_of(exc))
        except Exception:
            log.exception("adapter_request_failed path=%s", path)
            await _send_failure(send, _Failure(500, "Internal error occurred: the adapter's log has the reason"))
        else:
            body = document if isinstance(document, bytes) else msgspec.json.encode(document)
            await _send(send, 200, b"" if scope["method"] == "HEAD" else body, content_type)

    def _refused(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> _Failure | None:
        peer = ((scope.get("extensions") or {}).get("tls") or {}).get("peercert")
        if peer and _common_names(peer) & self._names:
            return None  # the API server has authenticated and authorised the user before it passed this on
        authorization = headers.get("authorization", "")
        if authorization[:7].lower() == "bearer ":
            given = authorization[7:].strip().encode()
            if self._token and hmac.compare_digest(given, self._token.encode()):
                return None
            return _Failure(401, "Unauthorized: the bearer token is not known here")
        return _Failure(
            403,
            "forbidden: anonymous requests are not answered; ask through the Kubernetes API server, or send its token",
        )

    async def _answer(
        self, path: str, parts: list[str], query: Mapping[str, list[str]], accept: str
    ) -> tuple[Any, str]:
        if path in ("/healthz", "/livez"):
            return b"ok", "text/plain; charset=utf-8"
        if path == "/readyz":
            if not self._adapter.ready:
                raise _Failure(500, "not ready: series have not been listed yet, or pods are not known")
            return b"ok", "text/plain; charset=utf-8"
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": f"flyball-{__version__}"}, _JSON
        if path == "/api/flyball/v1/rules":
            return self._adapter.rules_document(), _JSON
        if parts[0] == "openapi":
            return _openapi(parts[1:]), _JSON
        if parts[0] != "apis":
            raise _Failure(404, "the server could not find the requested resource")
        parts = parts[1:-1] if parts[-1] == "" else parts[1:]
        if not parts:
            return self._groups(accept)
        versions = GROUPS.get(parts[0])
        if versions is None or (len(parts) > 1 and parts[1] not in versions):
            raise _Failure(404, "the server could not find the requested resource")
        if len(parts) == 1:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[0])}, _JSON
        group, version, rest = parts[0], parts[1], parts[2:]
        if not rest:
            resources = self._resources(group)
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{group}/{version}",
                "resources": resources,
            }, _JSON
        if _one(query, "watch") in ("true", "1"):
            raise _Failure(405, "watch is not supported on metrics; ask again instead")
        if group == CUSTOM:
            return await self._custom(version, rest, query), _JSON
        if group == EXTERNAL:
            return await self._external(rest, query), _JSON
        return await self._usage(rest, query, accept), _JSON

    # -- discovery -------------------------------------------------------------------------------------------------

    def _groups(self, accept: str) -> tuple[Any, str]:
        for media in accept.split(","):
            fields = {key.strip(): value for key, _, value in (item.partition("=") for item in media.split(";")[1:])}
            if fields.get("as") == _AGGREGATED and fields.get("v") in ("v2", "v2beta1"):
                version = fields["v"]
                content_type = f"{_JSON};g=apidiscovery.k8s.io;v={version};as={_AGGREGATED}"
                items = [self._aggregated(group) for group in GROUPS]
                return {
                    "kind": _AGGREGATED,
                    "apiVersion": f"apidiscovery.k8s.io/{version}",
                    "metadata": {},
                    "items": items,
                }, content_type
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group) for group in GROUPS]}, _JSON

    def _aggregated(self, group: str) -> dict[str, Any]:
        return {
            "metadata": {"name": group, "creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "resources": _aggregated_resources(group, version, self._resources(group)),
                    "freshness": "Current",
                }
                for version in GROUPS[group]
            ],
        }

    def _resources(self, group: str) -> list[dict[str, Any]]:
        if group == RESOURCE:
            return [
                _resource("nodes", False, "NodeMetrics", ["get", "list"]),
                _resource("pods", True, "PodMetrics", ["get", "list"]),
            ]
        if group == EXTERNAL:
            names = [metric.name for metric in self._adapter.registry.external_metrics()]
            return [_resource(name, True, "ExternalMetricValueList", ["get"]) for name in names]
        return [
            _resource(f"{metric.resource}/{metric.name}", metric.namespaced, "MetricValueList", ["get"])
            for metric in self._adapter.registry.custom_metrics()
        ]

    # -- values ----------------------------------------------------------------------------------------------------

    async def _custom(self, version: str, rest: list[str], query: Mapping[str, list[str]]) -> dict[str, Any]:
        if len(rest) == 4 and rest[0] == "namespaces" and rest[2] == "metrics":
            namespace, resource, name, metric = "", "namespaces", rest[1], rest[3]
        elif len(rest) == 5 and rest[0] == "namespaces":
            _, namespace, resource, name, metric = rest
        elif len(rest) == 3 and rest[0] != "namespaces":
            namespace, (resource, name, metric) = "", rest
        elif len(rest) == 3:
            raise _Failure(
                400, f"the path below namespaces/{rest[1]} has too few parts; name resource, object and metric"
            )
        else:
            raise _Failure(404, "the server could not find the requested resource")
        if not all((resource, name, metric)):
            raise _Failure(404, "the server could not find the requested resource")
        kind = self._adapter.find_kind(resource)
        if kind is None or kind.namespaced != bool(namespace):
            raise _Failure(404, f"the server could not find the metric {metric} for {resource}")
        _check_field_selector(query, name)
        metric_selector = parse_selector(_one(query, "metricLabelSelector"))
        selector = parse_selector(_one(query, "labelSelector"))
        values = await self._adapter.custom_values(kind, namespace, name, metric, selector, metric_selector)
        shown = _selector_document(metric_selector)
        items = [_custom_item(version, kind, metric, value, shown) for value in values]
        return {"kind": "MetricValueList", "apiVersion": f"{CUSTOM}/{version}", "metadata": {}, "items": items}

    async def _external(self, rest: list[str], query: Mapping[str, list[str]]) -> dict[str, Any]:
        if len(rest) != 3 or rest[0] != "namespaces" or not rest[2]:
            raise _Failure(404, "the server could not find the requested resource")
        values = await self._adapter.external_values(rest[1], rest[2], parse_selector(_one(query, "labelSelector")))
        items = []
        for value in values:
            item: dict[str, Any] = {
                "metricName": rest[2],
                "metricLabels": dict(value.labels),
                "timestamp": clock.rfc3339(value.t_ms),
                "value": _decimal(value.milli),
            }
            if value.window_ms:
                item["window"] = value.window_ms // 1000
            items.append(item)
        return {
            "kind": "ExternalMetricValueList",
            "apiVersion": f"{EXTERNAL}/v1beta1",
            "metadata": {},
            "items": items,
        }

    async def _usage(self, rest: list[str], query: Mapping[str, list[str]], accept: str) -> dict[str, Any]:
        namespace = name = ""
        if rest[0] == "nodes" and len(rest) <= 2:
            is_pods, name = False, rest[1] if len(rest) == 2 else ""
        elif rest == ["pods"]:
            is_pods = True
        elif rest[0] == "namespaces" and len(rest) in (3, 4) and rest[2] == "pods":
            is_pods, namespace, name = True, rest[1], rest[3] if len(rest) == 4 else ""
        else:
            raise _Failure(404, "the server could not find the requested resource")
        single = bool(name)
        selector = parse_selector(_one(query, "labelSelector")) if not single else Selector()
        if not single:
            fields = _fields(query)
            namespace, name = fields.get("metadata.namespace", namespace), fields.get("metadata.name", "")
            if not is_pods and "metadata.namespace" in fields:
                raise _Failure(400, "nodes have no metadata.namespace; leave it out of the field selector")
        adapter = self._adapter
        if is_pods:
            usages = await adapter.pod_usage(namespace, name, selector)
        else:
            usages = await adapter.node_usage(name, selector)
        if single and not usages:
            noun = "podmetrics" if is_pods else "nodemetrics"
            shown = f"{namespace}/{name}" if namespace else name
            raise _Failure(404, f'{noun}.{RESOURCE} "{shown}" not found')
        rules = adapter.resource_rules
        window = _go_duration(rules.window_ms if rules is not None else 0)
        now = clock.rfc3339(clock.now_ms())
        if "as=Table" in accept.replace(" ", ""):
            return _table(usages, window, now)
        items = [_usage_item(usage, is_pods, window, now) for usage in usages]
        kind = "PodMetrics" if is_pods else "NodeMetrics"
        head = {"apiVersion": f"{RESOURCE}/v1beta1"}
        if single:
            return {"kind": kind, **head, **items[0]}
        return {"kind": f"{kind}List", **head, "metadata": {}, "items": items}


def _failure_of(exc: FlyballError) -> _Failure:
    if isinstance(exc, NotFoundError):
        return _Failure(404, str(exc))
    if isinstance(exc, QueryError):
        return _Failure(400, str(exc))
    if isinstance(exc, (KubeApiError, UpstreamError, ConfigError)):
        return _Failure(500, f"Internal error occurred: {exc}")
    return _Failure(500, f"Internal error occurred: {exc}")


def _common_names(peer: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(value for part in peer.get("subject") or () for key, value in part if key == "commonName")


def _one(query: Mapping[str, list[str]], name: str) -> str:
    return query.get(name, [""])[0]


def _fields(query: Mapping[str, list[str]]) -> dict[str, str]:
    found = {}
    for term in filter(None, _one(query, "fieldSelector").split(",")):
        key, equals, value = term.replace("==", "=").partition("=")
        if not equals or key.endswith("!") or key not in ("metadata.name", "metadata.namespace"):
            raise _Failure(
                400, f'field selector "{term}" is not supported; use metadata.name=x or metadata.namespace=x'
            )
        found[key] = value
    return found


def _check_field_selector(query: Mapping[str, list[str]], name: str) -> None:
    for key, value in _fields(query).items():
        if key != "metadata.name" or value != name:
            raise _Failure(400, f'fieldSelector {key}={value} does not match the object "{name}" of the path')


def _decimal(milli: int) -> str:
    return str(Quantity(milli, -3))


def _selector_document(selector: Selector) -> dict[str, Any] | None:
    if not selector.requirements:
        return None
    names = {"in": "In", "notin": "NotIn", "exists": "Exists", "!": "DoesNotExist", "!=": "NotIn"}
    labels = {item.key: item.values[0] for item in selector.requirements if item.operator == "="}
    expressions = [
        {"key": item.key, "operator": names.get(item.operator, item.operator)}
        | ({"values": list(item.values)} if item.values else {})
        for item in selector.requirements
        if item.operator != "="
    ]
    return ({"matchLabels": labels} if labels else {}) | ({"matchExpressions": expressions} if expressions else {})


def _custom_item(
    version: str, kind: Kind, metric: str, value: MetricValue, selector: dict[str, Any] | None
) -> dict[str, Any]:
    described = {"kind": kind.kind}
    if value.namespace:
        described["namespace"] = value.namespace
    # As upstream, core objects read "/v1".
    described |= {"name": value.name, "apiVersion": f"{kind.group}/{kind.version}"}
    item: dict[str, Any] = {"describedObject": described}
    window = value.window_ms // 1000 if value.window_ms else 0
    if version == "v1beta1":
        item |= {"metricName": metric, "timestamp": clock.rfc3339(value.t_ms)}
        if window:
            item["window"] = window
        return item | {"value": _decimal(value.milli), "selector": selector}
    item |= {"metric": {"name": metric, "selector": selector}, "timestamp": clock.rfc3339(value.t_ms)}
    if window:
        item["windowSeconds"] = window
    return item | {"value": _decimal(value.milli)}


def _usage_document(usage: Usage) -> dict[str, str]:
    memory = Quantity(usage.memory_milli, -3, Format.BINARY_SI)
    return {"cpu": str(Quantity(usage.cpu_nano, -9)), "memory": str(memory)}


def _usage_item(usage: ObjectUsage, is_pod: bool, window: str, now: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": usage.name}
    if is_pod:
        metadata["namespace"] = usage.namespace
    metadata["creationTimestamp"] = now
    if usage.labels:
        metadata["labels"] = usage.labels
    item: dict[str, Any] = {"metadata": metadata, "timestamp": clock.rfc3339(usage.t_ms), "window": window}
    if is_pod:
        item["containers"] = [{"name": name, "usage": _usage_document(part)} for name, part in usage.containers]
    else:
        item["usage"] = _usage_document(usage.total)
    return item


def _table(usages: Sequence[ObjectUsage], window: str, now: str) -> dict[str, Any]:
    def column(name: str, form: str, description: str) -> dict[str, Any]:
        return {"name": name, "type": "string", "format": form, "description": description, "priority": 0}

    rows = []
    for usage in usages:
        shown = _usage_document(usage.total)
        metadata: dict[str, Any] = {"name": usage.name, "creationTimestamp": now}
        if usage.namespace:
            metadata["namespace"] = usage.namespace
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        rows.append({"cells": [usage.name, shown["cpu"], shown["memory"], window], "object": partial})
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            column("Name", "name", "Name of the resource"),
            column("cpu", "quantity", "CPU in use, in cores"),
            column("memory", "quantity", "Memory in use, in bytes"),
            column("Window", "duration", "Span of time over which CPU was measured"),
        ],
        "rows": rows,
    }


def _go_duration(duration_ms: int) -> str:
    """Go's ``time.Duration`` text: ``5m0s``, ``20s``, ``1.5s``."""
    if duration_ms == 0:
        return "0s"
    hours, rest = divmod(duration_ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _group(group: str) -> dict[str, Any]:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in GROUPS[group]]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resource(name: str, namespaced: bool, kind: str, verbs: list[str]) -> dict[str, Any]:
    return {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs}


def _aggregated_resources(group: str, version: str, resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Subresources stand below their resource; one that is itself not served has no kind and no verbs."""
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    for item in resources:
        name, slash, subresource = item["name"].partition("/")
        scope = "Namespaced" if item["namespaced"] else "Cluster"
        kind = {"group": group, "version": version, "kind": item["kind"]}
        entry = found.setdefault((name, item["namespaced"]), {"resource": name, "scope": scope})
        if slash:
            entry.setdefault("subresources", []).append(
                {"subresource": subresource, "responseKind": kind, "verbs": item["verbs"]}
            )
        else:
            entry |= {"responseKind": kind, "singularResource": "", "verbs": item["verbs"]}
    return list(found.values())


def _openapi(parts: list[str]) -> dict[str, Any]:
    info = {"title": "Flyball metrics APIs", "version": __version__}
    if parts == ["v2"]:
        return {"swagger": "2.0", "info": info, "paths": {}}
    if parts and parts[0] == "v3":
        names = [f"apis/{group}/{version}" for group, versions in GROUPS.items() for version in versions]
        if len(parts) == 1:
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in names}}
        if "/".join(parts[1:]) in names:
            return {"openapi": "3.0.0", "info": info, "paths": {}}
    raise _Failure(404, "the server could not find the requested resource")


async def _send(send: Any, code: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache, private")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_failure(send: Any, failure: _Failure) -> None:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(failure),
        "reason": _REASONS.get(failure.code, "InternalError"),
        "code": failure.code,
    }
    await _send(send, failure.code, msgspec.json.encode(status), _JSON)


async def serve(
    adapter: Adapter,
    *,
    port: int,
    pki_dir: Path,
    token: str,
    extra_app: Any = None,
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] | None = SERVICE_HOSTS,
) -> Server:
    """Serves the metrics APIs over TLS; ``adapter.run()`` must run beside it.

    Args:
        pki_dir: holds adapter.crt, adapter.key and front-proxy-ca.crt.
        token: the bearer token that may ask directly.
        extra_app: see ``MetricsApp``.

    Raises:
        ConfigError: the port or the certificates cannot be used.
    """
    tls = ServerTLS(pki_dir / "adapter.crt", pki_dir / "adapter.key", pki_dir / "front-proxy-ca.crt")
    for path in (tls.certificate, tls.key, tls.client_ca):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path}: there is no such file; the adapter needs it for TLS")
    app = MetricsApp(adapter, token=token, extra_app=extra_app)
    return await serve_http(app, port=port, host=host, tls=tls, allowed_hosts=allowed_hosts, name="adapter")
