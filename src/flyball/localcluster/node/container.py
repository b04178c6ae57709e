"""One container of a pod: its process, its probes and hooks, and how it is stopped."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from flyball import clock
from flyball.localcluster.node import containerlogs, environment, images, launch, probes, procfs, runtimes
from flyball.localcluster.node.cgroups import Cgroups
from flyball.localcluster.node.process import ContainerProcess, Loopback
from flyball.localcluster.node.status import ContainerState
from flyball.model.quantities import parse_quantity

Object = dict[str, Any]
STOP_GRACE_S = 30.0  # Kubernetes' default
POST_START_MAX_S = 600.0
MESSAGE_MAX_BYTES, FALLBACK_LINES_AND_BYTES = 4096, (80, 2048)  # Kubernetes'
MEMORY_LOOKS = ((0.5, 1.0), (0.8, 0.3), (1.0, 0.1))
"""(share of the limit, seconds until the next look): a look reads /proc for every process of the container."""


class Pod(Protocol):
    """What a container asks of its pod."""

    name: str
    pod: Object

    @property
    def ip(self) -> str: ...

    def wake(self) -> None:
        """Something has changed: look at the pod again."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside the pod's own loop."""

    def base_environment(self) -> dict[str, str]: ...

    async def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


class Container:
    """One container of a pod: its state, its process, its back-off."""

    def __init__(self, pod: Pod, spec: Object, directory: Path, init: bool) -> None:
        self.pod = pod
        self.spec = spec
        self.name: str = spec["name"]
        self.directory = directory
        self.state = ContainerState(
            self.name, spec.get("image") or "", init=init, sidecar=init and spec.get("restartPolicy") == "Always"
        )
        self.attempt = 0
        self.process: ContainerProcess | None = None
        self.backoff_s = 0.0
        self.restart_at: float | None = None
        self.retry_at = 0.0
        self.environment: dict[str, str] = {}
        self.cwd = "/"
        self.mounts: list[tuple[str, str]] = []
        self.claims_ports = False
        self.isolated = False
        self.loopback: Loopback | None = None
        self.limits: Mapping[str, str] = {}
        self.cgroup = ""  # its group's name, where the kernel holds it to its limits
        self._oom_kills_before = 0  # of earlier attempts in that group
        self.oom_killed = False
        self.probed: Counter[tuple[str, str]] = Counter()
        """Probes of this process of the node by kind (``Liveness``) and result."""
        self._cpu_base_ns = 0
        self._cpu_last_ns = 0
        self._told = ""
        self._tasks: list[asyncio.Task[None]] = []

    # -- what the manifest says ----------------------------------------------------------------------------------

    def declared_ports(self) -> set[tuple[int, str]]:
        return {(int(port["containerPort"]), port.get("protocol") or "TCP") for port in self.spec.get("ports") or []}

    def tcp_ports(self) -> set[int]:
        return {port for port, protocol in self.declared_ports() if protocol == "TCP"}

    # -- what outlives the node process --------------------------------------------------------------------------

    def to_record(self) -> Object:
        return {
            "attempt": self.attempt,
            "restart_count": self.state.restart_count,
            "last_terminated": self.state.last_terminated,
            "terminated": self.state.terminated,
            "final": self.state.terminated is not None and self.restart_at is None,
            "backoff_s": self.backoff_s,
            "claims_ports": self.claims_ports,
            "isolated": self.isolated,
            "loopback": self.loopback and self.loopback.text(),
            "limits": self.limits,
            "cgroup": self.cgroup,
            "environment": self.environment,
            "cwd": self.cwd,
            "mounts": self.mounts,
        }

    def restore(self, record: Object) -> None:
        self.state.restart_count = int(record.get("restart_count") or 0)
        self.state.last_terminated = record.get("last_terminated")
        self.backoff_s = float(record.get("backoff_s") or 0.0)
        self.claims_ports = bool(record.get("claims_ports"))
        self.isolated = bool(record.get("isolated"))
        self.loopback = Loopback.of(record["loopback"]) if record.get("loopback") else None
        self.limits = record.get("limits") or {}
        self.cgroup = record.get("cgroup") or ""
        self.environment = record.get("environment") or {}
        self.cwd = record.get("cwd") or "/"
        self.mounts = [(pair[0], pair[1]) for pair in record.get("mounts") or []]

    # -- running -------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.running

    def attach(self, running: ContainerProcess, *, adopted: bool = False) -> None:
        """The process is this container's from now on, and is probed; an adopted one has had its postStart hook."""
        self.process = running
        self._cpu_base_ns = self._cpu_last_ns = 0
        state = self.state
        state.running_since_ms = running.started_ms
        state.terminated = None
        state.waiting = None
        state.container_id = f"plain://{running.pid}"
        self.stop_tasks()
        limit = self.limits.get("memory")
        if limit is not None and not self.cgroup:
            self._spawn("memory limit", self._watch_memory(running, parse_quantity(limit).value()))
        hook = {} if adopted else (self.spec.get("lifecycle") or {}).get("postStart") or {}
        if hook:
            self._spawn("postStart", self._begin_after(hook))
        else:
            self._begin()

    def _spawn(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """A task that ends with the process."""
        self._tasks.append(asyncio.create_task(work, name=f"{self.pod.name}/{self.name} {what}"))

    async def _begin_after(self, hook: Object) -> None:
        if await self._run_hook(hook, POST_START_MAX_S):
            await self.pod.event("Warning", "FailedPostStartHook", "PostStartHook failed")
            self.pod.spawn(self.stop(self._grace_s()))
            return
        self._begin()
        self.pod.wake()

    def _begin(self) -> None:
        self.state.started = "startupProbe" not in self.spec
        self.state.ready = self.state.started and "readinessProbe" not in self.spec
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if self.spec.get(kind):
                self._spawn(kind, self._probe(kind, self.spec[kind]))

    async def _watch_memory(self, running: ContainerProcess, limit_bytes: int) -> None:
        """Kills the container once its processes hold more than the limit; the nearer it is, the closer we look."""
        while True:
            used = procfs.tree_figures(running.shim_pid).memory_bytes
            if used > limit_bytes:
                self.oom_killed = True
                running.signal(signal.SIGKILL)
                return
            await asyncio.sleep(next(wait_s for share, wait_s in MEMORY_LOOKS if used <= share * limit_bytes))

    def _grace_s(self) -> float:
        return float(self.pod.pod["spec"].get("terminationGracePeriodSeconds") or STOP_GRACE_S)

    async def _run_hook(self, hook: Object, timeout_s: float) -> str:
        """What went wrong; ``""`` when nothing did."""
        if "sleep" in hook:
            if self.process is not None:
                await self.process.wait_for(min(timeout_s, float(hook["sleep"].get("seconds") or 0)))
            return ""
        return await probes.check({**hook, "timeoutSeconds": timeout_s}, self.spec, self.pod.ip, self.execute)

    def enter_group(self, groups: Cgroups | None, name: str) -> list[Path]:
        """The control groups that hold the next attempt to its limits; none where it is watched instead."""
        self.cgroup = ""
        if groups is None or not {"cpu", "memory"} & self.limits.keys():
            return []
        try:
            groups.release(name)  # with its counts of an earlier attempt
            found = groups.hold(name, self.limits)
        except OSError:
            return []
        self.cgroup, self._oom_kills_before = name, groups.oom_kills(name)
        return found

    def was_oom_killed(self, groups: Cgroups | None, code: int) -> bool:
        """Whether it ended for want of memory: killed by us, or by the kernel in its group."""
        if self.oom_killed or groups is None or not self.cgroup or code != 128 + signal.SIGKILL:
            return self.oom_killed
        return groups.oom_kills(self.cgroup) > self._oom_kills_before

    def last_words(self, code: int) -> str:
        """What the program left at its terminationMessagePath, or the end of its log where the manifest wants that."""
        with contextlib.suppress(OSError):
            file = self.directory / "termination-log"
            if file.exists() and (text := file.read_bytes()[:MESSAGE_MAX_BYTES].decode(errors="replace")):
                return text
            if code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
                return containerlogs.ending(self.directory / f"{self.attempt}.log", *FALLBACK_LINES_AND_BYTES)
        return ""

    def detach(self, cpu_ns: int) -> None:
        """The process has ended."""
        self.stop_tasks()
        self._cpu_last_ns = max(self._cpu_last_ns, cpu_ns)
        self.process = None

    def figures(self) -> procfs.TreeFigures:
        """Of the running attempt, in one walk over its processes; CPU time never goes down and stays when it ended."""
        if self.process is None or not self.process.running:
            return procfs.TreeFigures(self._cpu_last_ns, 0, 0)
        now = procfs.tree_figures(self.process.shim_pid)
        raw = now.cpu_ns + self._cpu_base_ns
        if raw < self._cpu_last_ns:
            self._cpu_base_ns += self._cpu_last_ns - raw
            raw = self._cpu_last_ns
        self._cpu_last_ns = raw
        return replace(now, cpu_ns=raw)

    async def tell_once(self, reason: str, message: str) -> None:
        """A warning event, unless it was the last one."""
        if self._told != message:
            self._told = message
            await self.pod.event("Warning", reason, message)

    def started_anew(self) -> None:
        """A new attempt begins: what was told before may be told again."""
        self._told = ""
        self.restart_at = None
        self.oom_killed = False

    async def execute(self, command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        """Runs a command beside the container: its environment, directory and paths.

        Returns the exit code (None when it took too long) and the output, capped.
        """
        try:
            argv, env, cwd = self.prepare(command)
        except images.NotRunnableError as exc:
            return 127, str(exc)
        return await probes.run_command(argv, env, cwd, timeout_s)

    def prepare(self, command: Sequence[str]) -> tuple[list[str], dict[str, str], str]:
        """What to start for a command beside the container: its words, environment and directory.

        Raises:
            NotRunnableError: there is no such program.
        """
        env = self.environment or self.pod.base_environment()
        before = self.loopback.command() if self.loopback is not None else []
        if self.isolated and self.process is not None:
            argv = launch.program_of(command, self.mounts, env.get("PATH", os.defpath), self.cwd)
            return [*before, *runtimes.entering(self.process.pid), *argv], env, "/"
        argv = [environment.rewrite_argument(word, self.mounts) for word in command]
        return [*before, *images.resolve(argv, env.get("PATH", os.defpath), self.cwd)], env, self.cwd

    # -- probes --------------------------------------------------------------------------------------------------

    def stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _probe(self, kind: str, probe: Object) -> None:
        word = kind.removesuffix("Probe")
        while kind != "startupProbe" and not self.state.started:
            await asyncio.sleep(0.1)

        def settled(good: bool) -> None:
            if kind == "startupProbe" and good:
                self.state.started = True
                self.state.ready = "readinessProbe" not in self.spec
            elif kind == "readinessProbe":
                self.state.ready = good
            elif not good:
                self.pod.spawn(self._kill_unhealthy(word))
            self.pod.wake()

        async def failed(message: str) -> None:
            await self.pod.event("Warning", "Unhealthy", f"{word.capitalize()} probe failed: {message}")

        async def attempt() -> str:
            message = await probes.check(probe, self.spec, self.pod.ip, self.execute)
            self.probed[word.capitalize(), "failed" if message else "successful"] += 1
            return message

        prober = probes.Prober(probe, attempt, settled, failed, kind == "startupProbe", eager=kind != "livenessProbe")
        await prober.run()

    async def _kill_unhealthy(self, word: str) -> None:
        await self.pod.event("Normal", "Killing", f"Container {self.name} failed {word} probe, will be restarted")
        await self.stop(self._grace_s())

    # -- the end -------------------------------------------------------------------------------------------------

    async def stop(self, grace_s: float) -> None:
        """preStop, SIGTERM, the grace period, SIGKILL."""
        running = self.process
        if running is None or not running.running:
            return
        deadline = clock.monotonic_s() + grace_s
        hook = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        if hook and await self._run_hook(hook, grace_s):
            await self.pod.event("Warning", "FailedPreStopHook", "PreStopHook failed")
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGCONT)
        if not await running.wait_for(max(0.0, deadline - clock.monotonic_s())):
            running.signal(signal.SIGKILL)
            if not await running.wait_for(5.0):
                with contextlib.suppress(OSError):
                    os.kill(running.shim_pid, signal.SIGKILL)
                await running.wait_for(2.0)
