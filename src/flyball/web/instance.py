"""What the API says of the server it speaks for."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flyball.model.frames import Frame
from flyball.model.labels import Labels, Matcher
from flyball.model.scrapeconfigs import ScrapeConfig

MatcherSets = Sequence[Sequence[Matcher]]


class Store(Protocol):
    """What the API asks of a store; ``flyball.store.Head`` is one."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]: ...
    def label_names(self, matcher_sets: Any, start_ms: int, end_ms: int) -> Any: ...
    def label_values(self, name: str, matcher_sets: Any, start_ms: int, end_ms: int) -> Any: ...
    def series(self, matcher_sets: Any, start_ms: int, end_ms: int) -> list[Labels]: ...


class Exemplars(Protocol):
    """What the API asks of a store of exemplars: (series, [(labels, value, time in ms)...])."""

    def select(
        self, matcher_sets: MatcherSets, start_ms: int, end_ms: int
    ) -> list[tuple[Labels, list[tuple[Labels, float, int]]]]: ...


class Admin(Protocol):
    """What ``--web.enable-admin-api`` allows."""

    async def delete_series(self, matcher_sets: MatcherSets, start_ms: int, end_ms: int) -> None: ...
    async def clean_tombstones(self) -> None: ...
    async def snapshot(self, skip_head: bool) -> str: ...


@dataclass(slots=True)
class Instance:
    """Facts and actions beside the data; the defaults are those of a server without configuration.

    Attributes:
        targets: ``activeTargets``, ``droppedTargets`` and ``droppedTargetCounts``.
        target_metadata: (target labels, metric, type, help, unit).
        stored_metadata: (type, help, unit) by metric, of what was pushed or is not scraped any more too.
        last_reload: (whether it worked, when in ms).
        admin: None while the admin API is off.
        reload, quit: None while the lifecycle API is off.
    """

    targets: Callable[[], Any] = list
    target_metadata: Callable[[], Sequence[tuple[Mapping[str, str], str, str, str, str]]] = list
    pools: Callable[[], Mapping[str, ScrapeConfig]] = dict
    config_yaml: Callable[[], str] = str
    flags: Mapping[str, str] = field(default_factory=dict)
    features: Sequence[str] = ()
    external_labels: Callable[[], Mapping[str, str]] = dict
    started_ms: int = 0
    retention: str = "2h"
    last_reload: Callable[[], tuple[bool, int]] = lambda: (True, 0)
    rule_groups: Callable[[], list[dict[str, Any]]] = list
    alerts: Callable[[], list[dict[str, Any]]] = list
    alertmanagers: Callable[[], list[str]] = list
    notifications: Callable[[], list[dict[str, Any]]] = list
    exemplars: Exemplars | None = None
    stored_metadata: Callable[[], Mapping[str, tuple[str, str, str]]] = dict
    admin: Admin | None = None
    blocks: Callable[[], list[dict[str, Any]]] = list
    reload: Callable[[], Awaitable[None]] | None = None
    quit: Callable[[], None] | None = None
    ready: Callable[[], bool] = lambda: True
