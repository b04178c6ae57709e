"""A Prometheus object, as far as it decides how a configuration is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flyball.errors import ConfigError
from flyball.operator.versions import Version, parse_version

Spec = Mapping[str, Any]

DEFAULT_VERSION = "v3.14.0"

#: Where there is no Prometheus object at all, every monitor is taken.
IMPLIED: Mapping[str, Any] = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "Prometheus",
    "metadata": {"namespace": "flyball-system", "name": "flyball"},
    "spec": {
        "serviceDiscoveryRole": "EndpointSlice",
        **{
            f"{kind}{what}": {}
            for kind in ("serviceMonitor", "podMonitor", "probe", "scrapeConfig", "rule")
            for what in ("Selector", "NamespaceSelector")
        },
    },
}


@dataclass(frozen=True, eq=False)
class Prometheus:
    """Reads one object of the kind.

    Args:
        obj: the object.
        endpoint_slices: the cluster has them.
        sharded: each target is one shard's; an engine that is alone takes every target.

    Raises:
        ConfigError: the scrape classes contradict each other, or the version is none that is known.
    """

    obj: Mapping[str, Any]
    endpoint_slices: bool = True
    sharded: bool = False
    _classes: dict[str, Spec] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.version or self.version[0] not in (2, 3):
            raise ConfigError(
                f'{self}: spec.version: "{self.spec.get("version")}" is none known; write one like v3.5.0'
            )
        classes = self.spec.get("scrapeClasses") or ()
        self._classes.update({str(item.get("name")): item for item in classes})
        defaults = [item for item in classes if item.get("default")]
        if len(defaults) > 1:
            raise ConfigError(f"{self}: spec.scrapeClasses: more than one is the default; leave one")
        if defaults:
            self._classes[""] = defaults[0]

    def __str__(self) -> str:
        return f"{self.obj.get('kind', 'Prometheus')} {self.namespace}/{self.name}"

    @cached_property
    def spec(self) -> Spec:
        return self.obj.get("spec") or {}

    @property
    def namespace(self) -> str:
        return str((self.obj.get("metadata") or {}).get("namespace", ""))

    @property
    def name(self) -> str:
        return str((self.obj.get("metadata") or {}).get("name", ""))

    @cached_property
    def version(self) -> Version:
        return parse_version(str(self.spec.get("version") or DEFAULT_VERSION))

    @property
    def shards(self) -> int:
        return max(int(self.spec.get("shards") or 1), 1)

    def scrape_class(self, name: str | None) -> Spec:
        """The class of that name, else the default one, else nothing."""
        return self._classes.get(name or "") or self._classes.get("") or {}

    def endpoints_role(self, wanted: str | None) -> str:
        """``endpointslice`` where it is wanted and to be had, else ``endpoints``."""
        wanted = wanted or self.spec.get("serviceDiscoveryRole")
        possible = self.endpoint_slices and self.version >= (2, 21)
        return "endpointslice" if wanted == "EndpointSlice" and possible else "endpoints"

    def namespaces(self, selector: Spec | None, own: str) -> list[str]:
        """The namespaces that a namespaceSelector means; none for all of them."""
        selector = selector or {}
        if self.spec.get("ignoreNamespaceSelectors"):
            return [own]
        if selector.get("any"):
            return []
        return list(selector.get("matchNames") or (own,))

    def enforced_label(self, obj: Mapping[str, Any]) -> str:
        """The label that must hold an object's namespace; empty when none must."""
        label = str(self.spec.get("enforcedNamespaceLabel") or "")
        metadata = obj.get("metadata") or {}
        for excluded in self.spec.get("excludedFromEnforcement") or ():
            if (
                excluded.get("namespace") == metadata.get("namespace")
                and excluded.get("group", "monitoring.coreos.com") == "monitoring.coreos.com"
                and _KINDS.get(str(excluded.get("resource"))) == obj.get("kind")
                and excluded.get("name", "") in ("", metadata.get("name"))
            ):
                return ""
        return label


_KINDS = {
    "servicemonitors": "ServiceMonitor",
    "podmonitors": "PodMonitor",
    "probes": "Probe",
    "scrapeconfigs": "ScrapeConfig",
    "prometheusrules": "PrometheusRule",
}
