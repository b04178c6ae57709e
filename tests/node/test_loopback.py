"""Programs of any kind have their pod's address, and the containers of a pod meet on localhost."""

import asyncio
import socket
import sys

import pytest

from flyball.localcluster.node import runtimes

from .fakes import pod, run, until
from .test_pods import fetch, free_port

# With -I no shim of ours is imported: to us it is a program like any other.
SERVER = """
import http.server, os, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["HOSTNAME"].encode())
    def log_message(self, *a): pass
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
ASKER = """
import sys, time, urllib.request
while True:
    try:
        print(urllib.request.urlopen(f"http://{sys.argv[1]}:{sys.argv[2]}/", timeout=5).read().decode(), flush=True)
        break
    except OSError as exc:
        print(exc, flush=True)
    time.sleep(0.05)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def addresses():
    if not runtimes.gives_addresses():
        pytest.skip("needs Linux with seccomp notification")


def two_containers(name, listen, ask, port):
    env = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    serve = [sys.executable, "-I", "-c", SERVER, listen, str(port)]
    one = pod(name, serve, ports=[{"containerPort": port}], env=env)
    asker = {"name": "asker", "image": "python:3", "command": [sys.executable, "-I", "-c", ASKER, ask, str(port)]}
    one["spec"]["containers"].append(asker)
    return one


def log_of(manager, name, container="asker"):
    path = manager.directory / "pods" / f"uid-{name}" / "containers" / container / "0.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("listen", "ask"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "localhost"),
        ("127.0.0.1", "localhost"),
        ("::1", "[::1]"),
        ("$(POD_IP)", "127.0.0.1"),
    ],
)
def test_two_pods_of_any_program_serve_one_port_and_each_meets_its_own_sidecar(tmp_path, listen, ask):
    port = free_port()

    async def story(manager, client, recorder):
        for name in "ab":
            manager.observe("ADDED", two_containers(name, listen, ask, port))
        for name in "ab":
            await until(lambda name=name: f" F {name}\n" in log_of(manager, name))
            answer = await asyncio.to_thread(fetch, f"http://{client.status(name)['podIP']}:{port}/")
            assert answer == name.encode()
            command = [sys.executable, "-I", "-c", ASKER.replace("time.sleep(60)", "sys.exit(3)"), ask, str(port)]
            container = manager.workers[f"uid-{name}"].containers[0]
            assert await container.execute(command, 5.0) == (3, f"{name}\n")
        with socket.socket() as sock:  # the machine's own address is nobody's
            assert sock.connect_ex(("127.0.0.1", port)) != 0

    run(tmp_path, story, addressed=True)


def test_pods_of_the_hosts_network_meet_on_their_node_and_not_on_another(tmp_path):
    port = free_port()

    async def story(manager, client, recorder):
        for node in ("flyball-2", "flyball-3"):
            server, asker = two_containers(node, "0.0.0.0", "localhost", port)["spec"]["containers"]
            for name, container in ((node, server), (f"{node}-asker", asker)):
                one = pod(name)
                one["spec"] |= {"hostNetwork": True, "nodeName": node, "containers": [container]}
                manager.observe("ADDED", one)
        for node in ("flyball-2", "flyball-3"):
            await until(lambda node=node: f" F {node}\n" in log_of(manager, f"{node}-asker"))
            assert client.status(node)["podIP"] == client.status(f"{node}-asker")["podIP"] != "127.0.0.1"
        machine = pod("machine", ["sleep", "60"])
        machine["spec"]["hostNetwork"] = True
        manager.observe("ADDED", machine)
        await until(lambda: client.status("machine").get("podIP") == "127.0.0.1")

    run(tmp_path, story, addressed=True, nodes=("flyball", "flyball-2", "flyball-3"))


def test_what_is_not_of_the_pod_stays_as_it_is(tmp_path):
    script = """
import os, socket
known = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(known.getsockname())
print(known.getsockname()[0], one.getpeername()[0], socket.socket().connect_ex(("127.0.0.1", 1)), flush=True)
taken = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
print(socket.create_server(("127.0.0.1", int(os.environ["PORT"]))).getsockname()[0], flush=True)
try:
    socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
except OSError as exc:
    print(exc.errno, flush=True)
print(socket.socketpair()[0].family == socket.AF_UNIX, flush=True)
"""

    async def story(manager, client, recorder):
        env = [{"name": "PORT", "value": str(free_port())}]
        one = pod("p", [sys.executable, "-I", "-c", script], env=env)
        one["spec"]["containers"].append({"name": "other", "image": "busybox", "command": ["sleep", "60"]})
        one["spec"]["restartPolicy"] = "Never"
        manager.observe("ADDED", one)
        await until(lambda: "True" in log_of(manager, "p", "main"), what=log_of(manager, "p", "main"))
        said = [line.split(" ", 3)[3] for line in log_of(manager, "p", "main").splitlines()]
        # Its own loopback when the pod's address has the port already; in use stays in use.
        assert said == ["127.0.0.1 127.0.0.1 111", "127.0.0.1", "98", "True"]

    run(tmp_path, story, addressed=True)
