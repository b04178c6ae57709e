"""Huge bodies: a gigabyte, compression bombs, endless headers: cut at the limit, for next to nothing.

Each target answers well at first, then hostile. It must be down, its series must have ended, the server may grow by
64 MiB and spend one CPU-second a hostile answer.
"""

import asyncio
import gzip
import io
import tempfile
import time
import zlib
from pathlib import Path

import zstandard

from gate.report import demand
from gate.serving import MIB, Server, Targets, page, serving, until

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
_LINE = b'm{i="1234567"} 12345678\n'


def _gzip_bomb(size: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        chunk = bytes(16 * MIB)
        for _ in range(size // len(chunk)):
            file.write(chunk)
    return packed.getvalue()


def _zstd_bomb(size: int) -> bytes:
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    chunk = bytes(16 * MIB)
    return b"".join(compressor.compress(chunk) for _ in range(size // len(chunk))) + compressor.flush()


class _Hostile:
    """Answers well until ``armed``."""

    def __init__(self, bomb_bytes: int) -> None:
        self.armed = False
        self.sent: dict[str, int] = {}
        bomb = _gzip_bomb(bomb_bytes)
        self.pages = {
            "gzip": page(bomb, "Content-Encoding: gzip"),
            "zstd": page(_zstd_bomb(bomb_bytes), "Content-Encoding: zstd"),
            "deflate": page(zlib.compress(bytes(16 * MIB)), "Content-Encoding: deflate"),
            "nested": page(gzip.compress(bomb), "Content-Encoding: gzip, gzip"),
            "nested-unsaid": page(gzip.compress(bomb), "Content-Encoding: gzip"),
            "headers": _HEAD + b"X-A: " + b"a" * MIB,
            "redirect": b"HTTP/1.1 302 Found\r\nLocation: /gzip\r\nContent-Length: 0\r\n\r\n",
        }

    def names(self) -> list[str]:
        return [*self.pages, "plain", "claimed", "chunks", "chunk-headers", "lines", "one-line", "labels"]

    async def answer(self, name: str, writer: asyncio.StreamWriter) -> None:
        if not self.armed or name == "neighbour":
            writer.write(page(b"m 1\n"))
        elif name in self.pages:
            writer.write(self.pages[name])
        elif name == "claimed":
            writer.write(_HEAD + b"Content-Length: %d\r\n\r\n" % (1 << 30) + _LINE)
        elif name in ("plain", "lines", "one-line", "labels"):
            writer.write(_HEAD + b"\r\n")  # no length: until the end of the connection
            chunk = {"lines": b"\n", "one-line": b"a", "labels": b'm{a="'}.get(name, _LINE)
            await self._flood(name, writer, chunk * (MIB // len(chunk)), 1 << 30)
        else:
            writer.write(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            one = b"1;" + b"x" * 4000 + b"\r\na\r\n" if name == "chunk-headers" else b"%x\r\n%s\r\n" % (MIB, bytes(MIB))
            await self._flood(name, writer, one, 1 << 30)

    async def _flood(self, name: str, writer: asyncio.StreamWriter, chunk: bytes, size: int) -> None:
        self.sent[name] = 0
        while self.sent[name] < size and not writer.is_closing():
            writer.write(chunk)
            await writer.drain()
            self.sent[name] += len(chunk)
        writer.close()


def run(quick: bool = False) -> list[str]:
    hostile = _Hostile((1 if quick else 10) << 30)
    config = (
        "global: {scrape_interval: 2s, scrape_timeout: 2s}\n"
        "scrape_configs: [{job_name: j, file_sd_configs: [{files: [t.json]}]}]\n"
    )
    names = hostile.names()
    with tempfile.TemporaryDirectory() as directory, Targets(hostile.answer) as played:
        Path(directory, "t.json").write_text(played.groups([*names, "neighbour"]))
        with serving(Path(directory), config) as server:
            until(lambda: sum(server.values("up").values()) == len(names) + 1, 30, "not all targets came up")
            before, most = server.rss(), 0
            idle_s = _idle_cpu_s(server)
            cpu_s = server.cpu_s()
            rounds_before = {name: len(asked) for name, asked in played.asked.items()}
            hostile.armed = True
            watched_s = 8 if quick else 30
            end_s = time.monotonic() + watched_s
            while time.monotonic() < end_s:
                most = max(most, server.rss())
                time.sleep(0.02)
            up = server.values("up")
            left = server.values("m")
            answers = sum(len(asked) - rounds_before[name] for name, asked in played.asked.items() if name in names)
            each_s = (server.cpu_s() - cpu_s - idle_s * watched_s) / max(1, answers)
            reasons = {
                item["labels"]["instance"]: item["lastError"]
                for item in server.ask("/api/v1/targets")[1]["data"]["activeTargets"]
            }
            seen = server.ask("/api/v1/query", query='count_over_time(m{instance="neighbour"}[8s])')[1]
    still = [name for name in names if up.get(name) != 0]
    demand(not still, f"still up: {', '.join(still)}")
    demand(set(left) == {"neighbour"}, f"series that have not ended: {sorted(set(left) - {'neighbour'})}")
    demand(up["neighbour"] == 1 and float(seen["data"]["result"][0]["value"][1]) >= 3, "the neighbour was disturbed")
    demand(most - before <= 64 * MIB, f"the server grew by {(most - before) / MIB:.0f} MiB")
    demand(each_s <= 1, f"a hostile answer costs {each_s:.2f} CPU-seconds")
    silent = [name for name in names if not reasons.get(name)]
    demand(not silent, f"not explained: {silent}")
    flooded = max(hostile.sent.values(), default=0)
    return [
        f"{len(names)} kinds of hostile targets, {answers} answers: all down, explained, their series ended",
        f"grown by {(most - before) / MIB:.0f} MiB at most, {each_s * 1000:.0f} ms CPU an answer, "
        f"at most {flooded / MIB:.0f} MiB of a gigabyte read",
    ]


def _idle_cpu_s(server: Server) -> float:
    """CPU-seconds a second of well-behaved scraping."""
    cpu_s = server.cpu_s()
    time.sleep(2)
    return (server.cpu_s() - cpu_s) / 2
