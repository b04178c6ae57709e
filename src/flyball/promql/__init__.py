"""PromQL: parse text to a tree, evaluate the tree over frames. Pure: time and samples are arguments.

The evaluator is loaded when it is first named: whoever only reads queries (the adapter) does without numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from flyball.promql.features import Features, features_of
from flyball.promql.parser import parse, parse_selector
from flyball.promql.syntax import Expr

if TYPE_CHECKING:
    from flyball.promql.engine import evaluate
    from flyball.promql.evaluator import Options, Storage
    from flyball.promql.rendering import data_json
    from flyball.promql.stopping import Stop
    from flyball.promql.values import EvaluationError, Matrix, Scalar, String, Value, Vector

__all__ = [
    "EvaluationError",
    "Expr",
    "Features",
    "Matrix",
    "Options",
    "Scalar",
    "Stop",
    "Storage",
    "String",
    "Value",
    "Vector",
    "data_json",
    "evaluate",
    "features_of",
    "parse",
    "parse_selector",
]

_EVALUATOR = {
    "evaluate": "engine",
    "data_json": "rendering",
    "Stop": "stopping",
    **dict.fromkeys(("Options", "Storage"), "evaluator"),
    **dict.fromkeys(("EvaluationError", "Matrix", "Scalar", "String", "Value", "Vector"), "values"),
}


def __getattr__(name: str) -> Any:
    module = _EVALUATOR.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"flyball.promql.{module}"), name)
