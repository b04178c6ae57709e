"""The rules of kube-prometheus, all 38 groups, over 100,000 series of what they read; beside Prometheus.

Prometheus evaluates them at their intervals, as it does in a cluster, for some windows of time. It is halted between
the windows, and our rule manager makes the very same evaluations, at the times that Prometheus chose. So what both
recorded can be compared sample by sample: the recorded series and those of alerts. Both keep all in their heads.

``cpu`` is that of the whole process for as many evaluations as there are groups, Prometheus' less what it takes without
rules; ``wall`` the time that the last evaluations of all groups say they took. The first window does not count: series
are new, caches cold, and Prometheus, which gets the rules by a reload, writes series of alerts that we write once it is
known when an alert of an earlier life began.
``--profile FILE`` writes where our evaluations spent their time.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench import peers, stack, workload
from bench.peers import Peer
from bench.query import TOLERANCE, push
from bench.report import report

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("FLYBALL_SHARED") or ROOT.parent / "shared") / "kube-prometheus"
INTERVAL_S = 30
HISTORY_ROWS, AHEAD_ROWS = 120, 19  # what is more than ten minutes ahead is refused
WINDOW_S, WINDOWS = 100, 3
GROUPS = 38
IDLE_S = 15
#: The last rule of each group, in the bench alone: tells when the group was evaluated.
MARKER = "bench:evaluated_at"
#: Every rule of kube-prometheus records under a name with a colon.
RECORDED = f"{{__name__=~'.+:.+|ALERTS|ALERTS_FOR_STATE',__name__!='{MARKER}'}}"

#: Of a series, by its labels: (time in ms, value).
Samples = dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]


def rule_files(directory: Path) -> None:
    """Writes the rules as Prometheus reads them, a file an object."""
    for path in sorted(SHARED.glob("*rometheusRule.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        for group in spec["groups"]:
            mark = {"record": MARKER, "expr": "time()", "labels": {"file": path.stem, "group": group["name"]}}
            group["rules"].append(mark)
        (directory / f"{path.stem}.yml").write_text(yaml.safe_dump(spec, sort_keys=False))


# --- our side: a head and a rule manager, in a process of its own


def serve(port: int, rules: Path, start_ms: int, profile: str) -> None:
    """Answers POST /evaluate, a list of (file, group, time in ms), and GET /recorded with their samples."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from flyball.model.frames import is_absent
    from flyball.promql import compiled, evaluate, parse
    from flyball.rules.manager import RuleManager
    from flyball.rules.rulefiles import parse_rule_file
    from flyball.store import Head

    compiled.load()
    head = Head(retention_ms=10**12, memory_limit_bytes=16 << 30)
    workload.fill(head, stack.blocks(start_ms, HISTORY_ROWS + AHEAD_ROWS), interval_ms=stack.INTERVAL_MS)
    sys.setswitchinterval(0.001)  # as in the data process
    groups = [
        group
        for path in sorted(rules.glob("*.yml"))
        for group in parse_rule_file(path.read_text(), path.stem, interval_ms=INTERVAL_S * 1000)
    ]

    async def in_thread(work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    manager = RuleManager(head, head, in_thread)
    manager.set_groups(groups)
    status = {(one.group.file, one.group.name): one for one in manager.status()}

    async def evaluate_groups(request: Request) -> JSONResponse:
        cpu_s = time.process_time()
        for file, group, at_ms in await request.json():
            await manager.evaluate(status[file, group], at_ms)
        wall_s = sum(one.took_s for one in status.values())
        wrong = {one.rule.name: one.state.error for every in status.values() for one in every.rules if one.state.error}
        return JSONResponse({"wall_s": wall_s, "cpu_s": time.process_time() - cpu_s, "wrong": wrong})

    async def recorded(request: Request) -> JSONResponse:
        start_ms, end_ms = await request.json()
        found = evaluate(parse(f"{RECORDED}[{end_ms - start_ms}ms]"), head, end_ms, end_ms, 0)
        there = ~is_absent(found.values)
        return JSONResponse(
            [
                (dict(series), list(zip(found.times_ms[own].tolist(), map(repr, row[own].tolist()), strict=True)))
                for series, row, own in zip(found.labels, found.values, there, strict=True)
            ]
        )

    routes = [
        Route("/evaluate", _profiled(evaluate_groups, profile) if profile else evaluate_groups, methods=["POST"]),
        Route("/recorded", recorded, methods=["POST"]),
        Route("/-/ready", lambda _: JSONResponse({})),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="error", timeout_keep_alive=3600)


def _profiled(evaluate: Any, file: str) -> Any:
    import cProfile

    async def measured(request: Any) -> Any:
        profiler = cProfile.Profile(time.process_time)
        with profiler:
            answer = await evaluate(request)
        profiler.dump_stats(file)
        return answer

    return measured


@contextlib.contextmanager
def ours(rules: Path, start_ms: int, profile: str) -> Iterator[Peer]:
    port = peers.free_port()
    command = [sys.executable, "-m", "bench.rules", "--serve", str(port), "--rules", str(rules)]
    command += ["--start-ms", str(start_ms), "--profile", profile]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        peers.wait_ready(f"http://127.0.0.1:{port}/-/ready", process, 300)
        yield Peer("flyball", "", port, process.pid)
    finally:
        process.terminate()
        process.wait(20)


# --- Prometheus' side


class Prometheus:
    """One that runs."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._process = psutil.Process(peer.pid)

    def cpu_s(self) -> float:
        return float(sum(self._process.cpu_times()[:2]))

    def raw(self, selector: str, seconds: int) -> Samples:
        """The samples of the last seconds: series -> (time in ms, value)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.peer.port, timeout=60)
        body = urllib.parse.urlencode({"query": f"{selector}[{seconds}s]"})
        connection.request("POST", "/api/v1/query", body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = json.load(connection.getresponse())
        if answer["status"] != "success":
            raise SystemExit(f"prometheus: {answer['error']}")
        return {
            tuple(sorted(one["metric"].items())): [
                (round(float(at) * 1000), float(value)) for at, value in one["values"]
            ]
            for one in answer["data"]["result"]
        }

    def last_wall_s(self) -> float:
        """What the last evaluations of its groups took."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.peer.port}/api/v1/rules?exclude_alerts=true") as answer:
            return float(sum(group["evaluationTime"] for group in json.load(answer)["data"]["groups"]))

    def load_rules(self, config: Path, rules: Path) -> None:
        settings = {"global": {"evaluation_interval": f"{INTERVAL_S}s"}, "rule_files": [f"{rules}/*.yml"]}
        config.write_text(json.dumps(settings))
        request = urllib.request.Request(f"http://127.0.0.1:{self.peer.port}/-/reload", method="POST")
        urllib.request.urlopen(request).close()


# --- the comparison


def differences(ours_: list[Any], theirs: Samples, times: set[int]) -> tuple[int, list[str]]:
    """How many samples both recorded at these times, and what one recorded alone or with another value.

    Staleness markers are left out, as a query leaves them.
    """
    left = {
        (tuple(sorted(labels.items())), at_ms): float(value)
        for labels, samples in ours_
        for at_ms, value in samples
        if at_ms in times and value != "nan"
    }
    right = {(series, at_ms): value for series, samples in theirs.items() for at_ms, value in samples}
    right = {key: value for key, value in right.items() if key[1] in times and not math.isnan(value)}
    found = [f"{dict(series)} at {at_ms} in one alone" for series, at_ms in left.keys() ^ right.keys()]
    for key in left.keys() & right.keys():
        if not math.isclose(left[key], right[key], rel_tol=TOLERANCE, abs_tol=1e-12):
            found.append(f"{dict(key[0])} at {key[1]}: {left[key]!r} and {right[key]!r}")
    return len(left), sorted(found)


def settled_times(due: set[tuple[str, str, int]]) -> set[int]:
    """The times of all evaluations but the first two of each group, in which our alerts have no series yet."""
    by_group: dict[tuple[str, str], list[int]] = {}
    for file, group, at_ms in sorted(due):
        by_group.setdefault((file, group), []).append(at_ms)
    return {at_ms for times in by_group.values() for at_ms in times[2:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rules", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start-ms", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--profile", default="", metavar="FILE")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.rules, given.start_ms, given.profile)
    elif not SHARED.is_dir():
        raise SystemExit(f"{SHARED} is missing: name its parent in FLYBALL_SHARED")
    else:
        measure(given.profile)


def measure(profile: str) -> None:
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as name, contextlib.ExitStack() as stack_:
        rules = Path(name) / "rules"
        rules.mkdir()
        rule_files(rules)
        start_ms = int(time.time() * 1000) // 30_000 * 30_000 - HISTORY_ROWS * stack.INTERVAL_MS
        us = stack_.enter_context(ours(rules, start_ms, profile))
        config = Path(name) / "prometheus.yml"
        config.write_text("global: {}\n")
        peer = stack_.enter_context(peers.prometheus("--web.enable-lifecycle", "--log.level=error", config=config))
        theirs = Prometheus(peer)
        data = stack.blocks(start_ms, HISTORY_ROWS + AHEAD_ROWS)
        print(f"rules: {sum(map(len, (t for b in data for t in b.labels))):,} series", file=sys.stderr)
        push(peer, workload.write_requests(data))
        del data
        time.sleep(IDLE_S)
        idle_s = theirs.cpu_s()
        time.sleep(IDLE_S)
        idle_share = (theirs.cpu_s() - idle_s) / IDLE_S
        theirs.load_rules(config, rules)
        windows: list[Window] = []
        for _ in range(WINDOWS):
            windows.append(window(theirs, us, idle_share, {one for before in windows for one in before.due}))
        told(windows[1:], peer)
        times = settled_times({one for counted in windows for one in counted.due})
        recorded = asked(us, "/recorded", [min(times) - 1, max(times)])
        count, found = differences(recorded, theirs.raw(RECORDED, WINDOWS * WINDOW_S + 300), times)
        lines = [f"rules: {count:,} samples recorded, {len(found)} differences", *found[:20]]
        print(*lines, sep="\n  ", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Window:
    """The evaluations (file, group, time in ms) that both made, and what either took for them in s: CPU for all, time
    for the last one of every group."""

    due: set[tuple[str, str, int]]
    cpu_s: tuple[float, float]
    wall_s: tuple[float, float]


def window(theirs: Prometheus, us: Peer, idle_share: float, done: set[tuple[str, str, int]]) -> Window:
    """Prometheus evaluates for a while, then we do the same."""
    cpu_s, begun_s = theirs.cpu_s(), time.monotonic()
    time.sleep(WINDOW_S)
    cpu_s = theirs.cpu_s() - cpu_s - idle_share * (time.monotonic() - begun_s)
    wall_s = theirs.last_wall_s()
    marks = theirs.raw(MARKER, 2 * WINDOW_S + 300)
    due = {
        (dict(labels)["file"], dict(labels)["group"], at_ms)
        for labels, samples in marks.items()
        for at_ms, _ in samples
    } - done
    os.kill(theirs.peer.pid, signal.SIGSTOP)
    try:
        answer = asked(us, "/evaluate", sorted(due, key=lambda one: one[2]))
    finally:
        os.kill(theirs.peer.pid, signal.SIGCONT)
    if answer["wrong"]:
        print(f"rules: our evaluations failed: {answer['wrong']}", file=sys.stderr)
    return Window(due, (answer["cpu_s"], cpu_s), (answer["wall_s"], wall_s))


def asked(us: Peer, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", us.port, timeout=600)
    connection.request("GET" if body is None else "POST", path, json.dumps(body))
    return json.load(connection.getresponse())


def told(windows: list[Window], peer: Peer) -> None:
    named = {"peer": peer.name, "peer_version": peer.version}
    evaluations = sum(len(one.due) for one in windows)
    ours_s, theirs_s = (sum(one.cpu_s[side] for one in windows) / evaluations * GROUPS for side in (0, 1))
    report("rules", "kube-prometheus cpu", 1000 * ours_s, "ms", theirs=1000 * theirs_s, **named)
    ours_s, theirs_s = (sum(one.wall_s[side] for one in windows) / len(windows) for side in (0, 1))
    report("rules", "kube-prometheus wall", 1000 * ours_s, "ms", theirs=1000 * theirs_s, **named)
    print(f"rules: {evaluations} evaluations of groups; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
