"""PrometheusRule objects to rule files, packed into ConfigMaps as prometheus-operator packs them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flyball.errors import ConfigError
from flyball.promql.confinement import confined
from flyball.rules.rulefiles import parse_rule_file

SIZE_MAX_BYTES = 512 * 1024
"""Of one ConfigMap's files: half of what the API takes."""


def rule_file(obj: Mapping[str, Any], enforced_label: str = "") -> tuple[str, str]:
    """Name and text (JSON, which is YAML) of the file that a PrometheusRule becomes.

    Args:
        enforced_label: holds the object's namespace in every result, and confines every expression to it.

    Raises:
        ConfigError: a rule is wrong; a line for every error, each naming the object, group and rule.
    """
    metadata = obj.get("metadata") or {}
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    where = f"PrometheusRule {namespace}/{name}"
    groups = (obj.get("spec") or {}).get("groups") or []
    if not isinstance(groups, list):
        raise ConfigError(f"{where}: spec.groups: is not a list")
    known = [
        {field: value for field, value in group.items() if field != "partial_response_strategy"}
        if isinstance(group, Mapping)
        else group
        for group in groups
    ]
    text = json.dumps({"groups": known})
    parse_rule_file(text, where)
    if enforced_label:
        for group in known:
            group["rules"] = [
                {
                    **rule,
                    "expr": confined(str(rule["expr"]), enforced_label, namespace, where)[0],
                    "labels": {**(rule.get("labels") or {}), enforced_label: namespace},
                }
                for rule in group.get("rules") or ()
            ]
        text = json.dumps({"groups": known})
    if len(text) > SIZE_MAX_BYTES:
        raise ConfigError(f"{where}: is larger than {SIZE_MAX_BYTES} bytes; split it into several objects")
    return f"{namespace}-{name}-{metadata.get('uid', '')}.yaml", text


def pack(files: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The data of as many ConfigMaps as are needed, files in order of their names; one at least."""
    packed: list[dict[str, str]] = [{}]
    size = 0
    for name, text in sorted(files):
        size += len(text)
        if size > SIZE_MAX_BYTES and packed[-1]:
            packed.append({})
            size = len(text)
        packed[-1][name] = text
    return packed


__all__ = ["pack", "rule_file"]
