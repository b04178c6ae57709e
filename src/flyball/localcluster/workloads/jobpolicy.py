"""What a Job makes of a pod's failure (``podFailurePolicy``). Pure.

Source: kubernetes pkg/controller/job/pod_failure_policy.go.
"""

from flyball.localcluster.workloads.objects import Object, name_of

COUNT, IGNORE, FAIL_JOB, FAIL_INDEX = "Count", "Ignore", "FailJob", "FailIndex"


def action_on(job: Object, pod: Object) -> tuple[str, str]:
    """(action, message) of the first rule that speaks of a failed pod; Count when none does."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        why = _exited(rule, pod) if rule.get("onExitCodes") else _conditioned(rule, pod)
        if why:
            action = str(rule.get("action"))
            message = f"{why} matching {action} rule at index {number}"
            return (action, message) if action in (IGNORE, FAIL_JOB, FAIL_INDEX) else (COUNT, "")
    return COUNT, ""


def _exited(rule: Object, pod: Object) -> str:
    asked, status = rule["onExitCodes"], pod.get("status") or {}
    for one in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        code = ((one.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
        if not code or asked.get("containerName", one["name"]) != one["name"]:
            continue
        if (code in asked.get("values", [])) == (asked.get("operator") == "In"):
            where = f"{pod['metadata']['namespace']}/{name_of(pod)}"
            return f"Container {one['name']} for pod {where} failed with exit code {code}"
    return ""


def _conditioned(rule: Object, pod: Object) -> str:
    patterns = {(one.get("type"), one.get("status", "True")) for one in rule.get("onPodConditions") or []}
    for found in (pod.get("status") or {}).get("conditions") or []:
        if (found.get("type"), found.get("status")) in patterns:
            return f"Pod {pod['metadata']['namespace']}/{name_of(pod)} has condition {found['type']}"
    return ""


def success(job: Object, succeeded: set[int]) -> str:
    """What says that an Indexed job has succeeded before all of its indexes have (``successPolicy``); ``""``: nothing.

    Args:
        succeeded: the indexes that have.
    """
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or []):
        asked, least = parse_indexes(rule.get("succeededIndexes") or ""), rule.get("succeededCount")
        done = asked & succeeded if asked else succeeded
        if (asked and done == asked) or (least is not None and len(done) >= least):
            return f"Matched rules at index {number}"
    return ""


def parse_indexes(text: str) -> set[int]:
    """``"1,3-5"`` -> {1, 3, 4, 5}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
