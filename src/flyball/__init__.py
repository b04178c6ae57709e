"""Flyball: from an application's own metrics to its replica count."""

__version__ = "0.1.0"
