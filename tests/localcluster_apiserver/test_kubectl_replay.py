"""Requests that the stock kubectl made (tools/record_kubectl.py), sent again: the same answers, the same effects."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import aiohttp

from flyball.http.client import client_tls
from flyball.localcluster import ApiServer, pki

RECORDS = [json.loads(line) for line in (Path(__file__).parent / "kubectl_requests.jsonl").read_text().splitlines()]
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/webapp"


async def replay(data_dir: Path) -> tuple[list[tuple[str, int]], list[dict[str, Any]], dict[str, Any]]:
    """The statuses that differ, the decoded answers, and the Deployment in the end."""
    server = ApiServer(data_dir, port=0)
    await server.start()
    base = f"https://127.0.0.1:{server.port}"
    token = {"Authorization": f"Bearer {pki.token(data_dir)}"}
    differing, answers = [], []
    try:
        async with aiohttp.ClientSession() as session:
            for record in RECORDS:
                async with session.request(
                    record["method"],
                    base + record["target"],
                    headers={**record["headers"], **token},
                    data=base64.b64decode(record["body"]) or None,
                    ssl=client_tls(ca_file=data_dir / "pki" / "ca.crt"),
                ) as answer:
                    body = await answer.read()
                    if answer.status != record["status"]:
                        differing.append((f"{record['command']}: {record['method']} {record['target']}", answer.status))
                    is_json = answer.content_type == "application/json"
                    answers.append(json.loads(body) if is_json and body else {})
            async with session.get(
                base + DEPLOYMENT, headers=token, ssl=client_tls(ca_file=data_dir / "pki" / "ca.crt")
            ) as answer:
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


def test_the_recording_holds_protobuf_bodies_and_every_kind_of_patch() -> None:
    types = {record["headers"].get("content-type", "") for record in RECORDS}
    assert {
        "application/vnd.kubernetes.protobuf",
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
        "application/json-patch+json",
    } <= types
