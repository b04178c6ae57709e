"""Reads a container's CRI log files: the last lines, since a time, following through rotation."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flyball import clock
from flyball.localcluster.node.podshim import LOG_FILES

CHUNK_BYTES = 64 << 10
FOLLOW_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Of ``kubectl logs``. ``since_ms`` is an instant; None means no bound."""

    follow: bool = False
    tail_lines: int | None = None
    timestamps: bool = False
    since_ms: int | None = None
    limit_bytes: int | None = None
    stream: str = ""  # "stdout" or "stderr" alone


def files(path: Path) -> list[Path]:
    """The log and its rotated predecessors that exist, oldest first."""
    every = [path.with_name(f"{path.name}.{number}") for number in range(LOG_FILES - 1, 0, -1)]
    return [one for one in (*every, path) if one.exists()]


def formatted(line: bytes, options: LogOptions) -> bytes:
    """One CRI line (without its end) as the reader wants it; ``b""`` when it is older than asked for."""
    stamp, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if options.stream and stream.decode() != options.stream:
        return b""
    if options.since_ms is not None:
        try:
            if clock.parse_rfc3339_ms(stamp[:23].decode() + "Z") < options.since_ms:
                return b""
        except ValueError:
            return b""
    if options.timestamps:
        text = stamp + b" " + text
    return text if tag == b"P" else text + b"\n"


def _tail_start(path: Path, lines: int) -> tuple[int, int]:
    """(offset of the first of the last ``lines`` full lines, how many lines lie behind it)."""
    size = path.stat().st_size
    found, position, carry = 0, size, b""
    with path.open("rb") as file:
        while position > 0:
            step = min(CHUNK_BYTES, position)
            position -= step
            file.seek(position)
            block = file.read(step) + carry
            end = len(block)
            cut = block.rfind(b"\n", 0, end - 1 if position + len(block) == size else end)
            while cut >= 0:
                line = block[cut + 1 : end]
                if line:
                    found += _is_full(line)
                    if found > lines:
                        return position + end, lines
                end = cut + 1
                cut = block.rfind(b"\n", 0, cut)
            carry = block[:end]
        if carry and _is_full(carry):
            found += 1
            if found > lines:
                return len(carry), lines
    return 0, found


def _is_full(line: bytes) -> bool:
    return line[36:45].find(b" P ") < 0


def ending(path: Path, lines: int, limit_bytes: int) -> str:
    """The last full lines of a log, no longer than the limit."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4 * limit_bytes))
        raw = file.read().split(b"\n")[-lines - 1 :]
    text = b"".join(formatted(line, LogOptions()) for line in raw if line.count(b" ") >= 3)
    return text[-limit_bytes:].decode(errors="replace")


async def read(path: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in chunks; with ``follow`` until the container has ended.

    Args:
        running: whether more may come.
    """
    left = options.limit_bytes
    todo = files(path)
    offset = 0
    if options.tail_lines is not None:
        wanted = options.tail_lines
        chosen: list[Path] = []
        for one in reversed(todo):
            offset, found = _tail_start(one, wanted) if wanted > 0 else (one.stat().st_size, 0)
            chosen.insert(0, one)
            wanted -= found
            if wanted <= 0:
                break
        todo = chosen
    handles: list[BinaryIO] = []
    for one in todo:
        try:
            handles.append(one.open("rb"))
        except OSError:
            continue  # rotated away meanwhile
    try:
        if handles:
            handles[0].seek(offset)
        rest = b""
        while True:
            while handles:
                file = handles[0]
                alive = running()
                block = file.read(CHUNK_BYTES)
                if block:
                    lines = (rest + block).split(b"\n")
                    rest = lines.pop()
                    out = b"".join(formatted(line, options) for line in lines if line)
                    if left is not None:
                        out = out[:left]
                        left -= len(out)
                    if out:
                        yield out
                    if left == 0:
                        return
                    await asyncio.sleep(0)
                    continue
                if len(handles) > 1:
                    handles.pop(0).close()
                    rest = b""
                    continue
                if not options.follow:
                    return
                fresh = _younger(path, os.fstat(file.fileno()).st_ino)
                if fresh:
                    handles += fresh
                    continue
                if not alive:
                    return
                await asyncio.sleep(FOLLOW_POLL_S)
            if not options.follow:
                return
            # Nothing was there yet.
            if path.exists():
                handles.append(path.open("rb"))
            elif not running():
                return
            else:
                await asyncio.sleep(FOLLOW_POLL_S)
    finally:
        for file in handles:
            file.close()


def _younger(path: Path, inode: int) -> list[BinaryIO]:
    out: list[BinaryIO] = []
    every = files(path)
    inodes = []
    for one in every:
        try:
            inodes.append(one.stat().st_ino)
        except OSError:
            inodes.append(-1)
    start = inodes.index(inode) + 1 if inode in inodes else 0
    for one in every[start:]:
        try:
            out.append(one.open("rb"))
        except OSError:
            continue
    return out
