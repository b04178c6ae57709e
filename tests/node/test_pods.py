"""Real processes under the pod manager; the API is a fake that remembers."""

import asyncio
import os
import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from flyball.errors import ConfigError
from flyball.localcluster.node import containerlogs, images, process, procfs
from flyball.localcluster.node.pods import PodManager

from .fakes import pod, run, until


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


SERVER = """
import os, socket
from http.server import BaseHTTPRequestHandler, HTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(f"{socket.gethostname()} {os.environ['GREETING']}".encode())
    def log_message(self, *a): pass
HTTPServer(("0.0.0.0", int(os.environ["PORT"])), H).serve_forever()
"""


def test_two_pods_serve_one_port_from_a_config_map(tmp_path):
    port = free_port()

    def web(name):
        one = pod(
            name,
            ["python", "/app/server.py"],
            env=[{"name": "PORT", "value": str(port)}, {"name": "GREETING", "value": "hi $(PORT)"}],
            ports=[{"containerPort": port}],
            volumeMounts=[{"name": "app", "mountPath": "/app"}],
            readinessProbe={"httpGet": {"path": "/", "port": port}, "periodSeconds": 1},
        )
        one["spec"]["volumes"] = [{"name": "app", "configMap": {"name": "app"}}]
        return one

    async def story(manager, client, recorder):
        one = web("a")
        manager.observe("ADDED", one)
        await until(lambda: "FailedMount" in recorder.reasons())
        assert client.status("a")["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
        config = {"metadata": {"name": "app", "namespace": "default"}, "data": {"server.py": SERVER}}
        client.put("ConfigMap", config)
        manager.observe("ADDED", web("b"))

        def ready(name):
            found = {c["type"]: c["status"] for c in client.status(name).get("conditions", [])}
            return found.get("Ready") == "True"

        await until(lambda: ready("a") and ready("b"))
        ips = [client.status(name)["podIP"] for name in "ab"]
        assert len(set(ips)) == 2
        answers = [await asyncio.to_thread(fetch, f"http://{ip}:{port}/") for ip in ips]
        assert answers == [f"{name} hi {port}".encode() for name in "ab"]

        gone = web("a")
        gone["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 2}
        manager.observe("MODIFIED", gone)
        await until(lambda: ("Pod", "a", "uid-a", 0) in client.deleted)
        await until(lambda: "uid-a" not in manager.workers)
        assert not (manager.directory / "pods" / "uid-a").exists()

    run(tmp_path, story)


def test_a_crash_is_restarted_with_back_off_and_keeps_the_previous_log(tmp_path):
    async def story(manager, client, recorder):
        manager.observe("ADDED", pod("c", ["sh", "-c", "echo bye; exit 3"]))
        await until(lambda: (client.status("c").get("containerStatuses") or [{}])[0].get("restartCount", 0) >= 2)
        last = client.status("c")["containerStatuses"][0]["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (3, "Error")
        assert "BackOff" in recorder.reasons()

    run(tmp_path, story, backoff_first_s=0.1)


def test_never_restarted_pods_succeed_and_fail(tmp_path):
    async def story(manager, client, recorder):
        for name, script in (("good", "true"), ("bad", "false")):
            one = pod(name, ["sh", "-c", script])
            one["spec"]["restartPolicy"] = "Never"
            manager.observe("ADDED", one)
        await until(lambda: client.status("good").get("phase") == "Succeeded")
        await until(lambda: client.status("bad").get("phase") == "Failed")

    run(tmp_path, story)


def test_without_a_command_the_pod_says_that_images_are_not_pulled(tmp_path):
    async def story(manager, client, recorder):
        manager.observe("ADDED", pod("i", image="example.org/own:1"))
        await until(lambda: recorder.events)
        assert "command" in recorder.events[0][3] and "example.org/own:1" in recorder.events[0][3]
        await until(lambda: client.status("i"))
        assert client.status("i")["phase"] == "Pending"

    run(tmp_path, story)


def test_an_image_of_ones_own_has_a_program_and_a_missing_one_says_what_to_install(tmp_path):
    async def story(manager, client, recorder):
        manager.observe("ADDED", pod("own", image="example.org/own:1", args=["60"]))
        manager.observe("ADDED", pod("missing", ["no-such-program-here"]))
        await until(lambda: client.status("own").get("phase") == "Running")
        await until(lambda: client.status("missing"))
        waiting = client.status("missing")["containerStatuses"][0]["state"]["waiting"]
        assert waiting["reason"] == "ErrImagePull" and "install no-such-program-here" in waiting["message"]

    run(tmp_path, story, image_commands=["example.org/own=sleep"])


@pytest.mark.parametrize("pair", ["nginx", "=x", "nginx=", "a='"])
def test_an_image_that_names_no_command_is_refused(pair):
    with pytest.raises(ConfigError, match="--image"):
        images.with_own([pair])


def test_the_second_pod_of_another_program_stays_pending_until_the_first_is_gone(tmp_path):
    async def story(manager, client, recorder):
        def other(name):
            return pod(name, ["sleep", "60"], ports=[{"containerPort": 6379}])

        changes = []
        manager.yield_ports = lambda ports, ip: changes.append(("yielded", ports, ip))
        manager.take_back_ports = lambda ports, ip: changes.append(("back", ports, ip))
        manager.observe("ADDED", other("a"))
        await until(lambda: client.status("a").get("phase") == "Running")
        manager.observe("ADDED", other("b"))
        await until(lambda: "PortTaken" in recorder.reasons())
        await until(lambda: client.status("b").get("phase") == "Pending")
        assert "6379" in client.status("b")["containerStatuses"][0]["state"]["waiting"]["message"]
        first = client.status("a")["podIP"]
        manager.observe("DELETED", other("a"))
        await until(lambda: client.status("b").get("phase") == "Running")
        second = client.status("b")["podIP"]
        assert changes == [("yielded", {6379}, first), ("back", {6379}, first), ("yielded", {6379}, second)]

    run(tmp_path, story)


def test_a_killed_node_finds_its_pods_again(tmp_path):
    script = f"""
import asyncio, importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("fakes", {str(Path(__file__).with_name("fakes.py"))!r})
fakes = importlib.util.module_from_spec(spec); spec.loader.exec_module(fakes)
from flyball.localcluster.node.pods import PodManager
async def main():
    client = fakes.FakeClient()
    manager = PodManager(pathlib.Path({str(tmp_path / "node")!r}), 0, client, fakes.FakeRecorder())
    manager.observe("ADDED", fakes.pod("p", ["sleep", "60"], ports=[{{"containerPort": 6380}}]))
    await fakes.until(lambda: client.status("p").get("phase") == "Running")
    status = client.status("p")
    print(status["podIP"], status["containerStatuses"][0]["containerID"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""

    async def story(manager, client, recorder):
        node = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        ip, identity = (await node.stdout.readline()).decode().split()
        pid = int(identity.rpartition("/")[2])
        os.kill(pid, signal.SIGSTOP)
        node.kill()
        await node.wait()
        # The shim notices that the node is gone and continues what a limiter may have stopped.
        await until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] != "T")
        fresh = PodManager(manager.directory, 0, client, recorder)
        yielded = []
        fresh.yield_ports = lambda ports, ip: yielded.append((ports, ip))
        fresh.observe("ADDED", pod("p", ["sleep", "60"], ports=[{"containerPort": 6380}]))
        await until(lambda: client.status("p").get("phase") == "Running")
        status = client.status("p")["containerStatuses"][0]
        assert (client.status("p")["podIP"], status["containerID"]) == (ip, identity)
        assert status["restartCount"] == 0
        assert yielded == [({6380}, ip)]
        await fresh.close(stop_pods=True, grace_s=1.0)
        assert procfs.start_ticks(pid) == 0

    run(tmp_path, story)


def test_a_program_that_a_killed_node_was_starting_runs_once(tmp_path):
    marks = tmp_path / "marks"
    command = ["/bin/sh", "-c", f"echo began >> {marks}; exec sleep 60"]
    script = f"""
import asyncio, os, pathlib, signal
from flyball.localcluster.node import process
async def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)
process._read_answer = dies
directory = pathlib.Path({str(tmp_path / "node/pods/uid-p/containers/main")!r})
asyncio.run(process.start(directory, 0, {command!r}, dict(os.environ), "/"))
"""

    async def story(manager, client, recorder):
        node = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        assert await node.wait() == -signal.SIGKILL
        fresh = PodManager(manager.directory, 0, client, recorder)
        await fresh.take_over()
        fresh.observe("ADDED", pod("p", command))
        await until(lambda: client.status("p").get("phase") == "Running")
        await until(marks.exists)
        assert marks.read_text() == "began\n"
        assert client.status("p")["containerStatuses"][0]["restartCount"] == 0
        await fresh.close(stop_pods=True, grace_s=1.0)

    run(tmp_path, story)


def test_a_shim_that_fails_says_why(tmp_path, monkeypatch):
    shim = tmp_path / "shim.py"
    monkeypatch.setattr(process, "_SHIM", shim)
    for text, why in (
        ("raise OSError('no more descriptors')", "OSError: no more descriptors"),
        ("import os; os.kill(os.getpid(), 9)", "the pod shim ended by signal 9 before the program began"),
        ("", "the pod shim ended with code 0 before the program began"),
    ):
        shim.write_text(text)
        with pytest.raises(process.StartError, match=re.escape(why)):
            asyncio.run(process.start(tmp_path / "main", 0, ["/bin/true"], {}, "/"))


def test_a_program_that_is_being_started_ends_with_its_node(tmp_path, monkeypatch):
    async def never(*_):
        await asyncio.Event().wait()

    async def story(manager, client, recorder):
        monkeypatch.setattr(process, "_read_answer", never)
        manager.observe("ADDED", pod("p", ["sleep", "60"]))
        directory = manager.directory / "pods/uid-p/containers/main"
        await until((directory / "0.lock").exists)
        await manager.close(stop_pods=True, grace_s=1.0)
        numbers = process.read_run(directory, 0)
        assert numbers and procfs.start_ticks(numbers[2]) == 0
        assert process.read_exit(directory, 0).signal == signal.SIGTERM

    run(tmp_path, story)


def test_a_pod_that_has_ended_stays_so_when_its_node_starts_again(tmp_path):
    ended = pod("p", ["true"], volumeMounts=[{"name": "config", "mountPath": "/config"}])
    ended["spec"] |= {"restartPolicy": "Never", "volumes": [{"name": "config", "configMap": {"name": "gone"}}]}

    async def story(manager, client, recorder):
        client.put("ConfigMap", {"metadata": {"name": "gone", "namespace": "default"}, "data": {}})
        manager.observe("ADDED", ended)
        await until(lambda: client.status("p").get("phase") == "Succeeded")
        client.objects.clear()
        written = len(client.patches)
        fresh = PodManager(manager.directory, 0, client, recorder)
        # The new node may be shown the object as it was before its end.
        fresh.observe("ADDED", ended)
        await until(lambda: len(client.patches) > written)
        assert client.status("p")["phase"] == "Succeeded"
        assert "FailedMount" not in recorder.reasons()
        await fresh.close(stop_pods=True, grace_s=1.0)

    run(tmp_path, story)


def test_what_could_not_be_started_is_not_tried_again_by_the_next_node(tmp_path, monkeypatch):
    async def refused(*_, **__):
        raise process.StartError("no more processes")

    async def story(manager, client, recorder):
        once = pod("p", ["true"])
        once["spec"]["restartPolicy"] = "Never"
        with monkeypatch.context() as patched:
            patched.setattr(process, "start", refused)
            manager.observe("ADDED", once)
            await until(lambda: client.status("p").get("phase") == "Failed")
        written = len(client.patches)
        fresh = PodManager(manager.directory, 0, client, recorder)
        fresh.observe("ADDED", once)
        await until(lambda: len(client.patches) > written)
        ended = client.status("p")["containerStatuses"][0]["state"]["terminated"]
        assert (client.status("p")["phase"], ended["message"]) == ("Failed", "no more processes")
        await fresh.close(stop_pods=True, grace_s=1.0)

    run(tmp_path, story)


def test_what_the_api_has_as_ended_is_not_brought_back_to_life(tmp_path):
    failed = pod("p", ["sleep", "60"])
    failed["status"] = {"phase": "Failed", "reason": "DeadlineExceeded"}

    async def story(manager, client, recorder):
        (manager.directory / "pods/uid-p").mkdir(parents=True)
        manager.observe("ADDED", failed)
        await until(lambda: client.status("p"))
        assert client.status("p")["phase"] == "Failed"
        assert not manager.workers["uid-p"].containers[0].alive

    run(tmp_path, story)


def test_the_cpu_limit_holds(tmp_path):
    async def story(manager, client, recorder):
        manager.observe(
            "ADDED", pod("l", ["python", "-S", "-c", "while True: pass"], resources={"limits": {"cpu": "200m"}})
        )
        one = await until(
            lambda: manager.workers["uid-l"].containers[0].state.running and manager.workers["uid-l"].containers[0]
        )
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        begin, used = loop.time(), one.figures().cpu_ns
        await asyncio.sleep(2.0)
        cores = (one.figures().cpu_ns - used) / 1e9 / (loop.time() - begin)
        assert 0.02 <= cores <= 0.23  # on a busy machine it gets less than its limit

    run(tmp_path, story)


def test_logs_rotate_tail_and_follow(tmp_path):
    async def main():
        script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf end"
        env = {"PATH": os.environ["PATH"]}
        running = await process.start(tmp_path, 0, ["/bin/sh", "-c", script], env, "/", log_max_bytes=20000)
        path = tmp_path / "0.log"
        options = containerlogs.LogOptions(follow=True)
        await running.wait()
        assert running.exit.code == 0
        kept = containerlogs.files(path)
        assert len(kept) == containerlogs.LOG_FILES
        assert all(one.stat().st_size <= 20000 for one in kept)
        text = b"".join([c async for c in containerlogs.read(path, options, lambda: False)])
        lines = text.decode().split()
        assert lines[-3:] == ["line", "1999", "end"]
        for count in (0, 1, 3, 700):
            tail = containerlogs.LogOptions(tail_lines=count)
            out = b"".join([c async for c in containerlogs.read(path, tail, lambda: False)])
            assert len(out.splitlines()) == count
            assert text.endswith(out)

    asyncio.run(main())
