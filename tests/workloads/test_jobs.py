"""Jobs on the embedded API server, and their planning without it."""

import pytest

from flyball import clock
from flyball.errors import KubeApiError
from flyball.kube.kinds import EVENTS, JOBS, PODS
from flyball.localcluster.workloads import jobplan, jobpolicy
from flyball.localcluster.workloads.objects import status_change

from .cluster import run, until


def job(image="good", restart_policy="Never", **spec):
    pod = {"restartPolicy": restart_policy, "containers": [{"name": "main", "image": image}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work", "namespace": "default"},
        "spec": {"template": {"spec": pod}, **spec},
    }


async def finished(client, kind):
    async def check():
        found = await client.get(JOBS, "work", "default")
        ends = {c["type"]: c for c in (found.get("status") or {}).get("conditions") or [] if c["status"] == "True"}
        return (found["status"], ends[kind]) if kind in ends else None

    return await until(check)


def test_completions_are_counted_once_also_when_a_finished_pod_is_deleted(tmp_path):
    async def body(client, node):
        node.ends["good"] = "Succeeded"
        await client.create(JOBS, job(completions=5, parallelism=2))
        uids = set()
        node.pods.add_handler(lambda change, old, new: uids.add((new or old)["metadata"]["uid"]))

        async def one_done():
            done = [p for p in await client.list(PODS, "default") if p["status"]["phase"] == "Succeeded"]
            return done[0]["metadata"]["name"] if done else None

        await client.delete(PODS, await until(one_done), "default")
        status, end = await finished(client, "Complete")
        assert (status["succeeded"], status.get("active", 0), status.get("failed", 0)) == (5, 0, 0)
        assert end["reason"] == "CompletionsReached"
        assert status["completionTime"] >= status["startTime"]
        assert len(uids) == 5
        pods = await client.list(PODS, "default", "batch.kubernetes.io/job-name=work")
        assert len(pods) == 4 and not any(jobplan.is_tracked(pod) for pod in pods)
        await client.delete(JOBS, "work", "default")

        async def gone():
            return not await client.list(PODS, "default")

        await until(gone)

    run(tmp_path, body)


def test_a_pod_counted_as_failed_when_it_was_deleted_is_not_counted_again_when_it_succeeds():
    pod = {"metadata": {"uid": "p", "finalizers": [jobplan.FINALIZER]}, "status": {"phase": "Succeeded"}}
    body = job(completions=2) | {"status": {"uncountedTerminatedPods": {"failed": ["p"]}}}
    tally = jobplan.count(body, [pod])
    assert (tally.all_failed, tally.all_succeeded) == (1, 0)


def test_too_many_failures_end_a_job_and_its_time_to_live_removes_it(tmp_path):
    async def body(client, node):
        node.ends["bad"] = "Failed"
        await client.create(JOBS, job("bad", backoffLimit=0, ttlSecondsAfterFinished=1))
        status, end = await finished(client, "Failed")
        assert (end["reason"], status["failed"]) == ("BackoffLimitExceeded", 1)

        async def told():
            reasons = {event["reason"] for event in await client.list(EVENTS, "default")}
            return {"SuccessfulCreate", "BackoffLimitExceeded"} <= reasons

        await until(told)

        async def gone():
            try:
                await client.get(JOBS, "work", "default")
            except KubeApiError as exc:
                return exc.code == 404 and not await client.list(PODS, "default")

        await until(gone)

    run(tmp_path, body)


def test_a_deadline_ends_a_job_and_suspending_stops_its_pods(tmp_path):
    async def body(client, node):
        await client.create(JOBS, job("endless", parallelism=2, suspend=True))

        async def suspended():
            found = await client.get(JOBS, "work", "default")
            conditions = (found.get("status") or {}).get("conditions") or []
            return any(c["type"] == "Suspended" and c["status"] == "True" for c in conditions)

        await until(suspended)
        assert not await client.list(PODS, "default")
        await client.patch(JOBS, "work", {"spec": {"suspend": False}}, "default")

        async def two():
            return len(await client.list(PODS, "default")) == 2

        await until(two)
        await client.patch(JOBS, "work", {"spec": {"activeDeadlineSeconds": 1}}, "default")
        status, end = await finished(client, "Failed")
        assert end["reason"] == "DeadlineExceeded"
        assert status.get("active", 0) == 0

    run(tmp_path, body)


def test_an_indexed_job_completes_every_index(tmp_path):
    async def body(client, node):
        node.ends["good"] = "Succeeded"
        await client.create(JOBS, job(completions=4, parallelism=4, completionMode="Indexed"))
        status, _ = await finished(client, "Complete")
        assert (status["completedIndexes"], status["succeeded"]) == ("0-3", 4)
        pod = min(await client.list(PODS, "default"), key=jobplan.index_of)
        assert pod["metadata"]["name"].startswith("work-0-") and pod["spec"]["hostname"] == "work-0"
        assert "JOB_COMPLETION_INDEX" in {item["name"] for item in pod["spec"]["containers"][0]["env"]}

    run(tmp_path, body)


def test_a_policy_ends_a_job_at_the_first_failure_that_it_names(tmp_path):
    async def body(client, node):
        node.ends["bad"] = "Failed"
        pattern = {"type": "Ready", "status": "False"}
        policy = {"rules": [{"action": "FailJob", "onPodConditions": [pattern]}]}
        await client.create(JOBS, job("bad", backoffLimit=6, podFailurePolicy=policy))
        status, end = await finished(client, "Failed")
        assert (end["reason"], status["failed"]) == ("PodFailurePolicy", 1)
        assert end["message"].endswith("has condition Ready matching FailJob rule at index 0")

    run(tmp_path, body)


def test_failures_that_a_policy_ignores_are_made_up_for_and_not_counted(tmp_path):
    async def body(client, node):
        node.ends |= {"bad": "Failed"}
        policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "Ready", "status": "False"}]}]}
        await client.create(JOBS, job("bad", backoffLimit=0, podFailurePolicy=policy))

        async def three():
            return len(await client.list(PODS, "default")) > 2

        await until(three)
        node.ends.clear()  # the next one runs

        async def active():
            found = (await client.get(JOBS, "work", "default"))["status"]
            return found if found.get("active") and found.get("ready") else None

        status = await until(active)
        assert not status.get("failed") and not status.get("conditions")

    run(tmp_path, body)


def test_a_status_patch_empties_what_it_no_longer_names():
    change = status_change(
        {"uncounted": {"succeeded": ["a"]}, "active": 1}, {"uncounted": {"failed": ["b"]}, "active": 0}
    )
    assert change == {"status": {"uncounted": {"succeeded": None, "failed": ["b"]}, "active": None}}


# -- planning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexes", [set(), {0}, {0, 1}, {1, 3, 4, 5}, {0, 1, 2, 7, 8, 10}])
def test_indexes_survive_their_text(indexes):
    assert jobpolicy.parse_indexes(jobplan.format_indexes(indexes)) == indexes


def test_index_ranges_are_written_as_upstream_writes_them():
    assert jobplan.format_indexes({1, 3, 4, 5, 7, 8}) == "1,3-5,7,8"


def ended(name, phase, second):
    at = clock.rfc3339(second * 1000)
    state = {"terminated": {"finishedAt": at}}
    return {
        "metadata": {"name": name, "uid": name},
        "status": {"phase": phase, "containerStatuses": [{"state": state}]},
    }


def test_failures_in_a_row_double_the_wait_and_a_success_ends_it():
    bad = [ended("a", "Failed", 100), ended("b", "Failed", 110)]
    assert jobplan.backoff_s(bad[:1], 100_000) == 10.0
    assert jobplan.backoff_s(bad, 110_000) == 20.0
    assert jobplan.backoff_s(bad, 125_000) == 5.0
    assert jobplan.backoff_s([*bad, ended("c", "Succeeded", 111)], 112_000) == 0.0
    many = [ended(str(n), "Failed", 100 + n) for n in range(40)]
    assert jobplan.backoff_s(many, 139_000) == 600.0


def exited(code, container="main", group="containerStatuses"):
    state = {"name": container, "state": {"terminated": {"exitCode": code}}}
    return {"metadata": {"namespace": "default", "name": "p"}, "status": {group: [state]}}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (
            exited(42),
            ("FailJob", "Container main for pod default/p failed with exit code 42 matching FailJob rule at index 1"),
        ),
        (
            exited(3, "side"),
            ("Ignore", "Container side for pod default/p failed with exit code 3 matching Ignore rule at index 0"),
        ),
        (exited(3), ("Count", "")),
        (exited(0), ("Count", "")),
        (
            exited(42, group="initContainerStatuses"),
            ("FailJob", "Container main for pod default/p failed with exit code 42 matching FailJob rule at index 1"),
        ),
    ],
)
def test_the_first_rule_that_speaks_of_the_exit_code_decides(pod, expected):
    rules = [
        {"action": "Ignore", "onExitCodes": {"containerName": "side", "operator": "NotIn", "values": [42]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    ]
    assert jobpolicy.action_on({"spec": {"podFailurePolicy": {"rules": rules}}}, pod) == expected


def worked(ends, **spec):
    """An Indexed job carried through, one pod after the other: (its end, its tally, failures before each pod).

    Args:
        ends: by index, how many of its pods fail before one succeeds.
    """
    body = job(completionMode="Indexed", completions=len(ends), parallelism=len(ends), **spec)
    body["spec"].setdefault("backoffLimit", 2**31 - 1)
    body["metadata"]["uid"] = "j"
    pods, history = [], []
    for _ in range(20):
        tally = jobplan.count(body, pods)
        end = jobplan.verdict(body, pods, tally, 0)
        body["status"] = jobplan.status_of(body, pods, tally, end, 0)
        if end[0]:
            return end, tally, history
        waiting = jobplan.to_replace(body, pods, tally)
        for index in jobplan.plan(body, pods, tally).create:
            pod = jobplan.job_pod(body, index, waiting.get(index))
            history.append((index, jobplan.failures_of(pod)))
            phase = "Failed" if jobplan.failures_of(pod) < ends[index] else "Succeeded"
            pod["metadata"] |= {"uid": str(len(pods)), "name": str(len(pods))}
            pod["status"] = {"phase": phase, "conditions": []}
            pods.append(pod)
    raise AssertionError("it never ends")


def test_failures_are_counted_by_index_and_a_lost_index_does_not_stop_the_others():
    end, tally, history = worked([0, 1, 9], backoffLimitPerIndex=1)
    assert end == ("Failed", "FailedIndexes", "Job has failed indexes")
    assert (tally.completed, tally.failed_indexes) == ({0, 1}, {2})
    assert sorted(history) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_every_index_that_succeeds_within_its_limit_completes_the_job():
    end, tally, _ = worked([2, 0, 1], backoffLimitPerIndex=2)
    assert end[:2] == ("Complete", "CompletionsReached")
    assert not tally.failed_indexes


def test_too_many_lost_indexes_end_a_job_at_once():
    end, tally, _ = worked([9, 9, 3], backoffLimitPerIndex=0, maxFailedIndexes=1)
    assert end[1] == "MaxFailedIndexesExceeded"
    assert tally.failed_indexes == {0, 1, 2}


def test_a_policy_gives_an_index_up_at_its_first_failure():
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [0]}}
    body = job(completionMode="Indexed", completions=2, backoffLimitPerIndex=5, podFailurePolicy={"rules": [rule]})
    body["metadata"]["uid"] = "j"
    pod = jobplan.job_pod(body, 1)
    pod["metadata"] |= {"uid": "p", "name": "p"}
    pod["status"] = {"phase": "Failed", **exited(3)["status"]}
    assert jobplan.count(body, [pod]).failed_indexes == {1}


@pytest.mark.parametrize(
    ("rules", "matched"),
    [
        ([{"succeededIndexes": "0,2-3"}], ""),
        ([{"succeededIndexes": "0-1"}], "Matched rules at index 0"),
        ([{"succeededIndexes": "3", "succeededCount": 1}, {"succeededCount": 2}], "Matched rules at index 1"),
        ([{"succeededIndexes": "1-3", "succeededCount": 1}], "Matched rules at index 0"),
        ([{"succeededCount": 3}], ""),
    ],
)
def test_a_job_succeeds_by_the_first_rule_that_its_indexes_meet(rules, matched):
    body = job(completionMode="Indexed", completions=4, successPolicy={"rules": rules})
    assert jobpolicy.success(body, {0, 1}) == matched
    end = jobplan.verdict(body, [], jobplan.Tally(completed={0, 1}, succeeded=2), 0)
    assert end == (("Complete", "SuccessPolicy", matched) if matched else ("", "", ""))


def test_a_successor_waits_for_its_own_index_alone():
    body = job(completionMode="Indexed", completions=2, backoffLimitPerIndex=5)
    body["metadata"]["uid"] = "j"
    first = ended("a", "Failed", 0)
    first["metadata"]["annotations"] = {jobplan.INDEX_FAILURES: "2"}
    assert jobplan.index_backoff_s(first, jobplan.finished_ms(first), first_s=10.0) == 40.0
