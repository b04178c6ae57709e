"""After the death of the parent the pods go on, and the next ``flyball up`` adopts them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  replicas: 2
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: sleeper, image: busybox, command: ["sleep", "3600"]}
"""


@pytest.fixture
def cluster(tmp_path: Path, kubectl_path: str) -> Iterator[Flyball]:
    cluster = Flyball(tmp_path / "data", kubectl_path)
    yield cluster
    cluster.stop()


def sleepers(cluster: Flyball) -> dict[str, tuple[str, str, int]]:
    """Pod name -> uid, address, restarts; only when both are ready."""
    items = cluster.get("pods", "-l", "app=sleeper")["items"]
    statuses = [p["status"]["containerStatuses"][0] for p in items]
    assert len(items) == 2 and all(s["ready"] for s in statuses)
    return {
        p["metadata"]["name"]: (p["metadata"]["uid"], p["status"]["podIP"], s["restartCount"])
        for p, s in zip(items, statuses, strict=True)
    }


def pids_of(cluster: Flyball) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = str(cluster.data_dir) in (entry / "environ").read_text(errors="replace")
                if ours and (entry / "comm").read_text().strip() == "sleep":
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_a_new_parent_adopts_the_pods_of_a_killed_one(cluster: Flyball, tmp_path: Path) -> None:
    (tmp_path / "sleeper.yaml").write_text(MANIFEST)
    cluster.start("-f", str(tmp_path / "sleeper.yaml"))
    before = eventually(lambda: sleepers(cluster))
    pids = pids_of(cluster)
    assert len(pids) == 2
    children = cluster.child_pids()
    cluster.stop(signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()))
    assert pids_of(cluster) == pids
    cluster.start()
    assert eventually(lambda: sleepers(cluster)) == before
    assert pids_of(cluster) == pids


WRITER = """
import asyncio, itertools, json, logging, sys
from pathlib import Path
import aiohttp
from flyball.http.client import client_tls
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import CONFIG_MAPS

async def main(base, data_dir):
    stopped, acknowledged, refused = asyncio.Event(), [], 0
    asyncio.get_running_loop().add_reader(0, stopped.set)
    token = (data_dir / "pki" / "token").read_text().strip()
    numbers = itertools.count()

    async def writer(session):
        nonlocal refused
        while not stopped.is_set():
            name = f"written-{next(numbers)}"
            try:
                async with session.post(base, json={"metadata": {"name": name}}) as answer:
                    if answer.status == 201:
                        acknowledged.append(name)
            except aiohttp.ClientError:
                refused += 1
            await asyncio.sleep(0.02)

    tls = client_tls(ca_file=data_dir / "pki" / "ca.crt")
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        await KubeClient.from_kubeconfig(data_dir / "kubeconfig") as client,
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=tls)) as session,
    ):
        informer = Informer(client, CONFIG_MAPS, "default")
        watching = asyncio.create_task(informer.run())
        await informer.wait_synced()
        print("ready", flush=True)
        await asyncio.gather(*(writer(session) for _ in range(4)))
        wanted = {("default", name) for name in acknowledged}
        while not wanted <= informer.cache.keys():
            await asyncio.sleep(0.1)
        watching.cancel()
    print(json.dumps([acknowledged, refused, informer.statistics()["lists"]]))

logging.disable(logging.CRITICAL)
asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""
KILLS = int(os.environ.get("FLYBALL_KILLS", "2"))  # of each process; a hundred by hand


def test_kills_of_each_process_lose_no_acknowledged_write_no_watch_and_no_pod(cluster: Flyball, tmp_path: Path) -> None:
    (tmp_path / "sleeper.yaml").write_text(MANIFEST)
    cluster.start("-f", str(tmp_path / "sleeper.yaml"))
    before = eventually(lambda: sleepers(cluster))
    pids = pids_of(cluster)
    url = f"https://127.0.0.1:{6443 + cluster.offset}/api/v1/namespaces/default/configmaps"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(cluster.data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    rng = random.Random(3)
    for number in range(KILLS):
        old = eventually(lambda: found if len(found := cluster.child_pids()) == 3 else None)
        for name in rng.sample(sorted(old), 3):  # in any order, a moment apart
            os.kill(old[name], signal.SIGKILL)
            time.sleep(rng.uniform(0, 0.5))
        eventually(lambda old=old: len(new := cluster.child_pids()) == 3 and not new.items() & old.items(), 60)
        # Adopted, each by the same process: none is started twice, none is restarted.
        assert eventually(lambda: (found := sleepers(cluster)) == before and found, 60)
        assert pids_of(cluster) == pids
        print(f"round {number + 1}: control, data and node killed; both pods are the ones they were", flush=True)
    output, _ = writer.communicate("stop\n", timeout=60)
    acknowledged, refused, lists = json.loads(output)
    assert len(acknowledged) > 20 and refused > 0
    assert lists == 1  # every watch was resumed where it had ended
    kept = {item["metadata"]["name"] for item in cluster.get("configmaps")["items"]}
    assert set(acknowledged) - kept == set()
    print(f"{len(acknowledged)} acknowledged writes kept, {refused} refused")


HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: sleeper}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: sleeper}
  minReplicas: %d
  maxReplicas: 9
  metrics: [{type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: 100m}}}]
"""


def decisions(cluster: Flyball) -> dict[int, int]:
    """Record -> when it was decided first, of what was decided about the HPA."""
    url = f"{cluster.prometheus}/api/flyball/v1/decisions?namespace=default&name=sleeper&limit=1000"
    with urllib.request.urlopen(url, timeout=5) as answer:
        items = json.load(answer)["items"]
    return {item["id"]: item["first_ms"] for item in items}


def test_a_killed_control_process_loses_no_decision(cluster: Flyball, tmp_path: Path) -> None:
    (tmp_path / "sleeper.yaml").write_text(MANIFEST)
    cluster.start("-f", str(tmp_path / "sleeper.yaml"))
    known: dict[int, int] = {}
    for least in (3, 2, 3, 2):  # each bound is a decision of its own
        cluster.kubectl("apply", "-f", "-", stdin=HPA % least)
        number = len(known)
        known |= eventually(lambda n=number: found if len(found := decisions(cluster)) > n else None)
        old = cluster.child_pids()["control"]
        os.kill(old, signal.SIGKILL)
        eventually(lambda pid=old: cluster.child_pids().get("control", pid) != pid)
        assert eventually(lambda: decisions(cluster)).items() >= known.items()


def test_an_asked_stop_ends_the_pods_too(cluster: Flyball, tmp_path: Path) -> None:
    (tmp_path / "sleeper.yaml").write_text(MANIFEST)
    cluster.start("-f", str(tmp_path / "sleeper.yaml"))
    eventually(lambda: sleepers(cluster))
    cluster.stop(signal.SIGTERM)
    assert pids_of(cluster) == set()


def test_bad_manifests_are_named_and_the_rest_is_applied(cluster: Flyball, tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text("kind: [unclosed\n")
    (folder / "b.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {a: b}\n"
        "---\napiVersion: apps/v1\nkind: Deploymint\nmetadata: {name: bad}\n"
    )
    cluster.start("-f", str(folder))
    assert eventually(lambda: cluster.get("configmap", "good"))["data"] == {"a": "b"}
    log = eventually(lambda: (text := cluster.logs()) and "Deploymint" in text and text)
    assert "a.yaml" in log
    assert 'no matches for kind "Deploymint" in version "apps/v1"' in log


def test_a_second_flyball_on_the_same_ports_says_which_port(cluster: Flyball, tmp_path: Path) -> None:
    cluster.start()
    second = cluster.flyball("up", "--data-dir", str(tmp_path / "other"), "--port-offset", str(cluster.offset))
    assert second.returncode == 2
    assert f"port {6443 + cluster.offset} (Kubernetes API)" in second.stderr
    assert "--port-offset" in second.stderr


def test_the_scrypt_example_follows_its_cpu(cluster: Flyball, tmp_path: Path) -> None:
    import threading
    import urllib.request

    from .conftest import ROOT

    cluster.start("-f", str(ROOT / "examples/scrypt"))
    ingress = eventually(lambda: cluster.get("svc", "scrypt")["status"]["loadBalancer"]["ingress"])[0]
    url = f"http://{ingress['ip']}:{ingress['ports'][0]['port']}/"
    eventually(lambda: cluster.get("deployment", "scrypt")["status"].get("readyReplicas") == 1)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                with urllib.request.urlopen(url, b"hello", timeout=30) as answer:
                    answer.read()
            except OSError:
                continue

    loop = threading.Thread(target=load)
    loop.start()
    try:
        eventually(lambda: int(cluster.get("deployment", "scrypt")["spec"]["replicas"]) >= 2, 90)
        table = cluster.kubectl("get", "hpa", "scrypt")
        assert "%/50%" in table
    finally:
        stop.set()
        loop.join()
