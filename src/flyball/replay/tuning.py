"""Searches the settings of an HPA or Governor for the cheapest that keeps an objective on recorded load."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import msgspec

from flyball.errors import ConfigError
from flyball.replay.backtest import Policy, Result, backtest
from flyball.replay.traces import Trace
from flyball.replay.workload import Workload
from flyball.scaling import spec_from_hpa
from flyball.scaling.governor import Governor

TARGETS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)  # of the target as given
WINDOWS_S = (30, 60, 120, 300)
TOLERANCES = ("0", "50m", "100m")


class Candidate(msgspec.Struct, frozen=True):
    """A manifest that was tried, what was changed in it, and how it did."""

    changed: str
    manifest: dict[str, Any]
    result: Result


def tune(
    hpa: dict[str, Any], trace: Trace, workload: Workload, period_s: int = 15, progress: Any = None
) -> list[Candidate]:
    """Every combination of target, scale-down window and tolerance, on the whole trace.

    Raises:
        ConfigError: the manifest is no autoscaling/v2 HPA or has no target that can be moved.
    """
    manifests = [_varied(hpa, *choice) for choice in itertools.product(TARGETS, WINDOWS_S, TOLERANCES)]
    policies = [Policy(changed, Governor(spec_from_hpa(manifest))) for changed, manifest in manifests]
    results = backtest(policies, trace, workload, period_s=period_s, progress=progress)
    return [
        Candidate(changed, manifest, result) for (changed, manifest), result in zip(manifests, results, strict=True)
    ]


def _varied(hpa: dict[str, Any], factor: float, window_s: int, tolerance: str) -> tuple[str, dict[str, Any]]:
    manifest = copy.deepcopy(hpa)
    spec = manifest["spec"]
    shown = []
    for metric in spec.get("metrics") or []:
        target = next((part["target"] for part in metric.values() if isinstance(part, dict) and "target" in part), None)
        if target is None or "averageUtilization" not in target:
            continue
        target["averageUtilization"] = max(1, round(target["averageUtilization"] * factor))
        shown.append(f"{target['averageUtilization']} %")
    if not shown:
        raise ConfigError(f"{manifest['metadata']['name']}: no metric with averageUtilization, which is what is tuned")
    behavior = spec.setdefault("behavior", {})
    behavior["scaleDown"] = {
        **behavior.get("scaleDown", {}),
        "stabilizationWindowSeconds": window_s,
        "tolerance": tolerance,
    }
    behavior["scaleUp"] = {**behavior.get("scaleUp", {}), "tolerance": tolerance}
    return f"target {', '.join(shown)}, window {window_s} s, tolerance {tolerance}", manifest


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in both cost and missing share of demand, cheapest first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.result.scores.cost, c.result.scores.theta_u)):
        if not front or candidate.result.scores.theta_u < front[-1].result.scores.theta_u:
            front.append(candidate)
    return front


def cheapest(candidates: Sequence[Candidate], theta_u: float) -> Candidate | None:
    """The cheapest whose missing share of demand is at most ``theta_u`` percent; None when there is none."""
    kept = [candidate for candidate in candidates if candidate.result.scores.theta_u <= theta_u]
    return min(kept, key=lambda c: (c.result.scores.cost, c.result.scores.changes), default=None)
