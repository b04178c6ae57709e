"""The series of the controllers and the scheduler, under the names that their dashboards and alerts ask for.

Facts: component-base/metrics/prometheus/workqueue/metrics.go and pkg/scheduler/metrics/metrics.go of Kubernetes 1.37.
"""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from flyball.localcluster.workloads.controller import Controller
from flyball.localcluster.workloads.scheduler import Scheduler


def queue_series(controllers: Sequence[Controller]) -> Iterator[Metric]:
    """What waits, what is worked on and how long, by controller."""
    gauges = {
        "depth": GaugeMetricFamily("workqueue_depth", "Keys that wait.", labels=("name",)),
        "unfinished_s": GaugeMetricFamily(
            "workqueue_unfinished_work_seconds", "How long what is under way has taken, in all.", labels=("name",)
        ),
        "longest_s": GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds", "How long the longest has taken.", labels=("name",)
        ),
    }
    adds = CounterMetricFamily("workqueue_adds", "Keys added.", labels=("name",))
    retries = CounterMetricFamily("workqueue_retries", "Keys that are tried again.", labels=("name",))
    waited = HistogramMetricFamily("workqueue_queue_duration_seconds", "How long keys waited.", labels=("name",))
    worked = HistogramMetricFamily("workqueue_work_duration_seconds", "How long keys took.", labels=("name",))
    for controller in controllers:
        found, queue = controller.queue.statistics(), controller.queue
        under_way_s = queue.under_way_s()
        gauges["depth"].add_metric((controller.name,), found["queue_ready"])
        gauges["unfinished_s"].add_metric((controller.name,), sum(under_way_s))
        gauges["longest_s"].add_metric((controller.name,), max(under_way_s, default=0.0))
        adds.add_metric((controller.name,), found["queue_added"])
        retries.add_metric((controller.name,), found["queue_retried"])
        queue.waited.add_to(waited, (controller.name,))
        queue.worked.add_to(worked, (controller.name,))
    yield from (adds, *gauges.values(), retries, waited, worked)


def scheduler_series(scheduler: Scheduler) -> Iterator[Metric]:
    """Decisions, and the pods that wait for one."""
    attempts = CounterMetricFamily(
        "scheduler_schedule_attempts", "Attempts to place a pod.", labels=("result", "profile")
    )
    for result, count in scheduler.attempts.items():
        attempts.add_metric((result, scheduler.name), count)
    pending = GaugeMetricFamily("scheduler_pending_pods", "Pods that have no node yet.", labels=("queue",))
    for queue, count in scheduler.pending().items():
        pending.add_metric((queue,), count)
    yield from (attempts, pending)
    yield scheduler.attempt_durations.family("scheduler_scheduling_attempt_duration_seconds", "Decision and binding.")
    yield scheduler.algorithm_durations.family("scheduler_scheduling_algorithm_duration_seconds", "The decision alone.")
    yield scheduler.sli_durations.family(
        "scheduler_pod_scheduling_sli_duration_seconds", "From the first sight of a pod to its binding."
    )
