"""`flyball agent`: what it refuses, what it scrapes, and that nothing which it logged is lost on the way."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.remotewrite.test_queue import Receiver

from flyball import clock
from flyball.agent import KUBELET_JOBS, NODE_PATH, AgentSettings, check, node_jobs
from flyball.errors import ConfigError
from flyball.http.certificates import authority, leaf
from flyball.http.server import serving_context
from flyball.model.labels import Labels
from flyball.model.scrapeconfigs import GlobalDefaults
from flyball.server import load
from flyball.store.tailing import LogTail

TOKEN = "of-the-service-account"
WRITE = 'remote_write: [{url: "http://127.0.0.1:1/write"}]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("global: {}\n", "remote_write: is missing"),
        (WRITE + "rule_files: [a.yml]\n", "rule_files: an agent evaluates no rules"),
        (
            WRITE + 'alerting: {alertmanagers: [{static_configs: [{targets: ["a:1"]}]}]}\n',
            "alerting: an agent sends no alerts",
        ),
        (
            WRITE + "scrape_configs: [{job_name: pods, kubernetes_sd_configs: [{role: pod}]}]\n",
            'job "pods": kubernetes_sd_configs: an agent asks no API server',
        ),
    ],
)
def test_what_an_agent_does_not_do_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "agent.yml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        check(load(tmp_path / "agent.yml"))


def test_the_nodes_own_jobs_have_the_names_that_dashboards_know(tmp_path: Path) -> None:
    settings = AgentSettings(
        tmp_path, tmp_path, listen=(("::", 9090),), node="n1", figures=str, kubelet="10.0.0.1:10250",
        kubelet_token_file="/token", kubelet_ca_file="/ca",
    )  # fmt: skip
    node, *kubelet = node_jobs(settings, GlobalDefaults(scrape_interval_ms=5_000), 9091)
    assert node.job_name == "node-exporter" and node.metrics_path == NODE_PATH
    (target,) = node.static_configs
    assert target.targets == ("[::1]:9091",) and target.labels == {"node": "n1", "instance": "n1"}
    assert {job.job_name: job.metrics_path for job in kubelet} == KUBELET_JOBS
    for job in kubelet:
        assert job.scheme == "https" and (job.scrape_interval_ms, job.scrape_timeout_ms) == (5_000, 5_000)
        assert job.http.tls is not None and job.http.tls.ca_file == "/ca" and not job.http.tls.insecure_skip_verify
        assert job.http.authorization is not None and job.http.authorization.credentials_file == "/token"
        labels = {"node": "n1", "job": "kubelet", "metrics_path": job.metrics_path}
        assert job.static_configs[0].labels == labels
    assert node_jobs(AgentSettings(tmp_path, tmp_path), GlobalDefaults(), 9090) == []


class Agent:
    """One in a process of its own, with a kubelet, a receiver that comes and goes, and a watched API server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.receiver = folder, Receiver()
        self.port, self.receiver_port = _free_port(), _free_port()
        self.kubelet_port = 0
        self.kubelet_asked: set[tuple[str, str]] = set()
        self.api_server = socket.create_server(("127.0.0.1", 0))
        self.api_server.setblocking(False)
        (folder / "token").write_text(TOKEN + "\n")
        (folder / "agent.yml").write_text(
            "global: {scrape_interval: 200ms, external_labels: {cluster: c1}}\n"
            f'remote_write:\n- url: "http://127.0.0.1:{self.receiver_port}/write"\n'
            "  queue_config: {batch_send_deadline: 200ms, min_backoff: 10ms, max_backoff: 50ms}\n"
        )

    async def start(self) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "NODE_NAME": "n1",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.api_server.getsockname()[1]),
        }
        log = (self.folder / "log").open("ab")
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flyball", "agent", "--agent", f"--config.file={self.folder}/agent.yml",
            f"--storage.agent.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
            f"--node.kubelet=127.0.0.1:{self.kubelet_port}", f"--node.kubelet-token-file={self.folder}/token",
            f"--node.kubelet-ca-file={self.folder}/ca.crt", "--collect=loadavg", "--web.enable-lifecycle",
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def kubelet(self) -> AsyncIterator[None]:
        async def metrics(request: web.Request) -> web.Response:
            self.kubelet_asked.add((request.path, request.headers.get("Authorization", "")))
            name = "container_things" if request.path.endswith("cadvisor") else "kubelet_things"
            return web.Response(text=f'{name}{{pod="p",namespace="d"}} 1\n')

        own = authority("kubelet-ca", 1, clock.now_ms())
        (self.folder / "ca.crt").write_text(own.certificate_pem)
        serving = leaf(own, "kubelet", 1, clock.now_ms(), names=["127.0.0.1"])
        app = web.Application()
        for path in KUBELET_JOBS.values():
            app.router.add_get(path, metrics)
        context = serving_context(serving.certificate_pem.encode(), serving.key_pem.encode())
        async with _site(app, 0, ssl_context=context) as self.kubelet_port:
            yield

    @contextlib.asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=1 << 25)
        app.router.add_post("/write", self.receiver.handle)
        async with _site(app, self.receiver_port):
            yield

    def logged(self) -> dict[Labels, list[tuple[int, float]]]:
        """What is on the disk, as it is sent."""
        tail, found = LogTail(self.folder / "data" / "wal", 0), {}  # type: ignore[var-annotated]
        while len(more := tail.read()):
            for labels, at_ms, value in more.samples:
                found.setdefault(tuple(sorted((*labels, ("cluster", "c1")))), []).append((at_ms, value))
        return found

    def times(self, name: str) -> list[int]:
        """Of the samples of one series that were received."""
        found = [taken for labels, taken in self.receiver.samples().items() if dict(labels)["__name__"] == name]
        return sorted({at_ms for taken in found for at_ms, _ in taken})

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        def asked() -> tuple[int, str]:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as exc:
                return exc.code, exc.read().decode()

        return await asyncio.to_thread(asked)

    def api_calls(self) -> int:
        """Connections to the API server so far."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.api_server.accept()[0].close()
                count += 1
        return count


@contextlib.asynccontextmanager
async def _site(app: web.Application, port: int, **more: Any) -> AsyncIterator[int]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, **more).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def in_world(folder: Path, story: Callable[[Agent], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        agent = Agent(folder)
        try:
            async with agent.kubelet():
                await story(agent)
        finally:
            agent.api_server.close()

    asyncio.run(main())


@contextlib.asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await agent.start()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_everything_logged_arrives_through_an_outage_and_kill_9(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        async with agent.receiving(), running(agent) as process:
            await until(lambda: len(agent.times("node_load1")) > 2 and len(agent.times("container_things")) > 2)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        before = len(agent.times("node_load1"))
        for _ in range(2):  # nobody receives, and it dies again
            async with running(agent) as process:
                held = len(agent.logged()[_series(agent, "node_load1")])
                await until(lambda held=held: len(agent.logged()[_series(agent, "node_load1")]) > held + 3)
                process.send_signal(signal.SIGKILL)
                await process.wait()
        assert len(agent.times("node_load1")) == before
        logged = agent.logged()
        async with agent.receiving(), running(agent) as process:
            await until(lambda: max(agent.times("node_load1")) > logged[_series(agent, "node_load1")][-1][0])
            process.send_signal(signal.SIGTERM)  # and what is left is sent before it ends
            assert await process.wait() == 0, (tmp_path / "log").read_text()
        received = agent.receiver.samples()
        for labels, samples in agent.logged().items():
            assert set(map(repr, samples)) <= set(map(repr, received[labels])), labels
        authorization = f"Bearer {TOKEN}"
        assert agent.kubelet_asked == {(path, authorization) for path in KUBELET_JOBS.values()}
        assert agent.api_calls() == 0
        things = dict(_series(agent, "container_things"))
        assert things["job"] == "kubelet" and things["metrics_path"] == "/metrics/cadvisor"
        assert things["node"] == "n1" and things["pod"] == "p" and things["cluster"] == "c1"

    in_world(tmp_path, story)


def _series(agent: Agent, name: str) -> Labels:
    (found,) = [labels for labels in agent.logged() if dict(labels)["__name__"] == name]
    return found


def test_its_pages_and_a_reload_that_is_refused(tmp_path: Path) -> None:
    async def story(agent: Agent) -> None:
        async with agent.receiving(), running(agent):
            await until(lambda: bool(agent.times("node_load1") and agent.times("kubelet_things")))
            assert (await agent.ask("/-/ready"))[0] == 200
            assert "node_load1 " in (await agent.ask(NODE_PATH))[1]
            assert "prometheus_remote_storage_samples_total" in (await agent.ask("/metrics"))[1]
            targets = json.loads((await agent.ask("/api/v1/targets"))[1])["data"]["activeTargets"]
            pools = {target["scrapePool"] for target in targets}
            assert pools == {*KUBELET_JOBS, "node-exporter"}
            status, said = await agent.ask("/api/v1/query?query=up")
            assert status == 422 and "an agent answers no queries" in said
            file = agent.folder / "agent.yml"
            good = file.read_text()
            for wrong, why in (
                ("scrape_configs: [{job_name: kubelet}]\n", "the agent's own"),
                ("rule_files: [a]\n", "an agent evaluates no rules"),
            ):
                file.write_text(good + wrong)
                status, said = await agent.ask("/-/reload", "POST")
                assert status == 500 and why in said
            static = f'[{{targets: ["127.0.0.1:{agent.port}"]}}]'
            file.write_text(good + f"scrape_configs: [{{job_name: agent, static_configs: {static}}}]\n")
            assert (await agent.ask("/-/reload", "POST"))[0] == 200
            await until(lambda: bool(agent.times("prometheus_remote_storage_samples_in_total")))

    in_world(tmp_path, story)


def test_a_wrong_start_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "agent.yml").write_text("global: {}\n")
    command = [sys.executable, "-m", "flyball", "agent", f"--config.file={tmp_path}/agent.yml"]
    done = subprocess.run([*command, f"--storage.agent.path={tmp_path}/data"], capture_output=True, text=True)
    assert done.returncode == 2 and "remote_write: is missing" in done.stderr and not (tmp_path / "data").exists()
