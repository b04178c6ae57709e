"""One alertmanager.yml from an Alertmanager object's Secret and the AlertmanagerConfigs that it selects.

Facts: reference/stack.md section 4; prometheus-operator 0.93, pkg/alertmanager/amcfg.go. Routes of AlertmanagerConfigs
come before the Secret's own and continue, so that none of them hides another.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from flyball.alerting.config import parse_config
from flyball.errors import ConfigError, QueryError
from flyball.model.reader import mapping_of
from flyball.model.selectors import selector_of
from flyball.model.yaml_loader import load_yaml
from flyball.operator.alertmanagerversions import DEFAULT_VERSION, refuse_newer, suited
from flyball.operator.assets import Assets
from flyball.operator.clientconfig import ClientConfig, Document, Spec
from flyball.operator.receivers import global_section, receiver
from flyball.operator.versions import Version, parse_version

CONFIG_KEY = "alertmanager.yaml"
CONFIG_DIR = PurePosixPath("/etc/alertmanager/config")
_ROUTE_FIELDS = {
    "groupBy": "group_by",
    "groupWait": "group_wait",
    "groupInterval": "group_interval",
    "repeatInterval": "repeat_interval",
    "continue": "continue",
}
_ROUTE_INTERVALS = {"muteTimeIntervals": "mute_time_intervals", "activeTimeIntervals": "active_time_intervals"}

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Alerting:
    """What an Alertmanager object wants.

    Attributes:
        config: alertmanager.yml as a document.
        files: what it names by relative paths, by name.
        refused: why an AlertmanagerConfig, or the Alertmanager object itself, is left out.
    """

    config: Document
    files: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[Key, str] = field(default_factory=dict)


def alerting(
    alertmanager: Mapping[str, Any],
    secret: Mapping[str, str] | None,
    configs: Sequence[Mapping[str, Any]],
    namespaces: Mapping[str, Mapping[str, str]],
    assets: Assets,
) -> Alerting:
    """The configuration of one Alertmanager object.

    Args:
        secret: the decoded texts of its ``configSecret``, by key; None when there is none.
        configs: every AlertmanagerConfig.
        namespaces: the labels of every namespace.

    Raises:
        ConfigError: the object's own configuration cannot be used.
    """
    metadata, spec = alertmanager.get("metadata") or {}, alertmanager.get("spec") or {}
    where = f"Alertmanager {metadata.get('namespace')}/{metadata.get('name')}"
    version = parse_version(str(spec.get("version") or DEFAULT_VERSION))
    held = {name: text for name, text in (secret or {}).items() if not name.startswith(CONFIG_KEY)}
    if spec.get("alertmanagerConfiguration"):
        base, files = _global_configuration(alertmanager, configs, version, assets, where)
        held |= files
    else:
        base = suited(_base(secret, f"{where}: {config_secret_name(alertmanager)}: {CONFIG_KEY}"), version, where)
    routes: list[Document] = []
    refused: dict[Key, str] = {}
    for config in sorted(configs, key=lambda one: (_space(one), str(one["metadata"].get("name")))):
        if not _selects(spec, _space(alertmanager), config, namespaces, where):
            continue
        key = ("AlertmanagerConfig", _space(config), str(config["metadata"].get("name")))
        try:
            own = section_of(config, alertmanager, version, assets, settings=base.get("global") or {})
        except ConfigError as exc:
            refused[key] = str(exc)
        else:
            routes += own.pop("routes")
            for section, items in own.items():
                base[section] = [*(base.get(section) or ()), *items]
    base["route"] = {**base["route"], "routes": [*routes, *(base["route"].get("routes") or ())]}
    if base.get("templates"):
        base["templates"] = [_here(str(path)) for path in base["templates"]]
    parse_config(json.dumps(base), where)
    return Alerting(base, held, refused)


def section_of(
    config: Mapping[str, Any], alertmanager: Mapping[str, Any], version: Version, assets: Assets, *, settings: Spec
) -> Document:
    """The sections that an AlertmanagerConfig adds; names in it carry its own before them.

    Args:
        settings: ``global`` of what it is added to.

    Raises:
        ConfigError: the object cannot be used; names the field.
    """
    where = f"AlertmanagerConfig {_space(config)}/{config['metadata'].get('name')}"
    try:
        own = _translate(config, _confined(alertmanager, config), version, assets, settings)
        refuse_newer(own, version, where)
        suited(own, version, where)
        if not (config.get("spec") or {}).get("route"):
            own["receivers"], own["mute_time_intervals"], route = [], [], []
        else:
            route = [{**own.pop("route"), "continue": True}]
        own.pop("route", None)
        sections = {"routes": route, **own}
        _check(sections, settings, where)
    except (TypeError, AttributeError, ValueError, KeyError) as exc:  # a field of another type than it must be
        raise ConfigError(f"{where}: {exc}") from exc
    return {name: items for name, items in sections.items() if items or name == "routes"}


def global_configuration(
    config: Mapping[str, Any], settings: Spec | None, version: Version, assets: Assets
) -> Document:
    """The configuration whose root is an AlertmanagerConfig, which stays free of its namespace.

    Args:
        settings: ``global``, as an Alertmanager object says it.

    Raises:
        ConfigError: one of the two cannot be used; names the field.
    """
    where = f"AlertmanagerConfig {_space(config)}/{config['metadata'].get('name')}"
    try:
        client = ClientConfig(assets, _space(config), "Alertmanager: spec.alertmanagerConfiguration.global")
        section = {"global": global_section(settings, client)} if settings else {}
        own = _translate(config, [], version, assets, section.get("global") or {})
        found = {name: items for name, items in {**section, **own}.items() if items}
        refuse_newer(found, version, where)
        parse_config(json.dumps(suited(found, version, where)), where)
    except (TypeError, AttributeError, ValueError, KeyError) as exc:
        raise ConfigError(f"{where}: {exc}") from exc
    return found


def _global_configuration(
    alertmanager: Mapping[str, Any],
    configs: Sequence[Mapping[str, Any]],
    version: Version,
    assets: Assets,
    where: str,
) -> tuple[Document, dict[str, str]]:
    """What ``alertmanagerConfiguration`` says, with the templates that it names, by file."""
    wanted = alertmanager["spec"]["alertmanagerConfiguration"]
    found = [
        config
        for config in configs
        if (_space(config), config["metadata"].get("name")) == (_space(alertmanager), wanted.get("name"))
    ]
    if not found:
        raise ConfigError(
            f'{where}: spec.alertmanagerConfiguration.name: there is no AlertmanagerConfig "{wanted.get("name")}" in '
            f"namespace {_space(alertmanager)}; create it"
        )
    base = global_configuration(found[0], wanted.get("global"), version, assets)
    files = {}
    for reference in wanted.get("templates") or ():
        named = reference.get("secret") or reference.get("configMap") or {}
        files[str(named.get("key"))] = assets.secret_or_config_map(_space(alertmanager), reference)
    return {**base, "templates": list(files)}, files


def config_secret_name(alertmanager: Mapping[str, Any]) -> str:
    """The Secret that holds an Alertmanager object's own configuration."""
    name = alertmanager["metadata"].get("name")
    return str((alertmanager.get("spec") or {}).get("configSecret") or f"alertmanager-{name}")


def _base(secret: Mapping[str, str] | None, where: str) -> Document:
    text = (secret or {}).get(CONFIG_KEY)
    if text is None:
        return {"route": {"receiver": "null"}, "receivers": [{"name": "null"}]}
    parse_config(text, where)
    return dict(mapping_of(load_yaml(text, where), where))


def _here(path: str) -> str:
    """A template's path as seen from the directory with the files."""
    return PurePosixPath(path).name if PurePosixPath(path).is_relative_to(CONFIG_DIR) else path


def _selects(
    spec: Spec, namespace: str, config: Mapping[str, Any], namespaces: Mapping[str, Mapping[str, str]], where: str
) -> bool:
    try:
        objects = selector_of(spec.get("alertmanagerConfigSelector"))
        spaces = spec.get("alertmanagerConfigNamespaceSelector")
        if spaces is None:
            in_space = _space(config) == namespace
        else:
            in_space = selector_of(spaces).matches(namespaces.get(_space(config)) or {})
    except QueryError as exc:
        raise ConfigError(f"{where}: spec.alertmanagerConfigSelector or its NamespaceSelector: {exc}") from exc
    return in_space and objects.matches(config["metadata"].get("labels") or {})


def _translate(
    config: Mapping[str, Any], confined: Sequence[Spec], version: Version, assets: Assets, settings: Spec
) -> Document:
    """The document of one AlertmanagerConfig alone.

    Args:
        confined: matchers that each of its routes and rules has besides its own.
    """
    namespace, spec = _space(config), config.get("spec") or {}
    prefix = f"{namespace}/{config['metadata'].get('name')}/"
    where = f"AlertmanagerConfig {namespace}/{config['metadata'].get('name')}: spec"
    found: Document = {}
    if spec.get("route"):
        found["route"] = _route(spec["route"], prefix, version, f"{where}.route", confined)
    found["inhibit_rules"] = [
        {
            **_matchers(rule.get("sourceMatch"), version, "source_", confined),
            **_matchers(rule.get("targetMatch"), version, "target_", confined),
            **({"equal": rule["equal"]} if rule.get("equal") else {}),
        }
        for rule in spec.get("inhibitRules") or ()
    ]
    found["receivers"] = [
        receiver(item, prefix, ClientConfig(assets, namespace, f"{where}.receivers[{index}]"), settings)
        for index, item in enumerate(spec.get("receivers") or ())
    ]
    found["mute_time_intervals"] = [
        {
            "name": prefix + str(item.get("name")),
            "time_intervals": [_time_interval(interval) for interval in item.get("timeIntervals") or ()],
        }
        for item in spec.get("muteTimeIntervals") or ()
    ]
    return found


def _confined(alertmanager: Mapping[str, Any], config: Mapping[str, Any]) -> list[Spec]:
    """What keeps an AlertmanagerConfig to the alerts of its own namespace."""
    spec = alertmanager.get("spec") or {}
    strategy = (spec.get("alertmanagerConfigMatcherStrategy") or {}).get("type", "OnNamespace")
    free = strategy == "None" or (
        strategy == "OnNamespaceExceptForAlertmanagerNamespace" and _space(config) == _space(alertmanager)
    )
    return [] if free else [{"name": "namespace", "value": _space(config)}]


def _route(route: Spec, prefix: str, version: Version, where: str, confined: Sequence[Spec] | None) -> Document:
    """
    Args:
        confined: of the root; None for a route below another.
    """
    if confined is not None and not route.get("receiver"):
        raise ConfigError(f"{where}.receiver: is missing; name one of receivers")
    known = {"receiver", "matchers", "routes", *_ROUTE_FIELDS, *_ROUTE_INTERVALS}
    for name in route:
        if name not in known:
            raise ConfigError(f'{where}: unknown field "{name}"; remove it or check its spelling')
    found = _matchers(route.get("matchers"), version, "", confined or ())
    if route.get("receiver"):
        found["receiver"] = prefix + str(route["receiver"])
    for name, other in _ROUTE_FIELDS.items():
        if route.get(name):
            found[other] = route[name]
    for name, other in _ROUTE_INTERVALS.items():
        if route.get(name):
            found[other] = [prefix + str(item) for item in route[name]]
    if route.get("routes"):
        found["routes"] = [
            _route(child, prefix, version, f"{where}.routes[{index}]", None)
            for index, child in enumerate(route["routes"])
        ]
    return found


def _matchers(matchers: Sequence[Spec] | None, version: Version, prefix: str, confined: Sequence[Spec]) -> Document:
    """``matchers``, and the older fields for what had no ``matchType`` where Alertmanager reads no matchers."""
    found: Document = {}
    texts: list[str] = []
    for item in (*(matchers or ()), *confined):
        unknown = set(item) - {"name", "value", "matchType", "regex"}
        if unknown or not item.get("name"):
            raise ConfigError(f"a matcher has name, value and matchType, not {json.dumps(item)}")
        name, value = str(item["name"]), str(item.get("value", ""))
        type_ = item.get("matchType") or ("=~" if item.get("regex") else "=")
        if version < (0, 22) and not item.get("matchType"):
            found.setdefault(f"{prefix}match_re" if item.get("regex") else f"{prefix}match", {})[name] = value
            continue
        text = f"{name}{type_}{json.dumps(value, ensure_ascii=False)}"
        if item not in confined or text not in texts:
            texts.append(text)
    return found | ({f"{prefix}matchers": texts} if texts else {})


def _time_interval(interval: Spec) -> Document:
    found: Document = {}
    if interval.get("times"):
        found["times"] = [{"start_time": item["startTime"], "end_time": item["endTime"]} for item in interval["times"]]
    if interval.get("daysOfMonth"):
        found["days_of_month"] = [f"{item['start']}:{item['end']}" for item in interval["daysOfMonth"]]
    for name in ("weekdays", "months", "years"):
        if interval.get(name):
            found[name] = [str(item).lower() for item in interval[name]]
    return found


def _check(own: Document, settings: Spec, where: str) -> None:
    """What Alertmanager would refuse is told to the object's owner."""
    rest = {name: items for name, items in own.items() if name not in ("routes", "receivers")}
    nobody = {"name": "flyball/nobody"}
    document = {
        "global": settings,
        "route": {"receiver": nobody["name"], "routes": own["routes"]},
        "receivers": [nobody, *own["receivers"]],
    }
    parse_config(json.dumps(document | rest), where)


def _space(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("namespace", ""))
