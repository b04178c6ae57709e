"""SPDY/3.1 as far as exec, attach and port-forward speak it: frames in, frames out, no I/O.

Source: the SPDY protocol draft 3.1. Port-forward is tunnelled through a WebSocket in ``SPDY/3.1+portforward.k8s.io``;
older clients speak it on the connection itself (``spdytunnel``).
"""

import struct
import zlib
from dataclasses import dataclass

FIN = 0x01
_HEADERS_MAX = 1 << 16
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_CONTROL = 0x80030000

# The header compression's dictionary: words with their lengths, then a run of text.
_WORDS = (
    b"options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,age,allow,"
    b"authorization,cache-control,connection,content-base,content-encoding,content-language,content-length,"
    b"content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,if-match,"
    b"if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,"
    b"proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,"
    b"user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,"
    b"keep-alive,origin"
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word for word in _WORDS.split(b",")) + (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    b"404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    b"publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


class ProtocolError(Exception):
    """The bytes are no SPDY/3.1."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The client opened a stream; header names are in lower case."""

    stream: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; ``fin``: the client sends no more on it."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The client gave a stream up."""

    stream: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """To be answered with the same frame."""

    frame: bytes


Event = Opened | Data | Reset | Pinged


class Decoder:
    """Bytes from the client into events. Settings, window updates and go-aways say nothing that matters here."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete.

        Raises:
            ProtocolError: they are no SPDY/3.1.
        """
        self._buffer += data
        events: list[Event] = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            size = second & 0xFFFFFF
            if first & 0x80000000 and first >> 16 != _CONTROL >> 16:
                raise ProtocolError(f"control frame of version {first >> 16 & 0x7FFF}, not 3")
            if len(self._buffer) < 8 + size:
                break
            payload = bytes(self._buffer[8 : 8 + size])
            head = bytes(self._buffer[:8])
            del self._buffer[: 8 + size]
            if not first & 0x80000000:
                events.append(Data(first, payload, bool(second >> 24 & FIN)))
            else:
                event = self._control(first & 0xFFFF, payload, head)
                if event is not None:
                    events.append(event)
        return events

    def _control(self, kind: int, payload: bytes, head: bytes) -> Event | None:
        try:
            if kind == _SYN_STREAM:
                (stream,) = struct.unpack_from(">I", payload)
                return Opened(stream & 0x7FFFFFFF, self._headers(payload[10:]))
            if kind == _RST_STREAM:
                return Reset(struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF)
        except (struct.error, zlib.error, UnicodeDecodeError) as exc:
            raise ProtocolError(f"control frame {kind} cannot be read: {exc}") from exc
        return Pinged(head + payload) if kind == _PING else None

    def _headers(self, block: bytes) -> dict[str, str]:
        raw = self._inflate.decompress(block, _HEADERS_MAX)
        (count,) = struct.unpack_from(">I", raw)
        at, texts = 4, []
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", raw, at)
            texts.append(raw[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}


class Encoder:
    """Frames to the client."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """Accepts a stream."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack(">III", _CONTROL | _SYN_REPLY, 4 + len(block), stream) + block

    @staticmethod
    def data(stream: int, data: bytes, fin: bool = False) -> bytes:
        return struct.pack(">II", stream, (FIN << 24 if fin else 0) | len(data)) + data
