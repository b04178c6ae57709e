"""The PromQL seam: everything that wants a number asks a metrics source for an expression at a time."""

from flyball.sources.base import MetricsSource, Sample
from flyball.sources.prometheus import HttpSource

__all__ = ["HttpSource", "MetricsSource", "Sample"]
