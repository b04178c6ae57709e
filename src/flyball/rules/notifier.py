"""Tells Alertmanagers of firing and resolved alerts.

Source: reference/stack.md section 2, "Sending". Every Alertmanager gets every alert; each has a queue of its own, so
that a dead one delays no other, and the oldest alerts are dropped when a queue is full.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import aiohttp
from prometheus_client import Counter, Gauge

from flyball import clock
from flyball.errors import FlyballError
from flyball.http.calling import Caller
from flyball.model.clients import HTTP_DEFAULT
from flyball.model.labels import Labels
from flyball.model.scrapeconfigs import RelabelConfig
from flyball.relabel import relabel
from flyball.rules.evaluation import Alert, State
from flyball.rules.rulefiles import AlertingRule, Group

log = logging.getLogger(__name__)

QUEUE_MAX = 10_000
BATCH_MAX = 256
RETRY_S, RETRY_MAX_S = 1.0, 30.0
_SENT = Counter("prometheus_notifications_sent", "Alerts sent.", ["alertmanager"])
_ERRORS = Counter("prometheus_notifications_errors", "Alerts that an Alertmanager did not take.", ["alertmanager"])
_DROPPED = Counter("prometheus_notifications_dropped", "Alerts dropped since a queue was full.")
_QUEUE = Gauge("prometheus_notifications_queue_length", "Alerts that wait.", ["alertmanager"])
_CAPACITY = Gauge("prometheus_notifications_queue_capacity", "The most that may wait for one Alertmanager.")
_CAPACITY.set(QUEUE_MAX)


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """Where alerts are posted.

    Attributes:
        url: with the path, as ``http://host:9093/api/v2/alerts``.
        caller: makes the requests.
    """

    url: str
    timeout_s: float = 10.0
    caller: Caller = field(default_factory=lambda: Caller(HTTP_DEFAULT), compare=False)


@dataclass(slots=True)
class Schedule:
    """When each alert was sent last: it is sent again after ``resend_ms``, and at once when it is resolved."""

    resend_ms: int = 60_000
    _sent_ms: dict[tuple[str, Labels], int] = field(default_factory=dict)

    def due(self, group: Group, alerts: Sequence[Alert], at_ms: int) -> list[tuple[Alert, int]]:
        """The alerts to send now, each with the time in ms until which it is valid if nothing more is heard."""
        found = []
        for alert in alerts:
            if alert.state is State.PENDING:
                continue
            key = (group.key, alert.labels)
            last_ms = self._sent_ms.get(key)
            resolved = alert.resolved_at_ms is not None and (last_ms is None or alert.resolved_at_ms > last_ms)
            if resolved or last_ms is None or last_ms + self.resend_ms < at_ms:
                self._sent_ms[key] = at_ms
                found.append((alert, at_ms + 4 * max(self.resend_ms, group.interval_ms)))
        if len(self._sent_ms) > 2 * QUEUE_MAX:
            newest_ms = at_ms - 60 * 60_000
            self._sent_ms = {key: sent for key, sent in self._sent_ms.items() if sent >= newest_ms}
        return found


def payload(
    alert: Alert,
    valid_until_ms: int,
    generator_url: str,
    external_labels: Mapping[str, str],
    relabel_configs: Sequence[RelabelConfig],
) -> dict[str, Any] | None:
    """An alert as API v2 takes it; None when relabelling drops it."""
    labels = relabel({**external_labels, **dict(alert.labels)}, relabel_configs)
    if labels is None:
        return None
    ends_ms = valid_until_ms if alert.resolved_at_ms is None else alert.resolved_at_ms
    return {
        "labels": labels,
        "annotations": dict(alert.annotations),
        "startsAt": clock.rfc3339_micro(alert.fired_at_ms or alert.active_at_ms),
        "endsAt": clock.rfc3339_micro(ends_ms),
        "generatorURL": generator_url,
    }


class _Queue:
    """One Alertmanager's alerts, sent in batches until they are taken."""

    def __init__(self, target: Alertmanager) -> None:
        self.target = target
        self.waiting: deque[dict[str, Any]] = deque()
        self.error = ""
        self._wake = asyncio.Event()

    def put(self, alerts: Iterable[dict[str, Any]]) -> None:
        for alert in alerts:
            if len(self.waiting) >= QUEUE_MAX:
                self.waiting.popleft()
                _DROPPED.inc()
            self.waiting.append(alert)
        _QUEUE.labels(self.target.url).set(len(self.waiting))
        self._wake.set()

    async def run(self) -> None:
        delay_s = RETRY_S
        while True:
            self._wake.clear()
            if not self.waiting:
                await self._wake.wait()
            batch = [self.waiting.popleft() for _ in range(min(BATCH_MAX, len(self.waiting)))]
            self.error = await self._post(batch)
            if not self.error:
                _SENT.labels(self.target.url).inc(len(batch))
                _QUEUE.labels(self.target.url).set(len(self.waiting))
                delay_s = RETRY_S
                continue
            _ERRORS.labels(self.target.url).inc(len(batch))
            log.warning("notification_failed alertmanager=%s error=%s", self.target.url, self.error)
            kept = batch[max(0, len(self.waiting) + len(batch) - QUEUE_MAX) :]  # the oldest go first
            _DROPPED.inc(len(batch) - len(kept))
            self.waiting.extendleft(reversed(kept))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _post(self, batch: list[dict[str, Any]]) -> str:
        """Why the batch was not taken; empty when it was. A session each time: alerts are rare, TLS may change."""
        target = self.target
        try:
            options = await target.caller.options(target.url, target.timeout_s)
            async with (
                target.caller.session(timeout_s=target.timeout_s) as session,
                session.post(target.url, json=batch, **options) as answer,
            ):
                if answer.status // 100 != 2:
                    text = (await answer.content.read(300)).decode(errors="replace").strip()
                    return f"answered {answer.status}: {text}"
                return ""
        except (aiohttp.ClientError, TimeoutError, OSError, FlyballError) as exc:
            return str(exc) or type(exc).__name__


class Notifier:
    """``set_targets`` and the attributes may change at any time.

    Attributes:
        external_labels: added to every alert that has no such label.
        external_url: before the link to the rule's expression.
    """

    def __init__(self, resend_ms: int = 60_000) -> None:
        self.external_labels: Mapping[str, str] = {}
        self.external_url = ""
        self.relabel_configs: Sequence[RelabelConfig] = ()
        self._schedule = Schedule(resend_ms)
        self._queues: dict[str, _Queue] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set_targets(self, targets: Iterable[Alertmanager]) -> None:
        """An Alertmanager that stays keeps its queue."""
        known, self._queues = self._queues, {}
        for target in targets:
            queue = known.pop(target.url, None) or _Queue(target)
            queue.target = target
            self._queues[target.url] = queue
            if target.url not in self._tasks:
                task = asyncio.get_running_loop().create_task(queue.run(), name=f"alertmanager {target.url}")
                self._tasks[target.url] = task
        for url in known:
            self._tasks.pop(url).cancel()

    def notify(self, group: Group, rule: AlertingRule, alerts: Sequence[Alert], at_ms: int) -> None:
        """Takes the alerts of one evaluation; returns at once."""
        if not self._queues:
            return
        link = f"{self.external_url.rstrip('/')}/graph?g0.expr={quote_plus(str(rule.expr))}&g0.tab=1"
        bodies = [
            body
            for alert, valid_until_ms in self._schedule.due(group, alerts, at_ms)
            if (body := payload(alert, valid_until_ms, link, self.external_labels, self.relabel_configs)) is not None
        ]
        for queue in self._queues.values():
            queue.put(bodies)

    def statistics(self) -> dict[str, Any]:
        """By Alertmanager, what waits and the last error."""
        return {url: {"waiting": len(one.waiting), "error": one.error} for url, one in self._queues.items()}

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._queues.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["Alertmanager", "Notifier", "Schedule", "payload"]
