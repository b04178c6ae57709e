"""Containers with a mount namespace of their own: volumes at their places, on a machine that stays as it was."""

import ast
import asyncio
import os
import sys
from pathlib import Path

import pytest

import flyball
from flyball.localcluster.node import runtimes
from flyball.localcluster.node.launch import program_of
from flyball.localcluster.node.names import hosts_text
from flyball.localcluster.node.podroot import locate
from flyball.localcluster.node.pods import PodManager

from .fakes import FakeClient, FakeRecorder, pod, until

CONFIG = {
    "metadata": {"name": "config", "namespace": "default"},
    "data": {
        "run.sh": "#!/bin/sh\ncat /flyball-test/deep/word /etc/flyball-test.conf\nexec sleep 60\n",
        "word": "deep\n",
    },
}


@pytest.fixture
def mount_runtime(tmp_path):
    if runtimes.probe(tmp_path / "runtime") != runtimes.MOUNT:
        pytest.skip("needs Linux with mount namespaces for this user, and nsenter")


def isolated_pod():
    one = pod("p", ["/flyball-test/run.sh"], workingDir="/flyball-work")
    one["spec"]["volumes"] = [{"name": "config", "configMap": {"name": "config", "defaultMode": 0o755}}]
    one["spec"]["volumes"] += [{"name": "data", "emptyDir": {}}]
    one["spec"]["containers"][0] |= {
        "volumeMounts": [
            {"name": "config", "mountPath": "/flyball-test"},
            {"name": "data", "mountPath": "/flyball-test/deep", "subPath": "sub/dir"},
            {"name": "config", "mountPath": "/etc/flyball-test.conf", "subPath": "word", "readOnly": True},
            {"name": "data", "mountPath": "/var/run/flyball-test/data"},
        ],
        "readinessProbe": {
            "exec": {"command": ["sh", "-c", "test -e word && grep -q deep /etc/flyball-test.conf"]},
            "periodSeconds": 1,
        },
    }
    return one


def test_volumes_stand_where_the_manifest_wants_them(tmp_path, mount_runtime):
    async def main():
        (tmp_path / "node").mkdir()
        client, recorder = FakeClient(), FakeRecorder()
        manager = PodManager(tmp_path / "node", 0, client, recorder, runtime=runtimes.MOUNT)
        known = {"web.default.svc.cluster.local": ["127.11.1.1"]}
        manager.names = lambda: known
        client.put("ConfigMap", CONFIG)
        one = isolated_pod()
        volume = manager.directory / "pods" / "uid-p" / "volumes" / "data" / "sub" / "dir"
        volume.mkdir(parents=True)
        (volume / "word").write_text("from the volume\n")
        manager.observe("ADDED", one)
        try:
            worker = await until(lambda: manager.workers.get("uid-p"))
            main = worker.containers[0]
            await until(lambda: main.state.running, what=f"{client.status('p')}")
            log = main.directory / "0.log"
            await until(lambda: log.exists() and "deep" in log.read_text())
            lines = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
            assert lines == ["from the volume", "deep"]
            # Commands beside it see what it sees, and stand where it stands.
            code, text = await main.execute(["sh", "-c", "uname -n; pwd; ls /flyball-test /var/run/flyball-test"], 5.0)
            assert (code, text.split()) == (
                0,
                ["p", "/flyball-work", "/flyball-test:", "deep", "run.sh", "word", "/var/run/flyball-test:", "data"],
            )
            code, text = await main.execute(["getent", "hosts", "web.default"], 5.0)
            assert (code, text.split()[0]) == (0, "127.11.1.1")
            known["late.default.svc.cluster.local"] = ["127.11.1.2"]
            manager.names_changed()
            code, text = await main.execute(["getent", "hosts", "late"], 5.0)
            assert (code, text.split()[0]) == (0, "127.11.1.2")
            # The machine has none of it.
            for path in ("/flyball-test", "/flyball-work", "/etc/flyball-test.conf", "/run/flyball-test"):
                assert not os.path.lexists(path)
            assert list((manager.directory / "pods" / "uid-p" / "root").iterdir()) == []
            if os.getuid() == 0:  # an ordinary user cannot always make a mount read-only
                code, _ = await main.execute(["sh", "-c", "echo x > /etc/flyball-test.conf"], 5.0)
                assert code != 0
        finally:
            await manager.close(stop_pods=True, grace_s=0.5)

    asyncio.run(main())


def test_a_program_leaves_its_last_words_and_finds_its_part_of_a_volume(tmp_path, mount_runtime):
    async def main():
        (tmp_path / "node").mkdir()
        client, recorder = FakeClient(), FakeRecorder()
        manager = PodManager(tmp_path / "node", 0, client, recorder, runtime=runtimes.MOUNT)
        script = "echo mine > /logs/word; echo because > /flyball-words; exit 2"
        one = pod("p", ["sh", "-c", script], terminationMessagePath="/flyball-words")
        one["spec"] |= {"volumes": [{"name": "logs", "emptyDir": {}}], "restartPolicy": "Never"}
        one["spec"]["containers"][0] |= {
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "logs", "mountPath": "/logs", "subPathExpr": "of/$(POD)"}],
        }
        manager.observe("ADDED", one)
        try:
            await until(lambda: client.status("p").get("phase") == "Failed")
            ended = client.status("p")["containerStatuses"][0]["state"]["terminated"]
            assert (ended["exitCode"], ended["message"]) == (2, "because\n")
            volume = manager.directory / "pods" / "uid-p" / "volumes" / "logs"
            assert (volume / "of" / "p" / "word").read_text() == "mine\n"
            assert not os.path.lexists("/flyball-words")
        finally:
            await manager.close(stop_pods=True, grace_s=0.5)

    asyncio.run(main())


def test_a_later_node_finds_the_way_into_a_container_again(tmp_path, mount_runtime):
    async def main():
        (tmp_path / "node").mkdir()
        client, recorder = FakeClient(), FakeRecorder()
        first = PodManager(tmp_path / "node", 0, client, recorder, runtime=runtimes.MOUNT)
        client.put("ConfigMap", CONFIG)
        first.observe("ADDED", isolated_pod())
        await until(lambda: client.status("p").get("phase") == "Running")
        await first.close()
        second = PodManager(tmp_path / "node", 0, client, recorder, runtime=runtimes.MOUNT)
        second.observe("ADDED", isolated_pod())
        try:
            main = second.workers["uid-p"].containers[0]
            assert main.state.running and main.state.restart_count == 0
            assert (await main.execute(["cat", "/etc/flyball-test.conf"], 5.0)) == (0, "deep\n")
        finally:
            await second.close(stop_pods=True, grace_s=0.5)

    asyncio.run(main())


def test_a_volume_above_our_own_directories_does_not_hide_them(tmp_path, mount_runtime):
    async def main():
        (tmp_path / "node").mkdir()
        client, recorder = FakeClient(), FakeRecorder()
        manager = PodManager(tmp_path / "node", 0, client, recorder, runtime=runtimes.MOUNT)
        above = "/" + tmp_path.parts[1]
        script = f"import os, tempfile; tempfile.mkstemp(); print(os.listdir('{above}'))"
        one = pod("p", ["sh", "-c", f'python -c "{script}"; sleep 60'])
        one["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
        one["spec"]["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": above}]
        manager.observe("ADDED", one)
        try:
            log = manager.directory / "pods" / "uid-p" / "containers" / "main" / "0.log"
            await until(lambda: log.exists() and log.read_text())
            shown = set(ast.literal_eval(log.read_text().strip().partition(" F ")[2]))
            ours = [path for path in (tmp_path, Path(flyball.__file__), Path(sys.prefix)) if path.is_relative_to(above)]
            assert tmp_path.parts[2] in shown <= {path.parts[2] for path in ours}  # the way to our directories, no more
            assert len(list((manager.directory / "pods" / "uid-p" / "tmp").iterdir())) == 1
        finally:
            await manager.close(stop_pods=True, grace_s=0.5)

    asyncio.run(main())


def test_a_mount_point_never_leads_out_of_the_new_root(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "link").symlink_to(inside)
    assert locate(f"{tmp_path}/link/a/b") == (f"{inside}/a/b", str(inside))
    assert locate(f"{tmp_path}/link") == (str(inside), "")
    assert locate("/") == ("/", "")


def test_a_program_is_looked_for_in_the_volumes_first(tmp_path):
    script = tmp_path / "run"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    mounts = [("/app", str(tmp_path))]
    assert program_of(["/app/run", "x"], mounts, "/bin", "/") == ["/app/run", "x"]
    assert program_of(["./run"], mounts, "/bin", "/app") == ["/app/./run"]
    assert program_of(["sh", "-c", "/app/run"], mounts, "/bin", "/app")[1:] == ["-c", "/app/run"]


def test_the_hosts_file_has_every_short_form():
    one = pod("db-0")
    one["spec"] |= {
        "hostname": "db-0",
        "subdomain": "db",
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}],
    }
    found = {"web.default.svc.cluster.local": ["127.11.1.1"], "web.shop.svc.cluster.local": ["127.11.1.2"]}
    lines = hosts_text(one, "127.10.0.5", found).splitlines()
    assert "127.10.0.5 db-0.db.default.svc.cluster.local db-0" in lines
    assert "10.0.0.1 a b" in lines
    assert "127.11.1.1 web.default.svc.cluster.local web web.default web.default.svc" in lines
    assert "127.11.1.2 web.shop.svc.cluster.local web.shop web.shop.svc" in lines
    one["spec"]["dnsPolicy"] = "Default"
    assert "web" not in hosts_text(one, "127.10.0.5", found)
