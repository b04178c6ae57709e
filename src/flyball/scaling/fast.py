"""Sizing straight from demand: profile ``fast``.

Demand is what the metrics say is needed now, in fractional replicas, before any rounding and without tolerance.
The size to have when a pod that starts now is ready is the larger of demand and forecast, and it is kept steady by a
dead band. The constants, these and those of ``forecast``, are what ``tools/fit_fast.py`` finds on the first half of
``bench.elasticity``'s trace alone. All else follows from the start-up time.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from flyball.scaling.types import MAX_INT32, Forecast, MetricEvaluation, Observation, Reading

MARGIN = 0.19  # times the root of the spread; how far above the expected demand to size
HEADROOM = 0.064  # added when scaling up, so that the next small rise needs no write
DEAD_BAND = 0.068  # scale down only when that much smaller
MAX_SPREAD = 0.3  # of a forecast that is believed


def needed(demand: float, forecast: Forecast | None) -> float:
    """Fractional replicas to have when a pod that starts now is ready; a forecast never lowers it.

    A forecast that has erred too much of late is not asked.
    """
    if forecast is None or forecast.spread > MAX_SPREAD:
        return demand
    return max(demand, forecast.expected * math.exp(MARGIN * math.sqrt(forecast.spread)))


def sized(current: int, need: float, highest: int, *, foreseen: bool) -> int:
    """The size to go to. ``highest``: the largest ceil(need) of the hold time, this one among them.

    ``foreseen``: a forecast's margin is in the need; without one the headroom also keeps noise from turning a
    scale-down round at once.
    """
    if math.ceil(need) > current:
        larger = math.ceil(need * (1 + HEADROOM))
        undone = foreseen and math.ceil(need) < larger * (1 - DEAD_BAND)  # of few pods one is more than the band
        return min(MAX_INT32, math.ceil(need) if undone else larger)
    if not foreseen:
        highest = math.ceil(highest * (1 + HEADROOM))
    if highest < current * (1 - DEAD_BAND):
        return highest
    return current


def credible(reading: Reading) -> Reading:
    """Without values below zero, which no load has: such a pod has told nothing, and so has a sum with one."""
    lowest = min(reading.values, default=0)
    if lowest < 0:
        return Reading(error=f"a value of {lowest / 1000:g} is below zero, which no load can be")
    if any(sample.value < 0 for sample in reading.pods.values()):
        pods = {name: sample for name, sample in reading.pods.items() if sample.value >= 0}
        return replace(reading, pods=pods)
    return reading


def demand_of(evaluation: MetricEvaluation, reading: Reading, seen: Observation) -> float | None:
    """Fractional replicas that one metric asks for; None when it says nothing.

    A pod's value tells of the load that so many pods shared when it was sampled. That counts a pod without a value as
    one of them, so that a lost one never lowers the size, and a pod that is about to take its share not yet.
    """
    if evaluation.error or evaluation.ratio is None:
        return None
    target = evaluation.target
    if evaluation.type in ("Object", "External"):
        if target.average_value is not None:
            return evaluation.ratio * seen.status_replicas
        return evaluation.ratio * (_running_ready(seen) if seen.spec_replicas else 1)
    shared = list(_shared(reading, seen))
    total = sum(value for value, _ in shared)
    if not shared:
        return None
    if target.average_value is not None:
        return sum(value * pods for value, pods in shared) / len(shared) / target.average_value
    pods = sum(value * pods for value, pods in shared) / total if total else len(shared)
    return evaluation.ratio * pods


def _shared(reading: Reading, seen: Observation) -> Iterator[tuple[int, float]]:
    """(value, how many pods shared that load) of each ready pod whose sample's window it was ready for."""
    ready = {pod.name: pod for pod in seen.pods if pod.phase == "Running" and not pod.deleting and pod.ready != "False"}
    samples = [(ready[name], sample) for name, sample in reading.pods.items() if name in ready]
    oldest_ms = min((sample.at_ms - sample.window_ms for _, sample in samples), default=0)
    young = Counter(pod.ready_since_ms for pod in ready.values() if pod.ready_since_ms > oldest_ms)
    settled = len(ready) - young.total()
    for pod, sample in samples:
        window_ms = max(1, sample.window_ms)
        if pod.ready_since_ms <= sample.at_ms - sample.window_ms:
            parts = (count * (sample.at_ms - since_ms) / window_ms for since_ms, count in young.items())
            joined = sum(min(count, max(0.0, part)) for count, part in zip(young.values(), parts, strict=True))
            yield sample.value, settled + joined


def _running_ready(seen: Observation) -> int:
    return sum(pod.phase == "Running" and pod.ready == "True" for pod in seen.pods)


def largest(demands: Iterable[float | None]) -> float | None:
    """The largest demand; None when there is none at all."""
    return max((demand for demand in demands if demand is not None), default=None)
