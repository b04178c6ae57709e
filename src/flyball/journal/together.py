"""Decisions of many evaluations that end at about the same time, in one commit."""

import asyncio

from flyball.errors import StoreError
from flyball.journal.journal import Entry, Journal


class Together:
    """Records for the coroutines of one event loop: those that ask in one turn of it share a commit.

    Nobody waits for anybody else's work, and who is answered has been committed: an intent that is recorded after
    that comes after its decision.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[tuple[Entry, asyncio.Future[int]]] = []

    async def append(self, entry: Entry) -> int:
        """As ``Journal.append_decision``."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._commit)
        answer: asyncio.Future[int] = loop.create_future()
        self._waiting.append((entry, answer))
        return await answer

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._record(waiting)

    def _record(self, waiting: "list[tuple[Entry, asyncio.Future[int]]]") -> None:
        try:
            records = self._journal.append_decisions([entry for entry, _ in waiting])
        except Exception as error:
            if len(waiting) > 1 and not isinstance(error, StoreError):  # one of them: the others have their commits
                for one in waiting:
                    self._record([one])
                return
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), record in zip(waiting, records, strict=True):
            if not answer.done():  # who was cancelled meanwhile asks no more
                answer.set_result(record)
