"""From one metric's readings to a proposed replica count (reference/hpa.md 1.2-1.8).

The order of every float64 operation is kube-controller-manager's; Python's floats are the same IEEE doubles.
Two things differ only where Go's result is undefined or wraps to a negative number: float to int32
conversions and int64 sums saturate, so that an absurd value never scales down.
"""

import math
from itertools import islice
from typing import Any

import msgspec

from flyball.model.quantities import Format, from_milli
from flyball.scaling.spec import selector_text
from flyball.scaling.types import (
    MAX_INT32,
    MAX_INT64,
    MIN_INT32,
    Metric,
    MetricEvaluation,
    Observation,
    Pod,
    PodGroups,
    PodReading,
    Reading,
    Settings,
    Spec,
)

_NO_PODS = "no pods returned by selector while calculating replica count"
_KEEP_NAMES = 100  # pods and values named in a record; the counts are in the multiplier


class MetricFailedError(Exception):
    """A metric gave no proposal: the condition's reason and error, and the error as the reconcile wraps it."""

    def __init__(self, reason: str, inner: str, outer: str, evaluation: MetricEvaluation) -> None:
        super().__init__(outer)
        self.reason = reason
        self.inner = inner
        self.outer = outer
        self.evaluation = evaluation


class _CalculationError(Exception):
    pass


class Tolerances(msgspec.Struct, frozen=True):
    """The band around 1.0 in which a ratio changes nothing."""

    down: float
    up: float
    absolute: bool = False  # up to 1.32: one tolerance, abs(1-ratio) <= it

    def within(self, ratio: float) -> bool:
        if self.absolute:
            return abs(1.0 - ratio) <= self.up
        return (1.0 - self.down) <= ratio <= (1.0 + self.up)


def tolerances_of(spec: Spec) -> Tolerances:
    """The HPA's own tolerances where given, else the controller's."""
    base = spec.settings.tolerance
    if spec.settings.before_1_33:
        return Tolerances(base, base, absolute=True)
    if spec.behavior is None:
        return Tolerances(base, base)
    down, up = spec.behavior.down.tolerance, spec.behavior.up.tolerance
    return Tolerances(base if down is None else down, base if up is None else up)


def evaluate_metric(
    spec: Spec, metric: Metric, reading: Reading, seen: Observation, now_ms: int
) -> tuple[MetricEvaluation, dict[str, Any]]:
    """The proposal of one metric, with its reasons, and its entry in status.currentMetrics.

    Raises:
        MetricFailedError: no proposal; the texts are upstream's.
    """
    work = _Work(spec, metric, reading, seen, now_ms)
    kind = metric.type
    if kind == "Object":
        reason, wrap = "FailedGetObjectMetric", "failed to get object metric value: "
    elif kind == "Pods":
        reason, wrap = "FailedGetPodsMetric", "failed to get pods metric value: "
    elif kind == "Resource":
        reason, wrap = "FailedGetResourceMetric", f"failed to get {metric.name} resource metric value: "
    elif kind == "ContainerResource":
        reason, wrap = "FailedGetContainerResourceMetric", f"failed to get {metric.container} container metric value: "
    elif kind == "External":
        reason, wrap = "FailedGetExternalMetric", f"failed to get {metric.name} external metric value: "
    else:
        text = f'unknown metric source type "{kind}"'
        raise MetricFailedError("InvalidMetricSourceType", text, text, work.record(error=text))
    try:
        if reading.selector_error and kind in ("Object", "Pods"):
            raise _CalculationError(reading.selector_error)
        status = {
            "Object": work.object,
            "Pods": work.pods,
            "Resource": work.resource,
            "ContainerResource": work.resource,
            "External": work.external,
        }[kind]()
    except _CalculationError as error:
        inner = str(error)
        raise MetricFailedError(reason, inner, wrap + work.middle + inner, work.record(error=inner)) from error
    return work.record(), status


class _Work:
    """One evaluation in progress: what the record will say is collected on the way."""

    def __init__(self, spec: Spec, metric: Metric, reading: Reading, seen: Observation, now_ms: int) -> None:
        self.spec, self.metric, self.reading, self.seen, self.now_ms = spec, metric, reading, seen, now_ms
        self.tolerances = tolerances_of(spec)
        self.middle = ""  # what upstream wraps around the error only outside the condition
        self.found: dict[str, Any] = {}
        self.groups = PodGroups()

    def record(self, error: str = "") -> MetricEvaluation:
        reading, band = self.reading, self.tolerances
        if reading.pods:
            raw = {name: sample.value for name, sample in islice(reading.pods.items(), _KEEP_NAMES)}
        else:
            raw = {str(at): value for at, value in enumerate(reading.values[:_KEEP_NAMES])}
        return MetricEvaluation(
            type=self.metric.type,
            metric=self.metric.name,
            target=self.metric.target,
            values=raw,
            sample_ms=reading.at_ms,
            tolerance_low=1.0 - band.down,
            tolerance_high=1.0 + band.up,
            pods=self.groups,
            error=error,
            **self.found,
        )

    # --- the five types ---

    def object(self) -> dict[str, Any]:
        metric, target = self.metric, self.metric.target
        described = metric.described or {}
        current: dict[str, str]
        by_value = target.type == "Value" and target.value is not None
        if not by_value and not (target.type == "AverageValue" and target.average_value is not None):
            raise _CalculationError(
                "invalid object metric source: neither a value target nor an average value target was set"
            )
        if not by_value:
            self.middle = f"failed to get {metric.name} object metric: "
        if self.reading.error or not self.reading.values:
            kind, name = described.get("kind", ""), described.get("name", "")
            if self.spec.settings.before_1_37:  # whose message has its arguments in the wrong order
                raise _CalculationError(
                    f"unable to get metric {metric.name}: {kind} on {self.spec.namespace} {name}/{self._why()}"
                )
            raise _CalculationError(
                f"unable to get metric {metric.name} on {kind} {self.spec.namespace}/{name}: {self._why()}"
            )
        usage = self.reading.values[0]
        if by_value and target.value is not None:
            self._by_ratio(usage, target.value, f"{described.get('kind', '')} metric {metric.name}")
            current = {"value": str(from_milli(usage))}
        else:
            # upstream names an Object metric with AverageValue "external"; its users read that in events
            name = f"external metric {metric.name}({selector_text(metric.selector)})"
            shown = self._per_pod(usage, target.average_value or 0, name, clamp=False)
            current = {"averageValue": str(from_milli(shown))}
            if self.spec.settings.before_1_33:
                described = {"kind": "", "name": ""}
        body = {"metric": _identifier(metric), "describedObject": described, "current": current}
        return {"type": "Object", "object": body}

    def external(self) -> dict[str, Any]:
        metric, target = self.metric, self.metric.target
        name = f"external metric {metric.name}({selector_text(metric.selector)})"
        if target.average_value is not None:
            self.middle = f"failed to get {metric.name} external metric: "
            values = self._external_values()
            usage = 0
            for value in values:
                usage += value
                if usage > MAX_INT64 or (usage < 0 and not self.spec.settings.before_1_33):
                    usage = MAX_INT64  # upstream takes any negative sum for an overflow
                    break
            shown = self._per_pod(usage, target.average_value, name, clamp=True)
            current = {"averageValue": str(from_milli(shown))}
        elif target.value is not None:
            self.middle = f"failed to get external metric {metric.name}: "
            usage = 0
            for value in self._external_values():
                usage += value
                if usage > MAX_INT64:
                    usage = MAX_INT64
                    break
            self._by_ratio(usage, target.value, name)
            current = {"value": str(from_milli(usage))}
        else:
            raise _CalculationError(
                "invalid external metric source: neither a value target nor an average value target was set"
            )
        return {"type": "External", "external": {"metric": _identifier(metric), "current": current}}

    def _external_values(self) -> tuple[int, ...]:
        if self.reading.selector_error:
            raise _CalculationError(self.reading.selector_error)
        if self.reading.error or not self.reading.values:
            raise _CalculationError(
                f"unable to get external metric {self.spec.namespace}/{self.metric.name}/"
                f"{selector_text(self.metric.selector)}: {self._why()}"
            )
        return self.reading.values

    def pods(self) -> dict[str, Any]:
        metric = self.metric
        if self.reading.error:
            raise _CalculationError(f"unable to get metric {metric.name}: {self._why()}")
        usage = self._plain(metric.target.average_value or 0, "", f"pods metric {metric.name}")
        current = {"averageValue": str(from_milli(usage))}
        return {"type": "Pods", "pods": {"metric": _identifier(metric), "current": current}}

    def resource(self) -> dict[str, Any]:
        metric, target = self.metric, self.metric.target
        binary = metric.name == "memory" and not self.spec.settings.before_1_33
        form = Format.BINARY_SI if binary else Format.DECIMAL_SI
        current: dict[str, Any]
        if target.average_value is not None:
            try:
                self._need_resource()
                usage = self._plain(target.average_value, metric.name, f"{metric.name} resource")
            except _CalculationError as error:
                raise _CalculationError(f"failed to get {metric.name} usage: {error}") from error
            current = {"averageValue": str(from_milli(usage, form))}
        elif target.average_utilization is not None:
            part = "container resource" if metric.type == "ContainerResource" else "resource"
            name = f"{metric.name} {part} utilization (percentage of request)"
            try:
                self._need_resource()
                percent, usage = self._utilization(target.average_utilization, name)
            except _CalculationError as error:
                raise _CalculationError(f"failed to get {metric.name} utilization: {error}") from error
            current = {"averageUtilization": percent, "averageValue": str(from_milli(usage, form))}
        else:
            raise _CalculationError(
                "invalid resource metric source: neither an average utilization target nor an average value"
                " (usage) target was set"
            )
        if metric.type == "ContainerResource":
            body = {"name": metric.name, "container": metric.container, "current": current}
            return {"type": "ContainerResource", "containerResource": body}
        return {"type": "Resource", "resource": {"name": metric.name, "current": current}}

    def _need_resource(self) -> None:
        if self.reading.error:
            raise _CalculationError(f"unable to get metrics for resource {self.metric.name}: {self._why()}")

    def _why(self) -> str:
        return self.reading.error or "no metrics returned from metrics API"

    # --- Object and External ---

    def _by_ratio(self, usage: int, target: int, name: str) -> None:
        ratio = _divide(float(usage), float(target))
        current = self.seen.spec_replicas
        self._found(name=name, usage=usage, ratio=ratio)
        if current == 0:
            self._found(proposal=_int32(_ceil(ratio)), rule="from zero: the ratio itself, without tolerance")
            return
        if self.tolerances.within(ratio):
            self._found(proposal=current, within_tolerance=True, rule="within tolerance")
            return
        if not self.seen.pods:
            raise _CalculationError(f"unable to calculate ready pods: {_NO_PODS}")
        ready = sum(pod.phase == "Running" and pod.ready == "True" for pod in self.seen.pods)
        proposal = _int32(_ceil(ratio * float(ready)))
        self._found(proposal=proposal, multiplier=ready, rule="ratio times running and ready pods")

    def _per_pod(self, usage: int, target: int, name: str, clamp: bool) -> int:
        count = self.seen.status_replicas
        ratio = _divide(float(usage), float(target) * float(count))
        if self.tolerances.within(ratio):
            self._found(proposal=count, within_tolerance=True, rule="within tolerance")
        else:
            proposal = _int32(_ceil(_divide(float(usage), float(target))))
            self._found(proposal=proposal, rule="usage divided by the target")
        if float(usage) >= float(MAX_INT64):
            shown = MAX_INT64
        elif count == 0:
            shown = 0
        else:
            shown = math.ceil(float(usage) / float(count))
        self._found(name=name, usage=shown, ratio=ratio, multiplier=count)
        return shown

    # --- Resource, ContainerResource and Pods ---

    def _plain(self, target: int, resource: str, name: str) -> int:
        if not self.seen.pods:
            raise _CalculationError(_NO_PODS)
        metrics = self._grouped(resource)
        ratio, usage = _plain_ratio(metrics, target)
        self._found(name=name, usage=usage, ratio=ratio)
        self._propose(
            ratio,
            metrics,
            missing=dict.fromkeys(self._missing, target),
            again=lambda filled: _plain_ratio(filled, target)[0],
        )
        return usage

    def _utilization(self, target: int, name: str) -> tuple[int, int]:
        if not self.seen.pods:
            raise _CalculationError(_NO_PODS)
        metrics = self._grouped(self.metric.name)
        requests = _requests(self.seen.pods, self.metric, self.spec.settings)
        ratio, percent, usage = _utilization_ratio(metrics, requests, target)
        self._found(name=name, usage=usage, utilization=percent, ratio=ratio)
        fallback = max(100, target)
        self._propose(
            ratio,
            metrics,
            missing={pod: _quotient(requests[pod] * fallback, 100) for pod in self._missing},
            again=lambda filled: _utilization_ratio(filled, requests, target)[0],
        )
        return percent, usage

    def _grouped(self, resource: str) -> dict[str, int]:
        """The values that count, after the pods were grouped."""
        readings = self.reading.pods
        settled_ms = self.now_ms - self.spec.settings.cpu_initialization_period_s * 1000
        ready: list[str] = []
        unready: list[str] = []
        missing: list[str] = []
        ignored: list[str] = []
        for pod in self.seen.pods:
            name, phase = pod.name, pod.phase
            if pod.deleting or phase == "Failed":
                ignored.append(name)
            elif phase == "Pending":
                unready.append(name)
            elif name not in readings:
                missing.append(name)
            elif resource != "cpu" or (pod.ready == "True" and pod.start_ms is not None and pod.start_ms <= settled_ms):
                ready.append(name)  # what nearly every pod is, asked without a call
            elif self._cpu_unready(pod, readings[name]):
                unready.append(name)
            else:
                ready.append(name)
        self._ready, self._unready, self._missing = len(ready), unready, missing
        self.groups = PodGroups(*(tuple(names[:_KEEP_NAMES]) for names in (ready, unready, missing, ignored)))
        dropped = {*ignored, *unready}
        metrics = {name: sample.value for name, sample in readings.items()}
        for name in dropped & metrics.keys():
            del metrics[name]
        if not metrics:
            raise _CalculationError("did not receive metrics for targeted pods (pods might be unready)")
        return metrics

    def _cpu_unready(self, pod: Pod, sample: PodReading) -> bool:
        settings = self.spec.settings
        if pod.ready is None or pod.start_ms is None:
            return True
        not_ready = pod.ready == "False"
        if pod.start_ms + settings.cpu_initialization_period_s * 1000 > self.now_ms:
            # a start-up burst is not load: wait for one whole window since the pod became ready
            return not_ready or sample.at_ms < pod.ready_since_ms + sample.window_ms
        return not_ready and pod.start_ms + settings.initial_readiness_delay_s * 1000 > pod.ready_since_ms

    def _propose(self, ratio: float, metrics: dict[str, int], missing: dict[str, int], again: Any) -> None:
        current = self.seen.spec_replicas
        up_unready = bool(self._unready) and ratio > 1.0
        if not up_unready and not self._missing:
            self._found(multiplier=self._ready)
            if self.tolerances.within(ratio):
                self._found(proposal=current, within_tolerance=True, rule="within tolerance")
            else:
                proposal = _int32(_ceil(ratio * float(self._ready)))
                self._found(proposal=proposal, rule="ratio times ready pods")
            return
        filled: dict[str, int] = {}
        if ratio < 1.0:
            filled.update(missing)
        elif ratio > 1.0:
            filled.update(dict.fromkeys(missing, 0))
        if up_unready:
            filled.update(dict.fromkeys(self._unready, 0))
        metrics = metrics | filled
        self._found(filled={name: filled[name] for name in list(filled)[:_KEEP_NAMES]}, multiplier=len(metrics))
        second = again(metrics)
        self._found(adjusted_ratio=second)
        if self.tolerances.within(second):
            self._found(proposal=current, within_tolerance=True, rule="within tolerance after filling in pods")
        elif (ratio < 1.0 < second) or (ratio > 1.0 > second):
            self._found(proposal=current, rule="filling in pods would turn the direction")
        else:
            proposal = _int32(_ceil(second * float(len(metrics))))
            if (second < 1.0 and proposal > current) or (second > 1.0 and proposal < current):
                self._found(proposal=current, rule="the count of pods would turn the direction")
            else:
                self._found(proposal=proposal, rule="ratio after filling in pods times pods")

    def _found(self, **what: Any) -> None:
        for name, value in what.items():
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            self.found[name] = value


def _plain_ratio(metrics: dict[str, int], target: int) -> tuple[float, int]:
    usage = _quotient(_within_int64(sum(metrics.values())), len(metrics))
    return _divide(float(usage), float(target)), usage


def _utilization_ratio(metrics: dict[str, int], requests: dict[str, int], target: int) -> tuple[float, int, int]:
    known = metrics if metrics.keys() <= requests.keys() else {n: v for n, v in metrics.items() if n in requests}
    used = _within_int64(sum(known.values()))
    requested = _within_int64(sum(map(requests.__getitem__, known)))
    if requested == 0:
        raise _CalculationError("no metrics returned matched known pods")
    percent = max(MIN_INT32, min(MAX_INT32, _quotient(used * 100, requested)))
    return _divide(float(percent), float(target)), percent, _quotient(used, len(known))


def _requests(pods: tuple[Pod, ...], metric: Metric, settings: Settings) -> dict[str, int]:
    """What each pod asks for, by its name; one container is the plain case, asked without a call."""
    resource, plain = metric.name, not metric.container
    found = {
        pod.name: pod.containers[0][1].get(resource)
        if plain and pod.pod_requests is None and len(pod.containers) == 1
        else None
        for pod in pods
    }
    if None in found.values():
        for pod in pods:
            if found[pod.name] is None:
                found[pod.name] = _request(pod, metric, settings)
    return found  # type: ignore[return-value]  # none is None


def _request(pod: Pod, metric: Metric, settings: Settings) -> int:
    resource, container = metric.name, metric.container
    if not container and pod.pod_requests is not None and not settings.before_1_33:
        if resource not in pod.pod_requests:
            raise _CalculationError(f"missing pod-level request for {resource} in Pod {pod.name}")
        return pod.pod_requests[resource]
    total = 0
    for name, requests in pod.containers:
        if not container or container == name:
            if resource not in requests:
                raise _CalculationError(f"missing request for {resource} in container {name} of Pod {pod.name}")
            total += requests[resource]
        if container == name:
            return total
    if container and not settings.before_1_33:
        raise _CalculationError(f"container {container} not found in Pod {pod.name}")
    return total


def _identifier(metric: Metric) -> dict[str, Any]:
    if metric.selector is None:
        return {"name": metric.name}
    return {"name": metric.name, "selector": metric.selector}


def _within_int64(value: int) -> int:
    return max(-MAX_INT64 - 1, min(MAX_INT64, value))


def _quotient(a: int, b: int) -> int:
    """Go's integer division: towards zero."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _divide(a: float, b: float) -> float:
    """IEEE division, where Python would raise."""
    if b == 0.0:
        if a == 0.0 or math.isnan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def _ceil(value: float) -> float:
    return float(math.ceil(value)) if math.isfinite(value) else value


def _int32(value: float) -> int:
    if math.isnan(value):
        return MAX_INT32
    return int(max(float(MIN_INT32), min(float(MAX_INT32), value)))
