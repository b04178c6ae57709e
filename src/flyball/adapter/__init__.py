"""The Kubernetes metrics APIs (custom, external, resource) over any PromQL source, by prometheus-adapter's rules.

Facts: reference/adapter.md.
"""

from flyball.adapter.api import serve
from flyball.adapter.defaults import DEFAULT_CONFIG
from flyball.adapter.service import Adapter

__all__ = ["DEFAULT_CONFIG", "Adapter", "serve"]
