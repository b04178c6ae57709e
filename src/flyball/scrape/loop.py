"""One target's loop: fetch, parse, relabel, commit; staleness and report series."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from typing import Any

import numpy as np

from flyball import clock
from flyball.errors import ScrapeError, StoreError
from flyball.exposition import (
    NO_TIME,
    TEXT_PROTOCOLS,
    Exposition,
    Format,
    Layout,
    Metadata,
    Samples,
    format_of,
    parse,
    parse_series,
    parse_values,
)
from flyball.model.durations import format_duration
from flyball.model.frames import STALE, Floats, Times
from flyball.model.labels import Labels, labels_of
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.relabel import relabel
from flyball.scrape.fetch import Fetcher
from flyball.scrape.targets import Target
from flyball.store import Head, Plan, Ref, Writer

_REPORT = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)
#: ``(series, exemplar's labels, value, time in ms)``.
TakeExemplar = Callable[[Labels, Labels, float, int], object]

#: A sample's own time may be this far ahead.
_AHEAD_MAX_MS = 600_000


class TargetLoop:
    """Scrapes one target until stopped."""

    def __init__(
        self,
        head: Head,
        config: ScrapeConfig,
        target: Target,
        tls: ssl.SSLContext | None,
        landed: Callable[[Target, int], None],
        exemplars: TakeExemplar | None = None,
        learning: asyncio.Lock | None = None,
    ) -> None:
        self.head = head
        self.config = config
        self.target = target
        self._fetcher = Fetcher(target.url, config, tls)
        self.landed = landed
        self.exemplars = exemplars
        self.learning = learning or asyncio.Lock()
        self.interval_ms = target.interval_ms
        self.metadata: dict[str, Metadata] = {}
        self.health = "unknown"
        self.last_error = ""
        self.last_scrape_ms = 0
        self.last_duration_s = 0.0
        self.failures = 0
        self._writer: Writer = self._open()
        self._report: list[Ref] = []
        self._layout: Layout | None = None
        self._format = Format.TEXT
        self._refused_openmetrics = ""
        self._series: dict[tuple[bytes, str], Labels | None] = {}
        self._known: frozenset[bytes] = frozenset()
        self._order: list[Labels | None] = []
        self._kept = 0
        self._partial = ""
        self._plan: Plan | None = None
        self._failed_plan: Plan | None = None
        self._live: dict[Labels, Ref] = {}
        self._stamped: set[Labels] = set()
        self._wake = asyncio.Event()

    def _open(self) -> Writer:
        return self.head.writer(self.config.job_name, self.interval_ms, self.target.key)

    def set_interval(self, interval_ms: int) -> None:
        """From now on scrape so often; the series go on."""
        if interval_ms == self.interval_ms:
            return
        self.interval_ms = interval_ms
        self._writer.close()
        self._writer = self._open()
        self._report, self._plan, self._failed_plan = [], None, None
        self._live = dict(zip(self._live, self._writer.refs(list(self._live)), strict=True)) if self._live else {}
        self._layout = None
        self._wake.set()

    async def run(self) -> None:
        """Forever; cancel to stop."""
        digest = hashlib.sha256(repr(self.target.key).encode()).digest()
        spread = int.from_bytes(digest[:8], "big")
        while True:
            now_ms = clock.now_ms()
            interval_ms = self.interval_ms
            due_ms = now_ms + (spread % interval_ms - now_ms) % interval_ms
            if due_ms == now_ms:
                due_ms += interval_ms if self.last_scrape_ms == now_ms else 0
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.0, (due_ms - now_ms) / 1000))
                continue  # the interval changed
            except TimeoutError:
                pass
            at_ms = clock.now_ms()
            if abs(at_ms - due_ms) <= max(2, min(interval_ms // 100, 20)):
                at_ms = due_ms  # aligned times compress better and keep rate windows even
            await self.scrape(at_ms)

    async def scrape(self, at_ms: int) -> None:
        """One scrape, dated ``at_ms``. Never raises for what the target does."""
        started = clock.monotonic_s()
        self._partial = ""
        timeout_ms = min(self.target.timeout_ms, self.interval_ms)
        error = ""
        try:
            body, format_ = await self._fetch(timeout_ms)
            duration_s = clock.monotonic_s() - started
            samples, added = self._known_layout(body, format_), None
            if samples is None:
                samples, added = await self._new_layout(body, format_, timeout_ms)
            self._take(samples, at_ms, duration_s, added)
        except (ScrapeError, StoreError) as exc:
            error = f"Get {self.target.url}: {exc}"
        except Exception as exc:
            error = f"Get {self.target.url}: {type(exc).__name__}: {exc}"
        self.last_duration_s = clock.monotonic_s() - started
        self.last_scrape_ms = at_ms
        self.last_error = error or self._partial
        self.health = "down" if error else "up"
        if error:
            self.failures += 1
            try:
                self._fail(at_ms, self.last_duration_s)
            except StoreError as exc:
                self.last_error = f"{error}; {exc}"
        self.landed(self.target, at_ms)

    async def _fetch(self, timeout_ms: int) -> tuple[bytes, Format]:
        protocols = TEXT_PROTOCOLS if self._refused_openmetrics else self.config.scrape_protocols
        body, content_type = await self._fetcher.fetch(timeout_ms, protocols)
        return body, format_of(content_type, self.config.fallback_scrape_protocol)

    def _known_layout(self, body: bytes, format_: Format) -> Samples | None:
        """The samples of a body whose layout is that of the last scrape."""
        if self._layout is None or self._format is not format_ or self._plan is None:
            return None
        return parse_values(self._layout, body)

    async def _new_layout(self, body: bytes, format_: Format, timeout_ms: int) -> tuple[Samples, int]:
        # One after the other, and others' sockets are read in between: a thousand new targets at once would
        # otherwise keep the loop busy until every fetch under way ran into its time-out.
        async with self.learning:
            await asyncio.sleep(0)
            try:
                return self._parse(body, format_)
            except ScrapeError as exc:
                if format_ is not Format.OPENMETRICS or self._refused_openmetrics:
                    raise
                # Go's client library writes OpenMetrics that breaks the standard, and correct text: ask for that.
                self._refused_openmetrics = str(exc)
        body, format_ = await self._fetch(timeout_ms)
        return self._parse(body, format_)

    def _parse(self, body: bytes, format_: Format) -> tuple[Samples, int]:
        """(samples, how many series are new).

        Raises:
            ScrapeError: the body is malformed, or a limit is passed.
        """
        exposition = parse(body, format_, self._known)
        added = self._learn(exposition)
        # Series that were refused are offered again with the next scrape.
        self._layout, self._format = None if self._partial else exposition.layout, format_
        return exposition.samples, added

    def _take(self, samples: Samples, at_ms: int, duration_s: float, added: int | None) -> None:
        plan = self._plan
        assert plan is not None
        values, times, exemplars, _ = samples
        if times is not None and self.config.honor_timestamps:
            self._append_stamped(values, times, at_ms)
        report = np.array([1.0, duration_s, len(self._order), self._kept, added or 0])
        current = self._live if added is None else self._current()
        stale = [] if added is None else [ref for labels, ref in self._live.items() if labels not in current]
        if self._writer.commit(at_ms, plan, np.concatenate([values, report]), stale):
            self._live = current
        if exemplars and self.exemplars is not None:
            for index, exemplar in exemplars:
                labels = self._order[index]
                if labels is not None:
                    time_ms = exemplar.time_ms if exemplar.time_ms is not None else at_ms
                    self.exemplars(labels, labels_of(exemplar.labels), exemplar.value, time_ms)

    def _learn(self, exposition: Exposition) -> int:
        """Takes up a new layout; returns how many series were not there in the last scrape.

        Raises:
            ScrapeError: a limit of the job is passed, or a label set is malformed.
        """
        config = self.config
        known = self._series
        fresh: dict[tuple[bytes, str], Labels | None] = {}
        order: list[Labels | None] = []
        natives = {index for index, _ in exposition.samples.histograms}  # the head takes floats: their classic form
        for index, (text, type_) in enumerate(zip(exposition.series, exposition.types, strict=True)):
            key = (text, type_ if type_ in ("histogram", "summary") else "")
            if index in natives:
                labels = None
            elif key in known:
                labels = known[key]
            elif key in fresh:
                labels = fresh[key]
            else:
                labels = self._labels(parse_series(text, type_))
            fresh[key] = labels
            order.append(labels)
        kept = sum(labels is not None for labels in order)
        if config.sample_limit and kept > config.sample_limit:
            raise ScrapeError(f"{kept} samples, more than the sample_limit of {config.sample_limit}")
        times = exposition.times_ms if config.honor_timestamps else None
        wanted = [
            labels
            for index, labels in enumerate(order)
            if labels is not None and (times is None or times[index] == NO_TIME)
        ]
        refs = self._refs(wanted) if wanted else {}
        plan_refs: list[Ref | None] = [
            refs.get(labels) if labels is not None and (times is None or times[index] == NO_TIME) else None
            for index, labels in enumerate(order)
        ]
        previous = set(self._live) | self._stamped
        added = len({labels for labels in order if labels is not None} - previous)
        self._kept = kept
        self._plan = Plan([*plan_refs, *self._report_refs()])
        self._series, self._order, self.metadata = fresh, order, exposition.metadata
        self._known = frozenset(exposition.series)
        return added

    def _refs(self, wanted: list[Labels]) -> dict[Labels, Ref]:
        """The places of these series. A store that takes no new ones still takes those of the last scrape."""
        try:
            found = dict(zip(wanted, self._writer.refs(wanted), strict=True))
        except StoreError as exc:
            known = [labels for labels in wanted if labels in self._live]
            if not known:
                raise
            found = dict(zip(known, self._writer.refs(known), strict=True))
            self._partial = f"Get {self.target.url}: {exc}"
        return found

    def _labels(self, scraped: dict[str, str]) -> Labels | None:
        config = self.config
        merged = {name: value for name, value in scraped.items() if value}
        for name, value in self.target.labels:
            if name not in merged:
                if not (config.honor_labels and name in scraped):
                    merged[name] = value
            elif not config.honor_labels:
                old = merged[name]
                exported = "exported_" + name
                while exported in merged:
                    exported = "exported_" + exported
                merged[exported], merged[name] = old, value
        found: dict[str, str] | None = merged
        if config.metric_relabel_configs:
            found = relabel(merged, config.metric_relabel_configs)
        if found is None or not found.get("__name__"):
            return None
        if config.label_limit and len(found) > config.label_limit:
            raise ScrapeError(f'"{found["__name__"]}": {len(found)} labels, over the label_limit {config.label_limit}')
        for name, value in found.items():
            if config.label_name_length_limit and len(name.encode()) > config.label_name_length_limit:
                raise ScrapeError(
                    f'"{found["__name__"]}": the label name "{name[:80]}" is over label_name_length_limit'
                )
            if config.label_value_length_limit and len(value.encode()) > config.label_value_length_limit:
                raise ScrapeError(f'"{found["__name__"]}": the value of "{name}" is over label_value_length_limit')
        return labels_of(found)

    def _report_refs(self) -> list[Ref]:
        if not self._report or any(ref.family is None for ref in self._report):
            own = dict(self.target.labels)
            self._report = self._writer.refs([labels_of({**own, "__name__": name}) for name in _REPORT])
        return self._report

    def _current(self) -> dict[Labels, Ref]:
        assert self._plan is not None
        return {
            labels: ref
            for labels, ref in zip(self._order, self._plan.refs, strict=False)
            if labels is not None and ref is not None
        }

    def _append_stamped(self, values: Floats, times: Times, at_ms: int) -> None:
        seen = set()
        for index in np.flatnonzero(times != NO_TIME).tolist():
            labels = self._order[index]
            if labels is None:
                continue
            seen.add(labels)
            own_ms = int(times[index])
            if own_ms <= at_ms + _AHEAD_MAX_MS:
                self.head.append(labels, own_ms, float(values[index]))
        if self.config.track_timestamps_staleness:
            for labels in self._stamped - seen:
                self.head.append(labels, at_ms, float(STALE))
        self._stamped = seen

    def _fail(self, at_ms: int, duration_s: float) -> None:
        if self._failed_plan is None:
            self._failed_plan = Plan(self._report_refs())
        report = np.array([0.0, duration_s, 0.0, 0.0, 0.0])
        self._writer.commit(at_ms, self._failed_plan, report, list(self._live.values()))
        self._live, self._layout = {}, None

    def stop(self, stale: bool) -> None:
        """Ends the target's series; ``stale`` marks them so (not on shutdown)."""
        self.disconnect()
        self._writer.close(clock.now_ms() if stale else None)

    def disconnect(self) -> None:
        """Closes the connection to the target."""
        self._fetcher.close()

    def describe(self) -> dict[str, Any]:
        """The target in the shape of ``/api/v1/targets``."""
        target = self.target
        return {
            "discoveredLabels": dict(target.discovered),
            "labels": dict(target.labels),
            "scrapePool": self.config.job_name,
            "scrapeUrl": target.url,
            "globalUrl": target.url,
            "lastError": self.last_error,
            "lastScrape": clock.rfc3339_micro(self.last_scrape_ms) if self.last_scrape_ms else "0001-01-01T00:00:00Z",
            "lastScrapeDuration": self.last_duration_s,
            "health": self.health,
            "scrapeInterval": format_duration(self.interval_ms),
            "scrapeTimeout": format_duration(min(target.timeout_ms, self.interval_ms)),
        }
