"""APIServices: groups served by other servers, reached over TLS with the front-proxy client certificate.

A dead server never blocks discovery or start: group documents come from a cache that a background task keeps, every
probe has a short time-out, and a request for a group whose server is not reachable answers 503 at once.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from flyball.clock import monotonic_s, now_ms, rfc3339
from flyball.http.client import client_tls, read_capped
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.storage import Event, Storage

Object = dict[str, Any]
STORE = "apiregistration.k8s.io/apiservices"
PROBE_TIMEOUT_S = 5.0
PROBE_EVERY_S = 10.0
RETRY_EVERY_S = 1.0
PROXY_CONNECT_S = 3.0
PROXY_TOTAL_S = 60.0
DISCOVERY_BYTES_MAX = 8 << 20
_HOP_HEADERS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "authorization",
        "content-length",
        "accept-encoding",
    }
)


class Backend:
    """One registered group version: where it lives, whether it answers, and its last discovery document."""

    def __init__(self, name: str, spec: Object) -> None:
        self.name = name
        self.spec = spec
        self.group = str(spec.get("group", ""))
        self.version = str(spec.get("version", ""))
        self.available = False
        self.reason = "Unknown"
        self.message = "not checked yet"
        self.listing: Object | None = None
        self.session: aiohttp.ClientSession | None = None
        self.next_probe_s = 0.0

    @property
    def is_local(self) -> bool:
        return not self.spec.get("service")

    def new_session(self, pki: Path) -> aiohttp.ClientSession:
        insecure = bool(self.spec.get("insecureSkipTLSVerify"))
        bundle = self.spec.get("caBundle")
        ca = base64.b64decode(bundle).decode() if bundle else None
        if ca is None and not insecure:
            ca = (pki / "ca.crt").read_text(encoding="ascii")
        tls = client_tls(
            ca_data=None if insecure else ca,
            cert_file=pki / "front-proxy-client.crt",
            key_file=pki / "front-proxy-client.key",
            insecure_skip_verify=insecure,
        )
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=100, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=PROXY_TOTAL_S, connect=PROXY_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


class Aggregator:
    """Keeps the APIServices' connections, documents and conditions; ``changed`` is called when discovery differs."""

    def __init__(
        self, storage: Storage, pki: Path, changed: Callable[[], None], set_status: Callable[[str, Object], None]
    ) -> None:
        self._storage = storage
        self._pki = pki
        self._changed = changed
        self._set_status = set_status
        self.backends: dict[str, Backend] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.probes = 0
        self.failures = 0
        storage.listen(self._on_event)
        for record in storage.records(STORE):
            self._register(record.object)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="aggregation")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for backend in list(self.backends.values()):
            if backend.session:
                await backend.session.close()
        for task in list(self._closing):
            await task

    # registration

    def _on_event(self, event: Event) -> None:
        if event.bucket == STORE:
            if event.type == "DELETED":
                self._forget(event.name)
                self._changed()
            elif self._register(event.record.object):
                self._changed()
        elif event.bucket in ("discovery.k8s.io/endpointslices", "/services", "/endpoints"):
            for backend in self.backends.values():
                service = backend.spec.get("service") or {}
                if service.get("namespace") == event.namespace and event.name.startswith(str(service.get("name"))):
                    backend.next_probe_s = 0.0
                    self._wake.set()

    def _forget(self, name: str) -> None:
        backend = self.backends.pop(name, None)
        if backend and backend.session:
            task = asyncio.ensure_future(backend.session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _register(self, obj: Object) -> bool:
        """Whether discovery differs now."""
        name, spec = obj["metadata"]["name"], obj.get("spec") or {}
        known = self.backends.get(name)
        if known and known.spec == spec:
            return False
        self._forget(name)
        backend = self.backends[name] = Backend(name, spec)
        if known:
            backend.listing = known.listing
        for condition in (obj.get("status") or {}).get("conditions") or []:
            if condition.get("type") == "Available":
                backend.reason, backend.message = condition.get("reason", ""), condition.get("message", "")
        self._wake.set()
        return True

    def find(self, group: str, version: str) -> Backend | None:
        """The other server's registration for this group version; None when it is ours."""
        backend = self.backends.get(f"{version}.{group}")
        return backend if backend is not None and not backend.is_local else None

    def remote(self) -> list[Backend]:
        """Registered groups of other servers, most preferred first."""
        found = [backend for backend in self.backends.values() if not backend.is_local]
        return sorted(
            found,
            key=lambda b: (
                -int(b.spec.get("groupPriorityMinimum") or 0),
                b.group,
                -int(b.spec.get("versionPriority") or 0),
                b.version,
            ),
        )

    # probing

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            now = monotonic_s()
            due = [b for b in self.backends.values() if b.next_probe_s <= now]
            if due:
                await asyncio.gather(*(self._probe(backend) for backend in due))
            now = monotonic_s()
            soonest = min((b.next_probe_s for b in self.backends.values()), default=now + PROBE_EVERY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, soonest - now)):  # wait_for may lose a cancellation
                    await self._wake.wait()

    async def _probe(self, backend: Backend) -> None:
        self.probes += 1
        backend.next_probe_s = planned_s = monotonic_s() + PROBE_EVERY_S
        if backend.is_local:
            self._record(backend, True, "Local", "Local APIServices are always available")
            return
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                listing = await self._fetch_listing(backend)
        except ApiFailure as exc:
            self._failed(backend, exc.reason, exc.message, planned_s)
        except (OSError, ValueError, aiohttp.ClientError, msgspec.MsgspecError, TimeoutError) as exc:
            text = str(exc) or "no answer in time"
            path = f"/apis/{backend.group}/{backend.version}"
            self._failed(
                backend,
                "FailedDiscoveryCheck",
                f"failing or missing response from {self._where(backend)}{path}: {text}",
                planned_s,
            )
        else:
            if self.backends.get(backend.name) is not backend:
                return
            differs = backend.listing != listing or not backend.available
            backend.listing = listing
            self._record(backend, True, "Passed", "all checks passed")
            if differs:
                self._changed()

    def _failed(self, backend: Backend, reason: str, message: str, planned_s: float) -> None:
        self.failures += 1
        if backend.next_probe_s == planned_s:  # else its endpoints have changed meanwhile: it is asked again at once
            backend.next_probe_s = monotonic_s() + RETRY_EVERY_S
        if self.backends.get(backend.name) is backend:
            was = backend.available
            self._record(backend, False, reason, message)
            if was:
                self._changed()

    async def _fetch_listing(self, backend: Backend) -> Object:
        path = f"/apis/{backend.group}/{backend.version}"
        address, name = self._address(backend)
        session = self._session(backend)
        async with session.get(
            f"https://{address}{path}",
            headers={**_identity("system:kube-aggregator", ("system:masters",)), "Accept": "application/json"},
            server_hostname=name,
            allow_redirects=False,
        ) as response:
            body = await read_capped(response, DISCOVERY_BYTES_MAX, f"APIService {backend.name}")
            if response.status != 200:
                raise ApiFailure(
                    503,
                    f"failing or missing response from https://{address}{path}: bad status from "
                    f"https://{address}{path}: {response.status}",
                    reason="FailedDiscoveryCheck",
                )
        listing = msgspec.json.decode(body)
        if not isinstance(listing, dict) or not isinstance(listing.get("resources") or [], list):
            raise ValueError(f"https://{address}{path} answered no APIResourceList")
        return listing

    def _session(self, backend: Backend) -> aiohttp.ClientSession:
        if backend.session is None:
            try:
                backend.session = backend.new_session(self._pki)
            except (ssl.SSLError, ValueError) as exc:
                raise ApiFailure(
                    503,
                    f"APIService {backend.name}: spec.caBundle is not a certificate ({exc})",
                    reason="InvalidCABundle",
                ) from exc
        return backend.session

    def _record(self, backend: Backend, available: bool, reason: str, message: str) -> None:
        same = (backend.available, backend.reason, backend.message) == (available, reason, message)
        backend.available, backend.reason, backend.message = available, reason, message
        record = self._storage.get(STORE, "", backend.name)
        if record is None:
            return
        conditions = (record.object.get("status") or {}).get("conditions") or []
        old: Object = next((c for c in conditions if c.get("type") == "Available"), {})
        status = "True" if available else "False"
        if same and old.get("status") == status:
            return
        if old.get("status") == status and old.get("reason") == reason and old.get("message") == message:
            return
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        condition = {
            "type": "Available",
            "status": status,
            "lastTransitionTime": since or rfc3339(now_ms()),
            "reason": reason,
            "message": message,
        }
        self._set_status(backend.name, {"conditions": [condition]})

    # addresses

    def _where(self, backend: Backend) -> str:
        try:
            return f"https://{self._address(backend)[0]}"
        except ApiFailure:
            return f"https://{backend.name}"

    def _address(self, backend: Backend) -> tuple[str, str]:
        """(host:port, name in the certificate) of a ready endpoint of the APIService's Service.

        Raises:
            ApiFailure: the Service has no ready endpoint.
        """
        reference = backend.spec.get("service") or {}
        namespace, name = str(reference.get("namespace", "")), str(reference.get("name", ""))
        wanted = int(reference.get("port") or 443)
        certificate_name = f"{name}.{namespace}.svc"
        service = self._storage.get("/services", namespace, name)
        port: Object = {}
        if service is not None:
            spec = service.object.get("spec") or {}
            port = next((p for p in spec.get("ports") or [] if p.get("port") == wanted), {})
            if spec.get("type") == "ExternalName":
                return f"{spec.get('externalName')}:{wanted}", certificate_name
            if not port:
                raise ApiFailure(
                    503, f'service/{name} in "{namespace}" is not listening on port {wanted}', reason="ServicePortError"
                )
        seen_slices = False
        for record in self._storage.records("discovery.k8s.io/endpointslices", namespace):
            labels = record.object["metadata"].get("labels") or {}
            if labels.get("kubernetes.io/service-name") != name:
                continue
            seen_slices = True
            slice_port = _slice_port(record.object, port)
            for endpoint in record.object.get("endpoints") or []:
                if slice_port and (endpoint.get("conditions") or {}).get("ready") is not False:
                    for address in endpoint.get("addresses") or []:
                        return f"{address}:{slice_port}", certificate_name
        has_selector = service is not None and bool((service.object.get("spec") or {}).get("selector"))
        if has_selector and not seen_slices:
            why = f'cannot find endpointslices for service/{name} in "{namespace}"'
            raise ApiFailure(503, why, reason="EndpointsNotFound")
        if seen_slices:
            raise ApiFailure(
                503,
                f'endpoints for service/{name} in "{namespace}" have no addresses with port name '
                f'"{port.get("name", "")}"',
                reason="MissingEndpoints",
            )
        target = port.get("targetPort")
        return f"127.0.0.1:{target if isinstance(target, int) else wanted}", certificate_name

    # proxying

    async def proxy(
        self,
        backend: Backend,
        *,
        method: str,
        path: str,
        query: str,
        headers: list[tuple[str, str]],
        body: bytes,
        send: Any,
        user: str,
        groups: tuple[str, ...],
    ) -> None:
        """Passes one request on and streams the answer back; redirects and upgrades are not passed.

        Raises:
            ApiFailure: 503 when the server is not available or does not answer.
        """
        if not backend.available and backend.next_probe_s - monotonic_s() > 0 and backend.reason != "Unknown":
            raise _unavailable(backend, f"{backend.reason}: {backend.message}")
        address, name = self._address(backend)
        passed = [(k, v) for k, v in headers if k.lower() not in _HOP_HEADERS and not k.lower().startswith("x-remote-")]
        passed.extend(_identity(user, groups).items())
        for group in groups[1:]:
            passed.append(("X-Remote-Group", group))
        session = self._session(backend)
        started = False
        try:
            from multidict import CIMultiDict
            from yarl import URL

            url = URL(f"https://{address}{path}" + (f"?{query}" if query else ""), encoded=True)
            timeout = None if "watch=" in query else PROXY_TOTAL_S
            async with session.request(
                method,
                url,
                headers=CIMultiDict(passed),
                data=body or None,
                server_hostname=name,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, connect=PROXY_CONNECT_S),
            ) as response:
                if (300 <= response.status < 400 and response.status != 304) or response.status == 101:
                    raise _unavailable(backend, f"it answered {response.status}, and redirects are not passed on")
                answer = [
                    (k.lower().encode("latin-1"), v.encode("latin-1"))
                    for k, v in response.headers.items()
                    if k.lower() not in _HOP_HEADERS or k.lower() == "content-length"
                ]
                await send({"type": "http.response.start", "status": response.status, "headers": answer})
                started = True
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (OSError, aiohttp.ClientError, TimeoutError) as exc:
            if started:
                raise
            backend.next_probe_s = 0.0
            self._wake.set()
            raise _unavailable(backend, str(exc) or "no answer in time") from exc

    def statistics(self) -> dict[str, int]:
        remote = self.remote()
        return {
            "api_services": len(remote),
            "api_services_available": sum(b.available for b in remote),
            "probes": self.probes,
            "probe_failures": self.failures,
        }


def _unavailable(backend: Backend, why: str) -> ApiFailure:
    return ApiFailure(
        503,
        f"error trying to reach service: APIService {backend.name}: {why}; see `kubectl get apiservice {backend.name}`",
        details={"name": backend.name, "kind": "apiservices"},
    )


def _identity(user: str, groups: tuple[str, ...]) -> dict[str, str]:
    return {"X-Remote-User": user, "X-Remote-Group": groups[0]}


def _slice_port(endpoint_slice: Object, service_port: Object) -> int | None:
    wanted = service_port.get("name") or ""
    ports = endpoint_slice.get("ports") or []
    for port in ports:
        if (port.get("name") or "") == wanted and port.get("port"):
            return int(port["port"])
    if not service_port and len(ports) == 1 and ports[0].get("port"):
        return int(ports[0]["port"])
    return None
