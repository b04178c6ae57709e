"""``flyball up``."""

import asyncio
import signal
import socket
from pathlib import Path

import click

from flyball.cli.options import data_dir_option, port_offset_option
from flyball.clock import monotonic_s
from flyball.errors import ConfigError
from flyball.supervisor import Supervisor, lock_data_dir

PORTS = {
    6443: "Kubernetes API",
    6444: "metrics APIs",
    9090: "Prometheus API",
    9093: "Alertmanager API",
    10249: "service proxy",
    10250: "node",
    10257: "controllers",
    10259: "scheduler",
}
SYNC_PERIOD_S = 5.0


def check_ports(port_offset: int) -> None:
    """Names the first port that is taken, before anything is started.

    Raises:
        ConfigError: a port is taken.
    """
    for port, part in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port + port_offset))
            except OSError as exc:
                raise ConfigError(
                    f"port {port + port_offset} ({part}) is not free ({exc.strerror}); "
                    "end the program that uses it, or move all ports with --port-offset N"
                ) from exc


def new_supervisor(
    data_dir: Path,
    port_offset: int,
    manifests: tuple[Path, ...] = (),
    sync_period_s: float = SYNC_PERIOD_S,
    nodes: int = 1,
    images: tuple[str, ...] = (),
) -> Supervisor:
    """The three processes, not yet started; progress goes to standard error."""
    supervisor = Supervisor(data_dir, lambda line: click.echo(f"flyball: {line}", err=True))
    shared = ["--data-dir", str(data_dir), "--port-offset", str(port_offset)]
    files = [argument for path in manifests for argument in ("--filename", str(path))]
    period = ["--horizontal-pod-autoscaler-sync-period", str(sync_period_s)]
    programs = [argument for image in images for argument in ("--image", image)]
    supervisor.add("control", [*shared, *period], files)
    supervisor.add("data", shared)
    supervisor.add("node", [*shared, "--nodes", str(nodes), *programs])
    return supervisor


@click.command("up", epilog="Example: flyball up -f examples/webapp/manifests")
@click.option(
    "-f",
    "--filename",
    "manifests",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A manifest or a directory of manifests to apply at start; may be repeated.",
)
@data_dir_option
@port_offset_option
@click.option(
    "--horizontal-pod-autoscaler-sync-period",
    "sync_period_s",
    type=click.FloatRange(1.0, 3600.0),
    default=SYNC_PERIOD_S,
    show_default=True,
    help="Seconds between evaluations of an HPA; kube-controller-manager's default is 15.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Nodes that share this machine: placement, taints and DaemonSets can be tried with several.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME=COMMAND",
    help="The program that stands for an image, since none is pulled; may be repeated.",
)
def command(
    manifests: tuple[Path, ...],
    data_dir: Path,
    port_offset: int,
    sync_period_s: float,
    nodes: int,
    images: tuple[str, ...],
) -> None:
    """Run the whole of Flyball on this machine, until Ctrl-C.

    An embedded Kubernetes API, the store, the metrics APIs, the autoscaler and a node whose pods are
    processes of this machine. State is kept in the data directory and found again at the next start.
    """
    files = tuple(path.absolute() for path in manifests)
    asyncio.run(_up(data_dir.absolute(), port_offset, files, sync_period_s, nodes, images))


async def _up(
    data_dir: Path,
    port_offset: int,
    manifests: tuple[Path, ...],
    sync_period_s: float,
    nodes: int,
    images: tuple[str, ...],
) -> None:
    started_s = monotonic_s()
    lock_data_dir(data_dir)
    check_ports(port_offset)
    supervisor = new_supervisor(data_dir, port_offset, manifests, sync_period_s, nodes, images)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await supervisor.start()
        click.echo(f"ready in {monotonic_s() - started_s:.1f} s")
        click.echo(f"  kubectl          export KUBECONFIG={data_dir / 'kubeconfig'}")
        click.echo(f"  Prometheus API   http://127.0.0.1:{9090 + port_offset}")
        click.echo(f"  Alertmanager API http://127.0.0.1:{9093 + port_offset}")
        click.echo("Ctrl-C stops everything; the data stays.")
        await stop.wait()
        click.echo("stopping ...", err=True)
    finally:
        await supervisor.stop()
