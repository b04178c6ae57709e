"""``flyball install``: the manifests of parts, for ``kubectl apply``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flyball.errors import ConfigError

Object = dict[str, Any]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_REPLICATED = frozenset({"replicas"})
#: Options that say something to a part, beyond those of every part.
OPTIONS: Mapping[str, frozenset[str]] = {
    "adapter": _REPLICATED | {"prometheus_url", "config", "described", "resource_metrics", "standalone"},
    "autoscaler": _REPLICATED,
    "operator": _REPLICATED,
    "server": frozenset({"config", "rules", "storage"}),
    "alertmanager": _REPLICATED | {"config", "storage"},
    "agent": frozenset({"config", "storage", "prometheus_url"}),
    "node-exporter": frozenset(),
    "kube-state-metrics": frozenset(),
    "blackbox-exporter": frozenset({"config"}),
}
#: Of every part, whether it is given or not.
COMMON = frozenset({"parts", "namespace", "image", "arguments"})
Given = Mapping[str, Any]


@click.command("install", epilog="Example: flyball install --config adapter.yaml | kubectl apply -f -")
@click.argument("parts", nargs=-1, metavar="[PART]...", type=click.Choice([*OPTIONS, "all"]))
@click.option("--namespace", help="[default: flyball-system; the node exporter and the agent have their own]")
@click.option("--image", help="The container image.  [default: this version's]")
@click.option("--replicas", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option(
    "--prometheus-url",
    default="http://prometheus-k8s.monitoring.svc:9090",
    show_default=True,
    help="Whom the adapter asks; where agents send to, at /api/v1/write.",
)
@click.option("--config", type=_FILE, help="The part's configuration: prometheus-adapter's file, prometheus.yml ...")
@click.option(
    "--described", multiple=True, metavar="RESOURCE[.GROUP]", help="Objects that metrics describe; repeat it."
)
@click.option("--resource-metrics", is_flag=True, help="Take metrics.k8s.io over as well (kubectl top).")
@click.option("--standalone", is_flag=True, help="Scrape the pods behind HPAs; no Prometheus is asked.")
@click.option("--rules", multiple=True, type=_FILE, help="A file of rules for the server; repeat it.")
@click.option("--storage", metavar="SIZE", help="Of the part's volume, such as 50Gi.")
@click.option("--argument", "arguments", multiple=True, metavar="FLAG", help="More for the part's command; repeat it.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Print what installs parts of Flyball on a cluster: all, or the adapter where none is named.

    Parts: adapter, autoscaler, operator, server, alertmanager, agent, node-exporter, kube-state-metrics,
    blackbox-exporter. Those that are named together find each other: the server has the alertmanager's addresses, the
    operator's jobs and what agents send, and the adapter asks the server.

    Permissions are those of the calls that a part makes. The adapter's APIServices carry no insecureSkipTLSVerify: it
    keeps an authority of its own in a Secret and writes it into their caBundle.
    """
    from flyball.kube.manifests import written

    parts: tuple[str, ...] = given["parts"] or ("adapter",)
    parts = tuple(OPTIONS) if "all" in parts else tuple(dict.fromkeys(parts))
    chosen = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if given["arguments"] and len(parts) > 1:
        raise ConfigError(f"--argument may mean {' or '.join(parts)}; print these parts one by one")
    for name in sorted(chosen - COMMON):
        owners = [part for part in parts if name in OPTIONS[part]]
        flag = f"--{name.replace('_', '-')}"
        if not owners:
            needed = " or ".join(part for part in OPTIONS if name in OPTIONS[part])
            raise ConfigError(f"{flag} belongs to {needed}; name that part, or leave it out")
        if name in ("config", "storage") and len(owners) > 1:
            raise ConfigError(f"{flag} may mean {' or '.join(owners)}; print these parts one by one")
    objects: list[Object] = []
    for part in parts:
        objects += [obj for obj in _BUILDERS[part](parts, given, chosen) if obj not in objects]
    click.echo(written(objects), nl=False)


def _common(own: Any, given: Given, **more: Any) -> Any:
    """An installation with what was chosen for every part; None leaves a default."""
    wanted = {"namespace": given["namespace"], "image": given["image"], "arguments": given["arguments"], **more}
    return replace(own, **{name: value for name, value in wanted.items() if value is not None})


def _text(file: Path | None) -> str | None:
    return None if file is None else file.read_text(encoding="utf-8")


def _adapter(parts: Sequence[str], given: Given, chosen: set[str]) -> list[Object]:
    from flyball.adapter.manifests import Installation, manifests

    config, standalone, url = _text(given["config"]), given["standalone"], given["prometheus_url"]
    if config is None and standalone:
        from flyball.adapter.standalone import STANDALONE_CONFIG as config  # noqa: N811
    if "server" in parts and "prometheus_url" not in chosen:
        url = _server_url(given)
    pairs = tuple((group, resource) for resource, _, group in (item.partition(".") for item in given["described"]))
    return manifests(
        _common(
            Installation(),
            given,
            replicas=given["replicas"],
            prometheus_url=url,
            config=config,
            described=pairs or None,
            resource_metrics=given["resource_metrics"],
            standalone=standalone,
        )
    )


def _server_url(given: Given) -> str:
    from flyball.servermanifests import PORT, Installation

    return f"http://{_common(Installation(), given).host}:{PORT}"


def _autoscaler(_parts: Sequence[str], given: Given, _chosen: set[str]) -> list[Object]:
    from flyball.autoscaler.manifests import Installation, manifests

    return manifests(_common(Installation(), given, replicas=given["replicas"]))


def _operator(_parts: Sequence[str], given: Given, _chosen: set[str]) -> list[Object]:
    from flyball.operator.manifests import Installation, manifests

    return manifests(_common(Installation(), given, replicas=given["replicas"]))


def _server(parts: Sequence[str], given: Given, chosen: set[str]) -> list[Object]:
    from flyball.servermanifests import ALERTING, CONFIG, KUBELETS, LATE, Installation, manifests

    config, agents = _text(given["config"]), "agent" in parts
    kubelets = config is not None or not agents
    if config is None:
        config = (LATE if agents else "") + CONFIG + (KUBELETS if kubelets else "")
        if "alertmanager" in parts:
            targets = ", ".join(f'"{target}"' for target in _alertmanagers(given, chosen).targets)
            config = ALERTING.format(alertmanagers=targets) + config
    rules = {file.name: file.read_text(encoding="utf-8") for file in given["rules"]}
    operator = "operator" in parts
    return manifests(
        _common(
            Installation(),
            given,
            config=config,
            rules=rules,
            storage=given["storage"],
            operator=operator,
            agents=agents,
            kubelets=kubelets,
        )
    )


def _alertmanager(_parts: Sequence[str], given: Given, chosen: set[str]) -> list[Object]:
    from flyball.alerting.manifests import manifests

    config, storage = _text(given["config"]), given["storage"]
    more = {name: value for name, value in (("config", config), ("storage", storage)) if value is not None}
    return manifests(replace(_alertmanagers(given, chosen), **more))


def _alertmanagers(given: Given, chosen: set[str]) -> Any:
    """Its installation: one replica unless more are asked for."""
    from flyball.alerting.manifests import Installation

    return _common(Installation(), given, replicas=given["replicas"] if "replicas" in chosen else None)


def _agent(parts: Sequence[str], given: Given, chosen: set[str]) -> list[Object]:
    from flyball.agentmanifests import CONFIG, Installation, manifests

    config, storage = _text(given["config"]), given["storage"]
    if config is None:
        to_server = "server" in parts and "prometheus_url" not in chosen
        url = _server_url(given) if to_server else given["prometheus_url"]
        config = CONFIG.format(url=f"{url.rstrip('/')}/api/v1/write")
    # beside others it keeps a namespace of its own: its pods are not for the restricted standard
    namespace = given["namespace"] if len(parts) == 1 else None
    figures = "node-exporter" not in parts
    return manifests(
        _common(Installation(), given, namespace=namespace, config=config, storage=storage, figures=figures)
    )


def _node_exporter(parts: Sequence[str], given: Given, _chosen: set[str]) -> list[Object]:
    from flyball.exporters.manifests import NODE, node_exporter

    # beside others it keeps a namespace of its own: its pods are not for the restricted standard
    return node_exporter(_common(NODE, given, namespace=given["namespace"] if len(parts) == 1 else None))


def _kube_state_metrics(_parts: Sequence[str], given: Given, _chosen: set[str]) -> list[Object]:
    from flyball.exporters.manifests import KUBE_STATE, kube_state_metrics

    return kube_state_metrics(_common(KUBE_STATE, given))


def _blackbox_exporter(_parts: Sequence[str], given: Given, _chosen: set[str]) -> list[Object]:
    from flyball.exporters.manifests import BlackboxInstallation, blackbox_exporter

    return blackbox_exporter(_common(BlackboxInstallation(), given, config=_text(given["config"])))


_BUILDERS: Mapping[str, Callable[[Sequence[str], Given, set[str]], list[Object]]] = {
    "adapter": _adapter,
    "autoscaler": _autoscaler,
    "operator": _operator,
    "server": _server,
    "alertmanager": _alertmanager,
    "agent": _agent,
    "node-exporter": _node_exporter,
    "kube-state-metrics": _kube_state_metrics,
    "blackbox-exporter": _blackbox_exporter,
}
