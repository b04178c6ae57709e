"""One pod: from its object to running containers, and to their end."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flyball import clock
from flyball.errors import ConfigError, FlyballError, KubeApiError
from flyball.kube.kinds import PODS
from flyball.localcluster.node import dnsserver, environment, images, launch, names, process, runtimes, volumes
from flyball.localcluster.node.container import STOP_GRACE_S, Container
from flyball.localcluster.node.podobjects import PodObjects
from flyball.localcluster.node.process import ContainerProcess
from flyball.localcluster.node.status import HOST_IP, PodState, phase
from flyball.localcluster.node.statuswriter import StatusWriter
from flyball.model.quantities import parse_quantity

if TYPE_CHECKING:
    from flyball.localcluster.node.pods import PodManager

Object = dict[str, Any]

BACKOFF_RESET_S = 600.0
VOLUME_RETRY_FIRST_S, VOLUME_RETRY_S = 0.1, 2.0
VOLUME_REFRESH_S = 30.0
NOT_RUNNABLE_RETRY_S = 20.0
PORT_RETRY_S = 1.0
STATUS_RETRY_S = 1.0
ATTEMPTS_KEPT = 2
SIDECAR_GRACE_MIN_S = 2.0


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
        self._add_ephemeral()
        self.gone = False
        self.frozen = False
        self._wake = asyncio.Event()
        self._volumes: dict[str, Path] | None = None
        self._volumes_at = 0.0
        self._seen_s: float | None = clock.monotonic_s()  # until its start has been told, or when it ran before us
        self._looks = 0
        self._volume_retry_s = VOLUME_RETRY_FIRST_S
        self._files: dict[str, str] = {}
        self._objects = PodObjects(manager.client, self.namespace)
        self._status = StatusWriter(manager.client)

    def _container(self, spec: Object, init: bool) -> Container:
        return Container(self, spec, self.directory / "containers" / spec["name"], init)

    def _add_ephemeral(self) -> None:
        """Containers that were added while the pod runs."""
        for one in self.pod["spec"].get("ephemeralContainers") or []:
            if self.find(one["name"]) is None:
                self.containers.append(self._container(one, init=False))
                self.containers[-1].state.ephemeral = True
        self.state.containers = [one.state for one in self.containers]

    # -- what comes from outside ---------------------------------------------------------------------------------

    def observe(self, pod: Object) -> None:
        self.pod = pod
        self._add_ephemeral()
        self._wake.set()

    def wake(self) -> None:
        """Something has changed: look at the pod again."""
        self._wake.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside the pod's own loop."""
        self.manager.spawn(work)

    def base_environment(self) -> dict[str, str]:
        """What every container of the pod has in its environment."""
        return self.manager.base_environment(self)

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

    def write_network_files(self) -> None:
        """The pod's own /etc/hosts and resolv.conf, in place, for its programs that have them open or mounted."""
        if self.manager.runtime != runtimes.MOUNT or not self.state.ip or self.deleting:
            return
        nameserver = self.manager.nameserver
        texts = {"hosts": names.hosts_text(self.pod, self.state.ip, {} if nameserver else self.manager.names())}
        if nameserver:
            texts["resolv.conf"] = names.resolver_text(self.pod, nameserver, dnsserver.host_resolver())
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in texts.items():
            if self._files.get(name) != text:
                (self.directory / name).write_text(text)
                self._files[name] = text

    # -- adoption ------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Takes over what an earlier node process left: running containers, exit codes, counts, back-offs."""
        try:
            record = json.loads((self.directory / "pod.json").read_text())
        except (OSError, ValueError):
            record = {}
        else:
            self._seen_s = None
            self._looks = 1
        self.state.started_ms = int(record.get("started_ms") or 0)
        self.state.initialized = bool(record.get("initialized"))
        self.state.ip = self._address()
        for one in self.containers:
            kept = record.get("containers", {}).get(one.name, {})
            one.restore(kept)
            traces = process.attempts(one.directory)
            final = int(kept["attempt"]) if kept.get("terminated") and kept.get("final") else -1
            if not traces and final < 0:
                continue
            one.attempt = traces[-1] if traces else final  # what could not be started has left no trace
            one.state.restart_count = max(one.state.restart_count, one.attempt)
            if one.attempt == final:
                one.state.terminated, one.state.waiting = kept["terminated"], None
                continue
            running = process.adopt(one.directory, one.attempt, partial(self._exited, one))
            if running is not None:
                self._attach(one, running, adopted=True)
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
        if not self.pod["spec"].get("hostNetwork"):
            return self.manager.addresses.of(self.uid)
        node = self.pod["spec"].get("nodeName")
        if node == self.manager.node_name or not self.manager.addressed:
            return HOST_IP
        # The first node is the machine itself; every other has an address that its pods of the host's network share.
        return self.manager.addresses.of(f"node/{node}")

    def _save(self, stopped_by_node: bool = False) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "started_ms": self.state.started_ms,
            "initialized": self.state.initialized,
            "containers": {
                one.name: {**one.to_record(), "stopped_by_node": stopped_by_node} for one in self.containers
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
                with self._looking("terminating"):
                    await self.terminate()
                with self._looking("terminated"):
                    if await self._finish():
                        return
                due = clock.monotonic_s() + STATUS_RETRY_S
            elif self.frozen:
                return
            else:
                try:
                    with self._looking("sync" if self._looks else "create"):
                        due = await self._step()
                except ConfigError as exc:
                    self._all_waiting("CreateContainerConfigError", str(exc))
                    await self.event("Warning", "Failed", str(exc))
                    due = clock.monotonic_s() + NOT_RUNNABLE_RETRY_S
                except OSError as exc:
                    self._all_waiting("CreateContainerError", f"{exc.filename or self.directory}: {exc.strerror}")
                    due = clock.monotonic_s() + NOT_RUNNABLE_RETRY_S
                if not await self._status.write(self.pod, self.state, self.gone):
                    due = min(due, clock.monotonic_s() + STATUS_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    max(0.0, min(3600.0, due - clock.monotonic_s()))
                ):  # wait_for may lose a cancellation
                    await self._wake.wait()

    @contextlib.contextmanager
    def _looking(self, what: str) -> Iterator[None]:
        began_s = clock.monotonic_s()
        self._looks += 1
        try:
            yield
        finally:
            now_s = clock.monotonic_s()
            self.manager.series.pod_work.observe(now_s - began_s, (what,))
            if self._seen_s is not None and all(one.running for one in self.state.mains):
                self.manager.series.pod_starts.observe(now_s - self._seen_s)
                self._seen_s = None

    def mounted_volumes(self) -> Mapping[str, Path]:
        """The directories of the volumes that are ready, by name."""
        return self._volumes or {}

    async def _step(self) -> float:
        """Brings the pod nearer to what its object asks for; when to look again, in monotonic seconds."""
        now = clock.monotonic_s()
        due = now + 3600.0
        pod_phase = phase(self.pod, self.state)
        if pod_phase in ("Succeeded", "Failed"):
            for one in self.containers:
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

        for one in (one for one in self.containers if one.state.ephemeral):
            due = min(due, await self._advance(one))
        for one in (one for one in self.containers if one.state.init):
            due = min(due, await self._advance(one))
            done = one.state.terminated is not None and one.state.terminated["exitCode"] == 0 and not one.state.running
            if not (done or (one.state.sidecar and one.state.running and one.state.started)):
                return due
        self.state.initialized = True
        for one in self.containers:
            if not (one.state.init or one.state.ephemeral):
                due = min(due, await self._advance(one))
        return due

    async def _prepare_volumes(self) -> float | None:
        """None when done, else seconds until the next try."""
        since_s = clock.monotonic_s()

        def told(volume: Object, good: bool) -> None:
            nonlocal since_s
            if self._volumes is None:  # the rest is refreshing
                self.manager.series.mounted(volume, clock.monotonic_s() - since_s, good=good)
            since_s = clock.monotonic_s()

        try:
            await self._objects.fetch(self.pod)
            since_s = clock.monotonic_s()
            self._volumes = volumes.prepare(
                self.pod,
                self.directory,
                self._objects.claim_path,
                self._objects.bytes_of,
                self._objects.token,
                pod_ip=self.state.ip,
                capacity=self.manager.capacity,
                told=told,
            )
        except (environment.MissingReferenceError, ConfigError) as exc:
            self._volumes_at = clock.monotonic_s()
            self._all_waiting("ContainerCreating", "")
            await self.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {exc}")
            # What is missing often comes a moment later, applied with the pod or made for its new namespace.
            wait_s, self._volume_retry_s = self._volume_retry_s, min(2 * self._volume_retry_s, VOLUME_RETRY_S)
            return wait_s
        except FlyballError as exc:
            self._volumes_at = clock.monotonic_s()
            self._all_waiting("ContainerCreating", f"the API server cannot be asked: {exc}")
            return VOLUME_RETRY_S
        self._volumes_at = clock.monotonic_s()
        return None

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
            await self._objects.fetch_once(self.pod)
            self.write_network_files()
            ready = launch.prepare(
                self.pod,
                one.spec,
                self.directory,
                self.base_environment(),
                self._objects.text_of,
                self._volumes or {},
                self.manager.shim_directory,
                pod_ip=self.state.ip,
                isolated=self.manager.runtime == runtimes.MOUNT,
                addressed=self.manager.addressed,
                table=self.manager.images,
                capacity=self.manager.capacity,
            )
        except environment.MissingReferenceError as exc:
            # A reference that is missing may appear.
            one.state.waiting = ("CreateContainerConfigError", str(exc))
            await one.tell_once("Failed", f"Error: {exc}")
            self._objects.forget()
            self._volumes_at = 0.0
            self._volumes = None
            one.retry_at = now + VOLUME_RETRY_S
            return one.retry_at
        except images.NotRunnableError as exc:
            one.state.waiting = (exc.reason, str(exc))
            await one.tell_once(exc.reason, str(exc))
            one.retry_at = now + NOT_RUNNABLE_RETRY_S
            return one.retry_at
        one.environment, one.cwd, one.mounts = ready.environment, ready.cwd, ready.mounts
        one.loopback, one.limits = ready.loopback, ready.limits
        one.claims_ports, one.isolated = not ready.has_own_address, ready.root is not None
        taken = self.manager.port_conflict(self, one)
        if taken:
            one.claims_ports = False
            one.state.waiting = ("PortTaken", taken)
            await one.tell_once("PortTaken", taken)
            one.retry_at = now + PORT_RETRY_S
            return one.retry_at
        if one.claims_ports:
            self.manager.on_host_ports(one.tcp_ports(), self)
        if again:
            one.attempt = max([one.attempt, *process.attempts(one.directory)]) + 1
            one.state.restart_count += 1
            one.state.last_terminated = one.state.terminated
            for number in process.attempts(one.directory)[: -(ATTEMPTS_KEPT - 1) or None]:
                process.forget_attempt(one.directory, number)
        one.started_anew()
        if again:
            one.backoff_s = min(self.manager.backoff_max_s, one.backoff_s * 2 or self.manager.backoff_first_s)
        groups = one.enter_group(self.manager.cgroups, f"{self.uid}-{one.name}")
        self._save()
        try:
            with self.manager.series.operation("start_container"):
                running = await process.start(
                    one.directory,
                    one.attempt,
                    ready.argv,
                    ready.environment,
                    ready.cwd,
                    partial(self._exited, one),
                    root=ready.root,
                    loopback=ready.loopback,
                    stdin=ready.stdin,
                    cgroups=groups,
                )
        except process.StartError as exc:
            ended = process.Exit(128, 0, clock.now_ms(), 0, str(exc))
            self._ended(one, ended, ended.finished_ms, reason="StartError")
            await self.event("Warning", "Failed", f"Error: {exc}")
            return one.restart_at or now + 3600.0
        self._attach(one, running)
        # Told beside the loop: the status, for which others wait, goes first.
        self.spawn(self.event("Normal", "Started", f"Started container {one.name}"))
        return now + 3600.0

    def _attach(self, one: Container, running: ContainerProcess, *, adopted: bool = False) -> None:
        one.attach(running, adopted=adopted)
        limit = one.limits.get("cpu")
        if limit is not None and not one.cgroup:
            cores = parse_quantity(limit).as_float()
            self.manager.limiter.add((self.uid, one.name), running.shim_pid, running.pid, cores)

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
        one.detach(ended.cpu_ns)
        state = one.state
        if one.was_oom_killed(self.manager.cgroups, ended.code):
            reason = "OOMKilled"
        state.terminated = {
            "exitCode": ended.code,
            "reason": reason or ("Completed" if ended.code == 0 else "Error"),
            "startedAt": clock.rfc3339(started_ms),
            "finishedAt": clock.rfc3339(ended.finished_ms),
            "containerID": state.container_id or None,
        }
        if ended.signal:
            state.terminated["signal"] = ended.signal
        if message := ended.message or one.last_words(ended.code):
            state.terminated["message"] = message
        state.running_since_ms = None
        state.ready = state.started = False
        state.waiting = None
        again = (
            state.sidecar
            or (self.policy == "Always" and not state.init)
            or (self.policy != "Never" and ended.code != 0)
        )
        if self.deleting or self.frozen or state.ephemeral:
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
                self.spawn(
                    self.event(
                        "Warning",
                        "BackOff",
                        f"Back-off restarting failed container {one.name} in pod {whole}",
                    )
                )
        if not self.frozen:
            with contextlib.suppress(OSError):
                self._save()

    # -- the end -------------------------------------------------------------------------------------------------

    async def _stop(self, one: Container, grace_s: float) -> None:
        self.manager.limiter.remove((self.uid, one.name))
        if one.alive:
            with self.manager.series.operation("stop_container"):
                await one.stop(grace_s)

    async def terminate(self) -> None:
        """Ends all containers, at the object's grace period or within 2 s when the object is already gone."""
        grace_s = self.pod["metadata"].get("deletionGracePeriodSeconds")
        if grace_s is None:
            grace_s = self.pod["spec"].get("terminationGracePeriodSeconds") or STOP_GRACE_S
        if self.gone:
            grace_s = min(2, grace_s)
        alive = [one for one in self.containers if one.alive]
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
        stops = asyncio.ensure_future(self._stop_in_order(alive, float(grace_s)))
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

    async def _stop_in_order(self, alive: list[Container], grace_s: float) -> None:
        """The containers at once, then the sidecars, last one first, in what is left of the grace period."""
        deadline = clock.monotonic_s() + grace_s
        await asyncio.gather(*(self._stop(one, grace_s) for one in alive if not one.state.sidecar))
        for one in reversed([one for one in alive if one.state.sidecar]):
            await self._stop(one, max(min(grace_s, SIDECAR_GRACE_MIN_S), deadline - clock.monotonic_s()))

    async def _removed_meanwhile(self) -> None:
        """Returns when the pod is deleted by force while its grace period runs."""
        while not (self.gone or self.pod["metadata"].get("deletionGracePeriodSeconds") == 0):
            self._wake.clear()
            await self._wake.wait()

    async def _finish(self) -> bool:
        """Removes the object and the directory; whether that is done."""
        if not self.gone:
            await self._status.write(self.pod, self.state, self.gone)
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
