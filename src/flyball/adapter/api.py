"""The adapter's HTTP face: discovery, the three metrics APIs, health.

Facts: reference/adapter.md section 2.
"""

import functools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from flyball import __version__, clock
from flyball.adapter.access import Access, Asked, TokenAccess, asked_of
from flyball.adapter.documents import (
    CUSTOM,
    EXTERNAL,
    GROUPS,
    RESOURCE,
    Failure,
    aggregated_resources,
    custom_item,
    external_item,
    failure_of,
    go_duration,
    group_document,
    openapi,
    resource_document,
    selector_document,
    table,
    usage_item,
)
from flyball.adapter.onward import Onward
from flyball.adapter.service import Adapter, UnknownMetricError
from flyball.adapter.telemetry import Telemetry
from flyball.adapter.tracing import request_span
from flyball.errors import ConfigError, FlyballError
from flyball.http.server import LOOPBACK_HOSTS, Server, ServerTLS
from flyball.http.server import serve as serve_http
from flyball.model.selectors import Selector, parse_selector

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
RULES_PATH = "/api/flyball/v1/rules"
SERVICE_HOSTS = LOOPBACK_HOSTS | {
    "flyball-embedded-adapter.flyball-system.svc",
    "flyball-embedded-adapter.flyball-system.svc.cluster.local",
    "flyball-embedded-adapter",
}
_JSON = "application/json"
_AGGREGATED = "APIGroupDiscoveryList"


class MetricsApp:
    """The ASGI application.

    Args:
        access: decides who may ask.
        onward: asked for what no rule gives.
        extra_app: serves everything below ``/api/flyball/`` but the rules, with paths left whole.
    """

    def __init__(
        self, adapter: Adapter, access: Access, *, onward: Onward | None = None, extra_app: Any = None
    ) -> None:
        self._adapter, self._access, self._onward, self._extra = adapter, access, onward, extra_app
        self._telemetry = Telemetry(adapter)
        self._stopping = False

    def stop(self) -> None:
        """From now on ``/readyz`` says no, so that no new requests are sent here."""
        self._stopping = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        path: str = scope["path"]
        asked = asked_of(scope)
        elsewhere = self._extra is not None and path.startswith("/api/flyball/") and path != RULES_PATH
        refused: Failure | None = None
        try:
            if path not in OPEN_PATHS:
                await self._access.admit(asked)
        except Failure as exc:
            refused = exc
        if scope["type"] == "websocket":
            if refused is None and elsewhere:
                await self._extra(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        if refused is None and elsewhere:
            await self._extra(scope, receive, send)
            return
        began_s = clock.monotonic_s()
        with request_span(path, asked.headers) as span:
            code = await self._http(scope, asked, refused, send)
            if span is not None:
                span.set_attribute("http.response.status_code", code)
        part = asked.path.split("/", 3)[2:3]
        group = part[0] if part and part[0] in GROUPS else "other"
        self._telemetry.requests.labels(group, str(code)).inc()
        self._telemetry.seconds.labels(group).observe(clock.monotonic_s() - began_s)

    async def _http(self, scope: Any, asked: Asked, refused: Failure | None, send: Any) -> int:
        """Answers, and gives the status."""
        path, code = scope["path"], 200
        try:
            if refused is not None:
                raise refused
            if scope["method"] not in ("GET", "HEAD"):
                raise Failure(405, f"{scope['method']} is not supported here; the metrics APIs are read with GET")
            parts = [unquote(part) for part in asked.path.split("/")[1:]]
            query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            accept = ",".join(asked.values("accept"))
            try:
                document, content_type = await self._answer(path, parts, query, accept)
            except UnknownMetricError:
                if self._onward is None:
                    raise
                text = scope["query_string"].decode("latin-1")
                asked_there = asked.path + (f"?{text}" if text else "")
                code, document, content_type = await self._onward.get(asked_there, accept)
        except Failure as exc:
            code = exc.code
            await _send_failure(send, exc)
        except FlyballError as exc:
            failure = failure_of(exc)
            code = failure.code
            await _send_failure(send, failure)
        except Exception:
            code = 500
            log.exception("adapter_request_failed path=%s", path)
            await _send_failure(send, Failure(500, "Internal error occurred: the adapter's log has the reason"))
        else:
            body = document if isinstance(document, bytes) else msgspec.json.encode(document)
            await _send(send, code, b"" if scope["method"] == "HEAD" else body, content_type)
        return code

    async def _answer(
        self, path: str, parts: list[str], query: Mapping[str, list[str]], accept: str
    ) -> tuple[Any, str]:
        if path in ("/healthz", "/livez"):
            return b"ok", "text/plain; charset=utf-8"
        if path == "/readyz":
            if self._stopping:
                raise Failure(500, "not ready: the adapter is stopping")
            if not self._adapter.ready:
                raise Failure(500, "not ready: series have not been listed yet, or pods are not known")
            if "verbose" in query:
                return self._ready_document().encode(), "text/plain; charset=utf-8"
            return b"ok", "text/plain; charset=utf-8"
        if path == "/metrics":
            return self._telemetry.text(), "text/plain; version=0.0.4; charset=utf-8"
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": f"flyball-{__version__}"}, _JSON
        if path == RULES_PATH:
            return self._adapter.rules_document(), _JSON
        if parts[0] == "openapi":
            return openapi(parts[1:]), _JSON
        if parts[0] != "apis":
            raise Failure(404, "the server could not find the requested resource")
        parts = parts[1:-1] if parts[-1] == "" else parts[1:]
        if not parts:
            return self._groups(accept)
        versions = GROUPS.get(parts[0])
        if versions is None or (len(parts) > 1 and parts[1] not in versions):
            raise Failure(404, "the server could not find the requested resource")
        if len(parts) == 1:
            return {"kind": "APIGroup", "apiVersion": "v1", **group_document(parts[0])}, _JSON
        group, version, rest = parts[0], parts[1], parts[2:]
        if not rest:
            resources = self._resources(group, version)
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{group}/{version}",
                "resources": resources,
            }, _JSON
        if _one(query, "watch") in ("true", "1"):
            raise Failure(405, "watch is not supported on metrics; ask again instead")
        if group == CUSTOM:
            return await self._custom(version, rest, query), _JSON
        if group == EXTERNAL:
            return await self._external(rest, query), _JSON
        return await self._usage(rest, query, accept), _JSON

    def _ready_document(self) -> str:
        """Ready, and yet what does not work: the metric server may be down without the adapter being at fault."""
        errors = self._adapter.registry.errors()
        lines = [f"[-]rule {error}" for error in errors] or ["[+]rules ok"]
        return "\n".join([*lines, "readyz check passed", ""])

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
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [group_document(group) for group in GROUPS],
        }, _JSON

    def _aggregated(self, group: str) -> dict[str, Any]:
        return {
            "metadata": {"name": group, "creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "resources": aggregated_resources(group, version, self._resources(group, version)),
                    "freshness": "Current",
                }
                for version in GROUPS[group]
            ],
        }

    def _resources(self, group: str, version: str) -> list[dict[str, Any]]:
        """Ours, and those that only the adapter behind us knows."""
        ours = self._own_resources(group)
        if self._onward is None:
            return ours
        known = {(item["name"], item["namespaced"]) for item in ours}
        theirs = self._onward.resources(group, version)
        return ours + [item for item in theirs if (item.get("name"), item.get("namespaced")) not in known]

    def _own_resources(self, group: str) -> list[dict[str, Any]]:
        if group == RESOURCE:
            return [
                resource_document("nodes", False, "NodeMetrics", ["get", "list"]),
                resource_document("pods", True, "PodMetrics", ["get", "list"]),
            ]
        if group == EXTERNAL:
            names = [metric.name for metric in self._adapter.registry.external_metrics()]
            return [resource_document(name, True, "ExternalMetricValueList", ["get"]) for name in names]
        return [
            resource_document(f"{metric.resource}/{metric.name}", metric.namespaced, "MetricValueList", ["get"])
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
            raise Failure(
                400, f"the path below namespaces/{rest[1]} has too few parts; name resource, object and metric"
            )
        else:
            raise Failure(404, "the server could not find the requested resource")
        if not all((resource, name, metric)):
            raise Failure(404, "the server could not find the requested resource")
        kind = self._adapter.find_kind(resource)
        if kind is None or kind.namespaced != bool(namespace):
            raise Failure(404, f"the server could not find the metric {metric} for {resource}")
        _check_field_selector(query, name)
        metric_selector = _selector(_one(query, "metricLabelSelector"))
        selector = _selector(_one(query, "labelSelector"))
        values = await self._adapter.custom_values(kind, namespace, name, metric, selector, metric_selector)
        shown = selector_document(metric_selector)
        items = [custom_item(version, kind, metric, value, shown) for value in values]
        return {"kind": "MetricValueList", "apiVersion": f"{CUSTOM}/{version}", "metadata": {}, "items": items}

    async def _external(self, rest: list[str], query: Mapping[str, list[str]]) -> dict[str, Any]:
        if len(rest) != 3 or rest[0] != "namespaces" or not rest[2]:
            raise Failure(404, "the server could not find the requested resource")
        values = await self._adapter.external_values(rest[1], rest[2], _selector(_one(query, "labelSelector")))
        items = [external_item(rest[2], value) for value in values]
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
            raise Failure(404, "the server could not find the requested resource")
        single = bool(name)
        selector = _selector(_one(query, "labelSelector")) if not single else Selector()
        if not single:
            fields = _fields(query)
            namespace, name = fields.get("metadata.namespace", namespace), fields.get("metadata.name", "")
            if not is_pods and "metadata.namespace" in fields:
                raise Failure(400, "nodes have no metadata.namespace; leave it out of the field selector")
        adapter = self._adapter
        if is_pods:
            usages = await adapter.pod_usage(namespace, name, selector)
        else:
            usages = await adapter.node_usage(name, selector)
        if single and not usages:
            noun = "podmetrics" if is_pods else "nodemetrics"
            shown = f"{namespace}/{name}" if namespace else name
            raise Failure(404, f'{noun}.{RESOURCE} "{shown}" not found')
        rules = adapter.resource_rules
        window = go_duration(rules.window_ms if rules is not None else 0)
        now = clock.rfc3339(clock.now_ms())
        if "as=Table" in accept.replace(" ", ""):
            return table(usages, window, now)
        items = [usage_item(usage, is_pods, window, now) for usage in usages]
        kind = "PodMetrics" if is_pods else "NodeMetrics"
        head = {"apiVersion": f"{RESOURCE}/v1beta1"}
        if single:
            return {"kind": kind, **head, **items[0]}
        return {"kind": f"{kind}List", **head, "metadata": {}, "items": items}


#: HPAs ask with the same few selectors again and again.
_selector = functools.lru_cache(maxsize=4096)(parse_selector)


def _one(query: Mapping[str, list[str]], name: str) -> str:
    return query.get(name, [""])[0]


def _fields(query: Mapping[str, list[str]]) -> dict[str, str]:
    found = {}
    for term in filter(None, _one(query, "fieldSelector").split(",")):
        key, equals, value = term.replace("==", "=").partition("=")
        if not equals or key.endswith("!") or key not in ("metadata.name", "metadata.namespace"):
            raise Failure(400, f'field selector "{term}" is not supported; use metadata.name=x or metadata.namespace=x')
        found[key] = value
    return found


def _check_field_selector(query: Mapping[str, list[str]], name: str) -> None:
    for key, value in _fields(query).items():
        if key != "metadata.name" or value != name:
            raise Failure(400, f'fieldSelector {key}={value} does not match the object "{name}" of the path')


async def _send(send: Any, code: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache, private")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_failure(send: Any, failure: Failure) -> None:
    await _send(send, failure.code, msgspec.json.encode(failure.status()), _JSON)


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
    app = MetricsApp(adapter, TokenAccess(token), extra_app=extra_app)
    return await serve_http(app, port=port, host=host, tls=tls, allowed_hosts=allowed_hosts, name="adapter")
