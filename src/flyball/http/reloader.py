"""Files that change: calls somebody, or tells a program beside it over HTTP, as configmap-reload does."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
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


def fingerprint(directories: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of the files; equal when nothing has changed. What cannot be read is not there."""
    found = []
    for directory in directories:
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            try:
                about = entry.stat()  # of what a link leads to: ConfigMap volumes are links
            except OSError:
                continue
            found.append((entry.path, about.st_mtime_ns, about.st_size))
    return tuple(found)


async def on_change(
    directories: Callable[[], Sequence[Path]], changed: Callable[[], Awaitable[object]], every_s: float
) -> None:
    """Calls ``changed`` after each change in the directories, and never ends."""
    before = fingerprint(directories())
    while True:
        await asyncio.sleep(every_s)
        now = fingerprint(directories())
        if now != before:
            before = now
            await changed()


async def keep_told(directories: Sequence[Path], webhook: Webhook, session: aiohttp.ClientSession) -> None:
    """Calls the webhook after each change, until it was heard, and never ends."""
    told = fingerprint(directories)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = fingerprint(directories)
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
