"""``flyball process``: one of the three processes; started by ``flyball up``, not by people."""

from pathlib import Path

import click

from flyball.cli.options import data_dir_option, port_offset_option
from flyball.memory import look_for_cycles_rarely


@click.command("process", hidden=True)
@click.argument("name", type=click.Choice(["control", "data", "node"]))
@data_dir_option
@port_offset_option
@click.option("--horizontal-pod-autoscaler-sync-period", "sync_period_s", type=float, default=5.0)
@click.option("--nodes", type=int, default=1)
@click.option("--image", "images", multiple=True)
@click.option("-f", "--filename", "manifests", type=click.Path(path_type=Path), multiple=True)
def command(
    name: str,
    data_dir: Path,
    port_offset: int,
    sync_period_s: float,
    nodes: int,
    images: tuple[str, ...],
    manifests: tuple[Path, ...],
) -> None:
    """Run one process of the embedded cluster."""
    import flyball.app as app

    look_for_cycles_rarely()
    app.run_process(name, app.Settings(data_dir.absolute(), port_offset, sync_period_s, manifests, nodes, images))
