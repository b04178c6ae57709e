"""Pods as plain processes: from a pod bound to this node to running containers, and to their end."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from flyball import clock
from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube import EventRecorder, KubeClient
from flyball.kube.kinds import CONFIG_MAPS, PODS, SECRETS
from flyball.localcluster.node import environment, images, probes, process, procfs, volumes
from flyball.localcluster.node.limiter import CpuLimiter
from flyball.localcluster.node.process import ContainerProcess
from flyball.localcluster.node.status import ContainerState, PodState, build, phase
from flyball.model.quantities import parse_quantity

Object = dict[str, Any]

BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 300.0
BACKOFF_RESET_S = 600.0
VOLUME_RETRY_S = 2.0
VOLUME_REFRESH_S = 30.0
NOT_RUNNABLE_RETRY_S = 20.0
PORT_RETRY_S = 1.0
STATUS_RETRY_S = 1.0
ATTEMPTS_KEPT = 2
_PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Addresses:
    """POD_IPs, ``127.10.x.y``: no two pods alike, each remembered for its pod's life, a used one resting longest."""

    def __init__(self, path: Path, port_offset: int) -> None:
        self._path = path
        # Another embedded cluster on this machine (it must have another offset) starts elsewhere.
        self._next = (zlib.crc32(str(path).encode()) % 250 + 1) * 256 + 2 if port_offset else 2
        self.taken: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            stored = json.loads(path.read_text())
            self._next = int(stored["next"])
            self.taken = {str(uid): str(ip) for uid, ip in stored["taken"].items()}

    def of(self, uid: str) -> str:
        """The pod's address, allocated on first use.

        Raises:
            ConfigError: all are taken.
        """
        if uid in self.taken:
            return self.taken[uid]
        used = set(self.taken.values()) | procfs.listening_hosts("127.10.")
        for _ in range(65536):
            number = self._next
            self._next = number + 1 if number < 65534 else 2
            ip = f"127.10.{number // 256}.{number % 256}"
            if number % 256 not in (0, 255) and ip not in used:
                self.taken[uid] = ip
                self._save()
                return ip
        raise ConfigError("all pod addresses of 127.10.0.0/16 are taken; delete pods")

    def release(self, uid: str) -> None:
        if self.taken.pop(uid, None) is not None:
            self._save()

    def keep(self, uids: set[str]) -> None:
        """Forgets all others."""
        self.taken = {uid: ip for uid, ip in self.taken.items() if uid in uids}

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"next": self._next, "taken": self.taken}))
        fresh.replace(self._path)


class Container:
    """One container of a pod: its state, its process, its back-off."""

    def __init__(self, spec: Object, directory: Path, init: bool) -> None:
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
        self.cpu_base_ns = 0
        self.cpu_last_ns = 0
        self.environment: dict[str, str] = {}
        self.cwd = "/"
        self.mounts: list[tuple[str, str]] = []
        self.claims_ports = False
        self.killed_for = ""
        self.told = ""
        self.tasks: list[asyncio.Task[None]] = []

    def declared_ports(self) -> set[tuple[int, str]]:
        return {(int(port["containerPort"]), port.get("protocol") or "TCP") for port in self.spec.get("ports") or []}

    def tcp_ports(self) -> set[int]:
        return {port for port, protocol in self.declared_ports() if protocol == "TCP"}

    def cpu_ns(self) -> int:
        """CPU time of the running attempt; it never goes down."""
        if self.process is None or not self.process.running:
            return self.cpu_last_ns
        raw = procfs.tree_figures(self.process.shim_pid).cpu_ns + self.cpu_base_ns
        if raw < self.cpu_last_ns:
            self.cpu_base_ns += self.cpu_last_ns - raw
            raw = self.cpu_last_ns
        self.cpu_last_ns = raw
        return raw

    def stop_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()


class PodWorker:
    """Runs one pod. ``observe`` brings its newest object; ``run`` ends when the pod is gone."""

    def __init__(self, manager: "PodManager", pod: Object) -> None:
        self.manager = manager
        self.pod = pod
        meta = pod["metadata"]
        self.uid: str = meta["uid"]
        self.name: str = meta["name"]
        self.namespace: str = meta.get("namespace") or "default"
        self.directory = manager.directory / "pods" / self.uid
        self.state = PodState()
        spec = pod["spec"]
        self.containers = [
            *(self._container(one, init=True) for one in spec.get("initContainers") or []),
            *(self._container(one, init=False) for one in spec.get("containers") or []),
        ]
        self.state.containers = [one.state for one in self.containers]
        self.gone = False
        self.frozen = False
        self._wake = asyncio.Event()
        self._volumes: dict[str, Path] | None = None
        self._volumes_at = 0.0
        self._objects: dict[tuple[str, str], Object | None] = {}
        self._written: Object | None = None
        self._status_retry_at = 0.0

    def _container(self, spec: Object, init: bool) -> Container:
        return Container(spec, self.directory / "containers" / spec["name"], init)

    # -- what comes from outside ---------------------------------------------------------------------------------

    def observe(self, pod: Object) -> None:
        self.pod = pod
        self._wake.set()

    def removed(self) -> None:
        """The object is gone from the API."""
        self.gone = True
        self._wake.set()

    @property
    def deleting(self) -> bool:
        return self.gone or bool(self.pod["metadata"].get("deletionTimestamp"))

    @property
    def policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy") or "Always")

    @property
    def ip(self) -> str:
        return self.state.ip

    def find(self, name: str) -> Container | None:
        return next((one for one in self.containers if one.name == name), None)

    # -- adoption ------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Takes over what an earlier node process left: running containers, exit codes, counts, back-offs."""
        try:
            record = json.loads((self.directory / "pod.json").read_text())
        except (OSError, ValueError):
            record = {}
        self.state.started_ms = int(record.get("started_ms") or 0)
        self.state.ip = self._address()
        for one in self.containers:
            kept = record.get("containers", {}).get(one.name, {})
            one.state.restart_count = int(kept.get("restart_count") or 0)
            one.state.last_terminated = kept.get("last_terminated")
            one.backoff_s = float(kept.get("backoff_s") or 0.0)
            one.claims_ports = bool(kept.get("claims_ports"))
            one.environment = kept.get("environment") or {}
            one.cwd = kept.get("cwd") or "/"
            one.mounts = [(pair[0], pair[1]) for pair in kept.get("mounts") or []]
            traces = process.attempts(one.directory)
            if not traces:
                continue
            one.attempt = traces[-1]
            one.state.restart_count = max(one.state.restart_count, one.attempt)
            if kept.get("terminated") and kept.get("attempt") == one.attempt and kept.get("final"):
                one.state.terminated, one.state.waiting = kept["terminated"], None
                continue
            running = process.adopt(one.directory, one.attempt, partial(self._exited, one))
            if running is not None:
                self._attach(one, running, probing=True)
                if one.claims_ports:
                    self.manager.on_host_ports(one.tcp_ports(), self)
                continue
            ended = process.read_exit(one.directory, one.attempt)
            numbers = process.read_run(one.directory, one.attempt)
            started_ms = numbers[4] if numbers else clock.now_ms()
            if ended is None:
                ended = process.Exit(137, 9, clock.now_ms(), 0, "the container ended while its node was down")
            self._ended(one, ended, started_ms, crash=not kept.get("stopped_by_node"))

    def _address(self) -> str:
        if self.pod["spec"].get("hostNetwork"):
            return "127.0.0.1"
        return self.manager.addresses.of(self.uid)

    def _save(self, stopped_by_node: bool = False) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "started_ms": self.state.started_ms,
            "containers": {
                one.name: {
                    "attempt": one.attempt,
                    "restart_count": one.state.restart_count,
                    "last_terminated": one.state.last_terminated,
                    "terminated": one.state.terminated,
                    "final": one.state.terminated is not None and one.restart_at is None,
                    "backoff_s": one.backoff_s,
                    "claims_ports": one.claims_ports,
                    "environment": one.environment,
                    "cwd": one.cwd,
                    "mounts": one.mounts,
                    "stopped_by_node": stopped_by_node,
                }
                for one in self.containers
            },
        }
        fresh = self.directory / "pod.json.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(record, file)
        fresh.replace(self.directory / "pod.json")

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            self._wake.clear()
            if self.deleting:
                await self.terminate()
                if await self._finish():
                    return
                due = clock.monotonic_s() + STATUS_RETRY_S
            elif self.frozen:
                return
            else:
                try:
                    due = await self._step()
                except ConfigError as exc:
                    self._all_waiting("CreateContainerConfigError", str(exc))
                    await self.event("Warning", "Failed", str(exc))
                    due = clock.monotonic_s() + NOT_RUNNABLE_RETRY_S
                except OSError as exc:
                    self._all_waiting("CreateContainerError", f"{exc.filename or self.directory}: {exc.strerror}")
                    due = clock.monotonic_s() + NOT_RUNNABLE_RETRY_S
                if not await self._write_status():
                    due = min(due, self._status_retry_at)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, min(3600.0, due - clock.monotonic_s())))

    async def _step(self) -> float:
        """Brings the pod nearer to what its object asks for; when to look again, in monotonic seconds."""
        now = clock.monotonic_s()
        due = now + 3600.0
        pod_phase = phase(self.policy, self.state)
        if pod_phase in ("Succeeded", "Failed"):
            for one in self.containers:
                if one.process is not None and one.process.running:
                    await self._stop(one, 2.0)
            self.manager.limiter_release(self)
            self.manager.off_host_ports(self)
            return due
        if not self.state.ip:
            self.state.ip = self._address()
            self.state.started_ms = self.state.started_ms or clock.now_ms()
            self._save()
        deadline_s = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline_s is not None:
            left = self.state.started_ms / 1000 + float(deadline_s) - clock.now_ms() / 1000
            if left <= 0:
                self.state.failed = (
                    "DeadlineExceeded",
                    "Pod was active on the node longer than the specified deadline",
                )
                self._wake.set()
                return now
            due = min(due, now + left)
        if self._volumes is None or (now - self._volumes_at >= VOLUME_REFRESH_S and volumes.mounted_objects(self.pod)):
            wait_s = await self._prepare_volumes()
            if wait_s is not None and self._volumes is None:
                return now + wait_s
        if volumes.mounted_objects(self.pod):
            due = min(due, self._volumes_at + VOLUME_REFRESH_S)

        for one in (one for one in self.containers if one.state.init):
            due = min(due, await self._advance(one))
            done = one.state.terminated is not None and one.state.terminated["exitCode"] == 0 and not one.state.running
            if not (done or (one.state.sidecar and one.state.running and one.state.started)):
                return due
        self.state.initialized = True
        for one in self.containers:
            if not one.state.init:
                due = min(due, await self._advance(one))
        return due

    async def _prepare_volumes(self) -> float | None:
        """None when done, else seconds until the next try."""
        try:
            await self._fetch_objects()
            self._volumes = volumes.prepare(
                self.pod,
                self.directory,
                self.manager.directory / "volumes",
                self._bytes_of,
                pod_ip=self.state.ip,
                node_name=self.manager.node_name,
                capacity=self.manager.capacity,
            )
        except (environment.MissingReferenceError, ConfigError) as exc:
            self._volumes_at = clock.monotonic_s()
            self._all_waiting("ContainerCreating", "")
            await self.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {exc}")
            return VOLUME_RETRY_S
        except FlyballError as exc:
            self._volumes_at = clock.monotonic_s()
            self._all_waiting("ContainerCreating", f"the API server cannot be asked: {exc}")
            return VOLUME_RETRY_S
        self._volumes_at = clock.monotonic_s()
        return None

    async def _fetch_objects(self) -> None:
        for kind, name in volumes.references(self.pod):
            resource = CONFIG_MAPS if kind == "ConfigMap" else SECRETS
            try:
                self._objects[kind, name] = await self.manager.client.get(resource, name, self.namespace)
            except KubeApiError as exc:
                if exc.code != 404:
                    raise
                self._objects[kind, name] = None

    def _bytes_of(self, kind: str, name: str) -> dict[str, bytes] | None:
        found = self._objects.get((kind, name))
        return None if found is None else volumes.object_values(kind, found)

    def _text_of(self, kind: str, name: str) -> dict[str, str] | None:
        values = self._bytes_of(kind, name)
        return None if values is None else {key: value.decode(errors="replace") for key, value in values.items()}

    def _all_waiting(self, reason: str, message: str) -> None:
        for one in self.containers:
            if not one.state.running and one.state.terminated is None:
                one.state.waiting = (reason, message)

    # -- one container -------------------------------------------------------------------------------------------

    async def _advance(self, one: Container) -> float:
        """Starts the container when it is time; when to look again."""
        now = clock.monotonic_s()
        far = now + 3600.0
        if one.state.running:
            return far
        if one.state.terminated is not None and one.restart_at is None:
            return far
        if one.restart_at is not None and now < one.restart_at:
            return one.restart_at
        if now < one.retry_at:
            return one.retry_at
        return await self._start(one)

    async def _start(self, one: Container) -> float:
        now = clock.monotonic_s()
        again = one.state.terminated is not None
        try:
            argv, env, cwd, words = await self._command(one)
        except environment.MissingReferenceError as exc:
            # A reference that is missing may appear.
            one.state.waiting = ("CreateContainerConfigError", str(exc))
            await self._tell_once(one, "Failed", f"Error: {exc}")
            self._objects.clear()
            self._volumes_at = 0.0
            self._volumes = None
            one.retry_at = now + VOLUME_RETRY_S
            return one.retry_at
        except images.NotRunnableError as exc:
            one.state.waiting = (exc.reason, str(exc))
            await self._tell_once(one, exc.reason, str(exc))
            one.retry_at = now + NOT_RUNNABLE_RETRY_S
            return one.retry_at
        alone = images.takes_bind_shim(argv) or images.listens_on_pod_ip(argv, self.state.ip, words)
        one.claims_ports = not alone
        taken = self.manager.port_conflict(self, one)
        if taken:
            one.claims_ports = False
            one.state.waiting = ("PortTaken", taken)
            await self._tell_once(one, "PortTaken", taken)
            one.retry_at = now + PORT_RETRY_S
            return one.retry_at
        if one.claims_ports:
            self.manager.on_host_ports(one.tcp_ports(), self)
        if again or one.attempt or process.attempts(one.directory):
            one.attempt = max([one.attempt, *process.attempts(one.directory)]) + 1 if again else one.attempt
        if again:
            one.state.restart_count += 1
            one.state.last_terminated = one.state.terminated
            for number in process.attempts(one.directory)[: -(ATTEMPTS_KEPT - 1) or None]:
                process.forget_attempt(one.directory, number)
        one.environment, one.cwd = env, cwd
        one.killed_for = one.told = ""
        one.restart_at = None
        if again:
            one.backoff_s = min(self.manager.backoff_max_s, one.backoff_s * 2 or self.manager.backoff_first_s)
        self._save()
        try:
            running = await process.start(one.directory, one.attempt, argv, env, cwd, partial(self._exited, one))
        except process.StartError as exc:
            ended = process.Exit(128, 0, clock.now_ms(), 0, str(exc))
            self._ended(one, ended, ended.finished_ms, reason="StartError")
            await self.event("Warning", "Failed", f"Error: {exc}")
            return one.restart_at or now + 3600.0
        self._attach(one, running, probing=True)
        await self.event("Normal", "Started", f"Started container {one.name}")
        return now + 3600.0

    async def _tell_once(self, one: Container, reason: str, message: str) -> None:
        if one.told != message:
            one.told = message
            await self.event("Warning", reason, message)

    def _attach(self, one: Container, running: ContainerProcess, probing: bool) -> None:
        one.process = running
        one.cpu_base_ns = one.cpu_last_ns = 0
        state = one.state
        state.running_since_ms = running.started_ms
        state.terminated = None
        state.waiting = None
        state.container_id = f"plain://{running.pid}"
        state.started = "startupProbe" not in one.spec
        state.ready = state.started and "readinessProbe" not in one.spec
        limit = ((one.spec.get("resources") or {}).get("limits") or {}).get("cpu")
        if limit is not None:
            self.manager.limiter.add(
                (self.uid, one.name), running.shim_pid, running.pid, parse_quantity(limit).as_float()
            )
        if probing:
            self._start_probes(one)

    def _exited(self, one: Container, _process: ContainerProcess) -> None:
        running = one.process
        if running is None or running.exit is None:
            return
        self._ended(one, running.exit, running.started_ms)
        self._wake.set()

    def _ended(
        self, one: Container, ended: process.Exit, started_ms: int, reason: str = "", crash: bool = True
    ) -> None:
        self.manager.limiter.remove((self.uid, one.name))
        one.stop_tasks()
        one.cpu_last_ns = max(one.cpu_last_ns, ended.cpu_ns)
        state = one.state
        state.terminated = {
            "exitCode": ended.code,
            "reason": reason or ("Completed" if ended.code == 0 else "Error"),
            "startedAt": clock.rfc3339(started_ms),
            "finishedAt": clock.rfc3339(ended.finished_ms),
            "containerID": state.container_id or None,
        }
        if ended.signal:
            state.terminated["signal"] = ended.signal
        if ended.message:
            state.terminated["message"] = ended.message
        state.running_since_ms = None
        state.ready = state.started = False
        state.waiting = None
        one.process = None
        again = (
            state.sidecar
            or (self.policy == "Always" and not state.init)
            or (self.policy != "Never" and ended.code != 0)
        )
        if self.deleting or self.frozen:
            again = False
        one.restart_at = None
        if again:
            if ended.finished_ms - started_ms >= BACKOFF_RESET_S * 1000 or not crash:
                one.backoff_s = 0.0
            wait_s = one.backoff_s
            one.restart_at = clock.monotonic_s() + wait_s
            if wait_s > 0:
                whole = f"{self.name}_{self.namespace}({self.uid})"
                message = f"back-off {wait_s:g}s restarting failed container={one.name} pod={whole}"
                state.waiting = ("CrashLoopBackOff", message)
                state.last_terminated = state.terminated
                self.manager.spawn(
                    self.event(
                        "Warning",
                        "BackOff",
                        f"Back-off restarting failed container {one.name} in pod {whole}",
                    )
                )
        if not self.frozen:
            with contextlib.suppress(OSError):
                self._save()

    async def _command(self, one: Container) -> tuple[list[str], dict[str, str], str, list[str]]:
        """(argv, environment, working directory, the manifest's words)."""
        spec = one.spec
        if volumes.references(self.pod) and not self._objects:
            await self._fetch_objects()
        one.mounts = volumes.mounts(spec, self._volumes or {})
        for folder in ("home", "tmp", "work"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        base = self.manager.base_environment(self)
        base["HOME"] = str(self.directory / "home")
        base["TMPDIR"] = str(self.directory / "tmp")
        env = environment.container_environment(
            self.pod,
            spec,
            base,
            self._text_of,
            pod_ip=self.state.ip,
            node_name=self.manager.node_name,
            capacity=self.manager.capacity,
        )
        words = images.command_line(spec.get("image") or "", spec.get("command") or [], spec.get("args") or [])
        expanded = [environment.expand(str(word), env) for word in words]
        # Values such as PYTHONPATH=/app name the image's paths; here they mean the volume's directory.
        env = environment.rewrite_environment(env, one.mounts)
        shim = str(self.manager.shim_directory)
        if not self.pod["spec"].get("hostNetwork"):
            env["PYTHONPATH"] = f"{shim}{os.pathsep}{env['PYTHONPATH']}" if env.get("PYTHONPATH") else shim
        cwd = spec.get("workingDir") or ""
        cwd = environment.rewrite_path(cwd, one.mounts) if cwd else str(self.directory / "work")
        if not os.path.isdir(cwd):
            raise images.NotRunnableError(
                "CreateContainerError",
                f'workingDir "{cwd}" is not on this machine (no image is pulled); mount a volume there or leave it out',
            )
        argv = [environment.rewrite_argument(word, one.mounts) for word in expanded]
        env.setdefault("PATH", os.defpath)
        return images.resolve(argv, env["PATH"], cwd), env, cwd, [str(word) for word in words]

    async def execute(self, one: Container, command: list[str], timeout_s: float) -> tuple[int | None, str]:
        """Runs a command beside the container: its environment, directory and paths."""
        argv = [environment.rewrite_argument(word, one.mounts) for word in command]
        env = one.environment or self.manager.base_environment(self)
        try:
            argv = images.resolve(argv, env.get("PATH", os.defpath), one.cwd)
        except images.NotRunnableError as exc:
            return 127, str(exc)
        return await probes.run_command(argv, env, one.cwd, timeout_s)

    # -- probes --------------------------------------------------------------------------------------------------

    def _start_probes(self, one: Container) -> None:
        one.stop_tasks()
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = one.spec.get(kind)
            if probe:
                task = asyncio.create_task(self._probe(one, kind, probe), name=f"{self.name}/{one.name} {kind}")
                one.tasks.append(task)

    async def _probe(self, one: Container, kind: str, probe: Object) -> None:
        word = kind.removesuffix("Probe")
        while kind != "startupProbe" and not one.state.started:
            await asyncio.sleep(0.1)

        def settled(good: bool) -> None:
            if kind == "startupProbe" and good:
                one.state.started = True
                one.state.ready = "readinessProbe" not in one.spec
            elif kind == "readinessProbe":
                one.state.ready = good
            elif not good:
                one.killed_for = word
                self.manager.spawn(self._kill_unhealthy(one, word))
            self._wake.set()

        async def failed(message: str) -> None:
            await self.event("Warning", "Unhealthy", f"{word.capitalize()} probe failed: {message}")

        async def attempt() -> str:
            async def execute(command: Any, timeout_s: float) -> tuple[int | None, str]:
                return await self.execute(one, list(command), timeout_s)

            return await probes.check(probe, one.spec, self.state.ip, execute)

        prober = probes.Prober(probe, attempt, settled, failed, kind == "startupProbe", eager=kind != "livenessProbe")
        await prober.run()

    async def _kill_unhealthy(self, one: Container, word: str) -> None:
        await self.event("Normal", "Killing", f"Container {one.name} failed {word} probe, will be restarted")
        if one.process is not None:
            await self._stop(one, float(self.pod["spec"].get("terminationGracePeriodSeconds") or 30))

    # -- the end -------------------------------------------------------------------------------------------------

    async def _stop(self, one: Container, grace_s: float) -> None:
        """preStop, SIGTERM, the grace period, SIGKILL."""
        running = one.process
        if running is None or not running.running:
            return
        self.manager.limiter.remove((self.uid, one.name))
        deadline = clock.monotonic_s() + grace_s
        hook = (one.spec.get("lifecycle") or {}).get("preStop") or {}
        with contextlib.suppress(TimeoutError):
            if "exec" in hook:
                await self.execute(one, hook["exec"].get("command") or ["true"], grace_s)
            elif "sleep" in hook:
                await running.wait_for(min(grace_s, float(hook["sleep"].get("seconds") or 0)))
            elif "httpGet" in hook:
                await probes.http_get(hook["httpGet"], one.spec, self.state.ip, grace_s)
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGCONT)
        if not await running.wait_for(max(0.0, deadline - clock.monotonic_s())):
            running.signal(signal.SIGKILL)
            if not await running.wait_for(5.0):
                with contextlib.suppress(OSError):
                    os.kill(running.shim_pid, signal.SIGKILL)
                await running.wait_for(2.0)

    async def terminate(self) -> None:
        """Ends all containers, at the object's grace period or within 2 s when the object is already gone."""
        grace_s = self.pod["metadata"].get("deletionGracePeriodSeconds")
        if grace_s is None:
            grace_s = self.pod["spec"].get("terminationGracePeriodSeconds") or 30
        if self.gone:
            grace_s = min(2, grace_s)
        alive = [one for one in self.containers if one.process is not None and one.process.running]
        for one in self.containers:
            one.stop_tasks()
            one.restart_at = None
        if not alive:
            return
        # New connections must not reach a program that is about to close.
        self.manager.withdraw(self.state.ip)
        if not self.gone:
            for one in alive:
                await self.event("Normal", "Killing", f"Stopping container {one.name}")
        watch = asyncio.create_task(self._removed_meanwhile())
        stops = asyncio.gather(*(self._stop(one, float(grace_s)) for one in alive))
        try:
            waited: list[asyncio.Future[Any]] = [watch, stops]
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if stops not in done:
                for one in alive:
                    if one.process is not None:
                        one.process.signal(signal.SIGKILL)
            await stops
        finally:
            watch.cancel()

    async def _removed_meanwhile(self) -> None:
        """Returns when the pod is deleted by force while its grace period runs."""
        while not (self.gone or self.pod["metadata"].get("deletionGracePeriodSeconds") == 0):
            self._wake.clear()
            await self._wake.wait()

    async def _finish(self) -> bool:
        """Removes the object and the directory; whether that is done."""
        if not self.gone:
            await self._write_status()
            try:
                await self.manager.client.delete(PODS, self.name, self.namespace, uid=self.uid, grace_period_s=0)
            except KubeApiError as exc:
                if exc.code not in (404, 409):
                    return False
            except FlyballError:
                return False
        self.manager.limiter_release(self)
        self.manager.off_host_ports(self)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.manager.addresses.release(self.uid)
        return True

    async def freeze(self, stop: bool, grace_s: float = 5.0) -> None:
        """The node ends: with ``stop`` the containers too (their pods start anew with the next node)."""
        self.frozen = True
        for one in self.containers:
            one.stop_tasks()
        if stop:
            with contextlib.suppress(OSError):
                self._save(stopped_by_node=True)
            await asyncio.gather(*(self._stop(one, grace_s) for one in self.containers))
        for one in self.containers:
            if one.process is not None:
                one.process.close()

    # -- the API -------------------------------------------------------------------------------------------------

    async def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        await self.manager.recorder.event(self.pod, kind, reason, message)

    async def _write_status(self) -> bool:
        """Whether the API has the newest status."""
        status = build(self.pod, self.state, clock.now_ms())
        if status == self._written:
            return True
        if self.gone:
            return True
        try:
            written = await self.manager.client.patch(
                PODS, self.name, {"metadata": {"uid": self.uid}, "status": status}, self.namespace, "status"
            )
        except KubeApiError as exc:
            if exc.code in (404, 409, 422):
                self._written = status  # the object is gone or another one; its watch event will say so
                return True
            self._status_retry_at = clock.monotonic_s() + STATUS_RETRY_S
            return False
        except FlyballError:
            self._status_retry_at = clock.monotonic_s() + STATUS_RETRY_S
            return False
        self._written = status
        conditions = (written.get("status") or {}).get("conditions")
        if conditions:
            # Transition times carry on from what was written, also before the watch brings it back.
            self.pod.setdefault("status", {})["conditions"] = conditions
        return True


class PodManager:
    """All pods of this node."""

    def __init__(
        self,
        directory: Path,
        port_offset: int,
        client: KubeClient,
        recorder: EventRecorder,
        *,
        node_name: str = "flyball",
        capacity: Mapping[str, str] | None = None,
        backoff_first_s: float = BACKOFF_FIRST_S,
        backoff_max_s: float = BACKOFF_MAX_S,
    ) -> None:
        self.directory = directory
        self.client = client
        self.recorder = recorder
        self.node_name = node_name
        self.capacity = dict(capacity or {})
        self.backoff_first_s = backoff_first_s
        self.backoff_max_s = backoff_max_s
        self.api_port = 6443 + port_offset
        self.limiter = CpuLimiter()
        self.shim_directory = Path(__file__).with_name("shim")
        self.workers: dict[str, PodWorker] = {}
        self.service_environment: Callable[[str], dict[str, str]] = lambda _namespace: {}
        self.withdraw: Callable[[str], None] = lambda _ip: None
        self.yield_ports: Callable[[set[int], str], None] = lambda _ports, _ip: None
        self.take_back_ports: Callable[[set[int], str], None] = lambda _ports, _ip: None
        (directory / "pods").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.addresses = Addresses(directory / "addresses.json", port_offset)
        self._bin = directory / "bin"
        self._write_bin()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loose: set[asyncio.Task[None]] = set()
        self._closing = False

    def _write_bin(self) -> None:
        """``python`` and ``python3`` for shells and scripts in pods: the interpreter that runs Flyball."""
        self._bin.mkdir(parents=True, exist_ok=True)
        for name in ("python", "python3"):
            text = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
            path = self._bin / name
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
                path.chmod(0o755)

    def base_environment(self, worker: PodWorker) -> dict[str, str]:
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env.setdefault("LANG", "C.UTF-8")
        env["PATH"] = os.pathsep.join(
            [str(self._bin), os.path.dirname(sys.executable), os.environ.get("PATH") or os.defpath]
        )
        env["PYTHONUNBUFFERED"] = "1"  # as most images of Python programs have it: a log is read while it runs
        if worker.pod["spec"].get("enableServiceLinks", True):
            env.update(self.service_environment(worker.namespace))
        env["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
        env["KUBERNETES_SERVICE_PORT"] = env["KUBERNETES_SERVICE_PORT_HTTPS"] = str(self.api_port)
        env["HOSTNAME"] = str(worker.pod["spec"].get("hostname") or worker.name)
        env["POD_IP"] = worker.ip
        return env

    # -- pods come and go ----------------------------------------------------------------------------------------

    def continue_all(self) -> None:
        """Continues what a limiter of an earlier node process left stopped; needs no API."""
        for containers in (self.directory / "pods").glob("*/containers/*"):
            for attempt in process.attempts(containers)[-1:]:
                numbers = process.read_run(containers, attempt)
                if numbers and procfs.same_process(numbers[2], numbers[3], numbers[4]):
                    with contextlib.suppress(OSError):
                        os.killpg(numbers[2], signal.SIGCONT)

    def observe(self, change: str, pod: Object) -> None:
        """A pod was added, changed or removed."""
        if self._closing:
            return
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if change == "DELETED":
            if worker is not None:
                worker.removed()
            return
        if worker is not None:
            worker.observe(pod)
            return
        worker = PodWorker(self, pod)
        if worker.directory.exists():
            worker.adopt()
        elif (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") and not worker.deleting:
            return  # it ended under a node whose directory is gone; there is nothing to run
        self.workers[uid] = worker
        self._tasks[uid] = asyncio.create_task(self._run(worker), name=f"pod {worker.namespace}/{worker.name}")

    async def _run(self, worker: PodWorker) -> None:
        while True:
            try:
                await worker.run()
                break
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # one pod's trouble must not end the others
                await worker.event("Warning", "Failed", f"{type(exc).__name__}: {exc}")
                await asyncio.sleep(5.0)
        if not worker.frozen:
            self.workers.pop(worker.uid, None)
            self._tasks.pop(worker.uid, None)

    async def remove_strangers(self) -> None:
        """Ends what runs for pods that the API does not know any more; call it once the pods are synced."""
        uids = set(self.workers)
        for path in (self.directory / "pods").iterdir():
            if path.name in uids:
                continue
            for containers in path.glob("containers/*"):
                for attempt in process.attempts(containers)[-1:]:
                    running = process.adopt(containers, attempt)
                    if running is not None:
                        running.signal(signal.SIGTERM)
                        if not await running.wait_for(2.0):
                            running.signal(signal.SIGKILL)
                            await running.wait_for(5.0)
            shutil.rmtree(path, ignore_errors=True)
        self.addresses.keep(uids)

    def port_conflict(self, worker: PodWorker, one: Container) -> str:
        """Why the container cannot have its ports in the host's network; ``""`` when it can."""
        wanted = one.declared_ports()
        for other in self.workers.values():
            for their in other.containers:
                if their is one or not their.state.running or not (their.claims_ports or one.claims_ports):
                    continue
                for port, _ in sorted(wanted & their.declared_ports()):
                    culprit = one if one.claims_ports else their
                    return (
                        f"containerPort {port} is taken by pod {other.namespace}/{other.name}: the program of container"
                        f' "{culprit.name}" is not Python, so it listens on every address of this machine and only one '
                        "such pod can run; run one replica, or make the program listen on $(POD_IP)"
                    )
        return ""

    def on_host_ports(self, ports: set[int], worker: PodWorker) -> None:
        self.yield_ports(ports, worker.ip)

    def off_host_ports(self, worker: PodWorker) -> None:
        """The pod has ended: its ports are free, but for those that another pod at its address has by now."""
        claimed = [one for one in worker.containers if one.claims_ports]
        ports = {port for one in claimed for port in one.tcp_ports()}
        for one in claimed:
            one.claims_ports = False
        for other in self.workers.values():
            if other is not worker and other.ip == worker.ip:
                ports -= {port for one in other.containers if one.claims_ports for port in one.tcp_ports()}
        if ports:
            self.take_back_ports(ports, worker.ip)

    def limiter_release(self, worker: PodWorker) -> None:
        for one in worker.containers:
            self.limiter.remove((worker.uid, one.name))

    def spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The youngest pod of that name."""
        found = [one for one in self.workers.values() if (one.namespace, one.name) == (namespace, name)]
        return found[-1] if found else None

    async def close(self, stop_pods: bool = False, grace_s: float = 5.0) -> None:
        """Leaves all pods running, none of them stopped by the limiter; with ``stop_pods`` ends them."""
        self._closing = True
        await asyncio.gather(*(worker.freeze(stop_pods, grace_s) for worker in self.workers.values()))
        tasks = [*self._tasks.values(), *self._loose]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.limiter.close)

    def statistics(self) -> dict[str, float]:
        running = [one for worker in self.workers.values() for one in worker.containers if one.state.running]
        return {"pods": len(self.workers), "containers": len(running), **self.limiter.statistics()}
