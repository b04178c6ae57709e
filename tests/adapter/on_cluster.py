"""`flyball adapter` on a real control plane, installed by its own manifests, beside applications with a known load.

There is no kubelet and no service proxy, so the test plays them: pods become Ready by their status, and services have
loopback addresses (127.96.0.0/16), where the adapter listens at the address that its Service was given. Everything
between is as on any cluster: the aggregation layer with its proxy-client certificate and our authority in the
APIServices' caBundle, the adapter's service account with the permissions of the manifests, RBAC for everybody else, and
kube-controller-manager as it is.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.control_plane import RealControlPlane, free_port, write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tests.workloads.cluster import FakeNode, add_node
from tools.kubectl import find

from flyball import clock
from flyball.http.server import serve
from flyball.kube import KubeClient, Resource
from flyball.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES

ROOT = Path(__file__).parents[2]
SYSTEM = "flyball-system"
NAME = "flyball-adapter"
SERVICE_NETWORK = "127.96.0.0/16"
DEADLINE_S = 60.0
SYNC_S = 1  # of the HPA controller; 15 by default
#: What is recorded of each request: who, what, how it ended.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
CONFIG = """\
rules:
- seriesQuery: app_requests{pod!=""}
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: requests}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: front_requests{service!=""}
  resources: {overrides: {namespace: {resource: namespace}, service: {resource: service}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
externalRules:
- seriesQuery: queue_length
  resources: {namespaced: false}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)
resourceRules:
  cpu:
    containerQuery: sum(rate(container_cpu_seconds_total{<<.LabelMatchers>>}[5s])) by (<<.GroupBy>>)
    nodeQuery: sum(rate(node_cpu_seconds_total{<<.LabelMatchers>>}[5s])) by (<<.GroupBy>>)
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}
    containerLabel: container
  memory:
    containerQuery: sum(container_memory_bytes{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    nodeQuery: sum(node_memory_bytes{<<.LabelMatchers>>}) by (<<.GroupBy>>)
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}, node: {resource: node}}}
    containerLabel: container
  window: 5s
"""


@dataclass
class Exporter:
    """One page with the metrics of every application, whose load is shared evenly by its pods.

    Attributes:
        load: application -> requests per second, of all its pods; a hundredth of it is their CPU in cores, and each
            request per second takes a mebibyte of container ``main``.
    """

    node: FakeNode
    load: dict[str, float] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _read_s: float = field(default_factory=clock.monotonic_s)

    def page(self) -> str:
        now_s = clock.monotonic_s()
        passed_s, self._read_s = now_s - self._read_s, now_s
        lines = [f'queue_length{{queue="mail"}} {self.load.get("by-external", 0)}']
        pods: dict[str, list[Any]] = {}
        for pod in self.node.pods.cache.values():
            running = (pod.get("status") or {}).get("phase") == "Running"
            if running and not pod["metadata"].get("deletionTimestamp"):
                pods.setdefault((pod["metadata"].get("labels") or {}).get("app", ""), []).append(pod["metadata"])
        for app, load in self.load.items():
            space = 'namespace="default"'
            lines.append(f'front_requests{{{space},service="{app}"}} {load}')
            for pod in pods.get(app, ()):
                share = load / len(pods[app])
                labels = f'{space},pod="{pod["name"]}"'
                lines.append(f"app_requests{{{labels}}} {share}")
                lines.append(f'container_memory_bytes{{{labels},container="main"}} {share * (1 << 20)}')
                lines.append(f'container_memory_bytes{{{labels},container="side"}} {8 << 20}')
                for container, cores in (("main", share / 100), ("side", 0.0)):
                    seconds = self._counted(f'{labels},container="{container}"', cores * passed_s)
                    lines.append(f'container_cpu_seconds_total{{{labels},container="{container}"}} {seconds:.6f}')
        for name in ("one", "two"):
            lines.append(f'node_cpu_seconds_total{{node="{name}"}} {self._counted(name, 0.5 * passed_s):.6f}')
            lines.append(f'node_memory_bytes{{node="{name}"}} {1 << 30}')
        return "\n".join(lines) + "\n"

    def _counted(self, key: str, grown: float) -> float:
        self._seconds[key] = self._seconds.get(key, 0.0) + grown
        return self._seconds[key]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serves the page on a port of its own."""
        server = await serve(self, port=0, name="exporter")
        try:
            yield server.port
        finally:
            await server.close()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": self.page().encode()})


@dataclass
class Installed:
    """A real control plane with the adapter in it. ``client`` is an administrator."""

    directory: Path
    plane: RealControlPlane
    client: KubeClient
    exporter: Exporter
    prometheus: asyncio.subprocess.Process
    prometheus_url: str
    adapter: asyncio.subprocess.Process
    arguments: list[str]

    async def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: str = "kubeconfig") -> str:
        """Its output; a failure is an assertion."""
        code, out, err = await self.run(find(), *arguments, stdin=stdin, kubeconfig=kubeconfig)
        assert code == 0, f"kubectl {' '.join(arguments)}: {err}"
        return out

    async def run(
        self, *command: str, stdin: str | None = None, kubeconfig: str = "kubeconfig"
    ) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        return await run(*command, stdin=stdin, home=self.directory, kubeconfig=self.directory / kubeconfig)

    async def until(self, check: Callable[[], Awaitable[Any]], what: str, seconds: float = DEADLINE_S) -> Any:
        """The first true answer of ``check``."""
        last: Any = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        last = await check()
                    except Exception as exc:  # whatever is not ready yet fails in its own way
                        last = exc
                    else:
                        if last:
                            return last
                    await asyncio.sleep(0.2)
        log = (self.directory / "adapter.log").read_text()[-3000:]
        raise AssertionError(f"{what}: not within {seconds:.0f} s; the last answer was {last!r}\n{log}")

    async def reader(self, name: str, role: str) -> str:
        """A kubeconfig, by its name, of a new service account that has a cluster role."""
        await self.kubectl("create", "serviceaccount", name)
        subject = f"--serviceaccount=default:{name}"
        await self.kubectl("create", "clusterrolebinding", name, f"--clusterrole={role}", subject)
        token = (await self.kubectl("create", "token", name)).strip()
        write_kubeconfig(self.directory / f"kubeconfig-{name}", self.plane.base, token, self.plane.ca)
        return f"kubeconfig-{name}"

    def audited(self, user: str) -> list[dict[str, Any]]:
        """The requests of one user that were allowed, from the API server's audit log."""
        events = map(json.loads, (self.directory / "audit.log").read_text().splitlines())
        return [
            event
            for event in events
            if event["user"].get("username") == user
            and event["annotations"].get("authorization.k8s.io/decision") == "allow"
        ]


async def run(*command: str, home: Path, kubeconfig: Path, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # beside Python is where kubectl finds its plugin
        env={
            **os.environ,
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
    )
    out, err = await process.communicate(stdin.encode() if stdin is not None else None)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def program(log: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process whose output goes to a file, ended with the block if it still runs."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield process
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """Asks a process to stop, and waits."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


def audited_plane(directory: Path) -> RealControlPlane:
    """A control plane with controllers that have accounts of their own, loopback services and an audit log."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "audit.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
    return real_control_plane(
        directory,
        controllers=True,
        api_flags=(
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--audit-policy-file={directory / 'audit.yaml'}",
            f"--audit-log-path={directory / 'audit.log'}",
        ),
        controller_flags=(
            "--use-service-account-credentials=true",
            f"--horizontal-pod-autoscaler-sync-period={SYNC_S}s",
        ),
    )


@contextlib.asynccontextmanager
async def fake_nodes(client: KubeClient) -> AsyncIterator[FakeNode]:
    """Two nodes on which pods run by their status alone."""
    node = FakeNode(client)
    node.network = "10.244.0"  # upstream takes no loopback addresses for endpoints
    for name in ("one", "two"):
        await add_node(client, name, cpu="64", memory="256Gi", pods="110")
    running = asyncio.create_task(node.run())
    try:
        yield node
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def installed(directory: Path, prometheus: Path, *flags: str, config: str = CONFIG) -> AsyncIterator[Installed]:
    """Everything runs, and every APIService is available, until the block ends.

    Args:
        prometheus: the program.
        flags: of ``flyball install``.
    """
    with audited_plane(directory) as plane:
        write_kubeconfig(directory / "kubeconfig", plane.base, plane.token, plane.ca)
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(await KubeClient.from_kubeconfig(directory / "kubeconfig"))
            node = await stack.enter_async_context(fake_nodes(client))
            exporter = Exporter(node)
            port = await stack.enter_async_context(exporter.serving())
            metrics, url = await stack.enter_async_context(metric_server(directory, prometheus, port))
            (directory / "config.yaml").write_text(config)
            arguments = await install(directory, url, *flags)
            adapter = await stack.enter_async_context(program(directory / "adapter.log", *arguments))
            found = Installed(directory, plane, client, exporter, metrics, url, adapter, arguments)
            await found.until(lambda: available(client), "the APIServices are available")
            yield found


@contextlib.asynccontextmanager
async def metric_server(
    directory: Path, program_path: Path, target_port: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A real Prometheus that scrapes one target every second."""
    target = {"job_name": "all", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}]}
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [target]}
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = (
        str(program_path),
        f"--config.file={directory / 'prometheus.yaml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    async with program(directory / "prometheus.log", *command) as process:
        yield process, f"http://127.0.0.1:{port}"


async def install(directory: Path, prometheus_url: str, *flags: str) -> list[str]:
    """Applies what ``flyball install`` prints; gives the command that its container would run, at its Service."""
    config = ("--config", str(directory / "config.yaml"), "--prometheus-url", prometheus_url, "--resource-metrics")
    await apply_part(directory, *config, *flags)
    return await container_command(directory)


async def apply_part(directory: Path, *flags: str) -> None:
    """Applies what ``flyball install`` prints."""
    home, kubeconfig = directory, directory / "kubeconfig"
    code, manifests, err = await run(
        sys.executable, "-m", "flyball", "install", *flags, home=home, kubeconfig=kubeconfig
    )
    assert code == 0, err
    code, _, err = await run(find(), "apply", "-f", "-", stdin=manifests, home=home, kubeconfig=kubeconfig)
    assert code == 0, err


async def container_arguments(directory: Path, name: str, kind: Resource = DEPLOYMENTS) -> tuple[list[str], Path]:
    """The arguments of the one container of a workload, and a kubeconfig of its service account."""
    async with await KubeClient.from_kubeconfig(directory / "kubeconfig") as client:
        deployment = await client.get(kind, name, SYSTEM)
    code, token, err = await run(
        *(find(), "create", "token", name, "-n", SYSTEM), home=directory, kubeconfig=directory / "kubeconfig"
    )
    assert code == 0, err
    cluster = json.loads((directory / "kubeconfig").read_text())["clusters"][0]["cluster"]
    kubeconfig = directory / f"kubeconfig-{name}"
    write_kubeconfig(kubeconfig, cluster["server"], token.strip(), Path(cluster["certificate-authority"]))
    return deployment["spec"]["template"]["spec"]["containers"][0]["args"], kubeconfig


async def container_command(directory: Path) -> list[str]:
    """What the adapter's container would run, as a process of this machine.

    The container's own arguments, with its volumes and its service account found where a kubelet would not put them,
    and the Service's address in place of the pod's.
    """
    arguments, kubeconfig = await container_arguments(directory, NAME)
    async with await KubeClient.from_kubeconfig(directory / "kubeconfig") as client:
        service = await client.get(SERVICES, NAME, SYSTEM)
        config_map = await client.get(CONFIG_MAPS, NAME, SYSTEM)
    (directory / "mounted.yaml").write_text(config_map["data"]["config.yaml"])
    return [
        *(sys.executable, "-m", "flyball"),
        *(item.replace("/etc/adapter/config.yaml", str(directory / "mounted.yaml")) for item in arguments),
        f"--lister-kubeconfig={kubeconfig}",
        f"--bind-address={service['spec']['clusterIP']}",
        f"--secure-port={service['spec']['ports'][0]['port']}",
    ]


async def available(client: KubeClient) -> bool:
    """Whether every APIService of the metrics APIs is."""
    answer = json.loads(await client.raw_get("/apis/apiregistration.k8s.io/v1/apiservices"))
    ours = [item for item in answer["items"] if item["spec"].get("group", "").endswith("metrics.k8s.io")]
    states = [
        condition["status"]
        for item in ours
        for condition in (item.get("status") or {}).get("conditions") or []
        if condition["type"] == "Available"
    ]
    return len(ours) == len(states) == 4 and set(states) == {"True"}


async def pods_of(client: KubeClient, app: str) -> list[Any]:
    """The pods of an application that are not on their way out."""
    found = await client.list(PODS, "default", label_selector=f"app={app}")
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


#: (API group, resource with its subresource, verb)
Call = tuple[str, str, str]


def call_of(event: dict[str, Any]) -> Call:
    """What an audit event shows that was asked for; discovery has no resource."""
    about = event.get("objectRef") or {}
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    return about.get("apiGroup", ""), resource, event["verb"]


#: What the roles of Kubernetes that we are bound to grant.
_BOUND: dict[str, set[Call]] = {
    "system:auth-delegator": {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    },
    "extension-apiserver-authentication-reader": {("", "configmaps", verb) for verb in ("list", "watch")},
}


def granted(objects: Sequence[dict[str, Any]], name: str = NAME) -> set[Call]:
    """Every call that manifests allow a service account."""
    roles = {(item["kind"], item["metadata"]["name"]): item for item in objects if item["kind"].endswith("Role")}
    found: set[Call] = set()
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding") or name not in {item["name"] for item in binding["subjects"]}:
            continue
        role = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        found |= _BOUND.get(role[1], set())
        for rule in roles[role]["rules"] if role in roles else ():
            found |= {
                (group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found
