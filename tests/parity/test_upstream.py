"""Every case of upstream's own tests under upstream's name (upstream.py takes them down), judged by us."""

import asyncio
import contextlib
import lzma
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from flyball import clock
from flyball.autoscaler.gather import Gatherer
from flyball.errors import KubeApiError
from flyball.model.quantities import Format, from_milli
from flyball.scaling import (
    Decision,
    History,
    Observation,
    Outcome,
    Settings,
    Spec,
    applied,
    metrics,
    normalize,
    pod_from_object,
    spec_from_hpa,
)
from flyball.scaling.decide import event_periods

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.parity.ours import differences, history_of, judge_by, reading_of  # noqa: E402

Json = dict[str, Any]
HEAD, *CASES = (
    msgspec.json.decode(line) for line in lzma.decompress((HERE / "upstream.jsonl.xz").read_bytes()).splitlines()
)
#: Upstream's tests that compute nothing: what they look at is not part of a decision.
WITHOUT_A_CASE = {
    "TestEnqueueHPA": "the order of upstream's work queue",
    "TestUpdateHPA": "which changes of an HPA its work queue delays",
    "TestHPASelectorStore": "an index of its own; the answers that it gives are in TestConditionAmbiguousSelector*",
    "TestReconcileKeyEnsureReadyStaleCache": "its guard against its own stale cache",
    "TestUpdateStatusPopulatesConsistencyStore": "its guard against its own stale cache",
    "TestDeleteHPAClearsConsistencyStore": "its guard against its own stale cache",
}
#: Cases in which we do not say what upstream says.
DIFFERENT = {
    # A custom metric without a window: upstream says 60 s, of which only cpu makes use, and that is never a custom
    # metric. Ours says that there is none, for the demand of profile fast looks at windows.
    "TestRESTClientQPS",
    "TestRESTClientQpsSumEqualZero",
}


def test_no_test_of_upstream_is_left_out() -> None:
    taken = {case["name"].partition("/")[0] for case in CASES}
    left = [name for name in HEAD["tests"] if name not in taken]
    assert [name for name in left if not name.startswith(tuple(WITHOUT_A_CASE))] == []
    assert len(taken) == 75 and len(CASES) == 328


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CASES}))
def test_upstream_and_we_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {}
    for case in (case for case in CASES if case["kind"] == kind):
        factor = (case["in"].get("gates") or {}).get("scaleUpLimitFactor", 2.0)
        monkeypatch.setattr(normalize, "_SCALE_UP_FACTOR", factor)
        found = _JUDGES[kind](case["in"], case["out"])
        if bool(found) != (case["name"] in DIFFERENT):
            wrong[f"{case['name']} {case['number']}"] = found
    assert wrong == {}


def test_a_difference_is_seen() -> None:
    seen = {case["kind"] for case in CASES if _JUDGES[case["kind"]](case["in"], _bent(case["out"]))}
    assert seen == set(_JUDGES)


def _bent(answer: Any) -> Any:
    """Another answer: every number is one more, every text longer, every empty list is not."""
    if isinstance(answer, dict):
        return {key: _bent(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_bent(value) for value in answer] or ["bent"]
    if isinstance(answer, str):
        return answer + " bent"
    return answer if answer is None else answer + 1


def _settings(of: Json) -> Settings:
    """A gate that is off is off by default in an older release."""
    gates = of.get("gates") or {}
    if not gates.get("HPAConfigurableTolerance", True) or not gates.get("PodLevelResources", True):
        profile = "<=1.32"
    else:
        profile = "1.37" if gates.get("HPAScaleToZero", True) else "1.33-1.36"
    return Settings(profile=profile, **of.get("settings") or {})


def _spec(of: Json, metric: Json | None = None, **more: Any) -> Spec:
    """An HPA around what a function of upstream takes."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "maxReplicas": 1000, **more}
    if metric is not None:
        spec["metrics"] = [metric]
    hpa = {"metadata": {"namespace": of.get("namespace", "shop"), "name": "web"}, "spec": spec}
    return spec_from_hpa(hpa, _settings(of))


def _unlike(**pairs: tuple[Any, Any]) -> list[str]:
    return [f"{what}: upstream {theirs!r}, ours {ours!r}" for what, (theirs, ours) in pairs.items() if theirs != ours]


def _reconcile(given: Json, theirs: Json) -> list[str]:
    history, seeded = given["history"], True
    if history.get("recommendations") == []:
        # A list that is there and empty keeps upstream from its seed, and only a test can bring that about. One that
        # is older than every window is the same.
        history, seeded = {**history, "recommendations": [[0, 0]]}, False
    ours = judge_by({**given, "history": _pairs(history)}, _settings(given))
    if not seeded:
        ours["history"]["recommendations"] = [record for record in ours["history"]["recommendations"] if record[1]]
    return differences({**theirs, "history": _pairs(theirs["history"])}, ours)


def _pairs(history: Json) -> Json:
    """Without the marks of events that are to be overwritten: ``store`` looks at them."""
    return history | {side: [event[:2] for event in history[side] or ()] for side in ("ups", "downs")}


def _tolerating(spec: Spec, band: dict[str, float]) -> Spec:
    assert spec.behavior is not None
    up, down = (replace(getattr(spec.behavior, side), tolerance=band[side]) for side in ("up", "down"))
    return replace(spec, behavior=replace(spec.behavior, up=up, down=down))


def _calculate(given: Json, theirs: Json) -> list[str]:
    spec = _tolerating(_spec(given, given["metric"], behavior={}), given["tolerances"])
    seen = Observation(
        spec_replicas=given["replicas"],
        status_replicas=given["replicas"],
        pods=tuple(pod_from_object(pod) for pod in given.get("pods") or ()),
    )
    (reading,) = given["readings"].values()
    try:
        found, _ = metrics.evaluate_metric(spec, spec.metrics[0], reading_of(reading), seen, given["now_ms"])
    except metrics.MetricFailedError as failure:
        return [] if theirs["error"] and failure.inner.endswith(theirs["error"]) else [failure.inner, theirs["error"]]
    return _unlike(
        error=(theirs["error"], ""),
        replicas=(theirs["replicas"], found.proposal),
        usage=(theirs["usage"], found.usage),
        utilization=(theirs.get("utilization"), found.utilization),
    )


def _group_pods(given: Json, theirs: Json) -> list[str]:
    spec = _spec(given, {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"averageValue": "1"}}})
    pods = tuple(pod_from_object(pod) for pod in given["pods"])
    work = metrics._Work(spec, spec.metrics[0], reading_of(given["reading"]), Observation(pods=pods), given["now_ms"])
    with contextlib.suppress(metrics._CalculationError):  # which upstream's caller raises where no metric is left
        work._grouped(given["resource"])
    ours = {field: sorted(getattr(work.groups, field)) for field in ("unready", "missing", "ignored")}
    return _unlike(
        ready=(theirs["ready"], len(work.groups.ready)), **{field: (theirs[field], ours[field]) for field in ours}
    )


def _requests(given: Json, theirs: Json) -> list[str]:
    source = {"name": given["resource"], "container": given["container"], "target": {"averageUtilization": 80}}
    spec = _spec(given, {"type": "ContainerResource", "containerResource": source})
    ours: Json = {}
    error = ""
    for pod in (pod_from_object(pod) for pod in given["pods"]):
        try:
            ours[pod.name] = metrics._request(pod, spec.metrics[0], spec.settings)
        except metrics._CalculationError as failure:
            error = str(failure)
    if theirs["error"]:
        return _unlike(error=(theirs["error"], error))
    return _unlike(error=("", error), requests=(theirs["requests"], ours))


def _quantity(given: Json, theirs: Json) -> list[str]:
    form = Format.BINARY_SI if given["resource"] == "memory" else Format.DECIMAL_SI
    return _unlike(quantity=(theirs["quantity"], str(from_milli(given["raw"], form))))


def _utilization(given: Json, theirs: Json) -> list[str]:
    values = {name: value for name, (value, _, _) in given["reading"]["pods"].items()}
    try:
        ratio, percent, usage = metrics._utilization_ratio(values, given["requests"], given["target"])
    except metrics._CalculationError as error:
        return _unlike(error=(theirs["error"], str(error)))
    return _unlike(
        error=(theirs["error"], ""),
        ratio=(theirs["ratio"], ratio),
        utilization=(theirs["utilization"], percent),
        usage=(theirs["usage"], usage),
    )


def _usage(given: Json, theirs: Json) -> list[str]:
    values = {name: value for name, (value, _, _) in given["reading"]["pods"].items()}
    ratio, usage = metrics._plain_ratio(values, given["target"])
    return _unlike(ratio=(theirs["ratio"], ratio), usage=(theirs["usage"], usage))


def _stabilize(given: Json, theirs: Json) -> list[str]:
    history = history_of(given["history"])
    behavior = given.get("behavior")
    if behavior is None:
        found = normalize._stabilize_down(_spec(given), given["raw"], history, given["now_ms"])
    else:
        spec = _spec(given, behavior=behavior)
        found = normalize._stabilize(spec, given["current"], given["raw"], history, given["now_ms"])
    kept = [[past.replicas, past.at_ms] for past in found[3].recommendations]
    pairs = {"replicas": (theirs["replicas"], found[0]), "history": (theirs["history"]["recommendations"], kept)}
    if behavior is not None and found[0] != given["raw"]:
        pairs |= {"reason": (theirs["reason"], found[1]), "message": (theirs["message"], found[2])}
    return _unlike(**pairs)


def _limit(given: Json, theirs: Json) -> list[str]:
    behavior = given.get("behavior")
    bounds = {"minReplicas": given["min"], "maxReplicas": given["max"]}
    if behavior is None:
        found = normalize._limit_without_behavior(_spec(given, **bounds), given["current"], given["desired"])
    else:
        spec, history = _spec(given, behavior=behavior, **bounds), history_of(given["history"])
        found = normalize._limit_with_behavior(spec, given["current"], given["raw"], history, given["now_ms"])
    keys = ("replicas", "reason", "message")
    return _unlike(**{key: (theirs[key], ours) for key, ours in zip(keys, found, strict=True)})


def _rate(given: Json, theirs: Json) -> list[str]:
    side = "scaleUp" if given["side"] == "up" else "scaleDown"
    behavior = _spec(given, behavior={side: given["rules"]}).behavior
    assert behavior is not None
    history, now_ms = history_of(given["history"]), given["now_ms"]
    if given["side"] == "up":
        ours = normalize.up_limit(given["current"], history, behavior.up, now_ms)
    else:
        ours = normalize.down_limit(given["current"], history, behavior.down, now_ms)
    return _unlike(replicas=(theirs["replicas"], ours))


def _change(given: Json, theirs: Json) -> list[str]:
    history = history_of({"downs": given["events"]})
    return _unlike(
        replicas=(theirs["replicas"], normalize.period_start(0, history, given["period_s"], given["now_ms"]))
    )


def _store(given: Json, theirs: Json) -> list[str]:
    spec = _spec(given, **({"behavior": given["behavior"]} if given["behavior"] else {}))
    decision = Decision(
        namespace="shop",
        name="web",
        at_ms=given["now_ms"],
        current=given["current"],
        desired=given["desired"],
        min_replicas=1,
        max_replicas=1000,
        rescale=True,
        event_periods_s=event_periods(spec),
    )
    after: History = applied(history_of(given["history"]), decision, Outcome(), given["now_ms"])
    pairs = {}
    for side in ("ups", "downs"):
        ours = [[event.change, event.at_ms, event.outdated] for event in getattr(after, side)]
        pairs[side] = (theirs["history"][side] or [], ours)
    return _unlike(**pairs)


class _Answers:
    """The one metrics API of a case, as a client of the Kubernetes API sees it."""

    def __init__(self, given: Json) -> None:
        self._given = given

    async def raw_get(self, path: str, params: dict[str, str] | None = None) -> bytes:
        if path == "/apis/custom.metrics.k8s.io":
            return b'{"versions": [{"version": "v1beta2"}], "preferredVersion": {"version": "v1beta2"}}'
        if self._given["failure"]:
            raise KubeApiError(500, "InternalError", self._given["failure"])
        return msgspec.json.encode(self._given["answer"])


def _fetch(given: Json, theirs: Json) -> list[str]:
    spec = _spec(given, given["metric"])
    gatherer = Gatherer(_Answers(given), clock, 5.0)  # type: ignore[arg-type]  # all that it asks of a client
    (ours,) = asyncio.run(gatherer.readings(spec, given["selector"]))
    if "error" in theirs:
        return _unlike(error=(theirs["error"], ours.error))
    pods = {name: [sample.value, sample.at_ms, sample.window_ms] for name, sample in ours.pods.items()}
    return _unlike(
        error=("", ours.error),
        pods=(theirs.get("pods") or {}, pods),
        values=(theirs.get("values") or [], list(ours.values)),
        at_ms=(theirs["at_ms"], ours.at_ms),
    )


_JUDGES = {
    "calculate": _calculate,
    "change": _change,
    "fetch": _fetch,
    "groupPods": _group_pods,
    "limit": _limit,
    "quantity": _quantity,
    "rate": _rate,
    "reconcile": _reconcile,
    "requests": _requests,
    "stabilize": _stabilize,
    "store": _store,
    "usage": _usage,
    "utilization": _utilization,
}
