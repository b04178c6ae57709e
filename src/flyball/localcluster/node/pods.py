"""All pods of this node, and what they share: addresses, limits, ports of the machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from flyball.kube import EventRecorder, KubeClient
from flyball.localcluster.node import images, names, process, procfs, runtimes
from flyball.localcluster.node.addresses import API_SERVER_IP, Addresses
from flyball.localcluster.node.cgroups import Cgroups
from flyball.localcluster.node.container import Container
from flyball.localcluster.node.limiter import CpuLimiter
from flyball.localcluster.node.nodeobjects import FIRST
from flyball.localcluster.node.podworker import PodWorker
from flyball.localcluster.node.series import NodeSeries

Object = dict[str, Any]

BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 300.0
_SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # an image has them on its PATH, an ordinary user has not
_PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_GROUP_TRIES, _GROUP_TRY_S = 50, 0.02


class PodManager:
    """All pods of this node."""

    def __init__(
        self,
        directory: Path,
        port_offset: int,
        client: KubeClient,
        recorder: EventRecorder,
        *,
        nodes: Sequence[str] = (FIRST,),
        runtime: str = runtimes.PLAIN,
        addressed: bool = False,
        groups: Cgroups | None = None,
        image_commands: Sequence[str] = (),
        capacity: Mapping[str, str] | None = None,
        backoff_first_s: float = BACKOFF_FIRST_S,
        backoff_max_s: float = BACKOFF_MAX_S,
    ) -> None:
        self.directory = directory
        self.client = client
        self.recorder = recorder
        self.nodes = tuple(nodes)
        self.runtime = runtime
        self.addressed = addressed
        self.cgroups = groups
        self.images = images.with_own(image_commands)
        self.capacity = dict(capacity or {})
        self.backoff_first_s = backoff_first_s
        self.backoff_max_s = backoff_max_s
        self.api_port = 6443 + port_offset
        self.limiter = CpuLimiter()
        self.series = NodeSeries()
        self.shim_directory = Path(__file__).with_name("shim")
        self.workers: dict[str, PodWorker] = {}
        self.service_environment: Callable[[str], dict[str, str]] = lambda _namespace: {}
        self.names: Callable[[], Mapping[str, Sequence[str]]] = dict
        self.nameserver = ""  # the cluster's; without one a pod's /etc/hosts has the names
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
        path = [str(self._bin), os.path.dirname(sys.executable), os.environ.get("PATH") or os.defpath]
        env["PATH"] = os.pathsep.join([*path, *_SYSTEM_PROGRAMS])
        env["PYTHONUNBUFFERED"] = "1"  # as most images of Python programs have it: a log is read while it runs
        if worker.pod["spec"].get("enableServiceLinks", True):
            env.update(self.service_environment(worker.namespace))
        # A pod may itself listen on the API server's port, and then localhost means the pod.
        env["KUBERNETES_SERVICE_HOST"] = API_SERVER_IP if procfs.LINUX else "127.0.0.1"
        env["KUBERNETES_SERVICE_PORT"] = env["KUBERNETES_SERVICE_PORT_HTTPS"] = str(self.api_port)
        env["HOSTNAME"] = str(worker.pod["spec"].get("hostname") or worker.name)
        env["POD_IP"] = worker.ip
        spec = worker.pod["spec"]
        if spec.get("dnsPolicy", "ClusterFirst") in names.CLUSTER_POLICIES:
            searches = (spec.get("dnsConfig") or {}).get("searches") or []
            env["FLYBALL_NAMES"] = str(self.directory / "names.json")
            env["FLYBALL_SEARCH"] = " ".join([*names.search_list(worker.namespace), *searches])
        return env

    # -- pods come and go ----------------------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Waits for what an earlier node process was starting, continues what it left stopped; needs no API."""
        for containers in (self.directory / "pods").glob("*/containers/*"):
            await process.settle(containers)
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
                await self._end(containers)
            shutil.rmtree(path, ignore_errors=True)
        self.addresses.keep(uids)

    async def _end(self, containers: Path) -> None:
        """Ends what still runs of a container that no worker keeps."""
        await process.settle(containers)
        for attempt in process.attempts(containers)[-1:]:
            running = process.adopt(containers, attempt)
            if running is not None:
                running.signal(signal.SIGTERM)
                if not await running.wait_for(2.0):
                    running.signal(signal.SIGKILL)
                    await running.wait_for(5.0)

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

    def names_changed(self) -> None:
        """Programs that read /etc/hosts learn of it."""
        for worker in self.workers.values():
            with contextlib.suppress(OSError):
                worker.write_network_files()

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
            if self.cgroups is not None and one.cgroup:
                self.cgroups.release(one.cgroup)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    @property
    def node_name(self) -> str:
        """The first node's, by which the machine itself is known."""
        return self.nodes[0]

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
        if stop_pods:  # what was just being started, too
            containers = [one.directory for worker in self.workers.values() for one in worker.containers]
            await asyncio.gather(*map(self._end, containers))
        await asyncio.to_thread(self.limiter.close)
        if self.cgroups is not None:
            tries = _GROUP_TRIES if stop_pods else 1  # the killed stay in their group for a moment
            while not self.cgroups.release_all() and (tries := tries - 1):
                await asyncio.sleep(_GROUP_TRY_S)

    def statistics(self) -> dict[str, float]:
        running = [one for worker in self.workers.values() for one in worker.containers if one.state.running]
        return {"pods": len(self.workers), "containers": len(running), **self.limiter.statistics()}
