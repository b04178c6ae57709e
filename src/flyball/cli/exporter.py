"""``flyball exporter``."""

import asyncio
from pathlib import Path
from typing import Any

import click


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


async def _serve(app: Any, host: str, port: int, name: str) -> None:
    from flyball.http.server import serve

    server = await serve(app, host=host, port=port, allowed_hosts=None, name=name)
    try:
        click.echo(f"serving http://{host}:{server.port}/metrics", err=True)
        await asyncio.Event().wait()
    finally:
        await server.close()
