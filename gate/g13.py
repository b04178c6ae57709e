"""Malformed pages: the OpenMetrics suite and mutated pages as targets; no neighbour is disturbed.

Each of the 211 cases is a target of its own: 167 must be down, 44 up. Then random damage to real pages goes through
every parser of metrics, which may refuse it and nothing else.
"""

import asyncio
import json
import os
import random
import tempfile
import time
from pathlib import Path

from flyball.errors import FlyballError
from flyball.exposition import Format, parse, parse_series, parse_values
from gate.fuzzing import damaged, protobuf_seeds
from gate.report import demand
from gate.serving import Targets, page, serving, until

SHARED = Path(os.environ.get("FLYBALL_SHARED") or Path(__file__).parents[2] / "shared")
DAMAGED = 200_000
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def run(quick: bool = False) -> list[str]:
    return [*_suite(), *_damage(DAMAGED // 10 if quick else DAMAGED)]


def _suite() -> list[str]:
    cases = {path.name: path for path in sorted((SHARED / "openmetrics").iterdir())}
    wanted = {name: json.loads((path / "test.json").read_text())["shouldParse"] for name, path in cases.items()}
    pages = {name: page((path / "metrics").read_bytes(), content_type=_OPENMETRICS) for name, path in cases.items()}
    rounds = 0

    async def answer(name: str, writer: asyncio.StreamWriter) -> None:
        nonlocal rounds
        if name == "neighbour":
            rounds += 1
            writer.write(page(b"n %d\n" % rounds))
        else:
            writer.write(pages[name])

    config = (
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: j, honor_timestamps: false, file_sd_configs: [{files: [t.json]}]}]\n"
    )
    with tempfile.TemporaryDirectory() as directory, Targets(answer) as played:
        Path(directory, "t.json").write_text(played.groups([*cases, "neighbour"]))
        with serving(Path(directory), config) as server:
            until(lambda: len(server.values("up")) == len(cases) + 1, 30, "not all cases were scraped")
            time.sleep(3)
            up = server.values("up")
            samples = server.values('count_over_time(n{instance="neighbour"}[3s])')
            targets = server.ask("/api/v1/targets")[1]["data"]["activeTargets"]
    wrong = [name for name, good in wanted.items() if up[name] != good]
    demand(not wrong, f"{len(wanted) - len(wrong)} of {len(wanted)} as the standard says; wrong: {', '.join(wrong)}")
    silent = [t["labels"]["instance"] for t in targets if t["health"] == "down" and not t["lastError"]]
    demand(not silent, f"down without a reason: {', '.join(silent)}")
    demand(up["neighbour"] == 1 and samples["neighbour"] >= 2, "the neighbour was disturbed")
    refused = sum(not good for good in wanted.values())
    return [f"OpenMetrics suite as {len(wanted)} targets: {refused} refused, {len(wanted) - refused} accepted"]


def _damage(count: int) -> list[str]:
    rng = random.Random(13)
    seeds = [(Format.OPENMETRICS, path.read_bytes()) for path in (SHARED / "openmetrics").glob("*/metrics")]
    for path in (SHARED / "exposition").glob("*.txt"):
        seeds.append((Format.OPENMETRICS if ".om." in path.name else Format.TEXT, path.read_bytes()[:10_000]))
    seeds += [(Format.TEXT, body) for format_, body in seeds if format_ is Format.OPENMETRICS]
    seeds += [(Format.PROTOBUF, body) for body in protobuf_seeds()]
    refused = slowest_s = 0.0
    for _ in range(count):
        format_, seed = rng.choice(seeds)
        body = damaged(seed, rng)
        begun_s = time.monotonic()
        try:
            found = parse(body, format_)
            for text, type_ in zip(found.series, found.types, strict=True):
                parse_series(text, type_)
            if found.layout is not None:
                fast = parse_values(found.layout, body)
                demand(
                    fast is None or fast.values.tobytes() == found.values.tobytes(),
                    f"the fast path reads other values: {body!r}",
                )
        except FlyballError:
            refused += 1
        slowest_s = max(slowest_s, time.monotonic() - begun_s)
    demand(slowest_s <= 1, f"a page of 10 KB took {slowest_s:.1f} s")
    return [f"{count:,} damaged pages: {refused:,.0f} refused, 0 unhandled, the slowest took {slowest_s * 1000:.0f} ms"]
