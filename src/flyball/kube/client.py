"""The Kubernetes API client: aiohttp for the wire, msgspec for the bodies."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, overload
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from flyball import clock
from flyball.errors import ConfigError, KubeApiError, UpstreamError
from flyball.http.client import new_session, read_capped
from flyball.kube.auth import Credential
from flyball.kube.config import Access, in_cluster_access, kubeconfig_access
from flyball.kube.kinds import Resource

T = TypeVar("T")
Object = dict[str, Any]
List = list  # inside KubeClient the plain name is the method
Params = Mapping[str, str | int]

PAGE_ITEMS = 500
BODY_MAX_BYTES = 512 * 1024 * 1024
ERROR_BODY_MAX_BYTES = 1024 * 1024
WATCH_LINE_MAX_BYTES = 64 * 1024 * 1024
REQUEST_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 200  # every watch holds one

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

#: What a body-less failure means, in the API's own words.
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Meta(msgspec.Struct, rename="camel"):
    """The part of an object's metadata by which caches know it."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class _Identified(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0
    details: dict[str, Any] | None = None
    kind: str = ""


class _WatchLine(msgspec.Struct):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class ObjectList(Generic[T]):
    """A consistent list: the objects, who each is, and the resourceVersion from which a watch continues it."""

    items: list[T]
    metas: list[Meta]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """One change. ``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; a bookmark has only a resourceVersion."""

    type: str
    meta: Meta
    object: T | None


class KubeClient:
    """One connection to one API server. Close it, or use it as an async context manager.

    Objects are plain dicts, or structs of the ``type`` that is asked for. A namespaced object without a namespace
    goes to the context's.

    Raises, in every method:
        KubeApiError: the server answered with a failure.
        UpstreamError: the server cannot be reached, or its answer cannot be read.
        ConfigError: the credentials cannot be used.
    """

    def __init__(self, access: Access, *, user_agent: str = "flyball") -> None:
        self.access = access
        self.namespace = access.namespace
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._tls: tuple[tuple[str, str], ssl.SSLContext] | None = None
        self._requests = 0
        self._failures = 0
        self._reauthentications = 0
        #: Told of every request: method, status (``<error>`` without an answer), seconds until the answer began.
        self.on_answer: Callable[[str, str, float], None] = lambda _method, _code, _duration_s: None

    @classmethod
    async def from_kubeconfig(cls, path: str | Path | None = None, context: str | None = None) -> Self:
        """A client for a kubeconfig's context; without a path $KUBECONFIG or ``~/.kube/config``."""
        return cls(kubeconfig_access(path, context))

    @classmethod
    async def from_environment(cls, path: str | Path | None = None, context: str | None = None) -> Self:
        """By the kubeconfig that is named; else by the pod's service account; else by the default kubeconfig."""
        if path is None and context is None:
            try:
                return cls(in_cluster_access())
            except ConfigError:
                pass
        return cls(kubeconfig_access(path, context))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def statistics(self) -> dict[str, int]:
        """Counts since the client was made."""
        return {
            "requests": self._requests,
            "failures": self._failures,
            "reauthentications": self._reauthentications,
        }

    # -- objects -------------------------------------------------------------------------------------------------

    @overload
    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, subresource: str | None = None
    ) -> Object: ...
    @overload
    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        subresource: str | None = None,
        *,
        type: type[T],
    ) -> T: ...
    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        subresource: str | None = None,
        *,
        type: type[Any] = dict,  # noqa: A002
    ) -> Any:
        """One object, or its subresource (``status``, ``scale``)."""
        body = await self.raw_request("GET", self._path(resource, namespace, name, subresource))
        return _decoded(body, type, f"{resource} {name}")

    @overload
    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> List[Object]: ...
    @overload
    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        type: type[T],
    ) -> List[T]: ...
    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        type: type[Any] = dict,  # noqa: A002
    ) -> Any:
        """Every object, of one namespace or of all; read in pages."""
        found = await self.list_objects(resource, namespace, label_selector, field_selector, type=type)
        return found.items

    async def list_objects(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        type: type[T],  # noqa: A002
    ) -> ObjectList[T]:
        """As ``list``, with the resourceVersion from which a watch continues.

        A continue token that expires between pages (410) restarts the list, unpaged, so that it ends.
        """
        selectors = _selectors(label_selector, field_selector)
        path = resource.path(namespace)
        try:
            return await self._pages(resource, path, {**selectors, "limit": PAGE_ITEMS}, type)
        except KubeApiError as exc:
            if exc.code != 410:
                raise
            return await self._pages(resource, path, selectors, type)

    async def _pages(
        self, resource: Resource, path: str, params: dict[str, str | int], item_type: type[T]
    ) -> ObjectList[T]:
        items: list[T] = []
        metas: list[Meta] = []
        token = ""
        while True:
            body = await self.raw_get(path, {**params, "continue": token} if token else params)
            page = _decoded(body, _List, f"{resource} list")
            for raw in page.items or []:
                metas.append(_decoded(raw, _Identified, f"{resource} list item").metadata)
                items.append(_object(raw, item_type, resource))
            token = page.metadata.continue_
            if not token:
                return ObjectList(items, metas, page.metadata.resource_version)

    async def create(
        self,
        resource: Resource,
        body: Any,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        params: Params | None = None,
    ) -> Object:
        """The object as created; with ``name`` and ``subresource`` a subresource such as ``binding``."""
        path = self._path(resource, namespace or _namespace_of(body), name, subresource, collection=name is None)
        return _object_of(await self.raw_request("POST", path, params=params, body=msgspec.json.encode(body)), path)

    async def update(
        self,
        resource: Resource,
        body: Any,
        namespace: str | None = None,
        subresource: str | None = None,
        *,
        params: Params | None = None,
    ) -> Object:
        """Replace; a ``metadata.resourceVersion`` in the body makes it conditional (409 Conflict)."""
        name = str(body["metadata"]["name"])
        path = self._path(resource, namespace or _namespace_of(body), name, subresource)
        return _object_of(await self.raw_request("PUT", path, params=params, body=msgspec.json.encode(body)), path)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        subresource: str | None = None,
        content_type: str = MERGE_PATCH,
        *,
        params: Params | None = None,
    ) -> Object:
        """The object after the patch; for server-side apply give APPLY_PATCH and ``params={"fieldManager": ...}``."""
        path = self._path(resource, namespace, name, subresource)
        answer = await self.raw_request(
            "PATCH", path, params=params, body=msgspec.json.encode(body), content_type=content_type
        )
        return _object_of(answer, path)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str | None = None,
        *,
        grace_period_s: int | None = None,
    ) -> Object:
        """Delete; ``uid`` makes it conditional (409 when another object has taken the name)."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        path = self._path(resource, namespace, name)
        return _object_of(await self.raw_request("DELETE", path, body=msgspec.json.encode(options)), path)

    async def resources(self, group_version: str) -> Sequence[tuple[Resource, frozenset[str]]]:
        """What the server offers in ``v1`` or ``apps/v1``, with the verbs of each; subresources left out."""
        core = "/" not in group_version
        group, version = ("", group_version) if core else group_version.split("/", 1)
        listed = msgspec.json.decode(await self.raw_get(f"/{'api' if core else 'apis'}/{group_version}"))
        return [
            (
                Resource(group, version, item["name"], item["kind"], bool(item.get("namespaced"))),
                frozenset(item.get("verbs") or ()),
            )
            for item in listed.get("resources") or []
            if "/" not in item["name"]
        ]

    async def group_versions(self) -> Sequence[str]:
        """The preferred version of every API group, the core group first."""
        groups = msgspec.json.decode(await self.raw_get("/apis"))
        return ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups.get("groups") or [])]

    # -- watches -------------------------------------------------------------------------------------------------

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        *,
        resource_version: str = "",
        timeout_s: int = 300,
        idle_timeout_s: float = 120.0,
        type: type[T],  # noqa: A002
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Changes after a resourceVersion, bookmarks among them, until the server ends the stream.

        Args:
            timeout_s: the server is asked to end the stream after this long.
            idle_timeout_s: silence that is taken for a lost connection.

        Raises:
            KubeApiError: the server refused the watch, or sent an ERROR event; code 410 when the version is gone.
            UpstreamError: the connection broke, went silent, or carried a line that is not an event.
        """
        params: dict[str, str | int] = {
            **_selectors(label_selector, field_selector),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": timeout_s,
        }
        if resource_version:
            params["resourceVersion"] = resource_version
        path = resource.path(namespace)
        async with self._request("GET", path, params=params, timeout=_stream_timeout(idle_timeout_s)) as response:
            async for line in self._lines(response, path):
                yield _event(line, type, resource)

    async def _lines(self, response: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
        pending = bytearray()
        with self._translated(path):
            async for chunk in response.content.iter_any():
                *lines, rest = chunk.split(b"\n")
                if lines:
                    lines[0] = bytes(pending) + lines[0]
                    pending.clear()
                pending += rest
                if len(pending) > WATCH_LINE_MAX_BYTES:
                    raise UpstreamError(
                        f"{self._where(path)}: a watch line is longer than {WATCH_LINE_MAX_BYTES} bytes"
                    )
                for line in lines:
                    if line.strip():
                        yield line

    async def stream(
        self, path: str, params: Params | None = None, *, idle_timeout_s: float | None = None
    ) -> AsyncIterator[bytes]:
        """The body of a GET in chunks as they come, such as a followed log."""
        async with self._request("GET", path, params=params, timeout=_stream_timeout(idle_timeout_s)) as response:
            with self._translated(path):
                async for chunk in response.content.iter_any():
                    yield chunk

    # -- the wire ------------------------------------------------------------------------------------------------

    async def raw_get(self, path: str, params: Params | None = None) -> bytes:
        """The body of a GET on any path of the server."""
        return await self.raw_request("GET", path, params=params)

    async def raw_request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        """The body of any request that succeeds."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        async with self._request(
            method, path, params=params, body=body, content_type=content_type, headers=headers, timeout=timeout
        ) as response:
            with self._translated(path):
                return await read_capped(response, BODY_MAX_BYTES, self._where(path))

    def _path(
        self,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        subresource: str | None = None,
        *,
        collection: bool = False,
    ) -> str:
        if not name and not collection:
            # Without a name the request would silently go to the whole collection.
            raise ConfigError(f"{resource}: the object has no name; set metadata.name")
        if resource.namespaced:
            namespace = namespace or self.namespace
        return resource.path(namespace, name, subresource)

    def _where(self, path: str) -> str:
        return f"Kubernetes API {urlsplit(self.access.server).netloc}{path}"

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = new_session(connections_max=CONNECTIONS_MAX)
        # encoded=True: label selectors and metric names must arrive as they were written.
        url = URL(self.access.server + path, encoded=True)
        if params:
            url = url.update_query({key: str(value) for key, value in params.items()})
        for attempt in (1, 2):
            credential = await self.access.credentials.current()
            sent = {"Accept": JSON, "User-Agent": self._user_agent, **credential.headers, **(headers or {})}
            if body is not None:
                sent["Content-Type"] = content_type
            self._requests += 1
            began_s, code = clock.monotonic_s(), "<error>"
            try:
                with self._translated(path):
                    response = await self._session.request(
                        method,
                        url,
                        data=body,
                        headers=sent,
                        timeout=timeout,
                        ssl=self._context(credential),
                        server_hostname=self.access.tls_server_name or None,
                        allow_redirects=False,
                    )
                code = str(response.status)
            finally:
                self.on_answer(method, code, clock.monotonic_s() - began_s)
            async with response:
                if response.status == 401 and attempt == 1:
                    self._reauthentications += 1
                    self.access.credentials.reject()
                    continue
                if response.status >= 300:
                    self._failures += 1
                    with self._translated(path):
                        raise await self._failure(response, method, path)
                yield response
                return

    def _context(self, credential: Credential) -> ssl.SSLContext | bool:
        if not self.access.server.startswith("https://"):
            return True
        key = (credential.certificate_pem, credential.key_pem)
        if self._tls is None or self._tls[0] != key:
            self._tls = (key, self.access.tls(credential))
        return self._tls[1]

    async def _failure(self, response: aiohttp.ClientResponse, method: str, path: str) -> KubeApiError:
        body = await read_capped(response, ERROR_BODY_MAX_BYTES, self._where(path))
        code = response.status
        try:
            status = msgspec.json.decode(body, type=_Status)
        except msgspec.DecodeError:
            status = _Status()
        if status.kind != "Status":
            text = re.sub(r"\s+", " ", body.decode(errors="replace")).strip()[:300]
            message = f"{method} {self._where(path)} answered {code} {response.reason}" + (f": {text}" if text else "")
            status = _Status(message=message)
        if code == 401:
            origin = self.access.origin or "the credentials"
            status.message = f"{self._where(path)} does not accept {origin}: {status.message or 'Unauthorized'}"
        error = KubeApiError(code, status.reason or REASONS.get(code, "Unknown"), status.message, status.details)
        try:
            wait_s = response.headers.get("Retry-After") or (status.details or {}).get("retryAfterSeconds")
            error.retry_after_s = float(wait_s) if wait_s else None
        except ValueError:
            error.retry_after_s = None  # an HTTP date; the caller's own back-off will do
        return error

    def _translated(self, path: str) -> "_Translation":
        return _Translation(self, path)


class _Translation:
    """Foreign errors become ours, naming the host and the remedy."""

    def __init__(self, client: KubeClient, path: str) -> None:
        self._client = client
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is None or not isinstance(exc, aiohttp.ClientError | OSError | TimeoutError | asyncio.TimeoutError):
            return
        where, server = self._client._where(self._path), self._client.access.server
        if isinstance(exc, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            text = f"{where}: the server's certificate is not trusted ({exc}); check certificate-authority"
        elif isinstance(exc, aiohttp.ClientSSLError | ssl.SSLError):
            text = f"{where}: TLS failed ({exc}); check that {server} speaks https and accepts the client certificate"
        elif isinstance(exc, aiohttp.ClientConnectorError):
            text = f"{where}: cannot connect ({exc.os_error}); check that the server at {server} runs"
        elif isinstance(exc, TimeoutError | asyncio.TimeoutError):
            text = f"{where}: no answer in time; check that the server at {server} is well"
        else:
            text = f"{where}: the connection broke ({exc or type(exc).__name__}); try again"
        raise UpstreamError(text) from exc


def _selectors(label_selector: str, field_selector: str) -> dict[str, str | int]:
    params: dict[str, str | int] = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params


def _stream_timeout(idle_timeout_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=idle_timeout_s)


def _namespace_of(body: Any) -> str | None:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    return (metadata or {}).get("namespace") or None


def _decoded(body: bytes | msgspec.Raw, wanted: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=wanted)
    except msgspec.DecodeError as exc:
        raise UpstreamError(f"{what}: the server's answer cannot be read: {exc}") from exc


def _object_of(body: bytes, what: str) -> Object:
    return _decoded(body, dict, what)


def _object(raw: msgspec.Raw, wanted: type[T], resource: Resource) -> T:
    value = _decoded(raw, wanted, f"{resource} object")
    if isinstance(value, dict):
        # kube-apiserver leaves both out of list items; a caller must be able to pass on what it was given.
        value.setdefault("apiVersion", resource.api_version)
        value.setdefault("kind", resource.kind)
    return value


def _event(line: bytes, wanted: type[T], resource: Resource) -> WatchEvent[T]:
    change = _decoded(line, _WatchLine, f"{resource} watch")
    if change.type == "ERROR":
        status = _decoded(change.object, _Status, f"{resource} watch error")
        code = status.code or 500
        raise KubeApiError(code, status.reason or REASONS.get(code, "Unknown"), status.message, status.details)
    meta = _decoded(change.object, _Identified, f"{resource} watch").metadata
    if change.type == "BOOKMARK":
        return WatchEvent("BOOKMARK", meta, None)
    if change.type not in ("ADDED", "MODIFIED", "DELETED"):
        raise UpstreamError(f'{resource} watch: event type "{change.type}" is not known')
    return WatchEvent(change.type, meta, _object(change.object, wanted, resource))
