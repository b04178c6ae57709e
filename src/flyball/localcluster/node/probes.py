"""Readiness, liveness and startup probes: httpGet, tcpSocket and exec, with periods and thresholds."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp

from flyball.localcluster.node import grpchealth

Object = dict[str, Any]
BODY_MAX_BYTES = 10 << 10


def number_of_port(container: Object, port: int | str) -> int:
    """A probe's port, by number or by the container's name for it; 0 when the name is not known."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    return 0


async def http_get(action: Object, container: Object, host: str, timeout_s: float) -> str:
    """``""`` when the answer is 200 to 399, else why not."""
    port = number_of_port(container, action.get("port", 0))
    scheme = str(action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    url = f"{scheme}://{action.get('host') or host}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {item["name"]: item["value"] for item in action.get("httpHeaders") or []}
    headers.setdefault("User-Agent", "kube-probe/1.33")
    context: ssl.SSLContext | bool = scheme != "https"
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
            await response.content.read(BODY_MAX_BYTES)
    except TimeoutError:
        return f'Get "{url}": no answer within {timeout_s:g} s'
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return f'Get "{url}": {getattr(exc, "os_error", None) or exc}'
    return "" if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


async def tcp_connect(action: Object, container: Object, host: str, timeout_s: float) -> str:
    """``""`` when the port accepts, else why not."""
    port = number_of_port(container, action.get("port", 0))
    target = action.get("host") or host
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(target, port), timeout_s)
    except TimeoutError:
        return f"dial tcp {target}:{port}: no answer within {timeout_s:g} s"
    except OSError as exc:
        return f"dial tcp {target}:{port}: {exc.strerror or exc}"
    writer.close()
    return ""


async def run_command(
    argv: Sequence[str], env: Mapping[str, str], cwd: str, timeout_s: float
) -> tuple[int | None, str]:
    """(exit code, or None when it took too long; its output, capped)."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as exc:
        return 127, f"{argv[0]}: {exc.strerror or exc}"
    assert process.stdout is not None
    output = bytearray()

    async def collect() -> None:
        assert process.stdout is not None
        while piece := await process.stdout.read(4096):
            if len(output) < BODY_MAX_BYTES:
                output.extend(piece)
        await process.wait()

    try:
        await asyncio.wait_for(collect(), timeout_s)
    except TimeoutError:
        return None, output.decode(errors="replace")
    finally:
        if process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode, output.decode(errors="replace")


Exec = Callable[[Sequence[str], float], Awaitable[tuple[int | None, str]]]


async def check(probe: Object, container: Object, host: str, execute: Exec) -> str:
    """One probe: ``""`` for success, else what failed."""
    timeout_s = float(probe.get("timeoutSeconds") or 1)
    if "httpGet" in probe:
        return await http_get(probe["httpGet"], container, host, timeout_s)
    if "tcpSocket" in probe:
        return await tcp_connect(probe["tcpSocket"], container, host, timeout_s)
    if "exec" in probe:
        code, output = await execute(probe["exec"].get("command") or ["true"], timeout_s)
        if code == 0:
            return ""
        return output.strip()[:1000] or ("command timed out" if code is None else f"command exited with {code}")
    if "grpc" in probe:
        asked = probe["grpc"]
        return await grpchealth.check(host, int(asked.get("port") or 0), str(asked.get("service") or ""), timeout_s)
    return "the probe has no httpGet, tcpSocket, exec or grpc"


class Prober:
    """Runs one probe for one running container.

    Args:
        on_result: called with the settled state (after the thresholds) whenever it changes, and at first.
        on_failure: called with each failed probe's message.
    """

    def __init__(
        self,
        probe: Object,
        attempt: Callable[[], Awaitable[str]],
        on_result: Callable[[bool], None],
        on_failure: Callable[[str], Awaitable[None]],
        stop_at_success: bool = False,
        eager: bool = False,
    ) -> None:
        self.probe = probe
        self._attempt = attempt
        self._on_result = on_result
        self._on_failure = on_failure
        self._stop_at_success = stop_at_success
        self._eager = eager

    async def run(self) -> None:
        period_s = float(self.probe.get("periodSeconds") or 10)
        successes_needed = int(self.probe.get("successThreshold") or 1)
        failures_needed = int(self.probe.get("failureThreshold") or 3)
        await asyncio.sleep(float(self.probe.get("initialDelaySeconds") or 0))
        settled: bool | None = None
        successes = failures = 0
        quick = 0
        while True:
            message = await self._attempt()
            if message:
                successes, failures = 0, failures + 1
                await self._on_failure(message)
            else:
                successes, failures = successes + 1, 0
            if successes >= successes_needed and settled is not True:
                settled = True
                self._on_result(True)
                if self._stop_at_success:
                    return
            elif failures >= failures_needed and settled is not False:
                settled = False
                self._on_result(False)
            if self._eager and settled is None and quick < 20 and failures:
                # A program that is only just starting is asked more often, as kubelets do after its start.
                quick += 1
                await asyncio.sleep(min(period_s, 0.25))
                failures = 0
            else:
                await asyncio.sleep(period_s)
