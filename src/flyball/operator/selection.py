"""Which objects a Prometheus object selects, and why not the others.

Facts: reference/stack.md section 4. A selector that is null selects nothing, ``{}`` everything; a namespace selector
that is null means the object's own namespace.
"""

from collections.abc import Mapping
from typing import Any

from flyball.errors import ConfigError, QueryError
from flyball.model.selectors import selector_of
from flyball.operator.prometheus import Prometheus

#: The selectors of a kind are ``<prefix>Selector`` and ``<prefix>NamespaceSelector``.
PREFIX_OF_KIND = {
    "ServiceMonitor": "serviceMonitor",
    "PodMonitor": "podMonitor",
    "Probe": "probe",
    "ScrapeConfig": "scrapeConfig",
    "PrometheusRule": "rule",
}


def why_not(
    prometheus: Prometheus, kind: str, obj: Mapping[str, Any], namespaces: Mapping[str, Mapping[str, str]]
) -> str:
    """Empty when the object is selected, else the reason in plain words.

    Args:
        namespaces: the labels of every namespace.

    Raises:
        ConfigError: a selector that is none.
    """
    prefix, spec = PREFIX_OF_KIND[kind], prometheus.spec
    metadata = obj.get("metadata") or {}
    namespace = str(metadata.get("namespace", ""))
    try:
        objects = selector_of(spec.get(f"{prefix}Selector"))
        spaces = None
        if spec.get(f"{prefix}NamespaceSelector") is not None:
            spaces = selector_of(spec[f"{prefix}NamespaceSelector"])
    except QueryError as exc:
        raise ConfigError(f"{prometheus}: spec.{prefix}Selector or {prefix}NamespaceSelector: {exc}") from exc
    if objects.nothing:
        return f"{prometheus} has no {prefix}Selector, so it selects none; write {prefix}Selector: {{}} for all"
    if spaces is None and namespace != prometheus.namespace:
        return (
            f"{prometheus} has no {prefix}NamespaceSelector, so it selects in namespace {prometheus.namespace} alone; "
            f"write {prefix}NamespaceSelector: {{}} for all"
        )
    if spaces is not None and not spaces.matches(namespaces.get(namespace) or {}):
        return f'namespace {namespace} does not match the {prefix}NamespaceSelector "{spaces}" of {prometheus}'
    if not objects.matches(metadata.get("labels") or {}):
        return f'its labels do not match the {prefix}Selector "{objects}" of {prometheus}'
    return ""
