"""The embedded cluster: a Kubernetes-compatible API server, its workloads and its node."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyball.localcluster.server import ApiServer

__all__ = ["ApiServer"]


def __getattr__(name: str) -> Any:
    # Late, so that the node and the commands that only need certificates do not load the whole server.
    if name == "ApiServer":
        from flyball.localcluster.server import ApiServer

        return ApiServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
