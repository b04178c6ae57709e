"""What replicas say to each other, over HTTP."""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flyball.alerting.cluster import Cluster
from flyball.errors import FlyballError, UpstreamError
from flyball.http.client import new_session, read_capped

log = logging.getLogger(__name__)

PATH = "/gossip"
_BODY_MAX = 64 << 20


class Gossip:
    """The client's side: ``exchange`` for a cluster."""

    def __init__(self, timeout_s: float = 10.0) -> None:
        self._session = new_session(timeout_s=timeout_s)

    async def exchange(self, address: str, message: Mapping[str, Any]) -> Any:
        """
        Raises:
            UpstreamError: no answer, or one that is not JSON.
        """
        url = f"http://{address}{PATH}"
        try:
            async with self._session.post(url, data=msgspec.json.encode(message)) as answer:
                body = await read_capped(answer, _BODY_MAX, url)
                if answer.status != 200:
                    raise UpstreamError(f"{url} answered {answer.status}: {body[:200].decode(errors='replace')}")
                return msgspec.json.decode(body)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as exc:
            raise UpstreamError(f"{url}: {exc or type(exc).__name__}") from exc

    async def close(self) -> None:
        await self._session.close()


async def resolve(peer: str) -> Sequence[str]:
    """All addresses of ``name:port``: a headless Service has one for each replica.

    Raises:
        OSError: the name is not known.
    """
    host, _, port = peer.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in found]
    return list(dict.fromkeys(f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in addresses))


def create_app(cluster: Cluster) -> Any:
    """The server's side, on the cluster's own address."""

    async def gossip(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _BODY_MAX:
                return Response("the body is too large", 413)
        try:
            answer = cluster.answer(msgspec.json.decode(bytes(body)))
        except (FlyballError, LookupError, TypeError, ValueError, AttributeError) as exc:
            return Response(f"not a message of a replica: {exc}", 400)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    return Starlette(routes=[Route(PATH, gossip, methods=["POST"])])
