"""The node of the embedded cluster: pods as processes, their limits, logs and figures, Services, Ingresses.

It never imports numpy, and promises that a pod outlives it: a killed node finds its pods again, same pid, same address.
"""

from flyball.localcluster.node.node import Node

__all__ = ["Node"]
