"""The values of a scaling decision: what was asked, what was seen, what is remembered, what was concluded.

Units: replicas are counts, metric values int64 milli-units, times ms since the epoch. All frozen and
serialisable by msgspec, so that the journal, the explain page and a replay hold the very same thing.
"""

from typing import Any

import msgspec

#: Version profiles: which kube-controller-manager is reproduced, bit for bit (reference/hpa.md 1.2 and 0).
PROFILES = ("<=1.32", "1.33-1.36", "1.37")
DEFAULT_PROFILE = "1.37"

MAX_INT32 = (1 << 31) - 1
MIN_INT32 = -(1 << 31)
MAX_INT64 = (1 << 63) - 1


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kube-controller-manager flags that the arithmetic depends on (reference/hpa.md 1.19)."""

    tolerance: float = 0.1
    downscale_stabilization_s: int = 300
    cpu_initialization_period_s: int = 300
    initial_readiness_delay_s: int = 30
    profile: str = DEFAULT_PROFILE

    @property
    def scale_to_zero(self) -> bool:
        """Whether HPAScaleToZero is on: by default since 1.37."""
        return self.profile == "1.37"

    @property
    def before_1_33(self) -> bool:
        """Before per-HPA tolerances, pod-level requests and the ScaledToZero condition were known."""
        return self.profile == "<=1.32"

    @property
    def before_1_37(self) -> bool:
        """Before messages about objects and ambiguous selectors were mended."""
        return self.profile != "1.37"


class Target(msgspec.Struct, frozen=True):
    """One metric's target; values in milli-units, utilization in whole percent. None where not set."""

    type: str = ""
    value: int | None = None
    average_value: int | None = None
    average_utilization: int | None = None


class Metric(msgspec.Struct, frozen=True):
    """One entry of spec.metrics.

    ``name`` is the resource's name for Resource and ContainerResource, else the metric's; ``selector`` and
    ``described`` are the objects as given, repeated in the status.
    """

    type: str
    name: str
    target: Target
    container: str = ""
    selector: dict[str, Any] | None = None
    described: dict[str, Any] | None = None


class Policy(msgspec.Struct, frozen=True):
    """At most ``value`` pods or percent within ``period_s``."""

    type: str
    value: int
    period_s: int


class Rules(msgspec.Struct, frozen=True):
    """One side of spec.behavior, defaults filled in. ``tolerance`` None means the controller's own."""

    window_s: int
    select: str
    policies: tuple[Policy, ...]
    tolerance: float | None = None


class Behavior(msgspec.Struct, frozen=True):
    """spec.behavior; an HPA without one takes the older path (reference/hpa.md 1.13)."""

    up: Rules
    down: Rules


class Spec(msgspec.Struct, frozen=True):
    """What an HPA asks for, defaults filled in."""

    namespace: str
    name: str
    uid: str
    target_api_version: str
    target_kind: str
    target_name: str
    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]
    behavior: Behavior | None = None
    settings: Settings = Settings()

    @property
    def reference(self) -> str:
        """The target as upstream's messages name it."""
        return f"{self.target_kind}/{self.namespace}/{self.target_name}"

    @property
    def has_object_or_external(self) -> bool:
        """Whether a metric exists that can be read while no pod runs."""
        return any(metric.type in ("Object", "External") for metric in self.metrics)


class Pod(msgspec.Struct, frozen=True):
    """What groupPods and the requests need of a pod.

    ``ready`` is the Ready condition's status or None without one; ``containers`` includes restartable init
    containers; ``pod_requests`` is set only where pod-level requests are; requests are in milli-units.
    """

    name: str
    phase: str = "Running"
    deleting: bool = False
    start_ms: int | None = None
    ready: str | None = None
    ready_since_ms: int = 0
    containers: tuple[tuple[str, dict[str, int]], ...] = ()
    pod_requests: dict[str, int] | None = None


class PodReading(msgspec.Struct, frozen=True):
    """One pod's value, milli-units, with its sample's own time and window."""

    value: int
    at_ms: int = 0
    window_ms: int = 60_000


class Reading(msgspec.Struct, frozen=True):
    """What a metrics API answered for one metric: ``pods`` (Resource, ContainerResource, Pods) or ``values``
    (Object has one, External any), or ``error``, or ``selector_error`` when the metric's selector is wrong."""

    pods: dict[str, PodReading] = {}
    values: tuple[int, ...] = ()
    at_ms: int | None = None
    error: str = ""
    selector_error: str = ""


class Observation(msgspec.Struct, frozen=True):
    """What was seen at one instant. ``readings`` runs along spec.metrics, empty when they were not needed.

    ``scale_error`` means that the target's scale could not be read and nothing else is known.
    ``selecting_hpas`` are the HPAs ("namespace/name") that match the target's pods, this one among them.
    """

    spec_replicas: int = 0
    status_replicas: int = 0
    selector: str = ""
    selector_error: str = ""
    selecting_hpas: tuple[str, ...] = ()
    pods: tuple[Pod, ...] = ()
    readings: tuple[Reading, ...] = ()
    scaled_to_zero: bool = False
    scale_error: str = ""


class Recommendation(msgspec.Struct, frozen=True, array_like=True):
    """A raw recommendation, before any clamp."""

    replicas: int
    at_ms: int


class ScaleEvent(msgspec.Struct, frozen=True, array_like=True):
    """Pods added or removed by one write; ``outdated`` slots are reused."""

    change: int
    at_ms: int
    outdated: bool = False


class History(msgspec.Struct, frozen=True):
    """All that the next decision remembers of earlier ones. Slot order matters; it is upstream's.

    ``failing_since_ms`` and ``began_ms`` (the first decision from demand) are a Governor's.
    """

    recommendations: tuple[Recommendation, ...] = ()
    ups: tuple[ScaleEvent, ...] = ()
    downs: tuple[ScaleEvent, ...] = ()
    failing_since_ms: int | None = None
    began_ms: int | None = None


class PodGroups(msgspec.Struct, frozen=True):
    """Names of the pods by what became of them (reference/hpa.md 1.5)."""

    ready: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class MetricEvaluation(msgspec.Struct, frozen=True):
    """How one metric led to its proposal.

    ``usage`` is what the status shows (milli-units), ``ratio`` the first ratio, ``adjusted_ratio`` the one
    after missing and unready pods were filled in; neither is set when not finite. ``multiplier`` is the pod
    count that the ratio was multiplied with. ``rule`` says in words which branch was taken.
    """

    type: str
    metric: str
    name: str = ""
    target: Target = Target()
    values: dict[str, int] = {}
    sample_ms: int | None = None
    usage: int | None = None
    utilization: int | None = None
    ratio: float | None = None
    adjusted_ratio: float | None = None
    tolerance_low: float | None = None
    tolerance_high: float | None = None
    within_tolerance: bool = False
    pods: PodGroups = PodGroups()
    filled: dict[str, int] = {}
    multiplier: int | None = None
    proposal: int | None = None
    rule: str = ""
    error: str = ""


class Clamp(msgspec.Struct, frozen=True):
    """One rule that changed the number."""

    rule: str
    before: int
    after: int
    reason: str
    message: str


class Condition(msgspec.Struct, frozen=True):
    """A condition to set; ``status`` "" removes it."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class Event(msgspec.Struct, frozen=True):
    """An event to emit on the HPA."""

    type: str
    reason: str
    message: str


LINEAR, HOLT_WINTERS = "linear", "holt-winters"  # models of a forecast


class Forecast(msgspec.Struct, frozen=True):
    """Demand in replicas expected at ``for_ms``, made at ``at_ms``; ``spread`` is the typical relative error.

    ``by_model`` is False when "as now" had the smaller error of late. ``model``: which one made it; ``trouble``: why
    that is not the one that the Governor asks for.
    """

    at_ms: int
    for_ms: int
    expected: float
    spread: float
    by_model: bool = True
    model: str = ""
    trouble: str = ""


class Governed(msgspec.Struct, frozen=True):
    """What a Governor adds to a decision: ``demand`` in fractional replicas, schedule ``rules`` in force."""

    profile: str
    rules: tuple[str, ...] = ()
    demand: float | None = None
    forecast: Forecast | None = None
    override: str = ""
    fallback: bool = False
    shadow: bool = False


class Decision(msgspec.Struct, frozen=True):
    """What was decided and why.

    ``desired`` equals ``current`` when nothing is to be written. ``status_desired`` None leaves the status'
    desiredReplicas as it is; ``status_current`` None leaves the replica figures and metrics alone altogether.
    ``error`` is what the reconcile ends with (a metric may fail while the others still scale). ``target`` is
    ``Kind/namespace/name`` of what is scaled.
    """

    namespace: str
    name: str
    at_ms: int
    current: int
    desired: int
    min_replicas: int
    max_replicas: int
    rescale: bool = False
    failed: bool = False
    reason: str = ""
    error: str = ""
    winner: str = ""
    recommended: int | None = None
    metrics_skipped: str = ""
    metrics: tuple[MetricEvaluation, ...] = ()
    clamps: tuple[Clamp, ...] = ()
    conditions: tuple[Condition, ...] = ()
    events: tuple[Event, ...] = ()
    status_current: int | None = None
    status_desired: int | None = None
    status_metrics: tuple[dict[str, Any], ...] = ()
    to_zero: bool = False
    event_periods_s: tuple[int, int] | None = None
    profile: str = DEFAULT_PROFILE
    target: str = ""
    governed: Governed | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of the scale write: ``error`` "" when it was accepted."""

    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error
