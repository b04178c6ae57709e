"""The scrape manager: jobs and their groups in, target loops out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from flyball import clock
from flyball.errors import ConfigError
from flyball.exposition import load_compiled
from flyball.http.client import tls_context
from flyball.model.scrapeconfigs import ScrapeConfig, TargetGroup
from flyball.scrape.beats import Beats
from flyball.scrape.loop import TargetLoop
from flyball.scrape.pages import KnownPages
from flyball.scrape.targets import Target, build_targets
from flyball.store import Head

_SCRAPES = Counter("flyball_scrapes", "Scrapes that landed, by result.", ["job", "result"])
_TARGETS = Gauge("flyball_scrape_targets", "Targets now scraped.", ["job"])
_COLLECT_EVERY_S = 60.0
_LOOK_EVERY_S = 5.0
#: From so many on the compiled reading of pages is worth its 120 MB: it saves a fifth of a microsecond each.
COMPILED_SAMPLES_PER_S = 25_000
_INTERVAL_MIN_MS = 100

Override = Callable[[Target], int | None]


class ScrapeManager:
    """Scrapes every target of every job into the head, on one event loop; a target has one connection."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._running = False
        self._learning = asyncio.Lock()
        self._beats = Beats()
        self._configs: dict[str, ScrapeConfig] = {}
        self._groups: dict[str, dict[str, TargetGroup]] = {}
        self._loops: dict[str, dict[object, tuple[TargetLoop, asyncio.Task[None]]]] = {}
        self._pages: dict[str, KnownPages] = {}
        self._counted: dict[tuple[str, bool], Counter] = {}
        self._dropped: dict[str, list[dict[str, str]]] = {}
        self._errors: dict[str, list[str]] = {}
        self._override: Override | None = None
        self._listeners: list[Callable[[Target, int], None]] = []

    async def run(self) -> None:
        """Scrapes until cancelled; writes no staleness markers on the way out."""
        self._running = True
        compiling = asyncio.get_running_loop().create_task(self._compile_when_it_pays(), name="scrape compile")
        try:
            for job in list(self._configs):
                self._sync(job)
            while True:
                await asyncio.sleep(_COLLECT_EVERY_S)
                self.head.collect(clock.now_ms())
        finally:
            compiling.cancel()
            running = [pair for loops in self._loops.values() for pair in loops.values()]
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)
            for loop, _ in running:
                loop.disconnect()
            self._loops = {}
            self._running = False

    async def _compile_when_it_pays(self) -> None:
        while self.samples_per_s() < COMPILED_SAMPLES_PER_S:
            await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.to_thread(load_compiled)

    def samples_per_s(self) -> float:
        """How many samples the targets give as they are now."""
        return sum(loop.samples * 1000 / loop.interval_ms for loop in self._all())

    def set_configs(self, configs: Sequence[ScrapeConfig]) -> None:
        """Replaces all jobs. Targets of unchanged jobs go on undisturbed."""
        fresh = {config.job_name: config for config in configs}
        for job in [job for job in self._configs if fresh.get(job) != self._configs[job]]:
            self._stop_job(job, forget=job not in fresh)
        changed = [job for job, config in fresh.items() if self._configs.get(job) != config]
        self._configs = fresh
        for job in changed:
            self._sync(job)

    def set_groups(self, job: str, groups: Sequence[TargetGroup]) -> None:
        """Replaces everything that discovery found for a job."""
        self._groups[job] = {group.source: group for group in groups if group.targets}
        self._sync(job)

    def set_interval(self, override: Override | None) -> None:
        """``override(target)`` gives a target's interval in ms, or None for the job's own. Call again when its answers
        change."""
        self._override = override
        for loop in self._all():
            loop.set_interval(self._interval(loop.target))
        self._tune()

    def _tune(self) -> None:
        self._beats.tune(sum(1000 / loop.interval_ms for loop in self._all()))

    def _all(self) -> list[TargetLoop]:
        return [loop for loops in self._loops.values() for loop, _ in loops.values()]

    def add_listener(self, listener: Callable[[Target, int], None]) -> None:
        """``listener(target, at_ms)`` after every scrape, failed or not."""
        self._listeners.append(listener)

    def _interval(self, target: Target) -> int:
        wanted = self._override(target) if self._override is not None else None
        return max(_INTERVAL_MIN_MS, wanted) if wanted is not None else target.interval_ms

    def _stop_job(self, job: str, forget: bool) -> None:
        for loop, task in self._loops.pop(job, {}).values():
            task.cancel()
            loop.stop(stale=True)
        for kept in (self._dropped, self._errors, self._pages):
            kept.pop(job, None)
        _TARGETS.labels(job).set(0)
        if forget:
            self._groups.pop(job, None)

    def _sync(self, job: str) -> None:
        config = self._configs.get(job)
        if config is None or not self._running:
            return
        groups = [*config.static_groups(), *self._groups.get(job, {}).values()]
        targets, dropped, errors = build_targets(config, groups)
        said = [str(error) for error in errors]
        if config.target_limit and len(targets) > config.target_limit:
            said.append(f'job "{job}": {len(targets)} targets, more than the target_limit of {config.target_limit}')
            targets = []
        try:
            tls = tls_context(config.tls) if config.tls is not None else None
        except (OSError, ValueError, ConfigError) as exc:
            said.append(f'job "{job}": tls_config: {exc}')
            targets = []
        self._dropped[job], self._errors[job] = dropped, said
        running = self._loops.setdefault(job, {})
        self._pages.setdefault(job, KnownPages())
        for well, result in ((True, "ok"), (False, "error")):
            self._counted[job, well] = _SCRAPES.labels(job, result)
        wanted = {target.key: target for target in targets}
        for key in [key for key in running if key not in wanted]:
            loop, task = running.pop(key)
            task.cancel()
            loop.stop(stale=True)
        for key, target in wanted.items():
            if key in running:
                running[key][0].target = target  # __meta_ labels may have changed
                running[key][0].set_interval(self._interval(target))
                continue
            loop = TargetLoop(
                self.head,
                config,
                target,
                tls,
                self._landed,
                learning=self._learning,
                pages=self._pages[job],
                beats=self._beats,
            )
            loop.set_interval(self._interval(target))
            running[key] = (loop, asyncio.get_running_loop().create_task(loop.run(), name=f"scrape {target.url}"))
        self._tune()
        _TARGETS.labels(job).set(len(running))

    def _landed(self, loop: TargetLoop, at_ms: int) -> None:
        self._counted[loop.config.job_name, not loop.last_error].inc()
        for listener in self._listeners:
            listener(loop.target, at_ms)

    def running(self) -> list[Target]:
        """The targets that are scraped now."""
        return [loop.target for loop in self._all()]

    def targets(self) -> list[dict[str, Any]]:
        """Active targets in the shape of ``/api/v1/targets``."""
        return [loop.describe() for loop in self._all()]

    def dropped_targets(self) -> list[dict[str, Any]]:
        """Targets that relabelling dropped, at most ``keep_dropped_targets`` (100 when unset) a job."""
        return [
            {"discoveredLabels": labels, "scrapePool": job}
            for job, dropped in self._dropped.items()
            for labels in dropped[: self._configs[job].keep_dropped_targets or 100]
        ]

    def dropped_counts(self) -> dict[str, int]:
        """How many targets relabelling dropped, by job."""
        return {job: len(dropped) for job, dropped in self._dropped.items()}

    def describe(self) -> dict[str, Any]:
        """The data of ``/api/v1/targets``."""
        return {
            "activeTargets": self.targets(),
            "droppedTargets": self.dropped_targets(),
            "droppedTargetCounts": self.dropped_counts(),
        }

    def pools(self) -> dict[str, ScrapeConfig]:
        """The jobs in force by name."""
        return dict(self._configs)

    def errors(self) -> dict[str, list[str]]:
        """What is wrong with jobs and targets that cannot be scraped at all, by job."""
        return {job: list(said) for job, said in self._errors.items() if said}

    def metadata(self) -> list[tuple[Mapping[str, str], str, str, str, str]]:
        """(target labels, metric, type, help, unit) of every family of every target."""
        return [
            (dict(loop.target.labels), name, found.type, found.help, found.unit)
            for loop in self._all()
            for name, found in loop.metadata.items()
        ]

    def statistics(self) -> dict[str, int]:
        """Sizes and counters."""
        loops = self._all()
        return {
            "jobs": len(self._configs),
            "targets": len(loops),
            "up": sum(loop.health == "up" for loop in loops),
            "failures_total": sum(loop.failures for loop in loops),
            "dropped": sum(map(len, self._dropped.values())),
        }
