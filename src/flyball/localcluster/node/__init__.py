"""The node of the embedded cluster: pods as plain processes, cpu limits, logs, figures, Services.

It never imports numpy, and promises that a pod outlives it: a killed node finds its pods again, same pid, same address.
"""

from flyball.localcluster.node.node import Node

__all__ = ["Node"]
