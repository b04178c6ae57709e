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


class Memo:
    """What each monitor became for its owner, while both are the same versions and it reads the same from assets."""

    def __init__(self) -> None:
        self._known: dict[Key, _Made] = {}
        self._now: dict[Key, _Made] = {}

    def jobs(self, owner: Prometheus, obj: Mapping[str, Any], assets: Assets) -> list[Document]:
        """Of a monitor, with its kind.

        Raises:
            ConfigError: it cannot be used, as it is.
        """
        key, versions = key_of(obj), (_version(obj), _version(owner.obj))
        made = self._known.get(key)
        if made is None or None in versions or made.versions != versions or not made.reads_the_same(assets):
            read = _Read(assets)
            found: list[Document] = []
            error = ""
            try:
                found = _jobs(owner, obj, read)
            except ConfigError as exc:
                error = str(exc)
            made = _Made(versions, tuple(read.answers), found, error)
        self._now[key] = made
        if made.error:
            raise ConfigError(made.error)
        return made.jobs

    def swept(self) -> None:
        """All objects had their turn: what is not there any more is forgotten."""
        self._known, self._now = self._now, {}


_Version = tuple[str, str] | None
_Answer = tuple[str, tuple[Any, ...], Any]


@dataclass(frozen=True, slots=True)
class _Made:
    versions: tuple[_Version, _Version]
    answers: tuple[_Answer, ...]
    jobs: list[Document]
    error: str

    def reads_the_same(self, assets: Assets) -> bool:
        read = _Read(assets)
        return all(read.answer(method, arguments) == answer for method, arguments, answer in self.answers)


class _Read:
    """Assets that note what they were asked, and what they answered."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self.answers: list[_Answer] = []

    def answer(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """The value, or the text of the error in a tuple of one."""
        try:
            return getattr(self._assets, method)(*arguments)
        except ConfigError as exc:
            return (str(exc),)

    def _noted(self, method: str, *arguments: Any) -> Any:
        answer = self.answer(method, arguments)
        self.answers.append((method, arguments, answer))
        if isinstance(answer, tuple) and len(answer) == 1:
            raise ConfigError(answer[0])
        return answer

    def secret(self, namespace: str, selector: Mapping[str, Any]) -> str:
        return str(self._noted("secret", namespace, selector))

    def secret_or_config_map(self, namespace: str, reference: Mapping[str, Any]) -> str:
        return str(self._noted("secret_or_config_map", namespace, reference))

    def tls(self, field: str, namespace: str, reference: Mapping[str, Any]) -> tuple[str, str]:
        found: tuple[str, str] = self._noted("tls", field, namespace, reference)
        return found


def _version(obj: Mapping[str, Any]) -> _Version:
    """What changes with the object; None when that cannot be told."""
    metadata = obj.get("metadata") or {}
    version = metadata.get("resourceVersion")
    return (str(metadata.get("uid", "")), str(version)) if version or obj is IMPLIED else None


def _jobs(owner: Prometheus, obj: Mapping[str, Any], assets: Assets) -> list[Document]:
    kind, namespace, name = key_of(obj)
    found = JOBS[kind](owner, obj, assets)
    for job in found:
        _check(job, f"{kind} {namespace}/{name}")
    return found


def generate(
    objects: Mapping[str, Sequence[Mapping[str, Any]]],
    namespaces: Mapping[str, Mapping[str, str]],
    assets: Assets,
    memo: Memo | None = None,
) -> Generated:
    """What all Prometheus objects want, for one engine that serves them all.

    An object that several select is taken once, for the first of them by name; the first one's global section holds.

    Args:
        objects: by kind; without a Prometheus every monitor and rule is taken.
        namespaces: the labels of every namespace.
        memo: of the time before; its documents are shared, so they must not be changed.
    """
    memo = memo or Memo()
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
                    jobs[owner] += memo.jobs(owner, {**obj, "kind": kind}, assets)
                owners[key] = owner
            except ConfigError as exc:
                refused[key] = str(exc)
            except (TypeError, AttributeError, ValueError) as exc:  # a field of another type than it must be
                refused[key] = f"{kind} {key[1]}/{key[2]}: {exc}"
    memo.swept()
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
            found.append(Prometheus(obj if "kind" in obj else {"kind": "Prometheus", **obj}))
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
