"""Leadership: of three candidates one acts at a time, through kills and stops; who was stopped writes nothing after.

Each candidate is a process with the election that the autoscaler uses, at its own time-outs. While it leads it writes
to one object of the embedded API server twenty times a second and notes when and in which term.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flyball.cli.demo import free_port_offset
from flyball.errors import FlyballError
from gate.report import demand

KILLS, STOPS, STOP_S = 100, 20, 60.0
TAKEOVER_P99_S = 20.0
NAMES = ("a", "b", "c")
NAMESPACE, LEASE, OBJECT = "default", "gate", "gate"


def run(quick: bool = False) -> list[str]:
    kills, stops = (KILLS // 10, STOPS // 10) if quick else (KILLS, STOPS)
    with tempfile.TemporaryDirectory(prefix="flyball-gate-") as name, contextlib.ExitStack() as stack:
        group = _Group(Path(name), stack)
        took = [group.replace_leader() for _ in range(kills)]
        took += [group.stop_leader(STOP_S) for _ in range(stops)]
        writes = group.writes()
    overlaps = _overlaps(writes)
    demand(not overlaps, f"{len(overlaps)} writes in a term that was over, the first {overlaps[:1]}")
    took.sort()
    worst = took[min(len(took) - 1, int(0.99 * len(took)))]
    demand(worst <= TAKEOVER_P99_S, f"takeover p99 {worst:.1f} s, more than {TAKEOVER_P99_S:g} s")
    terms = len({term for _, term, _ in writes})
    return [
        f"{kills} kills and {stops} stops of {STOP_S:g} s: {len(writes):,} writes in {terms} terms, 0 out of term",
        f"takeover p50 {took[len(took) // 2]:.1f} s, p99 {worst:.1f} s",
    ]


def _overlaps(writes: list[tuple[float, int, str]]) -> list[tuple[float, int, str]]:
    """Writes begun after one of a later term."""
    newest, found = -1, []
    for write in sorted(writes):
        if write[1] < newest:
            found.append(write)
        newest = max(newest, write[1])
    return found


class _Group:
    """The API server and the candidates."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory, self._stack, self._serial = directory, stack, 0
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._start("server", "server", str(directory), str(free_port_offset()))
        self._until(lambda: (directory / "ready").exists(), 30)
        for _ in NAMES:
            self._candidate()
        self._until(lambda: bool(self.writes()), 30)

    def _start(self, name: str, *arguments: str) -> None:
        log = self._stack.enter_context((self._directory / f"{name}.err").open("wb"))
        child = subprocess.Popen([sys.executable, "-m", "gate.g26", *arguments], stdin=subprocess.DEVNULL, stderr=log)
        self._children[name] = child
        self._stack.callback(self._end, child)

    @staticmethod
    def _end(child: "subprocess.Popen[bytes]") -> None:
        child.kill()
        child.wait(10)

    def _candidate(self) -> None:
        self._serial += 1
        name = f"{NAMES[self._serial % len(NAMES)]}{self._serial}"
        self._start(name, "candidate", str(self._directory), name)

    def writes(self) -> list[tuple[float, int, str]]:
        """(begun, term, candidate) of every write that was accepted."""
        found = []
        for path in self._directory.glob("*.writes"):
            for line in path.read_text().splitlines():
                begun, _, term = line.partition(" ")
                if term:
                    found.append((float(begun), int(term), path.stem))
        return found

    def _leader(self) -> str:
        return max(self.writes())[2]

    def _until(self, condition: object, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():  # type: ignore[operator]
            demand(time.monotonic() < deadline_s, f"nothing happened within {timeout_s:g} s")
            time.sleep(0.05)

    def _taken_over(self, leader: str, at_s: float) -> float:
        """Seconds until another one writes."""

        def others() -> list[float]:
            return [begun for begun, _, name in self.writes() if name != leader and begun > at_s]

        self._until(lambda: bool(others()), 60)
        return min(others()) - at_s

    def replace_leader(self) -> float:
        leader, at_s = self._leader(), time.monotonic()
        self._end(self._children.pop(leader))
        self._candidate()
        return self._taken_over(leader, at_s)

    def stop_leader(self, for_s: float) -> float:
        leader, at_s = self._leader(), time.monotonic()
        child = self._children[leader]
        os.kill(child.pid, signal.SIGSTOP)
        try:
            took_s = self._taken_over(leader, at_s)
            time.sleep(max(0.0, at_s + for_s - time.monotonic()))
        finally:
            os.kill(child.pid, signal.SIGCONT)
        time.sleep(3)  # time to do harm
        return took_s


async def _serve(directory: Path, offset: int) -> None:
    from flyball.localcluster import ApiServer, pki

    pki.ensure(directory, offset)
    server = ApiServer(directory, offset)
    await server.start()
    (directory / "ready").touch()
    await asyncio.Event().wait()


async def _lead(directory: Path, name: str) -> None:
    from flyball.kube import KubeClient
    from flyball.kube.kinds import CONFIG_MAPS
    from flyball.kube.leases import LeaderElection

    client = await KubeClient.from_kubeconfig(directory / "kubeconfig")
    election = LeaderElection(client, NAMESPACE, LEASE, name)
    task = asyncio.create_task(election.run())
    with (directory / f"{name}.writes").open("a", buffering=1) as log:
        while not task.done():
            if election.leads():
                begun_s, term = time.monotonic(), election.term
                try:
                    await _write(client, CONFIG_MAPS, name)
                    log.write(f"{begun_s} {term}\n")
                except FlyballError as error:
                    print(error, file=sys.stderr)
            await asyncio.sleep(0.05)
    await task


async def _write(client: "object", kind: "object", name: str) -> None:
    from flyball.errors import KubeApiError

    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": OBJECT}, "data": {"by": name}}
    try:
        await client.patch(kind, OBJECT, {"data": {"by": name}}, NAMESPACE)  # type: ignore[attr-defined]
    except KubeApiError as error:
        if error.code != 404:
            raise
        await client.create(kind, body, NAMESPACE)  # type: ignore[attr-defined]


if __name__ == "__main__":
    role, where, argument = sys.argv[1:4]
    asyncio.run(_serve(Path(where), int(argument)) if role == "server" else _lead(Path(where), argument))
