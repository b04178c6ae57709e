"""Slow targets: of 1,000 a fifth hang or trickle; the others miss no scrape.

The scrape's start may wander by 250 ms at the 99th percentile, and the server may grow by 64 MiB.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from gate.report import demand
from gate.serving import MIB, Targets, page, serving

TARGETS, SLOW, INTERVAL_S, ROUNDS = 1000, 200, 10, 9


async def _answer(name: str, writer: asyncio.StreamWriter) -> None:
    if name.startswith("hang"):
        await asyncio.sleep(3600)
    if name.startswith("trickle"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(1)
    writer.write(page(b"".join(b'm{i="%d"} %d\n' % (i, i) for i in range(50))))


def run(quick: bool = False) -> list[str]:
    targets, slow = (200, 40) if quick else (TARGETS, SLOW)
    rounds = 3 if quick else ROUNDS
    half = slow // 2
    names = [f"hang{i}" for i in range(half)] + [f"trickle{i}" for i in range(half)]
    healthy = [f"well{i}" for i in range(targets - slow)]
    config = (
        f"global: {{scrape_interval: {INTERVAL_S}s, scrape_timeout: 5s}}\n"
        "scrape_configs: [{job_name: j, file_sd_configs: [{files: [t.json]}]}]\n"
    )
    with tempfile.TemporaryDirectory() as directory, Targets(_answer) as played:
        Path(directory, "t.json").write_text(played.groups(healthy))
        with serving(Path(directory), config) as server:
            time.sleep(2 * INTERVAL_S)  # what the healthy ones alone cost
            before = server.rss()
            Path(directory, "t.json").write_text(played.groups([*healthy, *names]))
            time.sleep(INTERVAL_S)
            begin_s = time.monotonic()
            time.sleep(rounds * INTERVAL_S)
            end_s = time.monotonic()
            grown = server.rss() - before
            up = server.values("up")
    wander: list[float] = []
    missed = 0
    for name in healthy:
        asked = np.array([at for at in played.asked[name] if begin_s <= at <= end_s])
        missed += max(0, rounds - len(asked))  # a round lies wholly inside the window
        phase = np.median((np.array(played.asked[name]) + INTERVAL_S / 2) % INTERVAL_S)
        wander.extend(np.abs((asked + INTERVAL_S / 2) % INTERVAL_S - phase))
    p99_s = float(np.percentile(np.minimum(wander, INTERVAL_S - np.array(wander)), 99))
    down = [name for name in healthy if up.get(name) != 1]
    demand(not down, f"{len(down)} healthy targets are not up")
    demand(all(up.get(name) == 0 for name in names), "a slow target is not down")
    demand(missed == 0, f"{missed} scrapes of healthy targets were missed")
    demand(p99_s <= 0.25, f"scrapes start up to {p99_s * 1000:.0f} ms from their time (99th percentile)")
    demand(grown <= 64 * MIB, f"the server grew by {grown / MIB:.0f} MiB")
    return [
        f"{targets} targets, {slow} of them slow, {rounds} rounds: 0 of {len(wander)} scrapes missed",
        f"start wanders by {p99_s * 1000:.0f} ms (99th percentile); grown by {grown / MIB:.0f} MiB",
    ]
