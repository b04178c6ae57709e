"""The adapter as a deployment of its own, on any cluster: from flags to a server that runs until told to stop."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flyball import clock
from flyball.adapter import tracing
from flyball.adapter.access import DelegatedAccess, FrontProxy, FrontProxyWatch
from flyball.adapter.api import MetricsApp
from flyball.adapter.cabundle import CaBundle
from flyball.adapter.certificates import DirectoryKeeper, Keeper, LiveTLS, SecretKeeper, keep
from flyball.adapter.defaults import DERIVED_CONFIG
from flyball.adapter.onward import Onward, OnwardFlags
from flyball.adapter.owners import Owners
from flyball.adapter.service import Adapter
from flyball.errors import ConfigError, FlyballError
from flyball.http.client import client_tls
from flyball.http.server import serve
from flyball.kube import KubeClient, in_cluster_access, kubeconfig_access
from flyball.sources import HttpSource, MetricsSource

if TYPE_CHECKING:
    from flyball.adapter.standalone import Standalone

log = logging.getLogger(__name__)

CONFIG_POLL_S = 2.0
CERTIFICATE_POLL_S = 60.0
FRONT_PROXY_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class PrometheusFlags:
    """``--prometheus-*``, under upstream's names."""

    url: str = "https://localhost"
    verb: Literal["GET", "POST"] = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    auth_incluster: bool = False
    auth_config: str = ""
    ca_file: str = ""
    client_tls_cert_file: str = ""
    client_tls_key_file: str = ""
    token_file: str = ""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ServingFlags:
    """Where and how to serve, and whom.

    Attributes:
        front_proxy: from ``--requestheader-*``; None follows the cluster's ConfigMap.
        service: (namespace, name) of our Service, by which our APIServices are known.
        cert_secret: (namespace, name) of the Secret that keeps our authority; None keeps it in ``cert_dir``.
    """

    port: int = 6443
    host: str = "0.0.0.0"
    cert_file: str = ""
    key_file: str = ""
    cert_dir: Path = Path("apiserver.local.config/certificates")
    cert_secret: tuple[str, str] | None = None
    service: tuple[str, str] = ("flyball-system", "flyball-adapter")
    front_proxy: FrontProxy | None = None
    token_ttl_s: float = 10.0
    allow_ttl_s: float = 30.0
    deny_ttl_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Flags:
    """Everything ``flyball adapter`` can be told.

    Attributes:
        config: the configuration file; None only with ``standalone`` or ``default_rules``.
        default_rules: whether each metric has a rule by its type, unless the configuration has one of its name.
        standalone: scrape the pods behind HPAs and Governors instead of asking a Prometheus.
        otlp_endpoint: where traces go; "" makes none.
    """

    config: Path | None
    prometheus: PrometheusFlags = field(default_factory=PrometheusFlags)
    serving: ServingFlags = field(default_factory=ServingFlags)
    onward: OnwardFlags = field(default_factory=OnwardFlags)
    kubeconfig: str = ""
    relist_interval_s: float = 600.0
    max_age_s: float = 0.0
    staleness_s: float = 300.0
    share_s: float = 5.0
    standalone: bool = False
    default_rules: bool = False
    hpa_check_s: float = 15.0
    otlp_endpoint: str = ""


async def run(flags: Flags, stopping: asyncio.Event, ready: Callable[[int], None] = lambda _: None) -> None:
    """Serves until ``stopping``.

    Args:
        ready: called with the port once requests are answered.

    Raises:
        ConfigError: a flag, a file or a certificate cannot be used.
    """
    if flags.config is None and not flags.standalone and not flags.default_rules:
        raise ConfigError("--config is missing; name prometheus-adapter's configuration file, or give --default-rules")
    text = _read(flags.config) if flags.config is not None else None
    async with contextlib.AsyncExitStack() as stack:
        if flags.otlp_endpoint:
            stack.push_async_callback(asyncio.to_thread, tracing.start(flags.otlp_endpoint).stop)
        client = await stack.enter_async_context(await KubeClient.from_environment(flags.kubeconfig or None))
        scraping = _standalone(client) if flags.standalone else None
        source: MetricsSource
        if scraping is not None:
            stack.callback(scraping.close)
            source = scraping.source
        else:
            source = asked = await prometheus_source(flags.prometheus)
            stack.push_async_callback(asked.close)
        adapter = Adapter(
            client,
            source,
            text if text is not None else scraping.config if scraping is not None else "",
            before=DERIVED_CONFIG if flags.default_rules else "",
            config_name=str(flags.config or ("standalone" if flags.standalone else "no configuration")),
            relist_interval_s=flags.relist_interval_s,
            max_age_ms=round(1000 * (flags.max_age_s or flags.relist_interval_s)),
            staleness_ms=round(1000 * flags.staleness_s),
            share_s=flags.share_s,
            config_map_namespace=flags.serving.service[0],
        )
        stack.push_async_callback(adapter.close)
        onward = Onward(flags.onward) if flags.onward.url else None
        if onward is not None:
            stack.push_async_callback(onward.close)
        serving = flags.serving
        certificates = _Serving(client, serving)
        tls = LiveTLS(*await certificates.current())
        watch = FrontProxyWatch(client, lambda found: tls.set_client_ca(found.ca_pem))
        fixed = serving.front_proxy
        if fixed is not None:
            tls.set_client_ca(fixed.ca_pem)
        access = DelegatedAccess(
            client,
            lambda: fixed if fixed is not None else watch.current,
            token_ttl_s=serving.token_ttl_s,
            allow_ttl_s=serving.allow_ttl_s,
            deny_ttl_s=serving.deny_ttl_s,
        )
        app = MetricsApp(adapter, access, onward=onward)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(adapter.run(), name="adapter"),
                group.create_task(certificates.run(tls), name="adapter certificates"),
            ]
            if flags.config is not None and text is not None:
                following = _follow_config(adapter, flags.config, text)
                tasks.append(group.create_task(following, name="adapter configuration"))
            if scraping is not None:
                tasks.append(group.create_task(scraping.run(), name="adapter standalone"))
            owners = Owners(client, adapter.registry, lambda: adapter.mapper)
            tasks.append(group.create_task(owners.run(flags.hpa_check_s), name="adapter owners"))
            if onward is not None:
                tasks.append(group.create_task(onward.run(), name="adapter onward"))
            if fixed is None:
                tasks.append(group.create_task(watch.run(), name="adapter front proxy"))
                # whoever connects before would be refused for a certificate that is good a moment later
                await watch.wait_known(FRONT_PROXY_WAIT_S)
            server = await serve(
                app, port=serving.port, host=serving.host, tls=tls.context, allowed_hosts=None, name="adapter"
            )
            ready(server.port)
            await stopping.wait()
            app.stop()  # /readyz says so, while requests under way are answered
            await server.close()
            for task in tasks:
                task.cancel()


def _standalone(client: KubeClient) -> "Standalone":
    from flyball.adapter.standalone import Standalone  # the store and numpy, which nobody else here needs

    return Standalone(client)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--config {path}: cannot be read ({exc}); name prometheus-adapter's configuration") from exc


async def _follow_config(adapter: Adapter, path: Path, known: str) -> None:
    """Takes the file again when it differs; what cannot be read as a whole leaves the old one in force."""
    problem = ""
    while True:
        await asyncio.sleep(CONFIG_POLL_S)
        try:
            text = _read(path)
            if text == known:
                continue
            known = text
            adapter.set_config(text, str(path))
            log.info("adapter_config_reloaded file=%s", path)
            problem = ""
        except ConfigError as exc:
            if str(exc) != problem:
                log.warning("adapter_config_refused file=%s error=%s", path, exc)
            problem = str(exc)


async def prometheus_source(flags: PrometheusFlags) -> HttpSource:
    """The source of the ``--prometheus-*`` flags.

    Raises:
        ConfigError: flags exclude each other, or a file cannot be used.
    """
    headers = dict(flags.headers)
    if flags.auth_incluster and flags.auth_config:
        raise ConfigError("--prometheus-auth-incluster and --prometheus-auth-config exclude each other; give one")
    tls = None
    if flags.ca_file:  # as upstream, the CA file wins over both
        for path in filter(None, (flags.ca_file, flags.client_tls_cert_file, flags.client_tls_key_file)):
            if not Path(path).is_file():
                raise ConfigError(f"{path}: there is no such file; it is named by a --prometheus-* flag")
        tls = client_tls(
            ca_file=flags.ca_file,
            cert_file=flags.client_tls_cert_file or None,
            key_file=flags.client_tls_key_file or None,
        )
    elif flags.auth_incluster or flags.auth_config:
        access = in_cluster_access() if flags.auth_incluster else kubeconfig_access(flags.auth_config)
        credential = await access.credentials.current()
        tls = access.tls(credential)
        headers |= dict(credential.headers)
    return HttpSource(
        flags.url,
        headers=headers,
        tls=tls,
        bearer_file=flags.token_file,
        verb=flags.verb,
        timeout_s=flags.timeout_s,
    )


class _Serving:
    """The certificate to serve with: given files, read again when they change, or our own authority's."""

    def __init__(self, client: KubeClient, flags: ServingFlags) -> None:
        self._flags = flags
        self._keeper: Keeper | None = None
        self._bundle = CaBundle(client, flags.service)
        if bool(flags.cert_file) != bool(flags.key_file):
            raise ConfigError("--tls-cert-file and --tls-private-key-file belong together; give both or none")
        if not flags.cert_file:
            secret = flags.cert_secret
            self._keeper = SecretKeeper(client, *secret) if secret else DirectoryKeeper(flags.cert_dir)
        namespace, name = flags.service
        self._names = [
            f"{name}.{namespace}.svc",
            f"{name}.{namespace}.svc.cluster.local",
            name,
            "localhost",
            "127.0.0.1",
        ]

    async def current(self) -> tuple[str, str]:
        """The certificate and its key."""
        if self._keeper is None:
            return _read(Path(self._flags.cert_file)), _read(Path(self._flags.key_file))
        found = await keep(self._keeper, self._names, clock.now_ms())
        self._bundle.set_authority(found.authority)
        return found.certificate, found.key

    async def run(self, tls: LiveTLS) -> None:
        """Renews in time, and tells the APIServices."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(tls), name="adapter renewal")
            if self._keeper is not None:  # given files have an authority of their own, which others publish
                group.create_task(self._bundle.run(), name="adapter ca bundle")

    async def _follow(self, tls: LiveTLS) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_POLL_S)
            try:
                tls.set_certificate(*await self.current())
            except FlyballError as exc:
                log.warning("adapter_certificate_failed error=%s", exc)
