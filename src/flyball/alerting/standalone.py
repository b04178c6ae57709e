"""``flyball alertmanager``: alerting alone, from an alertmanager.yml. The story of one process."""

import asyncio
import hashlib
import logging
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flyball.alerting import gossip
from flyball.alerting.api import create_app
from flyball.alerting.cluster import Cluster, ClusterSettings
from flyball.alerting.config import Config
from flyball.alerting.configsecret import SECRET_KEY
from flyball.alerting.loading import load
from flyball.alerting.matchers import Mode
from flyball.alerting.service import Alertmanager, Settings
from flyball.alerting.templates import Templates
from flyball.errors import ConfigError, FlyballError
from flyball.http.reloader import on_change
from flyball.http.server import LOOPBACK_HOSTS, Server, serve
from flyball.journal.records import Records
from flyball.stopping import told_to_stop, until_stopped

log = logging.getLogger(__name__)

FILE = "alerting.db"
_MODES = {mode.value: mode for mode in (Mode.CLASSIC, Mode.UTF8)}


@dataclass(frozen=True, slots=True)
class StandaloneSettings:
    """What the flags say, under their names; times in ms.

    Attributes:
        generated: the configuration in this directory, while there is one, is in force instead of the file.
    """

    config_file: Path
    storage_path: Path
    auto_reload_ms: int
    retention_ms: int
    maintenance_interval_ms: int
    silences_max: int
    start_delay_ms: int
    listen: tuple[tuple[str, int], ...]
    external_url: str
    route_prefix: str
    cluster_listen: str
    cluster_advertise: str
    peer_name: str
    peers: tuple[str, ...]
    peer_timeout_ms: int
    probe_interval_ms: int
    settle_timeout_ms: int
    exchange_timeout_ms: int
    forget_after_ms: int
    features: tuple[str, ...]
    generated: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The configurations, the one that goes before the others first."""
        return [*([self.generated / SECRET_KEY] if self.generated is not None else []), self.config_file]

    @property
    def mode(self) -> Mode:
        return next((_MODES[name] for name in self.features if name in _MODES), Mode.FALLBACK)

    @property
    def prefix(self) -> str:
        path = (self.route_prefix or urlsplit(self.external_url).path).strip("/")
        return f"/{path}" if path else ""


async def run_alertmanager(settings: StandaloneSettings, ready: Callable[[list[str]], None]) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP reloads. ``ready`` is called with the URLs once all is up.

    Raises:
        FlyballError: the configuration is wrong, the disk is not usable, or a port is taken.
    """
    loop, stopping = asyncio.get_running_loop(), told_to_stop()
    config, templates = first(settings)
    records = Records(settings.storage_path / FILE)
    alertmanager = Alertmanager(
        config,
        Settings(
            external_url=settings.external_url.rstrip("/") or f"http://localhost:{settings.listen[0][1]}",
            retention_ms=settings.retention_ms,
            start_delay_ms=settings.start_delay_ms,
            maintenance_interval_ms=settings.maintenance_interval_ms,
            silences_max=settings.silences_max,
            mode=settings.mode,
        ),
        templates=templates,
        records=records,
    )

    async def reload() -> None:
        try:
            found = await asyncio.to_thread(in_force, settings)
        except ConfigError as exc:
            alertmanager.refused()
            log.error("configuration not reloaded, what was in force stays: %s", exc)
            raise
        alertmanager.apply(*found)
        log.info("configuration reloaded")

    reloads: set[asyncio.Task[Any]] = set()

    def on_hangup() -> None:
        task = loop.create_task(_quietly(reload))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    servers: list[Server] = []
    cluster, exchanges = await _join(settings, alertmanager, servers) if settings.cluster_listen else (None, None)
    app = create_app(alertmanager, reload=reload, cluster=cluster, prefix=settings.prefix)
    parts = [loop.create_task(alertmanager.run(), name="alerting")]
    if settings.auto_reload_ms:
        looks = on_change(lambda: settings.files, partial(_quietly, reload), settings.auto_reload_ms / 1e3)
        parts.append(loop.create_task(looks, name="reloading"))
    try:
        urls = []
        for host, port in settings.listen:
            hosts = LOOPBACK_HOSTS if host in LOOPBACK_HOSTS else None
            servers.append(await serve(app, host=host, port=port, allowed_hosts=hosts, name="Alertmanager API"))
            urls.append(f"http://{host}:{servers[-1].port}{settings.prefix}")
        if cluster is not None:
            parts.append(loop.create_task(cluster.run(), name="cluster"))
        ready(urls)
        await until_stopped(stopping, parts)
    finally:
        for task in parts:
            task.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        for server in servers:
            await server.close()
        if exchanges is not None:
            await exchanges.close()
        records.close()


async def _quietly(reload: Callable[[], Any]) -> None:
    try:
        await reload()
    except FlyballError:
        pass  # it was logged


def in_force(settings: StandaloneSettings) -> tuple[Config, Templates]:
    """The configuration that should be in force.

    Raises:
        ConfigError: it is wrong.
    """
    file = next((file for file in settings.files if file.exists()), settings.config_file)
    return load(file, settings.mode)


def first(settings: StandaloneSettings) -> tuple[Config, Templates]:
    """At start nothing is in force yet: what was generated wrongly must not keep the file's receivers from hearing."""
    try:
        return in_force(settings)
    except ConfigError as exc:
        if settings.generated is None:
            raise
        log.error("configuration not used, %s is in force: %s", settings.config_file, exc)
        return load(settings.config_file, settings.mode)


async def _join(
    settings: StandaloneSettings, alertmanager: Alertmanager, servers: list[Server]
) -> tuple[Cluster, gossip.Gossip]:
    """Begins to listen to the other replicas.

    Raises:
        ConfigError: an address is wrong, or taken.
    """
    host, colon, port = settings.cluster_listen.rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError(f'--cluster.listen-address: "{settings.cluster_listen}" is not a host:port')
    host = host.strip("[]") or "0.0.0.0"
    exchanges = gossip.Gossip(settings.exchange_timeout_ms / 1000)
    advertised = settings.cluster_advertise or (settings.cluster_listen if host != "0.0.0.0" else f"127.0.0.1:{port}")
    cluster = Cluster(
        alertmanager,
        ClusterSettings(
            name=settings.peer_name or hashlib.sha256(secrets.token_bytes(16)).hexdigest()[:26].upper(),
            address=advertised,
            peers=settings.peers,
            peer_timeout_s=settings.peer_timeout_ms / 1000,
            probe_interval_s=settings.probe_interval_ms / 1000,
            settle_timeout_s=settings.settle_timeout_ms / 1000,
            forget_after_s=settings.forget_after_ms / 1000,
        ),
        exchanges.exchange,
        gossip.resolve,
    )
    alertmanager.peers = cluster
    app = gossip.create_app(cluster)
    servers.append(await serve(app, host=host, port=int(port), allowed_hosts=None, name="gossip of replicas"))
    return cluster, exchanges
