"""Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import (
    FORBIDDEN,
    REQUIRED,
    Cause,
    Object,
    invalid,
    required,
    unsupported,
)
from flyball.localcluster.schema.validation.names import check_labels, check_selector, matches
from flyball.localcluster.schema.validation.pods import check_non_negative, check_pod_spec
from flyball.model.cron import CronError, parse_cron

_ZONE_PART = re.compile(r"[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}")
CRON_JOB_NAME_MAX = 52  # a job's name adds eleven characters for its time


def _template(spec: Object, field: str = "spec.template", restart: tuple[str, ...] = ("Always",)) -> list[Cause]:
    template = spec.get("template")
    if not isinstance(template, dict):
        return [required(field)] if restart != ("Always",) else check_pod_spec(None, f"{field}.spec")
    metadata, pod = template.get("metadata") or {}, template.get("spec") or {}
    causes = check_labels(metadata.get("labels"), f"{field}.labels")
    causes += check_pod_spec(pod, f"{field}.spec")
    policy = pod.get("restartPolicy")
    if policy and policy not in restart and policy in ("Always", "OnFailure", "Never"):
        if restart == ("Always",):
            causes.append(unsupported(f"{field}.spec.restartPolicy", policy, restart))
        else:
            causes.append(
                Cause(f"{field}.spec.restartPolicy", REQUIRED, 'valid values: "OnFailure", "Never"')
                if policy == "Always"
                else unsupported(f"{field}.spec.restartPolicy", policy, restart)
            )
    return causes


def check_workload(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """Deployments, ReplicaSets, StatefulSets, DaemonSets: selector, template, replicas."""
    spec = obj.get("spec") or {}
    causes = []
    if "replicas" in spec:
        causes += check_non_negative(spec["replicas"], "spec.replicas")
    for name in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        causes += check_non_negative(spec.get(name), f"spec.{name}")
    selector = spec.get("selector")
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += check_selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.append(invalid("spec.selector", selector, f"empty selector is invalid for {_plain(kind.kind)}"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if any(cause.field.startswith("spec.selector.") for cause in causes):
        causes.append(invalid("spec.selector", selector, "invalid label selector"))
    elif selector is None or (selector and not matches(selector, labels)):
        words = "`selector` does not match template `labels`"
        causes.append(invalid("spec.template.metadata.labels", labels or None, words))
    causes += _template(_with_claims(spec) if kind.kind == "StatefulSet" else spec)
    if kind.kind == "Deployment":
        causes += _strategy(spec)
    else:
        causes += _update_strategy(kind.kind, spec)
    if old is not None:
        before = (old.get("spec") or {}).get("selector")
        if before is not None and selector != before:
            causes.append(invalid("spec.selector", selector, "field is immutable"))
        if kind.kind == "StatefulSet":
            for name in ("serviceName", "podManagementPolicy", "volumeClaimTemplates"):
                if (old.get("spec") or {}).get(name) != spec.get(name) and name == "serviceName":
                    causes.append(invalid("spec.serviceName", spec.get(name), "field is immutable"))
                    break
                if (old.get("spec") or {}).get(name) != spec.get(name):
                    causes.append(
                        Cause(
                            "spec",
                            FORBIDDEN,
                            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                            "'minReadySeconds' are forbidden",
                        )
                    )
                    break
    return causes


def _with_claims(spec: Object) -> Object:
    """A StatefulSet's spec whose template has the volumes that its claim templates stand for."""
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    volumes = list(pod.get("volumes") or ())
    named = {volume.get("name") for volume in volumes}
    claims = [(claim.get("metadata") or {}).get("name") for claim in spec.get("volumeClaimTemplates") or ()]
    volumes += [{"name": name} for name in claims if name and name not in named]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}} if claims else spec


def _plain(kind: str) -> str:
    return {"ReplicaSet": "deployment", "StatefulSet": "statefulset", "DaemonSet": "daemonset"}.get(kind, kind.lower())


def check_percent_or_count(value: Any, field: str) -> list[Cause]:
    if isinstance(value, str):
        if not re.fullmatch("[0-9]+%", value):
            return [
                invalid(
                    field,
                    value,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                    "regex used for validation is '[0-9]+%')",
                )
            ]
        return []
    return check_non_negative(value, field)


def _strategy(spec: Object) -> list[Cause]:
    strategy = spec.get("strategy") or {}
    kind, rolling = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate")
    field = "spec.strategy"
    if kind == "Recreate":
        if rolling is not None:
            return [
                Cause(f"{field}.rollingUpdate", FORBIDDEN, "may not be specified when strategy `type` is 'Recreate'")
            ]
        return []
    if kind != "RollingUpdate":
        shown = {"Type": kind, "RollingUpdate": rolling}  # as upstream's internal type
        return [unsupported(field, shown, ("Recreate", "RollingUpdate"))]
    rolling = rolling or {}
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    causes = check_percent_or_count(unavailable, f"{field}.rollingUpdate.maxUnavailable")
    causes += check_percent_or_count(surge, f"{field}.rollingUpdate.maxSurge")
    if unavailable in (0, "0%") and surge in (0, "0%"):
        causes.append(
            invalid(f"{field}.rollingUpdate.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
        )
    if isinstance(unavailable, str) and re.fullmatch("[0-9]+%", unavailable) and int(unavailable[:-1]) > 100:
        causes.append(invalid(f"{field}.rollingUpdate.maxUnavailable", unavailable, "must not be greater than 100%"))
    progress, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds", 0)
    if isinstance(progress, int) and isinstance(ready, int) and progress <= ready:
        causes.append(invalid("spec.progressDeadlineSeconds", progress, "must be greater than minReadySeconds"))
    return causes


def _update_strategy(kind: str, spec: Object) -> list[Cause]:
    """Of a StatefulSet or a DaemonSet; the values are shown as upstream's internal types."""
    strategy = spec.get("updateStrategy") or {}
    given = strategy.get("type", "RollingUpdate")
    policy = spec.get("podManagementPolicy", "Parallel")
    causes = []
    if kind == "StatefulSet" and policy not in ("OrderedReady", "Parallel"):
        causes.append(invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    if given not in ("RollingUpdate", "OnDelete"):
        shown = {"Type": given, "RollingUpdate": strategy.get("rollingUpdate")}
        if kind == "StatefulSet":
            causes.append(invalid("spec.updateStrategy", shown, "must be 'RollingUpdate' or 'OnDelete'"))
        elif kind == "DaemonSet":
            causes.append(unsupported("spec.updateStrategy", shown, ("RollingUpdate", "OnDelete"), in_order=True))
    return causes


def check_job(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    for name in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        causes += check_non_negative(spec.get(name), f"spec.{name}")
    causes += _template(spec, restart=("OnFailure", "Never"))
    if old is not None:
        before = old.get("spec") or {}
        for name in ("selector", "completionMode"):
            if before.get(name) is not None and spec.get(name) != before[name]:
                causes.append(invalid(f"spec.{name}", spec.get(name), "field is immutable"))
        if not before.get("suspend") and before.get("template") != spec.get("template"):
            causes.append(invalid("spec.template", spec.get("template"), "field is immutable"))
    return causes


def check_cron_job(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    name = (obj.get("metadata") or {}).get("name") or ""
    if len(name) > CRON_JOB_NAME_MAX:
        causes.append(invalid("metadata.name", name, f"must be no more than {CRON_JOB_NAME_MAX} characters"))
    causes += _schedule(spec.get("schedule") or "") + _time_zone(spec.get("timeZone"))
    policy = spec.get("concurrencyPolicy")
    if policy and policy not in ("Allow", "Forbid", "Replace"):
        causes.append(unsupported("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace")))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    causes += _template(job, "spec.jobTemplate.spec.template", ("OnFailure", "Never"))
    return causes


def _schedule(text: str) -> list[Cause]:
    if not text:
        return [required("spec.schedule")]
    causes = []
    try:
        parse_cron(text)
    except CronError as exc:
        causes.append(invalid("spec.schedule", text, str(exc)))
    if "TZ" in text:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        causes.append(invalid("spec.schedule", text, detail))
    return causes


def _time_zone(name: str | None) -> list[Cause]:
    if name is None:
        return []
    if not name:
        return [invalid("spec.timeZone", name, "timeZone must be nil or non-empty string")]
    unknown = [invalid("spec.timeZone", name, f"unknown time zone {name}")]
    if any(part in (".", "..") or not _ZONE_PART.fullmatch(part) for part in name.split("/")):
        return unknown
    if name.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid("spec.timeZone", name, detail), *unknown]
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return unknown
    return []
