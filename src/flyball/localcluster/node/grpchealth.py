"""One question of the gRPC health protocol (grpc.health.v1.Health/Check), as a kubelet's gRPC probe asks it.

The few frames of HTTP/2 that it takes are written and read here: of the answer only the message is looked at, so
header compression is not needed to read it.

Facts: RFC 9113 section 4 and 6, RFC 7541 section 6, grpc's PROTOCOL-HTTP2.md, grpc/health/v1/health.proto.
"""

import asyncio
import struct
from collections.abc import AsyncIterator

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _PADDED, _ACK = 1, 4, 8, 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_POST, _HTTP, _PATH, _AUTHORITY = b"\x83", b"\x86", b"\x04", b"\x01"  # of HPACK's static table
_FRAME_BYTES_MAX = 1 << 14
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


async def check(host: str, port: int, service: str, timeout_s: float) -> str:
    """``""`` when the service says that it serves, else why not."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout_s)
    except TimeoutError:
        return f'timeout: failed to connect service "{host}:{port}" within {timeout_s:g}s'
    except OSError as exc:
        return f'failed to connect service "{host}:{port}": {exc.strerror or exc}'
    try:
        status = await asyncio.wait_for(_ask(reader, writer, f"{host}:{port}", service), timeout_s)
    except TimeoutError:
        return f"timeout: health rpc did not complete within {timeout_s:g}s"
    except (OSError, EOFError, ValueError) as exc:
        return f"health rpc failed: {exc}"
    finally:
        writer.close()
    return "" if status == "SERVING" else f'service unhealthy (responded with "{status}")'


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str) -> str:
    """
    Raises:
        EOFError, ValueError: the answer is none.
    """
    name = service.encode()
    message = b"\x0a" + _length(len(name)) + name if name else b""
    headers = b"".join(
        (
            _POST,
            _HTTP,
            _PATH + _text(b"/grpc.health.v1.Health/Check"),
            _AUTHORITY + _text(authority.encode()),
            *(b"\x00" + _text(key) + _text(value) for key, value in _HEADER_FIELDS),
        )
    )
    body = b"\x00" + struct.pack(">I", len(message)) + message
    writer.write(
        _PREFACE
        + _frame(_SETTINGS, 0, 0)
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )
    received = b""
    async for kind, flags, stream, payload in _frames(reader):
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY or (kind == _RST_STREAM and stream == 1):
            raise ValueError("the server ended the call")
        elif kind == _DATA and stream == 1:
            received += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        if stream == 1 and kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            break
    if len(received) < 5:
        raise ValueError("no health status in the answer; the server has to implement grpc.health.v1.Health")
    status = received[5 : 5 + struct.unpack(">I", received[1:5])[0]]
    number = status[1] if len(status) == 2 and status[0] == 0x08 else 0
    return _STATUSES.get(number, str(number))


_HEADER_FIELDS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"user-agent", b"kube-probe/1.37"))


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """(type, flags, stream, payload) of each frame."""
    while True:
        head = await reader.readexactly(9)
        size = int.from_bytes(head[:3], "big")
        if size > _FRAME_BYTES_MAX:
            raise ValueError("the port does not speak HTTP/2")
        yield head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, await reader.readexactly(size)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: bytes) -> bytes:
    """A string of HPACK, not Huffman-coded."""
    most = 127
    if len(text) < most:
        return bytes((len(text),)) + text
    return bytes((most,)) + _length(len(text) - most) + text


def _length(number: int) -> bytes:
    """A number of seven bits a byte, the lowest first, as HPACK and protobuf both write it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
