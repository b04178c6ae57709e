"""What a Job's pods amount to and what is next: counts, indexes, back-off, the end. Pure.

Source: kubernetes pkg/controller/job/job_controller.go, indexed_job_utils.go, backoff_utils.go.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flyball import clock
from flyball.localcluster.workloads import jobpolicy
from flyball.localcluster.workloads.objects import (
    Object,
    annotations_of,
    condition,
    has_ended,
    is_ready,
    is_terminating,
    with_condition,
)
from flyball.localcluster.workloads.podcontrol import pod_of

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 600.0


# -- pods ------------------------------------------------------------------------------------------------------------


def is_tracked(pod: Object) -> bool:
    """Whether the pod still waits to be counted."""
    return FINALIZER in (pod["metadata"].get("finalizers") or [])


def outcome(pod: Object) -> str:
    """``succeeded``, ``failed`` or ``""``; a pod that is deleted before it succeeded has failed."""
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Succeeded":
        return "succeeded"
    return "failed" if phase == "Failed" or is_terminating(pod) else ""


def finished_ms(pod: Object) -> int:
    """When the pod ended, by its last container, else by its deletion; 0 when it does not say."""
    ended = [
        clock.parse_rfc3339_ms(state["terminated"]["finishedAt"])
        for one in (pod.get("status") or {}).get("containerStatuses") or []
        if ((state := one.get("state") or {}).get("terminated") or {}).get("finishedAt")
    ]
    if not ended and pod["metadata"].get("deletionTimestamp"):
        ended = [clock.parse_rfc3339_ms(pod["metadata"]["deletionTimestamp"])]
    return max(ended, default=0)


def index_of(pod: Object) -> int:
    """The completion index of an Indexed job's pod; -1 without one."""
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def format_indexes(indexes: Iterable[int]) -> str:
    """{1, 3, 4, 5} -> ``"1,3-5"``; two neighbours are listed one by one, as upstream writes them."""
    runs: list[list[int]] = []
    for number in sorted(indexes):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for run in runs:
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)))
    return ",".join(parts)


def _noted(pod: Object, annotation: str) -> int:
    text = annotations_of(pod).get(annotation, "")
    return int(text) if text.isdigit() else 0


def failures_of(pod: Object) -> int:
    """How many pods of the same index have failed before this one."""
    return _noted(pod, INDEX_FAILURES) + _noted(pod, INDEX_IGNORED_FAILURES)


def job_pod(job: Object, index: int | None, replaced: Object | None = None) -> Object:
    """A new pod of the job; with an index for an Indexed one.

    Args:
        replaced: the failed pod of the index in whose place it comes, where failures are counted by index.
    """
    pod = pod_of(job, job["spec"]["template"])
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["finalizers"] = [*metadata.get("finalizers", []), FINALIZER]
    if index is None:
        return pod
    name = job["metadata"]["name"]
    metadata["generateName"] = f"{name}-{index}-"
    metadata["annotations"] = {**metadata.get("annotations", {}), INDEX: str(index)}
    if job["spec"].get("backoffLimitPerIndex") is not None:
        counts = dict.fromkeys((INDEX_FAILURES, INDEX_IGNORED_FAILURES), 0)
        if replaced is not None:
            counts = {name: _noted(replaced, name) for name in counts}
            ignored = jobpolicy.action_on(job, replaced)[0] == jobpolicy.IGNORE
            counts[INDEX_IGNORED_FAILURES if ignored else INDEX_FAILURES] += 1
        metadata["annotations"] |= {name: str(n) for name, n in counts.items() if n or name == INDEX_FAILURES}
    metadata["labels"] |= {INDEX: str(index)}
    spec["hostname"] = f"{name}-{index}"
    variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}}
    for group in ("initContainers", "containers"):
        if group in spec:
            spec[group] = [{**one, "env": [*(one.get("env") or []), variable]} for one in spec[group]]
    return pod


# -- counting --------------------------------------------------------------------------------------------------------


def is_finished(job: Object) -> bool:
    """Whether the job is over, well or not."""
    return any((condition(job, kind) or {}).get("status") == "True" for kind in ("Complete", "Failed"))


@dataclass(slots=True)
class Tally:
    """Counts of ended pods. ``waiting`` are uids that are counted but whose pods still carry the finalizer.

    ``ignored`` are uids of failed pods that the Job's policy does not count.
    """

    succeeded: int = 0
    failed: int = 0
    waiting: dict[str, list[str]] = field(default_factory=lambda: {"succeeded": [], "failed": []})
    completed: set[int] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.waiting["succeeded"])

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.waiting["failed"])


def count(job: Object, pods: list[Object]) -> Tally:
    """The status' counts carried on: each pod is counted exactly once, also when it is deleted afterwards.

    A pod that has ended is first noted by its uid, then it loses its finalizer, then it is added to the number.
    """
    status = job.get("status") or {}
    noted = status.get("uncountedTerminatedPods") or {}
    tally = Tally(int(status.get("succeeded") or 0), int(status.get("failed") or 0))
    tally.completed = jobpolicy.parse_indexes(status.get("completedIndexes") or "")
    tracked = {pod["metadata"]["uid"] for pod in pods if is_tracked(pod)}
    indexed = is_indexed(job)
    for kind in ("succeeded", "failed"):
        for uid in noted.get(kind) or []:
            if uid in tracked:
                tally.waiting[kind].append(uid)
            elif kind == "succeeded":
                tally.succeeded += 1
            else:
                tally.failed += 1
    counted = {uid for uids in tally.waiting.values() for uid in uids}
    for pod in pods:
        kind, uid = outcome(pod), pod["metadata"]["uid"]
        if kind == "failed" and jobpolicy.action_on(job, pod)[0] == jobpolicy.IGNORE:
            tally.ignored.add(uid)
            continue
        if not kind or not is_tracked(pod) or uid in counted:
            continue
        if indexed and kind == "succeeded":
            if 0 <= index_of(pod) < (completions_of(job) or 0):
                tally.completed.add(index_of(pod))
        else:
            tally.waiting[kind].append(uid)
    if indexed:
        tally.succeeded = len(tally.completed)
    if job["spec"].get("backoffLimitPerIndex") is not None:
        tally.failed_indexes = jobpolicy.parse_indexes(status.get("failedIndexes") or "")
        lost = {index_of(pod) for pod in pods if is_tracked(pod) and _fails_index(job, pod)}
        tally.failed_indexes |= lost & set(range(completions_of(job) or 0))
    return tally


def _fails_index(job: Object, pod: Object) -> bool:
    """Whether this pod's failure is one too many for its index."""
    if outcome(pod) != "failed":
        return False
    action = jobpolicy.action_on(job, pod)[0]
    if action == jobpolicy.FAIL_INDEX:
        return True
    return action == jobpolicy.COUNT and _noted(pod, INDEX_FAILURES) >= int(job["spec"]["backoffLimitPerIndex"])


def to_replace(job: Object, pods: list[Object], tally: Tally) -> dict[int, Object]:
    """The last failed pod of each index that gets another one, where failures are counted by index.

    It keeps its finalizer until then: the count for its successor is in its annotations.
    """
    if job["spec"].get("backoffLimitPerIndex") is None:
        return {}
    settled = tally.completed | tally.failed_indexes | {index_of(pod) for pod in pods if not outcome(pod)}
    found: dict[int, Object] = {}
    for pod in sorted(pods, key=lambda pod: (failures_of(pod), finished_ms(pod))):
        if outcome(pod) == "failed" and is_tracked(pod) and 0 <= index_of(pod) < (completions_of(job) or 0):
            found[index_of(pod)] = pod
    return {index: pod for index, pod in found.items() if index not in settled}


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def completions_of(job: Object) -> int | None:
    """How many pods must succeed; None for a work queue, which any success begins to end."""
    value = job["spec"].get("completions")
    return None if value is None else int(value)


# -- what is next ----------------------------------------------------------------------------------------------------


def backoff_s(pods: list[Object], now_ms: int, first_s: float = BACKOFF_FIRST_S) -> float:
    """Seconds until a new pod may be made after failures in a row; 0 when it may be made now."""
    last_good = max((finished_ms(pod) for pod in pods if outcome(pod) == "succeeded"), default=0)
    bad = [finished_ms(pod) for pod in pods if outcome(pod) == "failed" and finished_ms(pod) > last_good]
    if not bad:
        return 0.0
    return _delay_s(len(bad), max(bad), now_ms, first_s)


def index_backoff_s(replaced: Object, now_ms: int, first_s: float = BACKOFF_FIRST_S) -> float:
    """Seconds until a failed pod's successor at its index may be made; 0 when it may be made now."""
    return _delay_s(failures_of(replaced) + 1, finished_ms(replaced), now_ms, first_s)


def _delay_s(failures: int, last_ms: int, now_ms: int, first_s: float) -> float:
    delay_s = min(BACKOFF_MAX_S, first_s * 2.0 ** min(failures - 1, 32))
    return max(0.0, (last_ms + delay_s * 1000 - now_ms) / 1000)


def verdict(job: Object, pods: list[Object], tally: Tally, now_ms: int) -> tuple[str, str, str]:
    """("Complete" or "Failed", reason, message), or three empty texts while it goes on."""
    spec = job["spec"]
    limit = int(spec.get("backoffLimit", 6))
    active = [pod for pod in pods if not outcome(pod)]
    restarts = 0
    if (spec["template"].get("spec") or {}).get("restartPolicy") == "OnFailure":
        restarts = sum(
            int(one.get("restartCount") or 0)
            for pod in active
            for group in ("initContainerStatuses", "containerStatuses")
            for one in (pod.get("status") or {}).get(group) or []
        )
    met = condition(job, "SuccessCriteriaMet")
    if met is not None and met.get("status") == "True":
        return "Complete", str(met.get("reason")), str(met.get("message"))
    target = condition(job, "FailureTarget")
    if target is not None and target.get("status") == "True":
        return "Failed", str(target.get("reason")), str(target.get("message"))
    for pod in pods:
        action, message = jobpolicy.action_on(job, pod) if outcome(pod) == "failed" else ("", "")
        if action == jobpolicy.FAIL_JOB:
            return "Failed", "PodFailurePolicy", message
    if tally.all_failed > limit or (restarts and restarts >= limit):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if deadline_in_s(job, now_ms) == 0:
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    wanted = completions_of(job)
    lost, most = len(tally.failed_indexes), spec.get("maxFailedIndexes")
    if most is not None and lost > most:
        return "Failed", "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
    if lost and lost + len(tally.completed) >= (wanted or 0):
        return "Failed", "FailedIndexes", "Job has failed indexes"
    if message := jobpolicy.success(job, tally.completed):
        return "Complete", "SuccessPolicy", message
    done = tally.all_succeeded >= wanted if wanted is not None else tally.all_succeeded > 0 and not active
    if done:
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    return "", "", ""


def deadline_in_s(job: Object, now_ms: int) -> float | None:
    """Seconds until ``activeDeadlineSeconds`` is over, 0 when it is; None without one."""
    limit = job["spec"].get("activeDeadlineSeconds")
    started = (job.get("status") or {}).get("startTime")
    if limit is None or not started:
        return None
    return max(0.0, (clock.parse_rfc3339_ms(started) + float(limit) * 1000 - now_ms) / 1000)


def expires_in_s(job: Object, now_ms: int) -> float | None:
    """Seconds until a finished job is deleted, 0 when it is time; None when it is kept."""
    ttl_s = job["spec"].get("ttlSecondsAfterFinished")
    ended = next((c for kind in ("Complete", "Failed") if (c := condition(job, kind)) is not None), None)
    if ttl_s is None or ended is None or not ended.get("lastTransitionTime"):
        return None
    return max(0.0, (clock.parse_rfc3339_ms(ended["lastTransitionTime"]) + float(ttl_s) * 1000 - now_ms) / 1000)


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods to create, by index for an Indexed job, and pods to delete."""

    create: tuple[int | None, ...] = ()
    delete: tuple[Object, ...] = ()


def plan(job: Object, pods: list[Object], tally: Tally) -> Plan:
    """As many active pods as parallelism and the missing completions ask for."""
    spec = job["spec"]
    parallelism = int(spec.get("parallelism", 1))
    active = [pod for pod in pods if not outcome(pod)]
    wanted = completions_of(job)
    if wanted is None:
        target = len(active) if tally.all_succeeded else parallelism
    else:
        target = min(parallelism, max(0, wanted - tally.all_succeeded))
    surplus = len(active) - target
    if surplus > 0:
        newest_first = sorted(
            active,
            key=lambda pod: (is_ready(pod), [-ord(c) for c in pod["metadata"].get("creationTimestamp") or ""]),
        )
        return Plan(delete=tuple(newest_first[:surplus]))
    if spec.get("podReplacementPolicy") == "Failed":
        surplus += sum(is_terminating(pod) and not has_ended(pod) for pod in pods)
    missing = max(0, -surplus)
    if not is_indexed(job):
        return Plan(create=(None,) * missing)
    taken = tally.completed | tally.failed_indexes | {index_of(pod) for pod in active}
    free = (number for number in range(wanted or 0) if number not in taken)
    return Plan(create=tuple(number for number, _ in zip(free, range(missing), strict=False)))


# -- the status ------------------------------------------------------------------------------------------------------


def status_of(job: Object, pods: list[Object], tally: Tally, end: tuple[str, str, str], now_ms: int) -> Object:
    """The status; the end is written only once every pod is counted and none is left running."""
    now = clock.rfc3339(now_ms)
    before = job.get("status") or {}
    active = [pod for pod in pods if not outcome(pod)]
    suspended = bool(job["spec"].get("suspend"))
    conditions = list(before.get("conditions") or [])

    def add(kind: str, state: str, reason: str, message: str) -> None:
        nonlocal conditions
        fresh = {"type": kind, "status": state, "reason": reason, "message": message, "lastProbeTime": now}
        old = next((one for one in conditions if one["type"] == kind), None)
        if old is None or (old["status"], old.get("reason")) != (state, reason):
            conditions = with_condition(conditions, fresh, now)

    status: dict[str, Any] = {
        "startTime": before.get("startTime") or (None if suspended else now),
        "active": len(active),
        "ready": sum(map(is_ready, active)),
        "terminating": sum(is_terminating(pod) and not has_ended(pod) for pod in pods),
        "succeeded": tally.succeeded,
        "failed": tally.failed,
        "completedIndexes": format_indexes(tally.completed) if is_indexed(job) else None,
        "failedIndexes": format_indexes(tally.failed_indexes) if "backoffLimitPerIndex" in job["spec"] else None,
        "uncountedTerminatedPods": {kind: uids for kind, uids in tally.waiting.items() if uids} or {},
        "completionTime": before.get("completionTime"),
    }
    kind, reason, message = end
    if kind == "Failed":
        add("FailureTarget", "True", reason, message)
    elif kind == "Complete":
        add("SuccessCriteriaMet", "True", reason, message)
    elif suspended:
        add("Suspended", "True", "JobSuspended", "Job suspended")
        status["startTime"] = None
    elif any(one["type"] == "Suspended" and one["status"] == "True" for one in conditions):
        add("Suspended", "False", "JobResumed", "Job resumed")
        status["startTime"] = now
    if kind and not active and not status["terminating"] and not any(tally.waiting.values()):
        add(kind, "True", reason, message)
        if kind == "Complete":
            status["completionTime"] = now
    status["conditions"] = conditions
    return status
