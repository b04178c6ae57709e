"""The functions and aggregators of Prometheus 3.14: argument and result types, and which are experimental."""

from dataclasses import dataclass

from flyball.promql.syntax import ValueType

_S, _V, _M, _T = ValueType.SCALAR, ValueType.VECTOR, ValueType.MATRIX, ValueType.STRING


@dataclass(frozen=True, slots=True)
class Signature:
    """``variadic``: 0 exactly ``args``; n > 0 the last argument up to n times or absent; -1 any number of it."""

    args: tuple[ValueType, ...]
    returns: ValueType
    variadic: int = 0


def words(text: str) -> list[str]:
    return text.split()


#: Window functions: one range vector in, one instant vector out.
WINDOWS = words(
    "avg_over_time changes count_over_time delta deriv idelta increase irate last_over_time max_over_time "
    "min_over_time present_over_time rate resets stddev_over_time stdvar_over_time sum_over_time absent_over_time "
    "first_over_time mad_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time"
)
#: Element by element on floats.
MATH = words(
    "abs acos acosh asin asinh atan atanh ceil cos cosh deg exp floor ln log10 log2 rad sgn sin sinh sqrt tan tanh"
)
DATES = words("day_of_month day_of_week day_of_year days_in_month hour minute month year")
#: Of native histograms; floats give nothing.
HISTOGRAMS = words("histogram_avg histogram_count histogram_sum histogram_stddev histogram_stdvar")

#: Of the query itself, known before it is evaluated.
QUERY_CONTEXT = words("start end range step")

FUNCTIONS: dict[str, Signature] = {
    **{name: Signature((_M,), _V) for name in WINDOWS},
    **{name: Signature((_V,), _V) for name in MATH},
    **{name: Signature((_V,), _V, 1) for name in DATES},
    **{name: Signature((_V,), _V) for name in HISTOGRAMS},
    **{name: Signature((), _S) for name in QUERY_CONTEXT},
    "absent": Signature((_V,), _V),
    "clamp": Signature((_V, _S, _S), _V),
    "clamp_max": Signature((_V, _S), _V),
    "clamp_min": Signature((_V, _S), _V),
    "histogram_fraction": Signature((_S, _S, _V), _V),
    "histogram_quantile": Signature((_S, _V), _V),
    "histogram_quantiles": Signature((_V, _T, _S, _S), _V, 9),
    "info": Signature((_V, _V), _V, 1),
    "double_exponential_smoothing": Signature((_M, _S, _S), _V),
    "label_join": Signature((_V, _T, _T, _T), _V, -1),
    "label_replace": Signature((_V, _T, _T, _T, _T), _V),
    "max_of": Signature((_S, _S), _S),
    "min_of": Signature((_S, _S), _S),
    "pi": Signature((), _S),
    "predict_linear": Signature((_M, _S), _V),
    "quantile_over_time": Signature((_S, _M), _V),
    "round": Signature((_V, _S), _V, 1),
    "scalar": Signature((_V,), _S),
    "sort": Signature((_V,), _V),
    "sort_desc": Signature((_V,), _V),
    "sort_by_label": Signature((_V, _T), _V, -1),
    "sort_by_label_desc": Signature((_V, _T), _V, -1),
    "start_timestamp": Signature((_V,), _V),
    "time": Signature((), _S),
    "timestamp": Signature((_V,), _V),
    "vector": Signature((_S,), _V),
}

#: Aggregators, and the type of their parameter.
AGGREGATORS: dict[str, ValueType | None] = {
    **dict.fromkeys(words("sum avg min max count group stddev stdvar"), None),
    **dict.fromkeys(words("topk bottomk quantile limitk limit_ratio"), _S),
    "count_values": _T,
}

#: Only with the switch ``promql-experimental-functions``.
EXPERIMENTAL = frozenset(
    words(
        "double_exponential_smoothing end histogram_quantiles info mad_over_time max_of min_of range sort_by_label "
        "sort_by_label_desc start start_timestamp step ts_of_first_over_time ts_of_last_over_time "
        "ts_of_max_over_time ts_of_min_over_time limitk limit_ratio"
    )
)
#: Those whose value depends on the time of evaluation, though their arguments may not.
TIME_DEPENDENT = frozenset(words("predict_linear time timestamp") + DATES + QUERY_CONTEXT)
