"""monitoring.coreos.com objects into the configuration of Prometheus, and their looks in the embedded cluster."""

from flyball.operator.controller import Operator
from flyball.operator.engines import Engine
from flyball.operator.generation import Generated, generate

__all__ = ["Engine", "Generated", "Operator", "generate"]
