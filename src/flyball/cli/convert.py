"""``flyball convert``: HPAs as Governors."""

import copy
from pathlib import Path
from typing import Any

import click
import yaml

from flyball.errors import ConfigError


@click.command("convert", epilog="Example: flyball convert hpa.yaml --profile fast --shadow | kubectl apply -f -")
@click.argument("manifests", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--profile", type=click.Choice(["parity", "fast"]), default="parity", show_default=True)
@click.option("--shadow", is_flag=True, help="Decide and record beside the HPA without acting.")
def command(manifests: tuple[Path, ...], profile: str, shadow: bool) -> None:
    """Print each HorizontalPodAutoscaler (autoscaling/v2) of the manifests as a Governor."""
    from flyball.kube.applying import read_manifests

    found = []
    for path in manifests:
        for where, obj in read_manifests(path):
            if isinstance(obj, ConfigError):
                raise obj
            if obj["kind"] == "HorizontalPodAutoscaler":
                found.append(governor_of(obj, where, profile, shadow))
    if not found:
        raise ConfigError(f"no HorizontalPodAutoscaler in {', '.join(map(str, manifests))}; name its manifest")
    click.echo(yaml.safe_dump_all(found, sort_keys=False), nl=False)


def governor_of(hpa: dict[str, Any], where: str, profile: str, shadow: bool) -> dict[str, Any]:
    """The Governor that means the same.

    Raises:
        ConfigError: not autoscaling/v2, a field that no API server would take, or a spec that cannot be decided upon.
    """
    from flyball.autoscaler.definition import governor_definition
    from flyball.kube.kinds import GOVERNORS
    from flyball.localcluster.schema.structural import unknown_fields, validate
    from flyball.scaling.governor import governor_from_object

    if hpa.get("apiVersion") != "autoscaling/v2":
        name = hpa["metadata"]["name"]
        raise ConfigError(
            f"{where}: HPA {name} is {hpa.get('apiVersion')}; get it as v2: kubectl get hpa.v2.autoscaling"
        )
    meta = {key: value for key, value in hpa["metadata"].items() if key in ("name", "namespace", "labels")}
    spec = copy.deepcopy(hpa.get("spec") or {})
    if profile != "parity":
        spec["profile"] = profile
    if shadow:
        spec["shadow"] = True
    governor = {"apiVersion": GOVERNORS.api_version, "kind": GOVERNORS.kind, "metadata": meta, "spec": spec}
    schema = governor_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    problems = unknown_fields(schema, governor) or [cause.message for cause in validate(schema, governor)]
    if problems:
        raise ConfigError(f"{where}: HPA {meta.get('name')}: {'; '.join(problems)}")
    try:
        governor_from_object(governor)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return governor
