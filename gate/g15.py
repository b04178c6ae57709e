"""Churn: ten thousand pods come and go; targets follow, what is gone ends with stale markers, nothing is left behind.

The API server is a process of its own; pods are objects with a status, their metrics come from one local server. Each
is scraped a few times before it is deleted. Memory is compared after the first tenth, when all parts have done their
work once, and at the end; before each look the clock is put on until sealing takes what ended out of the head.
"""

import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from flyball import clock
from flyball.cli.demo import free_port_offset
from flyball.discovery import KubernetesDiscovery
from flyball.errors import KubeApiError, UpstreamError
from flyball.kube import KubeClient
from flyball.kube.kinds import PODS
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
NAMESPACE, JOB = "default", "pods"
PAGE = page(b"".join(b'requests_total{path="/%d"} 1\n' % number for number in range(10)))


def run(quick: bool = False) -> list[str]:
    count = PODS_TOTAL // 10 if quick else PODS_TOTAL
    real_now_ms = clock.now_ms
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name, _api_server(Path(name) / "cluster") as config:
        try:
            return asyncio.run(_churn(count, Path(name) / "data", config))
        finally:
            clock.now_ms = real_now_ms


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

    def __init__(self, manager: ScrapeManager) -> None:
        self._manager = manager
        self.ready_s: dict[str, float] = {}
        self.gone_s: dict[str, float] = {}
        self.came_s: list[float] = []
        self.went_s: list[float] = []
        self._known: set[str] = set()

    async def look(self) -> None:
        while True:
            names = {target["labels"]["pod"] for target in self._manager.targets()}
            now_s = clock.monotonic_s()
            self.came_s += [now_s - self.ready_s[name] for name in names - self._known]
            self.went_s += [now_s - self.gone_s[name] for name in self._known - names if name in self.gone_s]
            self._known = names
            await asyncio.sleep(LOOK_EVERY_S)


async def _churn(count: int, directory: Path, kubeconfig: Path) -> list[str]:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(PAGE)

    rng = random.Random(15)
    client, owner = [await KubeClient.from_kubeconfig(kubeconfig) for _ in range(2)]  # the owner makes the pods
    store = Database(directory)
    with Targets(answer) as served:
        manager, discovery = ScrapeManager(store.head), KubernetesDiscovery(client)
        job = _job(served.port)
        manager.set_configs([job])
        discovery.set_configs([job])
        seen = _Seen(manager)
        tasks = [asyncio.create_task(part) for part in (manager.run(), discovery.run(manager.set_groups), seen.look())]
        lives: set[asyncio.Task[None]] = set()
        began_s, first_rss, first_left = clock.monotonic_s(), 0.0, (0, 0)
        await _live(owner, seen, "warm-up", 3.0)
        await asyncio.sleep(2 * INTERVAL_MS / 1000)
        for number in range(count):
            await asyncio.sleep(max(0.0, began_s + number / PER_S - clock.monotonic_s()))
            life = asyncio.create_task(_live(owner, seen, f"pod-{number}", LIFE_S * rng.uniform(0.7, 1.3)))
            lives.add(life)
            life.add_done_callback(lives.discard)
            if number == count // 10:
                await asyncio.gather(*lives)
                await owner.close()  # its connections are not ours to count
                owner = await KubeClient.from_kubeconfig(kubeconfig)
                first_rss, first_left = await _settled(store, seen)
        await asyncio.gather(*lives)
        await owner.close()
        took_s = clock.monotonic_s() - began_s
        last_rss, last_left = await _settled(store, seen)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await discovery.close()
        served_scrapes = sum(map(len, served.asked.values()))
    ended, series = _stale(store)
    await client.close()
    await asyncio.to_thread(store.close)
    p99 = {what: sorted(times)[int(0.99 * (len(times) - 1))] for what, times in
           (("came", seen.came_s), ("went", seen.went_s))}  # fmt: skip
    demand(len(seen.went_s) >= 0.99 * len(seen.ready_s), f"{len(seen.ready_s) - len(seen.went_s)} pods were never seen")
    demand(max(p99.values()) <= TARGETS_P99_S, f"targets followed after {p99}, p99, more than {TARGETS_P99_S:g} s")
    demand(ended == series, f"{series - ended} of {series} series that are gone have no stale marker")
    growth = last_rss / first_rss - 1
    lines = [
        f"{len(seen.ready_s):,} pods in {took_s:.0f} s, {served_scrapes:,} scrapes: targets came p99 "
        f"{p99['came']:.1f} s, went p99 {p99['went']:.1f} s",
        f"{series:,} targets gone, {ended:,} with a stale marker",
        f"memory {first_rss:.0f} to {last_rss:.0f} MiB ({growth:+.0%}); file descriptors {first_left[0]} to "
        f"{last_left[0]}, tasks {first_left[1]} to {last_left[1]}",
    ]
    for what, first, last in zip(("file descriptors", "tasks"), first_left, last_left, strict=True):
        demand(abs(last - first) <= max(2, 0.02 * first), f"{what}: {first} at first, {last} in the end")
    demand(growth <= 0.10, "memory grew by more than 10 %: " + "; ".join(lines))
    return lines


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


async def _settled(store: Database, seen: _Seen) -> tuple[float, tuple[int, int]]:
    """Memory in MiB, and what is open, once no pod is left and all that ended has left the head."""
    ends_s = clock.monotonic_s() + 60
    while len(seen.went_s) < len(seen.gone_s) and clock.monotonic_s() < ends_s:
        await asyncio.sleep(LOOK_EVERY_S)
    await asyncio.sleep(2 * INTERVAL_MS / 1000)
    real_now_ms = clock.now_ms
    clock.now_ms = lambda: real_now_ms() + SEALED_AFTER_MS  # nobody waits that long here
    store.maintain(clock.now_ms())
    store.head.collect(clock.now_ms())
    gc.collect()
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, (_descriptors(store.directory), len(asyncio.all_tasks()))


def _descriptors(store: Path) -> int:
    """Open ones, but for the files of the store, whose blocks become more by design."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += not os.readlink(entry).startswith(str(store))
    return count


def _stale(store: Database) -> tuple[int, int]:
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
    return ended, series
