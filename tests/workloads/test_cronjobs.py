"""CronJobs on the embedded API server, and their planning without it."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball import clock
from flyball.kube.kinds import CRON_JOBS, EVENTS, JOBS
from flyball.localcluster.workloads import cronplan
from flyball.model.cron import parse_cron

from .cluster import run, until

NOON = "2026-11-20T12:00:00Z"


def ms(text: str) -> int:
    return clock.parse_rfc3339_ms(text)


def cron_job(schedule="*/5 * * * *", *, created=NOON, last=None, active=(), **spec):
    status = {"lastScheduleTime": last, "active": [reference(job) for job in active]}
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "good"}]}
    template = {"metadata": {"labels": {"app": "tick"}}, "spec": {"template": {"spec": pod}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default", "uid": "u", "creationTimestamp": created},
        "spec": {"schedule": schedule, "jobTemplate": template, **spec},
        "status": {name: value for name, value in status.items() if value},
    }


def job(name, end="", started=NOON, completed=None):
    conditions = [{"type": end, "status": "True"}] if end else []
    status = {"startTime": started, "completionTime": completed, "conditions": conditions}
    return {"metadata": {"name": name, "uid": name, "namespace": "default"}, "status": status}


def reference(job):
    return {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "namespace": "default"}


def step(cron, *jobs, at, missing=()):
    return cronplan.plan(cron, list(jobs), set(missing), ms(at))


def reasons(step):
    return [reason for _, reason, _ in step.events]


# -- planning --------------------------------------------------------------------------------------------------------


def test_nothing_starts_before_the_first_time_and_the_wait_ends_just_after_it():
    found = step(cron_job(), at="2026-11-20T12:03:00Z")
    assert found.start_ms is None and found.again_in_s == pytest.approx(120.1)
    found = step(cron_job(), at="2026-11-20T12:05:00Z")
    assert found.start_ms == ms("2026-11-20T12:05:00Z") and found.again_in_s == pytest.approx(300.1)


def test_of_several_missed_times_only_the_newest_starts():
    found = step(cron_job(last="2026-11-20T12:10:00Z"), at="2026-11-20T12:41:00Z")
    assert found.start_ms == ms("2026-11-20T12:40:00Z") and not found.events


def test_more_than_a_hundred_missed_times_are_told_of_and_the_newest_starts():
    late = "2026-11-20T20:26:00Z"
    found = step(cron_job(), at=late)
    assert found.start_ms == ms("2026-11-20T20:25:00Z") and reasons(found) == ["TooManyMissedTimes"]
    assert not step(cron_job(), at="2026-11-20T20:21:00Z").events  # exactly one hundred
    assert not step(cron_job(startingDeadlineSeconds=600), at=late).events


def test_what_is_later_than_its_deadline_is_let_go():
    assert step(cron_job(startingDeadlineSeconds=60), at="2026-11-20T12:06:00Z").start_ms is not None
    assert step(cron_job(startingDeadlineSeconds=60), at="2026-11-20T12:06:01Z").start_ms is None


def test_a_time_that_is_done_with_does_not_start_again():
    done = cron_job(last="2026-11-20T12:05:00Z")
    assert step(done, at="2026-11-20T12:06:00Z").start_ms is None
    running = job(cronplan.job_name(done, ms("2026-11-20T12:05:00Z")))
    assert step(cron_job(active=[running]), running, at="2026-11-20T12:06:00Z").start_ms is None


@pytest.mark.parametrize(
    ("policy", "starts", "told", "active", "replaced"),
    [
        ("Allow", True, [], ["old"], []),
        ("Forbid", False, ["JobAlreadyActive"], ["old"], []),
        ("Replace", True, [], [], ["old"]),
    ],
)
def test_a_job_that_still_runs_is_left_waited_for_or_replaced(policy, starts, told, active, replaced):
    old = job("old")
    found = step(cron_job(active=[old], concurrencyPolicy=policy), old, at="2026-11-20T12:05:00Z")
    assert (found.start_ms is not None) == starts and reasons(found) == told
    assert [one["name"] for one in found.active] == active
    assert [one["name"] for one in found.replaced] == replaced


def test_ends_are_noted_and_the_newest_success_counts():
    good = [job(f"good{n}", "Complete", completed=f"2026-11-20T11:0{n}:00Z") for n in (2, 1)]
    bad, lost, foreign = job("bad", "Failed"), job("lost"), job("foreign")
    cron = cron_job(active=[*good, bad, lost])
    found = step(cron, *good, bad, foreign, at=NOON, missing=["lost"])
    assert found.active == [] and found.last_successful == "2026-11-20T11:02:00Z"
    assert found.events == [
        ("Normal", "SawCompletedJob", "Saw completed job: good2, condition: Complete"),
        ("Normal", "SawCompletedJob", "Saw completed job: good1, condition: Complete"),
        ("Normal", "SawCompletedJob", "Saw completed job: bad, condition: Failed"),
        ("Warning", "UnexpectedJob", "Saw a job that the controller did not create or forgot: foreign"),
        ("Normal", "MissingJob", "Active job went missing: lost"),
    ]


def test_history_keeps_the_newest_of_each_end():
    jobs = [
        job(f"{end}{n}", end, started=f"2026-11-20T11:0{n}:00Z") for end in ("Complete", "Failed") for n in range(4)
    ]
    cron = cron_job(successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    found = step(cron, *reversed(jobs), job("running"), at=NOON)
    assert [one["metadata"]["name"] for one in found.expired] == ["Complete0", "Failed0", "Failed1", "Failed2"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"suspend": True}, []),
        ({"timeZone": "Nowhere/Town"}, ["UnknownTimeZone"]),
        ({"schedule": "never"}, ["UnparseableSchedule"]),
        ({"schedule": "0 0 30 2 *"}, ["InvalidSchedule"]),
    ],
)
def test_what_cannot_be_scheduled_starts_nothing_and_says_why(spec, told):
    found = step(cron_job(**spec), at="2026-11-20T12:05:00Z")
    assert (found.start_ms, found.again_in_s) == (None, None) and reasons(found) == told


def test_the_job_is_named_by_its_minute_and_says_when_it_was_due():
    made = cronplan.job_of(cron_job(timeZone="Europe/Berlin"), ms("2026-11-20T12:05:00Z"))
    assert made["metadata"]["name"] == f"tick-{ms('2026-11-20T12:05:00Z') // 60_000}"
    assert made["metadata"]["annotations"] == {cronplan.SCHEDULED_AT: "2026-11-20T13:05:00+01:00"}
    assert made["metadata"]["labels"] == {"app": "tick"}
    assert cronplan.job_of(cron_job(), 0)["metadata"]["annotations"] == {cronplan.SCHEDULED_AT: "1970-01-01T00:00:00Z"}


SCHEDULES = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "0 9-17/4 * * 1-5", "30 2 * * *", "@every 90s", "@every 7m", "0 0 1 * *"]
)
SECONDS = st.integers(1, 40 * 86_400)


@given(SCHEDULES, SECONDS, st.sampled_from(["UTC", "America/New_York"]), st.integers(0, 80 * 86_400))
def test_the_newest_unmet_time_is_the_last_of_all_that_fired(schedule, passed_s, zone, born_s):
    """Against counting every firing since the last start."""
    cron = parse_cron(schedule)
    begin_ms = ms("2026-09-20T00:00:00Z") + born_s * 1000
    now_ms = begin_ms + min(passed_s, 86_400 if "* * * *" in schedule or "@" in schedule else passed_s) * 1000
    newest, at_ms = None, cron.next_ms(begin_ms, zone)
    while at_ms is not None and at_ms <= now_ms:
        newest, at_ms = at_ms, cron.next_ms(at_ms, zone)
    made = cron_job(schedule, created=clock.rfc3339(begin_ms), timeZone=zone)
    assert cronplan.newest_unmet_ms(made, cron, now_ms) == newest
    assert cronplan.again_in_s(made, cron, now_ms) == pytest.approx((at_ms - now_ms) / 1000 + 0.1)
    assert datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).second == 0 or "@every" in schedule


# -- on a cluster ----------------------------------------------------------------------------------------------------


async def started(client, **spec):
    """A CronJob whose last start was an hour ago, and its first job."""
    body = cron_job("* * * * *", **spec)
    body["metadata"] = {"name": "tick", "namespace": "default"}
    body["spec"]["suspend"] = True
    del body["status"]
    await client.create(CRON_JOBS, body)
    hour_ago = clock.rfc3339(clock.now_ms() - 3_600_000)
    await client.patch(CRON_JOBS, "tick", {"status": {"lastScheduleTime": hour_ago}}, "default", "status")
    await client.patch(CRON_JOBS, "tick", {"spec": {"suspend": False}}, "default")

    async def made():
        jobs = await client.list(JOBS, "default")
        return jobs[0] if jobs else None

    return await until(made)


def test_a_due_job_is_made_once_owned_and_its_success_noted(tmp_path):
    async def body(client, node):
        node.ends["good"] = "Succeeded"
        made = await started(client)
        owner = made["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("CronJob", "tick", True)

        async def noted():
            found = await client.get(CRON_JOBS, "tick", "default")
            status = found.get("status") or {}
            return status if status.get("lastSuccessfulTime") and not status.get("active") else None

        status = await until(noted)
        assert status["lastScheduleTime"] == made["metadata"]["annotations"][cronplan.SCHEDULED_AT]
        told = {(event["reason"], event["message"]) for event in await client.list(EVENTS, "default")}
        name = made["metadata"]["name"]
        assert ("SuccessfulCreate", f"Created job {name}") in told
        assert ("SawCompletedJob", f"Saw completed job: {name}, condition: Complete") in told
        await client.delete(CRON_JOBS, "tick", "default")

        async def gone():
            return not await client.list(JOBS, "default")

        await until(gone)

    run(tmp_path, body)


def test_an_active_job_that_is_deleted_by_hand_is_missed(tmp_path):
    async def body(client, node):
        made = await started(client, concurrencyPolicy="Forbid")
        name = made["metadata"]["name"]

        async def active():
            found = await client.get(CRON_JOBS, "tick", "default")
            return (found.get("status") or {}).get("active")

        assert [one["name"] for one in await until(active)] == [name]
        await client.delete(JOBS, name, "default")

        async def told():
            return ("MissingJob", f"Active job went missing: {name}") in {
                (event["reason"], event["message"]) for event in await client.list(EVENTS, "default")
            }

        await until(told)

    run(tmp_path, body)
