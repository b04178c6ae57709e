"""When a CronJob starts a job, and what becomes of the ones that it started. Pure.

Source: kubernetes pkg/controller/cronjob/cronjob_controllerv2.go and utils.go. Where upstream estimates the newest
missed start by the distance of two, the newest is taken.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flyball import clock
from flyball.localcluster.workloads.objects import (
    Object,
    annotations_of,
    condition,
    controller_reference,
    is_terminating,
    labels_of,
    name_of,
)
from flyball.model.cron import Cron, CronError, Every, parse_cron

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MISSED_MAX = 100
PADDING_S = 0.1  # wakes a little late rather than a little early

Event = tuple[Literal["Normal", "Warning"], str, str]  # and reason, message


@dataclass(slots=True)
class Step:
    """What to do about a CronJob now.

    Attributes:
        active: the references that stay in the status.
        last_successful: the newest completion time.
        events: what to tell, in order.
        expired: finished jobs beyond the history's limits.
        replaced: references of running jobs to delete before the start.
        start_ms: the firing that a job is to be made for; None when nothing is to be started.
        again_in_s: when to look again; None when only a change can bring news.
    """

    active: list[Object]
    last_successful: str | None = None
    events: list[Event] = field(default_factory=list)
    expired: list[Object] = field(default_factory=list)
    replaced: list[Object] = field(default_factory=list)
    start_ms: int | None = None
    again_in_s: float | None = None


def plan(cron_job: Object, jobs: list[Object], missing: set[str], now_ms: int) -> Step:
    """The next step.

    Args:
        jobs: all that the CronJob controls.
        missing: uids of active jobs that do not exist any more.
    """
    status = cron_job.get("status") or {}
    step = Step(list(status.get("active") or []), status.get("lastSuccessfulTime"))
    step.expired = _beyond_history(cron_job, jobs)
    _note_ends(step, jobs, missing)
    if not is_terminating(cron_job):
        _plan_start(step, cron_job, now_ms)
    return step


def _note_ends(step: Step, jobs: list[Object], missing: set[str]) -> None:
    listed = {reference["uid"] for reference in step.active}
    gone = {job["metadata"]["uid"] for job in step.expired}
    for job in jobs:
        uid, end = job["metadata"]["uid"], ending(job)
        if not end and uid not in listed:
            message = f"Saw a job that the controller did not create or forgot: {name_of(job)}"
            step.events.append(("Warning", "UnexpectedJob", message))
        if end and uid in listed:
            gone.add(uid)
            step.events.append(("Normal", "SawCompletedJob", f"Saw completed job: {name_of(job)}, condition: {end}"))
        if end == "Complete":
            completed = (job.get("status") or {}).get("completionTime")
            step.last_successful = max(filter(None, (step.last_successful, completed)), default=None)
    for reference in step.active:
        if reference["uid"] in missing:
            step.events.append(("Normal", "MissingJob", f"Active job went missing: {reference['name']}"))
    step.active = [one for one in step.active if one["uid"] not in gone | missing]


def _plan_start(step: Step, cron_job: Object, now_ms: int) -> None:
    spec = cron_job["spec"]
    try:
        zone_of(cron_job)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zone = spec["timeZone"]
        step.events.append(("Warning", "UnknownTimeZone", f'invalid timeZone: "{zone}": unknown time zone {zone}'))
        return
    if spec.get("suspend"):
        return
    try:
        schedule = parse_cron(spec["schedule"])
    except CronError as exc:
        message = f'unparseable schedule: "{spec["schedule"]}" : {exc}'
        step.events.append(("Warning", "UnparseableSchedule", message))
        return
    if schedule.next_ms(earliest_ms(cron_job), zone_name(cron_job)) is None:
        message = f"invalid schedule: {spec['schedule']} : time difference between two schedules is less than 1 second"
        step.events.append(("Warning", "InvalidSchedule", message))
        return
    step.again_in_s = again_in_s(cron_job, schedule, now_ms)
    unmet_ms = newest_unmet_ms(cron_job, schedule, now_ms)
    if unmet_ms is None:
        return
    if _has_missed_many(cron_job, schedule, now_ms):
        message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        step.events.append(("Warning", "TooManyMissedTimes", message))
    if any(reference["name"] == job_name(cron_job, unmet_ms) for reference in step.active):
        return
    policy = spec.get("concurrencyPolicy")
    if policy == "Forbid" and step.active:
        message = "Not starting job because prior execution is running and concurrency policy is Forbid"
        step.events.append(("Normal", "JobAlreadyActive", message))
        return
    if policy == "Replace":
        step.replaced, step.active = step.active, []
    step.start_ms = unmet_ms


# -- times -----------------------------------------------------------------------------------------------------------


def zone_name(cron_job: Object) -> str:
    """The time zone's name; UTC unless the CronJob says otherwise, as in upstream's containers."""
    return str(cron_job["spec"].get("timeZone") or "UTC")


def zone_of(cron_job: Object) -> ZoneInfo:
    """The time zone.

    Raises:
        ZoneInfoNotFoundError, ValueError, OSError: there is no such zone.
    """
    return ZoneInfo(zone_name(cron_job))


def earliest_ms(cron_job: Object) -> int:
    """What fired up to here is done with: the last start, or the CronJob's birth."""
    last = (cron_job.get("status") or {}).get("lastScheduleTime")
    return clock.parse_rfc3339_ms(last or cron_job["metadata"]["creationTimestamp"])


def _deadline_ms(cron_job: Object, now_ms: int) -> int:
    """What fired up to here is too late to be started."""
    limit_s = cron_job["spec"].get("startingDeadlineSeconds")
    return earliest_ms(cron_job) if limit_s is None else now_ms - int(limit_s) * 1000


def newest_unmet_ms(cron_job: Object, schedule: Cron | Every, now_ms: int) -> int | None:
    """The newest firing that has not been started and is not too late; None without one."""
    found = schedule.last_ms(earliest_ms(cron_job), now_ms, zone_name(cron_job))
    return found if found is not None and found >= _deadline_ms(cron_job, now_ms) else None


def _has_missed_many(cron_job: Object, schedule: Cron | Every, now_ms: int) -> bool:
    zone = zone_name(cron_job)
    first = schedule.next_ms(max(earliest_ms(cron_job), _deadline_ms(cron_job, now_ms)), zone)
    second = schedule.next_ms(first, zone) if first is not None else None
    if first is None or second is None:
        return False
    return (now_ms - first) // (second - first) + 1 > MISSED_MAX


def again_in_s(cron_job: Object, schedule: Cron | Every, now_ms: int) -> float | None:
    """Seconds until the next firing; None when there is none within the years that are searched."""
    begin_ms, zone = earliest_ms(cron_job), zone_name(cron_job)
    next_ms = schedule.next_ms(schedule.last_ms(begin_ms, now_ms, zone) or begin_ms, zone)
    return None if next_ms is None else (next_ms - now_ms) / 1000 + PADDING_S


# -- jobs ------------------------------------------------------------------------------------------------------------


def ending(job: Object) -> str:
    """``Complete``, ``Failed`` or ``""``."""
    ends = (kind for kind in ("Complete", "Failed") if (condition(job, kind) or {}).get("status") == "True")
    return next(ends, "")


def _beyond_history(cron_job: Object, jobs: list[Object]) -> list[Object]:
    expired = []
    for end, limit in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
        kept = cron_job["spec"].get(limit)
        if kept is None:
            continue
        finished = [job for job in jobs if ending(job) == end]
        finished.sort(key=lambda job: ((job.get("status") or {}).get("startTime") or "9", name_of(job)))
        expired += finished[: max(0, len(finished) - int(kept))]
    return expired


def job_name(cron_job: Object, fired_ms: int) -> str:
    """The same for the same firing, so that a job is never made twice."""
    return f"{name_of(cron_job)}-{fired_ms // 60_000}"


def job_of(cron_job: Object, fired_ms: int) -> Object:
    """The job of a firing."""
    template = cron_job["spec"]["jobTemplate"]
    fired = datetime.fromtimestamp(fired_ms // 1000, zone_of(cron_job)).isoformat().replace("+00:00", "Z")
    metadata: Object = {
        "name": job_name(cron_job, fired_ms),
        "namespace": cron_job["metadata"]["namespace"],
        "annotations": {**annotations_of(template), SCHEDULED_AT: fired},
        "ownerReferences": [controller_reference(cron_job)],
    }
    if labels_of(template):
        metadata["labels"] = labels_of(template)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template.get("spec") or {}}


def status_of(step: Step, cron_job: Object, started: Object | None) -> dict[str, Any]:
    """The status after a step.

    Args:
        started: the reference of the job that was made for ``step.start_ms``; None when none was.
    """
    last = (cron_job.get("status") or {}).get("lastScheduleTime")
    if started is not None and step.start_ms is not None:
        last = clock.rfc3339(step.start_ms)
    return {
        "active": [*step.active, started] if started is not None else step.active,
        "lastScheduleTime": last,
        "lastSuccessfulTime": step.last_successful,
    }
