"""Churn: ten thousand pods come and go; targets follow, what is gone ends with stale markers, nothing is left behind.

The API server is a process of its own; pods are objects with a status, their metrics come from one local server. Each
is scraped a few times before it is deleted. Discovery, scraping and store run in a process of their own, too: what the
gate writes down lies between what they let go of, and would keep whole pools of memory from the system. Memory is
compared after the first tenth, when all parts have done their work once, and at the end; before each look the clock is
put on until sealing takes what ended out of the head. At the end it has three minutes to come back.
"""

import asyncio
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from flyball import clock
from flyball.cli.demo import free_port_offset
from flyball.discovery import KubernetesDiscovery
from flyball.errors import KubeApiError, UpstreamError
from flyball.kube import KubeClient
from flyball.kube.kinds import PODS
from flyball.memory import give_back
from flyball.model.frames import is_absent, is_stale
from flyball.model.labels import METRIC_NAME, Matcher, MatchType
from flyball.model.scrapeconfigs import KubernetesSD, RelabelConfig, ScrapeConfig
from flyball.scrape import ScrapeManager
from flyball.store import Database
from gate.report import demand
from gate.serving import Targets, page

PODS_TOTAL, PER_S, LIFE_S, INTERVAL_MS = 10_000, 30.0, 6.0, 2_000
TARGETS_P99_S, LOOK_EVERY_S = 10.0, 0.1
SEALED_AFTER_MS = 5 * 3_600_000
GROWTH_MAX, BACK_WITHIN_S = 0.10, 180.0
NAMESPACE, JOB = "default", "pods"
PAGE = page(b"".join(b'requests_total{path="/%d"} 1\n' % number for number in range(10)))


def run(quick: bool = False) -> list[str]:
    count = PODS_TOTAL // 10 if quick else PODS_TOTAL
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name, _api_server(Path(name) / "cluster") as config:
        return asyncio.run(_churn(count, Path(name) / "data", config))


@contextlib.contextmanager
def _api_server(directory: Path) -> Iterator[Path]:
    directory.mkdir()
    arguments = ["server", str(directory), str(free_port_offset())]
    with (directory / "log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "gate.g26", *arguments], stdin=subprocess.DEVNULL, stderr=log)
    try:
        ends_s = clock.monotonic_s() + 60
        while not (directory / "ready").exists():
            demand(clock.monotonic_s() < ends_s, "the API server was not ready within 60 s")
            os.sched_yield()
        yield directory / "kubeconfig"
    finally:
        child.kill()
        child.wait(10)


class _Seen:
    """When each pod was ready or gone, and how long targets took to follow."""

    def __init__(self) -> None:
        self.ready_s: dict[str, float] = {}
        self.gone_s: dict[str, float] = {}
        self.came_s: list[float] = []
        self.went_s: list[float] = []

    def take(self, at_s: float, came: list[str], went: list[str]) -> None:
        self.came_s += [at_s - self.ready_s[name] for name in came]
        self.went_s += [at_s - self.gone_s[name] for name in went if name in self.gone_s]

    async def all_went(self) -> None:
        """Until no pod is a target any more; a minute at most."""
        ends_s = clock.monotonic_s() + 60
        while len(self.went_s) < len(self.gone_s) and clock.monotonic_s() < ends_s:
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.sleep(2 * INTERVAL_MS / 1000)


class _Watched:
    """The process that is measured, from here: tells what becomes a target and what ends, and answers questions."""

    def __init__(self, process: asyncio.subprocess.Process, seen: _Seen) -> None:
        self._process, self._seen = process, seen
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if "came" in told:
                self._seen.take(told["at_s"], told["came"], told["went"])
            else:
                self._answers.put_nowait(told)

    async def ask(self, question: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(question.encode() + b"\n")
        return await asyncio.wait_for(self._answers.get(), 120)


async def _churn(count: int, directory: Path, kubeconfig: Path) -> list[str]:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(PAGE)

    rng = random.Random(15)
    owner = await KubeClient.from_kubeconfig(kubeconfig)
    with Targets(answer) as served:
        arguments = [str(directory), str(kubeconfig), str(served.port)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gate.g15", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20
        )
        try:
            seen = _Seen()
            watched = _Watched(process, seen)
            reading = asyncio.create_task(watched.read())
            lives: set[asyncio.Task[None]] = set()
            began_s, first = clock.monotonic_s(), {}
            await _live(owner, seen, "warm-up", 3.0)
            await asyncio.sleep(2 * INTERVAL_MS / 1000)
            for number in range(count):
                await asyncio.sleep(max(0.0, began_s + number / PER_S - clock.monotonic_s()))
                life = asyncio.create_task(_live(owner, seen, f"pod-{number}", LIFE_S * rng.uniform(0.7, 1.3)))
                lives.add(life)
                life.add_done_callback(lives.discard)
                if number == count // 10:
                    await asyncio.gather(*lives)
                    await seen.all_went()
                    first = await watched.ask("settle")
            await asyncio.gather(*lives)
            took_s = clock.monotonic_s() - began_s
            await seen.all_went()
            last, settled_s = await watched.ask("settle"), clock.monotonic_s()
            peak_mib = last["memory_mib"]
            while _growth(first, last) > GROWTH_MAX and clock.monotonic_s() < settled_s + BACK_WITHIN_S:
                await asyncio.sleep(5)
                last = await watched.ask("look")
            back_s = clock.monotonic_s() - settled_s
            stale = await watched.ask("stale")
            await owner.close()
            reading.cancel()
        finally:
            process.kill()
            await process.wait()
        served_scrapes = sum(map(len, served.asked.values()))
    ended, series = stale["ended"], stale["series"]
    p99 = {what: sorted(times)[int(0.99 * (len(times) - 1))] for what, times in
           (("came", seen.came_s), ("went", seen.went_s))}  # fmt: skip
    demand(len(seen.went_s) >= 0.99 * len(seen.ready_s), f"{len(seen.ready_s) - len(seen.went_s)} pods were never seen")
    demand(max(p99.values()) <= TARGETS_P99_S, f"targets followed after {p99}, p99, more than {TARGETS_P99_S:g} s")
    demand(ended == series, f"{series - ended} of {series} series that are gone have no stale marker")
    growth = _growth(first, last)
    counted = ("file descriptors", "tasks")
    lines = [
        f"{len(seen.ready_s):,} pods in {took_s:.0f} s, {served_scrapes:,} scrapes: targets came p99 "
        f"{p99['came']:.1f} s, went p99 {p99['went']:.1f} s",
        f"{series:,} targets gone, {ended:,} with a stale marker",
        f"memory {first['memory_mib']:.0f} to {last['memory_mib']:.0f} MiB ({growth:+.0%}), {peak_mib:.0f} at once and "
        f"so after {back_s:.0f} s; " + ", ".join(f"{what} {first[what]} to {last[what]}" for what in counted),
    ]
    for what in counted:
        allowed = max(2, 0.02 * first[what])
        demand(abs(last[what] - first[what]) <= allowed, f"{what}: {first[what]} at first, {last[what]} in the end")
    demand(growth <= GROWTH_MAX, "memory grew by more than 10 %: " + "; ".join(lines))
    return lines


def _growth(first: dict[str, Any], last: dict[str, Any]) -> float:
    return float(last["memory_mib"] / first["memory_mib"] - 1)


# --- the process that is measured


async def _measured(directory: Path, kubeconfig: Path, port: int) -> None:
    """Says on standard output which targets came and went; answers ``settle``, ``look`` and ``stale``, a line each."""
    client = await KubeClient.from_kubeconfig(kubeconfig)
    store = Database(directory)
    manager, discovery = ScrapeManager(store.head), KubernetesDiscovery(client)
    job = _job(port)
    manager.set_configs([job])
    discovery.set_configs([job])
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    async with asyncio.TaskGroup() as group:
        for part in (manager.run(), discovery.run(manager.set_groups), _look(manager)):
            group.create_task(part)
        while question := await questions.readline():
            answer = {b"settle": _settled, b"look": _looked, b"stale": _stale}[question.strip()](store)
            print(json.dumps(answer), flush=True)


async def _look(manager: ScrapeManager) -> None:
    known: set[str] = set()
    while True:
        names = {target["labels"]["pod"] for target in manager.targets()}
        if names != known:
            told = {"at_s": clock.monotonic_s(), "came": sorted(names - known), "went": sorted(known - names)}
            print(json.dumps(told), flush=True)
        known = names
        await asyncio.sleep(LOOK_EVERY_S)


def _job(port: int) -> ScrapeConfig:
    def label(source: str, target: str) -> RelabelConfig:
        return RelabelConfig(source_labels=(source,), target_label=target)

    return ScrapeConfig(
        job_name=JOB,
        scrape_interval_ms=INTERVAL_MS,
        scrape_timeout_ms=INTERVAL_MS,
        kubernetes_sd_configs=(KubernetesSD(role="pod"),),
        relabel_configs=(
            RelabelConfig(target_label="__address__", replacement=f"127.0.0.1:{port}"),
            label("__meta_kubernetes_pod_name", "pod"),
        ),
    )


async def _live(client: KubeClient, seen: _Seen, name: str, life_s: float) -> None:
    """One pod's life."""
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    await _again(lambda: client.create(PODS, body, NAMESPACE), done=409)
    seen.ready_s[name] = clock.monotonic_s()
    await _again(lambda: client.patch(PODS, name, {"status": status}, NAMESPACE, "status"))
    await asyncio.sleep(life_s)
    seen.gone_s[name] = clock.monotonic_s()
    await _again(lambda: client.delete(PODS, name, NAMESPACE, grace_period_s=0), done=404)


async def _again(call: Callable[[], Awaitable[object]], done: int = 0) -> None:
    """A call until it is answered; an answer that says it was done before is one."""
    while True:
        try:
            await call()
            return
        except KubeApiError as error:
            if error.code == done:
                return
            raise
        except UpstreamError:
            await asyncio.sleep(1)


def _settled(store: Database) -> dict[str, float]:
    """What there is once all that ended has left the head."""
    real_now_ms = clock.now_ms
    clock.now_ms = lambda: real_now_ms() + SEALED_AFTER_MS  # nobody waits that long here
    store.maintain(clock.now_ms())
    store.head.collect(clock.now_ms())
    return _looked(store)


def _looked(store: Database) -> dict[str, float]:
    """Memory in MiB, and what is open."""
    gc.collect()
    give_back()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "file descriptors": _descriptors(store.directory),
        "tasks": len(asyncio.all_tasks()),
    }


def _descriptors(store: Path) -> int:
    """Open ones, but for the files of the store, whose blocks become more by design."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += not os.readlink(entry).startswith(str(store))
    return count


def _stale(store: Database) -> dict[str, int]:
    """How many series of pods end with a stale marker, and how many there are."""
    ended = series = 0
    now_ms = clock.now_ms()
    for frame in store.select([Matcher(MatchType.EQUAL, METRIC_NAME, "up")], now_ms - 86_400_000, now_ms + 60_000):
        there, stale = ~is_absent(frame.values), is_stale(frame.values)
        for column in range(len(frame.labels)):
            rows = there[:, column].nonzero()[0]
            if rows.size:
                series += 1
                ended += bool(stale[rows[-1], column])
    return {"ended": ended, "series": series}


if __name__ == "__main__":
    asyncio.run(_measured(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
