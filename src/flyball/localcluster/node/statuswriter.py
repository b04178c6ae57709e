"""A pod's status as the API has it, written anew when it changes."""

from typing import Any

from flyball import clock
from flyball.errors import FlyballError, KubeApiError
from flyball.kube import KubeClient
from flyball.kube.kinds import PODS
from flyball.localcluster.node.status import PodState, build

Object = dict[str, Any]


class StatusWriter:
    """Of one pod."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._written: Object | None = None

    async def write(self, pod: Object, state: PodState, gone: bool) -> bool:
        """Whether the API has the newest status; nothing is left to write when the object is ``gone``."""
        status = build(pod, state, clock.now_ms())
        if gone or status == self._written:
            return True
        metadata = pod["metadata"]
        try:
            written = await self._client.patch(
                PODS,
                metadata["name"],
                {"metadata": {"uid": metadata["uid"]}, "status": status},
                metadata.get("namespace") or "default",
                "status",
            )
        except KubeApiError as exc:
            if exc.code not in (404, 409, 422):
                return False
            self._written = status  # the object is gone or another one; its watch event will say so
            return True
        except FlyballError:
            return False
        self._written = status
        conditions = (written.get("status") or {}).get("conditions")
        if conditions:
            # Transition times carry on from what was written, also before the watch brings it back.
            pod.setdefault("status", {})["conditions"] = conditions
        return True
