"""Queries of death: over forty, each ends within its time-out and a second, and readers beside them are answered.

The server may grow by 512 MiB; reads as an HPA makes them take at most 500 ms at the 99th percentile meanwhile.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gate.report import demand
from gate.serving import MIB, Server, Targets, page, serving, until

TARGETS, SERIES, TIMEOUT_S = 100, 100, 4
_READ = 'sum by (instance) (rate(m{instance="t7"}[10s]))'


async def _answer(_: str, writer: asyncio.StreamWriter) -> None:
    now = int(time.monotonic() * 10)
    writer.write(page(b"".join(b'm{a="%d",b="%d"} %d\n' % (i, i % 10, now + i) for i in range(SERIES))))


def queries() -> Iterator[tuple[str, dict[str, str]]]:
    """(path, form): storms of subqueries, all series over a year, joins that grow labels, depth, size, patterns."""
    now = time.time()
    year = {"start": f"{now - 365 * 86400:.0f}", "end": f"{now:.0f}", "step": "3000"}
    hour = {"start": f"{now - 3600:.0f}", "end": f"{now:.0f}", "step": "1"}
    everything = '{__name__=~".+"}'
    nested = "m"
    for _ in range(6):
        nested = f"max_over_time(({nested})[1h:1s])"
    instants = [
        nested,
        f"rate({everything}[1y])",
        f"{everything} * on() group_left() {everything}",
        f"quantile_over_time(0.5, {everything}[1y:1s])",
        "m * on(b) m",
        "m * ignoring(a) group_left() m",
        "(" * 100_000 + "m" + ")" * 100_000,
        "-" * 100_000 + "1",
        "+".join(["m"] * 20_000),
        "sum(" * 5_000 + "m" + ")" * 5_000,
        "m{" + ",".join(f'l{i}=~".*a.*"' for i in range(5_000)) + "}",
        'm{a=~"' + "a" * 1_000_000 + '"}',
        'm{a=~"(a+)+$"}',
        'm{a=~"((((((a*)*)*)*)*)*)*b"}',
        'm{a=~"' + "(" * 20_000 + ")" * 20_000 + '"}',
        'm{a=~"' + "|".join(str(i) for i in range(50_000)) + '"}',
        'm{a=~".{1000}{1000}"}',
        'label_replace(m, "x", "$1$1$1$1", "a", "(.*)")',
        'label_join(m, "x", "' + "," * 100_000 + '", "a", "b")',
        'count_values("x", ' + everything + ")",
        f"topk(1000000, {everything})",
        f"sort_desc({everything} or {everything})",
        f"predict_linear({everything}[1y:1s], 1e9)",
        "absent_over_time(m[100y:1s])",
        f"sum_over_time(({everything} > bool 0)[1w:1s])",
        "m[" + "9" * 400 + "d]",
        "m offset 99999999999y or vector(1)",
        "m @ 1e300",
        '"' + "x" * 900_000 + '"',
        "1" + "0" * 100_000,
        "a" * 500_000,
        "{" * 50_000,
    ]
    for text in instants:
        yield "/api/v1/query", {"query": text}
    for text in (everything, f"rate({everything}[5m])", nested, "m * on(b) group_left() m"):
        yield "/api/v1/query_range", {"query": text, **year}
        yield "/api/v1/query_range", {"query": text, **hour}
    for name in (
        "quantile_over_time(0.5, ",
        "mad_over_time(",
        "deriv(",
        "stddev_over_time(",
    ):  # within every limit but time
        yield "/api/v1/query_range", {"query": name + '(m{a="1"} @ end())[1h:1s])', **hour}


def run(quick: bool = False) -> list[str]:
    config = "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: j, file_sd_configs: [{files: [t.json]}]}]\n"
    stop, waits = threading.Event(), []
    longest_s, statuses = 0.0, {}
    with tempfile.TemporaryDirectory() as directory, Targets(_answer) as played:
        Path(directory, "t.json").write_text(played.groups([f"t{i}" for i in range(TARGETS)]))
        flags = (f"--query.timeout={TIMEOUT_S}s", "--query.max-samples=5000000", "--storage.memory-limit=512MB")
        with serving(Path(directory), config, *flags) as server:
            until(lambda: server.values("count(m)").get("") == TARGETS * SERIES, 60, "targets are not scraped")
            time.sleep(2 if quick else 20)
            for _ in range(20):
                server.values(_READ)
            kinds = list(queries())
            before = most = server.rss()
            reader = threading.Thread(target=_read, args=(server, stop, waits))
            reader.start()
            try:
                for path, form in kinds:
                    begun_s = time.monotonic()
                    status, _ = server.ask(path, timeout_s=TIMEOUT_S + 30, **form)
                    took_s = time.monotonic() - begun_s
                    demand(status != 500, f"{form['query'][:80]}: {server.log.read_text()[-1500:]}")
                    statuses[status] = statuses.get(status, 0) + 1
                    most = max(most, server.rss())
                    if took_s > longest_s:
                        longest_s, worst = took_s, form["query"][:80]
            finally:
                stop.set()
                reader.join()
            up = server.values("up")
    p99_s = float(np.percentile(waits, 99))
    demand(longest_s <= TIMEOUT_S + 1, f"{worst} took {longest_s:.1f} s with a time-out of {TIMEOUT_S} s")
    demand(most - before <= 512 * MIB, f"the server grew by {(most - before) / MIB:.0f} MiB")
    demand(p99_s <= 0.5, f"reads beside them take {p99_s * 1000:.0f} ms (99th percentile of {len(waits)})")
    demand(all(value == 1 for value in up.values()), "a target was lost meanwhile")
    answered = ", ".join(f"{count} with {status}" for status, count in sorted(statuses.items()))
    return [
        f"{len(kinds)} queries: {answered}; the longest took {longest_s:.1f} s (time-out {TIMEOUT_S} s)",
        f"grown by {(most - before) / MIB:.0f} MiB; {len(waits)} reads beside them, 99 % within {p99_s * 1000:.0f} ms",
    ]


def _read(server: Server, stop: threading.Event, waits: list[float]) -> None:
    while not stop.is_set():
        begun_s = time.monotonic()
        status, body = server.ask("/api/v1/query", query=_READ)
        waits.append(time.monotonic() - begun_s)
        demand(status == 200 and bool(body["data"]["result"]), f"a read beside them failed: {status}")
        time.sleep(0.05)
