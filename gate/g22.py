"""Partial loss: pods without samples; each answer has exactly the pods that have some, with their own values."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

from flyball import clock
from flyball.adapter.evaluation import Evaluation, Limits
from flyball.adapter.registry import CustomMetric
from flyball.adapter.sharing import shared_custom
from flyball.metricrules import KindTable, ResourceConverter, RuleOptions, custom_query, parse_config
from flyball.metricrules.resources import BUILT_IN_KINDS, PODS
from flyball.model.labels import labels_of
from flyball.sources.local import LocalSource
from flyball.store import Head
from gate.adapter_world import CONFIG
from gate.report import demand

NAMESPACES, PODS_EACH = 5, 20


def run(*, quick: bool = False) -> list[str]:
    return asyncio.run(_work(1_000 if quick else 10_000))


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
