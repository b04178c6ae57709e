"""Everything that the monitoring objects of a cluster become, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyball.errors import ConfigError
from flyball.model.scrapeconfigs import parse_global, parse_scrape_config
from flyball.operator.assets import Assets
from flyball.operator.clientconfig import Document
from flyball.operator.config import ADDITIONAL, JOBS, document
from flyball.operator.prometheus import IMPLIED, Prometheus
from flyball.operator.rules import rule_file
from flyball.operator.selection import why_not

Key = tuple[str, str, str]
"""Kind, namespace and name."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One engine's configuration, whichever Prometheus objects it stands for.

    Attributes:
        config: prometheus.yml.
        rule_files: name and text.
        owners: the Prometheus object that took each object.
        refused: why an object is left out although it was selected.
        unselected: why no Prometheus object selects an object.
    """

    config: Document
    rule_files: Sequence[tuple[str, str]] = ()
    owners: Mapping[Key, Prometheus] = field(default_factory=dict)
    refused: Mapping[Key, str] = field(default_factory=dict)
    unselected: Mapping[Key, str] = field(default_factory=dict)


def generate(
    objects: Mapping[str, Sequence[Mapping[str, Any]]], namespaces: Mapping[str, Mapping[str, str]], assets: Assets
) -> Generated:
    """What all Prometheus objects want, for one engine that serves them all.

    An object that several select is taken once, for the first of them by name; the first one's global section holds.

    Args:
        objects: by kind; without a Prometheus every monitor and rule is taken.
        namespaces: the labels of every namespace.
    """
    owners: dict[Key, Prometheus] = {}
    refused: dict[Key, str] = {}
    unselected: dict[Key, str] = {}
    served = _served(objects.get("Prometheus") or [IMPLIED], refused)
    jobs: dict[Prometheus, list[Document]] = {prometheus: [] for prometheus in served}
    rule_files = []
    for kind in (*JOBS, "PrometheusRule"):
        for obj in sorted(objects.get(kind) or (), key=key_of):
            key = key_of({"kind": kind, **obj})
            try:
                reasons = [why_not(prometheus, kind, obj, namespaces) for prometheus in served]
                if all(reasons):
                    unselected[key] = "; ".join(reasons) or "no Prometheus object is usable"
                    continue
                owner = served[reasons.index("")]
                if kind == "PrometheusRule":
                    rule_files.append(rule_file(obj, owner.enforced_label({"kind": kind, **obj})))
                else:
                    found = JOBS[kind](owner, {"kind": kind, **obj}, assets)
                    for job in found:
                        _check(job, f"{kind} {key[1]}/{key[2]}")
                    jobs[owner] += found
                owners[key] = owner
            except ConfigError as exc:
                refused[key] = str(exc)
            except (TypeError, AttributeError, ValueError) as exc:  # a field of another type than it must be
                refused[key] = f"{kind} {key[1]}/{key[2]}: {exc}"
    config: Document = {"scrape_configs": []}
    for prometheus in served:
        key = key_of(prometheus.obj)
        try:
            own = document(prometheus, jobs[prometheus], assets, additional=_additional(prometheus, assets))
            labels = own["global"]["external_labels"]
            own["global"]["external_labels"] = {
                label: value.replace("$(POD_NAME)", f"prometheus-{prometheus.name}-0")
                for label, value in labels.items()
            }
            parse_global(own["global"])
            config = {**own, **config, "scrape_configs": config["scrape_configs"] + own["scrape_configs"]}
        except (ConfigError, TypeError, AttributeError, ValueError) as exc:
            refused[key] = str(exc)
            config["scrape_configs"] += jobs[prometheus]
    return Generated(config, rule_files, owners, refused, unselected)


def key_of(obj: Mapping[str, Any]) -> Key:
    metadata = obj.get("metadata") or {}
    return str(obj.get("kind", "")), str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _check(job: Document, where: str) -> None:
    """What the engine would refuse is told to the object's owner."""
    try:
        parse_scrape_config(job)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _served(objects: Sequence[Mapping[str, Any]], refused: dict[Key, str]) -> list[Prometheus]:
    found = []
    for obj in sorted(objects, key=key_of):
        try:
            found.append(Prometheus({"kind": "Prometheus", **obj}))
        except (ConfigError, TypeError, AttributeError, ValueError) as exc:
            refused[key_of({"kind": "Prometheus", **obj})] = str(exc)
    return found


def _additional(prometheus: Prometheus, assets: Assets) -> dict[str, str]:
    """The texts of the Secrets that hold configuration in Prometheus' own words."""
    found = {}
    for field_name in ADDITIONAL:
        if prometheus.spec.get(field_name):
            try:
                found[field_name] = assets.secret(prometheus.namespace, prometheus.spec[field_name])
            except ConfigError as exc:
                raise ConfigError(f"{prometheus}: spec.{field_name}: {exc}") from exc
    return found
