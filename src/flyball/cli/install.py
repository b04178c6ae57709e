"""``flyball install``: the manifests of a part, for ``kubectl apply``."""

import json
from pathlib import Path

import click
from click.core import ParameterSource

from flyball.errors import ConfigError

#: Options that say something to every part.
COMMON = frozenset({"part", "namespace", "image", "replicas"})


@click.command("install", epilog="Example: flyball install --config adapter.yaml | kubectl apply -f -")
@click.argument("part", type=click.Choice(["adapter", "autoscaler"]), default="adapter")
@click.option("--namespace", default="flyball-system", show_default=True)
@click.option("--image", help="The container image.  [default: this version's]")
@click.option("--replicas", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option("--prometheus-url", default="http://prometheus-k8s.monitoring.svc:9090", show_default=True)
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="prometheus-adapter's file."
)
@click.option(
    "--described", multiple=True, metavar="RESOURCE[.GROUP]", help="Objects that metrics describe; repeat it."
)
@click.option("--resource-metrics", is_flag=True, help="Take metrics.k8s.io over as well (kubectl top).")
@click.option("--standalone", is_flag=True, help="Scrape the pods behind HPAs; no Prometheus is asked.")
@click.pass_context
def command(
    ctx: click.Context,
    part: str,
    namespace: str,
    image: str | None,
    replicas: int,
    prometheus_url: str,
    config: Path | None,
    described: tuple[str, ...],
    resource_metrics: bool,
    standalone: bool,
) -> None:
    """Print what installs a part of Flyball on a cluster.

    Permissions are those of the calls that the part makes. The adapter's APIServices carry no insecureSkipTLSVerify: it
    keeps an authority of its own in a Secret and writes it into their caBundle.
    """
    import yaml

    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if part == "autoscaler":
        from flyball.autoscaler import manifests as autoscaler

        if foreign := [name for name in given if name not in COMMON]:
            raise ConfigError(f"--{foreign[0].replace('_', '-')} belongs to the adapter; leave it out")
        base = autoscaler.Installation()
        objects = autoscaler.manifests(autoscaler.Installation(namespace, base.name, image or base.image, replicas))
    else:
        from flyball.adapter import manifests as adapter

        own = adapter.Installation()
        pairs = tuple((group, resource) for resource, _, group in (item.partition(".") for item in described))
        objects = adapter.manifests(
            adapter.Installation(
                namespace=namespace,
                image=image or own.image,
                replicas=replicas,
                prometheus_url=prometheus_url,
                config=_adapter_config(config, standalone=standalone) or own.config,
                described=pairs or own.described,
                resource_metrics=resource_metrics,
                standalone=standalone,
            )
        )
    plain = json.loads(json.dumps(objects))  # shared parts would be written as aliases, which our own loader refuses
    click.echo(yaml.safe_dump_all(plain, sort_keys=False, width=1000), nl=False)


def _adapter_config(file: Path | None, *, standalone: bool) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8")
    if not standalone:
        return ""
    from flyball.adapter.standalone import STANDALONE_CONFIG

    return STANDALONE_CONFIG
