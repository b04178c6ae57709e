"""CronJobs: a job at each time that the schedule names."""

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.events import reference
from flyball.kube.kinds import CRON_JOBS, JOBS
from flyball.localcluster.workloads import cronplan
from flyball.localcluster.workloads.controller import (
    Controller,
    Informers,
    Key,
    Object,
    Written,
    by_controller,
    key_of,
)
from flyball.localcluster.workloads.objects import controller_of, controller_uid, name_of, status_change
from flyball.model.cron import CronError, parse_cron


class CronJobController(Controller):
    """Starts jobs, keeps as much of their history as asked for, and says which are running."""

    name = "cronjob-controller"

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        super().__init__(client)
        self._cron_jobs, jobs = informers.of(CRON_JOBS), informers.of(JOBS)
        self._jobs = informers.index(JOBS, by_controller)
        self._written_cron_jobs, self._written_jobs = Written(self._cron_jobs), Written(jobs)
        self._events = EventRecorder(client, self.name)
        self._cron_jobs.add_handler(self._on_cron_job)
        jobs.add_handler(self._on_job)

    def _on_cron_job(self, _change: str, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        if old is None or new is None or _times(old) == _times(new):
            self.queue.add(key)
            return
        try:  # what the new schedule has named before is not made up for
            wait_s = cronplan.again_in_s(new, parse_cron(new["spec"]["schedule"]), clock.now_ms())
        except (CronError, ValueError, OSError):
            wait_s = None
        self.queue.add_after(key, wait_s or 0.0)

    def _on_job(self, _change: str, old: Object | None, new: Object | None) -> None:
        for job in (old, new):
            owner = controller_of(job) if job is not None else None
            if job is not None and owner is not None and owner.get("kind") == CRON_JOBS.kind:
                self.queue.add((job["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """One step of one CronJob."""
        cached = self._cron_jobs.cache.get(key)
        if cached is None:
            return
        cron_job = self._written_cron_jobs.newest(cached)
        jobs = self._jobs_of(cron_job)
        step = cronplan.plan(cron_job, jobs, await self._missing(cron_job, jobs), clock.now_ms())
        for kind, reason, message in step.events:
            await self._events.event(cron_job, kind, reason, message)
        for job in (*step.expired, *step.replaced):
            await self._delete(cron_job, job)
        started = await self._start(cron_job, step.start_ms) if step.start_ms is not None else None
        change = status_change(cron_job.get("status"), cronplan.status_of(step, cron_job, started))
        if change is not None:
            # The list of active jobs is written whole: only over the one that it was made from.
            change["metadata"] = {"resourceVersion": cron_job["metadata"]["resourceVersion"]}
            answer = await self.client.patch(CRON_JOBS, key[1], change, key[0], "status")
            self._written_cron_jobs.remember(answer)
        if step.again_in_s is not None:
            self.queue.add_after(key, step.again_in_s)

    def _jobs_of(self, cron_job: Object) -> list[Object]:
        uid = cron_job["metadata"]["uid"]
        ahead = [job for job in self._written_jobs.ahead() if controller_uid(job) == uid]
        return list({job["metadata"]["uid"]: job for job in (*ahead, *self._jobs.get(uid))}.values())

    async def _missing(self, cron_job: Object, jobs: list[Object]) -> set[str]:
        """Active jobs that are not there; the server is asked, since a cache may be late."""
        known = {job["metadata"]["uid"] for job in jobs}
        listed = [one for one in (cron_job.get("status") or {}).get("active") or [] if one["uid"] not in known]
        return {one["uid"] for one in listed if await self._get(one["namespace"], one["name"], one["uid"]) is None}

    async def _get(self, namespace: str, name: str, uid: str) -> Object | None:
        try:
            job = await self.client.get(JOBS, name, namespace)
        except KubeApiError as exc:
            if exc.code != 404:
                raise
            return None
        return job if job["metadata"]["uid"] == uid else None

    async def _delete(self, cron_job: Object, job: Object) -> None:
        """Delete a job, or what a reference refers to."""
        about = job.get("metadata") or job
        try:
            await self.client.delete(JOBS, about["name"], about["namespace"], "Background", uid=about["uid"])
        except KubeApiError as exc:
            if exc.code != 404:
                await self._events.event(cron_job, "Warning", "FailedDelete", f"Deleted job: {exc}")
                raise
            return
        await self._events.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {about['name']}")

    async def _start(self, cron_job: Object, fired_ms: int) -> Object | None:
        """The reference of the job of a firing, made now or by a predecessor who could not note it."""
        wanted = cronplan.job_of(cron_job, fired_ms)
        namespace, name = key_of(wanted)
        try:
            job = self._written_jobs.remember(await self.client.create(JOBS, wanted, namespace))
        except KubeApiError as exc:
            if exc.code != 409:
                await self._events.event(cron_job, "Warning", "FailedCreate", f"Error creating job: {exc}")
                raise
            job = await self.client.get(JOBS, name, namespace)
            return reference(job) if controller_uid(job) == cron_job["metadata"]["uid"] else None
        await self._events.event(cron_job, "Normal", "SuccessfulCreate", f"Created job {name_of(job)}")
        return reference(job)


def _times(cron_job: Object) -> tuple[str, str]:
    return cron_job["spec"]["schedule"], cronplan.zone_name(cron_job)
