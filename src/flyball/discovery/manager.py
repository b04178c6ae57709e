"""All discovery of a configuration: every section of every job, joined to one list of groups a job."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from flyball.discovery.endpoints import HttpDiscovery
from flyball.discovery.files import FileDiscovery
from flyball.discovery.names import DnsDiscovery
from flyball.model.scrapeconfigs import DnsSD, FileSD, HttpSD, ScrapeConfig, TargetGroup

log = logging.getLogger(__name__)

OnGroups = Callable[[str, list[TargetGroup]], None]

_RESTART_AFTER_S = 5.0
_KINDS: dict[type, Any] = {FileSD: FileDiscovery, HttpSD: HttpDiscovery, DnsSD: DnsDiscovery}


class Discovery:
    """Runs the file, http and dns sections of the jobs, and joins what Kubernetes discovery finds to them.

    A section that stays the same over a change of configuration goes on, with the groups it has.
    """

    def __init__(self, on_groups: OnGroups) -> None:
        self._on_groups = on_groups
        self._sections: dict[tuple[str, object], asyncio.Task[None]] = {}
        self._groups: dict[str, dict[object, list[TargetGroup]]] = {}

    def set_configs(self, configs: Iterable[ScrapeConfig]) -> None:
        """The jobs from now on; needs a running event loop."""
        wanted: dict[tuple[str, object], Any] = {}
        jobs = set()
        for config in configs:
            jobs.add(config.job_name)
            for sd in (*config.file_sd_configs, *config.http_sd_configs, *config.dns_sd_configs):
                wanted[config.job_name, sd] = sd
        for key in [key for key in self._sections if key not in wanted]:
            self._sections.pop(key).cancel()
            self._groups.get(key[0], {}).pop(key[1], None)
            if key[0] in jobs:
                self._tell(key[0])
        for job in [job for job in self._groups if job not in jobs]:
            del self._groups[job]
        for key, sd in wanted.items():
            if key not in self._sections:
                self._sections[key] = asyncio.get_running_loop().create_task(
                    self._keep_running(key[0], sd), name=f"discovery {key[0]}"
                )

    def set_groups(self, job: str, groups: Sequence[TargetGroup]) -> None:
        """What Kubernetes discovery found for a job."""
        self._publish(job, "kubernetes", groups)

    async def close(self) -> None:
        tasks = list(self._sections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sections.clear()

    async def _keep_running(self, job: str, sd: Any) -> None:
        what = f"{job}: {type(sd).__name__}"
        section = _KINDS[type(sd)](sd, what)
        while True:
            try:
                await section.run(lambda groups: self._publish(job, sd, groups))
            except Exception:
                log.exception("discovery_failed section=%s", what)
                await asyncio.sleep(_RESTART_AFTER_S)

    def _publish(self, job: str, section: object, groups: Sequence[TargetGroup]) -> None:
        sections = self._groups.setdefault(job, {})
        sections[section] = [replace(group, source=f"{_name(section)}/{group.source}") for group in groups]
        self._tell(job)

    def _tell(self, job: str) -> None:
        self._on_groups(job, [group for groups in self._groups.get(job, {}).values() for group in groups])


def _name(section: object) -> str:
    return section if isinstance(section, str) else f"{type(section).__name__}-{hash(section) & 0xFFFFFFFF:x}"
