"""``flyball scale``: a person's number, by a Governor's override."""

import asyncio
from pathlib import Path

import click

from flyball.cli.options import data_dir_option
from flyball.errors import ConfigError, KubeApiError


@click.command("scale", epilog="Example: flyball scale web --replicas 12 --for 2h")
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--replicas", type=click.IntRange(0, (1 << 31) - 1), help="Hold this many.")
@click.option("--for", "duration", default="", help="Until then, such as 30m or 2h.  [default: until --auto]")
@click.option("--auto", is_flag=True, help="End the override: the Governor decides again.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), default=None, help="[default: the embedded cluster's]")
@data_dir_option
def command(
    name: str, namespace: str, replicas: int | None, duration: str, auto: bool, kubeconfig: Path | None, data_dir: Path
) -> None:
    """Override the Governor NAME, or end its override."""
    from flyball import clock
    from flyball.model.durations import parse_duration_ms

    if auto == (replicas is not None):
        raise ConfigError("say either --replicas N or --auto")
    override: dict[str, object] | None = None
    if replicas is not None:
        override = {"replicas": replicas}
        if duration:
            override["until"] = clock.rfc3339(clock.now_ms() + parse_duration_ms(duration))
    asyncio.run(_patch(kubeconfig or data_dir / "kubeconfig", namespace, name, override))
    if override is None:
        click.echo(f"governor {namespace}/{name} decides again")
    else:
        until = f" until {override['until']}" if "until" in override else "; end it with --auto"
        click.echo(f"governor {namespace}/{name} holds {replicas} replicas{until}")


async def _patch(kubeconfig: Path, namespace: str, name: str, override: dict[str, object] | None) -> None:
    from flyball.kube import KubeClient
    from flyball.kube.kinds import GOVERNORS

    client = await KubeClient.from_kubeconfig(kubeconfig)
    try:
        await client.patch(GOVERNORS, name, {"spec": {"override": override}}, namespace)
    except KubeApiError as error:
        if error.code == 404:
            raise ConfigError(f'no Governor "{namespace}/{name}"; make one of an HPA with flyball convert') from error
        raise
    finally:
        await client.close()
