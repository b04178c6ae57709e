"""One alertmanager.yml from an Alertmanager object's Secret and the AlertmanagerConfigs that it selects.

Facts: reference/stack.md section 4; prometheus-operator 0.93, pkg/alertmanager/amcfg.go. Routes of AlertmanagerConfigs
come before the Secret's own and continue, so that none of them hides another.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from flyball.alerting.config import parse_config
from flyball.errors import ConfigError, QueryError
from flyball.model.reader import mapping_of
from flyball.model.selectors import selector_of
from flyball.model.yaml_loader import load_yaml
from flyball.operator.assets import Assets
from flyball.operator.clientconfig import ClientConfig, Document, Spec

CONFIG_KEY = "alertmanager.yaml"
CONFIG_DIR = PurePosixPath("/etc/alertmanager/config")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PAIRS = frozenset({"headers", "details", "customFields"})
_RENAMED = {"urlSecret": "url", "pagerDutyImageConfigs": "images", "pagerDutyLinkConfigs": "links"}

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
    base = _base(secret, f"{where}: {config_secret_name(alertmanager)}: {CONFIG_KEY}")
    routes: list[Document] = []
    refused: dict[Key, str] = {}
    for config in sorted(configs, key=lambda one: (_space(one), str(one["metadata"].get("name")))):
        if not _selects(spec, _space(alertmanager), config, namespaces, where):
            continue
        key = ("AlertmanagerConfig", _space(config), str(config["metadata"].get("name")))
        try:
            own = _translate(config, spec, assets)
            _check(own, f"AlertmanagerConfig {key[1]}/{key[2]}")
        except ConfigError as exc:
            refused[key] = str(exc)
        except (TypeError, AttributeError, ValueError, KeyError) as exc:  # a field of another type than it must be
            refused[key] = f"AlertmanagerConfig {key[1]}/{key[2]}: {exc}"
        else:
            routes += own.pop("routes")
            for section, items in own.items():
                base[section] = [*(base.get(section) or ()), *items]
    base["route"] = {**base["route"], "routes": [*routes, *(base["route"].get("routes") or ())]}
    files = {name: text for name, text in (secret or {}).items() if not name.startswith(CONFIG_KEY)}
    if base.get("templates"):
        base["templates"] = [_here(str(path)) for path in base["templates"]]
    parse_config(json.dumps(base), where)
    return Alerting(base, files, refused)


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


def _translate(config: Mapping[str, Any], alertmanager: Spec, assets: Assets) -> Document:
    """The sections that an AlertmanagerConfig adds; names in it carry its own before them."""
    namespace, spec = _space(config), config.get("spec") or {}
    prefix = f"{namespace}/{config['metadata'].get('name')}/"
    where = f"AlertmanagerConfig {namespace}/{config['metadata'].get('name')}: spec"
    confined = _confined(alertmanager, namespace)
    found: Document = {
        "routes": [],
        "receivers": [],
        "inhibit_rules": [
            {
                "source_matchers": _matchers(rule.get("sourceMatch")) + confined,
                "target_matchers": _matchers(rule.get("targetMatch")) + confined,
                "equal": [*(rule.get("equal") or ()), *(["namespace"] if confined else [])],
            }
            for rule in spec.get("inhibitRules") or ()
        ],
        "mute_time_intervals": [
            {
                "name": prefix + str(item.get("name")),
                "time_intervals": [_time_interval(interval) for interval in item.get("timeIntervals") or ()],
            }
            for item in spec.get("muteTimeIntervals") or ()
        ],
    }
    if spec.get("route"):
        route = _route(spec["route"], prefix)
        route["matchers"] = confined + route["matchers"]
        found["routes"] = [{**route, "continue": True}]
        found["receivers"] = [
            _receiver(receiver, prefix, ClientConfig(assets, namespace, f"{where}.receivers[{index}]"))
            for index, receiver in enumerate(spec.get("receivers") or ())
        ]
    return found


def _confined(alertmanager: Spec, namespace: str) -> list[str]:
    strategy = (alertmanager.get("alertmanagerConfigMatcherStrategy") or {}).get("type", "OnNamespace")
    return [] if strategy == "None" else [f"namespace={json.dumps(namespace)}"]


def _route(route: Spec, prefix: str) -> Document:
    found: Document = {"matchers": _matchers(route.get("matchers"))}
    if route.get("receiver"):
        found["receiver"] = prefix + str(route["receiver"])
    for name, other in (
        ("groupBy", "group_by"),
        ("groupWait", "group_wait"),
        ("groupInterval", "group_interval"),
        ("repeatInterval", "repeat_interval"),
        ("continue", "continue"),
    ):
        if route.get(name):
            found[other] = route[name]
    for name, other in (("muteTimeIntervals", "mute_time_intervals"), ("activeTimeIntervals", "active_time_intervals")):
        if route.get(name):
            found[other] = [prefix + str(item) for item in route[name]]
    if route.get("routes"):
        found["routes"] = [_route(child, prefix) for child in route["routes"]]
    return found


def _matchers(matchers: Sequence[Spec] | None) -> list[str]:
    return [
        f"{item.get('name')}{item.get('matchType') or ('=~' if item.get('regex') else '=')}"
        f"{json.dumps(str(item.get('value', '')), ensure_ascii=False)}"
        for item in matchers or ()
    ]


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


def _receiver(receiver: Spec, prefix: str, client: ClientConfig) -> Document:
    found: Document = {"name": prefix + str(receiver.get("name"))}
    for field_name, items in receiver.items():
        if field_name.endswith("Configs") and items:
            found[_snake(field_name)] = [_fields(item, client) for item in items]
    return found


def _fields(config: Spec, client: ClientConfig) -> Document:
    """A receiver's fields in Alertmanager's spelling, Secrets in place."""
    found: Document = {}
    for name, value in config.items():
        other = _RENAMED.get(name) or _snake(name)
        if value is None:
            continue
        if name == "httpConfig":
            value = {**value, "proxyUrl": value.get("proxyUrl") or value.get("proxyURL")}
            found["http_config"] = client.of(value)
        elif name == "tlsConfig":
            found |= client.tls(value)
        elif name in _PAIRS and isinstance(value, list):
            found[other] = {item["key"]: item["value"] for item in value}
        elif isinstance(value, Mapping) and set(value) <= {"name", "key", "optional"} and "key" in value:
            found[other] = client.secret(name, value).strip()
        elif isinstance(value, Mapping):
            found[other] = _fields(value, client)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            found[other] = [_fields(item, client) for item in value]
            if name == "pagerDutyLinkConfigs":
                found[other] = [
                    {"text" if key == "alt" else key: text for key, text in one.items()} for one in found[other]
                ]
        else:
            found[other] = value
    return found


def _check(own: Document, where: str) -> None:
    """What Alertmanager would refuse is told to the object's owner."""
    rest = {name: items for name, items in own.items() if name not in ("routes", "receivers")}
    nobody = {"name": "flyball/nobody"}
    document = {
        "route": {"receiver": nobody["name"], "routes": own["routes"]},
        "receivers": [nobody, *own["receivers"]],
    }
    parse_config(json.dumps(document | rest), where)


def _snake(name: str) -> str:
    return _WORD.sub("_", name).lower()


def _space(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("namespace", ""))
