"""``flyball install``: the manifests of a part, for ``kubectl apply``."""

from pathlib import Path

import click


@click.command("install", epilog="Example: flyball install --config adapter.yaml | kubectl apply -f -")
@click.argument("part", type=click.Choice(["adapter"]), default="adapter", expose_value=False)
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
def command(
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

    Permissions are those of the calls that the part makes. The APIServices carry no insecureSkipTLSVerify: the adapter
    keeps an authority of its own in a Secret and writes it into their caBundle.
    """
    import yaml

    from flyball.adapter.manifests import Installation, manifests

    base = Installation()
    text = base.config
    if config is not None:
        text = config.read_text(encoding="utf-8")
    elif standalone:
        from flyball.adapter.standalone import STANDALONE_CONFIG

        text = STANDALONE_CONFIG
    pairs = tuple((group, resource) for resource, _, group in (item.partition(".") for item in described))
    chosen = Installation(
        namespace=namespace,
        image=image or base.image,
        replicas=replicas,
        prometheus_url=prometheus_url,
        config=text,
        described=pairs or base.described,
        resource_metrics=resource_metrics,
        standalone=standalone,
    )
    click.echo(yaml.safe_dump_all(manifests(chosen), sort_keys=False, width=1000), nl=False)
