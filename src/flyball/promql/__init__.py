"""PromQL: parse text to a tree, evaluate the tree over frames. Pure: time and samples are arguments.

The evaluator is loaded when it is first named: whoever only reads queries (the adapter) does without numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from flyball.promql.parser import parse, parse_selector
from flyball.promql.syntax import Expr

if TYPE_CHECKING:
    from flyball.promql.engine import Options, Storage, evaluate
    from flyball.promql.values import EvaluationError, Matrix, Scalar, String, Value, Vector, data_json

__all__ = [
    "EvaluationError",
    "Expr",
    "Matrix",
    "Options",
    "Scalar",
    "Storage",
    "String",
    "Value",
    "Vector",
    "data_json",
    "evaluate",
    "parse",
    "parse_selector",
]

_EVALUATOR = {
    **dict.fromkeys(("Options", "Storage", "evaluate"), "flyball.promql.engine"),
    **dict.fromkeys(
        ("EvaluationError", "Matrix", "Scalar", "String", "Value", "Vector", "data_json"), "flyball.promql.values"
    ),
}


def __getattr__(name: str) -> Any:
    module = _EVALUATOR.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)
