"""Requests that the stock kubectl made (tools/record_kubectl.py), sent again: the same answers, the same effects."""

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from flyball.http.client import client_tls
from flyball.localcluster import ApiServer, pki

RECORDS = [json.loads(line) for line in (Path(__file__).parent / "kubectl_requests.jsonl").read_text().splitlines()]
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/webapp"


def event_of(line: bytes) -> list[str]:
    """Type and object name of one event of a watch; a Table has a row for the object."""
    event = json.loads(line)
    found = event["object"]
    if found["kind"] == "Table":
        found = found["rows"][0]["object"]
    return [event["type"], found["metadata"]["name"]]


async def replay(data_dir: Path) -> tuple[list[tuple[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The statuses and watches that differ, the decoded answers, and the Deployment in the end.

    A watch runs beside the requests after it. It begins where the list before it ended, as kubectl's did.
    """
    server = ApiServer(data_dir, port=0)
    await server.start()
    base = f"https://127.0.0.1:{server.port}"
    token = {"Authorization": f"Bearer {pki.token(data_dir)}"}
    differing, answers, watches = [], [], []
    tls = client_tls(ca_file=data_dir / "pki" / "ca.crt")
    list_version = ""
    try:
        async with aiohttp.ClientSession() as session:

            def send(record: dict[str, Any], target: str) -> Any:
                headers, body = {**record["headers"], **token}, base64.b64decode(record["body"]) or None
                return session.request(record["method"], base + target, headers=headers, data=body, ssl=tls)

            async def watch(record: dict[str, Any]) -> None:
                target = re.sub(r"resourceVersion=[1-9]\d*", f"resourceVersion={list_version}", record["target"])
                answer = await send(record, target)

                async def reading() -> None:
                    seen = []
                    while len(seen) < len(record["events"]) and (line := await answer.content.readline()):
                        seen.append(event_of(line))
                    answer.close()
                    if seen != record["events"]:
                        differing.append((f"{record['command']}: {record['method']} {target}", seen))

                watches.append(asyncio.create_task(reading()))

            for record in RECORDS:
                if "events" in record:
                    await watch(record)
                    continue
                async with send(record, record["target"]) as answer:
                    body = await answer.read()
                    if answer.status != record["status"]:
                        differing.append((f"{record['command']}: {record['method']} {record['target']}", answer.status))
                    is_json = answer.content_type == "application/json"
                    answers.append(json.loads(body) if is_json and body else {})
                    list_version = answers[-1].get("metadata", {}).get("resourceVersion", list_version)
            await asyncio.wait_for(asyncio.gather(*watches), 20)
            async with session.get(base + DEPLOYMENT, headers=token, ssl=tls) as answer:
                return differing, answers, await answer.json()
    finally:
        await server.close()


def test_every_recorded_request_is_answered_as_before_and_has_its_effect(tmp_path: Path) -> None:
    differing, answers, deployment = asyncio.run(replay(tmp_path))
    assert differing == []
    assert deployment["spec"]["replicas"] == 4
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "w:2"
    assert deployment["metadata"]["annotations"]["note"] == "hello"
    assert "team" not in deployment["metadata"]["labels"]
    tables = [a for a in answers if a.get("kind") == "Table"]
    assert [c["name"] for c in tables[0]["columnDefinitions"]][:4] == ["Name", "Ready", "Up-to-date", "Available"]


def test_the_recording_holds_watches_that_saw_each_kind_of_event() -> None:
    seen = {event[0] for record in RECORDS for event in record.get("events", ())}
    assert {"ADDED", "MODIFIED", "DELETED"} <= seen


def test_the_recording_holds_protobuf_bodies_and_every_kind_of_patch() -> None:
    types = {record["headers"].get("content-type", "") for record in RECORDS}
    assert {
        "application/vnd.kubernetes.protobuf",
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
        "application/json-patch+json",
    } <= types
