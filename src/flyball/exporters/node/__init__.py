"""The machine's metrics, under the names of node_exporter."""

from flyball.exporters.node.collectors import Paths
from flyball.exporters.node.exporter import NodeExporter

__all__ = ["NodeExporter", "Paths"]
