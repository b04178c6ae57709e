"""Rules go on after a restart: alerts that were pending fire when they would have; all of kube-prometheus evaluates.

Each trial is an hour of evaluations against a store on disk, in virtual time, with one restart while an alert is
pending: the store is left as kill -9 leaves it, and rules begin anew. Upstream's grace period holds: an alert with less
than ten minutes left waits ten, so restarts come before that.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from flyball import clock
from flyball.model.frames import is_absent, is_stale
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType, labels_of
from flyball.model.yaml_loader import load_all_yaml
from flyball.rules.manager import RuleManager
from flyball.rules.rulefiles import AlertingRule, Group, parse_rule_file
from flyball.store import Database
from gate.report import demand
from gate.workload import abandon

RESTARTS = 100
INTERVAL_MS, START_MS = 15_000, 1_900_000_000_000
TICKS, BEGINS, FOR_TICKS, GRACE_TICKS = 190, 20, 120, 40
RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - {record: "a:sum", expr: sum(metric)}
  - {record: "b:double", expr: "2 * a:sum"}
  - {alert: High, expr: "metric > 5", for: 30m, labels: {severity: page}, annotations: {text: "{{ $value }}"}}
  - {alert: Total, expr: "b:double > 1", for: 45s}
"""
Series = dict[tuple[Labels, int], float]


def run(quick: bool = False) -> list[str]:
    trials = RESTARTS // 10 if quick else RESTARTS
    rng, groups = random.Random(19), parse_rule_file(RULES, "gate.yml")
    real_now_ms = clock.now_ms
    try:
        whole, fired_at = asyncio.run(_trial(groups, ()))
        late = []
        for _ in range(trials):
            restart = rng.randint(BEGINS + 3, BEGINS + FOR_TICKS - GRACE_TICKS - 4)
            series, fired = asyncio.run(_trial(groups, (restart,)))
            demand(
                fired.keys() == fired_at.keys(), f"restart at {restart}: fired {sorted(fired)}, not {sorted(fired_at)}"
            )
            late.append(max(abs(fired[name] - at) for name, at in fired_at.items()))
            different = set(whole.items() ^ series.items())
            demand(not different, f"restart at {restart}: {len(different)} recorded samples differ")
    finally:
        clock.now_ms = real_now_ms
    demand(max(late) <= 1, f"an alert fired {max(late)} evaluations from when it would have")
    return [
        f"{trials} restarts: fired at most {max(late)} evaluations late, {len(whole):,} recorded samples identical",
        _kube_prometheus(),
    ]


async def _in_thread(work: Callable[[], Any]) -> Any:
    return work()


async def _trial(groups: tuple[Group, ...], restarts: tuple[int, ...]) -> tuple[Series, dict[str, int]]:
    """What was recorded, and at which evaluation each alert fired first."""
    fired: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        store, rules = _start(Path(name), groups)
        for tick in range(TICKS):
            at_ms = START_MS + tick * INTERVAL_MS
            clock.now_ms = lambda at_ms=at_ms: at_ms  # type: ignore[misc]
            if tick in restarts:
                abandon(store)
                store, rules = _start(Path(name), groups)
            for pod in ("a", "b", "c"):
                value = 9.0 if (pod == "a" and tick >= BEGINS) or (pod == "b" and tick % 50 > 30) else 1.0
                store.head.append(labels_of({METRIC_NAME: "metric", "pod": pod}), at_ms - 1, value)
            for status in rules.status():
                await rules.evaluate(status, at_ms)
            store.wal.sync()
            for alert in rules.alerts_json():
                if alert["state"] == "firing":
                    fired.setdefault(str(sorted(alert["labels"].items())), tick)
        recorded = _recorded(store)
        await asyncio.to_thread(store.close)
    return recorded, fired


def _start(directory: Path, groups: tuple[Group, ...]) -> tuple[Database, RuleManager]:
    store = Database(directory)
    rules = RuleManager(store, store.head, _in_thread)
    rules.set_groups(groups)
    return store, rules


def _recorded(store: Database) -> Series:
    found: Series = {}
    matcher = Matcher(MatchType.REGEX, METRIC_NAME, "a:sum|b:double")
    for frame in store.select([matcher], START_MS - 1, START_MS + TICKS * INTERVAL_MS):
        kept = ~is_absent(frame.values) & ~is_stale(frame.values)
        for column, labels in enumerate(frame.labels):
            for row in kept[:, column].nonzero()[0]:
                found[labels, int(frame.times_ms[row, frame.target[column]])] = float(frame.values[row, column])
    return found


def _kube_prometheus() -> str:
    shared = Path(os.environ.get("FLYBALL_SHARED") or Path(__file__).parents[2] / "shared")
    groups: list[Group] = []
    for path in sorted((shared / "kube-prometheus").glob("*rometheusRule.yaml")):
        for document in load_all_yaml(path.read_bytes(), path.name):
            groups += parse_rule_file(msgspec.json.encode(document["spec"]), path.name)  # type: ignore[index]
    rules = [rule for group in groups for rule in group.rules]
    alerts = sum(isinstance(rule, AlertingRule) for rule in rules)
    demand((alerts, len(rules) - alerts) == (139, 95), f"{alerts} alerts and {len(rules) - alerts} records were read")
    errors = asyncio.run(_evaluated(groups))
    demand(not errors, f"{len(errors)} rules fail, the first: {errors[:1]}")
    return f"kube-prometheus: {len(groups)} groups, {alerts} alerts, {len(rules) - alerts} records, 0 errors"


async def _evaluated(groups: list[Group]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name:
        store = Database(Path(name))
        manager = RuleManager(store, store.head, _in_thread)
        manager.set_groups(groups)
        for tick in range(3):
            at_ms = clock.now_ms() + tick * 30_000
            for pod in range(3):
                for metric, job in (("up", "kubelet"), ("up", "apiserver"), ("kube_pod_info", "kube-state-metrics")):
                    labels = {METRIC_NAME: metric, "job": job, "namespace": "default", "pod": f"p{pod}", "node": "n"}
                    store.head.append(labels_of(labels), at_ms - 1000, float(pod % 2))
            for status in manager.status():
                await manager.evaluate(status, at_ms)
        rules = [one for status in manager.status() for one in status.rules]
        errors = [f"{one.rule.name}: {one.state.error}" for one in rules if one.state.error]
        await asyncio.to_thread(store.close)
        return errors
