"""Families of what runs pods: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs, autoscalers."""

import math
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

from flyball.exporters.kubestate.families import (
    Family,
    Kind,
    Object,
    Pairs,
    Series,
    at,
    conditions,
    info,
    namespaced,
    number,
    owners,
    quantity,
    statuses,
    text,
    time,
    unix_s,
)
from flyball.kube.kinds import CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, HPAS_V2, JOBS, REPLICA_SETS, STATEFUL_SETS
from flyball.model.cron import parse_cron

DEPLOYMENT_REASONS = (
    "",
    "ReplicaSetUpdated",
    "ReplicaSetCreateError",
    "NewReplicaSetCreated",
    "FoundNewReplicaSet",
    "NewReplicaSetAvailable",
    "ProgressDeadlineExceeded",
    "DeploymentPaused",
    "DeploymentResumed",
    "MinimumReplicasAvailable",
    "MinimumReplicasUnavailable",
)
JOB_FAILURES = ("BackoffLimitExceeded", "DeadlineExceeded", "Evicted")


def _common(prefix: str, *, deletion: bool = True, generation: bool = True) -> tuple[Family, ...]:
    what = prefix.removeprefix("kube_")
    families = [Family(f"{prefix}_created", f"When the {what} was created.", time("metadata.creationTimestamp"))]
    if deletion:
        about = f"When the deletion of the {what} was asked."
        families.append(Family(f"{prefix}_deletion_timestamp", about, time("metadata.deletionTimestamp")))
    if generation:
        path = "metadata.generation"
        about = f"Generation of the {what}'s wanted state."
        families.append(Family(f"{prefix}_metadata_generation", about, number(path, zero=True)))
    return tuple(families)


def _counts(prefix: str, *rows: tuple[str, str, str], zero: bool = True) -> tuple[Family, ...]:
    """(rest of the name, path, help)."""
    return tuple(Family(f"{prefix}_{name}", about, number(path, zero=zero)) for name, path, about in rows)


def _rolling(field: str, *, up: bool) -> Callable[[Object], Series]:
    def series(obj: Object) -> Series:
        amount, replicas = at(obj, f"spec.strategy.rollingUpdate.{field}"), at(obj, "spec.replicas")
        if amount is None or replicas is None:
            return ()
        if isinstance(amount, str):
            percent = amount.removesuffix("%")
            if percent == amount or not percent.isdigit():
                return ()
            share = int(percent) * replicas / 100
            amount = math.ceil(share) if up else math.floor(share)
        return [((), float(amount))]

    return series


def _deployment_conditions(obj: Object) -> Iterator[tuple[Pairs, float]]:
    for one in at(obj, "status.conditions") or ():
        reason = one.get("reason", "")
        own = (("reason", reason if reason in DEPLOYMENT_REASONS else "unknown"), ("condition", one["type"]))
        for labels, value in statuses(one.get("status"), "status"):
            yield (*own, *labels), value


DEPLOYMENT = Kind(
    DEPLOYMENTS,
    namespaced("deployment"),
    (
        *_common("kube_deployment"),
        Family("kube_deployment_owner", "Owners of the deployment.", owners(controller=False)),
        Family("kube_deployment_spec_replicas", "Pods wanted.", number("spec.replicas")),
        Family("kube_deployment_status_terminating_replicas", "Pods that end.", number("status.terminatingReplicas")),
        Family("kube_deployment_status_condition", "Conditions of the deployment.", _deployment_conditions),
        *_counts(
            "kube_deployment",
            ("status_replicas", "status.replicas", "Pods there are."),
            ("status_replicas_ready", "status.readyReplicas", "Pods that are ready."),
            ("status_replicas_available", "status.availableReplicas", "Pods that are available."),
            ("status_replicas_unavailable", "status.unavailableReplicas", "Pods that are not available."),
            ("status_replicas_updated", "status.updatedReplicas", "Pods of the newest template."),
            ("status_observed_generation", "status.observedGeneration", "Generation the controller has seen."),
            ("spec_paused", "spec.paused", "Whether the deployment is paused."),
        ),
        Family(
            "kube_deployment_spec_strategy_rollingupdate_max_unavailable",
            "Pods that may be missing while the deployment rolls.",
            _rolling("maxUnavailable", up=False),
        ),
        Family(
            "kube_deployment_spec_strategy_rollingupdate_max_surge",
            "Pods that may be too many while the deployment rolls.",
            _rolling("maxSurge", up=True),
        ),
    ),
)
REPLICA_SET = Kind(
    REPLICA_SETS,
    namespaced("replicaset"),
    (
        *_common("kube_replicaset", deletion=False),
        Family("kube_replicaset_owner", "Owners of the ReplicaSet.", owners()),
        Family("kube_replicaset_spec_replicas", "Pods wanted.", number("spec.replicas")),
        Family("kube_replicaset_status_terminating_replicas", "Pods that end.", number("status.terminatingReplicas")),
        *_counts(
            "kube_replicaset_status",
            ("replicas", "status.replicas", "Pods there are."),
            ("fully_labeled_replicas", "status.fullyLabeledReplicas", "Pods with all labels of the template."),
            ("ready_replicas", "status.readyReplicas", "Pods that are ready."),
            ("observed_generation", "status.observedGeneration", "Generation the controller has seen."),
        ),
    ),
)


def _revision(path: str) -> Callable[[Object], Series]:
    return info(("revision", path))


def _retention(obj: Object) -> Series:
    policy = at(obj, "spec.persistentVolumeClaimRetentionPolicy")
    if not policy:
        return ()
    labels = (("when_deleted", policy.get("whenDeleted", "")), ("when_scaled", policy.get("whenScaled", "")))
    return [(labels, 1.0)]


STATEFUL_SET = Kind(
    STATEFUL_SETS,
    namespaced("statefulset"),
    (
        *_common("kube_statefulset"),
        Family("kube_statefulset_replicas", "Pods wanted.", number("spec.replicas")),
        Family("kube_statefulset_ordinals_start", "Number of the first pod.", number("spec.ordinals.start")),
        Family("kube_statefulset_persistentvolumeclaim_retention_policy", "What becomes of claims.", _retention),
        *_counts(
            "kube_statefulset_status",
            ("replicas", "status.replicas", "Pods there are."),
            ("replicas_available", "status.availableReplicas", "Pods that are available."),
            ("replicas_current", "status.currentReplicas", "Pods of the current revision."),
            ("replicas_ready", "status.readyReplicas", "Pods that are ready."),
            ("replicas_updated", "status.updatedReplicas", "Pods of the newest revision."),
            ("observed_generation", "status.observedGeneration", "Generation the controller has seen."),
        ),
        Family("kube_statefulset_status_current_revision", "Current revision.", _revision("status.currentRevision")),
        Family("kube_statefulset_status_update_revision", "Newest revision.", _revision("status.updateRevision")),
    ),
)
DAEMON_SET = Kind(
    DAEMON_SETS,
    namespaced("daemonset"),
    (
        *_common("kube_daemonset"),
        *_counts(
            "kube_daemonset_status",
            ("current_number_scheduled", "status.currentNumberScheduled", "Nodes that run a pod and should."),
            ("desired_number_scheduled", "status.desiredNumberScheduled", "Nodes that should run a pod."),
            ("number_available", "status.numberAvailable", "Nodes with an available pod."),
            ("number_misscheduled", "status.numberMisscheduled", "Nodes that run a pod and should not."),
            ("number_ready", "status.numberReady", "Nodes with a ready pod."),
            ("number_unavailable", "status.numberUnavailable", "Nodes without an available pod."),
            ("observed_generation", "status.observedGeneration", "Generation the controller has seen."),
            ("updated_number_scheduled", "status.updatedNumberScheduled", "Nodes with a pod of the newest template."),
        ),
    ),
)


def _job_condition(kind: str) -> Callable[[Object], Series]:
    """Nothing until the condition exists."""

    def series(obj: Object) -> Iterator[tuple[Pairs, float]]:
        for one in at(obj, "status.conditions") or ():
            if one["type"] == kind:
                yield from statuses(one.get("status"), "condition")

    return series


def _job_failures(obj: Object) -> Iterator[tuple[Pairs, float]]:
    failed = float(at(obj, "status.failed") or 0)
    if not failed:
        yield (), 0.0
        return
    reasons = [one.get("reason", "") for one in at(obj, "status.conditions") or () if one["type"] == "Failed"]
    for reason in reasons:
        for known in JOB_FAILURES:
            yield (("reason", known),), float(reason == known)
    if not set(reasons) & set(JOB_FAILURES):
        yield (("reason", ""),), failed


JOB = Kind(
    JOBS,
    namespaced("job_name"),
    (
        Family("kube_job_info", "The jobs there are.", info()),
        *_common("kube_job", deletion=False, generation=False),
        Family("kube_job_owner", "Owners of the job.", owners()),
        Family("kube_job_spec_parallelism", "Pods that may run at once.", number("spec.parallelism")),
        Family("kube_job_spec_completions", "Pods that have to succeed.", number("spec.completions")),
        Family(
            "kube_job_spec_active_deadline_seconds",
            "Seconds after which the job is ended.",
            number("spec.activeDeadlineSeconds"),
        ),
        Family("kube_job_status_succeeded", "Pods that succeeded.", number("status.succeeded", zero=True)),
        Family("kube_job_status_failed", "Pods that failed, or why the job did.", _job_failures),
        Family("kube_job_status_active", "Pods that run.", number("status.active", zero=True)),
        Family("kube_job_status_ready", "Pods that are ready.", number("status.ready", zero=True)),
        Family("kube_job_complete", "Whether the job is complete.", _job_condition("Complete")),
        Family("kube_job_failed", "Whether the job has failed.", _job_condition("Failed")),
        Family("kube_job_status_start_time", "When the job began.", time("status.startTime")),
        Family("kube_job_status_completion_time", "When the job was done.", time("status.completionTime")),
        Family(
            "kube_job_status_suspended",
            "Whether the job is suspended.",
            lambda obj: [
                ((), float(one.get("status") == "True"))
                for one in at(obj, "status.conditions") or ()
                if one["type"] == "Suspended"
            ],
        ),
    ),
)


def _next_ms(obj: Object) -> int | None:
    """The firing after the last one, or after the object was made.

    Raises:
        ValueError: the schedule or the time zone is none.
        KeyError: there is no such time zone.
    """
    schedule, zone = parse_cron(text(at(obj, "spec.schedule"))), str(at(obj, "spec.timeZone") or "UTC")
    since = at(obj, "status.lastScheduleTime") or at(obj, "metadata.creationTimestamp")
    return schedule.next_ms(round(unix_s(since) * 1000), ZoneInfo(zone).key) if since else None


def _next_schedule(obj: Object) -> Series:
    try:
        at_ms = None if at(obj, "spec.suspend") else _next_ms(obj)
    except (ValueError, KeyError):
        return ()
    return [((), at_ms / 1000)] if at_ms is not None else ()


def _schedule_invalid(obj: Object) -> Series:
    try:
        _next_ms(obj)
    except (ValueError, KeyError):
        return [((), 1.0)]
    return ()


CRON_JOB = Kind(
    CRON_JOBS,
    namespaced("cronjob"),
    (
        Family(
            "kube_cronjob_info",
            "Schedule of the cron job.",
            lambda obj: [
                (
                    (
                        ("schedule", text(at(obj, "spec.schedule"))),
                        ("concurrency_policy", text(at(obj, "spec.concurrencyPolicy"))),
                        ("timezone", at(obj, "spec.timeZone") or "local"),
                    ),
                    1.0,
                )
            ],
        ),
        *_common("kube_cronjob", deletion=False, generation=False),
        Family(
            "kube_cronjob_status_active",
            "Jobs that run.",
            lambda obj: [((), float(len(at(obj, "status.active") or ())))],
        ),
        Family("kube_cronjob_status_last_schedule_time", "When a job was made last.", time("status.lastScheduleTime")),
        Family(
            "kube_cronjob_status_last_successful_time",
            "When a job succeeded last.",
            time("status.lastSuccessfulTime"),
        ),
        Family("kube_cronjob_next_schedule_time", "When a job is due next.", _next_schedule),
        Family("kube_cronjob_schedule_invalid", "1 where the schedule or its time zone is none.", _schedule_invalid),
        Family("kube_cronjob_spec_suspend", "Whether the cron job is suspended.", number("spec.suspend", zero=True)),
        *_counts(
            "kube_cronjob",
            ("spec_starting_deadline_seconds", "spec.startingDeadlineSeconds", "Seconds a start may be late."),
            ("spec_successful_job_history_limit", "spec.successfulJobsHistoryLimit", "Successful jobs that are kept."),
            ("spec_failed_job_history_limit", "spec.failedJobsHistoryLimit", "Failed jobs that are kept."),
            ("metadata_resource_version", "metadata.resourceVersion", "Version of the object."),
            zero=False,
        ),
    ),
)

_SOURCES = {
    "Object": ("object", "metric.name"),
    "Pods": ("pods", "metric.name"),
    "Resource": ("resource", "name"),
    "ContainerResource": ("containerResource", "name"),
    "External": ("external", "metric.name"),
}


def _targets(path: str, part: str) -> Callable[[Object], Series]:
    def series(obj: Object) -> Iterator[tuple[Pairs, float]]:
        for metric in at(obj, path) or ():
            field, name_at = _SOURCES.get(metric.get("type", ""), ("", ""))
            source = metric.get(field)
            if not source:
                continue
            head = (("metric_name", text(at(source, name_at))),)
            container = (("container", source.get("container", "") if field == "containerResource" else ""),)
            amounts = source.get(part) or {}
            for kind, key in (("value", "value"), ("average", "averageValue"), ("utilization", "averageUtilization")):
                if amounts.get(key) is not None:
                    yield (*head, ("metric_target_type", kind), *container), quantity(amounts[key])

    return series


def _scale_target(obj: Object) -> Series:
    reference = at(obj, "spec.scaleTargetRef") or {}
    version = reference.get("apiVersion")
    labels = (
        *((("scaletargetref_api_version", version),) if version else ()),
        ("scaletargetref_kind", reference.get("kind", "")),
        ("scaletargetref_name", reference.get("name", "")),
    )
    return [(labels, 1.0)]


def _tolerance(direction: str) -> Callable[[Object], Series]:
    path = f"spec.behavior.{direction}.tolerance"
    return lambda obj: [((), quantity(at(obj, path)))] if at(obj, path) is not None else ()


_HPA = "kube_horizontalpodautoscaler"
AUTOSCALER = Kind(
    HPAS_V2,
    namespaced("horizontalpodautoscaler"),
    (
        Family(f"{_HPA}_info", "What the autoscaler scales.", _scale_target),
        *_common(_HPA),
        Family(f"{_HPA}_spec_max_replicas", "Most replicas allowed.", number("spec.maxReplicas", zero=True)),
        Family(
            f"{_HPA}_spec_min_replicas",
            "Fewest replicas allowed; 1 when the object says nothing.",
            lambda obj: [((), float(1 if at(obj, "spec.minReplicas") is None else at(obj, "spec.minReplicas")))],
        ),
        Family(f"{_HPA}_spec_target_metric", "Targets of the metrics.", _targets("spec.metrics", "target")),
        Family(f"{_HPA}_status_target_metric", "Values of the metrics.", _targets("status.currentMetrics", "current")),
        Family(f"{_HPA}_status_current_replicas", "Replicas now.", number("status.currentReplicas", zero=True)),
        Family(f"{_HPA}_status_desired_replicas", "Replicas wanted.", number("status.desiredReplicas", zero=True)),
        Family(f"{_HPA}_status_condition", "Conditions of the autoscaler.", conditions("status.conditions")),
        Family(f"{_HPA}_spec_behavior_scale_up_tolerance", "Tolerance before scaling up.", _tolerance("scaleUp")),
        Family(f"{_HPA}_spec_behavior_scale_down_tolerance", "Tolerance before scaling down.", _tolerance("scaleDown")),
    ),
)

KINDS = (DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET, JOB, CRON_JOB, AUTOSCALER)
