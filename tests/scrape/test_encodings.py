"""Content-Encodings, undone piece by piece."""

import gzip
import random
import zlib

import pytest
import zstandard

from flyball.errors import ScrapeError
from flyball.scrape import encodings

PIECE = 1000


@pytest.mark.parametrize("inflate", [encodings._inflate, zlib])
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7])
@pytest.mark.parametrize("step", [1, 37, 1 << 20])
def test_whatever_the_pieces_the_whole_is_the_same(inflate, size, step, monkeypatch) -> None:
    monkeypatch.setattr(encodings, "_inflate", inflate)
    monkeypatch.setattr(encodings, "_PIECE", PIECE)
    for whole in (bytes(size), random.Random(1).randbytes(size)):
        for name, packed in (("gzip", gzip.compress(whole)), ("zstd", zstandard.compress(whole))):
            decoder = encodings.decoder(name)
            assert decoder is not None
            pieces = [piece for at in range(0, len(packed), step) for piece in decoder.feed(packed[at : at + step])]
            decoder.finish()
            assert b"".join(pieces) == whole
            assert name == "zstd" or max(map(len, pieces)) <= PIECE


def test_whoever_has_enough_asks_for_no_more() -> None:
    bomb = gzip.compress(bytes(5 << 20), 1)
    assert len(next(iter(encodings.decoder("gzip").feed(bomb)))) == encodings._PIECE


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_what_is_not_so_encoded_or_cut_short_is_refused(name) -> None:
    with pytest.raises(ScrapeError, match=f"is not {name}"):
        list(encodings.decoder(name).feed(b"a 1\n" * 10))
    with pytest.raises(ScrapeError, match=f"the {name} body was cut short"):
        encodings.decoder(name).finish()
