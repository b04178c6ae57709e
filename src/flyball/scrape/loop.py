"""One target's loop: fetch, parse, relabel, commit; staleness and report series."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import numpy as np
from prometheus_client import Counter

from flyball import clock
from flyball.errors import ScrapeError, ScrapeLimitError, StoreError
from flyball.exposition import (
    NO_TIME,
    TEXT_PROTOCOLS,
    Exposition,
    Format,
    Metadata,
    Samples,
    finest_schema,
    format_of,
    limited,
    parse,
    parse_values,
)
from flyball.http.tokens import TokenSource
from flyball.model.durations import format_duration
from flyball.model.frames import STALE
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels, labels_of
from flyball.model.scrapeconfigs import ScrapeConfig
from flyball.scrape.beats import Beats, settle
from flyball.scrape.fetch import Fetcher
from flyball.scrape.pages import KnownPages
from flyball.scrape.series import stored_labels
from flyball.scrape.targets import Target
from flyball.store import Head, Plan, Ref, Writer

_REPORT = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)
#: So many new series are worked out before others have their turn.
_FRESH_AT_ONCE = 250
#: A sample's own time may be this far ahead.
_AHEAD_MAX_MS = 600_000


_OUT_OF_BOUNDS = Counter(
    "prometheus_target_scrapes_sample_out_of_bounds", "Samples refused, for their own time is too far ahead."
)
_OUT_OF_ORDER = Counter("prometheus_target_scrapes_sample_out_of_order", "Samples refused, for newer ones are there.")


class TargetLoop:
    """Scrapes one target until stopped.

    Args:
        landed: called after every scrape, failed or not.
        learning: held while a page is met for the first time; the targets of a manager share it.
        pages: what targets of the job have in common.
        beats: when the targets of a manager are scraped.
        tokens: the job's, for ``oauth2``.
    """

    def __init__(
        self,
        head: Head,
        config: ScrapeConfig,
        target: Target,
        tls: ssl.SSLContext | None,
        landed: Callable[["TargetLoop", int], None],
        *,
        learning: asyncio.Lock | None = None,
        pages: KnownPages | None = None,
        beats: Beats | None = None,
        tokens: TokenSource | None = None,
    ) -> None:
        self.head = head
        self.config = config
        self.target = target
        self._fetcher = Fetcher(target.url, config, tls, tokens)
        self.landed = landed
        self.learning = learning or asyncio.Lock()
        self.pages = pages or KnownPages()
        self.beats = beats or Beats()
        self.interval_ms = target.interval_ms
        self.health = "unknown"
        self.last_error = ""
        self.last_limit = ""  # the setting that the last answer passed
        self.last_scrape_ms = 0
        self.last_wait_ms: int | None = None  # between the last scrape and the one before
        self.last_duration_s = 0.0
        self.failures = 0
        self._schema_max = finest_schema(config.native_histogram_min_bucket_factor)
        self._writer: Writer = self._open()
        self._report: list[Ref] = []
        self._failed_plan: Plan | None = None
        self._format = Format.TEXT
        self._refused_openmetrics = ""
        self._page: Exposition | None = None
        self._labels: list[Labels | None] = []  # of the page's series; None: relabelling drops it
        self._kept = 0
        self._distinct = 0  # series of the page that are kept
        self._scattered: list[int] = []  # series of the page that do not fit the matrix
        self._plan: Plan | None = None  # None: the page must be learned before it is taken
        self._partial = ""
        self._live: Plan | None = None  # whose series go on
        self._live_scattered: dict[Labels, bool] = {}  # whether their end is marked
        self._waiting: asyncio.Future[bool] | None = None

    def _open(self) -> Writer:
        return self.head.writer(self.config.job_name, self.interval_ms, self.target.key)

    @property
    def metadata(self) -> Mapping[str, Metadata]:
        """What the target last said of its families."""
        return self._page.metadata if self._page is not None else {}

    @property
    def samples(self) -> int:
        """How many samples the page has."""
        return len(self._labels)

    def set_interval(self, interval_ms: int) -> None:
        """From now on scrape so often; the series go on."""
        if interval_ms == self.interval_ms:
            return
        self.interval_ms = interval_ms
        live = [ref.labels for ref in self._live_refs()]
        self._writer.close()
        self._writer = self._open()
        self._report, self._plan, self._failed_plan = [], None, None
        self._live = Plan([*self._writer.refs(live), *self._report_refs()]) if live else None
        if self._waiting is not None:
            settle(self._waiting, False)

    async def run(self) -> None:
        """Forever; cancel to stop."""
        digest = hashlib.sha256(repr(self.target.key).encode()).digest()
        spread = int.from_bytes(digest[:8], "big")
        while True:
            interval_ms = self.interval_ms
            due_ms = self.beats.next_ms(spread, interval_ms, clock.now_ms())
            if due_ms == self.last_scrape_ms:
                due_ms += interval_ms
            self._waiting = self.beats.wait(due_ms)
            if not await self._waiting:
                continue  # the interval changed
            self._waiting = None
            at_ms = clock.now_ms()
            if abs(at_ms - due_ms) <= max(2, min(interval_ms // 100, 20)):
                at_ms = due_ms  # aligned times compress better and keep rate windows even
            await self.scrape(at_ms)
            self.beats.precedence.landed()

    async def scrape(self, at_ms: int) -> None:
        """One scrape, dated ``at_ms``. Never raises for what the target does."""
        started = clock.monotonic_s()
        self._partial = self.last_limit = ""
        timeout_ms = min(self.target.timeout_ms, self.interval_ms)
        error = ""
        try:
            body, format_ = await self._fetch(timeout_ms)
            duration_s = clock.monotonic_s() - started
            samples, added = self._same_page(body, format_), None
            if samples is None:
                samples, added = await self._new_page(body, format_, timeout_ms)
            self._take(samples, at_ms, duration_s, added)
        except (ScrapeError, StoreError) as exc:
            error = f"Get {self.target.url}: {exc}"
            self.last_limit = exc.limit if isinstance(exc, ScrapeLimitError) else ""
        except Exception as exc:
            error = f"Get {self.target.url}: {type(exc).__name__}: {exc}"
        self.last_duration_s = clock.monotonic_s() - started
        self.last_wait_ms = at_ms - self.last_scrape_ms if self.last_scrape_ms else None
        self.last_scrape_ms = at_ms
        self.last_error = error or self._partial
        self.health = "down" if error else "up"
        if error:
            self.failures += 1
            try:
                self._fail(at_ms, self.last_duration_s)
            except StoreError as exc:
                self.last_error = f"{error}; {exc}"
        self.landed(self, at_ms)

    async def _fetch(self, timeout_ms: int) -> tuple[bytes, Format]:
        protocols = TEXT_PROTOCOLS if self._refused_openmetrics else self.config.scrape_protocols
        body, content_type = await self._fetcher.fetch(timeout_ms, protocols)
        return body, format_of(content_type, self.config.fallback_scrape_protocol)

    def _same_page(self, body: bytes, format_: Format) -> Samples | None:
        """The samples of a body whose lines are those of the last scrape."""
        if self._plan is None or self._format is not format_ or self._page is None or self._page.layout is None:
            return None
        return parse_values(self._page.layout, body)

    async def _new_page(self, body: bytes, format_: Format, timeout_ms: int) -> tuple[Samples, int]:
        try:
            return await self._read(body, format_)
        except ScrapeError as exc:
            if format_ is not Format.OPENMETRICS or self._refused_openmetrics:
                raise
            # Go's client library writes OpenMetrics that breaks the standard, and correct text: ask for that.
            self._refused_openmetrics = str(exc)
        return await self._read(*await self._fetch(timeout_ms))

    async def _read(self, body: bytes, format_: Format) -> tuple[Samples, int]:
        """(samples, how many series are new).

        Raises:
            ScrapeError: the body is malformed, or a limit is passed.
        """
        # One after the other, and others' sockets are read in between: a thousand new targets at once would
        # otherwise keep the loop busy until every fetch under way ran into its time-out.
        async with self.learning:
            await asyncio.sleep(0)
            page, samples = self._page_of(body, format_)
            added = await self._learn(page, samples)
        self._format = format_
        return samples, added

    def _page_of(self, body: bytes, format_: Format) -> tuple[Exposition, Samples]:
        found = self.pages.find(body, format_)
        if found is None:
            config = self.config
            exposition = parse(
                body,
                format_,
                frozenset(self._page.series) if self._page is not None else (),
                native=config.scrape_native_histograms,
                classic=config.always_scrape_classic_histograms,
                custom=config.convert_classic_histograms_to_nhcb,
            )
            found = self.pages.add(exposition, format_), exposition.samples
        return found

    async def _learn(self, page: Exposition, samples: Samples) -> int:
        """Takes up a page; returns how many series were not there in the last scrape.

        Raises:
            ScrapeError: a limit of the job is passed, or a label set is malformed.
        """
        config = self.config
        labels = await self._stored_labels(page)
        kept = sum(one is not None for one in labels)
        if config.sample_limit and kept > config.sample_limit:
            text = f"{kept} samples, more than the sample_limit of {config.sample_limit}"
            raise ScrapeLimitError("sample_limit", text)
        scattered = {index for index, _ in samples.histograms} | page.natives
        if samples.times_ms is not None and config.honor_timestamps:
            scattered.update(np.flatnonzero(samples.times_ms != NO_TIME).tolist())
        live = {ref.labels for ref in self._live_refs()}
        in_matrix = [one if index not in scattered else None for index, one in enumerate(labels)]
        refs = self._refs([one for one in in_matrix if one is not None], live)
        distinct = {one for one in labels if one is not None}
        added = len(distinct - live - self._live_scattered.keys())
        self._plan = Plan([*(refs.get(one) if one is not None else None for one in in_matrix), *self._report_refs()])
        if page is not self._page:
            self.head.describe(page.metadata)
        self._page, self._labels, self._kept, self._distinct = page, labels, kept, len(distinct)
        self._scattered = sorted(index for index in scattered if labels[index] is not None)
        return added

    async def _stored_labels(self, page: Exposition) -> list[Labels | None]:
        """The labels of the page's series; what the last page had is not worked out again."""
        if page is self._page:
            return self._labels
        known = dict(zip(_keys(self._page), self._labels, strict=True)) if self._page is not None else {}
        pairs: dict[tuple[str, str], tuple[str, str]] = {}  # most labels are those of many series
        found = []
        fresh = 0
        for key in _keys(page):
            if key not in known:
                fresh += 1
                if fresh % _FRESH_AT_ONCE == 0:
                    await asyncio.sleep(0)
                labels = stored_labels(*key, self.target.labels, self.config)
                known[key] = tuple([pairs.setdefault(pair, pair) for pair in labels]) if labels is not None else None
            found.append(known[key])
        return found

    def _refs(self, wanted: list[Labels], live: Set[Labels]) -> dict[Labels, Ref]:
        """The places of these series. A store that takes no new ones still takes those of the last scrape."""
        try:
            return dict(zip(wanted, self._writer.refs(wanted), strict=True))
        except StoreError as exc:
            known = [labels for labels in wanted if labels in live]
            if not known:
                raise
            self._partial = f"Get {self.target.url}: {exc}"
            return dict(zip(known, self._writer.refs(known), strict=True))

    def _take(self, samples: Samples, at_ms: int, duration_s: float, added: int | None) -> None:
        """``added`` is None for the page of the last scrape."""
        plan = self._plan
        assert plan is not None
        if self._scattered or self._live_scattered:
            self._append_scattered(samples, at_ms)
        missing: Set[int] = frozenset()
        if self._page is not None and self._page.natives:
            missing = self._page.natives.difference(index for index, _ in samples.histograms)
        scraped = len(self._labels) - len(missing)
        kept = self._kept - sum(self._labels[index] is not None for index in missing)
        fresh = self._distinct if added is None and self._live is None else added or 0  # after a failure all begin anew
        report = (1.0, duration_s, scraped, kept, fresh)
        values = np.empty(len(samples.values) + len(report))
        values[: -len(report)], values[-len(report) :] = samples.values, report
        ended = () if added is None else set(self._live_refs()).difference(plan.refs)
        if self._writer.commit(at_ms, plan, values, ended):
            self._live = plan
        elif added is not None:
            self._plan = None  # what ended must be found once more
        if self._partial:
            self._plan = None  # series that were refused are offered again with the next scrape
        if samples.exemplars:
            self.head.append_exemplars(
                [
                    (labels, labels_of(found.labels), found.value, at_ms if found.time_ms is None else found.time_ms)
                    for index, found in samples.exemplars
                    if (labels := self._labels[index]) is not None
                ]
            )

    def _live_refs(self) -> list[Ref]:
        return [ref for ref in self._live.refs[: -len(_REPORT)] if ref is not None] if self._live is not None else []

    def _report_refs(self) -> list[Ref]:
        if not self._report or any(ref.family is None for ref in self._report):
            own = dict(self.target.labels)
            self._report = self._writer.refs([labels_of({**own, "__name__": name}) for name in _REPORT])
        return self._report

    def _append_scattered(self, samples: Samples, at_ms: int) -> None:
        """Samples with a time of their own, and native histograms: series by series."""
        histograms = {
            index: limited(histogram, self.config.native_histogram_bucket_limit, self._schema_max)
            for index, histogram in samples.histograms
        }
        natives = self._page.natives if self._page is not None else ()
        times = samples.times_ms if self.config.honor_timestamps else None
        floats_taken: list[tuple[Labels, int, float]] = []
        histograms_taken: list[tuple[Labels, int, Histogram]] = []
        seen: dict[Labels, bool] = {}
        for index in self._scattered:
            labels = self._labels[index]
            own_ms = NO_TIME if times is None else int(times[index])
            time_ms = at_ms if own_ms == NO_TIME else own_ms
            if labels is None or (index in natives and index not in histograms):
                continue
            seen[labels] = own_ms == NO_TIME or self.config.track_timestamps_staleness
            if time_ms > at_ms + _AHEAD_MAX_MS:
                _OUT_OF_BOUNDS.inc()
                continue
            if index in histograms:
                histograms_taken.append((labels, time_ms, histograms[index]))
            else:
                floats_taken.append((labels, time_ms, float(samples.values[index])))
        late = self.head.late_samples
        self.head.append_histograms(histograms_taken)
        self.head.append_all(floats_taken)
        _OUT_OF_ORDER.inc(self.head.late_samples - late)
        self._end_scattered(at_ms, seen)

    def _end_scattered(self, at_ms: int, seen: dict[Labels, bool]) -> None:
        gone = [labels for labels, marked in self._live_scattered.items() if marked and labels not in seen]
        self.head.append_all([(labels, at_ms, float(STALE)) for labels in gone])
        self._live_scattered = seen

    def _fail(self, at_ms: int, duration_s: float) -> None:
        if self._failed_plan is None:
            self._failed_plan = Plan(self._report_refs())
        self._end_scattered(at_ms, {})
        ended, self._live = self._live_refs(), None
        self._writer.commit(at_ms, self._failed_plan, np.array([0.0, duration_s, 0.0, 0.0, 0.0]), ended)

    def stop(self, stale: bool) -> None:
        """Ends the target's series; ``stale`` marks them so (not on shutdown)."""
        self.disconnect()
        if stale:
            self._end_scattered(clock.now_ms(), {})
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


def _keys(page: Exposition) -> Iterator[tuple[bytes, str]]:
    """What decides the labels of each series: its text, and the types that change how labels are read."""
    return zip(page.series, (type_ if type_ in ("histogram", "summary") else "" for type_ in page.types), strict=True)
