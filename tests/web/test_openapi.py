"""Prometheus' own description of its API, driven against us: no answer is a 5xx, every answer fits its schema."""

import asyncio
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flyball import clock
from flyball.http.server import serve
from flyball.model.labels import labels_of
from flyball.store import Head
from flyball.web.prometheus_api import Instance, create_app
from flyball.web.receiving import Receiver

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"
SECONDS = 60


class Administered:
    """Takes every order of the admin API."""

    async def delete_series(self, *_: Any) -> None:
        pass

    async def clean_tombstones(self) -> None:
        pass

    async def snapshot(self, skip_head: bool) -> str:
        return "snapshot"


@pytest.mark.real
def test_schemathesis_finds_nothing(shared: Path) -> None:
    beside = Path(sys.executable).with_name("schemathesis")
    program = str(beside) if beside.exists() else shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis not found")
    head = Head()
    now = clock.now_ms()
    for at in range(10):
        for name in ("up", "http_requests_total", "example"):
            head.append(labels_of({"__name__": name, "job": "prometheus"}), now - 60_000 + at * 1000, float(at))

    async def go() -> subprocess.CompletedProcess[str]:
        with ThreadPoolExecutor(2) as executor:
            instance = Instance(admin=Administered())
            routes = Receiver(head, head).routes(remote_write=True, otlp=True)
            app = create_app(head, executor=executor, routes=routes, instance=instance, queries_max=2)
            server = await serve(app, port=0)
            try:
                return await asyncio.to_thread(
                    subprocess.run,
                    [
                        *(program, "run", str(shared / "prometheus-api" / "openapi_3.1.yaml")),
                        *("-u", f"http://127.0.0.1:{server.port}/api/v1", "--checks", CHECKS),
                        *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--max-time", str(SECONDS)),
                        *("--generation-deterministic", "--no-shrink", "--continue-on-failure", "--no-color"),
                    ],
                    capture_output=True,
                    text=True,
                    timeout=3 * SECONDS,
                    env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
                )
            finally:
                await server.close()

    result = asyncio.run(go())
    assert result.returncode == 0, result.stdout[-20_000:]
