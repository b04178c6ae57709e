"""One request to a receiver, until it is taken or refused for good."""

import asyncio
import email.utils
import logging

import aiohttp
import cramjam

from flyball import clock
from flyball.errors import FlyballError, UpstreamError
from flyball.http.calling import Caller
from flyball.http.client import read_capped
from flyball.model.prometheusconfig import RemoteWriteConfig

log = logging.getLogger(__name__)
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "User-Agent": "flyball",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_RETRY_AFTER_MAX_S = 600.0
#: An attempt is said in the log when it is this one in a row, and then ten times as rarely.
_SAID = (1, 10, 100, 1000, 10_000)


class Sender:
    """Posts WriteRequests to one receiver.

    Attributes:
        retries: requests that were sent again.
    """

    def __init__(self, session: aiohttp.ClientSession, config: RemoteWriteConfig, caller: Caller) -> None:
        self._session, self._config, self._caller = session, config, caller
        self.retries = 0

    async def send(self, body: bytes) -> str:
        """Returns when the receiver has taken it, with "", or has refused it for good, with what it said.

        Network errors, 5xx and (with ``retry_on_http_429``) 429 are tried again for as long as it takes.
        """
        queue = self._config.queue
        packed = bytes(cramjam.snappy.compress_raw(body))
        backoff_s = queue.min_backoff_ms / 1000
        attempt = 0
        while True:
            said, wait_s = await self._attempt(packed)
            if wait_s is None:
                return said
            attempt += 1
            self.retries += 1
            if attempt in _SAID:
                log.warning("remote write to %s: %s; trying again (attempt %d)", self._config.url, said, attempt)
            await asyncio.sleep(max(wait_s, backoff_s))
            backoff_s = min(2 * backoff_s, queue.max_backoff_ms / 1000)

    async def _attempt(self, packed: bytes) -> tuple[str, float | None]:
        """(what went wrong, seconds that the receiver asks to wait at least; None: do not try again)."""
        config = self._config
        try:
            timeout_s = config.remote_timeout_ms / 1000
            options = await self._caller.options(config.url, timeout_s)
            options["headers"] = {**_HEADERS, **config.headers, **options["headers"]}
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.post(config.url, data=packed, timeout=timeout, **options) as answer:
                said = (await read_capped(answer, 1 << 16, config.url)).decode(errors="replace").strip()
                if answer.status < 300:
                    return "", None
                message = f"HTTP status {answer.status}: {said[:500]}"
                if answer.status >= 500 or (answer.status == 429 and config.queue.retry_on_http_429):
                    return message, retry_after_s(answer.headers.get("Retry-After", ""), clock.now_ms())
                return message, None
        except (aiohttp.ClientError, TimeoutError, OSError, UpstreamError, FlyballError) as exc:
            return f"{type(exc).__name__}: {exc}", 0.0


def retry_after_s(header: str, now_ms: int) -> float:
    """Seconds or a date, as HTTP has them; 0 for anything else."""
    if header.strip().isdecimal():
        return min(float(header), _RETRY_AFTER_MAX_S)
    try:
        at = email.utils.parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return 0.0
    return min(max(0.0, at.timestamp() - now_ms / 1000), _RETRY_AFTER_MAX_S)
