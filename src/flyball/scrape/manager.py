"""The scrape manager: jobs and their groups in, target loops out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import Counter, Gauge, Summary

from flyball import clock
from flyball.errors import ConfigError
from flyball.exposition import load_compiled
from flyball.http.client import tls_context
from flyball.http.tokens import TokenSource
from flyball.model.durations import format_duration
from flyball.model.scrapeconfigs import ScrapeConfig, TargetGroup
from flyball.scrape.beats import Beats
from flyball.scrape.loop import TargetLoop
from flyball.scrape.pages import KnownPages
from flyball.scrape.precedence import Precedence
from flyball.scrape.targets import Target, build_targets
from flyball.store import Head

_SCRAPES = Counter("flyball_scrapes", "Scrapes that landed, by result.", ["job", "result"])
_TARGETS = Gauge("flyball_scrape_targets", "Targets now scraped.", ["job"])
_EXCEEDED = {
    "body_size_limit": Counter(
        "prometheus_target_scrapes_exceeded_body_size_limit", "Scrapes that failed, for the body was too large."
    ),
    "sample_limit": Counter(
        "prometheus_target_scrapes_exceeded_sample_limit", "Scrapes that failed, for there were too many samples."
    ),
    "native_histogram_bucket_limit": Counter(
        "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit",
        "Scrapes that failed, for a native histogram had too many buckets.",
    ),
    "label_limit": Counter(
        "prometheus_target_scrape_pool_exceeded_label_limits", "Scrapes that failed, for labels were too many or long."
    ),
    "target_limit": Counter("prometheus_target_scrape_pool_exceeded_target_limit", "Jobs that found too many targets."),
}
_INTERVALS = Summary("prometheus_target_interval_length_seconds", "Time between scrapes of a target.", ["interval"])
_SYNCS = Summary("prometheus_target_sync_length_seconds", "Time that a job took to follow discovery.", ["scrape_job"])
_SYNCS_FAILED = Counter("prometheus_target_sync_failed", "Targets that cannot be scraped at all.", ["scrape_job"])
#: By job, as long as there is one.
_POOLS = {
    "targets": Gauge("prometheus_target_scrape_pool_targets", "Targets now scraped.", ["scrape_job"]),
    "limit": Gauge("prometheus_target_scrape_pool_target_limit", "The most of them, 0: no limit.", ["scrape_job"]),
    "families": Gauge("prometheus_target_metadata_cache_entries", "Families whose types are known.", ["scrape_job"]),
}
_DISCOVERED = Gauge("prometheus_sd_discovered_targets", "Targets found, before relabelling.", ["name", "config"])
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
        self._tokens: dict[str, TokenSource | None] = {}
        self._counted: dict[tuple[str, bool], Counter] = {}
        self._dropped: dict[str, list[dict[str, str]]] = {}
        self._errors: dict[str, list[str]] = {}
        self._override: Override | None = None
        self._listeners: list[Callable[[Target, int], None]] = []
        self._intervals: dict[int, Any] = {}

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

    @property
    def precedence(self) -> Precedence:
        """Of the scrapes over whatever computes in threads."""
        return self._beats.precedence

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
        for kept in (self._dropped, self._errors, self._pages, self._tokens):
            kept.pop(job, None)
        _TARGETS.labels(job).set(0)
        for gauge in _POOLS.values():
            gauge.remove(job)
        _DISCOVERED.remove("scrape", job)
        if forget:
            self._groups.pop(job, None)

    def _sync(self, job: str) -> None:
        config = self._configs.get(job)
        if config is not None and self._running:
            with _SYNCS.labels(job).time():
                self._follow(job, config)

    def _follow(self, job: str, config: ScrapeConfig) -> None:
        groups = [*config.static_groups(), *self._groups.get(job, {}).values()]
        targets, dropped, errors = build_targets(config, groups)
        said = [str(error) for error in errors]
        if config.target_limit and len(targets) > config.target_limit:
            said.append(f'job "{job}": {len(targets)} targets, more than the target_limit of {config.target_limit}')
            _EXCEEDED["target_limit"].inc()
            targets = []
        try:
            tls = tls_context(config.http.tls) if config.http.tls is not None else None
        except (OSError, ValueError, ConfigError) as exc:
            said.append(f'job "{job}": tls_config: {exc}')
            targets = []
        self._dropped[job], self._errors[job] = dropped, said
        _SYNCS_FAILED.labels(job).inc(len(errors))
        _DISCOVERED.labels("scrape", job).set(sum(len(group.targets) for group in groups))
        if job not in self._tokens:
            self._tokens[job] = TokenSource(config.http.oauth2) if config.http.oauth2 is not None else None
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
                tokens=self._tokens[job],
                beats=self._beats,
            )
            loop.set_interval(self._interval(target))
            running[key] = (loop, asyncio.get_running_loop().create_task(loop.run(), name=f"scrape {target.url}"))
        self._tune()
        _TARGETS.labels(job).set(len(running))
        _POOLS["targets"].labels(job).set(len(running))
        _POOLS["limit"].labels(job).set(config.target_limit)
        _POOLS["families"].labels(job).set_function(partial(self._families, job))

    def _families(self, job: str) -> int:
        return sum(len(loop.metadata) for loop, _ in list(self._loops.get(job, {}).values()))

    def _landed(self, loop: TargetLoop, at_ms: int) -> None:
        self._counted[loop.config.job_name, not loop.last_error].inc()
        if loop.last_limit:
            _EXCEEDED[loop.last_limit].inc()
        if loop.last_wait_ms is not None:
            lengths = self._intervals.get(loop.interval_ms)
            if lengths is None:
                lengths = _INTERVALS.labels(format_duration(loop.interval_ms))
                self._intervals[loop.interval_ms] = lengths
            lengths.observe(loop.last_wait_ms / 1000)
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
