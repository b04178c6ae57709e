"""``flyball doctor``: walks from the pods to the scale and names the first broken link. Read-only, HTTP APIs alone."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from flyball.cli import PLUGIN
from flyball.cli.chain import Chain, Diagnosis, Finding, Prometheus
from flyball.cli.options import data_dir_option, output_option
from flyball.errors import FlyballError, KubeApiError, UpstreamError


@click.group("doctor", invoke_without_command=True, epilog="Example: flyball doctor hpa webapp -n default")
@click.option("--context", "context_name", default=None, help="Context of the kubeconfig.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), default=None, help="[default: the embedded cluster's]")
@click.option("--prometheus", "prometheus_url", default=None, help="[default: http://127.0.0.1:9090]")
@data_dir_option
@output_option
@click.pass_context
def command(
    ctx: click.Context,
    context_name: str | None,
    kubeconfig: Path | None,
    prometheus_url: str | None,
    data_dir: Path,
    output: str,
) -> None:
    """Find the first broken link from a pod's metric to its replicas.

    Walks pod, exporter, scrape, series, rule, metrics API, HPA and scale, for every HPA or the one named.
    Reads only; works on any cluster that the kubeconfig reaches. Exits 1 when a link is broken.
    """
    if kubeconfig is None and context_name is None and ctx.find_root().info_name != PLUGIN:
        embedded = data_dir / "kubeconfig"
        kubeconfig = embedded if embedded.is_file() else None
    ctx.obj = {
        "kubeconfig": kubeconfig,
        "context": context_name,
        "prometheus": (prometheus_url or "http://127.0.0.1:9090").rstrip("/"),
        "output": output,
    }
    if ctx.invoked_subcommand is None:
        _run(ctx.obj, None, None)


@command.command("hpa", epilog="Example: flyball doctor hpa webapp -n default")
@click.argument("name")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.pass_context
def hpa(ctx: click.Context, name: str, namespace: str) -> None:
    """Walk the chain of one HPA."""
    _run(ctx.obj, namespace, name)


def _run(settings: dict[str, Any], namespace: str | None, name: str | None) -> None:
    diagnoses = asyncio.run(_diagnose_all(settings, namespace, name))
    if settings["output"] == "json":
        report = [
            {"hpa": d.hpa, "ok": d.broken is None, "findings": [asdict(f) for f in d.findings]} for d in diagnoses
        ]
        click.echo(json.dumps(report, indent=2))
    else:
        _print(diagnoses)
    if any(d.broken for d in diagnoses):
        raise SystemExit(1)


def _print(diagnoses: list[Diagnosis]) -> None:
    marks = {True: click.style("ok     ", fg="green"), False: click.style("BROKEN ", fg="red"), None: "unknown"}
    for diagnosis in diagnoses:
        click.echo(diagnosis.hpa)
        for finding in diagnosis.findings:
            click.echo(f"  {marks[finding.ok]} {finding.link:<12} {finding.what}")
        broken = diagnosis.broken
        if broken:
            click.echo(f"  first broken link: {broken.link}")
            click.echo(f"  remedy: {broken.remedy}")
    if not diagnoses:
        click.echo("there is no HorizontalPodAutoscaler; apply one")


async def _diagnose_all(settings: dict[str, Any], namespace: str | None, name: str | None) -> list[Diagnosis]:
    from flyball.kube import KubeClient, kinds

    label = f"hpa {namespace}/{name}" if name else "the cluster"
    try:
        client = await KubeClient.from_kubeconfig(settings["kubeconfig"], settings["context"])
    except FlyballError as exc:
        remedy = "start flyball up, or name a kubeconfig with --kubeconfig"
        return [Diagnosis(label, [Finding("kubernetes", False, str(exc), remedy)])]
    prometheus = Prometheus(settings["prometheus"])
    try:
        try:
            if name is None:
                hpas = await client.list(kinds.HPAS_V2)
            else:
                hpas = [await client.get(kinds.HPAS_V2, name, namespace)]
        except KubeApiError as exc:
            if exc.code == 404:
                remedy = "check the name and the namespace (-n); kubectl get hpa -A lists them"
                return [Diagnosis(label, [Finding("hpa", False, str(exc), remedy)])]
            return [Diagnosis(label, [Finding("kubernetes", False, str(exc), "check the rights of this kubeconfig")])]
        except UpstreamError as exc:
            remedy = "start the cluster (flyball up), or choose another with --context"
            return [Diagnosis(label, [Finding("kubernetes", False, str(exc), remedy)])]
        return [await Chain(client, prometheus, one).walk() for one in hpas]
    finally:
        await prometheus.close()
        await client.close()
