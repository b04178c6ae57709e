"""Tells the autoscaler that something landed: names, never a value."""

import asyncio
import logging
from collections.abc import Callable

import aiohttp
import msgspec

from flyball.http.client import read_capped

log = logging.getLogger(__name__)

_MOST = 10_000  # names that wait; an evaluation that is not brought forward comes at its own beat
_RETRY_S = 0.5


class Waker:
    """Posts the names that were noted since the last post; one request is under way at a time.

    ``token()`` is asked for at each request. Names that cannot be told are dropped.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, token: Callable[[], str]) -> None:
        self._session, self._url, self._token = session, url, token
        self._names: dict[str, set[tuple[str, str]]] = {"governors": set(), "series": set()}
        self._noted = asyncio.Event()
        self._told = self._failed = self._dropped = 0

    def governor(self, namespace: str, name: str) -> None:
        """A sample of this Governor's target landed."""
        self._note("governors", namespace, name)

    def series(self, namespace: str, name: str) -> None:
        """A sample of a metric of this name and ``namespace`` label was pushed."""
        self._note("series", namespace, name)

    def _note(self, kind: str, namespace: str, name: str) -> None:
        names = self._names[kind]
        if len(names) >= _MOST:
            self._dropped += 1
            return
        names.add((namespace, name))
        self._noted.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            body = msgspec.json.encode({kind: sorted(names) for kind, names in self._names.items()})
            for names in self._names.values():
                names.clear()
            try:
                headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
                async with self._session.post(self._url, data=body, headers=headers) as answer:
                    await read_capped(answer, 1 << 16, self._url)
                    answer.raise_for_status()
                self._told += 1
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                if not self._failed:
                    log.warning("autoscaler_not_woken url=%s error=%s", self._url, exc)
                self._failed += 1
                await asyncio.sleep(_RETRY_S)
            else:
                self._failed = 0

    def statistics(self) -> dict[str, int]:
        """Posts that were taken, posts in a row that were not, names dropped."""
        return {"told": self._told, "failed": self._failed, "dropped": self._dropped}
