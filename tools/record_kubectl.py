"""Records what the stock kubectl asks of the API server, for the test that replays it.

Usage: .venv/bin/python tools/record_kubectl.py [KUBECTL]   (writes tests/localcluster_apiserver/kubectl_requests.jsonl)
"""

import asyncio
import base64
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from flyball.localcluster import ApiServer, server

ROOT = Path(__file__).parents[1]
OUT = ROOT / "tests/localcluster_apiserver/kubectl_requests.jsonl"
WEBAPP = str(ROOT / "examples/webapp/manifests")
KEPT_HEADERS = ("accept", "content-type")
COMMANDS = (
    ("apply", "-f", WEBAPP),
    ("apply", "-f", WEBAPP),
    ("get", "deploy,svc,hpa,cm"),
    ("get", "deploy", "webapp", "-o", "wide"),
    ("get", "hpa", "webapp", "-o", "yaml"),
    ("describe", "hpa", "webapp"),
    ("scale", "deployment", "webapp", "--replicas=3"),
    ("label", "deployment", "webapp", "team=a"),
    ("annotate", "deployment", "webapp", "note=hello"),
    (
        "patch",
        "deployment",
        "webapp",
        "-p",
        '{"spec":{"template":{"spec":{"containers":[{"name":"webapp","image":"w:2"}]}}}}',
    ),
    ("patch", "deployment", "webapp", "--type=merge", "-p", '{"spec":{"replicas":4}}'),
    ("patch", "deployment", "webapp", "--type=json", "-p", '[{"op":"remove","path":"/metadata/labels/team"}]'),
    ("create", "configmap", "made", "--from-literal=a=b"),
    ("create", "deployment", "made", "--image=busybox", "--replicas=2"),
    ("autoscale", "deployment", "made", "--min=1", "--max=3", "--cpu-percent=50"),
    ("get", "hpa", "nosuch"),
    ("create", "configmap", "watched", "--from-literal=a=b"),
    ("get", "configmap", "watched", "-w"),
    ("get", "configmap", "-w", "-o", "json"),
    ("wait", "configmap/watched", "--for=jsonpath={.data.a}=c", "--timeout=20s"),
    ("patch", "configmap", "watched", "-p", '{"data":{"a":"c"}}'),
    ("delete", "configmap", "watched"),
    ("delete", "hpa,deployment,configmap", "made", "--wait=false"),
    ("api-resources",),
    ("version",),
)


BACKGROUND = ("-w", "wait")
"""These go on while the later commands run."""


def event_of(line: bytes) -> list[str]:
    """Type and object name of one event of a watch; a Table has a row for the object."""
    event = json.loads(line)
    found = event["object"]
    if found["kind"] == "Table":
        found = found["rows"][0]["object"]
    return [event["type"], found["metadata"]["name"]]


def recording(app: Any, records: list[dict[str, Any]], current: list[str]) -> Any:
    """The app, each of whose finished requests is appended to ``records``."""

    async def recorder(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body, status, command = b"", 0, current[0]
        headers = {k.decode(): v.decode() for k, v in scope["headers"] if k.decode() in KEPT_HEADERS}
        query = scope["query_string"].decode()
        record = {
            "command": command,
            "method": scope["method"],
            "target": scope["path"] + (f"?{query}" if query else ""),
            "headers": headers,
        }
        if "watch=" in query:
            events: list[list[str]] = []
            records.append({**record, "body": "", "status": 200, "events": events})

            async def streaming(message: Any) -> None:
                events.extend(event_of(line) for line in message.get("body", b"").splitlines())
                await send(message)

            await app(scope, receive, streaming)
            return

        async def reading() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        async def sending(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await app(scope, reading, sending)
        if status == 304:  # kubectl's own cache; the replay has none
            return
        records.append({**record, "body": base64.b64encode(body).decode(), "status": status})

    return recorder


async def main(kubectl: str) -> None:
    records: list[dict[str, Any]] = []
    current = [""]
    serve = server.serve

    async def serving(app: Any, **options: Any) -> Any:
        return await serve(recording(app, records, current), **options)

    server.serve = serving  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory)
        api_server = ApiServer(data_dir, 33_000)
        await api_server.start()
        background: list[asyncio.subprocess.Process] = []
        for command in COMMANDS:
            current[0] = " ".join(command).replace(str(ROOT) + "/", "")
            process = await asyncio.create_subprocess_exec(
                kubectl, "--kubeconfig", str(data_dir / "kubeconfig"), *command, env={**os.environ, "HOME": directory}
            )
            if set(BACKGROUND).isdisjoint(command):
                await process.wait()
                continue
            background.append(process)
            while not any(r["command"] == current[0] and "events" in r for r in records):
                await asyncio.sleep(0.05)
        for process in background:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        await api_server.close()
    OUT.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{len(records)} requests in {OUT}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "kubectl"))
