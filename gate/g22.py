"""Partial loss: pods without samples; each answer has exactly the pods that have some, with their own values."""

import asyncio
import math
import random
from concurrent.futures import ThreadPoolExecutor

from flyball import clock
from flyball.adapter.evaluation import Evaluation, Limits
from flyball.adapter.registry import CustomMetric
from flyball.adapter.sharing import shared_custom
from flyball.metricrules import KindTable, ResourceConverter, RuleOptions, custom_query, parse_config
from flyball.metricrules.resources import BUILT_IN_KINDS, PODS
from flyball.model.labels import labels_of
from flyball.scaling import History, Observation, Outcome, Pod, PodReading, Reading, applied, decide, spec_from_hpa
from flyball.scaling.governor import decide_governor, governor_from_object
from flyball.sources.local import LocalSource
from flyball.store import Head
from gate.adapter_world import CONFIG
from gate.report import demand

NAMESPACES, PODS_EACH = 5, 20


def run(*, quick: bool = False) -> list[str]:
    cases = 1_000 if quick else 10_000
    return [*asyncio.run(_work(cases)), *_decisions(cases), *_not_frozen()]


async def _work(cases: int) -> list[str]:
    rng = random.Random(22)
    rule = parse_config(CONFIG).rules[0]
    converter = ResourceConverter(rule.resources, KindTable(BUILT_IN_KINDS))
    metric = CustomMetric(PODS, True, "load", "load", rule, converter)
    limits = Limits("rule", RuleOptions(), 300_000)
    wide = shared_custom(metric, (), None)
    by_share: dict[float, int] = {}
    with ThreadPoolExecutor(1) as executor:
        for case in range(cases):
            if case % 100 == 0:
                missing = rng.choice((0.01, 0.3, 0.9))
                held = _held(rng, missing)
                head = Head()
                for (namespace, pod), value in held.items():
                    labels = {"__name__": "load", "namespace": namespace, "pod": pod}
                    head.append(labels_of(labels), clock.now_ms() - 1000, value)
                source = LocalSource(head, executor)
                evaluation = Evaluation(lambda _, source=source: source, 3600.0)  # type: ignore[misc]
            by_share[missing] = by_share.get(missing, 0) + 1
            namespace = f"ns-{rng.randrange(NAMESPACES)}"
            names = rng.sample([f"pod-{i}" for i in range(PODS_EACH)], rng.randint(1, PODS_EACH))
            expected = {name: held[namespace, name] for name in names if (namespace, name) in held}
            answers = await evaluation.of_all(wide, limits)
            assert answers is not None
            shared = {n: answers[namespace, n][-1][0].value for n in names if (namespace, n) in answers}
            demand(shared == expected, f"case {case}: the shared query gives {shared}, wanted {expected}")
            if case % 10 == 0:  # the single query is the oracle of the shared one
                query = custom_query(rule.metrics_query, "rule", converter, "load", PODS, namespace, names)
                dated = await evaluation.dated(query, limits, query.group_labels)
                single = {dict(sample.labels)["pod"]: sample.value for sample, _ in dated}
                demand(single == expected, f"case {case}: the single query gives {single}, wanted {expected}")
    shares = ", ".join(f"{count} with {share:.0%} missing" for share, count in sorted(by_share.items()))
    return [f"{cases} cases ({shares}): each answer has exactly the pods with samples, and their values"]


def _held(rng: random.Random, missing: float) -> dict[tuple[str, str], float]:
    pods = [(f"ns-{space}", f"pod-{index}") for space in range(NAMESPACES) for index in range(PODS_EACH)]
    return {key: float(rng.randint(0, 1000)) for key in pods if rng.random() >= missing}


# --- the autoscaler's side ---

NOW_MS, TOLERANCE, WINDOW_S, BEAT_S = 1_800_000_000_000, 0.1, 300, 15
_REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
#: A metric: its field in the spec, and the field of its target.
_METRICS = {
    "Pods": ({"metric": {"name": "load"}}, "averageValue"),
    "Resource by value": ({"name": "memory"}, "averageValue"),
    "Resource by utilization": ({"name": "memory"}, "averageUtilization"),
}


def reference(values: dict[str, int], pods: int, request: int | None, target: int, current: int) -> int | None:
    """The HPA's arithmetic as its documentation tells it, written for this gate alone: missing pods count as whole
    users of their request (or of the target) when that would scale down, and as idle when it would scale up.

    Args:
        values: milli-units of the pods that have a sample.
        request: milli-units of each pod, for a target in percent of it.
    """
    if not values:
        return None

    def ratio(every: list[int]) -> float:
        if request is None:
            return (sum(every) // len(every)) / target
        return (sum(every) * 100 // (request * len(every))) / target

    first = ratio(list(values.values()))
    missing = pods - len(values)
    if missing == 0:
        return current if abs(1 - first) <= TOLERANCE + 1e-12 else math.ceil(first * len(values))
    whole = target if request is None else request * max(100, target) // 100
    fill = [] if first == 1 else [whole if first < 1 else 0] * missing
    second = ratio([*values.values(), *fill])
    count = len(values) + len(fill)
    if abs(1 - second) <= TOLERANCE + 1e-12 or (first < 1) != (second < 1) or (first > 1) != (second > 1):
        return current
    wanted = math.ceil(second * count)
    return current if (wanted > current) == (second < 1) and wanted != current else wanted


def _decisions(cases: int) -> list[str]:
    rng = random.Random(2222)
    by_share: dict[float, int] = {}
    moved = 0
    for case in range(cases):
        missing, kind = rng.choice((0.01, 0.3, 0.9)), rng.choice(list(_METRICS))
        source, field = _METRICS[kind]
        pods = rng.randint(1, 120)
        request = rng.choice((100, 250, 1000)) * 1000 if field == "averageUtilization" else None
        target = rng.randint(1, 120) if request else rng.randint(1, 50_000)
        base = target * (request / 100 if request else 1) * rng.choice((0.1, 0.5, 0.85, 0.9, 1.0, 1.0, 1.1, 1.2, 3.0))
        values = {f"web-{at}": int(base * rng.uniform(0.9, 1.1)) for at in range(pods) if rng.random() >= missing}
        wanted = {"type": "Utilization" if request else "AverageValue", field: target if request else f"{target}m"}
        name = kind.split()[0]
        spec = spec_from_hpa(
            {
                "metadata": {"namespace": "gate", "name": "web"},
                "spec": {
                    "scaleTargetRef": _REF,
                    "maxReplicas": 1_000_000,
                    "metrics": [{"type": name, name.lower(): {**source, "target": wanted}}],
                    "behavior": {
                        "scaleDown": {"stabilizationWindowSeconds": 0, "policies": _ANY},
                        "scaleUp": {"policies": _ANY},
                    },
                },
            }
        )
        containers = (("main", {"memory": request or 0}),)
        seen = Observation(
            pods,
            pods,
            "app=web",
            pods=tuple(Pod(f"web-{at}", start_ms=0, ready="True", containers=containers) for at in range(pods)),
            readings=(Reading(pods={pod: PodReading(value, NOW_MS) for pod, value in values.items()}),),
        )
        expected = reference(values, pods, request, target, pods)
        expected = pods if expected is None else max(1, expected)
        decision, _ = decide(spec, seen, History(), NOW_MS)
        where = f"case {case}, {kind}, {pods - len(values)} of {pods} pods missing"
        # a start without a memory holds one window, here none
        demand(decision.desired == expected, f"{where}: decides {decision.desired}, the reference {expected}")
        by_share[missing] = by_share.get(missing, 0) + 1
        moved += expected != pods
    shares = ", ".join(f"{count} with {share:.0%} missing" for share, count in sorted(by_share.items()))
    return [f"autoscaler: {cases} cases ({shares}), of which {moved} scale: each decision is the reference HPA model's"]


_ANY = [{"type": "Pods", "value": 1_000_000, "periodSeconds": 1}]
_FREE = {"policies": _ANY}


def _not_frozen() -> list[str]:
    """One pod of a hundred has no sample, for good: the others still scale within the window."""
    lines = []
    for profile in ("HPA", "parity", "fast"):
        source, _ = _METRICS["Pods"]
        metric = {"type": "Pods", "pods": {**source, "target": {"type": "AverageValue", "averageValue": "10"}}}
        spec = {"scaleTargetRef": _REF, "maxReplicas": 1000, "metrics": [metric]}
        extra = {} if profile == "HPA" else {"profile": profile}
        obj = {"metadata": {"namespace": "gate", "name": "web", "uid": "u"}, "spec": spec | extra}
        hpa, governor = spec_from_hpa(obj), governor_from_object(obj)
        size, history, fell_s, sizes = 100, History(), None, []
        for beat in range(2 * WINDOW_S // BEAT_S + 2 * WINDOW_S // BEAT_S):
            now_ms = NOW_MS + beat * BEAT_S * 1000
            since_s = (beat + 1) * BEAT_S - 2 * WINDOW_S
            load = 1000 if since_s <= 0 else 500
            names = [f"web-{at}" for at in range(size)]
            readings = {name: PodReading(load * 1000 // size, now_ms) for name in names[1:]}
            pods = tuple(Pod(name, start_ms=0, ready="True", ready_since_ms=1) for name in names)
            seen = Observation(size, size, "app=web", pods=pods, readings=(Reading(pods=readings),))
            if profile == "HPA":
                decision, history = decide(hpa, seen, history, now_ms)
            else:
                decision, history = decide_governor(governor, seen, history, now_ms)
            history = applied(history, decision, Outcome(), now_ms)
            size = decision.desired
            sizes.append(size)
            if since_s > 0 and size < 100 and fell_s is None:
                fell_s = since_s
        demand(min(sizes[: 2 * WINDOW_S // BEAT_S - 1]) >= 100, f"{profile}: scales down under a full load: {sizes}")
        demand(fell_s is not None and fell_s <= WINDOW_S + BEAT_S, f"{profile}: frozen by one pod: {sizes}")
        lines.append(
            f"autoscaler: {profile}: with one of 100 pods never sampled, half the load frees pods after {fell_s} s"
        )
    return lines
