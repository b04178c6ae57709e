"""Content-Encodings, undone while the bytes arrive, so that a bomb is seen after its first few kilobytes."""

import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from flyball.errors import ScrapeError

_inflate: Any = zlib
try:  # the extra "fast": the same interface, two to three times as fast
    from isal import isal_zlib

    _inflate = isal_zlib
except ImportError:
    pass

#: Plain bytes come in pieces of at most this size, or what a slice of zstd becomes.
_PIECE = 1 << 20
#: A zstd block of 4 bytes can become 128 KiB, so a slice of this many bytes at most 8 MiB.
_ZSTD_SLICE = 256


class Decoder(Protocol):
    """Undoes one encoding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` becomes, piece by piece: whoever has enough asks for no more.

        Raises:
            ScrapeError: it is not so encoded.
        """
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

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            piece = self._inflate.decompress(data, _PIECE)
            yield piece
            while len(piece) == _PIECE and not self._inflate.eof:
                piece = self._inflate.decompress(self._inflate.unconsumed_tail, _PIECE)
                yield piece
        except _inflate.error as exc:
            raise ScrapeError(f"the body is not gzip: {exc}") from exc

    def finish(self) -> None:
        if not self._inflate.eof:
            raise ScrapeError("the gzip body was cut short")


class _Zstd:
    def __init__(self) -> None:
        import zstandard  # here: few targets send it

        self._error = zstandard.ZstdError
        self._decompress = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            for at in range(0, len(data), _ZSTD_SLICE):
                yield self._decompress.decompress(data[at : at + _ZSTD_SLICE])
        except self._error as exc:
            raise ScrapeError(f"the body is not zstd: {exc}") from exc

    def finish(self) -> None:
        if not self._decompress.eof:
            raise ScrapeError("the zstd body was cut short")
