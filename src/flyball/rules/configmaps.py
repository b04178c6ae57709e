"""The rule files that the operator wrote."""

import logging
from collections.abc import Callable
from typing import Any

from flyball.errors import ConfigError
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import CONFIG_MAPS
from flyball.rules.rulefiles import Group, parse_rule_file

log = logging.getLogger(__name__)

NAMESPACE = "flyball-system"
SELECTOR = "flyball.dev/rulefiles=true"


class RuleFiles:
    """Watches the operator's ConfigMaps. A file that cannot be read keeps the groups it had."""

    def __init__(self, client: KubeClient, namespace: str = NAMESPACE) -> None:
        self._informer: Informer[dict[str, Any]] = Informer(client, CONFIG_MAPS, namespace, label_selector=SELECTOR)
        self._read: dict[str, tuple[str, tuple[Group, ...]]] = {}

    async def run(self, changed: Callable[[list[Group]], None]) -> None:
        """Calls ``changed`` with every group after each change."""
        self._informer.add_handler(lambda *_: changed(self._groups()))
        await self._informer.run()

    def _groups(self) -> list[Group]:
        known, self._read = self._read, {}
        for _, config_map in sorted(self._informer.cache.items()):
            for file, text in sorted((config_map.get("data") or {}).items()):
                old = known.get(file)
                if old is not None and old[0] == text:
                    self._read[file] = old
                    continue
                try:
                    self._read[file] = (text, parse_rule_file(text, file))
                except ConfigError as exc:
                    log.warning("rule_file_refused error=%s", exc)
                    if old is not None:
                        self._read[file] = (text, old[1])
        return [group for _, groups in self._read.values() for group in groups]


__all__ = ["RuleFiles"]
