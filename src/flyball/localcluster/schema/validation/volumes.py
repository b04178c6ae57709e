"""Volumes of a pod, and the references to its own fields in volumes and environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flyball.localcluster.schema.validation.causes import (
    FORBIDDEN,
    Cause,
    Object,
    duplicate,
    invalid,
    required,
    unsupported,
)
from flyball.localcluster.schema.validation.names import label_name_problems, qualified_problems

_MODE_WORDS = "must be a number between 0 and 0777 (octal), both inclusive"
_FIELDS = frozenset(
    {
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.host",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
ENVIRONMENT_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""What an environment variable may take; annotations and labels only by their key."""
_VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")


def check_field_reference(reference: Object, allowed: tuple[str, ...], field: str) -> Iterator[Cause]:
    """An ObjectFieldSelector."""
    path = reference.get("fieldPath") or ""
    if not path:
        yield required(f"{field}.fieldPath")
        return
    keyed = re.fullmatch(r"(.+)\['(.*)'\]", path)
    plain = keyed[1] if keyed else path
    if plain not in _FIELDS or (keyed and plain not in ("metadata.annotations", "metadata.labels")):
        why = "field label does not support subscript" if keyed else "field label not supported"
        yield invalid(f"{field}.fieldPath", path, f"error converting fieldPath: {why}: {path}")
    elif keyed:
        key = keyed[2].lower() if plain == "metadata.annotations" else keyed[2]
        yield from (invalid(field, key, text) for text in qualified_problems(key))
    elif plain.replace("spec.host", "spec.nodeName") not in allowed:
        yield unsupported(f"{field}.fieldPath", path, allowed)


def check_volumes(volumes: Any, field: str) -> tuple[list[Cause], set[str]]:
    """What is wrong, and the names that containers may mount."""
    causes: list[Cause] = []
    names: set[str] = set()
    for index, volume in enumerate(volumes or ()):
        where = f"{field}[{index}]"
        name = volume.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
        else:
            causes += [invalid(f"{where}.name", name, one) for one in label_name_problems(name)]
            if name in names:
                causes.append(duplicate(f"{where}.name", name))
        names.add(name)
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        causes += [Cause(f"{where}.{one}", FORBIDDEN, "may not specify more than 1 volume type") for one in sources[1:]]
        for kind in sources[:1]:
            causes += _source(kind, volume[kind], f"{where}.{kind}")
    return causes, names


def _source(kind: str, source: Object, field: str) -> Iterator[Cause]:
    named = {"secret": "secretName", "configMap": "name", "persistentVolumeClaim": "claimName"}.get(kind)
    if named is not None and not source.get(named):
        yield required(f"{field}.{named}")
    if kind == "hostPath":
        path = source.get("path") or ""
        if not path:
            yield required(f"{field}.path")
        yield from _no_back_steps(path, f"{field}.path")
    if kind in ("secret", "configMap"):
        yield from _mode(source.get("defaultMode"), f"{field}.defaultMode")
        yield from _items(source.get("items"), f"{field}.items")
    elif kind == "downwardAPI":
        yield from _mode(source.get("defaultMode"), f"{field}.defaultMode")
        yield from _files(source.get("items"), f"{field}.items")
    elif kind == "projected":
        yield from _mode(source.get("defaultMode"), f"{field}.defaultMode")
        yield from _projected(source.get("sources"), f"{field}.sources")


def _projected(sources: Any, field: str) -> Iterator[Cause]:
    for index, source in enumerate(sources or ()):
        where = f"{field}[{index}]"
        kinds = [kind for kind, value in source.items() if value is not None]
        yield from (Cause(f"{where}.{one}", FORBIDDEN, "may not specify more than 1 volume type") for one in kinds[1:])
        for kind in kinds[:1]:
            part, at = source[kind], f"{where}.{kind}"
            if kind in ("secret", "configMap"):
                if not part.get("name"):
                    yield required(f"{at}.name")
                yield from _items(part.get("items"), f"{at}.items")
            elif kind == "downwardAPI":
                yield from _files(part.get("items"), f"{at}.items")
            elif kind == "serviceAccountToken":
                seconds = part.get("expirationSeconds")
                if isinstance(seconds, int) and seconds < 600:
                    yield invalid(f"{at}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
                if not part.get("path"):
                    yield required(f"{at}.path")
                yield from _local_path(part.get("path") or "", f"{at}.path")


def _items(items: Any, field: str) -> Iterator[Cause]:
    for index, item in enumerate(items or ()):
        where = f"{field}[{index}]"
        if not item.get("key"):
            yield required(f"{where}.key")
        if not item.get("path"):
            yield required(f"{where}.path")
        yield from _local_path(item.get("path") or "", f"{where}.path")
        yield from _mode(item.get("mode"), f"{where}.mode")


def _files(items: Any, field: str) -> Iterator[Cause]:
    for index, item in enumerate(items or ()):
        where = f"{field}[{index}]"
        if not item.get("path"):
            yield required(f"{where}.path")
        yield from _local_path(item.get("path") or "", f"{where}.path")
        if item.get("fieldRef") is not None:
            yield from check_field_reference(item["fieldRef"], _VOLUME_FIELDS, f"{where}.fieldRef")
        elif item.get("resourceFieldRef") is None:
            yield required(where, "one of fieldRef and resourceFieldRef is required")
        yield from _mode(item.get("mode"), f"{where}.mode")


def _mode(mode: Any, field: str) -> Iterator[Cause]:
    if isinstance(mode, int) and not 0 <= mode <= 0o777:
        yield invalid(field, mode, _MODE_WORDS)


def _local_path(path: str, field: str) -> Iterator[Cause]:
    """Within a volume, and not one of the names by which the node swaps its contents."""
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from _no_back_steps(path, field)
    if path.startswith("..") and not path.startswith("../") and path != "..":
        yield invalid(field, path, "must not start with '..'")


def _no_back_steps(path: str, field: str) -> Iterator[Cause]:
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")
