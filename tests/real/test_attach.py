"""kubectl attach and kubectl run -i: a container's input, its terminal and what it says meanwhile."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Flyball, eventually

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Flyball]:
    one = Flyball(tmp_path_factory.mktemp("attach") / "data", kubectl_path)
    one.start()
    yield one
    one.stop()


def command(cluster: Flyball, *words: str) -> list[str]:
    return [cluster.kubectl_path, "--kubeconfig", str(cluster.data_dir / "kubeconfig"), *words]


def apply(cluster: Flyball, name: str, *words: str, **container: Any) -> None:
    main = {"name": "main", "image": "busybox", "command": list(words), **container}
    spec = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [main]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")


def test_run_gives_the_program_what_is_piped_and_shows_what_it_says(cluster: Flyball) -> None:
    said = cluster.kubectl(
        *("run", "tee", "-i", "--rm", "--restart=Never", "--image=busybox", "--quiet", "--command", "--"),
        *("sh", "-c", "while read line; do echo got $line; done; echo over >&2"),
        stdin="one\ntwo\n",
    )
    assert said.splitlines()[:2] == ["got one", "got two"]
    assert "NotFound" in cluster.kubectl("get", "pod", "tee", check=False)


def test_attach_shows_what_comes_from_now_on(cluster: Flyball) -> None:
    script = "import time, sys\nwhile True: print('tick', flush=True); print('tock', file=sys.stderr); time.sleep(0.1)"
    apply(cluster, "clock", sys.executable, "-uc", script)
    process = subprocess.Popen(
        command(cluster, "attach", "clock"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)] == ["tick\n"] * 3
        assert "tock\n" in [process.stderr.readline() for _ in range(3)]
    finally:
        process.kill()
        process.communicate()
    assert cluster.get("pod", "clock")["status"]["phase"] == "Running"


def test_an_input_stays_open_for_the_next_client_unless_it_is_for_one(cluster: Flyball) -> None:
    apply(cluster, "echo", "sh", "-c", "while read line; do echo got $line; done", stdin=True)
    for word in ("first", "second"):
        process = subprocess.Popen(
            command(cluster, "attach", "-i", "echo"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"got {word}\n"
        process.kill()
        process.communicate()
    assert cluster.kubectl("logs", "echo").split() == ["got", "first", "got", "second"]


def read_until(terminal: int, wanted: str) -> str:
    deadline, text = time.monotonic() + 20, ""
    while wanted not in text:
        assert time.monotonic() < deadline, text
        with contextlib.suppress(OSError):
            text += os.read(terminal, 1024).decode()
    return text


def test_a_terminal_has_a_prompt_a_size_and_an_end(cluster: Flyball) -> None:
    apply(cluster, "shell", "sh", tty=True, stdin=True, env=[{"name": "PS1", "value": "prompt> "}])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(cluster, "attach", "-it", "shell"), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        os.write(ours, b"\n")
        read_until(ours, "prompt> ")
        os.write(ours, b"tty; stty size; echo $((6*7))\n")
        shown = read_until(ours, "42")
        assert "/dev/pts/" in shown
        os.write(ours, b"exit 3\n")
        process.wait(20)
    finally:
        process.kill()
        os.close(ours)
    status = eventually(lambda: cluster.get("pod", "shell")["status"]["containerStatuses"][0]["state"]["terminated"])
    assert status["exitCode"] == 3


# kubectl of before 1.30, and what is built on its libraries, know no WebSocket.
WITHOUT_WEBSOCKETS = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}


def test_clients_that_speak_spdy_alone_execute_attach_and_forward(
    cluster: Flyball, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WITHOUT_WEBSOCKETS.items():
        monkeypatch.setenv(name, value)
    size = 20 << 20
    script = (
        "import http.server\nclass H(http.server.BaseHTTPRequestHandler):\n"
        f"  def do_GET(s): s.send_response(200); s.end_headers(); s.wfile.write(bytes(range(256)) * {size // 256})\n"
        "http.server.ThreadingHTTPServer(('', 8124), H).serve_forever()"
    )
    apply(cluster, "old", "python", "-c", script)
    assert cluster.kubectl("exec", "-i", "old", "--", "cat", stdin="x" * 300_000) == "x" * 300_000
    outcome = subprocess.run(
        command(cluster, "exec", "old", "--", "sh", "-c", "echo out; echo err >&2; exit 3"),
        capture_output=True,
        text=True,
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr.splitlines()[0]) == (3, "out\n", "err")
    said = cluster.kubectl(
        *("run", "wc", "-i", "--rm", "--restart=Never", "--image=busybox", "--quiet", "--", "wc", "-l"),
        stdin="one\ntwo\n",
    )
    assert said.split()[0] == "2"
    refused = cluster.kubectl("exec", "old", "-c", "none", "--", "true", check=False)
    assert "container none is not valid for pod old" in refused
    forward = subprocess.Popen(command(cluster, "port-forward", "pod/old", ":8124"), stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        url = "http://" + forward.stdout.readline().split()[2]

        def down() -> bool:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return bool(answer.read() == bytes(range(256)) * (size // 256))

        eventually(down)
    finally:
        forward.kill()
        forward.communicate()
