"""The Governor: the HPA v2 spec, unchanged in meaning, and what people plan by beside it.

``decide_governor`` wraps ``decide``: calendar bounds before it; a person's override, the loss of a metric and a
forecast after it. Only an override or a bound may lower what the metrics ask for.
"""

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from importlib.util import find_spec
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.structs import replace

from flyball.errors import ConfigError
from flyball.scaling.decide import decide, event_periods
from flyball.scaling.fast import MAX_SPREAD, credible, demand_of, largest, needed, sized
from flyball.scaling.normalize import limited
from flyball.scaling.schedule import ScheduleRule, parse_schedule, scheduled_bounds
from flyball.scaling.spec import spec_from_hpa
from flyball.scaling.types import (
    HOLT_WINTERS,
    LINEAR,
    Clamp,
    Condition,
    Decision,
    Forecast,
    Governed,
    History,
    MetricEvaluation,
    Observation,
    Recommendation,
    Settings,
    Spec,
)

PROFILES_OF_GOVERNOR = ("parity", "fast")
FORECAST_MODELS = (LINEAR, HOLT_WINTERS)
MISSING = "statsmodels is not installed: pip install 'flyball[forecast]'"
NAME_PREFIX = "governor/"  # of a Governor's decisions, beside an HPA of the same name
_STARTUP_S = 30
_OLDEST_MS = 150_000  # of a sample by which a size may fall; two and a half scrapes of a slow source
_T = TypeVar("_T")


class ForecastSettings(msgspec.Struct, frozen=True):
    """``startup_s``: the lead, where it is ``declared``; ``maximum``: replicas a forecast may at most ask for;
    ``model``: one of FORECAST_MODELS."""

    startup_s: int = _STARTUP_S
    maximum: int | None = None
    declared: bool = False
    model: str = LINEAR


class Fallback(msgspec.Struct, frozen=True):
    """Hold at least ``replicas`` once a metric has been lost for ``after_s``."""

    after_s: int
    replicas: int


class Override(msgspec.Struct, frozen=True):
    """A person's number, until it expires (None: until it is taken away)."""

    replicas: int
    until_ms: int | None = None


class Governor(msgspec.Struct, frozen=True):
    """A Governor decoded. ``spec`` is the HPA's part."""

    spec: Spec
    profile: str = "parity"
    schedule: tuple[ScheduleRule, ...] = ()
    forecast: ForecastSettings | None = None
    fallback: Fallback | None = None
    override: Override | None = None
    pause: bool = False
    shadow: bool = False

    @property
    def lead_s(self) -> int:
        """How far ahead to size: the time a pod takes to be ready."""
        return self.forecast.startup_s if self.forecast else _STARTUP_S


def governor_from_object(obj: Mapping[str, Any], settings: Settings | None = None) -> Governor:
    """The Governor of a flyball.dev/v1alpha1 object.

    Raises:
        ConfigError: a field is wrong; the message begins with its path, as kubectl's do.
    """
    meta, body = obj.get("metadata") or {}, obj.get("spec") or {}
    named = {**obj, "metadata": {**meta, "name": NAME_PREFIX + str(meta.get("name", ""))}}
    profile = body.get("profile", "parity")
    if profile not in PROFILES_OF_GOVERNOR:
        raise ConfigError(f'spec.profile: Unsupported value: "{profile}": supported values: "parity", "fast"')
    return Governor(
        spec=spec_from_hpa(named, settings),
        profile=profile,
        schedule=tuple(_rule(rule, f"spec.schedule[{at}]") for at, rule in enumerate(body.get("schedule") or [])),
        forecast=_optional(body, "forecast", _forecast),
        fallback=_optional(body, "fallback", _fallback),
        override=_optional(body, "override", _override),
        pause=bool(body.get("pause", False)),
        shadow=bool(body.get("shadow", False)),
    )


def problems_of(obj: Mapping[str, Any]) -> list[str]:
    """Every wrong field of what a Governor adds to an HPA, each as kubectl says it; the types must be right."""
    body = obj.get("spec") or {}
    found: list[str] = []

    def check(decode: Callable[[], object]) -> None:
        try:
            decode()
        except ConfigError as error:
            found.append(str(error))

    for at, rule in enumerate(body.get("schedule") or []):
        check(lambda rule=rule, at=at: _rule(rule, f"spec.schedule[{at}]"))  # type: ignore[misc]
    for name, decode in (("forecast", _forecast), ("fallback", _fallback), ("override", _override)):
        check(lambda name=name, decode=decode: _optional(body, name, decode))  # type: ignore[misc]
    check(lambda: need_extra((body.get("forecast") or {}).get("model")))
    return found


def need_extra(model: object) -> None:
    """Whoever has the choice is told at once; an autoscaler that runs already falls back instead.

    Raises:
        ConfigError: this model of forecasts is not installed here.
    """
    if model == HOLT_WINTERS and find_spec("statsmodels") is None:
        raise ConfigError(f'spec.forecast.model: Invalid value: "{model}": {MISSING}, or use "{LINEAR}"')


def _optional(body: Mapping[str, Any], name: str, decode: Callable[[Mapping[str, Any], str], _T]) -> _T | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f"spec.{name}: Invalid value: must be an object")
    return decode(value, f"spec.{name}")


def _forecast(value: Mapping[str, Any], path: str) -> ForecastSettings:
    startup_s = _whole(value, "startupSeconds", path, 1, 3600)
    model = value.get("model", LINEAR)
    if model not in FORECAST_MODELS:
        known = ", ".join(f'"{name}"' for name in sorted(FORECAST_MODELS))
        raise ConfigError(f'{path}.model: Unsupported value: "{model}": supported values: {known}')
    most = _whole(value, "maxReplicas", path, 1)
    return ForecastSettings(startup_s or _STARTUP_S, most, startup_s is not None, model)


def _fallback(value: Mapping[str, Any], path: str) -> Fallback:
    replicas = _whole(value, "replicas", path, 1)
    if replicas is None:
        raise ConfigError(f"{path}.replicas: Required value: how many replicas to hold when a metric is lost")
    after_s = _whole(value, "afterSeconds", path, 0, 86_400)
    return Fallback(180 if after_s is None else after_s, replicas)


def _override(value: Mapping[str, Any], path: str) -> Override:
    replicas = _whole(value, "replicas", path, 0)
    if replicas is None:
        raise ConfigError(f"{path}.replicas: Required value: how many replicas to hold")
    until = value.get("until")
    try:
        until_ms = None if until is None else int(datetime.fromisoformat(str(until)).timestamp() * 1000)
    except ValueError:
        raise ConfigError(f'{path}.until: Invalid value: "{until}": write a time as 2026-12-24T18:00:00Z') from None
    return Override(replicas, until_ms)


def _rule(value: Mapping[str, Any], path: str) -> ScheduleRule:
    zone = str(value.get("timeZone") or "UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f'{path}.timeZone: Invalid value: "{zone}": use a name such as Europe/Berlin or UTC'
        ) from None
    crons = []
    for name in ("start", "end"):
        if not value.get(name):
            raise ConfigError(f'{path}.{name}: Required value: a cron time such as "0 8 * * 1-5"')
        try:
            crons.append(parse_schedule(str(value[name])))
        except ConfigError as error:
            raise ConfigError(f"{path}.{name}: Invalid value: {error}") from None
    low, high = _whole(value, "minReplicas", path, 0), _whole(value, "maxReplicas", path, 1)
    if low is None and high is None:
        raise ConfigError(f"{path}: Required value: minReplicas, maxReplicas or both")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{path}.maxReplicas: Invalid value: {high}: must be greater than or equal to `minReplicas`")
    days = [
        tuple(_day(text, f"{path}.{name}[{at}]") for at, text in enumerate(value.get(name) or []))
        for name in ("dates", "exceptions")
    ]
    name = str(value.get("name") or f"{value['start']} to {value['end']}")
    return ScheduleRule(name, zone, crons[0], crons[1], low, high, days[0], days[1])


def _day(text: Any, path: str) -> date:
    try:
        return date.fromisoformat(str(text))
    except ValueError:
        raise ConfigError(f'{path}: Invalid value: "{text}": write a date as 2026-12-24') from None


def _whole(value: Mapping[str, Any], name: str, path: str, low: int, high: int = (1 << 31) - 1) -> int | None:
    given = value.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
        limit = f"between {low} and {high}" if high < (1 << 31) - 1 else f"at least {low}"
        raise ConfigError(f"{path}.{name}: Invalid value: {given!r}: must be a whole number, {limit}")
    return given


def decide_governor(
    governor: Governor, seen: Observation, history: History, now_ms: int, forecast: Forecast | None = None
) -> tuple[Decision, History]:
    """What to do about one Governor now, and the history that the next call needs."""
    bounds = scheduled_bounds(governor.schedule, governor.spec.min_replicas, governor.spec.max_replicas, now_ms)
    spec = replace(governor.spec, min_replicas=bounds.minimum, max_replicas=bounds.maximum)
    about = Governed(profile=governor.profile, rules=bounds.rules, shadow=governor.shadow)
    if governor.profile == "fast":
        seen = replace(seen, readings=tuple(credible(reading) for reading in seen.readings))
    decision, after = decide(spec, seen, history, now_ms)
    override = governor.override
    if override is not None and override.until_ms is not None and override.until_ms <= now_ms:
        override = None
    if (governor.pause or override is not None) and not seen.scale_error:
        why = "paused" if governor.pause or override is None else "manual override"
        replicas = seen.spec_replicas if governor.pause or override is None else override.replicas
        held = Condition("ScalingActive", "False", "ScalingDisabled", f"{why}: {replicas} replicas")
        decision = _to(decision, spec, seen, replicas, why)
        decision = replace(decision, conditions=(*decision.conditions, held))
        return replace(decision, governed=replace(about, override=why)), after
    if decision.metrics_skipped:
        return replace(decision, governed=about), after
    lost = any(metric.error for metric in decision.metrics)
    failing_ms = (history.failing_since_ms or now_ms) if lost else None
    read = zip(decision.metrics, seen.readings, strict=False)  # what was not read has an error
    demand = largest(demand_of(metric, reading, seen) for metric, reading in read)
    about = replace(about, demand=demand, forecast=forecast)
    if governor.profile == "fast" and seen.spec_replicas > 0:
        if demand is not None:
            decision, after = _fast(governor, spec, seen, decision, history, about, now_ms)
        else:
            decision = _not_lowered(decision, spec, seen)
        if lost:  # what was not seen may have been a peak
            after = replace(after, began_ms=None)
    elif forecast is not None and not decision.failed:
        decision = _raised(decision, spec, seen, _forecast_floor(governor, spec, forecast), "forecast")
    after = replace(after, failing_since_ms=failing_ms)
    fallback = governor.fallback
    if fallback is not None and failing_ms is not None and now_ms - failing_ms >= fallback.after_s * 1000:
        decision = _raised(decision, spec, seen, min(spec.max_replicas, fallback.replicas), "fallback")
        about = replace(about, fallback=True)
    told = _forecast_condition(governor, forecast)
    return replace(decision, governed=about, conditions=(*decision.conditions, told)), after


def _forecast_condition(governor: Governor, forecast: Forecast | None) -> Condition:
    """Whether a forecast counts, and what to do where none can."""
    if governor.forecast is None:
        return Condition("ForecastActive", "")
    if forecast is None or (forecast.spread == 0 and not forecast.by_model):
        why = (
            "no forecast has been judged yet: the demand must have been seen changing for longer than a pod takes to"
            " start, and for a day or a week to find what repeats; until then sizes follow the demand alone"
            " (flyball replay shows what forecasts do on recorded load)"
        )
        return Condition("ForecastActive", "False", "NoHistory", why)
    if forecast.spread > MAX_SPREAD:
        why = f"forecasts have erred by more than {MAX_SPREAD:.0%} of late, so that sizes follow the demand alone"
        return Condition("ForecastActive", "False", "ForecastErrs", why)
    if not forecast.by_model:
        return Condition(
            "ForecastActive", "True", "AsNow", "that demand stays as it is has erred less than the model of late"
        )
    found = "sizes are for the demand when a pod that starts now is ready"
    if forecast.trouble:
        why = f"{found}, by {forecast.model}, for {governor.forecast.model} does not count: {forecast.trouble}"
        return Condition("ForecastActive", "True", "OtherModel", why)
    return Condition("ForecastActive", "True", "ForecastFound", found)


def _forecast_floor(governor: Governor, spec: Spec, forecast: Forecast) -> int:
    settings = governor.forecast
    ceiling = spec.max_replicas if settings is None or settings.maximum is None else settings.maximum
    return min(spec.max_replicas, ceiling, math.ceil(needed(0.0, forecast)))


def _fast(
    governor: Governor,
    spec: Spec,
    seen: Observation,
    decision: Decision,
    history: History,
    about: Governed,
    now_ms: int,
) -> tuple[Decision, History]:
    """Sized from demand, kept steady, then limited by the user's behavior where there is one."""
    current, demand, forecast = seen.spec_replicas, about.demand or 0.0, about.forecast
    need = demand
    if forecast is not None:
        need = max(demand, min(needed(demand, forecast), float(_forecast_floor(governor, spec, forecast))))
    whole = math.ceil(need)
    hold_s = governor.lead_s if spec.behavior is None else max(governor.lead_s, spec.behavior.down.window_s)
    oldest_ms = now_ms - hold_s * 1000
    past = tuple(p for p in history.recommendations if p.at_ms >= oldest_ms)
    highest = max([whole, *(p.replicas for p in past)])
    wanted = sized(current, need, highest, foreseen=forecast is not None)
    clamps: list[Clamp] = []
    # after a start with no memory a peak may have been missed
    known = history.began_ms is not None and history.began_ms <= oldest_ms
    trouble = "" if known else "what came before is not known yet"
    for metric in decision.metrics:
        trouble = _trouble(metric, now_ms) or trouble
    if wanted < current and trouble:
        why = trouble
        clamps.append(Clamp("hold", wanted, current, "ScaleDownStabilized", f"{why}, so nothing scales down"))
        wanted = current
    elif whole < wanted <= current:
        message = f"the largest need of the last {hold_s} s is {highest}, within the dead band of {current}"
        clamps.append(Clamp("dead band", whole, wanted, "ScaleDownStabilized", message))
    able = clamps[-1] if clamps else None
    desired, reason, message = limited(spec, current, wanted, history, now_ms)
    if desired != wanted:
        clamps.append(Clamp("limit", wanted, desired, reason, message))
    conditions = [
        Condition(
            "AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale"
        ),
        Condition("AbleToScale", "True", able.reason, able.message)
        if able
        else Condition("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size"),
        Condition("ScalingLimited", "False" if desired == wanted else "True", reason, message),
        *(condition for condition in decision.conditions if condition.type == "ScalingActive"),
    ]
    decision = replace(decision, recommended=whole, clamps=tuple(clamps), conditions=tuple(conditions), failed=False)
    remembered = (*past, Recommendation(whole, now_ms))
    began_ms = now_ms if history.began_ms is None else history.began_ms
    source = "demand" if need <= demand else "forecast"
    decision = _to(decision, spec, seen, desired, f"{source} of {need:.2f} replicas")
    return decision, replace(history, recommendations=remembered, began_ms=began_ms)


def _trouble(metric: MetricEvaluation, now_ms: int) -> str:
    """Why a metric is no ground for fewer replicas, "" when it is one."""
    if metric.error:
        return f"{metric.metric} is lost"
    if metric.sample_ms and abs(now_ms - metric.sample_ms) > _OLDEST_MS:
        age_s = (now_ms - metric.sample_ms) // 1000
        return f"{metric.metric} was sampled {age_s} s ago" if age_s > 0 else f"{metric.metric} is {-age_s} s ahead"
    return ""


def _not_lowered(decision: Decision, spec: Spec, seen: Observation) -> Decision:
    """No demand is known: what the HPA's arithmetic makes of that may add replicas and takes none away."""
    current = seen.spec_replicas
    if decision.desired >= current:
        return decision
    why = "no metric tells a demand, so nothing scales down"
    clamp = Clamp("hold", decision.desired, current, "ScaleDownStabilized", why)
    return _to(replace(decision, clamps=(*decision.clamps, clamp)), spec, seen, current, "")


def _raised(decision: Decision, spec: Spec, seen: Observation, floor: int, rule: str) -> Decision:
    """The decision joined by maximum with another number."""
    if floor <= decision.desired:
        return decision
    message = f"the {rule} asks for {floor} replicas"
    clamp = Clamp(rule, decision.desired, floor, rule.capitalize() + "Active", message)
    decision = replace(decision, clamps=(*decision.clamps, clamp), failed=False)
    return _to(decision, spec, seen, floor, message)


def _to(decision: Decision, spec: Spec, seen: Observation, desired: int, reason: str) -> Decision:
    current = seen.spec_replicas
    scales = desired != current
    return replace(
        decision,
        desired=desired,
        rescale=scales,
        reason=reason if scales else "",
        event_periods_s=event_periods(spec) if scales else None,
        to_zero=scales and desired == 0 and spec.has_object_or_external and spec.settings.scale_to_zero,
        status_current=current,
        status_desired=desired,
    )
