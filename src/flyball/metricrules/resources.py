"""Which label names which Kubernetes resource, and back (reference/adapter.md 1.3)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import re2

from flyball.errors import ConfigError
from flyball.model.gotemplate import Struct, Template

QUIET = re2.Options()
QUIET.log_errors = False  # RE2 would also write to stderr


@dataclass(frozen=True, slots=True, order=True)
class GroupResource:
    """A resource by API group ("" is core) and plural name."""

    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(frozen=True, slots=True)
class Kind:
    """One served resource; ``version`` is the preferred one."""

    group: str
    version: str
    kind: str
    resource: str
    singular: str
    namespaced: bool

    @property
    def group_resource(self) -> GroupResource:
        return GroupResource(self.group, self.resource)


class RestMapper(Protocol):
    """What the API server serves."""

    def find(self, group: str, resource: str) -> Kind | None:
        """The kind of a singular or plural resource name, in any case; group "" is any group, core first."""
        ...


class KindTable:
    """A RestMapper over a list; earlier kinds win among equal names."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = tuple(kinds)
        self._by_name: dict[str, list[Kind]] = {}
        for kind in self.kinds:
            for name in {kind.resource, kind.singular or kind.kind.lower()}:
                self._by_name.setdefault(name, []).append(kind)

    def find(self, group: str, resource: str) -> Kind | None:
        found = self._by_name.get(resource.lower(), [])
        if group:
            return next((kind for kind in found if kind.group == group), None)
        return next((kind for kind in found if not kind.group), found[0] if found else None)


def _kinds(group: str, version: str, namespaced: bool, *names: str) -> list[Kind]:
    found = []
    for name in names:
        kind, _, plural = name.partition("/")
        found.append(Kind(group, version, kind, plural or kind.lower() + "s", kind.lower(), namespaced))
    return found


#: The built-in kinds that rules name; an API server's discovery replaces it.
BUILT_IN_KINDS: tuple[Kind, ...] = (
    *_kinds("", "v1", True, "Pod", "Service", "ConfigMap", "Secret", "Endpoints/endpoints", "Event"),
    *_kinds("", "v1", True, "PersistentVolumeClaim", "ReplicationController", "ServiceAccount"),
    *_kinds("", "v1", False, "Node", "Namespace", "PersistentVolume"),
    *_kinds("apps", "v1", True, "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"),
    *_kinds("batch", "v1", True, "Job", "CronJob"),
    *_kinds("networking.k8s.io", "v1", True, "Ingress/ingresses", "NetworkPolicy/networkpolicies"),
    *_kinds("autoscaling", "v2", True, "HorizontalPodAutoscaler"),
)

NAMESPACES = GroupResource("", "namespaces")
PODS = GroupResource("", "pods")
NODES = GroupResource("", "nodes")


@dataclass(frozen=True, slots=True)
class ResourceMapping:
    """``resources`` of a rule.

    Attributes:
        overrides: (label, group, resource) in the file's order; the first label of a resource is queried.
        template: label of any other resource, or None.
        namespaced: only read by external rules.
    """

    overrides: tuple[tuple[str, str, str], ...] = ()
    template: Template | None = None
    namespaced: bool = True


class ResourceConverter:
    """Converts labels to resources and back for one rule.

    Raises:
        ConfigError: an override names a resource that the API server does not serve.
    """

    def __init__(self, mapping: ResourceMapping, mapper: RestMapper, where: str = "resources") -> None:
        self._mapping, self._mapper = mapping, mapper
        self._label_of: dict[GroupResource, str] = {}
        self._resource_of: dict[str, GroupResource | None] = {}
        self._where = where
        for label, group, resource in mapping.overrides:
            kind = mapper.find(group, resource)
            if kind is None:
                raise ConfigError(
                    f'{where}: overrides.{label}: the API server does not serve "{resource}'
                    f'{"." + group if group else ""}"; correct group and resource, or install its definition'
                )
            self._resource_of[label] = kind.group_resource
            self._label_of.setdefault(kind.group_resource, label)
        self._pattern = self._label_pattern(mapping.template)

    @staticmethod
    def _label_pattern(template: Template | None) -> Any:
        if template is None:
            return None
        text = template.render(Struct(Group="(?P<group>.+?)", Resource="(?P<resource>.+?)"))
        return re2.compile(f"^{text}$", QUIET)

    def label_of(self, resource: GroupResource) -> str:
        """The label that carries a resource's names.

        Raises:
            ConfigError: the rule maps no label to it.
        """
        found = self._label_of.get(resource)
        if found is None:
            if self._mapping.template is None:
                raise ConfigError(
                    f"{self._where}: no label names {resource}; add an entry to resources.overrides, "
                    "or set resources.template"
                )
            kind = self._mapper.find(resource.group, resource.resource)
            singular = kind.singular if kind is not None and kind.singular else resource.resource
            group = re.sub(r"[.-]", "_", resource.group)
            found = self._mapping.template.render(Struct(Group=group, Resource=singular))
            self._label_of[resource] = found
        return found

    def resource_of(self, label: str) -> GroupResource | None:
        """The resource that a label names; None when it names none."""
        if label not in self._resource_of:
            self._resource_of[label] = self._by_template(label)
        return self._resource_of[label]

    def _by_template(self, label: str) -> GroupResource | None:
        match = self._pattern.search(label) if self._pattern is not None else None
        if match is None:
            return None
        groups: Mapping[str, str] = match.groupdict()
        kind = self._mapper.find(groups.get("group") or "", groups.get("resource") or "")
        return kind.group_resource if kind is not None else None
