"""A case of cases.py decided by ``flyball.scaling``, and the difference to upstream's verdict."""

import re
from typing import Any

from flyball.clock import rfc3339
from flyball.errors import QueryError
from flyball.model.selectors import parse_selector
from flyball.scaling import (
    History,
    Observation,
    Outcome,
    PodReading,
    Reading,
    Recommendation,
    ScaleEvent,
    Settings,
    after_write,
    applied,
    decide,
    ending_error,
    next_status,
    pod_from_object,
    same_status,
    spec_from_hpa,
)

Json = dict[str, Any]


def judge(case: Json, profile: str) -> Json:
    """What upstream's harness prints about a case, computed by us."""
    return judge_by(case, Settings(profile=profile, **case["settings"]))


def judge_by(case: Json, settings: Settings) -> Json:
    """As ``judge``, under the given settings."""
    spec = spec_from_hpa(case["hpa"], settings)
    seen = _observation(case, spec)
    history = history_of(case.get("history") or {})
    now_ms = case["now_ms"]
    decision, history = decide(spec, seen, history, now_ms)
    outcome = Outcome(case.get("update_error", "")) if decision.rescale else None
    more, events = after_write(decision, outcome) if outcome is not None else ((), ())
    if outcome is not None:
        history = applied(history, decision, outcome, now_ms)
    before = case["hpa"].get("status") or {}
    status = next_status(case["hpa"], decision, outcome, (*decision.conditions, *more), rfc3339(now_ms))
    return {
        "id": case.get("id"),
        "writes": [decision.desired] if outcome is not None and outcome.ok else None,
        "error": ending_error(decision, outcome),
        "events": [[event.type, event.reason, event.message] for event in (*decision.events, *events)] or None,
        "status": None if same_status(before, status) else status,
        "history": {
            "recommendations": [[past.replicas, past.at_ms] for past in history.recommendations] or None,
            "ups": [[event.change, event.at_ms] for event in history.ups] or None,
            "downs": [[event.change, event.at_ms] for event in history.downs] or None,
        },
    }


def _observation(case: Json, spec: Any) -> Observation:
    if case.get("get_error"):
        return Observation(scale_error=case["get_error"])
    text, trouble = case["selector"], ""
    pods: list[Json] = []
    selecting = {f"{spec.namespace}/{spec.name}"}
    selecting.update(case.get("selecting") or ())
    if text:
        try:
            selector = parse_selector(text)
        except QueryError as error:
            trouble = str(error)
        else:
            pods = [pod for pod in case["pods"] or () if selector.matches(pod["metadata"]["labels"])]
            for name, other in (case.get("other_selectors") or {}).items():
                if any(parse_selector(other).matches(pod["metadata"]["labels"]) for pod in pods):
                    selecting.add(f"{spec.namespace}/{name}")
    return Observation(
        spec_replicas=case["spec_replicas"],
        status_replicas=case["status_replicas"],
        selector=text,
        selector_error=trouble,
        selecting_hpas=tuple(sorted(selecting)) if pods else (),
        pods=tuple(pod_from_object(pod) for pod in pods),
        readings=tuple(reading_of(case["readings"].get(_key(metric)) or {}) for metric in spec.metrics),
        scaled_to_zero=any(
            condition["type"] == "ScaledToZero" and condition["status"] == "True"
            for condition in (case["hpa"].get("status") or {}).get("conditions") or ()
        ),
    )


def _key(metric: Any) -> str:
    return f"{metric.name}/{metric.container}" if metric.type in ("Resource", "ContainerResource") else str(metric.name)


def reading_of(raw: Json) -> Reading:
    if "error" in raw:
        return Reading(error=raw["error"])
    pods = {name: PodReading(*values) for name, values in (raw.get("pods") or {}).items()}
    return Reading(pods=pods, values=tuple(raw.get("values") or ()))


def history_of(raw: Json) -> History:
    return History(
        tuple(Recommendation(*record) for record in raw.get("recommendations") or ()),
        tuple(ScaleEvent(*record) for record in raw.get("ups") or ()),
        tuple(ScaleEvent(*record) for record in raw.get("downs") or ()),
    )


#: Where a result of Go depends on the processor, and what we show instead. Nothing else may differ.
UNDEFINED = {
    # int64(+Inf) on amd64: a total metric's mean over no replicas; only shown, never decided upon
    "-9223372036854775808m": "0",
}


def differences(theirs: Json, ours: Json) -> list[str]:
    """The fields in which two verdicts differ; empty when they agree."""
    found = []
    for field in ("writes", "error", "events", "history", "status"):
        a, b = _comparable(theirs.get(field)), _comparable(ours.get(field))
        if a != b:
            found.append(f"{field}: {_first(a, b)}")
    return found


def _first(a: Any, b: Any, where: str = "") -> str:
    """The first place at which two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        key = next(key for key in sorted({*a, *b}) if a.get(key) != b.get(key))
        return _first(a.get(key), b.get(key), f"{where}.{key}")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        at = next(at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        return _first(a[at], b[at], f"{where}[{at}]")
    return f"{where} upstream {a!r}, ours {b!r}"


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _comparable(item) for key, item in value.items() if item not in (None, [], {}, 0, "", "0", *UNDEFINED)
        }
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    if isinstance(value, str):
        # upstream lists two of the HPAs in the order of a Go map
        value = re.sub(r"(more than one HPA \(e\.g\. |multiple HPAs: )\[[^]]*\]", r"\1[...]", value)
        # the parser's own words about a selector that it refuses
        return re.sub(r"(corresponding internal selector object: ).*", r"\1...", value)
    return value
