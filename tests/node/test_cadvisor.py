"""Figures of real processes under cAdvisor's names."""

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from flyball.localcluster.node import cadvisor
from flyball.localcluster.node.cadvisor import Cadvisor
from flyball.localcluster.node.httpapi import NodeApi

from .fakes import pod, run, until

WORK = """
import os, pathlib, time
path = pathlib.Path({path!r})
with path.open("wb") as file:
    file.write(os.urandom(1 << 20))
    file.flush()
    os.fsync(file.fileno())
    pathlib.Path({done!r}).touch()
    time.sleep(600)
"""


def samples(page):
    return {
        (sample.name, sample.labels.get("container", "")): (sample.value, sample.labels)
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_a_container_has_its_figures_and_no_others(tmp_path):
    done = tmp_path / "done"
    code = WORK.format(path=str(tmp_path / "data"), done=str(done))
    resources = {"limits": {"memory": "512Mi"}, "requests": {"cpu": "500m"}}
    one = pod("p", ["python3", "-c", code], resources=resources)

    async def story(manager, client, recorder):
        reader = Cadvisor(manager)
        manager.observe("ADDED", one)
        await until(done.exists)
        found = samples(reader.exposition())
        value, labels = found["container_memory_working_set_bytes", "main"]
        assert 1 << 20 < value < 512 << 20
        assert labels | {"name": ""} == {
            "container": "main",
            "id": "/kubepods/burstable/poduid-p/main",
            "image": "python:3",
            "name": "",
            "namespace": "default",
            "pod": "p",
        }
        assert found["container_spec_memory_limit_bytes", "main"][0] == 512 << 20
        assert found["container_spec_cpu_shares", "main"][0] == 512
        assert found["container_cpu_usage_seconds_total", "main"][0] > 0
        assert found["container_fs_writes_bytes_total", "main"][0] >= 1 << 20
        assert found["container_processes", "main"][0] == 1
        assert found["container_file_descriptors", "main"][0] >= 4
        assert not [name for name, _ in found if "network" in name]
        assert found["machine_cpu_cores", ""][0] >= 1

    run(tmp_path, story)


def test_bytes_of_processes_that_ended_stay_counted():
    total = cadvisor._IoTotal()
    assert total.add({(1, 10): (100, 0), (2, 10): (0, 50)}) == (100, 50)
    assert total.add({(2, 10): (0, 60)}) == (100, 60)
    assert total.add({(2, 10): (0, 60), (1, 99): (7, 0)}) == (107, 60), "the pid is another process' now"


def test_probes_are_counted_by_result(tmp_path):
    ready = {"exec": {"command": ["test", "-e", str(tmp_path / "ready")]}, "periodSeconds": 1}
    one = pod("p", ["sleep", "600"], readinessProbe=ready)

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)

        def count(result):
            families = text_string_to_metric_families(cadvisor.probes(manager).decode())
            return sum(s.value for f in families for s in f.samples if s.labels.get("result") == result)

        await until(lambda: count("failed") > 0)
        assert count("successful") == 0
        (tmp_path / "ready").touch()
        await until(lambda: count("successful") > 0)

    run(tmp_path, story)


def test_figures_are_given_to_whom_the_api_server_knows_and_logs_are_not(tmp_path):
    async def knows(token):
        return token == "account"

    (tmp_path / "token").write_text("admin")

    async def story(manager, client, recorder):
        node = TestClient(NodeApi(manager, tmp_path / "token", dict, knows))

        def status(path, token):
            return node.get(path, headers={"authorization": f"Bearer {token}"}).status_code

        for path in ("/metrics", "/metrics/cadvisor"):
            assert [status(path, token) for token in ("account", "admin", "other")] == [200, 200, 401]
        logs = "/containerLogs/default/p/main"
        assert [status(logs, token) for token in ("account", "admin")] == [401, 404]

    run(tmp_path, story)
