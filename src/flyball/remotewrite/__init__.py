"""Remote write out: what is logged here is sent to other servers, in order, through outages and restarts."""

from flyball.remotewrite.queue import Kept, RemoteWrite

__all__ = ["Kept", "RemoteWrite"]
