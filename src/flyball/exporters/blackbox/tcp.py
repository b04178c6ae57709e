"""A TCP probe: a connection, and a conversation in lines over it."""

import asyncio
import contextlib
import re
import ssl
from typing import Any

from flyball.exporters.blackbox.findings import Findings, ProbeFailed, resolve, tell_tls
from flyball.exporters.blackbox.http import tls_of
from flyball.exporters.blackbox.modules import Step, TcpModule

_GROUP = re.compile(rb"\$(?:\{(\w+)\}|(\w+)|(\$))")


async def probe_tcp(target: str, module: TcpModule, findings: Findings, hostname: str = "") -> None:
    """Probes ``host:port``.

    Args:
        hostname: whom the certificate must name in place of the target's host.

    Raises:
        ProbeFailed: the target is not as the module wants it.
    """
    host, colon, port = target.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal():
        raise ProbeFailed(f'"{target}" is not host:port')
    address = await resolve(findings, host, ip4_first=module.ip4_first, ip_fallback=module.ip_fallback)
    server_name = module.tls.server_name or hostname or host
    try:
        reader, writer = await asyncio.open_connection(address, int(port))
    except (OSError, OverflowError) as exc:
        raise ProbeFailed(f"cannot connect to {address}:{port}: {exc}") from exc
    findings.say(f"connected to {address}:{port}")
    with contextlib.closing(writer):
        findings.set("probe_failed_due_to_regex", 0)
        findings.set("probe_failed_due_to_bytes", 0)

        async def start_tls() -> None:
            try:
                await writer.start_tls(tls_of(module), server_hostname=server_name)
            except (OSError, ssl.SSLError) as exc:
                raise ProbeFailed(f"no TLS with {host}: {exc}") from exc
            tell_tls(findings, writer.get_extra_info("ssl_object"), with_cipher=False)

        if module.with_tls:
            await start_tls()
        try:
            for step in module.steps:
                await _take(step, reader, writer, findings)
                if step.starttls:
                    await start_tls()
        except (OSError, ValueError) as exc:
            raise ProbeFailed(f"the conversation broke off: {exc}") from exc


async def _take(step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, findings: Findings) -> None:
    send = step.send.encode()
    if step.expect is not None:
        while line := await reader.readline():
            line = line.rstrip(b"\r\n")
            findings.say(f"read {line.decode(errors='replace')!r}")
            found = step.expect.search(line)
            if found is not None:
                break
        else:
            findings.set("probe_failed_due_to_regex", 1)
            raise ProbeFailed(f'no line matches "{step.expect.pattern}"')
        findings.set("probe_failed_due_to_regex", 0)
        send = expand(send, found)
        if step.labels:
            labels = {name: expand(value.encode(), found).decode(errors="replace") for name, value in step.labels}
            findings.set("probe_expect_info", 1, **labels)
    if step.expect_bytes:
        received = b""
        while step.expect_bytes not in received:
            piece = await reader.read(4096)
            if not piece:
                findings.set("probe_failed_due_to_bytes", 1)
                raise ProbeFailed(f"the bytes {step.expect_bytes!r} did not come")
            received = (received + piece)[-(1 << 20) :]
    if send:
        findings.say(f"send {send.decode(errors='replace')!r}")
        writer.write(send + b"\n")
        await writer.drain()


def expand(template: bytes, found: Any) -> bytes:
    """``${1}`` and ``$name`` as Go's Regexp.Expand replaces them; a group that is not there is empty."""

    def group(match: re.Match[bytes]) -> bytes:
        if match.group(3):
            return b"$"
        name = match.group(1) or match.group(2)
        values: dict[bytes, bytes | None] = found.groupdict()  # RE2 has the names of an expression on bytes as bytes
        values |= {str(number).encode(): value for number, value in enumerate((found.group(), *found.groups()))}
        return values.get(name) or b""

    return _GROUP.sub(group, template)
