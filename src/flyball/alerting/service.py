"""One Alertmanager: takes alerts and silences, and tells receivers. The shell around the pure parts.

What must survive a kill, silences and the notification log, is on disk before it is acknowledged, or before the next
notification. Alerts are not kept: their senders repeat them.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from flyball import __version__, clock
from flyball.alerting.alerts import Alert, merge
from flyball.alerting.config import Config, Receiver
from flyball.alerting.delivery import Send, send
from flyball.alerting.dispatching import Dispatcher, Flush
from flyball.alerting.documents import entry_document, read_entry_document, read_silence_document, silence_document
from flyball.alerting.inhibition import Inhibitor
from flyball.alerting.matchers import Mode
from flyball.alerting.metrics import Metrics
from flyball.alerting.notificationlog import Entry, NotificationLog, Reason, Telling, why
from flyball.alerting.receivers.sending import DeliveryError, Integration, Notification
from flyball.alerting.silences import Silence, Silences, State
from flyball.alerting.templates import Templates
from flyball.alerting.timeintervals import containing
from flyball.errors import FlyballError, QueryError
from flyball.journal.records import Records
from flyball.model.labels import Labels

log = logging.getLogger(__name__)

#: A notification may take at least so long, however short ``group_interval`` is.
FLUSH_TIMEOUT_MIN_MS = 10_000
BACKOFF_S, BACKOFF_FACTOR, BACKOFF_MAX_S = 0.5, 1.5, 60.0
ALERTS_MAX = 200_000
SILENCE, ENTRY = "silence", "entry"
_encode = msgspec.json.encode


class Peers(Protocol):
    """The other replicas, as alerting sees them."""

    @property
    def wait_s(self) -> float:
        """How long to let the replicas before this one tell."""

    async def wait_settled(self) -> None:
        """Until the others have said what they know, or cannot be reached."""

    def changed(self, silences: Sequence[Silence], entries: Sequence[Entry]) -> None:
        """Tells the others what changed here."""


class Alone:
    """No other replicas."""

    wait_s = 0.0

    async def wait_settled(self) -> None:
        return

    def changed(self, silences: Sequence[Silence], entries: Sequence[Entry]) -> None:
        return


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    start_delay_ms: nobody is told anything for so long, while senders repeat their alerts.
    """

    external_url: str = ""
    retention_ms: int = 120 * 3_600_000
    start_delay_ms: int = 0
    maintenance_interval_ms: int = 15 * 60_000
    silences_max: int = 0
    mode: Mode = Mode.FALLBACK


@dataclass(slots=True)
class Attempt:
    """How the last delivery of an integration went; ``error`` is empty when it arrived."""

    at_ms: int
    took_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Why an alert is not told of; all empty when it is."""

    silenced_by: tuple[str, ...] = ()
    inhibited_by: tuple[str, ...] = ()


class Alertmanager:
    """``apply`` gives it a configuration, ``run`` makes it tell.

    Args:
        records: where what must last is written; None for nowhere.
        send, now_ms, jitter: how to deliver, what time it is, and a number around 1 that spreads retries.
    """

    def __init__(
        self,
        config: Config,
        settings: Settings,
        *,
        templates: Templates | None = None,
        records: Records | None = None,
        send: Send = send,
        now_ms: Callable[[], int] = clock.now_ms,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5),
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(__version__)
        self.started_ms = now_ms()
        self.alerts: dict[Labels, Alert] = {}
        self.silences = Silences(settings.retention_ms)
        self.log = NotificationLog(settings.retention_ms)
        self.attempts: dict[str, Attempt] = {}
        self.muted_by: dict[tuple[str, Labels], tuple[str, ...]] = {}
        self.peers: Peers = Alone()
        self.now_ms = now_ms
        self._records, self._send, self._jitter = records, send, jitter
        self._wake = asyncio.Event()
        self._flushes: set[asyncio.Task[None]] = set()
        if records is not None:
            self._load(records)
        self.apply(config, templates)

    def _load(self, records: Records) -> None:
        now_ms = self.now_ms()
        self.silences.merge(_readable(records.all(SILENCE), read_silence_document), now_ms)
        self.log.merge(_readable(records.all(ENTRY), read_entry_document), now_ms)

    # -- configuration

    def apply(self, config: Config, templates: Templates | None = None) -> None:
        """Takes a configuration over: alerts are grouped anew, what is being told is broken off and told again."""
        now_ms = self.now_ms()
        for task in self._flushes:
            task.cancel()
        self.config, self.templates = config, templates or Templates()
        self.dispatcher = Dispatcher(config.route, self.started_ms + self.settings.start_delay_ms)
        self.inhibitor = Inhibitor(config.inhibit_rules)
        self.muted_by.clear()
        for alert in self.alerts.values():
            self.inhibitor.put(alert)
            self.dispatcher.put(alert, now_ms)
        integrations = [one for receiver in config.receivers.values() for one in receiver.integrations]
        self.metrics.known({one.kind for one in integrations})
        self.metrics.receivers.set(len(config.receivers))
        self.metrics.integrations.set(len(integrations))
        self.metrics.config_hash.set(int.from_bytes(hashlib.sha256(config.text.encode()).digest()[:6]))
        self.metrics.config_ok.set(1)
        self.metrics.config_at.set(now_ms / 1000)
        known = {key for receiver in config.receivers.values() for key, _ in keyed(receiver)}
        self.attempts = {key: attempt for key, attempt in self.attempts.items() if key in known}
        for problem in config.problems:
            log.error("%s", problem)
        self._wake.set()

    def refused(self) -> None:
        """A configuration was wrong; the one in force stays."""
        self.metrics.config_ok.set(0)

    # -- alerts and silences

    def put_alerts(self, alerts: Iterable[Alert]) -> None:
        """Takes alerts; one that is known is merged with what is known of it."""
        now_ms = self.now_ms()
        for alert in alerts:
            known = self.alerts.get(alert.labels)
            if known is None and len(self.alerts) >= ALERTS_MAX:
                log.error("alert_refused alert=%s reason=more than %d alerts", alert.name, ALERTS_MAX)
                continue
            alert = merge(known, alert, now_ms) if known is not None else alert
            self.alerts[alert.labels] = alert
            self.inhibitor.put(alert)
            self.dispatcher.put(alert, now_ms)
        self._wake.set()

    def put_silence(self, silence: Silence) -> str:
        """Its id; a silence that cannot be altered in place ends, and another begins.

        Raises:
            QueryError: it is not valid, or there are too many.
            NotFoundError: there is none of its id.
        """
        limit = self.settings.silences_max
        if 0 < limit <= len(self.silences) and not silence.id:
            raise QueryError(f"exceeded maximum number of silences: {len(self.silences)} (limit: {limit})")
        changed = self.silences.put(silence, self.now_ms(), self.settings.mode)
        self._keep(changed, ())
        return changed[-1].id

    def expire_silence(self, id_: str) -> None:
        """
        Raises:
            NotFoundError: there is none of this id.
        """
        self._keep(self.silences.expire(id_, self.now_ms()), ())

    def heard(self, silences: Iterable[Silence], entries: Iterable[Entry]) -> tuple[list[Silence], list[Entry]]:
        """Takes what a peer knows; returns what was new here."""
        now_ms = self.now_ms()
        new = self.silences.merge(silences, now_ms), self.log.merge(entries, now_ms)
        self._write(*new)
        return new

    def _keep(self, silences: Sequence[Silence], entries: Sequence[Entry]) -> None:
        self._write(silences, entries)
        self.peers.changed(silences, entries)

    def _write(self, silences: Sequence[Silence], entries: Sequence[Entry]) -> None:
        if self._records is None:
            return
        if silences:
            self._records.put(SILENCE, [(one.id, _encode(silence_document(one))) for one in silences])
        if entries:
            self._records.put(ENTRY, [(one.key, _encode(entry_document(one))) for one in entries])

    def status(self, labels: Labels) -> Status:
        """Whether, and by what, an alert is kept from being told of."""
        now_ms = self.now_ms()
        inhibited_by = self.inhibitor.inhibited_by(labels, now_ms)
        return Status(self.silences.silenced_by(labels, now_ms), (inhibited_by,) if inhibited_by else ())

    # -- telling

    async def run(self) -> None:
        """Tells receivers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._maintain(), name="alerting maintenance")
            now_ms = self.now_ms()
            while True:
                self._wake.clear()
                before_ms, now_ms = now_ms, self.now_ms()
                if now_ms < before_ms:
                    self.dispatcher.clock_went_back(before_ms - now_ms)
                for flush in self.dispatcher.due(now_ms):
                    task = tasks.create_task(self._flush(self.dispatcher, flush), name=f"flush {flush.group_key}")
                    self._flushes.add(task)
                    task.add_done_callback(self._flushes.discard)
                next_ms = self.dispatcher.next_ms()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if next_ms is None else max(0, next_ms - now_ms) / 1000):
                        await self._wake.wait()

    async def _flush(self, dispatcher: Dispatcher, flush: Flush) -> None:
        told = False
        try:
            timeout_s = max(FLUSH_TIMEOUT_MIN_MS, flush.until_ms - flush.at_ms) / 1000
            async with asyncio.timeout(timeout_s + self.peers.wait_s):
                await self.peers.wait_settled()
                told = await self._tell_all(flush, timeout_s + self.peers.wait_s)
        except TimeoutError:
            log.error("notification_failed group=%s error=it was not settled in time", flush.group_key)
        except FlyballError as exc:
            log.error("notification_failed group=%s error=%s", flush.group_key, exc)
        finally:
            dispatcher.done(flush, told)
            self._wake.set()

    async def _tell_all(self, flush: Flush, timeout_s: float) -> bool:
        """Whether every integration of the group's receiver knows what it must."""
        alerts = self._to_tell(flush)
        if not alerts:
            return True
        deadline_ms = flush.at_ms + int(timeout_s * 1000)
        receiver = self.config.receivers[flush.route.receiver]
        told = [self._tell(flush, alerts, receiver.name, key, one, deadline_ms) for key, one in keyed(receiver)]
        return all(await asyncio.gather(*told))

    def _to_tell(self, flush: Flush) -> tuple[Alert, ...]:
        """The alerts that are neither inhibited nor silenced; none outside of the route's times."""
        alerts = [one for one in flush.alerts if not self.inhibitor.inhibited_by(one.labels, flush.at_ms)]
        self._count("inhibition", len(flush.alerts) - len(alerts))
        route, intervals = flush.route, self.config.time_intervals
        muted = containing(route.mute_time_intervals, intervals, flush.at_ms)
        active = route.active_time_intervals
        inactive = bool(active) and not containing(active, intervals, flush.at_ms)
        self.muted_by[route.id, flush.group_labels] = active if inactive else muted
        if inactive or muted:
            self._count("active_time_interval" if inactive else "mute_time_interval", len(alerts))
            return ()
        found = tuple(one for one in alerts if not self.silences.silenced_by(one.labels, self.now_ms()))
        self._count("silence", len(alerts) - len(found))
        return found

    def _count(self, reason: str, alerts: int) -> None:
        self.metrics.suppressed.labels(reason).inc(alerts)

    async def _tell(
        self,
        flush: Flush,
        alerts: tuple[Alert, ...],
        receiver: str,
        key: str,
        integration: Integration,
        deadline_ms: int,
    ) -> bool:
        await asyncio.sleep(self.peers.wait_s)
        entry = self.log.get(key, flush.group_key)
        firing = frozenset(one.fingerprint for one in alerts if not one.ends_ns)
        resolved = frozenset(one.fingerprint for one in alerts if one.ends_ns)
        repeat_ms = flush.route.repeat_interval_ms
        reason = why(entry, Telling(firing, resolved, integration.send_resolved, repeat_ms, flush.at_ms))
        if reason is Reason.NONE:
            return True
        data: Mapping[str, str] = entry.data if entry is not None and reason is not Reason.FIRST else {}
        if integration.send_resolved or firing:
            sent = alerts if integration.send_resolved else tuple(one for one in alerts if not one.ends_ns)
            told = Notification(
                receiver,
                flush.group_key,
                flush.group_labels,
                reason.value,
                sent,
                flush.at_ms,
                self.settings.external_url,
                data,
            )
            kept = await self._deliver(key, integration, told, deadline_ms)
            if kept is None:
                return False
            data = {**data, **kept}
        now_ms = self.now_ms()
        expires_ms = self.log.expiry_ms(now_ms, repeat_ms)
        try:
            self._keep((), self.log.put(Entry(key, flush.group_key, now_ms, expires_ms, firing, resolved, data)))
        except FlyballError as exc:  # it was told: that a restart may repeat it is no reason to repeat it now
            log.error("%s", exc)
        return True

    async def _deliver(
        self, key: str, integration: Integration, told: Notification, deadline_ms: int
    ) -> Mapping[str, str] | None:
        """What the integration keeps; None when it was not told by the deadline. Retries what may arrive later."""
        kind, delay_s, error = integration.kind, BACKOFF_S, ""
        self.metrics.notifications.labels(kind).inc()
        while True:
            now_ms = self.now_ms()
            left_s = (deadline_ms - now_ms) / 1000
            if left_s <= 0:
                self._give_up(key, kind, error or "the time was up", "contextDeadlineExceeded")
                return None
            self.metrics.requests.labels(kind).inc()
            try:
                expand = self.templates.at(told.at_ms)
                kept: Mapping[str, str] = await self._timed(
                    key, kind, partial(self._send, integration, told, expand, left_s)
                )
            except DeliveryError as exc:
                error, pause_s = str(exc), max(delay_s * self._jitter(), exc.retry_after_s or 0.0)
                if not exc.retry or pause_s >= (deadline_ms - self.now_ms()) / 1000:
                    self._give_up(key, kind, error, exc.reason)
                    return None
                log.warning("notification_attempt_failed integration=%s error=%s", key, error)
                await asyncio.sleep(pause_s)
                delay_s = min(delay_s * BACKOFF_FACTOR, BACKOFF_MAX_S)
            except FlyballError as exc:  # a template fails: it would fail again
                self._give_up(key, kind, str(exc), "other")
                return None
            except Exception as exc:  # a defect of ours must not keep other receivers from being told
                log.exception("notification_broke integration=%s", key)
                self._give_up(key, kind, f"{type(exc).__name__}: {exc}", "other")
                return None
            else:
                return kept

    async def _timed(self, key: str, kind: str, attempt: Callable[[], Awaitable[Any]]) -> Any:
        started_ms, error = self.now_ms(), "broken off"
        try:
            found = await attempt()
            error = ""
            return found
        except FlyballError as exc:
            error = str(exc)
            self.metrics.requests_failed.labels(kind).inc()
            raise
        finally:
            took_s = (self.now_ms() - started_ms) / 1000
            self.attempts[key] = Attempt(started_ms, took_s, error)
            self.metrics.latency.labels(kind).observe(took_s)

    def _give_up(self, key: str, kind: str, error: str, reason: str) -> None:
        self.metrics.failed.labels(kind, reason).inc()
        log.error("notification_failed integration=%s error=%s", key, error)

    # -- upkeep

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self.settings.maintenance_interval_ms / 1000)
            self.maintain()

    def maintain(self) -> None:
        """Forgets alerts that are over and what is past its retention."""
        now_ms = self.now_ms()
        over = [labels for labels, alert in self.alerts.items() if alert.resolved_at(now_ms)]
        for labels in over:
            del self.alerts[labels]
        self.inhibitor.forget(over)
        groups = {(group.route.id, group.labels) for group in self.dispatcher}
        self.muted_by = {key: names for key, names in self.muted_by.items() if key in groups}
        silences, entries = self.silences.drop_past(now_ms), self.log.drop_past(now_ms)
        if self._records is not None:
            try:
                self._records.delete(SILENCE, silences)
                self._records.delete(ENTRY, entries)
            except FlyballError as exc:
                log.error("%s", exc)

    def measure(self) -> None:
        """Brings the gauges up to date."""
        now_ms, metrics = self.now_ms(), self.metrics
        states = {"active": 0, "suppressed": 0, "unprocessed": 0}
        for labels, alert in self.alerts.items():
            if not alert.resolved_at(now_ms):
                states["suppressed" if self.status(labels) != Status() else "active"] += 1
        for state, count in states.items():
            metrics.alerts.labels(state).set(count)
        found = [silence.state(now_ms) for silence in self.silences]
        for one in State:
            metrics.silences.labels(one.value).set(found.count(one))
        metrics.log_entries.set(len(self.log))
        metrics.groups.set(len(self.dispatcher))


def keyed(receiver: Receiver) -> list[tuple[str, Integration]]:
    """Each integration with its name in the notification log: ``team/webhook[0]``."""
    seen: dict[str, int] = {}
    found = []
    for one in receiver.integrations:
        place = seen[one.kind] = seen.get(one.kind, -1) + 1
        found.append((f"{receiver.name}/{one.kind}[{place}]", one))
    return found


def _readable(bodies: Iterable[bytes], read: Callable[[Any], Any]) -> list[Any]:
    """What can be read of what was written; the rest is named and left."""
    found = []
    for body in bodies:
        try:
            found.append(read(msgspec.json.decode(body)))
        except (FlyballError, LookupError, TypeError, ValueError, msgspec.MsgspecError) as exc:
            log.error("record_not_readable error=%s", exc)
    return found
