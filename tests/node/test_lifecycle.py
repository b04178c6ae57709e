"""Hooks, sidecars, probes, limits and live volumes of real processes; the API is a fake that remembers."""

import sys
from pathlib import Path

import pytest

from flyball.localcluster.node import podworker

from .fakes import pod, run, until


def containers(client, name, group="containerStatuses"):
    return {one["name"]: one for one in client.status(name).get(group) or []}


def deleted(one, grace_s=5):
    gone = {**one, "metadata": {**one["metadata"]}}
    gone["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_s}
    return gone


def shell(name, script, **more):
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script], **more}


def test_init_containers_run_in_turn_and_sidecars_around_the_rest(tmp_path):
    log = tmp_path / "log"
    said = f"echo {{}} >> {log}"

    def stays(word):
        return f"trap '{said.format(word + ' ends')}; exit 0' TERM; {said.format(word)}; while :; do sleep 0.05; done"

    one = pod("p")
    one["spec"]["initContainers"] = [
        shell("first", said.format("first")),
        shell("proxy", stays("proxy"), restartPolicy="Always"),
        shell("agent", stays("agent"), restartPolicy="Always"),
        shell("last", f"sleep 0.1; {said.format('last')}"),
    ]
    one["spec"]["containers"] = [shell("main", stays("main"))]

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: log.exists() and "main" in log.read_text().split())
        await until(lambda: client.status("p").get("phase") == "Running")
        inits = containers(client, "p", "initContainerStatuses")
        assert {name: next(iter(s["state"])) for name, s in inits.items()} == {
            "first": "terminated",
            "proxy": "running",
            "agent": "running",
            "last": "terminated",
        }
        manager.observe("MODIFIED", deleted(one))
        await until(lambda: "uid-p" not in manager.workers)
        lines = log.read_text().splitlines()
        assert lines[0] == "first" and lines.index("last") < lines.index("main")
        assert lines[-3:] == ["main ends", "agent ends", "proxy ends"]

    run(tmp_path, story)


def test_a_job_pod_ends_although_its_sidecar_would_go_on(tmp_path):
    one = pod("p")
    one["spec"]["restartPolicy"] = "Never"
    one["spec"]["initContainers"] = [shell("side", "sleep 60", restartPolicy="Always")]
    one["spec"]["containers"] = [shell("main", "exit 0")]

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: client.status("p").get("phase") == "Succeeded")
        await until(lambda: manager.statistics()["containers"] == 0)

    run(tmp_path, story)


def test_hooks_run_after_the_start_and_before_the_end(tmp_path):
    log = tmp_path / "log"
    script = f"trap 'echo ended >> {log}; exit 0' TERM; while :; do sleep 0.05; done"
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", f"sleep 0.2; echo started >> {log}"]}},
        "preStop": {"exec": {"command": ["sh", "-c", f"echo stopping >> {log}"]}},
    }
    one = pod("p")
    one["spec"]["containers"] = [shell("main", script, lifecycle=hooks)]

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: containers(client, "p").get("main", {}).get("ready"))
        assert log.read_text() == "started\n"  # not ready before the hook was done
        manager.observe("MODIFIED", deleted(one))
        await until(lambda: "uid-p" not in manager.workers)
        assert log.read_text().split() == ["started", "stopping", "ended"]

    run(tmp_path, story)


def test_a_failing_post_start_hook_restarts_the_container(tmp_path):
    one = pod("p")
    hook = {"postStart": {"exec": {"command": ["false"]}}}
    one["spec"]["containers"] = [shell("main", "exec sleep 60", lifecycle=hook)]

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: containers(client, "p").get("main", {}).get("restartCount", 0) >= 1)
        assert "FailedPostStartHook" in recorder.reasons()

    run(tmp_path, story, backoff_first_s=0.1)


def test_what_ignores_the_signal_is_killed_when_its_grace_is_over(tmp_path):
    one = pod("p")
    deaf = tmp_path / "deaf"
    one["spec"]["containers"] = [shell("main", f"trap '' TERM; touch {deaf}; while :; do sleep 0.1; done")]

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: client.status("p").get("phase") == "Running" and deaf.exists())
        pid = int(containers(client, "p")["main"]["containerID"].rpartition("/")[2])
        manager.observe("MODIFIED", deleted(one, grace_s=1))
        await until(lambda: "uid-p" not in manager.workers)
        assert not Path(f"/proc/{pid}").exists()
        assert containers(client, "p")["main"]["state"]["terminated"]["exitCode"] == 137

    run(tmp_path, story)


def test_more_memory_than_the_limit_is_an_oom_kill(tmp_path):
    script = "import time; held = bytearray(80 << 20); time.sleep(60)"
    one = pod("p", ["python", "-S", "-c", script], resources={"limits": {"memory": "40Mi"}})

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: containers(client, "p").get("main", {}).get("restartCount", 0) >= 1)
        last = containers(client, "p")["main"]["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("OOMKilled", 137)

    run(tmp_path, story, backoff_first_s=0.1)


def test_a_failed_container_tells_the_end_of_its_log_where_the_manifest_wants_it(tmp_path):
    script = "for n in $(seq 100); do echo line $n; done; exit 3"
    wanted = pod("p", ["sh", "-c", script], terminationMessagePolicy="FallbackToLogsOnError")
    silent = pod("q", ["sh", "-c", script])
    for one in (wanted, silent):
        one["spec"]["restartPolicy"] = "Never"

    async def story(manager, client, recorder):
        for one in (wanted, silent):
            manager.observe("ADDED", one)
        await until(lambda: all(client.status(name).get("phase") == "Failed" for name in "pq"))
        ended = {name: containers(client, name)["main"]["state"]["terminated"] for name in "pq"}
        assert ended["p"]["message"].splitlines() == [f"line {number}" for number in range(21, 101)]
        assert "message" not in ended["q"]

    run(tmp_path, story)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: loopback addresses of a pod's own")
@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "exec", "grpc"])
def test_readiness_follows_its_probe(tmp_path, kind):
    flag = tmp_path / "flag"
    serving = "http.server.HTTPServer(('0.0.0.0', 8123), http.server.SimpleHTTPRequestHandler).serve_forever()"
    if kind == "grpc":  # SETTINGS, a head with status 200, and that it serves
        frames = "0000000400000000000000010104000000018800000700010000000100000000020801"
        serving = (
            "listener = socket.create_server(('0.0.0.0', 8123))\n"
            "while connection := listener.accept()[0]:\n"
            f"    connection.recv(4096), connection.sendall(bytes.fromhex({frames!r})), connection.recv(1)"
        )
    server = (
        f"import http.server, os, socket, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.02)\n{serving}\n"
    )
    action = {
        "httpGet": {"path": "/", "port": "web"},
        "tcpSocket": {"port": 8123},
        "exec": {"command": ["test", "-e", str(flag)]},
        "grpc": {"port": 8123},
    }[kind]
    probe = {kind: action, "periodSeconds": 1, "failureThreshold": 1}
    ports = [{"name": "web", "containerPort": 8123}]
    one = pod("p", ["python", "-c", server], ports=ports, readinessProbe=probe)

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: "Unhealthy" in recorder.reasons())
        assert not containers(client, "p")["main"]["ready"]
        flag.touch()
        await until(lambda: containers(client, "p")["main"]["ready"])

    run(tmp_path, story)


def test_liveness_restarts_and_startup_holds_it_back(tmp_path):
    flag = tmp_path / "flag"
    one = pod("p")
    one["spec"]["containers"] = [
        shell(
            "main",
            "exec sleep 60",
            startupProbe={"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 1, "failureThreshold": 60},
            livenessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
        )
    ]

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        await until(lambda: any("Startup" in e[3] for e in recorder.events))
        assert containers(client, "p")["main"]["restartCount"] == 0
        assert not any("Liveness" in e[3] for e in recorder.events)
        flag.touch()
        await until(lambda: containers(client, "p")["main"]["restartCount"] >= 1)
        assert any("failed liveness probe, will be restarted" in e[3] for e in recorder.events)

    run(tmp_path, story)


def test_volumes_made_from_objects_follow_them(tmp_path, monkeypatch):
    monkeypatch.setattr(podworker, "VOLUME_REFRESH_S", 0.2)
    one = pod("p")
    sources = [
        {"configMap": {"name": "config"}},
        {"secret": {"name": "secret", "items": [{"key": "word", "path": "deep/word"}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    one["spec"]["volumes"] = [{"name": "all", "projected": {"sources": sources}}, {"name": "empty", "emptyDir": {}}]
    mounts = [{"name": "all", "mountPath": "/all"}, {"name": "empty", "mountPath": "/empty"}]
    copy = "cat /all/colour /all/deep/word /all/labels > /empty/new; mv /empty/new /empty/out"
    script = f"while :; do {copy}; sleep 0.05; done"
    one["spec"]["containers"] = [shell("main", script, volumeMounts=mounts)]

    async def story(manager, client, recorder):
        config = {"metadata": {"name": "config", "namespace": "default"}, "data": {"colour": "red\n"}}
        client.put("ConfigMap", config)
        client.put("Secret", {"metadata": {"name": "secret", "namespace": "default"}, "data": {"word": "aHVzaAo="}})
        manager.observe("ADDED", one)
        out = manager.directory / "pods" / "uid-p" / "volumes" / "empty" / "out"
        await until(lambda: out.exists() and out.read_text() == 'red\nhush\napp="web"\n')
        config["data"]["colour"] = "blue\n"
        changed = {**one, "metadata": {**one["metadata"], "labels": {"app": "other"}}}
        manager.observe("MODIFIED", changed)
        await until(lambda: out.read_text() == 'blue\nhush\napp="other"\n')

    run(tmp_path, story)


def test_every_pod_knows_where_the_api_server_is(tmp_path):
    names = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HOSTNAME", "POD_IP")
    one = pod("p", ["sh", "-c", "; ".join(f"echo ${name}" for name in names) + "; sleep 60"])

    async def story(manager, client, recorder):
        manager.observe("ADDED", one)
        log = manager.directory / "pods" / "uid-p" / "containers" / "main" / "0.log"
        await until(lambda: log.exists() and len(log.read_text().splitlines()) == 4)
        words = [line.split()[-1] for line in log.read_text().splitlines()]
        await until(lambda: client.status("p").get("podIP"))
        host = "127.11.0.1" if sys.platform == "linux" else "127.0.0.1"
        assert words == [host, "6443", "p", client.status("p")["podIP"]]

    run(tmp_path, story)


def test_a_container_that_is_added_runs_once_and_ends_with_the_pod(tmp_path):
    async def story(manager, client, recorder):
        one = pod("p")
        one["spec"]["containers"] = [shell("main", "exec sleep 60")]
        manager.observe("ADDED", one)
        await until(lambda: client.status("p").get("phase") == "Running")
        debug = [shell("quick", "echo seen > $HOME/seen; exit 3"), shell("long", "exec sleep 60")]
        debugged = {**one, "spec": {**one["spec"], "ephemeralContainers": debug}}
        manager.observe("MODIFIED", debugged)

        def found():
            return containers(client, "p", "ephemeralContainerStatuses")

        await until(
            lambda: found() and "terminated" in found()["quick"]["state"] and "running" in found()["long"]["state"]
        )
        assert found()["quick"]["state"]["terminated"]["exitCode"] == 3
        assert [found()["quick"]["restartCount"], found()["long"]["ready"]] == [0, False]
        assert (client.status("p")["phase"], set(containers(client, "p"))) == ("Running", {"main"})
        ready = {each["type"]: each["status"] for each in client.status("p")["conditions"]}["Ready"]
        assert ready == "True"
        worker = manager.workers[one["metadata"]["uid"]]
        manager.observe("MODIFIED", deleted(debugged, 0))
        await until(lambda: not any(each.alive for each in worker.containers))

    run(tmp_path, story)
