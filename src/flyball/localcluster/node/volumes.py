"""Volumes as directories: written like a kubelet does, a dated folder behind a ``..data`` link, swapped at once."""

import base64
import binascii
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyball import clock
from flyball.errors import ConfigError
from flyball.localcluster.node.environment import MissingReferenceError, expand, field_value, resource_value

Object = dict[str, Any]
BinaryLookup = Callable[[str, str], Mapping[str, bytes] | None]
TokenLookup = Callable[[Object], bytes]
"""A ``serviceAccountToken`` source -> the token."""


def object_values(kind: str, found: Object) -> dict[str, bytes]:
    """The keys of a ConfigMap or Secret as bytes."""
    values: dict[str, bytes] = {}
    for key, text in (found.get("data") or {}).items():
        values[key] = _decoded(text) if kind == "Secret" else str(text).encode()
    for key, text in (found.get("binaryData") or {}).items():
        values[key] = _decoded(text)
    for key, text in (found.get("stringData") or {}).items():
        values[key] = str(text).encode()
    return values


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text or "")
    except (binascii.Error, ValueError):
        return b""


def references(pod: Object) -> set[tuple[str, str]]:
    """``(kind, name)`` of every ConfigMap and Secret that the pod's volumes and environments name."""
    found: set[tuple[str, str]] = set()
    spec = pod.get("spec", {})
    for volume in spec.get("volumes") or []:
        for source in (volume, *((volume.get("projected") or {}).get("sources") or [])):
            if ref := source.get("configMap"):
                found.add(("ConfigMap", ref.get("name", "")))
            if ref := source.get("secret"):
                found.add(("Secret", ref.get("secretName") or ref.get("name", "")))
    for container in (*(spec.get("initContainers") or []), *(spec.get("containers") or [])):
        for item in container.get("env") or []:
            source = item.get("valueFrom") or {}
            for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if key in source:
                    found.add((kind, source[key].get("name", "")))
        for source in container.get("envFrom") or []:
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    found.add((kind, source[key].get("name", "")))
    return {ref for ref in found if ref[1]}


def token_sources(pod: Object) -> list[Object]:
    """The service account's tokens that the pod's volumes ask for."""
    volumes = pod.get("spec", {}).get("volumes") or []
    sources = [source for one in volumes for source in (one.get("projected") or {}).get("sources") or []]
    return [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]


def claim_names(pod: Object) -> list[str]:
    """The claims that the pod's volumes name."""
    return [one["persistentVolumeClaim"].get("claimName", "") for one in claims(pod)]


def claims(pod: Object) -> list[Object]:
    """The pod's volumes that are claims."""
    return [one for one in pod.get("spec", {}).get("volumes") or [] if "persistentVolumeClaim" in one]


def mounted_objects(pod: Object) -> bool:
    """Whether a volume shows objects that can change while the pod runs."""
    kinds = ("configMap", "secret", "projected", "downwardAPI")
    return any(kind in volume for volume in pod.get("spec", {}).get("volumes") or [] for kind in kinds)


def _picked(kind: str, ref: Object, name: str, lookup: BinaryLookup) -> dict[str, bytes]:
    values = lookup(kind, name)
    if values is None:
        if ref.get("optional"):
            return {}
        raise MissingReferenceError(f'{kind.lower()} "{name}" not found')
    if not ref.get("items"):
        return dict(values)
    out = {}
    for item in ref["items"]:
        if item["key"] in values:
            out[item.get("path") or item["key"]] = values[item["key"]]
        elif not ref.get("optional"):
            raise MissingReferenceError(f'{kind.lower()} "{name}" has no key "{item["key"]}"')
    return out


def _downward(pod: Object, ref: Object, pod_ip: str, capacity: Mapping[str, str]) -> dict[str, bytes]:
    out = {}
    for item in ref.get("items") or []:
        if "fieldRef" in item:
            text = field_value(pod, item["fieldRef"].get("fieldPath", ""), pod_ip)
        else:
            text = resource_value(pod, {}, item.get("resourceFieldRef") or {}, capacity)
        out[item["path"]] = text.encode()
    return out


def contents(
    pod: Object, volume: Object, lookup: BinaryLookup, token: TokenLookup, *, pod_ip: str, capacity: Mapping[str, str]
) -> dict[str, bytes] | None:
    """The files of a volume made from objects; None for a volume that is a plain directory.

    Raises:
        MissingReferenceError: an object or key that is not optional does not exist.
    """
    if "configMap" in volume:
        ref = volume["configMap"]
        return _picked("ConfigMap", ref, ref.get("name", ""), lookup)
    if "secret" in volume:
        ref = volume["secret"]
        return _picked("Secret", ref, ref.get("secretName", ""), lookup)
    if "downwardAPI" in volume:
        return _downward(pod, volume["downwardAPI"], pod_ip, capacity)
    if "projected" not in volume:
        return None
    out: dict[str, bytes] = {}
    for source in volume["projected"].get("sources") or []:
        if "configMap" in source:
            out |= _picked("ConfigMap", source["configMap"], source["configMap"].get("name", ""), lookup)
        elif "secret" in source:
            out |= _picked("Secret", source["secret"], source["secret"].get("name", ""), lookup)
        elif "serviceAccountToken" in source:
            out[source["serviceAccountToken"]["path"]] = token(source["serviceAccountToken"])
        elif "downwardAPI" in source:
            out |= _downward(pod, source["downwardAPI"], pod_ip, capacity)
    return out


def write_atomically(root: Path, files: Mapping[str, bytes], mode: int) -> bool:
    """Shows ``files`` in ``root`` all at once; whether anything changed.

    Raises:
        ConfigError: a path leaves the volume.
    """
    for name in files:
        if name.startswith("/") or ".." in name.split("/"):
            raise ConfigError(f'volume path "{name}" leaves the volume; use a path below it')
    root.mkdir(parents=True, exist_ok=True)
    data = root / "..data"
    current = (
        {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}
        if data.is_dir()
        else None
    )
    if current == dict(files):
        return False
    before = os.readlink(data) if data.is_symlink() else None
    stamp = f"..{clock.rfc3339(clock.now_ms()).replace(':', '_')}.{os.urandom(4).hex()}"
    fresh = root / stamp
    for name, value in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        # The owner must be able to write it anew; the rest is as the manifest wants it.
        path.chmod(mode | 0o400)
    fresh.mkdir(exist_ok=True)
    link = root / "..data_new"
    with suppress(OSError):
        link.unlink()
    link.symlink_to(stamp)
    link.rename(data)
    tops = {name.partition("/")[0] for name in files}
    for top in tops:
        if not (root / top).is_symlink():
            (root / top).symlink_to(f"..data/{top}")
    for path in root.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in tops:
            path.unlink()
    if before:
        shutil.rmtree(root / before, ignore_errors=True)
    return True


def prepare(
    pod: Object,
    pod_dir: Path,
    claim_path: Callable[[str], Path],
    lookup: BinaryLookup,
    token: TokenLookup,
    *,
    pod_ip: str,
    capacity: Mapping[str, str],
    told: Callable[[Object, bool], None] = lambda _volume, _good: None,
) -> dict[str, Path]:
    """Makes or refreshes every volume; name -> real directory (or file, for a hostPath that is one).

    Args:
        told: of each volume that was dealt with, and whether it is ready.

    Raises:
        MissingReferenceError: an object does not exist yet; try again.
        ConfigError: the volume is of a kind that the embedded cluster does not have.
    """
    out: dict[str, Path] = {}
    for volume in pod.get("spec", {}).get("volumes") or []:
        name = volume["name"]
        path = pod_dir / "volumes" / name
        try:
            files = contents(pod, volume, lookup, token, pod_ip=pod_ip, capacity=capacity)
            if files is not None:
                source = volume.get("configMap") or volume.get("secret") or volume.get("projected") or {}
                write_atomically(path, files, int(source.get("defaultMode") or 0o644))
            elif "hostPath" in volume:
                path = _host_path(volume["hostPath"])
            elif "persistentVolumeClaim" in volume:
                path = claim_path(volume["persistentVolumeClaim"].get("claimName", ""))
                path.mkdir(parents=True, exist_ok=True)
            elif "emptyDir" in volume or set(volume) == {"name"}:
                path.mkdir(parents=True, exist_ok=True)
            else:
                kind = ", ".join(sorted(set(volume) - {"name"}))
                raise ConfigError(
                    f'volume "{name}": {kind} volumes are not available in the embedded cluster; '
                    "use configMap, secret, emptyDir, downwardAPI, projected, hostPath or persistentVolumeClaim"
                )
        except (MissingReferenceError, ConfigError, OSError):
            told(volume, False)
            raise
        told(volume, True)
        out[name] = path
    return out


def _host_path(source: Object) -> Path:
    path, kind = Path(source.get("path", "/")), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch(exist_ok=True)
    wrong = (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file())
    if wrong:
        raise MissingReferenceError(f"hostPath {path} is not a {kind.lower()}; create it on this machine")
    return path


def read_only(container: Object) -> set[str]:
    """The mountPaths that the container may not write to."""
    return {mount["mountPath"] for mount in container.get("volumeMounts") or [] if mount.get("readOnly")}


def mounts(container: Object, directories: Mapping[str, Path], env: Mapping[str, str]) -> list[tuple[str, str]]:
    """``(mountPath, real path)`` of a container; a subPath that does not exist is made.

    Args:
        env: the container's environment, which a subPathExpr names.

    Raises:
        ConfigError: a mount names a volume that the pod does not have.
    """
    out = []
    for mount in container.get("volumeMounts") or []:
        directory = directories.get(mount["name"])
        if directory is None:
            raise ConfigError(f'volumeMount "{mount["name"]}" names no volume of the pod')
        sub = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
        if sub.startswith("/") or ".." in sub.split("/"):
            raise ConfigError(f'subPath "{sub}" leaves the volume; use a path below it')
        path = directory / sub if sub else directory
        if sub and not path.exists():
            path.mkdir(parents=True)
        out.append((mount["mountPath"], str(path)))
    return out
