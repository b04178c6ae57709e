"""``flyball agent``: one a node. Its figures, its kubelet's and what a file names go to other servers by remote write.

What is scraped is in a log on the disk before it is sent: a receiver may be away, and the agent may die. The agent asks
no API server: a thousand nodes cost it nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flyball.errors import ConfigError
from flyball.model.clients import Authorization, HttpClientConfig, TLSConfig
from flyball.model.scrapeconfigs import GlobalDefaults, ScrapeConfig, StaticConfig
from flyball.server import (
    Configuration,
    Loaded,
    RemoteWriters,
    load,
    reload_on_hangup,
    reload_or_say,
    run_until_done,
)
from flyball.stopping import told_to_stop, until_stopped

log = logging.getLogger("flyball.agent")

#: Where the node's own figures are served; ``/metrics`` is the agent's.
NODE_PATH = "/node/metrics"
#: What is sealed is not looked at again here: the log is what is sent.
SEALED_KEPT_MS = 3_600_000
#: job -> path, of the kubelet; both are job ``kubelet`` with the path as a label, as rules and dashboards have it.
KUBELET_JOBS = {"kubelet": "/metrics", "kubelet-cadvisor": "/metrics/cadvisor"}
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the flags say; where Prometheus has a name for it, it is Prometheus'.

    Attributes:
        listen: (host, port) to serve at; the node's figures are scraped at the first one.
        max_age_ms: unsent samples that are older are given up.
        max_bytes: the oldest unsent samples are given up when the log is larger.
        flush_ms: how long what is unsent is sent before the process ends.
        node: the name of the node; labels ``node`` and ``instance`` of its figures.
        figures: makes the text of the node's figures; None leaves them out.
        kubelet: host:port of the node's kubelet; or empty.
    """

    config_file: Path
    storage_path: Path
    listen: tuple[tuple[str, int], ...] = (("0.0.0.0", 9090),)
    segment_bytes: int = 16 << 20
    max_age_ms: int = 4 * 3_600_000
    max_bytes: int = 1 << 30
    memory_limit_bytes: int = 128 << 20
    flush_ms: int = 60_000
    auto_reload_ms: int = 30_000
    lifecycle: bool = False
    features: tuple[str, ...] = ()
    node: str = ""
    figures: Callable[[], str] | None = None
    kubelet: str = ""
    kubelet_token_file: str = ""
    kubelet_ca_file: str = ""


def check(loaded: Loaded) -> None:
    """What is right for a server and wrong for an agent.

    Raises:
        ConfigError: a line for every error.
    """
    config, errors = loaded.config, []
    if config.rule_files:
        errors.append("rule_files: an agent evaluates no rules; give them to the server that it sends to")
    if config.alertmanagers or config.alert_relabel_configs:
        errors.append("alerting: an agent sends no alerts; give it to the server that it sends to")
    if not config.remote_write:
        errors.append("remote_write: is missing, nothing would be sent; add one with the url of a receiver")
    for job in loaded.jobs:
        if job.kubernetes_sd_configs:
            errors.append(
                f'job "{job.job_name}": kubernetes_sd_configs: an agent asks no API server; use static_configs, '
                "file_sd_configs, http_sd_configs or dns_sd_configs, or let flyball server scrape this job"
            )
    if errors:
        raise ConfigError("\n".join(errors))


def node_jobs(settings: AgentSettings, defaults: GlobalDefaults, port: int) -> list[ScrapeConfig]:
    """The jobs of the node itself, at the file's interval.

    Args:
        port: where the node's figures are served.
    """
    about = {"node": settings.node} if settings.node else {}
    interval_ms = defaults.scrape_interval_ms
    timeout_ms = min(defaults.scrape_timeout_ms or 10_000, interval_ms)
    job = partial(ScrapeConfig, scrape_interval_ms=interval_ms, scrape_timeout_ms=timeout_ms)
    jobs = []
    if settings.figures is not None:
        host = settings.listen[0][0]
        address = f"{_EVERYWHERE.get(host, f'[{host}]' if ':' in host else host)}:{port}"
        labels = {**about, "instance": settings.node or address}
        jobs.append(job("node-exporter", metrics_path=NODE_PATH, static_configs=(StaticConfig((address,), labels),)))
    for name, path in KUBELET_JOBS.items() if settings.kubelet else ():
        labels = {**about, "job": "kubelet", "metrics_path": path}
        token, ca = settings.kubelet_token_file, settings.kubelet_ca_file
        jobs.append(
            job(
                name,
                scheme="https",
                metrics_path=path,
                honor_labels=True,
                http=HttpClientConfig(
                    authorization=Authorization(credentials_file=token) if token else None,
                    # Most clusters' kubelets sign their own certificates.
                    tls=TLSConfig(ca_file=ca, insecure_skip_verify=not ca),
                ),
                static_configs=(StaticConfig((settings.kubelet,), labels),),
            )
        )
    return jobs


def run_agent(settings: AgentSettings, ready: Callable[[list[str]], None]) -> None:
    """Ships until SIGTERM or SIGINT; SIGHUP reloads. ``ready`` is called with the URLs once all is up.

    Raises:
        FlyballError: the configuration is wrong, the log is not usable, or a port is taken.
    """
    run_until_done(_ship(settings, ready))


async def _ship(settings: AgentSettings, ready: Callable[[list[str]], None]) -> None:
    from prometheus_client import REGISTRY

    from flyball.discovery import Discovery
    from flyball.http.reloader import on_change
    from flyball.http.server import LOOPBACK_HOSTS, serve
    from flyball.remotewrite import Kept
    from flyball.scrape import ScrapeManager
    from flyball.store import Database, StoreCollector

    loop = asyncio.get_running_loop()
    stopping = told_to_stop()

    check(load(settings.config_file))
    store = await asyncio.to_thread(
        Database,
        settings.storage_path,
        memory_limit_bytes=settings.memory_limit_bytes,
        retention_ms=SEALED_KEPT_MS,
        cache_bytes=0,
    )
    store.wal.segment_bytes = settings.segment_bytes
    REGISTRY.register(StoreCollector(store))
    manager = ScrapeManager(store.head)
    discovery = Discovery(manager.set_groups)
    remote = RemoteWriters(store, Kept(settings.max_bytes, settings.max_age_ms))

    def apply(loaded: Loaded) -> None:
        jobs = (*node_jobs(settings, loaded.config.defaults, servers[0].port), *loaded.jobs)
        manager.set_configs(jobs)
        discovery.set_configs(jobs)
        remote.set_configs(loaded.config.remote_write, loaded.config.external_labels)

    def check_all(loaded: Loaded) -> None:
        check(loaded)
        own = {job.job_name for job in node_jobs(settings, loaded.config.defaults, 0)}
        for job in loaded.jobs:
            if job.job_name in own:
                raise ConfigError(
                    f'{settings.config_file}: the job_name "{job.job_name}" is the agent\'s own; rename the job, '
                    "or switch the agent's off (--no-node.figures, --node.kubelet=)"
                )

    configuration = Configuration(settings.config_file, apply, check_all)
    app = _app(settings, manager, configuration)
    servers: list[Any] = []
    parts: list[asyncio.Task[Any]] = []
    try:
        for host, port in settings.listen:
            hosts = LOOPBACK_HOSTS if host in LOOPBACK_HOSTS else None
            servers.append(await serve(app, host=host, port=port, allowed_hosts=hosts, name="agent"))
        await configuration.reload()
        reload_on_hangup(configuration)
        parts += [
            loop.create_task(store.run(), name="store"),
            loop.create_task(manager.run(), name="scraping"),
        ]
        if "auto-reload-config" in settings.features:
            looks = on_change(configuration.files, partial(reload_or_say, configuration), settings.auto_reload_ms / 1e3)
            parts.append(loop.create_task(looks, name="reloading"))
        ready([f"http://{host}:{server.port}" for (host, _), server in zip(settings.listen, servers, strict=True)])
        await until_stopped(stopping, parts)
    finally:
        for task in parts:
            task.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        if not await remote.flush(settings.flush_ms / 1000):
            log.warning("not everything was sent; it is kept in %s and sent after the next start", store.directory)
        await remote.close()
        await discovery.close()
        for server in servers:
            await server.close()
        await asyncio.to_thread(store.close)


def _app(settings: AgentSettings, manager: Any, configuration: Configuration) -> Any:
    """The agent's own metrics, the node's, its targets, health and reloading."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def own(_: Request) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def node(_: Request) -> Response:
        if settings.figures is None:
            return PlainTextResponse("the node's figures are switched off (--no-node.figures)\n", 404)
        return Response(await run_in_threadpool(settings.figures), media_type="text/plain; version=0.0.4")

    async def targets(_: Request) -> Response:
        return JSONResponse({"status": "success", "data": manager.describe()})

    async def config(_: Request) -> Response:
        return JSONResponse({"status": "success", "data": {"yaml": configuration.loaded.text}})

    async def well(request: Request) -> Response:
        said = "Healthy" if request.url.path.endswith("healthy") else "Ready"
        return PlainTextResponse(f"Flyball agent is {said}.\n")

    async def reload(_: Request) -> Response:
        if not settings.lifecycle:
            return PlainTextResponse("Lifecycle API is not enabled; start with --web.enable-lifecycle\n", 403)
        try:
            await configuration.reload()
        except ConfigError as exc:
            return PlainTextResponse(f"{exc}\n", 500)
        return PlainTextResponse("")

    async def unavailable(_: Request) -> Response:
        said = "an agent answers no queries; ask the server that it sends to"
        return JSONResponse({"status": "error", "errorType": "execution", "error": said}, 422)

    queries = ("query", "query_range", "series", "labels", "label/{name}/values", "rules", "alerts")
    return Starlette(
        routes=[
            Route("/metrics", own),
            Route(NODE_PATH, node),
            Route("/api/v1/targets", targets),
            Route("/api/v1/status/config", config),
            Route("/-/healthy", well),
            Route("/-/ready", well),
            Route("/-/reload", reload, methods=["POST", "PUT"]),
            *(Route(f"/api/v1/{name}", unavailable, methods=["GET", "POST"]) for name in queries),
        ]
    )
