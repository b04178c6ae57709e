"""``flyball server``: scraping, store and the Prometheus API alone, from a prometheus.yml. The story of one process.

Nothing of a new configuration is in force unless all of it is right: a reload that fails leaves what was there.
"""

import asyncio
import contextlib
import glob
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from flyball import clock, memory
from flyball.errors import ConfigError, FlyballError
from flyball.model.durations import format_duration
from flyball.model.prometheusconfig import (
    PrometheusConfig,
    RemoteWriteConfig,
    parse_prometheus_config,
    with_absolute_paths,
)
from flyball.model.scrapeconfigs import ScrapeConfig, parse_scrape_jobs
from flyball.model.yaml_loader import load_yaml
from flyball.rules.rulefiles import Group, parse_rule_file
from flyball.stopping import told_to_stop, until_stopped

log = logging.getLogger("flyball.server")

QUERY_SWITCH_INTERVAL_S = 0.001
#: For queries whose time is over and which have not noticed yet.
QUERY_THREADS_SPARE = 4
FLUSH_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the flags say; the names are Prometheus'.

    Attributes:
        listen: (host, port) to serve at.
        auto_reload_ms: how often files are looked at, with the feature ``auto-reload-config``.
        operator_namespace: where an operator writes jobs and rules that are in force beside the file's; or empty.
        flags: every flag with its value, for ``/status/flags``.
    """

    config_file: Path
    storage_path: Path
    listen: tuple[tuple[str, int], ...] = (("0.0.0.0", 9090),)
    retention_ms: int = 15 * 86_400_000
    retention_bytes: int = 0
    external_url: str = ""
    route_prefix: str = ""
    lifecycle: bool = False
    admin_api: bool = False
    remote_write_receiver: bool = False
    otlp_receiver: bool = False
    lookback_ms: int = 300_000
    alert_resend_ms: int = 60_000
    query_timeout_ms: int = 120_000
    query_samples_max: int = 50_000_000
    query_series_max: int = 2_000_000
    queries_max: int = 2
    auto_reload_ms: int = 30_000
    operator_namespace: str = ""
    memory_limit_bytes: int = 2 << 30
    features: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration file with the files that it names.

    Attributes:
        text: the YAML in force, secrets hidden.
    """

    config: PrometheusConfig
    jobs: tuple[ScrapeConfig, ...]
    groups: tuple[Group, ...]
    text: str


def load(path: Path) -> Loaded:
    """Reads a prometheus.yml, its ``scrape_config_files`` and its ``rule_files``.

    Raises:
        ConfigError: a file is missing or wrong; a line for every error, each with file, field, value and remedy.
    """
    from flyball.web.status import hidden_secrets

    document = load_yaml(_text(path), str(path))
    absolute = with_absolute_paths({} if document is None else document, PurePosixPath(path.absolute().parent))
    config, errors = parse_prometheus_config(absolute, str(path))
    jobs = list(config.jobs)
    for pattern in config.scrape_config_files:
        for name in sorted(glob.glob(pattern)):
            try:
                jobs.extend(_more_jobs(Path(name), config))
            except ConfigError as exc:
                errors.append(exc)
    groups: list[Group] = []
    for pattern in config.rule_files:
        for name in sorted(glob.glob(pattern)):
            try:
                interval_ms = config.defaults.evaluation_interval_ms
                groups.extend(parse_rule_file(_text(Path(name)), name, interval_ms=interval_ms))
            except ConfigError as exc:
                errors.append(exc)
    names = [job.job_name for job in jobs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        errors.append(ConfigError(f'{path}: the job_name "{name}" is used twice; rename one'))
    if errors:
        raise ConfigError("\n".join(map(str, errors)))
    text = yaml.safe_dump(hidden_secrets(absolute), sort_keys=False, allow_unicode=True)
    return Loaded(config, tuple(jobs), tuple(groups), text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; name the file that is meant") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 text ({exc})") from exc


def _more_jobs(path: Path, config: PrometheusConfig) -> list[ScrapeConfig]:
    document = load_yaml(_text(path), str(path))
    if not isinstance(document, Mapping) or set(document) != {"scrape_configs"}:
        raise ConfigError(f"{path}: must have the one field scrape_configs")
    absolute = with_absolute_paths(document, PurePosixPath(path.absolute().parent))
    jobs, errors = parse_scrape_jobs(absolute["scrape_configs"] or [], config.defaults)
    if errors:
        raise ConfigError("\n".join(f"{path}: {error}" for error in errors))
    return jobs


def without_effect(loaded: Loaded) -> list[str]:
    """Sections and fields that were accepted but do nothing: whoever wrote them must hear of it."""
    jobs = [f"job {job.job_name}: {name}" for job in loaded.jobs for name in job.ignored]
    return [*loaded.config.ignored, *jobs]


class Configuration:
    """The configuration in force. ``apply`` is called with each one that is read without an error.

    Args:
        check: raises ``ConfigError`` for what is right elsewhere and wrong here.
    """

    def __init__(
        self, path: Path, apply: Callable[[Loaded], None], check: Callable[[Loaded], None] = lambda _: None
    ) -> None:
        self.path = path
        self._check = check
        self.loaded = Loaded(PrometheusConfig(), (), (), "")
        self.last_reload = (True, clock.now_ms())
        self._apply = apply
        self._lock = asyncio.Lock()

    async def reload(self) -> None:
        """Reads the file again.

        Raises:
            ConfigError: it is wrong; what was in force stays.
        """
        async with self._lock:
            try:
                loaded = await asyncio.to_thread(load, self.path)
                self._check(loaded)
            except ConfigError:
                self.last_reload = (False, self.last_reload[1])
                raise
            self._apply(loaded)
            self.loaded = loaded
            for name in without_effect(loaded):
                log.warning("%s: %s is accepted and has no effect here", self.path, name)
            self.last_reload = (True, clock.now_ms())

    def files(self) -> list[Path]:
        """What was read, and what a pattern finds since."""
        patterns = (*self.loaded.config.rule_files, *self.loaded.config.scrape_config_files)
        return [self.path, *(Path(found) for one in patterns for found in sorted(glob.glob(one)))]

    def notifications(self) -> list[dict[str, Any]]:
        worked, at_ms = self.last_reload
        if worked:
            return []
        return [{"text": "Configuration reload has failed.", "date": clock.rfc3339_micro(at_ms), "active": True}]


def run_server(settings: ServerSettings, ready: Callable[[list[str]], None]) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP reloads. ``ready`` is called with the URLs once all is up.

    Raises:
        FlyballError: the configuration is wrong, the store is not usable, or a port is taken.
    """
    run_until_done(_serve(settings, ready))


def run_until_done(serving: Coroutine[Any, Any, None]) -> None:
    """Runs it on the fastest event loop that there is."""
    runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        runner = uvloop.run
    runner(serving)


async def _serve(settings: ServerSettings, ready: Callable[[list[str]], None]) -> None:
    from prometheus_client import REGISTRY
    from starlette.routing import Mount

    from flyball.discovery import Discovery
    from flyball.http.reloader import on_change
    from flyball.http.server import LOOPBACK_HOSTS, serve
    from flyball.rules.evaluation import External
    from flyball.rules.manager import RuleManager
    from flyball.rules.notifier import Notifier
    from flyball.scrape import ScrapeManager
    from flyball.store import Database, StoreCollector
    from flyball.web.prometheus_api import Budget, Instance, create_app
    from flyball.web.receiving import Receiver

    sys.setswitchinterval(QUERY_SWITCH_INTERVAL_S)  # a query in a worker thread must not delay a scrape
    memory.look_for_cycles_rarely()
    loop = asyncio.get_running_loop()
    stopping = told_to_stop()

    first = load(settings.config_file)
    store = await asyncio.to_thread(
        Database,
        settings.storage_path,
        memory_limit_bytes=settings.memory_limit_bytes,
        retention_ms=settings.retention_ms,
        retention_bytes=settings.retention_bytes or None,
        out_of_order_ms=first.config.out_of_order_ms,
        exemplars_max=first.config.exemplars_max,
    )
    REGISTRY.register(StoreCollector(store))
    manager = ScrapeManager(store.head)
    discovery = Discovery(manager.set_groups)
    kubernetes = _Kubernetes(discovery)
    remote = RemoteWriters(store)
    generated = Generated(settings.operator_namespace, lambda: apply(configuration.loaded))

    def apply(loaded: Loaded) -> None:
        jobs = generated.beside(loaded.jobs)
        manager.set_configs(jobs)
        discovery.set_configs(jobs)
        kubernetes.set_configs(jobs)
        rules.external = External(loaded.config.external_labels, settings.external_url)
        rules.set_groups((*loaded.groups, *generated.groups))
        notifier.external_labels = loaded.config.external_labels
        notifier.relabel_configs = loaded.config.alert_relabel_configs
        notifier.set_targets(_alertmanagers(loaded.config))
        remote.set_configs(loaded.config.remote_write, loaded.config.external_labels)

    configuration = Configuration(settings.config_file, apply)
    instance = Instance(
        targets=manager.describe,
        target_metadata=manager.metadata,
        pools=manager.pools,
        config_yaml=lambda: configuration.loaded.text,
        flags=settings.flags,
        features=settings.features,
        external_labels=lambda: configuration.loaded.config.external_labels,
        started_ms=clock.now_ms(),
        last_reload=lambda: configuration.last_reload,
        rule_groups=lambda: rules.groups_json(),
        alerts=lambda: rules.alerts_json(),
        alertmanagers=lambda: [url for found in configuration.loaded.config.alertmanagers for url in found.urls()],
        notifications=configuration.notifications,
        exemplars=store.head.exemplars,
        stored_metadata=lambda: store.head.metadata,
        retention=format_duration(settings.retention_ms),
        blocks=lambda: [describe_block(block) for block in store.blocks],
        admin=_Admin(store) if settings.admin_api else None,
        reload=configuration.reload if settings.lifecycle else None,
        quit=stopping.set if settings.lifecycle else None,
    )
    budget = Budget(
        timeout_s=settings.query_timeout_ms / 1000,
        samples_max=settings.query_samples_max,
        series_max=settings.query_series_max,
        lookback_ms=settings.lookback_ms,
    )
    with ThreadPoolExecutor(settings.queries_max + QUERY_THREADS_SPARE, thread_name_prefix="query") as executor:
        notifier = Notifier(settings.alert_resend_ms)
        notifier.external_url = settings.external_url
        in_thread = partial(loop.run_in_executor, executor)
        rules = RuleManager(store, store.head, in_thread, on_alerts=notifier.notify)
        receiver = Receiver(store.head, store.head)
        app: Any = create_app(
            store,
            executor=executor,
            routes=receiver.routes(remote_write=settings.remote_write_receiver, otlp=settings.otlp_receiver),
            instance=instance,
            budget=budget,
            queries_max=settings.queries_max,
            threads_spare=QUERY_THREADS_SPARE,
            give_way=manager.precedence.for_query,
        )
        if settings.route_prefix:
            from starlette.applications import Starlette

            app = Starlette(routes=[Mount(settings.route_prefix, app=app)])
        servers = []
        parts: list[asyncio.Task[Any]] = []
        try:
            for host, port in settings.listen:
                hosts = LOOPBACK_HOSTS if host in LOOPBACK_HOSTS else None
                servers.append(await serve(app, host=host, port=port, allowed_hosts=hosts, name="Prometheus API"))
            await configuration.reload()
            reload_on_hangup(configuration)
            parts += [
                loop.create_task(store.run(), name="store"),
                loop.create_task(manager.run(), name="scraping"),
                loop.create_task(rules.run(), name="rules"),
            ]
            if "auto-reload-config" in settings.features:
                looks = on_change(
                    configuration.files, partial(reload_or_say, configuration), settings.auto_reload_ms / 1e3
                )
                parts.append(loop.create_task(looks, name="reloading"))
            if settings.operator_namespace:
                parts.append(loop.create_task(generated.run(), name="operator's configuration"))
            ready([f"http://{host}:{server.port}" for (host, _), server in zip(settings.listen, servers, strict=True)])
            await until_stopped(stopping, parts)
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await notifier.close()
            await remote.close()
            await kubernetes.close()
            await discovery.close()
            for server in servers:
                await server.close()
            await asyncio.to_thread(store.close)


def _alertmanagers(config: PrometheusConfig) -> list[Any]:
    from flyball.http.calling import Caller
    from flyball.rules.notifier import Alertmanager

    targets = []
    for found in config.alertmanagers:
        caller = Caller(found.http)
        targets += [Alertmanager(url, found.timeout_ms / 1000, caller) for url in found.urls()]
    return targets


class RemoteWriters:
    """A queue for each receiver. Receivers that a reload does not change go on undisturbed.

    Args:
        kept: how much waits for a receiver; None is what ``flyball.remotewrite`` says.
    """

    def __init__(self, store: Any, kept: Any = None) -> None:
        self._store, self._kept = store, kept
        self._running: dict[Any, asyncio.Task[None]] = {}
        self._queues: dict[Any, Any] = {}

    def set_configs(self, configs: tuple[RemoteWriteConfig, ...], external: Mapping[str, str]) -> None:
        wanted = {repr((config, sorted(external.items()))): config for config in configs}
        stopping = [self._running.pop(key) for key in list(self._running) if key not in wanted]
        for task in stopping:
            task.cancel()
        for key, config in wanted.items():
            if key not in self._running:
                writing = self._write(key, config, dict(external), stopping)
                self._running[key] = asyncio.get_running_loop().create_task(writing, name=f"remote write {config.url}")

    async def _write(
        self, key: str, config: RemoteWriteConfig, external: Mapping[str, str], before: Sequence[Any]
    ) -> None:
        from flyball.http.calling import Caller
        from flyball.remotewrite import Kept, RemoteWrite

        await asyncio.gather(*before, return_exceptions=True)  # they may have had this receiver's checkpoint
        try:
            caller = Caller(config.http)
            timeout_s = config.remote_timeout_ms / 1000
            async with caller.session(timeout_s=timeout_s, connections_max=config.queue.max_shards) as session:
                queue = RemoteWrite(self._store, config, external, session, caller, self._kept or Kept())
                self._queues[key] = queue
                await queue.run()
        except (OSError, FlyballError) as exc:
            log.error("remote write to %s does not run: %s", config.url, exc)
        finally:
            self._queues.pop(key, None)

    async def flush(self, deadline_s: float) -> bool:
        """Sends what waits, for so long at most. Returns whether everything was sent."""
        for queue in self._queues.values():
            queue.hurry()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while any(queue.behind for queue in self._queues.values()):
                    await asyncio.sleep(FLUSH_LOOK_S)
        return not any(queue.behind for queue in self._queues.values())

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)


def reload_on_hangup(configuration: Configuration) -> None:
    """From now on SIGHUP reads the file again."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected

    def begin() -> None:
        task = loop.create_task(reload_or_say(configuration))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)


async def reload_or_say(configuration: Configuration) -> None:
    """Reads the file again; an error is logged, and what was in force stays."""
    try:
        await configuration.reload()
        log.info("configuration reloaded")
    except FlyballError as exc:
        log.error("configuration not reloaded, what was in force stays: %s", exc)


class Generated:
    """Jobs and rules that an operator writes into a namespace, beside those of the file."""

    def __init__(self, namespace: str, changed: Callable[[], None]) -> None:
        self.groups: tuple[Group, ...] = ()
        self._jobs: tuple[ScrapeConfig, ...] = ()
        self._namespace, self._changed = namespace, changed

    def beside(self, jobs: tuple[ScrapeConfig, ...]) -> tuple[ScrapeConfig, ...]:
        """The file's jobs, and the operator's under other names."""
        names = {job.job_name for job in jobs}
        return (*jobs, *(job for job in self._jobs if job.job_name not in names))

    async def run(self) -> None:
        """Watches until cancelled."""
        from flyball.discovery.configs import GeneratedJobs
        from flyball.kube import KubeClient
        from flyball.rules.configmaps import RuleFiles

        def take_jobs(jobs: Sequence[ScrapeConfig]) -> None:
            self._jobs = tuple(jobs)
            self._changed()

        def take_groups(groups: Sequence[Group]) -> None:
            self.groups = tuple(groups)
            self._changed()

        async with await KubeClient.from_environment() as client, asyncio.TaskGroup() as group:
            group.create_task(GeneratedJobs(client, self._namespace).run(take_jobs))
            group.create_task(RuleFiles(client, self._namespace).run(take_groups))


class _Admin:
    """Deleting and copying in the store: marks on the writing thread, files in another."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def delete_series(self, matcher_sets: Any, start_ms: int, end_ms: int) -> None:
        self._store.mark_deleted(matcher_sets, start_ms, end_ms)
        await asyncio.to_thread(self._store.bury)

    async def clean_tombstones(self) -> None:
        await asyncio.to_thread(self._store.clean_tombstones)

    async def snapshot(self, skip_head: bool) -> str:
        """``skip_head`` has no effect: a snapshot holds all that was taken."""
        now = clock.rfc3339(clock.now_ms()).replace("-", "").replace(":", "")
        name = f"{now}-{secrets.token_hex(8)}"
        await asyncio.to_thread(self._store.snapshot, name)
        return name


def describe_block(block: Any) -> dict[str, Any]:
    """A block in the form of ``/api/v1/status/tsdb/blocks``."""
    return {
        "ulid": block.path.stem,
        "minTime": block.min_ms,
        "maxTime": block.max_ms,
        "stats": {"numSamples": block.samples, "numSeries": block.series_count, "numTombstones": len(block.tombstones)},
        "compaction": {"level": 1},
        "version": 1,
    }


class _Kubernetes:
    """Kubernetes discovery, connected once a job asks for it; one client for each kubeconfig."""

    def __init__(self, discovery: Any) -> None:
        self._discovery = discovery
        self._running: dict[str, tuple[Any, Any, asyncio.Task[None]]] = {}
        self._starting: set[asyncio.Task[None]] = set()

    def set_configs(self, jobs: tuple[ScrapeConfig, ...]) -> None:
        wanted: dict[str, list[ScrapeConfig]] = {kubeconfig: [] for kubeconfig in self._running}
        for job in jobs:
            for kubeconfig in {sd.kubeconfig_file for sd in job.kubernetes_sd_configs}:
                own = tuple(sd for sd in job.kubernetes_sd_configs if sd.kubeconfig_file == kubeconfig)
                wanted.setdefault(kubeconfig, []).append(replace(job, kubernetes_sd_configs=own))
        for kubeconfig, configs in wanted.items():
            if kubeconfig in self._running:
                self._running[kubeconfig][1].set_configs(configs)
            else:
                task = asyncio.get_running_loop().create_task(self._start(kubeconfig, configs))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)

    async def _start(self, kubeconfig: str, configs: list[ScrapeConfig]) -> None:
        from flyball.discovery import KubernetesDiscovery
        from flyball.kube import KubeClient

        try:
            client = await KubeClient.from_environment(kubeconfig or None)
        except FlyballError as exc:
            log.error("kubernetes_sd_configs: %s", exc)
            return
        found = KubernetesDiscovery(client)
        found.set_configs(configs)
        task = asyncio.get_running_loop().create_task(found.run(self._discovery.set_groups), name="kubernetes")
        self._running[kubeconfig] = (client, found, task)

    async def close(self) -> None:
        tasks = [*self._starting, *(task for _, _, task in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client, _, _ in self._running.values():
            await client.close()
