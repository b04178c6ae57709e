"""The real prometheus-adapter, run beside ours on the same API server and the same Prometheus."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.cluster.control_plane import free_port
from yarl import URL

from flyball import clock
from flyball.http import certificates

START_S = 60.0
Ask = Callable[..., Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True)
class RealAdapter:
    """One that runs. ``ask`` asks it as an administrator."""

    ask: Ask
    process: asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def real_adapter(
    binary: Path, directory: Path, config: Path, prometheus_url: str, kubeconfig: Path, *flags: str
) -> AsyncIterator[RealAdapter]:
    """Starts it, and waits until it lists metrics."""
    directory.mkdir()
    now_ms = clock.now_ms()
    authority = certificates.authority("recorders", 1, now_ms)
    client = certificates.leaf(authority, "recorder", 1, now_ms, organization="system:masters", client=True)
    pair, clients = directory / "recorder.pem", directory / "recorders.pem"
    pair.write_text(client.certificate_pem + client.key_pem)
    clients.write_text(authority.certificate_pem)
    port = free_port()
    arguments = [
        *("--config", str(config), "--prometheus-url", prometheus_url, "--secure-port", str(port)),
        *("--bind-address", "127.0.0.1", "--cert-dir", str(directory), "--client-ca-file", str(clients)),
        *("--lister-kubeconfig", str(kubeconfig), "--authentication-kubeconfig", str(kubeconfig)),
        *("--authorization-kubeconfig", str(kubeconfig), "--metrics-relist-interval", "1s", "--metrics-max-age", "10m"),
        *flags,
    ]
    with (directory / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(str(binary), *arguments, stdout=log, stderr=log)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its certificate signs itself
    context.load_cert_chain(pair)
    base = f"https://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=context, limit=1000)) as session:

            async def ask(path: str, headers: Any = None) -> tuple[int, bytes]:
                async with session.get(URL(base + path, encoded=True), headers=headers) as response:
                    return response.status, await response.read()

            async with asyncio.timeout(START_S):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                        status, body = await ask("/apis/custom.metrics.k8s.io/v1beta1")
                        if status == 200 and b'"pods/' in body:
                            break
                    if process.returncode is not None:
                        raise RuntimeError((directory / "log").read_text())
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.5)  # its external metrics and informers have no sign of readiness
            yield RealAdapter(ask, process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
