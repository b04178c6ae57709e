"""``flyball operator``: monitoring objects into configuration, on any cluster; and what they become, printed."""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import ListenAddress
from flyball.stopping import told_to_stop

if TYPE_CHECKING:
    from flyball.kube import KubeClient
    from flyball.operator import Generated

Objects = dict[str, list[dict[str, Any]]]


class _Operator(click.Group):
    """Takes prometheus-operator's flags (``--name=value``), most of which say nothing here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for parameter in self.params for name in parameter.opts} | {"-h", "--help"}
        if not any(word in self.commands for word in args):
            ctx.meta["ignored"] = [w for w in args if w.startswith("-") and "=" in w and w.partition("=")[0] not in own]
            args = [word for word in args if word not in ctx.meta["ignored"]]
        return super().parse_args(ctx, args)


@click.group(
    "operator",
    cls=_Operator,
    invoke_without_command=True,
    epilog="Example: flyball operator render -f monitors/",
)
@click.option("--kubeconfig", default=None, help="The cluster.  [default: the one we run in]")
@click.option("--lease", default="flyball-system/flyball-operator", show_default=True, help="NAMESPACE/NAME.")
@click.option("--web.listen-address", "address", type=ListenAddress(), default=":8080", show_default=True)
@click.option("--observe", is_flag=True, help="Write nothing; only show on /metrics what would be done.")
@click.pass_context
def command(ctx: click.Context, kubeconfig: str | None, lease: str, address: tuple[str, int], observe: bool) -> None:
    """Turn ServiceMonitors, PodMonitors, Probes, ScrapeConfigs and PrometheusRules into configuration, until SIGTERM.

    It is written to the Secret flyball-scrape-config and to ConfigMaps beside it, in the namespace of the lease, where
    flyball server --operator-namespace reads it. One of several replicas acts.
    """
    if ctx.invoked_subcommand is None:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        if ctx.meta["ignored"]:
            names = " ".join(word.partition("=")[0] for word in ctx.meta["ignored"])
            logging.getLogger("flyball").info("flags_without_effect %s", names)
        asyncio.run(_run(kubeconfig, lease, address, observe))


async def _run(kubeconfig: str | None, lease: str, address: tuple[str, int], observe: bool) -> None:
    import os
    import socket

    from flyball.errors import ConfigError
    from flyball.http.server import serve
    from flyball.kube import KubeClient
    from flyball.kube.leases import LeaderElection
    from flyball.operator import Operator
    from flyball.operator.telemetry import Telemetry

    namespace, slash, name = lease.partition("/")
    if not (namespace and slash and name):
        raise ConfigError(f'--lease "{lease}" is not NAMESPACE/NAME')
    stopping = told_to_stop()
    async with await KubeClient.from_environment(kubeconfig) as client:
        election = LeaderElection(client, namespace, name, f"{socket.gethostname()}_{os.getpid()}")
        operator = Operator(client, leads=(lambda: False) if observe else election.leads, namespace=namespace)
        host, port = address
        app = Telemetry(operator.statistics).app()
        server = await serve(app, host=host, port=port, allowed_hosts=None, name="operator")
        parts = [operator.run(), *([] if observe else [election.run()])]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in parts]
                await stopping.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await server.close()


@command.command(
    "render", epilog="Example: flyball operator render servicemonitor/shop/web --kubeconfig ~/.kube/config"
)
@click.argument("name", required=False)
@click.option(
    "-f", "files", multiple=True, type=click.Path(exists=True, path_type=Path), help="Manifests, in place of a cluster."
)
@click.option("--kubeconfig", default=None, help="The cluster.  [default: the current one]")
@click.option("--context", default=None)
@click.option("-o", "output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def render(name: str | None, files: tuple[Path, ...], kubeconfig: str | None, context: str | None, output: str) -> None:
    """Print the configuration that monitoring objects become, and say what is left out, and why.

    With a NAME (kind/namespace/name) that object's jobs alone, and whether they find any target. The exit code is 1
    when an object is refused.
    """
    import yaml

    from flyball.errors import ConfigError
    from flyball.operator import generate
    from flyball.web.status import hidden_secrets

    objects, assets = _from_files(files) if files else asyncio.run(_from_cluster(kubeconfig, context))
    namespaces = {obj["metadata"]["name"]: obj["metadata"].get("labels") or {} for obj in objects.get("Namespace", ())}
    generated = generate(objects, namespaces, assets)
    config: Mapping[str, Any] = generated.config
    lines = _left_out(generated)
    if name is not None:
        kind, _, rest = name.partition("/")
        wanted = [
            obj
            for known, items in objects.items()
            if known.lower() == kind.lower()
            for obj in items
            if f"{obj['metadata'].get('namespace')}/{obj['metadata']['name']}" == rest
        ]
        if not wanted:
            raise ConfigError(f'there is no "{name}"; write it as servicemonitor/NAMESPACE/NAME')
        own = f"/{rest}"
        config = {"scrape_configs": [job for job in config["scrape_configs"] if own in job["job_name"]]}
        lines = [line for line in lines if rest in line] + _targets(wanted[0], objects)
    for line in lines:
        click.echo(line, err=True)
    text = json.dumps(hidden_secrets(config), indent=2)
    # rules that jobs share would be written as aliases
    click.echo(text if output == "json" else yaml.safe_dump(json.loads(text), sort_keys=False).rstrip())
    sys.exit(1 if generated.refused else 0)


def _left_out(generated: "Generated") -> list[str]:
    refused = [f"refused: {why}" for _, why in sorted(generated.refused.items())]
    unselected = sorted(generated.unselected.items())
    return refused + [f"not selected: {kind} {namespace}/{name}: {why}" for (kind, namespace, name), why in unselected]


def _targets(obj: Mapping[str, Any], objects: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    from flyball.operator.explain import why_no_targets

    if obj.get("kind") not in ("ServiceMonitor", "PodMonitor") or not (objects.get("Service") or objects.get("Pod")):
        return []
    return [f"targets: {line}" for line in why_no_targets(obj, objects)]


def _from_files(files: Sequence[Path]) -> tuple[Objects, Any]:
    from flyball.kube.applying import read_manifests
    from flyball.operator.assets import ReadAssets

    objects: Objects = {}
    for path in files:
        for _, obj in read_manifests(path):
            if isinstance(obj, Exception):
                raise obj
            obj["metadata"].setdefault("namespace", "default")
            objects.setdefault(obj["kind"], []).append(obj)

    def data(kind: str) -> dict[tuple[str, str], Mapping[str, str] | None]:
        return {(o["metadata"]["namespace"], o["metadata"]["name"]): o.get("data") or {} for o in objects.get(kind, ())}

    return objects, ReadAssets(data("Secret"), data("ConfigMap"))


async def _from_cluster(kubeconfig: str | None, context: str | None) -> tuple[Objects, Any]:
    from flyball.errors import KubeApiError
    from flyball.kube import KubeClient
    from flyball.kube.kinds import ENDPOINT_SLICES, NAMESPACES, PODS, SERVICES
    from flyball.operator.controller import WATCHED, read_assets

    async def listed(client: "KubeClient", kind: Any) -> list[dict[str, Any]]:
        try:
            return [{"kind": kind.kind, **obj} for obj in await client.list(kind)]
        except KubeApiError as exc:
            if exc.code != 404:  # the definition is not installed
                raise
            return []

    async with await KubeClient.from_kubeconfig(kubeconfig, context) as client:
        kinds = (*WATCHED, NAMESPACES, SERVICES, ENDPOINT_SLICES, PODS)
        objects = {kind.kind: await listed(client, kind) for kind in kinds}
        return objects, await read_assets(client, {kind.kind: objects[kind.kind] for kind in WATCHED})
