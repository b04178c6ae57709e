"""Relabelling: Prometheus' eleven actions on a label set. Pure."""

from flyball.relabel.rules import relabel

__all__ = ["relabel"]
