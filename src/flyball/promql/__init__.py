"""PromQL: parse text to a tree, evaluate the tree over frames. Pure: time and samples are arguments."""

from flyball.promql.engine import Options, Storage, evaluate
from flyball.promql.parser import parse, parse_selector
from flyball.promql.syntax import Expr
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
