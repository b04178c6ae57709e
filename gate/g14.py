"""Cardinality bomb: one target brings a million new series; nobody else loses a sample.

The offender's own well-known series go on too, the server keeps to its memory, and says what happens.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from gate.report import demand
from gate.serving import MIB, Server, Targets, page, serving, until

NEIGHBOURS, SERIES, EACH, ROUNDS = 50, 200, 5_000, 200
LIMIT_MIB = 256


def run(quick: bool = False) -> list[str]:
    rounds = 40 if quick else ROUNDS
    limit_mib = 64 if quick else LIMIT_MIB
    armed = False
    sent = 0

    async def answer(name: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        lines = [b'm{i="%d"} %d\n' % (i, sent) for i in range(SERIES)]
        if name == "bomb" and armed:
            sent += 1
            lines += [b'bomb{id="%d-%d",padding="0123456789"} 1\n' % (sent, i) for i in range(EACH)]
        writer.write(page(b"".join(lines)))

    config = "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: j, file_sd_configs: [{files: [t.json]}]}]\n"
    names = [f"t{i}" for i in range(NEIGHBOURS)]
    with tempfile.TemporaryDirectory() as directory, Targets(answer) as played:
        Path(directory, "t.json").write_text(played.groups([*names, "bomb"]))
        with serving(Path(directory), config, f"--storage.memory-limit={limit_mib}MB") as server:
            until(lambda: server.values("count(m)").get("") == (NEIGHBOURS + 1) * SERIES, 60, "targets are not scraped")
            time.sleep(5)
            base = most = server.rss()
            armed = True
            begun_s, told_s = time.monotonic(), None
            while sent < rounds:
                demand(time.monotonic() - begun_s < 4 * rounds + 60, "the bomb is no longer scraped")
                most = max(most, server.rss())
                if told_s is None and _error(server):
                    told_s = time.monotonic() - begun_s
                time.sleep(0.2)
            lost = {name: len(played.asked[name]) for name in names}
            seen = server.values("count_over_time(up[30s])")
            known = server.values('count(m{instance="bomb"})', label="none").get("")
            up = server.values("up")
            stored = server.values("count(present_over_time(bomb[1h]))", label="none").get("", 0)
    late = [name for name in names if seen.get(name, 0) < 29]
    demand(not late, f"{len(late)} neighbours have gaps")
    demand(all(up[name] == 1 for name in names), "a neighbour is down")
    demand(known == SERIES, f"{known} of {SERIES} known series of the offender are taken")
    demand(told_s is not None or stored >= rounds * EACH * 0.9, "what happens is not said")
    budget = base + limit_mib * MIB * 1.1
    demand(most <= budget, f"{most / MIB:.0f} MiB resident, more than the budget of {budget / MIB:.0f}")
    said = f"said after {told_s:.0f} s" if told_s is not None else "the limit was not reached"
    return [
        f"{rounds * EACH:,} new series in {rounds} scrapes, {stored:,.0f} taken; {said}",
        f"{NEIGHBOURS} neighbours without a gap ({min(lost.values())} scrapes each at least), "
        f"{most / MIB:.0f} MiB resident of {budget / MIB:.0f}",
    ]


def _error(server: Server) -> str:
    found = server.ask("/api/v1/targets?state=active")[1]["data"]["activeTargets"]
    return next((item["lastError"] for item in found if item["labels"]["instance"] == "bomb"), "")
