"""Client-side apply, with kubectl's own annotation, so that ``kubectl apply`` continues where this left off.

What is too long for an annotation is applied server-side.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube.client import APPLY_PATCH, JSON_PATCH, KubeClient
from flyball.kube.kinds import Resource
from flyball.model.yaml_loader import load_all_yaml

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
FILE_MAX_BYTES = 10 << 20
ANNOTATIONS_MAX_BYTES = 256 << 10
FIELD_MANAGER = "flyball"
_FIRST = ("Namespace", "CustomResourceDefinition")  # what other objects of the same directory need


def read_manifests(path: Path) -> Iterator[tuple[str, dict[str, Any] | ConfigError]]:
    """The objects of a file, or of the .yaml, .yml and .json files in and below a directory, in order of name.

    Yields where it stands and the object, or the error in its place: one bad document does not hide the rest.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json"))
        if not files:
            yield str(path), ConfigError(f"{path} holds no .yaml, .yml or .json file; name a directory of manifests")
    else:
        files = [path]
    for file in files:
        try:
            if file.stat().st_size > FILE_MAX_BYTES:
                raise ConfigError(f"{file} is larger than {FILE_MAX_BYTES} bytes; split it")
            documents = load_all_yaml(file.read_text(), str(file))
        except (ConfigError, OSError, UnicodeDecodeError) as exc:
            yield str(file), exc if isinstance(exc, ConfigError) else ConfigError(f"{file}: {exc}")
            continue
        for document in documents:
            yield from _objects(str(file), document)


def _objects(where: str, document: Any) -> Iterator[tuple[str, dict[str, Any] | ConfigError]]:
    if document is None:
        return
    if not isinstance(document, dict):
        yield where, ConfigError(f"{where}: a manifest is a mapping, not {type(document).__name__}")
    elif str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _objects(where, item)
    elif not isinstance(document.get("metadata"), dict) or not (document["metadata"].get("name")):
        yield where, ConfigError(f"{where}: a {document.get('kind', 'document')} has no metadata.name; add one")
    elif not document.get("apiVersion") or not document.get("kind"):
        name = document["metadata"]["name"]
        yield where, ConfigError(f'{where}: "{name}" has no apiVersion or kind; add them')
    else:
        yield where, document


async def apply(client: KubeClient, obj: dict[str, Any], default_namespace: str = "default") -> str:
    """Creates the object or merges it into the live one.

    Returns:
        ``created``, ``configured`` or ``unchanged``.

    Raises:
        ConfigError: the server has no such kind.
        KubeApiError: the server refused the object.
    """
    resource = await _resource(client, obj["apiVersion"], obj["kind"])
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", default_namespace) if resource.namespaced else None
    wanted = json.loads(json.dumps(obj))
    if namespace is not None:
        wanted["metadata"]["namespace"] = namespace
    wanted["metadata"].setdefault("annotations", {}).pop(LAST_APPLIED, None)
    applied = json.dumps(wanted, separators=(",", ":"), sort_keys=True) + "\n"
    try:
        live = await client.get(resource, metadata["name"], namespace)
    except KubeApiError as exc:
        if exc.code != 404:
            raise
        live = None
    if len(applied) > ANNOTATIONS_MAX_BYTES:
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        made = await client.patch(
            resource, metadata["name"], wanted, namespace, content_type=APPLY_PATCH, params=params
        )
        before = live and live["metadata"]["resourceVersion"]
        is_same = made["metadata"]["resourceVersion"] == before
        return "created" if before is None else "unchanged" if is_same else "configured"
    wanted["metadata"]["annotations"][LAST_APPLIED] = applied
    if live is None:
        await client.create(resource, wanted, namespace)
        return "created"
    previous = json.loads(live["metadata"].get("annotations", {}).get(LAST_APPLIED) or "{}")
    patch = three_way_patch(previous, wanted, live)
    if not patch:
        return "unchanged"
    await client.patch(resource, metadata["name"], patch, namespace)
    return "configured"


async def provide(client: KubeClient, is_ours: Callable[[dict[str, Any]], bool], obj: dict[str, Any]) -> None:
    """Applies a cluster-wide object that anyone may take over: nobody owns its fields, so no conflict stops them.

    Left alone once the live object is not ours any more.
    """
    resource, name = await _resource(client, obj["apiVersion"], obj["kind"]), obj["metadata"]["name"]
    try:
        if not is_ours(await client.get(resource, name)):
            return
    except KubeApiError as exc:
        if exc.code != 404:
            raise
    if await apply(client, obj) != "unchanged":
        reset = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
        await client.patch(resource, name, reset, content_type=JSON_PATCH)


def three_way_patch(previous: Any, wanted: Any, live: Any) -> Any:
    """The JSON merge patch from ``live`` to ``wanted``: fields of ``previous`` that are not wanted go.

    Lists are replaced as a whole unless the live list only adds to the wanted one: defaults to its elements, or, where
    the same list was applied before, elements of its own (a pod's token volume).
    """
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        old = live.get(key) if isinstance(live, dict) else None
        if isinstance(value, dict) and isinstance(old, dict):
            before = previous.get(key) if isinstance(previous, dict) else None
            inner = three_way_patch(before if isinstance(before, dict) else {}, value, old)
            if inner:
                patch[key] = inner
        elif not _covers(old, value) and not (previous.get(key) == value and _holds(old, value)):
            patch[key] = value
    for key in previous:
        if key not in wanted and isinstance(live, dict) and key in live:
            patch[key] = None
    return patch


def _covers(live: Any, wanted: Any) -> bool:
    """Whether the live value says all that the wanted one says (it may hold defaults besides)."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(k in live and _covers(live[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(a, b) for a, b in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def _holds(live: Any, wanted: Any) -> bool:
    """Whether every named element of a list is in the live one."""
    if not isinstance(live, list) or not isinstance(wanted, list):
        return False
    named = {item.get("name"): item for item in live if isinstance(item, dict)}
    return all(
        isinstance(item, dict) and item.get("name") in named and _covers(named[item["name"]], item) for item in wanted
    )


async def _resource(client: KubeClient, api_version: str, kind: str) -> Resource:
    try:
        offered = await client.resources(api_version)
    except KubeApiError as exc:
        if exc.code != 404:
            raise
        offered = []
    for resource, _ in offered:
        if resource.kind == kind:
            return resource
    raise ConfigError(f'no matches for kind "{kind}" in version "{api_version}"; install its CRD first')


async def apply_paths(client: KubeClient, paths: tuple[Path, ...]) -> tuple[list[str], list[str]]:
    """Applies everything under the paths.

    Returns:
        What was done, a line an object, and what failed, a line each with file, object and reason.
    """
    done, failed, found = [], [], []
    for path in paths:
        for where, obj in read_manifests(path):
            if isinstance(obj, ConfigError):
                failed.append(str(obj))
            else:
                found.append((where, obj))
    for where, obj in sorted(found, key=lambda one: one[1]["kind"] not in _FIRST):
        name = f"{obj['kind'].lower()}/{obj['metadata']['name']}"
        try:
            done.append(f"{name} {await apply(client, obj)}")
        except FlyballError as exc:
            failed.append(f"{where}: {name}: {exc}")
    return done, failed
