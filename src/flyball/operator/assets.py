"""Secrets and ConfigMaps that monitoring objects name, as values."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from flyball.errors import ConfigError

Objects = Mapping[tuple[str, str], Mapping[str, str] | None]


class Assets(Protocol):
    """What references lead to; every method raises ConfigError when there is no such object or key."""

    def secret(self, namespace: str, selector: Mapping[str, Any]) -> str:
        """The value behind ``{name, key}``."""

    def secret_or_config_map(self, namespace: str, reference: Mapping[str, Any]) -> str:
        """The value behind ``{secret: {name, key}}`` or ``{configMap: {name, key}}``."""

    def tls(self, field: str, namespace: str, reference: Mapping[str, Any]) -> tuple[str, str]:
        """The name and the value that ``tls_config`` gets for ``ca``, ``cert`` or ``key``."""


class ReadAssets:
    """Objects that were read; certificates go into the configuration as text, since no file lies beside it.

    Args:
        secrets: by (namespace, name) the ``data``, in base64; None for one that does not exist.
        config_maps: the same, with ``data`` in plain text.
    """

    def __init__(self, secrets: Objects, config_maps: Objects) -> None:
        self._secrets, self._config_maps = secrets, config_maps

    def secret(self, namespace: str, selector: Mapping[str, Any]) -> str:
        return base64.b64decode(_value("Secret", self._secrets, namespace, selector)).decode()

    def secret_or_config_map(self, namespace: str, reference: Mapping[str, Any]) -> str:
        if reference.get("secret"):
            return self.secret(namespace, reference["secret"])
        return _value("ConfigMap", self._config_maps, namespace, reference.get("configMap") or {})

    def tls(self, field: str, namespace: str, reference: Mapping[str, Any]) -> tuple[str, str]:
        return field, self.secret_or_config_map(namespace, reference)


def references(value: object) -> Iterator[tuple[str, str]]:
    """Every Secret and ConfigMap that is named below a value, as ``("Secret" | "ConfigMap", name)``."""
    if isinstance(value, Mapping):
        for field, item in value.items():
            if isinstance(item, Mapping) and item.get("name") and item.get("key"):
                yield ("ConfigMap" if field == "configMap" else "Secret"), str(item["name"])
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping) and item.get("name") and item.get("key"):
                yield "Secret", str(item["name"])  # proxyConnectHeader
            else:
                yield from references(item)


def _value(kind: str, objects: Objects, namespace: str, selector: Mapping[str, Any]) -> str:
    name, key = str(selector.get("name") or ""), str(selector.get("key") or "")
    if not name or not key:
        raise ConfigError(f"must name a {kind} and its key")
    data = objects.get((namespace, name))
    if data is None:
        raise ConfigError(f"there is no {kind} {namespace}/{name}; create it")
    if key not in data:
        raise ConfigError(f'the {kind} {namespace}/{name} has no key "{key}"; add it')
    return data[key]
