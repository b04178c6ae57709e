"""``flyball demo`` as the README runs it, with connections opening and closing at every change of replicas."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Flyball

pytestmark = pytest.mark.real


def test_the_demo_scales_with_its_wave_and_loses_no_request() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "flyball", "demo", "--json", "--seconds", "40"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    summary = json.loads(answer.stdout.splitlines()[-1])
    assert summary["http_errors"] == 0, answer.stderr[-3000:]
    assert summary["replicas_min"] == summary["replicas_final"] == 2
    assert summary["replicas_max"] > 2 and summary["decisions"] > 2
    assert summary["first_scale_up_s"] <= 20


def test_no_connection_is_lost_while_pods_come_and_go(tmp_path: Path, kubectl_path: str) -> None:
    """Many short connections across 8 scalings: each is answered, and no process has ended."""
    cluster = Flyball(tmp_path / "data", kubectl_path)
    manifest = (ROOT / "examples/webapp/manifests/00-app.yaml").read_text()
    (tmp_path / "app.yaml").write_text(manifest)
    cluster.start("-f", str(tmp_path / "app.yaml"))
    try:
        cluster.kubectl("rollout", "status", "deployment/webapp", "--timeout=30s")
        ingress = cluster.get("service", "webapp")["status"]["loadBalancer"]["ingress"][0]
        url = f"http://{ingress['ip']}:{ingress['ports'][0]['port']}/"
        before = cluster.child_pids()
        load = subprocess.Popen(
            [sys.executable, "-c", LOAD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for replicas in (6, 2) * 4:
            cluster.kubectl("scale", "deployment/webapp", f"--replicas={replicas}")
            cluster.kubectl("rollout", "status", "deployment/webapp", "--timeout=30s")
        output, _ = load.communicate("stop\n", timeout=60)
        answered, lost = json.loads(output)
        assert answered > 500 and lost == [], (answered, lost, cluster.logs())
        assert cluster.child_pids() == before
    finally:
        cluster.stop()


LOAD = """
import asyncio, json, sys
import aiohttp

async def main():
    answered, lost, stopped = 0, [], asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stopped.set)

    async def client(session):
        nonlocal answered
        while not stopped.is_set():
            try:
                async with session.get(sys.argv[1], headers={"Connection": "close"}) as response:
                    await response.read()
                answered += response.status == 200
            except aiohttp.ClientError as exc:
                lost.append(repr(exc))
            await asyncio.sleep(0.02)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        await asyncio.gather(*(client(session) for _ in range(8)))
    print(json.dumps([answered, lost]))

asyncio.run(main())
"""
