"""The controller that acts on HorizontalPodAutoscalers and Governors: gather, decide, journal, write, tell.

Each has its own fixed beat; creation, a change of its spec and ``wake`` bring the next evaluation forward.
Whatever goes wrong with one stays with it: reads time out, evaluations time out, failures are recorded.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from flyball import clock as wall_clock
from flyball.autoscaler.foresight import Foresight
from flyball.autoscaler.gather import ClockLike, Gatherer
from flyball.autoscaler.pods import Key, PodIndex, PodView, SelectorIndex
from flyball.autoscaler.queue import BeatQueue
from flyball.autoscaler.statuses import Statuses, typed
from flyball.autoscaler.subjects import Subject, key_of, refusal
from flyball.autoscaler.telemetry import Telemetry
from flyball.errors import ConfigError, FlyballError, KubeApiError, QueryError
from flyball.journal import Entry, Intent, Journal, Together
from flyball.kube import EventRecorder, Informer, KubeClient, Resource
from flyball.kube.kinds import GOVERNORS, HPAS_V2, PODS
from flyball.model.selectors import parse_selector
from flyball.scaling import (
    PROFILES,
    Condition,
    Decision,
    Event,
    History,
    Observation,
    Outcome,
    Pod,
    Settings,
    Spec,
    after_write,
    applied,
    ending_error,
    metrics_skipped,
)
from flyball.scaling.decide import event_periods
from flyball.scaling.governor import NAME_PREFIX
from flyball.scaling.record import Inputs

log = logging.getLogger(__name__)

COMPONENT = "horizontal-pod-autoscaler"
CONFLICT_TRIES = 5
CONFLICT_PAUSE_S = 0.01
FAST_PERIOD_S = 1.0  # the beat of a Governor of profile fast; a landed sample or a push comes before

Object = dict[str, Any]


class Autoscaler:
    """One autoscaler over one cluster.

    Args:
        journal: where decisions, intents, outcomes and histories go before they take effect.
        sync_period_s: the beat of each HPA.
        downscale_stabilization_s, tolerance, cpu_initialization_period_s, initial_readiness_delay_s: as
            kube-controller-manager's flags of these names.
        profile: the version whose arithmetic is reproduced, one of ``flyball.scaling.PROFILES``.
        metric_timeout_s: for one metric; a metric that does not answer in time has failed.
        evaluation_timeout_s: for one evaluation with its writes.
        act_on_hpas: False leaves HPAs to kube-controller-manager: decisions are recorded, nothing is written.
        may_write: asked before each write; False while another instance leads.
        concurrency: evaluations at once.

    Raises:
        ConfigError: an unknown profile or a period that is not positive.
    """

    def __init__(
        self,
        client: KubeClient,
        journal: Journal,
        *,
        sync_period_s: float = 15,
        downscale_stabilization_s: int = 300,
        tolerance: float = 0.1,
        cpu_initialization_period_s: int = 300,
        initial_readiness_delay_s: int = 30,
        profile: str = "1.37",
        clock: ClockLike = wall_clock,
        metric_timeout_s: float = 10.0,
        evaluation_timeout_s: float = 60.0,
        concurrency: int = 256,
        act_on_hpas: bool = True,
        may_write: Callable[[], bool] = lambda: True,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if profile not in PROFILES:
            raise ConfigError(f'autoscaler profile "{profile}" is unknown; use one of {", ".join(PROFILES)}')
        if sync_period_s <= 0 or concurrency <= 0:
            raise ConfigError(f"autoscaler: sync period {sync_period_s} and concurrency {concurrency} must be above 0")
        self._client, self._journal, self._clock = client, journal, clock
        self._decisions = Together(journal)
        self._period_s, self._timeout_s = float(sync_period_s), evaluation_timeout_s
        self._settings = Settings(
            tolerance=tolerance,
            downscale_stabilization_s=downscale_stabilization_s,
            cpu_initialization_period_s=cpu_initialization_period_s,
            initial_readiness_delay_s=initial_readiness_delay_s,
            profile=profile,
        )
        self._gather = Gatherer(client, clock, metric_timeout_s)
        self._events = EventRecorder(client, COMPONENT)
        self._hpas: Informer[Object] = Informer(client, HPAS_V2)
        self._pod_informer: Informer[PodView] = Informer(client, PODS, type=PodView)
        self._pods, self._selectors = PodIndex(), SelectorIndex()
        self._pod_informer.add_handler(self._pods.update)
        self._histories: dict[Key, tuple[str, History]] = {}
        self._open: dict[Key, list[Intent]] = {}
        self._queue = BeatQueue(self._beat_s, clock)
        self._governors: Informer[Object] = Informer(client, GOVERNORS)
        self._statuses = Statuses(client, clock, self._cached, self._event)
        self._fast: dict[Key, frozenset[str]] = {}  # Governors of profile fast: the names of their metrics
        self._foresight = Foresight(journal, clock)
        self._act_on_hpas, self._may_write = act_on_hpas, may_write
        self._concurrency = concurrency
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._last_error: dict[Key, str] = {}
        self.telemetry = Telemetry(registry)
        self.telemetry.limit.set(concurrency)

    # --- life ---

    async def run(self) -> None:
        """Act until cancelled."""
        for intent in self._journal.open_intents():
            self._open.setdefault((intent.namespace, intent.name), []).append(intent)
        # Governors may not be known to a cluster: nothing waits for them
        informers = [asyncio.create_task(i.run()) for i in (self._pod_informer, self._hpas, self._governors)]
        try:
            await self._first(informers, asyncio.gather(self._pod_informer.wait_synced(), self._hpas.wait_synced()))
            self._drop_orphans()
            self._hpas.add_handler(lambda *change: self._on_object(HPAS_V2, *change))
            self._governors.add_handler(lambda *change: self._on_object(GOVERNORS, *change))
            await self._first(informers, self._dispatch())
        finally:
            tasks = [*informers, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._foresight.close()

    async def _first(self, informers: "list[asyncio.Task[None]]", work: Any) -> None:
        """Await ``work``, and fail when an informer ends, which it never should."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task, *informers], return_when=asyncio.FIRST_COMPLETED)
            for informer in informers:
                if informer.done():
                    await informer
            await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, FlyballError):
                await task

    async def _dispatch(self) -> None:
        slots = asyncio.Semaphore(self._concurrency)
        while True:
            # a slot first, so that what waits for one stays in the queue and can still be brought forward
            await slots.acquire()
            key, late_s = await self._queue.next()
            self.telemetry.late.set(late_s)
            task = asyncio.create_task(self._guarded(key))
            self._running[key] = task
            self.telemetry.running.set(len(self._running))

            def done(_: "asyncio.Task[None]", key: Key = key) -> None:
                slots.release()
                self._running.pop(key, None)
                self.telemetry.running.set(len(self._running))
                self._queue.done(key)

            task.add_done_callback(done)

    def wake(self, namespace: str, name: str) -> None:
        """Bring the next evaluation of this HPA (or ``governor/NAME``) forward to now.

        Carries no value; unknown names are ignored.
        """
        if self._queue.wake((namespace, name)):
            self.telemetry.wakes.inc()

    def wake_metrics(self, namespace: str, names: Collection[str]) -> None:
        """Wake every Governor of profile fast that reads one of these metrics; ``namespace`` "" stands for all."""
        for (space, name), metrics in self._fast.items():
            if namespace in ("", space) and not metrics.isdisjoint(names):
                self.wake(space, name)

    def statistics(self) -> dict[str, Any]:
        """What is under way and what was remembered."""
        return {
            "hpas": len(self._hpas.cache),
            "governors": len(self._governors.cache),
            "pods": len(self._pods),
            "running": len(self._running),
            "concurrency": self._concurrency,
            "histories": len(self._histories),
            "open_intents": sum(len(intents) for intents in self._open.values()),
            "metric_failures": self._gather.failures,
            "profile": self._settings.profile,
            "sync_period_s": self._period_s,
            "failing": {f"{ns}/{name}": error for (ns, name), error in list(self._last_error.items())[:100]},
            "events": self._events.statistics(),
            "forecasts": self._foresight.statistics(),
            "journal": self._journal.statistics(),
        }

    def _beat_s(self, key: Key) -> float:
        return min(FAST_PERIOD_S, self._period_s) if key in self._fast else self._period_s

    def _on_object(self, resource: Resource, change: str, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        if obj is None:
            return
        key = key_of(resource, obj)
        if change == "DELETED":
            self._queue.remove(key)
            self._selectors.remove(key)
            self._fast.pop(key, None)
            for memory in (self._histories, self._last_error):
                memory.pop(key, None)
            self._foresight.forget(key)
            self._statuses.forget(key)
            try:
                self._journal.forget(*key)
                self._close_intents(key, "the object was deleted")
            except FlyballError as error:
                log.error("journal_failed of=%s/%s error=%s", *key, error)
        elif change == "ADDED" or old is None or old.get("spec") != obj.get("spec"):
            if change == "ADDED":
                self._catch_up(key, resource, obj)
            self._queue.add(key)
        else:
            self._overhear(key, resource, old, obj)
        self.telemetry.hpas.set(len(self._hpas.cache))
        self.telemetry.governors.set(len(self._governors.cache))

    def _overhear(self, key: Key, resource: Resource, old: Object, new: Object) -> None:
        """Remember what somebody else scaled, as its status tells: whoever comes to lead keeps to the rate policies."""
        before, status = old.get("status") or {}, new.get("status") or {}
        if status.get("lastScaleTime") in (None, before.get("lastScaleTime")):
            return
        with contextlib.suppress(ConfigError, ValueError):
            subject = Subject.of(resource, new, self._settings)
            if not (subject.acts(self._act_on_hpas) and self._may_write()):  # else it was us
                at_ms = self._clock.parse_rfc3339_ms(str(status["lastScaleTime"]))
                self._count_in(key, subject, int(status.get("currentReplicas") or 0), at_ms)

    def _catch_up(self, key: Key, resource: Resource, obj: Object) -> None:
        """Remember what somebody else scaled since our last record, while we were away: all of it as of its end."""
        try:
            records = self._journal.decisions(*key, limit=1)
            subject = Subject.of(resource, obj, self._settings)
            at_ms = self._clock.parse_rfc3339_ms(str((obj.get("status") or {})["lastScaleTime"]))
        except (FlyballError, ValueError, KeyError):
            return  # nothing was scaled, or what cannot be read is told with the first evaluation
        if not records or not records[0].decision.current or at_ms < records[0].last_ms - records[0].last_ms % 1000:
            return  # times in a status have whole seconds
        last = records[0]
        self._count_in(key, subject, last.decision.desired if last.outcome == "" else last.decision.current, at_ms)

    def _count_in(self, key: Key, subject: Subject, before: int, at_ms: int) -> None:
        """What somebody else scaled, from ``before`` to what the status says, counts against the rate policies."""
        spec, desired = subject.spec, int((subject.obj.get("status") or {}).get("desiredReplicas") or 0)
        decision = Decision(
            spec.namespace, spec.name, at_ms, before, desired, spec.min_replicas, spec.max_replicas,
            rescale=before != desired, event_periods_s=event_periods(spec),
        )  # fmt: skip
        history = applied(self._history(key, spec.uid), decision, Outcome(), at_ms)
        self._histories[key] = (spec.uid, history)
        try:
            self._journal.save_history(*key, spec.uid, history, at_ms)
        except FlyballError as error:
            log.error("journal_failed of=%s/%s error=%s", *key, error)

    def _cached(self, key: Key) -> Object | None:
        namespace, name = key
        if name.startswith(NAME_PREFIX):
            return self._governors.cache.get((namespace, name.removeprefix(NAME_PREFIX)))
        return self._hpas.cache.get(key)

    def _drop_orphans(self) -> None:
        for key in [key for key in self._open if not key[1].startswith(NAME_PREFIX) and key not in self._hpas.cache]:
            self._close_intents(key, "the HPA was deleted")

    def _close_intents(self, key: Key, why: str) -> None:
        for intent in self._open.pop(key, []):
            self._journal.outcome(intent.id, Outcome(why), self._clock.now_ms())

    # --- one evaluation ---

    async def _guarded(self, key: Key) -> None:
        began_s, result = self._clock.monotonic_s(), "ok"
        try:
            async with asyncio.timeout(self._timeout_s):
                error = await self.evaluate(*key)
            if error:
                result = "metric_error"
        except TimeoutError:
            result, error = "timeout", f"evaluation took more than {self._timeout_s:g} s"
        except FlyballError as failure:
            result, error = "error", str(failure)
        except Exception as failure:
            # one HPA that trips over a bug must not end the others
            log.exception("evaluation_failed hpa=%s/%s", *key)
            result, error = "bug", f"{type(failure).__name__}: {failure}"
        if error and self._cached(key) is not None:
            if self._last_error.get(key) != error:
                log.warning("evaluation_incomplete hpa=%s/%s error=%s", *key, error)
            self._last_error[key] = error
        else:
            self._last_error.pop(key, None)
        self.telemetry.evaluations.labels(result).inc()
        self.telemetry.seconds.observe(self._clock.monotonic_s() - began_s)

    async def evaluate(self, namespace: str, name: str) -> str:
        """Evaluate one HPA (or ``governor/NAME``) now and act on it; the decision's error, "" when all went well.

        Raises:
            FlyballError: the object could not be understood, journalled or told.
        """
        key = (namespace, name)
        obj = self._statuses.current(key)
        if obj is None:
            return ""
        resource = GOVERNORS if name.startswith(NAME_PREFIX) else HPAS_V2
        try:
            subject = Subject.of(resource, obj, self._settings)
        except ConfigError as error:
            await self._refuse(key, Subject.unreadable(resource, obj), "InvalidSpec", str(error))
            raise
        spec, governor = subject.spec, subject.governor
        if governor is not None and governor.profile == "fast":
            self._fast[key] = frozenset(metric.name for metric in spec.metrics)
        else:
            self._fast.pop(key, None)
        refused = refusal(subject, self._hpas.cache.values(), self._governors.cache.values())
        if refused:
            await self._refuse(key, subject, "TargetShared", refused)
            return refused
        target, scale, failure = await self._scale_of(spec)
        if scale is None:
            seen = Observation(scale_error=failure)
        else:
            self._settle(key, spec, scale)
            seen = await self._observe(key, subject, scale)
        now_ms = self._clock.now_ms()
        inputs = self._inputs(key, subject, seen)
        decision, history = inputs.decide(now_ms)
        self._learn(key, subject, seen, decision)
        for metric in decision.metrics:
            if metric.error:
                self.telemetry.read_failures.labels(metric.type).inc()
        self._histories[key] = (spec.uid, history)
        record = await self._decisions.append(Entry(decision, history, spec.uid, inputs))
        if not subject.acts(self._act_on_hpas) or not self._may_write():
            return decision.error
        for event in decision.events:
            await self._event(obj, name, event)
        outcome: Outcome | None = None
        if decision.rescale and scale is not None and target is not None:
            outcome = await self._write(key, spec, target, scale, decision, record)
            if not outcome.ok and not self._may_write():
                return ending_error(decision, outcome)  # another leads now, and tells what there is to tell
        more, events = after_write(decision, outcome) if outcome is not None else ((), ())
        for event in events:
            await self._event(obj, name, event)
        await self._statuses.write(key, subject, decision, outcome, (*decision.conditions, *more), seen.selector)
        return ending_error(decision, outcome)

    def _inputs(self, key: Key, subject: Subject, seen: Observation) -> Inputs:
        history = self._history(key, subject.spec.uid)
        if subject.governor is None:
            return Inputs(seen, history, spec=subject.spec)
        forecast = self._foresight.forecast(key, subject.spec.uid, subject.governor, seen)
        return Inputs(seen, history, governor=subject.governor, forecast=forecast)

    def _learn(self, key: Key, subject: Subject, seen: Observation, decision: Decision) -> None:
        governor, about = subject.governor, decision.governed
        if governor is None or governor.forecast is None or about is None or about.demand is None:
            return
        self._foresight.learn(key, subject.spec.uid, governor, seen, decision.at_ms, about.demand)

    async def _refuse(self, key: Key, subject: Subject, reason: str, why: str) -> None:
        """Nothing is decided; its condition, an event and the record say why."""
        conditions = (Condition("ScalingActive", "False", reason, why),)
        spec = subject.spec
        decision = Decision(
            spec.namespace, spec.name, self._clock.now_ms(), 0, 0, spec.min_replicas, spec.max_replicas,
            failed=True, error=why, conditions=conditions, target=spec.reference,
        )  # fmt: skip
        self._journal.append_decision(decision)
        if not subject.acts(self._act_on_hpas) or not self._may_write():
            return
        await self._event(subject.obj, key[1], Event("Warning", reason, why))
        await self._statuses.write(key, subject, decision, None, conditions)

    async def _scale_of(self, spec: Spec) -> tuple[Resource | None, Object | None, str]:
        try:
            resource = await self._gather.resource(spec.target_api_version, spec.target_kind)
            return resource, await self._client.get(resource, spec.target_name, spec.namespace, "scale"), ""
        except FlyballError as error:
            return None, None, str(error)

    async def _observe(self, key: Key, subject: Subject, scale: Object) -> Observation:
        spec = subject.spec
        text = str((scale.get("status") or {}).get("selector") or "")
        pods: tuple[Pod, ...] = ()
        selecting: tuple[str, ...] = ()
        trouble = ""
        if text:
            try:
                selector = parse_selector(text)
            except QueryError as error:
                trouble = str(error)
            else:
                found = self._pods.select(spec.namespace, selector)
                pods = tuple(pod for _, pod in found)
                if subject.governor is None:  # a Governor is compared by its target instead, see refusal
                    self._selectors.put(key, text, selector)
                    selecting = tuple(self._selectors.selecting(spec.namespace, (labels for labels, _ in found)))
        seen = Observation(
            spec_replicas=int((scale.get("spec") or {}).get("replicas") or 0),
            status_replicas=int((scale.get("status") or {}).get("replicas") or 0),
            selector=text,
            selector_error=trouble,
            selecting_hpas=selecting,
            pods=pods,
            scaled_to_zero=subject.scaled_to_zero,
        )
        if metrics_skipped(spec, seen):
            return seen
        readings = await self._gather.readings(spec, text)
        return msgspec.structs.replace(seen, readings=readings)

    def _history(self, key: Key, uid: str) -> History:
        known = self._histories.get(key)
        if known is not None and known[0] == uid:
            return known[1]
        return self._journal.load_history(*key, uid) or History()

    # --- writes ---

    async def _write(
        self, key: Key, spec: Spec, resource: Resource, scale: Object, decision: Decision, record: int
    ) -> Outcome:
        """The intent, the write, the outcome. A write cut off in between is settled by the next evaluation."""
        intent = self._journal.intent(decision, record, spec.uid, self._clock.now_ms())
        pending = Intent(intent, spec.namespace, spec.name, spec.uid, self._clock.now_ms(), decision)
        self._open.setdefault(key, []).append(pending)
        outcome = await self._put_scale(spec, resource, scale, decision.desired)
        at_ms = self._clock.now_ms()
        history = applied(self._history(key, spec.uid), decision, outcome, at_ms)
        self._journal.outcome(intent, outcome, at_ms, history)
        self._histories[key] = (spec.uid, history)
        self._open.pop(key, None)
        self.telemetry.scales.labels("ok" if outcome.ok else "failed").inc()
        log.info(
            "scaled hpa=%s/%s from=%d to=%d reason=%s error=%s",
            spec.namespace, spec.name, decision.current, decision.desired, decision.reason, outcome.error,
        )  # fmt: skip
        return outcome

    async def _put_scale(self, spec: Spec, resource: Resource, scale: Object, desired: int) -> Outcome:
        failure = ""
        for attempt in range(CONFLICT_TRIES):
            if not self._may_write():
                return Outcome("another instance leads now")
            body = {**scale, "spec": {**(scale.get("spec") or {}), "replicas": desired}}
            try:
                await self._client.update(resource, body, spec.namespace, "scale")
                return Outcome()
            except FlyballError as error:
                failure, conflict = str(error), isinstance(error, KubeApiError) and error.code == 409
                answered = isinstance(error, KubeApiError) and error.code < 500
            try:
                scale = await self._client.get(resource, spec.target_name, spec.namespace, "scale")
            except FlyballError as error:
                log.warning("scale_read_failed hpa=%s/%s error=%s", spec.namespace, spec.name, error)
            else:
                if not answered and _replicas(scale) == desired:
                    return Outcome()  # the answer was lost, the write was not
            if not conflict:
                break
            if attempt + 1 < CONFLICT_TRIES:
                await asyncio.sleep(CONFLICT_PAUSE_S)
        return Outcome(failure)

    def _settle(self, key: Key, spec: Spec, scale: Object) -> None:
        """Close what a crash or a time-out left open: the scale itself says whether the write arrived."""
        intents = self._open.pop(key, [])
        for intent in intents:
            at_ms = self._clock.now_ms()
            arrived = (not intent.uid or intent.uid == spec.uid) and _replicas(scale) == intent.decision.desired
            outcome = Outcome() if arrived else Outcome("cut off before the scale was written")
            # dated as the intent was, for that is when the rate policies saw it
            history = applied(self._history(key, spec.uid), intent.decision, outcome, intent.at_ms)
            self._journal.outcome(intent.id, outcome, at_ms, history)
            self._histories[key] = (spec.uid, history)
            log.info("intent_settled hpa=%s/%s arrived=%s", spec.namespace, spec.name, arrived)

    async def _event(self, obj: Object, name: str, event: Event) -> None:
        kind: Any = event.type
        resource = GOVERNORS if name.startswith(NAME_PREFIX) else HPAS_V2
        await self._events.event(typed(resource, obj), kind, event.reason, event.message)


def _replicas(scale: Mapping[str, Any]) -> int:
    return int((scale.get("spec") or {}).get("replicas") or 0)
