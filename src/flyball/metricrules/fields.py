"""Reading mappings that people wrote: every error names the place, the value and the remedy."""

from collections.abc import Mapping
from typing import Any

from flyball.errors import ConfigError

ITEMS_MAX = 10_000


def text(section: Mapping[str, Any], name: str, where: str) -> str:
    """A field that is text; "" when it is absent."""
    value = section.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f'{where}: {name}: "{value}" is not text; quote it')
    return value


def items(section: Mapping[str, Any], name: str, where: str) -> list[tuple[int, object]]:
    """The elements of a field that is a list, with their index; none when it is absent."""
    value = section.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {name}: is not a list")
    if len(value) > ITEMS_MAX:
        raise ConfigError(f"{where}: {name}: has {len(value)} entries; the limit is {ITEMS_MAX}")
    return list(enumerate(value))


def known(section: Mapping[str, Any], where: str, *names: str) -> None:
    """Refuses a field that is not among the names."""
    for name in section:
        if name not in names:
            raise ConfigError(f'{where}: unknown field "{name}"; known are {", ".join(names)}')


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """The value, which must be a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: must be a mapping of fields, not {type(value).__name__}")
    return value
