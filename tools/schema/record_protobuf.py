"""Record the protobuf bodies that the installed kubectl sends, as test data for the decoder.

    python tools/schema/record_protobuf.py tests/localcluster_schema/recorded

A tiny HTTP server answers discovery from the kind table and fails every POST after keeping its body. The bodies in the
repository come from kubectl 1.32.4.
"""

from __future__ import annotations

import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import Any

from flyball.localcluster import schema

COMMANDS = {
    "configmap": "create configmap settings --from-literal=mode=fast --from-literal=empty= "
    "--from-file=note.txt=NOTE --from-file=blob=BLOB",
    "deployment": "create deployment web --image=nginx:1.27 --replicas=3 --port=8080 -- sleep 1d",
    "hpa": "autoscale deployment web --min=2 --max=10 --cpu-percent=60",
    "secret": "create secret generic keys --from-literal=user=ada --type=example.com/x",
    "namespace": "create namespace team-a",
    "service": "create service clusterip web --tcp=80:http --tcp=443:8443",
    "nodeport": "create service nodeport np --tcp=80:8080 --node-port=30080",
    "serviceaccount": "create serviceaccount robot",
    "role": "create role reader --verb=get,list --resource=pods",
    "clusterrole": "create clusterrole metrics --verb=get --non-resource-url=/metrics",
    "rolebinding": "create rolebinding rb --role=reader --serviceaccount=default:robot",
    "job": "create job once --image=busybox -- echo hi",
    "cronjob": "create cronjob often --image=busybox --schedule=*/5_*_*_*_* -- date",
    "ingress": "create ingress web --rule=example.com/*=web:80,tls=web-tls",
    "quota": "create quota q --hard=cpu=1,memory=512Mi,pods=3",
    "pdb": "create poddisruptionbudget pdb --selector=app=web --min-available=50%",
    "priorityclass": "create priorityclass high --value=1000 --description=d",
    "token": "create token robot --duration=10m",
    "can-i": "auth can-i create pods",
}
VERSIONS = list(dict.fromkeys((kind.group, kind.version) for kind in schema.KINDS))
WEB = {"name": "web", "namespace": "default"}
SCALE = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": WEB, "spec": {"replicas": 1}, "status": {}}
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": WEB, "spec": {"selector": {}, "template": {}}}


def resource(kind: schema.Kind, subresource: str = "") -> dict[str, Any]:
    group, version, carried = schema.SUBRESOURCE_KINDS.get(subresource, (kind.group, kind.version, kind.kind))
    name = f"{kind.plural}/{subresource}" if subresource else kind.plural
    shape = {
        "name": name,
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": carried,
        "verbs": ["get", "create"],
    }
    return {**shape, "group": group, "version": version}


def discovery(path: str) -> dict[str, Any] | None:
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups: dict[str, list[dict[str, str]]] = {}
        for group, version in VERSIONS:
            if group:
                groups.setdefault(group, []).append({"groupVersion": f"{group}/{version}", "version": version})
        found = [
            {"name": name, "versions": versions, "preferredVersion": versions[0]} for name, versions in groups.items()
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
    for group, version in VERSIONS:
        if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
            kinds = [kind for kind in schema.KINDS if (kind.group, kind.version) == (group, version)]
            resources = [resource(kind, sub) for kind in kinds for sub in ("", *kind.subresources)]
            return {"kind": "APIResourceList", "groupVersion": path.split("/", 2)[2], "resources": resources}
    return {"/deployments/web/scale": SCALE, "/deployments/web": DEPLOYMENT}.get(path.partition("/default")[2])


class Recorder(http.server.BaseHTTPRequestHandler):
    body = b""

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def answer(self, code: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        found = discovery(self.path.partition("?")[0])
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"}
        self.answer(200 if found else 404, found or missing)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Recorder.body = body if "protobuf" in self.headers["Content-Type"] else b""
        self.answer(
            500, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "recorded"}
        )


def main(folder: str) -> None:
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as scratch:
        note, blob = pathlib.Path(scratch, "note"), pathlib.Path(scratch, "blob")
        note.write_text("file body\n")
        blob.write_bytes(bytes(range(200, 256)))
        common = ["kubectl", "--server", f"http://127.0.0.1:{server.server_port}", "--kubeconfig", "/dev/null"]
        for name, line in COMMANDS.items():
            Recorder.body = b""
            words = [w.replace("NOTE", str(note)).replace("BLOB", str(blob)).replace("_", " ") for w in line.split()]
            done = subprocess.run([*common, "--cache-dir", scratch, *words], capture_output=True, text=True, timeout=60)
            if not Recorder.body:
                sys.exit(f"kubectl {line} sent no protobuf body: {done.stderr}")
            (out / f"{name}.pb").write_bytes(Recorder.body)
            print(f"{name}: {len(Recorder.body)} bytes")
    server.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
