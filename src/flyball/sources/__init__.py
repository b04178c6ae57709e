"""The PromQL seam: everything that wants a number asks a metrics source for an expression at a time."""

from flyball.sources.base import MetricsSource, Sample
from flyball.sources.building import SourceSet, source_of
from flyball.sources.combined import FailoverSource, MergedSource
from flyball.sources.prometheus import HttpSource

__all__ = ["FailoverSource", "HttpSource", "MergedSource", "MetricsSource", "Sample", "SourceSet", "source_of"]
