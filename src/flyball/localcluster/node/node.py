"""The node: registers itself, runs the pods bound to it, serves their logs and figures, and the Services."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.http.server import Server, ServerTLS, serve
from flyball.kube import EventRecorder, Informer, KubeClient
from flyball.kube.kinds import (
    ENDPOINT_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    TOKEN_REVIEWS,
)
from flyball.localcluster.durations import ClientSeries, Series
from flyball.localcluster.metricspage import MetricsPage
from flyball.localcluster.node import cgroups, dnsserver, environment, figures, runtimes
from flyball.localcluster.node.dnsserver import DnsServer
from flyball.localcluster.node.httpapi import NodeApi
from flyball.localcluster.node.ingress import IngressProxy
from flyball.localcluster.node.names import NameTable
from flyball.localcluster.node.nodeobjects import FIRST, names, node_object, share
from flyball.localcluster.node.pending import PendingRequests
from flyball.localcluster.node.pods import PodManager
from flyball.localcluster.node.serviceproxy import ServiceProxy
from flyball.localcluster.node.simulated import SimulatedNodes, follow

log = logging.getLogger(__name__)

Object = dict[str, Any]
PORT = 10250
PROXY_PORT = 10249  # the service proxy's series
STORE_PORT = 9090  # takes the count of pending requests
HEARTBEAT_S = 30.0
RETRY_S = 1.0
ALLOWED_HOSTS = ("localhost", "127.0.0.1", "::1", "[::1]", FIRST)


class Node:
    """The nodes of the embedded cluster, all of whose pods are processes of this machine.

    Args:
        data_dir: the cluster's; pods live below ``node/``, certificates and the token below ``pki/``.
        port_offset: added to ports 10250 and 10249; the API server's is 6443 plus it.
        client: how the API server is reached; the caller closes it.
        count: how many Node objects share this machine.
        images: ``NAME=COMMAND``, the program that stands for an image.

    Raises:
        ConfigError: an image is not of that form.
    """

    def __init__(
        self, data_dir: str | Path, port_offset: int, client: KubeClient, count: int = 1, images: Sequence[str] = ()
    ) -> None:
        self.data_dir = Path(data_dir)
        self.port, self.proxy_port = PORT + port_offset, PROXY_PORT + port_offset
        self._client = client
        self._asked = ClientSeries(urlsplit(client.access.server).netloc)
        client.on_answer = self._asked.answered
        self._recorder = EventRecorder(client, "kubelet", FIRST)
        self.names = names(count)
        self.capacity = share(figures.capacity(), count)
        directory = self.data_dir / "node"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.runtime = runtimes.probe(directory.resolve())
        self.pods = PodManager(
            directory.resolve(),
            port_offset,
            client,
            self._recorder,
            nodes=self.names,
            runtime=self.runtime,
            addressed=runtimes.gives_addresses(),
            groups=cgroups.probe(directory.resolve()),
            image_commands=images,
            capacity=self.capacity,
        )
        self.pending = PendingRequests(client, f"http://127.0.0.1:{STORE_PORT + port_offset}")
        proxy_events = EventRecorder(client, "flyball-service-proxy", FIRST)
        self.proxy = ServiceProxy(client, proxy_events, port_offset, self.pending)
        ingress_events = EventRecorder(client, "flyball-ingress", FIRST)
        self.ingress = IngressProxy(client, ingress_events, self.proxy, port_offset)
        self.dns = DnsServer(self.proxy.records)
        self.name_table = NameTable(directory.resolve() / "names.json", self.proxy.table)
        self.proxy.on_change = self.name_table.changed
        self.name_table.on_write = self.pods.names_changed
        self.pods.names = lambda: dict(self.proxy.table()["names"])
        self.pods.service_environment = lambda namespace: environment.service_environment(
            self.proxy.services_of(namespace)
        )
        self.pods.withdraw = self.proxy.withdraw
        self.pods.yield_ports = self.proxy.yield_ports
        self.pods.take_back_ports = self.proxy.take_back
        self.simulated = SimulatedNodes(client)
        self.ready = asyncio.Event()
        self._stop_pods = False
        self._ready_since_ms = 0

    async def _knows(self, token: str) -> bool:
        """Whether the API server knows a bearer token, as a kubelet asks it."""
        if not token:
            return False
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        try:
            return bool((await self._client.create(TOKEN_REVIEWS, body))["status"].get("authenticated"))
        except FlyballError:
            return False

    def stop_pods_at_end(self) -> None:
        """When ``run`` is cancelled after this, the pods' processes end too; their objects stay."""
        self._stop_pods = True

    async def run(self) -> None:
        """Runs until cancelled. Pods run on, unless ``stop_pods_at_end`` was called.

        Raises:
            ConfigError: the port is taken.
        """
        await self.pods.take_over()
        pki = self.data_dir / "pki"
        api = NodeApi(self.pods, pki / "token", self.statistics, self._knows, self._asked.collect)
        proxy_page = MetricsPage(Series(self.proxy.series.collect).exposition, None)
        server: Server | None = None
        proxy_server: Server | None = None
        try:
            proxy_server = await serve(proxy_page, port=self.proxy_port, name="service proxy")
            server = await serve(
                api,
                port=self.port,
                tls=ServerTLS(pki / "node.crt", pki / "node.key"),
                allowed_hosts=ALLOWED_HOSTS,
                name="node",
            )
            async with asyncio.TaskGroup() as group:
                services: Informer[Object] = Informer(self._client, SERVICES)
                slices: Informer[Object] = Informer(self._client, ENDPOINT_SLICES)
                pods: Informer[Object] = Informer(self._client, PODS)
                nodes: Informer[Object] = Informer(self._client, NODES)
                follow(self.simulated, nodes, pods)
                ingresses: Informer[Object] = Informer(self._client, INGRESSES)
                classes: Informer[Object] = Informer(self._client, INGRESS_CLASSES)
                ingresses.add_handler(lambda change, old, new: self.ingress.observe_ingress(change, _either(old, new)))
                classes.add_handler(lambda change, old, new: self.ingress.observe_class(change, _either(old, new)))
                # Of certificates alone; all others are read when a pod names them.
                secrets: Informer[Object] = Informer(self._client, SECRETS, field_selector="type=kubernetes.io/tls")
                secrets.add_handler(lambda change, old, new: self.ingress.observe_secret(change, _either(old, new)))
                services.add_handler(lambda change, old, new: self.proxy.observe_service(change, _either(old, new)))
                slices.add_handler(lambda change, old, new: self.proxy.observe_slice(change, _either(old, new)))
                group.create_task(self._register(), name="node heartbeat")
                group.create_task(services.run(), name="services")
                group.create_task(slices.run(), name="endpoint slices")
                group.create_task(ingresses.run(), name="ingresses")
                group.create_task(classes.run(), name="ingress classes")
                group.create_task(secrets.run(), name="certificates")
                group.create_task(self.ingress.run(), name="ingress proxy")
                group.create_task(self.pending.run(), name="pending requests")
                # Pods are told where Services are, so those come first.
                await services.wait_synced()
                await self._serve_names()
                group.create_task(self.proxy.run(), name="service proxy")
                group.create_task(self.name_table.run(), name="names")
                pods.add_handler(self._on_pod)
                group.create_task(nodes.run(), name="nodes")
                group.create_task(self.simulated.run(), name="simulated nodes")
                group.create_task(pods.run(), name="pods")
                await pods.wait_synced()
                await self.pods.remove_strangers()
                self.ready.set()
        finally:
            await asyncio.shield(self._close(server, proxy_server))

    async def _serve_names(self) -> None:
        """The cluster's DNS, at the address of its Service.

        An ordinary user may not have its port: pods then know the cluster's names from their hosts file.
        """
        body: Object = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {
                "clusterIP": dnsserver.address_of(self.data_dir, self.port - PORT),
                # TCP is served too; a port of it here would be the Service proxy's to serve.
                "ports": [{"name": "dns", "port": dnsserver.PORT, "protocol": "UDP"}],
            },
        }
        try:
            service = await self._client.get(SERVICES, "kube-dns", "kube-system")
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            try:
                service = await self._client.create(SERVICES, body)
            except KubeApiError as taken:
                if taken.code != 422:
                    raise
                del body["spec"]["clusterIP"]  # another Service has the usual address: any other will do
                service = await self._client.create(SERVICES, body)
        address = service["spec"]["clusterIP"]
        try:
            await self.dns.listen(address)
        except OSError as exc:
            log.warning(
                "dns_not_served address=%s:%d error=%s; pods read names from /etc/hosts", address, dnsserver.PORT, exc
            )
        else:
            self.pods.nameserver = address

    def _on_pod(self, change: str, old: Object | None, new: Object | None) -> None:
        pod = _either(old, new)
        if pod["spec"].get("nodeName") in self.names:
            self.pods.observe(change, pod)

    async def _close(self, *servers: Server | None) -> None:
        self.dns.close()
        await self.pods.close(stop_pods=self._stop_pods)
        for server in servers:
            if server is not None:
                await server.close()

    def statistics(self) -> dict[str, float]:
        proxy = {f"service_{name}": float(value) for name, value in self.proxy.statistics().items()}
        ingress = {f"ingress_{name}": float(value) for name, value in self.ingress.statistics().items()}
        pending = {f"pending_{name}": float(value) for name, value in self.pending.statistics().items()}
        dns = {f"dns_{name}": float(value) for name, value in self.dns.statistics().items()}
        return {**self.pods.statistics(), **proxy, **ingress, **pending, **dns}

    # -- the Node object -----------------------------------------------------------------------------------------

    async def _register(self) -> None:
        while True:
            try:
                await self._heartbeat()
            except FlyballError:
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(HEARTBEAT_S)

    async def _heartbeat(self) -> None:
        self._ready_since_ms = self._ready_since_ms or clock.now_ms()
        now, since = clock.rfc3339(clock.now_ms()), clock.rfc3339(self._ready_since_ms)
        for name in self.names:
            body = node_object(name, self.port, self.capacity, self.runtime, now, since)
            status = body.pop("status")
            try:
                await self._client.patch(NODES, name, {"status": status}, subresource="status")
            except KubeApiError as exc:
                if exc.code != 404:
                    raise
                with contextlib.suppress(KubeApiError):  # another creator was quicker; the patch below tells
                    await self._client.create(NODES, body)
                await self._client.patch(NODES, name, {"status": status}, subresource="status")


def _either(old: Object | None, new: Object | None) -> Object:
    found = new if new is not None else old
    assert found is not None
    return found
