"""The only place that builds and wires the parts. Each process is one function that reads as a story.

``control``: API server, workload controllers, operator, adapter, autoscaler. ``data``: scraping, store, PromQL, rules,
alerting and their HTTP APIs. ``node``: pods. They meet only over HTTP. Parts are imported where they are built, so that
no process carries another's weight (the node never imports numpy).
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flyball import clock
from flyball.errors import FlyballError, UpstreamError
from flyball.supervisor import report_ready

log = logging.getLogger("flyball")

METRICS_PORT, PROMETHEUS_PORT, ALERTMANAGER_PORT, NODE_PORT = 6444, 9090, 9093, 10250
#: Where the parts of the control plane serve their series, by the names that monitors select; the port's name too.
CONTROL_PLANE = {
    "kube-controller-manager": (10257, "https-metrics"),
    "kube-scheduler": (10259, "https-metrics"),
    "kube-proxy": (10249, "metrics"),
}
SYSTEM_NAMESPACE = "flyball-system"
ADAPTER_SERVICE = "flyball-embedded-adapter"  # another name than that of what flyball install makes
STATSD_PORT = 8125
QUERY_SWITCH_INTERVAL_S = 0.001
SHARE_S = 0.0  # a Governor is evaluated when a sample lands, and must not be told what was before it


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``flyball up`` hands to each process. ``manifests`` are applied once, by ``control``.

    ``nodes`` is how many Node objects share this machine; ``images`` are ``NAME=COMMAND``.
    """

    data_dir: Path
    port_offset: int = 0
    sync_period_s: float = 5.0
    manifests: tuple[Path, ...] = ()
    nodes: int = 1
    images: tuple[str, ...] = ()

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.data_dir / "pki"

    def port(self, base: int) -> int:
        return base + self.port_offset


def run_process(name: str, settings: Settings) -> None:
    """Runs one process until SIGTERM, SIGINT or the death of the parent (which closes standard input)."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    story = {"control": _control, "data": _data, "node": _node}[name]
    runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    if name != "node":  # the Service proxy half-closes sockets: uvloop 0.23 corrupts memory when the peer has reset
        with contextlib.suppress(ImportError):
            import uvloop

            runner = uvloop.run
    try:
        runner(_until_told(name, story, settings))
    except FlyballError as exc:
        report_ready(f"{name}: {exc}")
        log.error("%s", exc)
        sys.exit(exc.exit_code)


Story = Callable[[Settings, "Life"], Awaitable[None]]


class Life:
    """What ends a process. ``on_asked`` is called when it is asked to end, and not when its parent is gone."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.on_asked: Callable[[], None] = lambda: None

    def stop(self, *, orphaned: bool = False) -> None:
        if not orphaned and not self.stopping.is_set():
            self.on_asked()
        self.stopping.set()


async def _until_told(name: str, story: Story, settings: Settings) -> None:
    life = Life()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.stop)
    if not sys.stdin.isatty():
        loop.add_reader(sys.stdin.fileno(), lambda: _stdin_closed(loop, life))
    main = asyncio.create_task(_guarded(story(settings, life)), name=name)
    stop = asyncio.create_task(life.stopping.wait(), name="wait stopping")
    await asyncio.wait({main, stop}, return_when=asyncio.FIRST_COMPLETED)
    life.stop(orphaned=main.done())
    with contextlib.suppress(asyncio.CancelledError):
        if not main.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(main), 8.0)
            main.cancel()
        await main


def _stdin_closed(loop: asyncio.AbstractEventLoop, life: Life) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        life.stop(orphaned=True)


async def _guarded(story: Awaitable[None]) -> None:
    """The first known error of a task group, in place of the group."""
    try:
        await story
    except* FlyballError as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group


async def _serve_until_stopped(life: Life, parts: dict[str, Coroutine[Any, Any, Any]]) -> None:
    """Runs the long-lived parts side by side; the first that fails takes the process down, the parent restarts it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part, name=name) for name, part in parts.items()]
        await life.stopping.wait()
        for task in tasks:
            task.cancel()


# -- control ---------------------------------------------------------------------------------------------------------


async def _control(settings: Settings, life: Life) -> None:
    from flyball.adapter import Adapter
    from flyball.adapter import serve as serve_adapter
    from flyball.autoscaler import Autoscaler
    from flyball.autoscaler import create_app as autoscaler_app
    from flyball.http.server import ServerTLS, serve
    from flyball.journal import Journal
    from flyball.kube import KubeClient
    from flyball.localcluster import ApiServer, pki
    from flyball.localcluster.metricspage import MetricsPage
    from flyball.localcluster.workloads import Workloads
    from flyball.operator import Engine, Operator
    from flyball.sources import HttpSource

    pki.ensure(settings.data_dir, settings.port_offset)
    api_server = ApiServer(settings.data_dir, settings.port_offset)
    await api_server.start()
    client = await KubeClient.from_kubeconfig(settings.kubeconfig)
    journal = Journal(settings.data_dir / "control" / "journal.db")
    source = HttpSource(f"http://127.0.0.1:{settings.port(PROMETHEUS_PORT)}", cache_ms=round(SHARE_S * 1000))
    adapter = Adapter(client, source, share_s=SHARE_S)
    autoscaler = Autoscaler(client, journal, sync_period_s=settings.sync_period_s)
    engines = [
        Engine("Prometheus", f"127.0.0.1:{settings.port(PROMETHEUS_PORT)}", 9090),
        Engine("Alertmanager", f"127.0.0.1:{settings.port(ALERTMANAGER_PORT)}", 9093),
    ]
    operator = Operator(client, engines, {"https-metrics": settings.port(NODE_PORT)})
    metrics_apis = await serve_adapter(
        adapter,
        port=settings.port(METRICS_PORT),
        pki_dir=settings.pki,
        token=pki.token(settings.data_dir),
        extra_app=autoscaler_app(
            journal, statistics=autoscaler.statistics, client=client, wakes=autoscaler, metrics_of=adapter.metrics_of
        ),
    )
    scheduling = await KubeClient.from_kubeconfig(settings.kubeconfig)
    workloads = Workloads(client, settings.data_dir / "node" / "volumes", scheduling)
    tls = ServerTLS(settings.pki / "node.crt", settings.pki / "node.key")
    pages = [
        await serve(
            MetricsPage(page, settings.pki / "token"), port=settings.port(CONTROL_PLANE[name][0]), tls=tls, name=name
        )
        for name, page in (
            ("kube-controller-manager", workloads.controllers_page),
            ("kube-scheduler", workloads.scheduler_page),
        )
    ]
    try:
        await _publish_metrics_apis(client, settings)
        await _publish_control_plane(client, settings)
        report_ready()
        await _serve_until_stopped(
            life,
            {
                "workloads": workloads.run(),
                "operator": operator.run(),
                "adapter": adapter.run(),
                "autoscaler": autoscaler.run(),
                "manifests": _apply_manifests(client, settings),
            },
        )
    finally:
        for page in (*pages, metrics_apis):
            await page.close()
        await source.close()
        await scheduling.close()
        await client.close()
        journal.close()
        await api_server.close()


async def _apply_manifests(client: Any, settings: Settings) -> None:
    from flyball.kube.applying import apply_paths

    done, failed = await apply_paths(client, settings.manifests)
    for line in done:
        log.info("%s", line)
    for line in failed:
        log.error("%s", line)


async def _publish_metrics_apis(client: Any, settings: Settings) -> None:
    """The adapter's Service, its endpoint on the host and its APIServices, and our own kinds, as on any cluster."""
    from flyball.adapter.tenants import metric_rule_definition
    from flyball.autoscaler.definition import governor_definition
    from flyball.kube.applying import apply, provide

    port = settings.port(METRICS_PORT)
    metadata = {"name": ADAPTER_SERVICE, "namespace": SYSTEM_NAMESPACE}
    spec = {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}
    for obj in (governor_definition(), metric_rule_definition(), *_host_service(metadata, spec, "https", port)):
        await apply(client, obj)
    for group, version, priority in (
        ("custom.metrics.k8s.io", "v1beta1", 100),
        ("custom.metrics.k8s.io", "v1beta2", 200),
        ("external.metrics.k8s.io", "v1beta1", 100),
        ("metrics.k8s.io", "v1beta1", 100),
    ):
        # Without a caBundle the API server asks for a certificate of the cluster's own authority. Another adapter that
        # is installed (kube-prometheus has one) takes its API over, and keeps it when this process starts again.
        await provide(
            client,
            _leads_to_us,
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{version}.{group}"},
                "spec": {
                    "group": group,
                    "version": version,
                    "groupPriorityMinimum": 100,
                    "versionPriority": priority,
                    "service": metadata,
                },
            },
        )


def _host_service(metadata: dict[str, Any], spec: dict[str, Any], name: str, port: int) -> list[dict[str, Any]]:
    """A Service whose one endpoint, a named port, is this machine's."""
    labels = {**metadata.get("labels", {}), "kubernetes.io/service-name": metadata["name"]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": port, "protocol": "TCP"}],
        },
    ]


async def _publish_control_plane(client: Any, settings: Settings) -> None:
    """The Services by which monitors find the controllers, the scheduler and the service proxy."""
    from flyball.kube.applying import apply

    for name, (base, port_name) in CONTROL_PLANE.items():
        port = settings.port(base)
        labels = {"app.kubernetes.io/name": name, "k8s-app": name, "component": name}
        metadata = {"name": name, "namespace": "kube-system", "labels": labels}
        spec = {"clusterIP": "None", "ports": [{"name": port_name, "port": port, "protocol": "TCP"}]}
        for obj in _host_service(metadata, spec, port_name, port):
            await apply(client, obj)


def _leads_to_us(api_service: dict[str, Any]) -> bool:
    """Whether nobody took an APIService over; those of older data name a Service that is now another adapter's."""
    spec = api_service["spec"]
    name = spec.get("service", {}).get("name")
    return name == ADAPTER_SERVICE or (name == "flyball-adapter" and not spec.get("caBundle"))


# -- data ------------------------------------------------------------------------------------------------------------


async def _data(settings: Settings, life: Life) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from prometheus_client import REGISTRY

    from flyball.discovery import KubernetesDiscovery, ScrapeConfigs
    from flyball.http.client import client_tls, new_session
    from flyball.http.server import serve
    from flyball.rules.configmaps import RuleFiles
    from flyball.rules.evaluation import External
    from flyball.rules.manager import RuleManager
    from flyball.scrape import Demand, ScrapeManager, Waker
    from flyball.store import Database, StoreCollector
    from flyball.web.instance import Instance
    from flyball.web.prometheus_api import create_app
    from flyball.web.pushing import Announced, Statsd, push_routes
    from flyball.web.receiving import Receiver

    sys.setswitchinterval(QUERY_SWITCH_INTERVAL_S)  # a query in the worker thread must not delay a scrape
    store, client = await asyncio.gather(asyncio.to_thread(Database, settings.data_dir / "data"), _connect(settings))
    REGISTRY.register(StoreCollector(store))
    manager = ScrapeManager(store.head)
    discovery = KubernetesDiscovery(client)
    configs = ScrapeConfigs(client, settings.port(NODE_PORT), settings.pki)

    def configure(jobs: Any) -> None:
        manager.set_configs(jobs)
        discovery.set_configs(jobs)

    async with contextlib.AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="query"))
        control = new_session(timeout_s=10, tls=client_tls(ca_file=settings.pki / "ca.crt"))
        waker = Waker(control, _control_url(settings) + "/api/flyball/v1/wake", partial(_token, settings))
        pushed = Announced(store.head, waker.series)
        receiver = Receiver(pushed, store.head)
        statsd = Statsd(pushed)
        in_thread = partial(asyncio.get_running_loop().run_in_executor, executor)
        external = External(url=f"http://127.0.0.1:{settings.port(PROMETHEUS_PORT)}")
        notifier, alerting = await stack.enter_async_context(_alerting(settings, client, external.url))
        rules = RuleManager(store, store.head, in_thread, external=external, on_alerts=notifier.notify)
        instance = Instance(
            targets=manager.describe,
            target_metadata=manager.metadata,
            pools=manager.pools,
            started_ms=clock.now_ms(),
            rule_groups=rules.groups_json,
            alerts=rules.alerts_json,
            alertmanagers=lambda: list(notifier.statistics()),
            exemplars=store.head.exemplars,
            stored_metadata=lambda: store.head.metadata,
        )
        routes = [
            *_control_routes(settings, control),
            *push_routes(pushed),
            *receiver.routes(remote_write=True, otlp=True),
        ]
        give_way = manager.precedence.for_query
        app = create_app(store, executor=executor, routes=routes, instance=instance, give_way=give_way)
        server = await serve(app, port=settings.port(PROMETHEUS_PORT), name="Prometheus API")
        try:
            report_ready()
            await _serve_until_stopped(
                life,
                {
                    "store": store.run(),
                    "scraping": manager.run(),
                    "demand": Demand(client, manager, waker.governor).run(),
                    "wake-ups": waker.run(),
                    "statsd": statsd.run("127.0.0.1", settings.port(STATSD_PORT)),
                    "discovery": discovery.run(manager.set_groups),
                    "scrape configuration": configs.run(configure),
                    "rules": rules.run(),
                    "rule files": RuleFiles(client).run(rules.set_groups),
                    **alerting,
                },
            )
        finally:
            await server.close()
            await control.close()
            await client.close()
            await asyncio.to_thread(store.close)


@contextlib.asynccontextmanager
async def _alerting(
    settings: Settings, client: Any, prometheus_url: str
) -> AsyncIterator[tuple[Any, dict[str, Coroutine[Any, Any, Any]]]]:
    """What rules tell, and the parts that run: the embedded Alertmanager, as another one would be, over HTTP."""
    from flyball.alerting.api import create_app
    from flyball.alerting.configsecret import ConfigSecret, nobody
    from flyball.alerting.service import Alertmanager
    from flyball.alerting.service import Settings as AlertingSettings
    from flyball.http.server import serve
    from flyball.journal.records import Records
    from flyball.rules.notifier import Alertmanager as Target
    from flyball.rules.notifier import Notifier

    port, directory = settings.port(ALERTMANAGER_PORT), settings.data_dir / "alerting"
    url = f"http://127.0.0.1:{port}"
    records = Records(directory / "alerting.db")
    alertmanager = Alertmanager(nobody(), AlertingSettings(url), records=records)
    config = ConfigSecret(client, directory / "config")
    notifier = Notifier()
    notifier.external_url = prometheus_url
    server = await serve(create_app(alertmanager), port=port, name="Alertmanager API")
    notifier.set_targets([Target(f"{url}/api/v2/alerts")])
    parts = {
        "alerting": alertmanager.run(),
        "alerting configuration": config.run(alertmanager.apply, alertmanager.refused),
    }
    try:
        yield notifier, parts
    finally:
        await notifier.close()
        await server.close()
        records.close()


def _control_url(settings: Settings) -> str:
    return f"https://127.0.0.1:{settings.port(METRICS_PORT)}"


def _token(settings: Settings) -> str:
    return (settings.pki / "token").read_text().strip()


def _control_routes(settings: Settings, session: Any) -> list[Any]:
    """``/api/flyball/`` is answered by ``control``; the page's port passes it on."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from flyball.http.client import read_capped
    from flyball.web.pushing import same_origin

    base = _control_url(settings)

    async def forward(request: Request) -> Response:
        import aiohttp

        if request.method != "GET" and not same_origin(request):
            return JSONResponse({"error": "pages of other origins may not change anything"}, 403)
        try:
            async with session.request(
                request.method,
                base + request.url.path,
                params=list(request.query_params.multi_items()),
                data=await request.body() or None,
                headers={"Authorization": f"Bearer {_token(settings)}"},
                allow_redirects=False,
            ) as answer:
                body = await read_capped(answer, 64 << 20, base)
                return Response(body, answer.status, media_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError, UpstreamError) as exc:
            message = f"control does not answer ({exc or type(exc).__name__}); it is restarted, try again"
            return JSONResponse({"error": message}, 503)

    return [Route("/api/flyball/{path:path}", forward, methods=["GET", "POST", "DELETE"])]


# -- node ------------------------------------------------------------------------------------------------------------


async def _node(settings: Settings, life: Life) -> None:
    from flyball.localcluster.node import Node

    client = await _connect(settings)
    node = Node(settings.data_dir, settings.port_offset, client, settings.nodes, settings.images)
    try:
        life.on_asked = node.stop_pods_at_end
        await _serve_until_stopped(life, {"node": node.run(), "readiness": _report_node(node)})
    finally:
        await client.close()


async def _report_node(node: Any) -> None:
    await node.ready.wait()
    report_ready()


async def _connect(settings: Settings) -> Any:
    """The client of the API server, which may still be starting."""
    from flyball.kube import KubeClient

    while True:
        client = None
        try:
            client = await KubeClient.from_kubeconfig(settings.kubeconfig)
            await client.raw_get("/readyz")
            return client
        except FlyballError:
            if client is not None:
                await client.close()
            await asyncio.sleep(0.05)
