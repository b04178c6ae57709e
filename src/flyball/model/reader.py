"""Reads a configuration's mapping field by field; errors name the place, the value and the remedy."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flyball.errors import ConfigError
from flyball.model.durations import parse_duration_ms

_T = TypeVar("_T")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGTPE]?i?B?)", re.IGNORECASE)


class Reader:
    """Takes the fields of a mapping one by one; ``finish`` refuses what is left."""

    def __init__(self, mapping: Mapping[str, Any], what: str) -> None:
        self.what = what
        self.rest = dict(mapping)

    def error(self, name: str, text: str) -> ConfigError:
        return ConfigError(f"{self.what}: {name}: {text}")

    def take(self, name: str) -> Any:
        return self.rest.pop(name, None)

    def finish(self) -> None:
        for name in self.rest:
            if name.endswith("_sd_configs"):
                raise self.error(
                    name, "this kind of discovery is not supported; use kubernetes_sd_configs or static_configs"
                )
            if name in ("oauth2", "proxy_url", "proxy_connect_header"):
                raise self.error(name, "is not supported; remove it")
            raise ConfigError(f'{self.what}: unknown field "{name}"; remove it or check its spelling')

    def text(self, name: str, default: str) -> str:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)  # regex: 1, replacement: 8080
        if isinstance(value, bool):
            return "true" if value else "false"
        raise self.error(name, f"must be text, not {kind_of(value)}")

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.error(name, f"must be a list of text, not {type_of(value)}")
        return tuple(value)

    def text_lists(self, name: str) -> dict[str, tuple[str, ...]]:
        value = self.take(name)
        if value is None:
            return {}
        lists = {}
        for key, items in mapping_of(value, f"{self.what}: {name}").items():
            if not isinstance(items, list | tuple):
                raise self.error(name, f'"{key}" must be a list of text, not {kind_of(items)}')
            lists[str(key)] = tuple(str(item) for item in items)
        return lists

    def flag(self, name: str, default: bool) -> bool:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, f'must be true or false, not "{value}"')
        return value

    def count(self, name: str) -> int:
        value = self.take(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(name, f'must be a whole number of at least 0, not "{value}"')
        return value

    def number(self, name: str) -> float:
        value = self.take(name)
        if value is None:
            return 0.0
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(name, f'must be a number, not "{value}"')
        return float(value)

    def duration(self, name: str) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        try:
            return parse_duration_ms(str(value))
        except ConfigError as exc:
            raise self.error(name, str(exc)) from exc

    def size(self, name: str) -> int:
        value = self.take(name)
        if value is None:
            return 0
        try:
            return parse_size_bytes(value)
        except ConfigError as exc:
            raise self.error(name, str(exc)) from exc

    def nested(self, name: str, parse: Callable[["Reader"], _T]) -> _T | None:
        value = self.take(name)
        if value is None:
            return None
        reader = Reader(mapping_of(value, f"{self.what}: {name}"), f"{self.what}: {name}")
        parsed = parse(reader)
        reader.finish()
        return parsed

    def items(self, name: str, parse: Callable[[object, str], _T]) -> tuple[_T, ...]:
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise self.error(name, f"must be a list, not {kind_of(value)}")
        return tuple(parse(item, f"{self.what}: {name}[{index}]") for index, item in enumerate(value))


def parse_size_bytes(text: str | int) -> int:
    """``10MB`` and ``10MiB`` are both 10 x 1024 x 1024, as in Prometheus.

    Raises:
        ConfigError: the text is not a size.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    found = _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise ConfigError(f'"{text}" is not a size; write one like 10MB')
    amount, unit = found.groups()
    power = "BKMGTPE".index((unit or "B")[0].upper())
    return int(float(amount) * 1024**power)


def mapping_of(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{what} must be a mapping of fields, not {type_of(value)}")
    return value


def text_mapping_of(value: object, what: str) -> dict[str, str]:
    found = {}
    for name, item in mapping_of(value, what).items():
        if isinstance(item, Mapping | list | tuple):
            raise ConfigError(f'{what}: "{name}" must be text, not {kind_of(item)}; quote the value')
        if isinstance(item, bool):
            item = "true" if item else "false"
        found[str(name)] = "" if item is None else str(item)
    return found


def type_of(value: object) -> str:
    """As ``kind_of``, without the value: what stands in a section's place may be its secret."""
    return "a text" if isinstance(value, str) else kind_of(value)


def kind_of(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f'"{value}"'
