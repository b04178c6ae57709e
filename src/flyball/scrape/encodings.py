"""Content-Encodings, undone while the bytes arrive, so that a bomb is seen after its first few kilobytes."""

import zlib
from typing import Any, Protocol

from flyball.errors import ScrapeError

_inflate: Any = zlib
try:  # the extra "fast": the same interface, two to three times as fast
    from isal import isal_zlib

    _inflate = isal_zlib
except ImportError:
    pass

#: A zstd block of 4 bytes can become 128 KiB, so a slice of this many bytes at most 8 MiB.
_ZSTD_SLICE = 256


class Decoder(Protocol):
    """Undoes one encoding."""

    def feed(self, data: bytes, room: int) -> bytes:
        """What ``data`` becomes; more than ``room`` bytes mean that there is too much, and perhaps more to come."""
        ...

    def finish(self) -> None:
        """Raises:
        ScrapeError: the body was cut short.
        """
        ...


def decoder(encoding: str) -> Decoder | None:
    """None for a body that is not encoded.

    Raises:
        ScrapeError: an encoding that the target was not asked for.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name == "gzip":
        return _Gzip()
    if name == "zstd":
        return _Zstd()
    raise ScrapeError(f'the Content-Encoding "{encoding}" is not supported; the target was asked for gzip')


class _Gzip:
    def __init__(self) -> None:
        self._inflate = _inflate.decompressobj(31)

    def feed(self, data: bytes, room: int) -> bytes:
        try:
            plain: bytes = self._inflate.decompress(data, room + 1)
        except _inflate.error as exc:
            raise ScrapeError(f"the body is not gzip: {exc}") from exc
        return plain

    def finish(self) -> None:
        if not self._inflate.eof:
            raise ScrapeError("the gzip body was cut short")


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # here: few targets send it

        self._error = zstandard.ZstdError
        self._decompress = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()

    def feed(self, data: bytes, room: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            for at in range(0, len(data), _ZSTD_SLICE):
                parts.append(self._decompress.decompress(data[at : at + _ZSTD_SLICE]))
                size += len(parts[-1])
                if size > room:
                    break
        except self._error as exc:
            raise ScrapeError(f"the body is not zstd: {exc}") from exc
        return b"".join(parts)

    def finish(self) -> None:
        if not self._decompress.eof:
            raise ScrapeError("the zstd body was cut short")
