"""``flyball autoscaler``: Governors on any cluster."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click

from flyball.cli.options import default_data_dir
from flyball.errors import ConfigError
from flyball.stopping import told_to_stop


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    from flyball.model.durations import parse_duration_ms

    try:
        return parse_duration_ms(text) / 1000
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    "autoscaler", epilog="Example: flyball autoscaler --kubeconfig ~/.kube/config --journal /var/lib/flyball/journal.db"
)
@click.option("--kubeconfig", default=None, help="The cluster.  [default: the one we run in]")
@click.option(
    "--journal", type=click.Path(path_type=Path, dir_okay=False), help="[default: DATA/autoscaler/journal.db]"
)
@click.option("--act-on-hpas", is_flag=True, help="Act on HPAs too; only where the stock controller is off.")
@click.option(
    "--horizontal-pod-autoscaler-sync-period", "sync_period", callback=_seconds, default="15s", show_default=True
)
@click.option(
    "--horizontal-pod-autoscaler-downscale-stabilization",
    "stabilization",
    callback=_seconds,
    default="5m",
    show_default=True,
)
@click.option(
    "--horizontal-pod-autoscaler-tolerance", "tolerance", type=click.FloatRange(0), default=0.1, show_default=True
)
@click.option(
    "--horizontal-pod-autoscaler-cpu-initialization-period",
    "initialization",
    callback=_seconds,
    default="5m",
    show_default=True,
)
@click.option(
    "--horizontal-pod-autoscaler-initial-readiness-delay",
    "readiness",
    callback=_seconds,
    default="30s",
    show_default=True,
)
@click.option(
    "--kubernetes",
    "profile",
    type=click.Choice(["<=1.32", "1.33-1.36", "1.37"]),
    default="1.37",
    show_default=True,
    help="Whose arithmetic.",
)
@click.option("--leader-elect/--no-leader-elect", default=True, show_default=True)
@click.option("--lease", default="flyball-system/flyball-autoscaler", show_default=True, help="NAMESPACE/NAME.")
@click.option("--bind-address", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Of our HTTP API.")
@click.option("--token-file", type=click.Path(exists=True, path_type=Path), help="Bearer token that the API asks for.")
@click.option("--print-definition", is_flag=True, help="Print the CustomResourceDefinition of Governors and end.")
def command(**given: Any) -> None:
    """Act on Governors and observe HPAs, on any cluster, until SIGTERM.

    Every decision is journalled with its reasons and served over HTTP. HPAs are left to kube-controller-manager unless
    --act-on-hpas is given.
    """
    if given["print_definition"]:
        import yaml

        from flyball.autoscaler.definition import governor_definition

        click.echo(yaml.safe_dump(governor_definition(), sort_keys=False), nl=False)
        return
    namespace, slash, name = given["lease"].partition("/")
    if not (namespace and slash and name):
        raise ConfigError(f'--lease "{given["lease"]}" is not NAMESPACE/NAME')
    if given["bind_address"] not in ("127.0.0.1", "localhost", "::1") and not given["token_file"]:
        raise ConfigError("an API that is reachable from outside needs --token-file")
    from flyball.autoscaler.deployment import Flags, run

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    flags = Flags(
        kubeconfig=given["kubeconfig"],
        journal=given["journal"] or default_data_dir() / "autoscaler" / "journal.db",
        act_on_hpas=given["act_on_hpas"],
        sync_period_s=given["sync_period"],
        downscale_stabilization_s=int(given["stabilization"]),
        tolerance=given["tolerance"],
        cpu_initialization_period_s=int(given["initialization"]),
        initial_readiness_delay_s=int(given["readiness"]),
        profile=given["profile"],
        leader_elect=given["leader_elect"],
        lease=(namespace, name),
        bind_address=given["bind_address"],
        port=given["port"],
        token=given["token_file"].read_text().strip() if given["token_file"] else "",
    )

    async def main() -> None:
        stopping = told_to_stop()
        await run(flags, stopping, lambda port: click.echo(f"ready on port {port}"))

    asyncio.run(main())
