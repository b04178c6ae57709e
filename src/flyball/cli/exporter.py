"""``flyball exporter``."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flyball.cli.options import ListenAddress


@click.group("exporter", epilog="Example: flyball exporter kube-state --port 8080")
def command() -> None:
    """Run one exporter alone."""


@command.command("kube-state", epilog="Example: flyball exporter kube-state --context prod --resources pods,nodes")
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="As kubectl's.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--resources", default="", metavar="LIST", help="Plural names, with commas; default: all.")
@click.option("--namespace", default="", help="Only this namespace.")
def kube_state(
    kubeconfig: Path | None, context: str | None, host: str, port: int, resources: str, namespace: str
) -> None:
    """The state of a cluster's objects, under the names of kube-state-metrics. Secrets are not read."""
    asyncio.run(_kube_state(kubeconfig, context, host, port, resources, namespace))


async def _kube_state(
    kubeconfig: Path | None, context: str | None, host: str, port: int, resources: str, namespace: str
) -> None:
    from flyball.exporters.kubestate.exporter import KubeState
    from flyball.http.server import serve
    from flyball.kube import KubeClient

    chosen = [one.strip() for one in resources.split(",") if one.strip()]
    async with await KubeClient.from_kubeconfig(kubeconfig, context=context) as client:
        exporter = KubeState(client, resources=chosen, namespace=namespace)
        server = await serve(exporter.app(), host=host, port=port, allowed_hosts=None, name="kube-state exporter")
        try:
            click.echo(f"serving http://{host}:{server.port}/metrics", err=True)
            await exporter.run()
        finally:
            await server.close()


@command.command("node", epilog="Example: flyball exporter node --port 9100")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=9100, show_default=True)
@click.option("--path.procfs", "procfs", type=click.Path(path_type=Path), default="/proc", show_default=True)
@click.option("--path.sysfs", "sysfs", type=click.Path(path_type=Path), default="/sys", show_default=True)
@click.option("--path.rootfs", "rootfs", type=click.Path(path_type=Path), default="/", show_default=True)
@click.option("--collector.textfile.directory", "textfile", type=click.Path(path_type=Path), help="Of *.prom files.")
@click.option("--collect", "only", multiple=True, metavar="NAME", help="Only this collector; may be repeated.")
@click.option("--no-collect", "without", multiple=True, metavar="NAME", help="Not this collector; may be repeated.")
def node(
    host: str,
    port: int,
    procfs: Path,
    sysfs: Path,
    rootfs: Path,
    textfile: Path | None,
    only: tuple[str, ...],
    without: tuple[str, ...],
) -> None:
    """This machine's metrics, under the names of node_exporter."""
    from flyball.exporters.node import NodeExporter, Paths

    exporter = NodeExporter(Paths(procfs, sysfs, rootfs, textfile), only, without)
    asyncio.run(_serve(exporter.app(), host, port, "node exporter"))


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


async def _serve(app: Any, host: str, port: int, name: str) -> None:
    from flyball.http.server import serve

    server = await serve(app, host=host, port=port, allowed_hosts=None, name=name)
    try:
        click.echo(f"serving http://{host}:{server.port}/metrics", err=True)
        await asyncio.Event().wait()
    finally:
        await server.close()
