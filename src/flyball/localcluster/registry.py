"""Which resources are served: the built-in kinds, custom resources, and their discovery documents."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flyball.localcluster import failures, schema
from flyball.localcluster.schema import CUSTOM_VERBS, Kind, goform, structural

Object = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"

# What each served subresource can do. Ones not named here are not served.
SUBRESOURCE_VERBS: dict[str, tuple[str, ...]] = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "approval": ("get", "patch", "update"),
    "resize": ("get", "patch", "update"),
    "ephemeralcontainers": ("get", "patch", "update"),
    "finalize": ("update",),
    "log": ("get",),
    "exec": ("create", "get"),
    "attach": ("create", "get"),
    "portforward": ("create", "get"),
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
}


@dataclass(frozen=True, slots=True)
class Served:
    """One resource in one version.

    ``storage`` is the kind in which objects are kept; ``crd_version`` the version's part of the definition for custom
    resources, None for built-in kinds.
    """

    kind: Kind
    storage: Kind
    crd_version: Object | None = None
    crd_revision: str = ""
    printer_columns: tuple[Object, ...] = field(default=(), compare=False)
    deprecation: str = ""

    @property
    def store(self) -> str:
        return self.kind.store

    @property
    def group_version(self) -> str:
        return self.kind.api_version

    @property
    def is_custom(self) -> bool:
        return self.crd_version is not None

    @property
    def selectable_fields(self) -> frozenset[str]:
        """The fields by which a custom resource may be selected, as its definition says."""
        fields = (self.crd_version or {}).get("selectableFields") or ()
        return frozenset(one["jsonPath"].removeprefix(".") for one in fields)

    @property
    def crd_schema(self) -> Object:
        """A custom resource's schema."""
        return ((self.crd_version or {}).get("schema") or {}).get("openAPIV3Schema") or {_PRESERVE: True}

    # What custom resources and built-in kinds both have, from their own kind of schema.

    @property
    def patch_schema(self) -> schema.PatchNode | None:
        return structural.patch_schema(self.crd_schema) if self.is_custom else schema.patch_schema(self.kind)

    def unknown_fields(self, obj: Object) -> list[str]:
        """As ``unknown field "spec.sise"``, in document order."""
        return (
            structural.unknown_fields(self.crd_schema, obj)
            if self.is_custom
            else schema.validate_fields(self.kind, obj)
        )

    def prune(self, obj: Object) -> None:
        """In place: unknown fields go."""
        if self.is_custom:
            structural.prune(self.crd_schema, obj)
        else:
            schema.prune(self.kind, obj)

    def default(self, obj: Object, old: Object | None = None) -> None:
        """In place, an object in the storage version (custom resources: in any); ``old`` is the stored one."""
        if self.is_custom:
            structural.default(self.crd_schema, obj)
            goform.normalise_metadata(obj["metadata"])
        else:
            schema.default(self.storage, obj, old)

    def validate(self, obj: Object, old: Object | None) -> list[schema.Cause]:
        """What is wrong with an object in the storage version."""
        if not self.is_custom:
            # an Event is judged by the group that it comes through, all else as it is stored
            return schema.validate(self.storage if self.storage.group == self.kind.group else self.kind, obj, old)
        causes = schema.validate(self.kind, obj, old)
        return causes + structural.validate(self.crd_schema, obj, old) or schema.validate_own(self.kind, obj, old)

    def scale_paths(self) -> tuple[str, str, str]:
        """Spec replicas, status replicas and label selector, as JSON paths."""
        if self.crd_version is not None:
            scale = (self.crd_version.get("subresources") or {}).get("scale") or {}
            return (
                scale.get("specReplicasPath", ".spec.replicas"),
                scale.get("statusReplicasPath", ".status.replicas"),
                scale.get("labelSelectorPath", ""),
            )
        selector = ".status.selector" if self.kind.group == "monitoring.coreos.com" else ""
        return ".spec.replicas", ".status.replicas", selector


class Registry:
    """The served resources. A CustomResourceDefinition takes its group and plural over from a built-in kind."""

    def __init__(self) -> None:
        self._builtin: dict[tuple[str, str, str], Served] = {}
        storage: dict[str, Kind] = {}
        for kind in schema.KINDS:
            storage.setdefault(kind.store, kind)
            self._builtin[kind.group, kind.version, kind.plural] = Served(kind, storage[kind.store])
        self._custom: dict[tuple[str, str], tuple[Served, ...]] = {}
        self.version = 0

    def find(self, group: str, version: str, plural: str) -> Served | None:
        custom = self._custom.get((group, plural))
        if custom is not None:
            return next((served for served in custom if served.kind.version == version), None)
        return self._builtin.get((group, version, plural))

    def missing(self, group: str, version: str) -> failures.ApiFailure:
        """The answer where nothing is served: built-in groups and known versions say it in a Status."""
        known = any(key[0] == group for key in self._builtin) or version in self.groups().get(group, {})
        return failures.no_such_resource() if known else failures.no_such_path()

    def has_builtin(self, group: str, plural: str) -> bool:
        return any(key[0] == group and key[2] == plural for key in self._builtin)

    def __iter__(self) -> Iterator[Served]:
        for served in self._builtin.values():
            if (served.kind.group, served.kind.plural) not in self._custom:
                yield served
        for versions in self._custom.values():
            yield from versions

    def add_definition(self, crd: Object) -> None:
        """Serves what the CustomResourceDefinition describes, in place of what it described before."""
        spec = crd.get("spec") or {}
        names = spec.get("names") or {}
        group, plural = spec.get("group", ""), names.get("plural", "")
        versions = [v for v in spec.get("versions") or [] if v.get("served")]
        kinds = []
        for version in versions:
            subresources = [name for name in ("status", "scale") if name in (version.get("subresources") or {})]
            kinds.append(
                Kind(
                    group=group,
                    version=version.get("name", ""),
                    kind=names.get("kind", ""),
                    plural=plural,
                    singular=names.get("singular") or str(names.get("kind", "")).lower(),
                    short_names=tuple(names.get("shortNames") or ()),
                    namespaced=spec.get("scope") != "Cluster",
                    verbs=CUSTOM_VERBS,
                    categories=tuple(names.get("categories") or ()),
                    subresources=tuple(subresources),
                    store=f"{group}/{plural}",
                )
            )
        stored = next(
            (k for k, v in zip(kinds, versions, strict=True) if v.get("storage")), kinds[0] if kinds else None
        )
        if stored is None:
            self._custom.pop((group, plural), None)
        else:
            revision = str((crd.get("metadata") or {}).get("resourceVersion", ""))
            self._custom[group, plural] = tuple(
                Served(
                    kind,
                    stored,
                    version,
                    revision,
                    tuple(version.get("additionalPrinterColumns") or ()),
                    _deprecation(kind, version, versions),
                )
                for kind, version in zip(kinds, versions, strict=True)
            )
        self.version += 1

    def remove_definition(self, crd: Object) -> None:
        spec = crd.get("spec") or {}
        self._custom.pop((spec.get("group", ""), (spec.get("names") or {}).get("plural", "")), None)
        self.version += 1

    def groups(self) -> dict[str, dict[str, list[Served]]]:
        """group -> version -> resources, both in order of preference."""
        found: dict[str, dict[str, list[Served]]] = {}
        for served in self:
            found.setdefault(served.kind.group, {}).setdefault(served.kind.version, []).append(served)
        return {
            group: dict(sorted(versions.items(), key=lambda item: _version_rank(item[0])))
            for group, versions in found.items()
        }

    def fingerprint(self, resources: list[Served]) -> str:
        text = repr([(s.kind, s.crd_revision) for s in resources])
        return hashlib.sha256(text.encode()).hexdigest()[:32].upper()


def _deprecation(kind: Kind, version: Object, versions: list[Object]) -> str:
    """What every request for a deprecated version is warned of; "" for others."""
    if not version.get("deprecated"):
        return ""
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    better = sorted((one["name"] for one in versions if not one.get("deprecated")), key=_version_rank)
    instead = f"; use {kind.group}/{better[0]} {kind.kind}" if better else ""
    return f"{kind.api_version} {kind.kind} is deprecated{instead}"


def _version_rank(version: str) -> tuple[int, int, int]:
    """Kubernetes' order: v2, v1, v2beta1, v1beta2, v1alpha1."""
    rest = version[1:]
    major, stage, minor = rest, 0, ""
    for rank, word in ((1, "beta"), (2, "alpha")):
        if word in rest:
            major, _, minor = rest.partition(word)
            stage = rank
    try:
        return stage, -int(major), -int(minor or 0)
    except ValueError:
        return 3, 0, 0


def legacy_resources(group_version: str, resources: list[Served]) -> Object:
    """``APIResourceList`` of one group and version."""
    entries: list[Object] = []
    for served in sorted(resources, key=lambda s: s.kind.plural):
        kind = served.kind
        entry: Object = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        if "list" in kind.verbs:
            entry["storageVersionHash"] = hashlib.sha256(kind.store.encode()).hexdigest()[:11] + "="
        entries.append(entry)
        for name in kind.subresources:
            if name not in SUBRESOURCE_VERBS:
                continue
            sub: Object = {
                "name": f"{kind.plural}/{name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": list(SUBRESOURCE_VERBS[name]),
            }
            if name in schema.SUBRESOURCE_KINDS:
                group, version, sub["kind"] = schema.SUBRESOURCE_KINDS[name]
                if (group, version) != (kind.group, kind.version):
                    sub |= {"group": group, "version": version}
            entries.append(sub)
    kind_of_list: Object = {"kind": "APIResourceList"}
    if group_version != "v1":  # the oldest group answers as it did before lists had versions
        kind_of_list["apiVersion"] = "v1"
    return {**kind_of_list, "groupVersion": group_version, "resources": entries}


def _response_kind(served: Served, group: str, version: str, kind: str) -> Object:
    """As upstream shows it: built-in kinds do not repeat the group and version that they stand under."""
    same = (group, version) == (served.kind.group, served.kind.version) and not served.is_custom
    return {"group": "" if same else group, "version": "" if same else version, "kind": kind}


def aggregated_version(version: str, resources: list[Served]) -> Object:
    """One version's part of an ``APIGroupDiscovery``."""
    entries: list[Object] = []
    for served in sorted(resources, key=lambda s: s.kind.plural):
        kind = served.kind
        entry: Object = {
            "resource": kind.plural,
            "responseKind": _response_kind(served, kind.group, kind.version, kind.kind),
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "singularResource": kind.singular,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        subs = []
        for name in kind.subresources:
            if name in SUBRESOURCE_VERBS:
                carried = schema.SUBRESOURCE_KINDS.get(name, (kind.group, kind.version, kind.kind))
                subs.append(
                    {
                        "subresource": name,
                        "responseKind": _response_kind(served, *carried),
                        "verbs": list(SUBRESOURCE_VERBS[name]),
                    }
                )
        if subs:
            entry["subresources"] = subs
        entries.append(entry)
    return {"version": version, "resources": entries, "freshness": "Current"}


def aggregated_from_legacy(version: str, listing: Object, fresh: bool) -> Object:
    """An ``APIResourceList`` of another server in the form of ``aggregated_version``."""
    entries: dict[str, Object] = {}
    for resource in listing.get("resources") or []:
        name, _, subresource = str(resource.get("name", "")).partition("/")
        scope = "Namespaced" if resource.get("namespaced") else "Cluster"
        kind = {
            "group": resource.get("group", ""),
            "version": resource.get("version", ""),
            "kind": resource.get("kind", ""),
        }
        if subresource:
            parent = entries.setdefault(name, {"resource": name, "scope": scope, "singularResource": "", "verbs": []})
            parent.setdefault("subresources", []).append(
                {"subresource": subresource, "responseKind": kind, "verbs": resource.get("verbs") or []}
            )
            continue
        entry = entries.setdefault(name, {"resource": name})
        entry.update(
            {
                "responseKind": kind,
                "scope": scope,
                "singularResource": resource.get("singularName", ""),
                "verbs": resource.get("verbs") or [],
            }
        )
        for key in ("shortNames", "categories"):
            if resource.get(key):
                entry[key] = resource[key]
    return {"version": version, "resources": list(entries.values()), "freshness": "Current" if fresh else "Stale"}
