"""What a Job makes of a pod's failure (``podFailurePolicy``). Pure.

Source: kubernetes pkg/controller/job/pod_failure_policy.go.
"""

from flyball.localcluster.workloads.objects import Object, name_of

COUNT, IGNORE, FAIL_JOB = "Count", "Ignore", "FailJob"


def action_on(job: Object, pod: Object) -> tuple[str, str]:
    """(action, message) of the first rule that speaks of a failed pod; Count when none does.

    FailIndex counts: limits for each index are not kept.
    """
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        why = _exited(rule, pod) if rule.get("onExitCodes") else _conditioned(rule, pod)
        if why:
            action = str(rule.get("action"))
            message = f"{why} matching {action} rule at index {number}"
            return (action, message) if action in (IGNORE, FAIL_JOB) else (COUNT, "")
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
