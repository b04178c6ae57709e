"""Limits by control groups: on this machine's own where they can be had, and on a tree like version 2's."""

import pytest

from flyball.localcluster.node import cgroups
from flyball.localcluster.node.cgroups import Cgroups, probe

from .fakes import pod, run, until


@pytest.fixture
def groups(tmp_path):
    found = probe(tmp_path)
    if found is None:
        pytest.skip("needs Linux with control groups that this user may make")
    yield found
    assert not found.cpu.exists() and not found.memory.exists()  # nothing is left behind


def test_the_kernel_holds_a_container_to_its_cpu(tmp_path, groups):
    async def story(manager, client, recorder):
        limits = {"limits": {"cpu": "200m"}}
        manager.observe("ADDED", pod("l", ["sh", "-c", "while :; do :; done"], resources=limits))
        await until(lambda: client.status("l").get("phase") == "Running")
        one = manager.workers["uid-l"].containers[0]
        assert one.cgroup and manager.limiter.statistics()["limited"] == 0
        file = groups.cpu / one.cgroup / ("cpu.max" if groups.version == 2 else "cpu.cfs_quota_us")
        assert file.read_text().split()[0] == "20000"
        assert str(one.process.pid) in (groups.cpu / one.cgroup / "cgroup.procs").read_text().split()
        gone = pod("l")
        gone["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
        manager.observe("MODIFIED", gone)
        await until(lambda: client.deleted)
        await until(lambda: not (groups.cpu / one.cgroup).exists())

    run(tmp_path, story, groups=groups)


def test_an_oom_kill_by_the_kernel_is_told_from_another_kill(tmp_path, groups):
    async def story(manager, client, recorder):
        limits = {"limits": {"memory": "40Mi"}}
        script = "import time; held = bytearray(80 << 20); time.sleep(60)"
        manager.observe("ADDED", pod("big", ["python", "-S", "-c", script], resources=limits))
        manager.observe(
            "ADDED", pod("shot", ["python", "-S", "-c", "import os; os.kill(os.getpid(), 9)"], resources=limits)
        )

        def last(name):
            statuses = client.status(name).get("containerStatuses") or [{}]
            return statuses[0].get("lastState", {}).get("terminated") or {}

        await until(lambda: last("big") and last("shot"))
        assert (last("big")["reason"], last("big")["exitCode"]) == ("OOMKilled", 137)
        assert (last("shot")["reason"], last("shot")["exitCode"]) == ("Error", 137)

    run(tmp_path, story, groups=groups, backoff_first_s=0.1)


def test_version_2_is_told_in_its_own_files(tmp_path):
    found = Cgroups(2, tmp_path, tmp_path)
    assert found.hold("one", {"cpu": "250m", "memory": "64Mi"}) == [tmp_path / "one"]
    written = {path.name: path.read_text() for path in (tmp_path / "one").iterdir()}
    assert written == {"cpu.max": "25000 100000", "memory.max": str(64 << 20), "memory.swap.max": "0"}
    assert found.oom_kills("one") == 0
    (tmp_path / "one" / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert found.oom_kills("one") == 2
    assert found.hold("small", {"cpu": "1m"})
    assert (tmp_path / "small" / "cpu.max").read_text() == "1000 100000"  # the least that the kernel takes


@pytest.mark.parametrize(
    ("own", "controllers", "wanted"),
    [
        ("0::/user.slice/me.scope\n", {"user.slice": "cpu memory pids"}, "user.slice"),
        ("0::/user.slice/me.scope\n", {".": "memory cpu", "user.slice": "memory"}, "."),
        ("0::/user.slice/me.scope\n", {".": "memory", "user.slice": "pids"}, None),
        ("0::/\n", {".": "cpuset cpu io memory"}, "."),
        ("3:memory:/a\n2:cpuset:/\n", {}, None),  # version 1 without cpu
        ("", {}, None),
    ],
)
def test_the_nearest_ancestor_that_gives_both_is_chosen(tmp_path, monkeypatch, own, controllers, wanted):
    mount = tmp_path / "cgroup"
    (mount / "user.slice" / "me.scope").mkdir(parents=True)
    (mount / "cgroup.controllers").touch()
    for directory in (".", "user.slice", "user.slice/me.scope"):
        (mount / directory / "cgroup.subtree_control").write_text(controllers.get(directory, ""))
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(cgroups, "_works", lambda _: True)
    found = probe(tmp_path, mount, tmp_path / "own")
    assert (found and found.cpu.parent) == (mount / wanted if wanted else None)
