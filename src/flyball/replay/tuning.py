"""Searches the settings of an HPA or Governor for the cheapest that keeps an objective on recorded load."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from flyball.errors import ConfigError
from flyball.kube.kinds import GOVERNORS
from flyball.model.quantities import from_milli, parse_quantity
from flyball.replay.backtest import Progress, Result
from flyball.replay.policies import policy_of
from flyball.replay.sweep import sweep
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload

TARGETS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)  # of the target as given
WINDOWS_S = (30, 60, 120, 300)
TOLERANCES = ("0", "50m", "100m")


class Candidate(msgspec.Struct, frozen=True):
    """A manifest that was tried, what was changed in it, and how it did; the result is without its counts."""

    changed: str
    manifest: dict[str, Any]
    result: Result


class Objective(msgspec.Struct, frozen=True):
    """What must hold: percent of demand that may be missing, percent of time with any missing, mean response time in
    service times."""

    under: float = 1.0
    time_under: float = 100.0
    latency: float = float("inf")

    def met(self, result: Result) -> bool:
        scores = result.scores
        return scores.theta_u <= self.under and scores.tau_u <= self.time_under and not result.latency > self.latency


def tune(
    policy: Mapping[str, Any],
    trace: Trace,
    workload: Workload,
    period_s: int = 15,
    progress: Progress | None = None,
    *,
    governors: bool = True,
) -> list[Candidate]:
    """Every combination of target, scale-down window and tolerance, on the whole trace; with ``governors`` also the
    same targets as Governors of profile fast, with and without a forecast.

    Raises:
        ConfigError: the manifest is no HPA or Governor that can be replayed, or has no target that can be moved.
    """
    manifests = [_with_behavior(*one, *more) for one in _targets(policy) for more in _BEHAVIORS]
    if governors:
        manifests += [_fast(*one, forecast) for one in _targets(policy) for forecast in (False, True)]
    policies = [msgspec.structs.replace(policy_of(manifest), name=changed) for changed, manifest in manifests]
    results = sweep(policies, trace, workload, period_s=period_s, progress=progress)
    return [
        Candidate(changed, manifest, result) for (changed, manifest), result in zip(manifests, results, strict=True)
    ]


_BEHAVIORS = tuple(itertools.product(WINDOWS_S, TOLERANCES))
_Change = tuple[str, dict[str, Any]]  # in words, and the manifest


def _targets(policy: Mapping[str, Any]) -> Iterator[_Change]:
    """The manifest with every target moved alike."""
    for factor in TARGETS:
        manifest = copy.deepcopy({key: value for key, value in policy.items() if key != "status"})
        shown = []
        for metric in manifest["spec"].get("metrics") or []:
            for target in (part["target"] for part in metric.values() if isinstance(part, dict) and "target" in part):
                if "averageUtilization" in target:
                    target["averageUtilization"] = max(1, round(target["averageUtilization"] * factor))
                    shown.append(f"{target['averageUtilization']} %")
                elif "averageValue" in target:
                    milli = max(1, round(parse_quantity(target["averageValue"]).milli_value() * factor))
                    target["averageValue"] = str(from_milli(milli))
                    shown.append(target["averageValue"])
        if not shown:
            name = policy["metadata"]["name"]
            raise ConfigError(f"{name}: no metric with averageUtilization or averageValue, which is what is tuned")
        yield f"target {', '.join(shown)}", manifest


def _with_behavior(changed: str, manifest: dict[str, Any], window_s: int, tolerance: str) -> _Change:
    manifest = copy.deepcopy(manifest)
    behavior = manifest["spec"].setdefault("behavior", {})
    behavior["scaleDown"] = {
        **behavior.get("scaleDown", {}),
        "stabilizationWindowSeconds": window_s,
        "tolerance": tolerance,
    }
    behavior["scaleUp"] = {**behavior.get("scaleUp", {}), "tolerance": tolerance}
    manifest["spec"].pop("profile", None)
    return f"{changed}, window {window_s} s, tolerance {tolerance}", manifest


def _fast(changed: str, manifest: dict[str, Any], forecast: bool) -> _Change:
    spec = {**copy.deepcopy(manifest["spec"]), "profile": "fast"}
    spec.pop("behavior", None)
    if forecast:
        spec.setdefault("forecast", {})
    else:
        spec.pop("forecast", None)
    meta = {key: value for key, value in manifest["metadata"].items() if key in ("name", "namespace", "labels")}
    governor = {"apiVersion": GOVERNORS.api_version, "kind": GOVERNORS.kind, "metadata": meta, "spec": spec}
    return f"Governor, fast, {changed}{', forecast' if forecast else ''}", governor


def pareto(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other beats in both cost and missing share of demand, cheapest first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.result.scores.cost, c.result.scores.theta_u)):
        if not front or candidate.result.scores.theta_u < front[-1].result.scores.theta_u:
            front.append(candidate)
    return front


def cheapest(candidates: Sequence[Candidate], objective: Objective) -> Candidate | None:
    """The cheapest that keeps the objective; None when there is none."""
    kept = [candidate for candidate in candidates if objective.met(candidate.result)]
    return min(kept, key=lambda c: (c.result.scores.cost, c.result.scores.changes), default=None)
