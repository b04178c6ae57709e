"""Events: the older kind, which asks for little, and that of events.k8s.io, which is written once and completely."""

from __future__ import annotations

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import Cause, Object, invalid, required
from flyball.localcluster.schema.validation.names import qualified_problems

_TEXT_MAX = 128
_NOTE_MAX = 1024
_WRITTEN_ONCE = (
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
)


def check_event(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """``obj`` is in the core form, in which events are stored; ``kind`` is what the client sent."""
    causes = _check_any(kind, obj)
    if not kind.group:
        return causes
    if old is not None:
        # A name that only one form has is shown as the core form has it, as upstream shows it.
        names = {**dict.fromkeys(_WRITTEN_ONCE), "reportingComponent": "reportingController", "reportingInstance": None}
        for name, shown in names.items():
            if (old.get(name) or None) != (obj.get(name) or None):
                causes.append(invalid(shown or name, obj.get(name), "field is immutable"))
        return causes
    series = obj.get("series")
    if isinstance(series, dict):
        if (series.get("count") or 0) < 2:
            causes.append(invalid("series.count", "", "should be at least 2"))
        if not series.get("lastObservedTime"):
            causes.append(required("series.lastObservedTime"))
    if not obj.get("eventTime"):
        causes.append(required("eventTime"))
    if obj.get("type") not in ("Normal", "Warning"):
        causes.append(invalid("type", "", f"has invalid value: {obj.get('type') or ''}"))
    for name in ("firstTimestamp", "lastTimestamp", "count", "source"):
        if obj.get(name):
            causes.append(invalid(name, "", "needs to be unset"))
    return causes


def _check_any(kind: Kind, obj: Object) -> list[Cause]:
    namespace = (obj.get("metadata") or {}).get("namespace") or ""
    named = (obj.get("involvedObject") or {}).get("namespace") or ""
    is_new = bool(obj.get("eventTime"))
    causes = []
    compatible = ("default", "kube-system") if is_new else ("", "default")
    elsewhere = named not in ("", namespace) and not is_new
    if elsewhere or (not named and namespace not in compatible):
        causes.append(invalid("involvedObject.namespace", named, "does not match event.namespace"))
    if not is_new:
        return causes
    controller = obj.get("reportingComponent") or ""
    shown = "reportingController" if kind.group else "reportingComponent"
    if not controller:
        causes.append(required(shown))
    causes += [invalid(shown, controller, one) for one in qualified_problems(controller)]
    for name in ("reportingInstance", "action", "reason"):
        text = obj.get(name) or ""
        if not text:
            causes.append(required(name))
        if len(text) > _TEXT_MAX:
            causes.append(invalid(name, "", f"can have at most {_TEXT_MAX} characters"))
    if len(obj.get("message") or "") > _NOTE_MAX:
        causes.append(invalid("message", "", f"can have at most {_NOTE_MAX} characters"))
    return causes
