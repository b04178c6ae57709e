"""Native histograms, Prometheus' words: the value of one sample. Arithmetic on them is PromQL's affair."""

from dataclasses import dataclass, field
from enum import IntEnum

CUSTOM_BUCKETS = -53
"""The schema whose bucket bounds are listed in ``custom_values`` ("native histogram with custom buckets")."""

SCHEMA_MIN, SCHEMA_MAX = -4, 8


class ResetHint(IntEnum):
    """What the sample says about a counter reset before it."""

    UNKNOWN = 0
    RESET = 1
    NOT_RESET = 2
    GAUGE = 3


@dataclass(frozen=True, slots=True)
class Histogram:
    """One native histogram; never changed once made.

    Attributes:
        schema: SCHEMA_MIN to SCHEMA_MAX: bucket i is (b**(i-1), b**i] with b = 2**2**-schema, and on the negative
            side [-b**i, -b**(i-1)); or CUSTOM_BUCKETS: bucket i is (custom_values[i-1], custom_values[i]], the last
            one reaching to +Inf.
        zero_threshold: values of at most this size are counted in ``zero_count``.
        positive, negative: bucket index to count (not cumulative); an index that is missing counts 0.
    """

    schema: int = 0
    count: float = 0.0
    sum: float = 0.0
    zero_threshold: float = 0.0
    zero_count: float = 0.0
    positive: dict[int, float] = field(default_factory=dict)
    negative: dict[int, float] = field(default_factory=dict)
    custom_values: tuple[float, ...] = ()
    hint: ResetHint = ResetHint.UNKNOWN

    @property
    def is_custom(self) -> bool:
        """Whether the buckets have listed bounds."""
        return self.schema == CUSTOM_BUCKETS
