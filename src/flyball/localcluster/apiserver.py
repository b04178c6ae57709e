"""The embedded Kubernetes API server: raw ASGI over one ``Storage``."""

import asyncio
import contextlib
import copy
import hmac
import logging
import platform
from pathlib import Path
from typing import Any

from flyball import __version__
from flyball.clock import monotonic_s, now_ms, parse_rfc3339_ms
from flyball.errors import FlyballError, QueryError, QueryLimitError, StoreError
from flyball.localcluster import admission, failures, patching, pki, rights
from flyball.localcluster.aggregation import Aggregator, Backend
from flyball.localcluster.answers import only_get
from flyball.localcluster.discovery import Discovery
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.metricspage import health_slis
from flyball.localcluster.nodes import NODE_PORT, NodeClient
from flyball.localcluster.objects import CRD_STORE, Objects
from flyball.localcluster.registry import Registry, Served
from flyball.localcluster.requests import Request, encode
from flyball.localcluster.resources import Resources
from flyball.localcluster.reviews import ADMIN, ADMIN_GROUPS
from flyball.localcluster.rights import Rights, acts_of, default_objects
from flyball.localcluster.storage import DELETED, Event, Expired, Storage
from flyball.localcluster.telemetry import Telemetry, about
from flyball.localcluster.tokens import TokenAuthority

log = logging.getLogger(__name__)

Object = dict[str, Any]

KUBERNETES_VERSION = "v1.37.0"
EVENT_TTL_MS = 3_600_000
HOUSEKEEPING_EVERY_S = 60.0
METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPEN_PATHS = ("healthz", "livez", "readyz", "version")


class Application:
    """The ASGI application. ``start()`` and ``close()`` run its background tasks."""

    def __init__(self, data_dir: Path, storage: Storage, *, port_offset: int = 0) -> None:
        self.storage = storage
        self.registry = Registry()
        self.objects = Objects(storage, self.registry, admission.first_host(data_dir, port_offset))
        self._pki = data_dir / "pki"
        token = pki.token(data_dir)
        self._token = token.encode()
        self._port_offset = port_offset
        self._tasks: list[asyncio.Task[None]] = []
        self.requests = 0
        self.failed = 0
        for record in storage.records(CRD_STORE):
            self.registry.add_definition(record.object)
        self._bootstrap()
        self.aggregator = Aggregator(storage, self._pki, self._forget_documents, self._set_api_service_status)
        build = version_info()
        named = {"git_version": "gitVersion", "git_commit": "gitCommit", "major": "major", "minor": "minor"}
        self._telemetry = Telemetry(
            {label: build[field] for label, field in named.items()},
            storage.counts,
            lambda: {backend.name: not backend.available for backend in self.aggregator.remote()},
        )
        self._discovery = Discovery(self.registry, self.aggregator)
        self._node = NodeClient(self._pki, token, NODE_PORT + port_offset)
        self._tokens = TokenAuthority(storage, self._token)
        self._rights = Rights(storage)
        self._resources = Resources(self.objects, self._node, self._tokens, self._rights, self._token)
        storage.listen(self._on_event)

    # life

    def _bootstrap(self) -> None:
        """The objects that exist before any client comes; present ones are left as they are."""
        namespaces = self.objects.served("", "v1", "namespaces")
        for name in admission.SYSTEM_NAMESPACES:
            if self.storage.get("/namespaces", "", name) is None:
                self.objects.create(namespaces, "", {"metadata": {"name": name}})
        for plural, obj in default_objects():
            served = self.objects.served(rights.GROUP, "v1", plural)
            metadata = obj["metadata"]
            if self.storage.get(served.store, metadata.get("namespace", ""), metadata["name"]) is None:
                self.objects.create(served, metadata.get("namespace", ""), copy.deepcopy(obj))
        config_maps = self.objects.served("", "v1", "configmaps")
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
        if self.storage.get("/services", "default", "kubernetes") is None:
            port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": pki.API_PORT + self._port_offset}
            body: Object = {
                "metadata": {
                    "name": "kubernetes",
                    "labels": {"component": "apiserver", "provider": "kubernetes"},
                },
                "spec": {"clusterIP": "None", "ports": [port]},
            }
            self.objects.create(self.objects.served("", "v1", "services"), "default", body)
        port = {"name": "https", "port": pki.API_PORT + self._port_offset, "protocol": "TCP"}
        self._ensure(
            self.objects.served("discovery.k8s.io", "v1", "endpointslices"),
            "default",
            "kubernetes",
            {
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
                "ports": [port],
            },
            labels={"kubernetes.io/service-name": "kubernetes"},
        )

    def _ensure(
        self, served: Served, namespace: str, name: str, content: Object, labels: dict[str, str] | None = None
    ) -> None:
        record = self.storage.get(served.store, namespace, name)
        if record is None:
            metadata = {"name": name, "labels": dict(labels or {})}
            self.objects.create(served, namespace, {"metadata": metadata, **copy.deepcopy(content)})
        else:
            obj = record.copy()
            obj.update(copy.deepcopy(content))
            self.objects.update(served, namespace, name, obj)

    def start(self) -> None:
        self.aggregator.start()
        self._tasks.append(asyncio.create_task(self._housekeep(), name="apiserver housekeeping"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.aggregator.close()
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
        if event.bucket == CRD_STORE:
            if event.type == DELETED:
                self.registry.remove_definition(event.record.object)
            else:
                self.registry.add_definition(event.record.object)
            self._forget_documents()

    def _forget_documents(self) -> None:
        self._discovery.forget()

    def _set_api_service_status(self, name: str, status: Object) -> None:
        served = self.objects.served("apiregistration.k8s.io", "v1", "apiservices")
        record = self.storage.get(served.store, "", name)
        if record is not None:
            try:
                self.objects.update(served, "", name, {**record.copy(), "status": status}, subresource="status")
            except FlyballError as exc:
                log.warning("APIService %s: its condition is not written: %s", name, exc)

    def statistics(self) -> dict[str, int]:
        return {
            "requests": self.requests,
            "requests_failed": self.failed,
            "watches_expired": self.storage.watches_expired,
            **self.storage.statistics(),
            **self.aggregator.statistics(),
        }

    # ASGI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        self.requests += 1
        what = about(request.method, request.segments, request.params, request.content_type)
        self._telemetry.began(what)
        began_s = monotonic_s()
        try:
            await self._answer(request)
        finally:
            self._telemetry.ended(what, request.code, monotonic_s() - began_s)

    async def _answer(self, request: Request) -> None:
        try:
            await self._handle(request)
        except ConnectionResetError:
            pass
        except ApiFailure as exc:
            await self._fail(request, exc)
        except Expired as exc:
            await self._fail(request, ApiFailure(410, str(exc)))
        except patching.JsonPatchError as exc:
            log.debug("%s %s: %s", request.method, request.raw_path, exc)
            await self._fail(request, failures.unprocessable())
        except patching.StrategicPatchError as exc:
            await self._fail(request, ApiFailure(500, str(exc), reason=""))
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

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        """A WebSocket: exec or port-forward of a pod."""
        request = Request({**scope, "method": "GET"}, receive, send)
        self.requests += 1
        await receive()
        try:
            self._admit(request)
            await self._resources.answer_stream(request, scope.get("subprotocols") or [])
        except ApiFailure as exc:
            self.failed += 1
            headers = [(b"content-type", b"application/json")]
            await send({"type": "websocket.http.response.start", "status": exc.code, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": encode(exc.body())})

    async def _fail(self, request: Request, failure: ApiFailure) -> None:
        self.failed += 1
        if request.started:
            return
        if isinstance(failure, failures.NoSuchPathError):
            await request.answer(failure.code, f"{failure.message}\n".encode(), "text/plain; charset=utf-8")
        else:
            await request.answer_object(failure.code, failure.body())

    def _authenticate(self, request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            request.user, request.uid, request.groups = ADMIN, ADMIN, ADMIN_GROUPS
            return
        if kind.lower() == "bearer":
            user = self._tokens.user_of(given.strip(), now_ms())
            if user is not None:
                request.user, request.uid, request.groups = user.name, user.uid, user.groups
                return
        if not given and request.segments and request.segments[0] in _OPEN_PATHS:
            request.user, request.groups = rights.ANONYMOUS, (rights.UNAUTHENTICATED,)
            return
        raise ApiFailure(401, "Unauthorized")

    def _admit(self, request: Request) -> None:
        """Who asks, in whose name, and whether they may.

        Raises:
            ApiFailure: 401 for a token that is not known, 403 for what its owner may not do.
        """
        self._authenticate(request)
        self._rights.impersonate(request)
        if rights.MASTERS not in request.groups:
            self._rights.demand(request.user, request.groups, *acts_of(request))

    async def _handle(self, request: Request) -> None:
        self._admit(request)
        parts = request.segments
        if not parts:
            await request.answer_object(
                200,
                {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]},
            )
        elif parts[0] in ("healthz", "livez", "readyz"):
            await request.answer(200, b"ok", "text/plain; charset=utf-8")
        elif parts == ["metrics"]:
            await request.answer(200, self._telemetry.exposition(), METRICS_TEXT)
        elif parts == ["metrics", "slis"]:
            await request.answer(200, health_slis("healthz", "livez", "readyz"), METRICS_TEXT)
        elif parts == ["version"]:
            only_get(request)
            await request.answer_object(200, version_info())
        elif parts[0] == "openapi":
            await self._discovery.answer_openapi(request, parts[1:])
        elif parts[0] in ("api", "apis"):
            await self._api(request, parts)
        else:
            raise failures.no_such_path()

    async def _api(self, request: Request, parts: list[str]) -> None:
        if len(parts) == 1:
            only_get(request)
            await self._discovery.answer_groups(request, parts[0])
            return
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        elif len(parts) == 2:
            only_get(request)
            await self._discovery.answer_group(request, parts[1])
            return
        else:
            group, version, rest = parts[1], parts[2], parts[3:]
        backend = self.aggregator.find(group, version)
        if backend is not None:
            await self._proxy(request, backend)
        elif not rest:
            only_get(request)
            await self._discovery.answer_resources(request, group, version)
        else:
            await self._resources.answer(request, group, version, rest)

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


def version_info() -> Object:
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
