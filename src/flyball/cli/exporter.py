"""``flyball exporter``."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flyball.cli.options import WITHOUT_EFFECT, ListenAddress, say_without_effect


@click.group("exporter", epilog="Example: flyball exporter kube-state --port 8080")
def command() -> None:
    """Run one exporter alone."""


@command.command(
    "kube-state",
    context_settings=WITHOUT_EFFECT,
    epilog="Example: flyball exporter kube-state --context prod --resources pods,nodes",
)
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="As kubectl's.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--resources", default="", metavar="LIST", help="Plural names, with commas; default: all.")
@click.option("--namespace", default="", help="Only this namespace.")
@click.option("--telemetry-host", default="127.0.0.1", show_default=True)
@click.option("--telemetry-port", type=click.IntRange(0, 65535), help="Its own metrics; not served without.")
@click.pass_context
def kube_state(
    ctx: click.Context,
    kubeconfig: Path | None,
    context: str | None,
    host: str,
    port: int,
    resources: str,
    namespace: str,
    telemetry_host: str,
    telemetry_port: int | None,
) -> None:
    """The state of a cluster's objects, under the names of kube-state-metrics. Secrets are not read.

    The cluster is the one we run in, or the kubeconfig's.
    """
    say_without_effect(ctx)
    telemetry = (telemetry_host, telemetry_port) if telemetry_port is not None else None
    asyncio.run(_kube_state(kubeconfig, context, (host, port), resources, namespace, telemetry))


async def _kube_state(
    kubeconfig: Path | None,
    context: str | None,
    address: tuple[str, int],
    resources: str,
    namespace: str,
    telemetry: tuple[str, int] | None,
) -> None:
    from flyball.exporters.kubestate.exporter import KubeState
    from flyball.kube import KubeClient

    chosen = [one.strip() for one in resources.split(",") if one.strip()]
    async with await KubeClient.from_environment(kubeconfig, context=context) as client:
        exporter = KubeState(client, resources=chosen, namespace=namespace)
        async with contextlib.AsyncExitStack() as stack:
            server = await _listen(stack, exporter.app(), *address, "kube-state exporter")
            click.echo(f"serving http://{address[0]}:{server.port}/metrics", err=True)
            if telemetry is not None:
                await _listen(stack, _own_metrics(), *telemetry, "kube-state exporter's own metrics")
            await exporter.run()


class NodeCommand(click.Command):
    """Takes node_exporter's ``--no-collector.NAME``, which has no effect where there is no such collector."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from flyball.exporters.node.collectors import COLLECTORS

        no = "--no-collector."
        kept = [
            f"--no-collect={word.removeprefix(no)}" if word.removeprefix(no) in COLLECTORS else word for word in args
        ]
        return super().parse_args(ctx, kept)


@command.command(
    "node", cls=NodeCommand, context_settings=WITHOUT_EFFECT, epilog="Example: flyball exporter node --port 9100"
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=9100, show_default=True)
@click.option("--web.listen-address", "address", type=ListenAddress(), help="Both at once, as node_exporter has it.")
@click.option("--path.procfs", "procfs", type=click.Path(path_type=Path), default="/proc", show_default=True)
@click.option("--path.sysfs", "sysfs", type=click.Path(path_type=Path), default="/sys", show_default=True)
@click.option("--path.rootfs", "rootfs", type=click.Path(path_type=Path), default="/", show_default=True)
@click.option("--collector.textfile.directory", "textfile", type=click.Path(path_type=Path), help="Of *.prom files.")
@click.option("--collect", "only", multiple=True, metavar="NAME", help="Only this collector; may be repeated.")
@click.option("--no-collect", "without", multiple=True, metavar="NAME", help="Not this collector; may be repeated.")
@click.pass_context
def node(
    ctx: click.Context,
    host: str,
    port: int,
    address: tuple[str, int] | None,
    procfs: Path,
    sysfs: Path,
    rootfs: Path,
    textfile: Path | None,
    only: tuple[str, ...],
    without: tuple[str, ...],
) -> None:
    """This machine's metrics, under the names of node_exporter."""
    from flyball.exporters.node import NodeExporter, Paths

    say_without_effect(ctx)
    exporter = NodeExporter(Paths(procfs, sysfs, rootfs, textfile), only, without)
    asyncio.run(_serve(exporter.app(), *(address or (host, port)), "node exporter"))


Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def _flag(names: str, parameter: str, variable: str, **more: Any) -> Option:
    """A flag under a Go program's names, which take one dash or two, and its environment variable."""
    forms = [dashes + name for name in names.split() for dashes in ("--", "-")]
    return click.option(*forms, parameter, envvar=variable, **more)


def _go_duration(_: click.Context, parameter: click.Parameter, value: str) -> float:
    from flyball.errors import ConfigError
    from flyball.model.durations import parse_duration_ms

    try:
        return parse_duration_ms(value) / 1000
    except ConfigError as exc:
        raise click.BadParameter(str(exc), param=parameter) from None


def _labels(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair.partition("=") for value in values for pair in value.split(",") if pair]
    for name, equals, _value in pairs:
        if not name or not equals:
            raise click.BadParameter("write labels as name=value", param=parameter)
    return {name.strip(): value.strip() for name, _, value in pairs}


@command.command(
    "nginx",
    epilog="Example: flyball exporter nginx --nginx.scrape-uri http://127.0.0.1:8080/stub_status "
    "--web.listen-address :9113",
)
@_flag(
    "nginx.scrape-uri",
    "uris",
    "SCRAPE_URI",
    multiple=True,
    default=("http://127.0.0.1:8080/stub_status",),
    show_default=True,
    help="A stub_status page, http://HOST:PORT/PATH or unix:SOCKET:PATH; may be repeated.",
)
@_flag("nginx.timeout", "timeout_s", "TIMEOUT", default="5s", show_default=True, callback=_go_duration)
@click.option("--nginx.ssl-verify/--no-nginx.ssl-verify", "verify", default=True, help="Check its certificate.")
@_flag("nginx.ssl-ca-cert", "ca_file", "SSL_CA_CERT", type=click.Path(dir_okay=False))
@_flag("nginx.ssl-client-cert", "cert_file", "SSL_CLIENT_CERT", type=click.Path(dir_okay=False))
@_flag("nginx.ssl-client-key", "key_file", "SSL_CLIENT_KEY", type=click.Path(dir_okay=False))
@_flag(
    "prometheus.const-label prometheus.const-labels",
    "labels",
    "CONST_LABELS",
    multiple=True,
    callback=_labels,
    help="NAME=VALUE on every series; may be repeated, or have several with commas.",
)
@_flag("web.listen-address", "address", "LISTEN_ADDRESS", type=ListenAddress(), default=":9113", show_default=True)
@_flag("web.telemetry-path", "path", "TELEMETRY_PATH", default="/metrics", show_default=True)
def nginx(
    uris: tuple[str, ...],
    timeout_s: float,
    verify: bool,
    ca_file: str | None,
    cert_file: str | None,
    key_file: str | None,
    labels: dict[str, str],
    address: tuple[str, int],
    path: str,
) -> None:
    """nginx' connections and requests, under the names of nginx-prometheus-exporter."""
    import logging

    from flyball.exporters.nginx import NginxExporter
    from flyball.http.client import client_tls

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    tls = client_tls(ca_file=ca_file, cert_file=cert_file, key_file=key_file, insecure_skip_verify=not verify)
    exporter = NginxExporter(uris, timeout_s, tls, labels)
    asyncio.run(_serve(exporter.app(path), *address, "nginx exporter"))


@command.command(
    "blackbox",
    context_settings=WITHOUT_EFFECT,
    epilog="Example: flyball exporter blackbox --web.listen-address :9115; "
    "curl 'localhost:9115/probe?target=example.com&module=http_2xx'",
)
@click.option(
    "--config.file", "file", type=click.Path(dir_okay=False, path_type=Path), help="[default: http_2xx alone]"
)
@click.option(
    "--timeout-offset", type=float, default=0.5, show_default=True, help="Taken off a scrape's time-out, in s."
)
@click.option("--web.listen-address", "address", type=ListenAddress(), default=":9115", show_default=True)
@click.pass_context
def blackbox(ctx: click.Context, file: Path | None, timeout_offset: float, address: tuple[str, int]) -> None:
    """Probes over HTTP, TCP and DNS, from a configuration of blackbox_exporter. POST /-/reload reads it anew."""
    import logging

    from flyball.exporters.blackbox.exporter import Blackbox

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    say_without_effect(ctx)
    exporter = Blackbox(file, timeout_offset_s=timeout_offset)
    asyncio.run(_serve(exporter.app(), *address, "blackbox exporter"))


async def _serve(app: Any, host: str, port: int, name: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await _listen(stack, app, host, port, name)
        click.echo(f"serving http://{host}:{server.port}/metrics", err=True)
        await asyncio.Event().wait()


async def _listen(stack: contextlib.AsyncExitStack, app: Any, host: str, port: int, name: str) -> Any:
    from flyball.http.server import serve

    server = await serve(app, host=host, port=port, allowed_hosts=None, name=name)
    stack.push_async_callback(server.close)
    return server


def _own_metrics() -> Any:
    """This process' metrics."""
    from prometheus_client import make_asgi_app

    return make_asgi_app()
