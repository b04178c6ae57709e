"""The functions of PromQL, one file a family. Each takes the evaluator and its call and gives a vector or scalar."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flyball.promql.functions import elementwise, histogram, info, labelling, over_ranges, scalars
from flyball.promql.syntax import Call

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

FUNCTIONS: "dict[str, Callable[[Evaluator, Call], Any]]" = {
    **elementwise.FUNCTIONS,
    **histogram.FUNCTIONS,
    **info.FUNCTIONS,
    **labelling.FUNCTIONS,
    **over_ranges.FUNCTIONS,
    **scalars.FUNCTIONS,
}
