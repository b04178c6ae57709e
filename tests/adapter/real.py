"""The real prometheus-adapter, run beside ours on the same API server and the same Prometheus."""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from .world import DEADLINE_S, World

Ask = Callable[..., Awaitable[tuple[int, bytes]]]


def _client_pair(directory: Path) -> Path:
    """A self-signed certificate of a member of system:masters, its own authority; the file holds the key too."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = ((NameOID.ORGANIZATION_NAME, "system:masters"), (NameOID.COMMON_NAME, "recorder"))
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "recorder.pem"
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + plain)
    return path


@contextlib.asynccontextmanager
async def real_adapter(binary: Path, found: World, config: Path, *flags: str) -> AsyncIterator[Ask]:
    """A running prometheus-adapter; gives a function that asks it as an administrator."""
    directory = found.directory / "real"
    directory.mkdir()
    pair = _client_pair(directory)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kubeconfig = found.flags.kubeconfig
    arguments = [
        *("--config", str(config), "--prometheus-url", found.prometheus.url, "--secure-port", str(port)),
        *("--bind-address", "127.0.0.1", "--cert-dir", str(directory), "--client-ca-file", str(pair)),
        *("--lister-kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig),
        *("--authorization-kubeconfig", kubeconfig, "--metrics-relist-interval", "1s", "--metrics-max-age", "10m"),
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

            async with asyncio.timeout(DEADLINE_S):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                        status, body = await ask("/apis/custom.metrics.k8s.io/v1beta1")
                        if status == 200 and b'"pods/' in body:
                            break
                    if process.returncode is not None:
                        raise RuntimeError((directory / "log").read_text())
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.5)  # its external metrics and informers have no sign of readiness
            yield ask
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
