"""The rules in force: a base file, and ConfigMaps that add to it. What is wrong is refused alone, and said."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from flyball.errors import ConfigError
from flyball.kube import EventRecorder, Informer, KubeClient
from flyball.kube.kinds import CONFIG_MAPS
from flyball.metricrules import AdapterConfig, ResourceRules, SourceConfig, differences, parse_config

log = logging.getLogger(__name__)

CONFIG_SELECTOR = "flyball.dev/adapter-config=true"
CONFIG_KEY = "config.yaml"


class _ConfigMap(msgspec.Struct):
    metadata: dict[str, Any] = {}
    data: dict[str, str] | None = None


class Configuration:
    """Holds the configurations; ``changed`` is called when what is in force may differ.

    Args:
        text: the base configuration.
        before: a configuration whose rules those of the base hide.
        what: names it in messages.
        namespace: whose labelled ConfigMaps add rules; None is every namespace's.

    Raises:
        ConfigError: the base configuration as a whole cannot be read.
    """

    def __init__(
        self,
        client: KubeClient,
        text: str,
        *,
        before: str = "",
        changed: Callable[[], None],
        what: str = "config",
        watch_config_maps: bool = True,
        namespace: str | None = None,
    ) -> None:
        self._changed = changed
        self._recorder = EventRecorder(client, "flyball-adapter")
        self._events: set[asyncio.Task[None]] = set()
        self._extra: dict[tuple[str, str], AdapterConfig] = {}
        self._refused_maps: dict[tuple[str, str], str] = {}
        self._informer: Informer[_ConfigMap] | None = None
        if watch_config_maps:
            self._informer = Informer(client, CONFIG_MAPS, namespace, label_selector=CONFIG_SELECTOR, type=_ConfigMap)
            self._informer.add_handler(self._config_map_changed)
        self.reloads = 0
        self._base, self._before = parse_config(text, what), parse_config(before, "the default rules")
        self._report_base()

    async def run(self) -> None:
        """Follows the ConfigMaps until cancelled."""
        if self._informer is not None:
            await self._informer.run()

    def set_base(self, text: str, what: str = "config") -> None:
        """Replaces the base configuration.

        Raises:
            ConfigError: the text as a whole cannot be read; the old configuration stays.
        """
        self._base = parse_config(text, what)
        self._report_base()
        self.reloads += 1
        self._changed()

    def _report_base(self) -> None:
        for refusal in self._base.refusals:
            log.warning("adapter_rule_refused rule=%s error=%s", refusal.where, refusal.message)
        for line in differences(self._base):
            log.info("adapter_compatibility %s", line)

    @property
    def all(self) -> list[AdapterConfig]:
        """What is before the base, the base, then the ConfigMaps' by name; of rules that collide the last wins."""
        return [self._before, self._base, *(self._extra[key] for key in sorted(self._extra))]

    @property
    def compatibility(self) -> frozenset[str]:
        """The base configuration's switches: they hold for everybody, so no tenant sets them."""
        return self._base.compatibility

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """The base configuration's metric sources: they hold credentials' paths, so no tenant adds one."""
        return self._base.sources

    @property
    def resource_rules(self) -> ResourceRules | None:
        """The last configuration's that has any."""
        return next((config.resource_rules for config in reversed(self.all) if config.resource_rules), None)

    def refused_documents(self) -> list[dict[str, Any]]:
        """The ConfigMaps that are refused as a whole."""
        return [
            {"rule": f"ConfigMap {key[0]}/{key[1]}", "type": "refused", "error": error}
            for key, error in sorted(self._refused_maps.items())
        ]

    def _config_map_changed(self, _change: str, old: _ConfigMap | None, new: _ConfigMap | None) -> None:
        current = new or old
        if current is None:
            return
        key = (str(current.metadata.get("namespace", "")), str(current.metadata.get("name", "")))
        self._refused_maps.pop(key, None)
        if new is None:
            self._extra.pop(key, None)
        else:
            for problem in self._take(key, new):
                log.warning("adapter_rule_refused config_map=%s/%s error=%s", *key, problem)
                self._tell({"apiVersion": "v1", "kind": "ConfigMap", "metadata": new.metadata}, problem)
        self.reloads += 1
        self._changed()

    def _take(self, key: tuple[str, str], new: _ConfigMap) -> list[str]:
        what = f"ConfigMap {key[0]}/{key[1]}"
        try:
            text = (new.data or {}).get(CONFIG_KEY)
            if text is None:
                raise ConfigError(f'{what}: has no key "{CONFIG_KEY}"; put the rules there')
            parsed = parse_config(text, what)
            if parsed.compatibility or parsed.sources:
                raise ConfigError(f"{what}: compatibility and sources stand in the adapter's own file only")
        except ConfigError as exc:  # as a whole: what it said before stays in force
            self._refused_maps[key] = str(exc)
            return [str(exc)]
        self._extra[key] = parsed
        return [refusal.message for refusal in parsed.refusals]

    def _tell(self, obj: dict[str, Any], problem: str) -> None:
        task = asyncio.create_task(self._recorder.event(obj, "Warning", "RuleRefused", problem), name="adapter event")
        self._events.add(task)
        task.add_done_callback(self._events.discard)
