"""Where we differ from prometheus-adapter 0.12 on purpose, and the switch that brings its way back.

A switch stands in the configuration file: ``compatibility: {nanIsZero: true}``. Each is off unless it is named there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyball.metricrules.config import AdapterConfig


@dataclass(frozen=True, slots=True)
class Switch:
    """One difference. ``ours`` and ``theirs`` say what each does; ``concerns`` whether a configuration meets it."""

    name: str
    ours: str
    theirs: str
    concerns: Callable[["AdapterConfig"], bool]


def _custom(config: "AdapterConfig") -> bool:
    return bool(config.rules)


def _usage(config: "AdapterConfig") -> bool:
    return config.resource_rules is not None


_ALL = (
    Switch("nanIsZero", "a custom metric that is NaN is left out", "it is served as 0", _custom),
    Switch(
        "requestTimeAsTimestamp",
        "a custom metric carries the time of its newest sample",
        "it carries the time of the request, so that nobody sees how old it is",
        _custom,
    ),
    Switch(
        "anyAge",
        "a value whose newest sample is older than the bound is left out",
        "it is served however old it is",
        lambda config: bool(config.rules or config.external_rules),
    ),
    Switch(
        "unescapedNames",
        "object names are matched as they are",
        'they are pasted into a regular expression, where "." matches any character',
        _custom,
    ),
    Switch(
        "usageGapsAreZero",
        "a pod of which cpu or memory is missing, NaN or negative is left out",
        "a container's missing, NaN or negative cpu or memory is served as 0",
        _usage,
    ),
)

#: The switches by name.
SWITCHES = {switch.name: switch for switch in _ALL}


def differences(config: "AdapterConfig") -> list[str]:
    """One line for each switch that this configuration meets: what holds, and how to change it."""
    lines = []
    for switch in _ALL:
        if switch.concerns(config):
            if switch.name in config.compatibility:
                lines.append(f"{switch.name} is on, as upstream: {switch.theirs}")
            else:
                lines.append(f"{switch.ours} (upstream: {switch.theirs}; compatibility.{switch.name} brings that back)")
    return lines
