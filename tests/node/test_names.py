"""Cluster names: the table, and a Python program that resolves and connects by it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import flyball.localcluster.node
from flyball.localcluster.node.names import NameTable, addresses_of, aliases_of, search_list

SHIM = Path(flyball.localcluster.node.__file__).parent / "shim"


def service(name, namespace="default", **spec):
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def endpoint_slice(service_name, *endpoints):
    return {
        "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": service_name}},
        "endpoints": [
            {"addresses": [ip], "hostname": host, "conditions": {"ready": ready}} for ip, host, ready in endpoints
        ],
    }


SERVICES = [
    service("web", clusterIP="127.11.1.1"),
    service("db", clusterIP="None"),
    service("away", type="ExternalName", externalName="example.org"),
]
SLICES = [endpoint_slice("db", ("127.10.0.2", "db-0", True), ("127.10.0.3", "db-1", True), ("127.10.0.4", "x", False))]


def test_services_replicas_and_aliases_have_names():
    assert addresses_of(SERVICES, SLICES) == {
        "web.default.svc.cluster.local": ["127.11.1.1"],
        "db.default.svc.cluster.local": ["127.10.0.2", "127.10.0.3"],
        "db-0.db.default.svc.cluster.local": ["127.10.0.2"],
        "db-1.db.default.svc.cluster.local": ["127.10.0.3"],
    }
    assert aliases_of(SERVICES) == {"away.default.svc.cluster.local": "example.org"}


PROGRAM = """
import asyncio, http.client, socket, sys
def ask(name, **more):
    try:
        return sorted({info[4][0] for info in socket.getaddrinfo(name, 80, **more)})
    except socket.gaierror:
        return None
print([ask(n) for n in ("web", "web.default", "db.default.svc", "db-1.db", "db-0.db.default.svc.cluster.local.")])
print(socket.gethostbyname("web"), socket.gethostbyname_ex("db")[2], ask("web", family=socket.AF_INET6))
print(ask("db-0"), ask("web."), ask("localhost", family=socket.AF_INET), ask(socket.gethostname()))
port = int(sys.argv[1])
connection = http.client.HTTPConnection("served", 80)
connection.request("GET", "/")
print(connection.getresponse().status)
async def stream():
    reader, writer = await asyncio.open_connection("served", 80)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    return (await reader.readline()).split()[1].decode()
print(asyncio.run(stream()))
"""


def test_a_python_pod_resolves_cluster_names_and_reaches_a_moved_port(tmp_path):
    async def main():
        async def answer(reader, writer):
            await reader.readline()
            writer.write(b"HTTP/1.0 204 No Content\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        names = addresses_of([*SERVICES, service("served", clusterIP="127.0.0.1")], SLICES)
        contents = {"names": names, "aliases": {}, "ports": {"127.0.0.1:80": port}}
        table = NameTable(tmp_path / "names.json", lambda: contents)
        table.write()
        assert json.loads(table.path.read_text()) == contents
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SHIM),
            "POD_IP": "127.10.0.9",
            "HOSTNAME": "me-0",
            "FLYBALL_NAMES": str(table.path),
            "FLYBALL_SEARCH": " ".join(search_list("default")),
        }
        out = await asyncio.to_thread(
            subprocess.check_output, [sys.executable, "-c", PROGRAM, str(port)], env=env, text=True, timeout=30
        )
        server.close()
        return out.splitlines()

    web, db = "['127.11.1.1']", "['127.10.0.2', '127.10.0.3']"
    assert asyncio.run(main()) == [
        f"[{web}, {web}, {db}, ['127.10.0.3'], ['127.10.0.2']]",
        f"127.11.1.1 {db} None",
        "None None ['127.0.0.1'] ['127.10.0.9']",
        "204",
        "204",
    ]
