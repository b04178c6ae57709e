"""A container's environment and command line, from its manifest alone (pure)."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flyball.errors import ConfigError
from flyball.model.quantities import parse_quantity

Object = dict[str, Any]
Lookup = Callable[[str, str], Mapping[str, str] | None]
"""``(kind, name)`` of a ConfigMap or Secret in the pod's namespace -> its values as text, or None."""

_REFERENCE = re.compile(r"\$(\$|\(([^()]+)\))")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
# What follows a path in a command line; what may not stand before one.
_AFTER = r"(?=$|[/\s\"';:,&|)>}])"
_BEFORE = r"(?<![\w./-])"


class MissingReferenceError(ConfigError):
    """A ConfigMap, Secret or key that the container needs does not exist (yet)."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes its value, ``$$(NAME)`` is kept as ``$(NAME)``, unknown names stay as they are."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return known.get(match[2], match[0])

    return _REFERENCE.sub(replaced, text)


def field_value(pod: Object, path: str, pod_ip: str) -> str:
    """A downward API field.

    Raises:
        ConfigError: the field is not one of those that Kubernetes offers.
    """
    meta, spec = pod.get("metadata", {}), pod.get("spec", {})
    if match := _KEYED.fullmatch(path):
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    plain = {
        "metadata.name": meta.get("name", ""),
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta.get("uid", ""),
        "spec.nodeName": spec.get("nodeName") or "",
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
    }
    if path in plain:
        return str(plain[path])
    if path in ("metadata.labels", "metadata.annotations"):
        values = meta.get(path.partition(".")[2]) or {}
        return "".join(f'{key}="{_quoted(str(value))}"\n' for key, value in sorted(values.items()))
    raise ConfigError(f"fieldRef \"{path}\" is not known; use metadata.name, metadata.labels['key'], status.podIP ...")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Object, container: Object, ref: Object, capacity: Mapping[str, str]) -> str:
    """A ``resourceFieldRef``: whole units of its divisor, rounded up; an absent limit is the node's capacity."""
    name = ref.get("containerName")
    if name:
        every = [*pod["spec"].get("initContainers", []), *pod["spec"].get("containers", [])]
        container = next((one for one in every if one.get("name") == name), {})
    kind, _, resource = str(ref.get("resource", "")).partition(".")
    if kind not in ("limits", "requests"):
        raise ConfigError(f'resourceFieldRef "{ref.get("resource")}" is not known; use limits.cpu, requests.memory ...')
    resources = container.get("resources") or {}
    text = (resources.get(kind) or {}).get(resource)
    if text is None and kind == "limits":
        text = capacity.get(resource)
    if text is None:
        return "0"
    divisor = parse_quantity(ref.get("divisor") or "1")
    unit = 1 if divisor.is_zero() else divisor.nano
    if divisor.is_zero():
        unit = 1_000_000_000
    return str(-(-parse_quantity(text).nano // unit))


def service_environment(services: Sequence[tuple[Object, Callable[[int], int]]]) -> dict[str, str]:
    """``{SVC}_SERVICE_HOST`` and ``_PORT`` of each Service with an address.

    Args:
        services: the Service and the port on which each of its ports is really served.
    """
    env: dict[str, str] = {}
    for service, served in services:
        spec = service.get("spec", {})
        host = spec.get("clusterIP")
        ports = spec.get("ports") or []
        if not host or host == "None" or not ports:
            continue
        prefix = re.sub(r"[^A-Z0-9]", "_", service["metadata"]["name"].upper())
        env[f"{prefix}_SERVICE_HOST"] = host
        env[f"{prefix}_SERVICE_PORT"] = str(served(ports[0]["port"]))
        for port in ports:
            number, protocol = served(port["port"]), (port.get("protocol") or "TCP")
            if port.get("name"):
                env[f"{prefix}_SERVICE_PORT_{re.sub(r'[^A-Z0-9]', '_', port['name'].upper())}"] = str(number)
            link = f"{prefix}_PORT_{port['port']}_{protocol}"
            env.setdefault(f"{prefix}_PORT", f"{protocol.lower()}://{host}:{number}")
            env[link] = f"{protocol.lower()}://{host}:{number}"
            env[f"{link}_PROTO"] = protocol.lower()
            env[f"{link}_PORT"] = str(number)
            env[f"{link}_ADDR"] = host
    return env


def container_environment(
    pod: Object,
    container: Object,
    base: Mapping[str, str],
    lookup: Lookup,
    *,
    pod_ip: str,
    capacity: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment: ``base``, then ``envFrom``, then ``env`` in order, each seeing those before it.

    Raises:
        MissingReferenceError: a ConfigMap, Secret or key that is not optional does not exist.
        ConfigError: a reference is of a kind that is not known.
    """
    env = dict(base)
    for source in container.get("envFrom") or []:
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            ref = source.get(key)
            if ref is None:
                continue
            values = lookup(kind, ref.get("name", ""))
            if values is None:
                if ref.get("optional"):
                    continue
                raise MissingReferenceError(f'{kind.lower()} "{ref.get("name", "")}" not found')
            env.update({f"{source.get('prefix', '')}{name}": value for name, value in values.items()})
    for item in container.get("env") or []:
        name, source = item["name"], item.get("valueFrom")
        if source is None:
            env[name] = expand(str(item.get("value") or ""), env)
            continue
        value = _value_from(pod, container, source, lookup, pod_ip, capacity)
        if value is not None:
            env[name] = value
    return env


def _value_from(
    pod: Object,
    container: Object,
    source: Object,
    lookup: Lookup,
    pod_ip: str,
    capacity: Mapping[str, str],
) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"].get("fieldPath", ""), pod_ip)
    if "resourceFieldRef" in source:
        return resource_value(pod, container, source["resourceFieldRef"], capacity)
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        ref = source.get(key)
        if ref is None:
            continue
        values = lookup(kind, ref.get("name", ""))
        if values is not None and ref.get("key") in values:
            return values[ref["key"]]
        if ref.get("optional"):
            return None
        if values is None:
            raise MissingReferenceError(f'{kind.lower()} "{ref.get("name", "")}" not found')
        raise MissingReferenceError(f'couldn\'t find key {ref.get("key")} in {kind} "{ref.get("name", "")}"')
    raise ConfigError(f"valueFrom with {', '.join(source) or 'nothing'} is not known")


Mounts = Sequence[tuple[str, str]]
"""``(mountPath, the volume's real path)``."""


def rewrite_argument(text: str, mounts: Mounts) -> str:
    """Paths under a mount become the volume's real ones, wherever they stand in an argument or shell text."""
    for mount, real in sorted(mounts, key=lambda pair: -len(pair[0])):
        literal = real.replace("\\", "\\\\")
        text = re.sub(_BEFORE + re.escape(mount.rstrip("/") or "/") + _AFTER, literal, text)
    return text


def rewrite_path(text: str, mounts: Mounts) -> str:
    """A text that is exactly a path under a mount becomes the real one; any other stays."""
    for mount, real in sorted(mounts, key=lambda pair: -len(pair[0])):
        mount = mount.rstrip("/")
        if text == mount or text.startswith(mount + "/"):
            return real + text[len(mount) :]
    return text


def rewrite_environment(env: Mapping[str, str], mounts: Mounts) -> dict[str, str]:
    """Values that are a path under a mount, and the parts of search paths, become the real ones."""
    out = {}
    for name, value in env.items():
        if name.endswith("PATH") and ":" in value:
            out[name] = os.pathsep.join(rewrite_path(part, mounts) for part in value.split(":"))
        else:
            out[name] = rewrite_path(value, mounts)
    return out
