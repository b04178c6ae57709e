"""Service addresses on this machine: listeners that spread connections over the ready endpoints."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from flyball import clock
from flyball.errors import FlyballError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import SERVICES
from flyball.localcluster.node import names
from flyball.localcluster.node.datagrams import Forwarder
from flyball.localcluster.node.dnsrecords import Records, records_of
from flyball.localcluster.node.series import ProxySeries
from flyball.localcluster.node.splicing import Backends, Downstream, Holding

Object = dict[str, Any]
Key = tuple[str, str]
PortKey = tuple[str, str, str]
"""Namespace and name of a Service, name of its port."""

CLUSTER_DNS = ("kube-system", "kube-dns")  # it listens at its Service's address itself
ALTERNATIVE_BASE = 30000
ALTERNATIVE_TRIES = 6
SERVED_AT = "flyball.dev/served-at"
RETRY_S = 5.0
BACKLOG = 512
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


class _Listener:
    def __init__(
        self, owner: PortKey, host: str, wanted: int, port: int, server: asyncio.Server | Forwarder | None
    ) -> None:
        self.owner = owner
        self.host = host
        self.wanted = wanted
        self.port = port  # the real one
        self.server = server  # None: the pod itself answers there


def service_ports(service: Object) -> list[tuple[str, str, int, int | None]]:
    """``(port name, kind, port, nodePort)`` of the TCP and UDP ports; kind is the Service's type."""
    spec = service.get("spec", {})
    kind = spec.get("type") or "ClusterIP"
    return [
        (port.get("name") or "", kind, int(port["port"]), port.get("nodePort"))
        for port in spec.get("ports") or []
        if protocol_of(port) in ("TCP", "UDP")
    ]


def protocol_of(port: Object) -> str:
    """A port's protocol, by default TCP."""
    return str(port.get("protocol") or "TCP")


def _is_udp(service: Object, port_name: str) -> bool:
    ports = service["spec"].get("ports") or []
    return any((port.get("name") or "") == port_name and protocol_of(port) == "UDP" for port in ports)


def wanted_listeners(service: Object) -> list[tuple[str, str, int]]:
    """``(port name, host, port)`` where a Service should be reachable."""
    if _key(service) == CLUSTER_DNS:
        return []
    cluster_ip = service.get("spec", {}).get("clusterIP")
    out = []
    for name, kind, port, node_port in service_ports(service):
        if kind == "ExternalName":
            continue
        if cluster_ip and cluster_ip != "None":
            out.append((name, cluster_ip, port))
        if kind == "LoadBalancer":
            out.append((name, "127.0.0.1", port))
        if kind in ("LoadBalancer", "NodePort") and node_port:
            out.append((name, "127.0.0.1", int(node_port)))
        elif kind == "NodePort":
            out.append((name, "127.0.0.1", port))
    return out


def ready_addresses(slices: list[Object], port_name: str) -> list[tuple[str, int]]:
    """Where the ready endpoints of a Service port listen."""
    found: set[tuple[str, int]] = set()
    for one in slices:
        number = next(
            (port.get("port") for port in one.get("ports") or [] if (port.get("name") or "") == port_name), None
        )
        if not number:
            continue
        for endpoint in one.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            if conditions.get("ready", True) is False or conditions.get("terminating"):
                continue
            found.update((address, int(number)) for address in endpoint.get("addresses") or [])
    return sorted(found)


class ServiceProxy:
    """Keeps listeners and backends in step with Services and EndpointSlices."""

    def __init__(
        self, client: KubeClient, recorder: EventRecorder, port_offset: int = 0, holding: Holding | None = None
    ) -> None:
        self._client = client
        self._holding = holding
        self._recorder = recorder
        self._services: dict[Key, Object] = {}
        self._slices: dict[Key, Object] = {}
        self._records: Records | None = None
        self._backends: dict[PortKey, Backends] = {}
        self._listeners: dict[tuple[PortKey, str, int], _Listener] = {}
        self._yielded: dict[int, str] = {}
        self._told: dict[tuple[PortKey, str, int], str] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._published: dict[Key, tuple[Object, str]] = {}
        self._started_ms = clock.now_ms()
        self.series = ProxySeries()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what comes from outside ---------------------------------------------------------------------------------

    def observe_service(self, change: str, service: Object) -> None:
        key = _key(service)
        self._records = None
        self.series.service_changes += 1
        if change == "DELETED":
            self._services.pop(key, None)
            self._published.pop(key, None)
        else:
            self._services[key] = service
        self._wake.set()

    def observe_slice(self, change: str, one: Object) -> None:
        key = _key(one)
        self._records = None
        if change == "DELETED":
            old = self._slices.pop(key, None) or one
        else:
            old = one
            self._slices[key] = one
        self._refresh_backends((key[0], _service_of(old)))
        self._told_change(one)
        self.on_change()
        if self._yielded:
            self._wake.set()

    def _told_change(self, one: Object) -> None:
        self.series.endpoint_changes += 1
        since = (one["metadata"].get("annotations") or {}).get(TRIGGER_TIME)
        # a slice that stood there before this process tells of an old change
        if since and (since_ms := clock.parse_rfc3339_ms(since)) >= self._started_ms:
            self.series.programming.observe(max(0.0, (clock.now_ms() - since_ms) / 1000))

    def withdraw(self, ip: str) -> None:
        """No new connection goes to this pod; the endpoints will say so a moment later."""
        for backends in self._backends.values():
            if any(host == ip for host, _ in backends.addresses):
                backends.withdrawn.add(ip)

    def yield_ports(self, ports: set[int], ip: str) -> None:
        """A program that listens on every address is about to take these ports: we let go of them."""
        for port in ports:
            self._yielded[port] = ip
        for key, listener in list(self._listeners.items()):
            if listener.port in ports and not isinstance(listener.server, Forwarder | None):
                listener.server.close()
                del self._listeners[key]
        self._wake.set()

    def take_back(self, ports: set[int], ip: str) -> None:
        """The program at this address has ended: what it made us serve elsewhere returns to its own port."""
        freed = {port for port in ports if self._yielded.get(port) == ip}
        for port in freed:
            del self._yielded[port]
        for key, listener in list(self._listeners.items()):
            if listener.wanted in freed and (listener.server is None or listener.port != listener.wanted):
                self._drop(key)
        self._wake.set()

    def _drop(self, key: tuple[PortKey, str, int]) -> None:
        listener = self._listeners.pop(key)
        self._told.pop(key, None)
        if listener.server is not None:
            listener.server.close()

    def served_port(self, service: Object, port: int) -> int:
        """Where a Service's port is really reached at its cluster address."""
        namespace, name = _key(service)
        host = service.get("spec", {}).get("clusterIP")
        for (owner, at, wanted), listener in self._listeners.items():
            if owner[:2] == (namespace, name) and at == host and wanted == port:
                return listener.port
        return port

    def table(self) -> Object:
        """What pods can ask for by name, and the ports that are served elsewhere."""
        services = list(self._services.values())
        moved = [(key, one.port) for key, one in self._listeners.items() if one.port != key[2]]
        return {
            "names": names.addresses_of(services, self._slices.values()),
            "aliases": names.aliases_of(services),
            "ports": {f"{host}:{port}": served for (_, host, port), served in moved},
        }

    def records(self) -> Records:
        """What the cluster's DNS says."""
        if self._records is None:
            self._records = records_of(self._services.values(), self._slices.values())
        return self._records

    def port_name(self, namespace: str, name: str, port: int | str) -> str | None:
        """The name of a Service's port, which may be given by number; None when there is none such."""
        service = self._services.get((namespace, name))
        for one in (service or {}).get("spec", {}).get("ports") or []:
            if port in (one.get("port"), one.get("name")):
                return str(one.get("name") or "")
        return None

    def services_of(self, namespace: str) -> list[tuple[Object, Callable[[int], int]]]:
        return [
            (service, partial(self.served_port, service))
            for (ns, _), service in sorted(self._services.items())
            if ns == namespace
        ]

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            while True:
                self._wake.clear()
                began_s = clock.monotonic_s()
                troubled = await self._sync()
                self.series.syncs.observe(clock.monotonic_s() - began_s)
                self.on_change()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if troubled else None):  # wait_for may lose a cancellation
                        await self._wake.wait()
        finally:
            for listener in self._listeners.values():
                if listener.server is not None:
                    listener.server.close()
            self._listeners.clear()
            for task in list(self._tasks):
                task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def backends(self, key: PortKey) -> Backends:
        if key not in self._backends:
            self._backends[key] = Backends(key[:2], self._holding)
            self._refresh_backends(key[:2])
        return self._backends[key]

    def _refresh_backends(self, service: Key) -> None:
        slices = [one for (ns, _), one in self._slices.items() if ns == service[0] and _service_of(one) == service[1]]
        for key, backends in self._backends.items():
            if key[:2] == service:
                backends.set(ready_addresses(slices, key[2]))

    async def _sync(self) -> bool:
        """Opens and closes listeners; whether something must be tried again."""
        by_age = sorted(
            self._services.items(), key=lambda item: (item[1]["metadata"].get("creationTimestamp") or "", item[0])
        )
        wanted: dict[tuple[PortKey, str, int], Object] = {}
        for (namespace, name), service in by_age:
            if service["metadata"].get("deletionTimestamp"):
                continue
            for port_name, host, port in wanted_listeners(service):
                wanted[(namespace, name, port_name), host, port] = service
        for key in [key for key in self._listeners if key not in wanted]:
            self._drop(key)
        for key, listener in list(self._listeners.items()):
            if listener.server is not None and self._served_by_pod(key):
                self._drop(key)
        for owner in [owner for owner in self._backends if owner[:2] not in self._services]:
            del self._backends[owner]
        troubled = False
        for key, service in wanted.items():
            if key not in self._listeners and not await self._listen(key, service):
                troubled = True
        for service_key, service in list(self._services.items()):
            if (service.get("spec", {}).get("type")) == "LoadBalancer" and not await self._publish(
                service_key, service
            ):
                troubled = True
        return troubled

    def _served_by_pod(self, key: tuple[PortKey, str, int]) -> bool:
        """Whether a ready pod of this Service listens there itself, on every address of this machine."""
        owner, _, port = key
        taken_by = self._yielded.get(port)
        return taken_by is not None and (taken_by, port) in self.backends(owner).addresses

    async def _listen(self, key: tuple[PortKey, str, int], service: Object) -> bool:
        owner, host, port = key
        backends = self.backends(owner)
        is_udp = _is_udp(service, owner[2])
        taken_by = None if is_udp else self._yielded.get(port)
        if not is_udp and self._served_by_pod(key):
            self._listeners[key] = _Listener(owner, host, port, port, None)
            return True
        candidates = [] if taken_by is not None else [port]
        first = ALTERNATIVE_BASE + port
        candidates += [
            number for step in range(ALTERNATIVE_TRIES) if (number := first + 1000 * step) <= 65535 and number != port
        ]
        loop = asyncio.get_running_loop()
        why = "another program of this machine listens on it"
        last: OSError | None = None
        for candidate in candidates:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM)
            server: asyncio.Server | Forwarder
            try:
                if is_udp:
                    sock.bind((host, candidate))
                    _, server = await loop.create_datagram_endpoint(partial(Forwarder, backends), sock=sock)
                else:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((host, candidate))
                    connected = partial(Downstream, backends, self.spawn)
                    server = await loop.create_server(connected, sock=sock, backlog=BACKLOG)
            except OSError as exc:
                sock.close()
                last = last or exc
                if exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    break
                continue
            if candidate != port:
                if last is not None and last.errno in (errno.EACCES, errno.EPERM):
                    why = "an ordinary user may not listen on ports below 1024"
                message = f"port {port} cannot be served at {host}:{port} ({why}); it is served at {host}:{candidate}"
                if (self._told.get(key) != message and host == "127.0.0.1") or last is not None:
                    self._told[key] = message
                    await self._recorder.event(service, "Normal", "ServedAtAnotherPort", message)
            self._listeners[key] = _Listener(owner, host, port, candidate, server)
            return True
        reason = last.strerror if last is not None else "no port is free"
        message = f"port {port} cannot be served at {host} ({reason}); free the port or change the Service's"
        if self._told.get(key) != message:
            self._told[key] = message
            await self._recorder.event(service, "Warning", "CannotListen", message)
        return False

    async def _publish(self, key: Key, service: Object) -> bool:
        """Writes where a LoadBalancer Service is reached; whether the API has it."""
        ports, served = [], []
        for name, _, port, _ in service_ports(service):
            listener = self._listeners.get(((*key, name), "127.0.0.1", port))
            if listener is not None:
                ports.append({"port": listener.port, "protocol": "UDP" if _is_udp(service, name) else "TCP"})
                served.append(f"127.0.0.1:{listener.port}")
        if not ports:
            return True
        ingress = [{"ip": "127.0.0.1", "ports": ports}]
        text = ",".join(served)
        now = (service.get("status") or {}).get("loadBalancer", {}).get("ingress")
        annotated = (service["metadata"].get("annotations") or {}).get(SERVED_AT)
        try:
            if now != ingress:
                body = {"status": {"loadBalancer": {"ingress": ingress}}}
                await self._client.patch(SERVICES, key[1], body, key[0], "status")
            if annotated != text:
                await self._client.patch(SERVICES, key[1], {"metadata": {"annotations": {SERVED_AT: text}}}, key[0])
        except FlyballError as exc:
            return getattr(exc, "code", 0) == 404
        return True

    def statistics(self) -> Mapping[str, int]:
        return {
            "listeners": len(self._listeners),
            "open": sum(sum(one.active.values()) for one in self._backends.values()),
            "connections": sum(one.connections for one in self._backends.values()),
            "refused": sum(one.refused for one in self._backends.values()),
        }


def _key(obj: Object) -> Key:
    return obj["metadata"].get("namespace") or "default", obj["metadata"]["name"]


def _service_of(one: Object) -> str:
    return str((one["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""))
