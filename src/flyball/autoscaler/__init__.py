"""Controllers that act on HorizontalPodAutoscalers through the Kubernetes API."""

from flyball.autoscaler.api import create_app
from flyball.autoscaler.controller import Autoscaler

__all__ = ["Autoscaler", "create_app"]
