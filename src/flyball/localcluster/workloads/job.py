"""Jobs: pods until enough of them have succeeded."""

from typing import Any

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import JOBS, PODS
from flyball.localcluster.workloads import jobplan
from flyball.localcluster.workloads.controller import Controller, Informers, Key, Object, Written, key_of
from flyball.localcluster.workloads.objects import condition, controller_of, is_terminating, name_of, status_change
from flyball.localcluster.workloads.podcontrol import PodControl

BURST_MAX = 500


class JobController(Controller):
    """Creates pods, counts their ends, and says when a job is over."""

    name = "job-controller"

    def __init__(
        self, client: KubeClient, informers: Informers, *, backoff_first_s: float = jobplan.BACKOFF_FIRST_S
    ) -> None:
        super().__init__(client)
        self._jobs, self._pod_cache = informers.of(JOBS), informers.of(PODS)
        self._events = EventRecorder(client, self.name)
        self._pods = PodControl(client, informers, JOBS, self.queue, self._events)
        # The status is noted before finalizers go and after: counting on stale objects would count twice.
        self._written_jobs, self._written_pods = Written(self._jobs), Written(self._pod_cache)
        self._pod_cache.add_handler(self._on_pod)
        self._backoff_first_s = backoff_first_s

    def _on_pod(self, _change: str, _old: Object | None, new: Object | None) -> None:
        if new is None or not jobplan.is_tracked(new):
            return
        owner = controller_of(new)
        if owner is None or self._jobs.cache.get((new["metadata"]["namespace"], owner["name"])) is None:
            self.queue.add((*key_of(new), "pod"))

    async def reconcile(self, key: Any) -> None:
        """One step of one job, or the release of a pod whose job is gone."""
        if len(key) == 3:
            await self._let_go(key[:2])
            return
        job = self._jobs.cache.get(key)
        if job is None:
            return
        job = self._written_jobs.newest(job)
        pods = self._pods.controlled(job) if jobplan.is_finished(job) else await self._pods.claimed(job)
        pods = [self._written_pods.newest(pod) for pod in pods]
        if is_terminating(job) or jobplan.is_finished(job):
            for pod in pods:
                if jobplan.outcome(pod):
                    await self._untrack(pod)
            await self._expire(job)
            return
        now_ms = clock.now_ms()
        tally = jobplan.count(job, pods)
        end = jobplan.verdict(job, pods, tally, now_ms)
        error: FlyballError | None = None
        if self._pods.settled(key):
            error = await self._act(key, job, pods, tally, end, now_ms)
        await self._report(key, job, pods, tally, end, now_ms)
        noted = {uid for uids in tally.waiting.values() for uid in uids} | tally.ignored
        kept = [] if end[0] else list(jobplan.to_replace(job, pods, tally).values())
        for pod in pods:
            if pod in kept:
                continue
            if pod["metadata"]["uid"] in noted or jobplan.outcome(pod) == "succeeded":
                await self._untrack(pod)
        if error is not None:
            raise error

    async def _act(
        self, key: Key, job: Object, pods: list[Object], tally: jobplan.Tally, end: tuple[str, str, str], now_ms: int
    ) -> FlyballError | None:
        active = [pod for pod in pods if not jobplan.outcome(pod)]
        if end[0] or job["spec"].get("suspend"):
            return await self._pods.delete(job, active) if active else None
        planned = jobplan.plan(job, pods, tally)
        if planned.delete:
            return await self._pods.delete(job, planned.delete)
        if planned.create:
            replaced = jobplan.to_replace(job, pods, tally)
            waits: dict[int | None, float]
            if "backoffLimitPerIndex" in job["spec"]:
                waits = {i: jobplan.index_backoff_s(pod, now_ms, self._backoff_first_s) for i, pod in replaced.items()}
            else:
                counted = [pod for pod in pods if pod["metadata"]["uid"] not in tally.ignored]
                waits = dict.fromkeys(planned.create, jobplan.backoff_s(counted, now_ms, self._backoff_first_s))
            due = [index for index in planned.create if not waits.get(index)]
            if len(due) < len(planned.create):
                self.queue.add_after(key, min(filter(None, waits.values())) + 0.01)
            if not due:
                return None
            made = [
                jobplan.job_pod(job, index, replaced.get(-1 if index is None else index)) for index in due[:BURST_MAX]
            ]
            return await self._pods.create(job, made)
        return None

    async def _report(
        self, key: Key, job: Object, pods: list[Object], tally: jobplan.Tally, end: tuple[str, str, str], now_ms: int
    ) -> None:
        status = jobplan.status_of(job, pods, tally, end, now_ms)
        change = status_change(job.get("status"), status, zeros=("ready", "terminating"))
        if change is not None:
            # Counts are sums: they are only written over those that they were made from.
            change["metadata"] = {"resourceVersion": job["metadata"]["resourceVersion"]}
            job = self._written_jobs.remember(await self.client.patch(JOBS, key[1], change, key[0], "status"))
            if end[0] and jobplan.is_finished(job):
                if end[0] == "Complete":
                    await self._events.event(job, "Normal", "Completed", "Job completed")
                else:
                    await self._events.event(job, "Warning", end[1], end[2])
        due_s = jobplan.deadline_in_s(job, now_ms)
        if due_s and not job["spec"].get("suspend"):
            self.queue.add_after(key, due_s + 0.05)

    async def _expire(self, job: Object) -> None:
        left_s = jobplan.expires_in_s(job, clock.now_ms())
        if left_s is None or is_terminating(job):
            return
        if left_s > 0:
            self.queue.add_after(key_of(job), left_s + 0.05)
            return
        namespace, name = key_of(job)
        try:
            await self.client.delete(JOBS, name, namespace, "Foreground", uid=job["metadata"]["uid"])
        except KubeApiError as exc:
            if exc.code not in (404, 409):
                raise

    async def _let_go(self, key: Key) -> None:
        pod = self._pod_cache.cache.get(key)
        owner = controller_of(pod) if pod is not None else None
        if pod is not None and (owner is None or self._jobs.cache.get((key[0], owner["name"])) is None):
            await self._untrack(pod)

    async def _untrack(self, pod: Object) -> None:
        """The pod is counted, or nobody counts it any more: it may go."""
        if not jobplan.is_tracked(pod):
            return
        kept = [name for name in pod["metadata"]["finalizers"] if name != jobplan.FINALIZER]
        change = {"metadata": {"uid": pod["metadata"]["uid"], "finalizers": kept or None}}
        try:
            self._written_pods.remember(
                await self.client.patch(PODS, name_of(pod), change, pod["metadata"]["namespace"])
            )
        except KubeApiError as exc:
            if exc.code not in (404, 409):
                raise


def completed(job: Object) -> bool:
    """Whether the job ended well."""
    return (condition(job, "Complete") or {}).get("status") == "True"
