"""Files that change: calls somebody, or tells a program beside it over HTTP, as configmap-reload does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to tell, and which answer means that it was heard."""

    url: str
    method: str = "POST"
    status: int = 200


def fingerprint(files: Iterable[Path]) -> tuple[tuple[Path, int, int], ...]:
    """Names, times and sizes; equal when nothing has changed. What cannot be read is not there."""
    found = []
    for path in files:
        try:
            about = path.stat()  # of what a link leads to: ConfigMap volumes are links
        except OSError:
            continue
        found.append((path, about.st_mtime_ns, about.st_size))
    return tuple(found)


def files_of(directories: Sequence[Path]) -> list[Path]:
    """What is in the directories."""
    found: list[Path] = []
    for directory in directories:
        try:
            found += sorted(directory.iterdir())
        except OSError:
            continue
    return found


async def on_change(
    files: Callable[[], Iterable[Path]], changed: Callable[[], Awaitable[object]], every_s: float
) -> None:
    """Calls ``changed`` after each change in the files, and never ends."""
    before = fingerprint(files())
    while True:
        await asyncio.sleep(every_s)
        now = fingerprint(files())
        if now != before:
            before = now
            await changed()


async def keep_told(directories: Sequence[Path], webhook: Webhook, session: aiohttp.ClientSession) -> None:
    """Calls the webhook after each change, until it was heard, and never ends."""
    told = fingerprint(files_of(directories))
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = fingerprint(files_of(directories))
        if now == told:
            continue
        if await _tell(webhook, session):
            told = now
        else:
            await asyncio.sleep(RETRY_S)


async def _tell(webhook: Webhook, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.request(webhook.method, webhook.url) as response:
            if response.status == webhook.status:
                log.info("told %s of a change", webhook.url)
                return True
            text = (await response.content.read(200)).decode(errors="replace")
            log.error("%s answered %d, not %d: %s", webhook.url, response.status, webhook.status, text)
    except (aiohttp.ClientError, TimeoutError) as exc:
        log.error("cannot tell %s of a change: %s", webhook.url, exc or type(exc).__name__)
    return False
