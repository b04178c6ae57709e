"""What a metrics source is."""

from typing import NamedTuple, Protocol

from flyball.model.labels import Labels


class Sample(NamedTuple):  # made by the thousand: a tuple takes a third of a frozen dataclass' time
    """One element of an instant vector. ``t_ms`` is the time of evaluation, not of the scrape; value may be NaN."""

    labels: Labels
    t_ms: int
    value: float


class MetricsSource(Protocol):
    """A place that evaluates PromQL.

    Both methods raise QueryError when the expression is refused, and UpstreamError when there is no answer.
    """

    async def query(self, expr: str, at_ms: int) -> list[Sample]:
        """The instant vector at a time; a scalar is one sample without labels."""
        ...

    async def series(self, match: str, start_ms: int, end_ms: int) -> list[Labels]:
        """The series that a selector matched at some time in the range."""
        ...
