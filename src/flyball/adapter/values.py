"""What the metrics APIs answer with, before it is JSON."""

from dataclasses import dataclass

from flyball.model.labels import Labels


@dataclass(frozen=True, slots=True)
class MetricValue:
    """The value of a metric for an object, or of an external series.

    Attributes:
        milli: in thousandths.
        t_ms: the newest sample's own time.
        window_ms: the range the value is a rate over, or None.
    """

    milli: int
    t_ms: int
    window_ms: int | None
    namespace: str = ""
    name: str = ""
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """cpu (milli-cores, rounded up from nothing) and memory (bytes) of a node, a pod or a container."""

    cpu_nano: int
    memory_milli: int


@dataclass(frozen=True, slots=True)
class ObjectUsage:
    """One PodMetrics or NodeMetrics. Containers is empty for a node."""

    namespace: str
    name: str
    labels: dict[str, str]
    t_ms: int
    total: Usage
    containers: tuple[tuple[str, Usage], ...] = ()
