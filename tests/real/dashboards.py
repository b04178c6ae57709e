"""The queries of Grafana dashboards, with their variables filled in."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_EQUALS = re.compile(r'=\s*"\$\{?(\w+)(?::\w+)?\}?"')
_VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")
_VALUES = {
    "__rate_interval": "2m",
    "__interval": "1m",
    "__range": "10m",
    "cluster": "",
    "namespace": "monitoring",
    "interval": "4h",
    "resolution": "5m",
    "aggregation": "avg",
    "latency_metrics": "process_cpu_seconds_total",
}


def queries(manifest: Path) -> Iterator[tuple[str, str]]:
    """Dashboard and query, of every panel of the ConfigMaps in a file."""
    for config_map in yaml.safe_load(manifest.read_text())["items"]:
        for text in config_map["data"].values():
            board = json.loads(text)
            for panel in _panels(board):
                for target in panel.get("targets", ()):
                    if target.get("expr"):
                        yield board["title"], _filled(target["expr"])


def _panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rows = [panel for row in board.get("rows", ()) for panel in row.get("panels", ())]
    for panel in [*board.get("panels", ()), *rows]:
        yield panel
        yield from _panels(panel)


def _filled(query: str) -> str:
    """Every variable means everything, but for a few that must have one value."""

    def compared(match: re.Match[str]) -> str:
        value = _VALUES.get(match.group(1))
        return '=~".+"' if value is None else f'="{value}"'

    return " ".join(_VARIABLE.sub(lambda m: _VALUES.get(m.group(1), ".+"), _EQUALS.sub(compared, query)).split())
