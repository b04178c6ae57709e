"""PromQL: parse text to a tree, evaluate the tree over frames. Pure: time and samples are arguments."""

from flyball.promql.engine import evaluate
from flyball.promql.evaluator import Options, Storage
from flyball.promql.features import Features, features_of
from flyball.promql.parser import parse, parse_selector
from flyball.promql.rendering import data_json
from flyball.promql.syntax import Expr
from flyball.promql.values import EvaluationError, Matrix, Scalar, String, Value, Vector

__all__ = [
    "EvaluationError",
    "Expr",
    "Features",
    "Matrix",
    "Options",
    "Scalar",
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
