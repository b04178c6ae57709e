"""The layout cache: from one scrape to the next a body's lines begin as they did and only the values change.

A layout is the beginning of every line. Lines that still begin so are cut there, and what is left are the values:
four passes that all run in C (``split``, ``removeprefix``, ``join``, ``float``) instead of a parser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress

import msgspec
import numpy as np

from flyball.exposition.parsed import NO_TIME, TIME_MAX_MS, Exemplar, Samples
from flyball.model.frames import Floats, Times

_NUMBERS = msgspec.json.Decoder(list[float])

#: Reads the part of an OpenMetrics line behind " # "; None when it is not an exemplar.
ReadExemplar = Callable[[bytes], Exemplar | None]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A body's shape: everything but the values, times and exemplars of its samples.

    Attributes:
        prefixes: what each line begins with: a sample's up to its value, any other line whole.
        is_sample: whether each line is a sample.
        is_other: the opposite.
        size: bytes of all prefixes and line ends.
        count: number of samples.
        timed: which samples carry a time; None when none does.
        read_exemplar: set for OpenMetrics, whose times are in s.
    """

    prefixes: list[bytes]
    is_sample: list[bool]
    is_other: list[bool]
    size: int
    count: int
    timed: list[bool] | None
    read_exemplar: ReadExemplar | None


def build_layout(
    body: bytes, offsets: list[int], times_ms: Times | None, read_exemplar: ReadExemplar | None = None
) -> Layout | None:
    """The layout of a body whose samples' values start at ``offsets`` (ascending, one a line); None when the body
    has no samples."""
    if not offsets:
        return None
    prefixes: list[bytes] = []
    is_sample: list[bool] = []
    wanted = iter(offsets)
    offset = next(wanted)
    position = 0
    for line in body.split(b"\n"):
        end = position + len(line)
        sample = position <= offset <= end
        prefixes.append(line[: offset - position] if sample else line)
        is_sample.append(sample)
        if sample:
            offset = next(wanted, len(body) + 1)
        position = end + 1
    return Layout(
        prefixes=prefixes,
        is_sample=is_sample,
        is_other=[not sample for sample in is_sample],
        size=sum(map(len, prefixes)) + len(prefixes) - 1,
        count=len(offsets),
        timed=None if times_ms is None else [time != NO_TIME for time in times_ms.tolist()],
        read_exemplar=read_exemplar,
    )


def parse_values(layout: Layout, body: bytes) -> Samples | None:
    """The values of a body with this layout, or None when it has another one and must be parsed in full."""
    lines = body.split(b"\n")
    if len(lines) != len(layout.prefixes):
        return None
    rest = list(map(bytes.removeprefix, lines, layout.prefixes))
    joined = b"".join(rest)
    # A line that begins otherwise is still whole in `rest`, which makes the sum of the rests too long.
    if len(joined) + layout.size != len(body) or any(compress(rest, layout.is_other)):
        return None
    words = list(compress(rest, layout.is_sample))
    exemplars: list[tuple[int, Exemplar]] = []
    if layout.read_exemplar is not None and b"#" in joined:
        for index, word in enumerate(words):
            if b"#" in word:
                words[index], _, text = word.partition(b" # ")
                exemplar = layout.read_exemplar(text)
                if exemplar is None:
                    return None
                exemplars.append((index, exemplar))
    try:
        if layout.timed is None:
            return Samples(_floats(words), None, exemplars)
        return _timed(layout, words, exemplars)
    except (ValueError, OverflowError):
        return None


def _floats(words: list[bytes]) -> Floats:
    """The numbers; most pages are a JSON list of them, which msgspec reads at twice the speed of ``float``."""
    text = b",".join(words)
    if b"-0," not in text and not text.endswith(b"-0"):  # JSON's integer -0 has no sign
        try:
            numbers = _NUMBERS.decode(b"[" + text + b"]")
            if len(numbers) == len(words):  # a word with a comma is not a number
                return np.fromiter(numbers, np.float64, len(words))
        except msgspec.DecodeError:  # NaN, +Inf, 01, .5
            pass
    if b"_" in text:  # float() would read 1_000
        raise ValueError(text)
    return np.fromiter(map(float, words), np.float64, len(words))


def _timed(layout: Layout, words: list[bytes], exemplars: list[tuple[int, Exemplar]]) -> Samples | None:
    parts = [word.split() for word in words]
    if [len(part) == 2 for part in parts] != layout.timed or any(len(part) > 2 for part in parts):
        return None
    values = _floats([part[0] for part in parts])
    if layout.read_exemplar is not None:
        times = [seconds_to_ms(part[1]) if len(part) == 2 else NO_TIME for part in parts]
    else:
        times = [bounded_ms(int(part[1])) if len(part) == 2 else NO_TIME for part in parts]
    return Samples(values, np.array(times, np.int64), exemplars)


def seconds_to_ms(text: bytes) -> int:
    """OpenMetrics' times are decimals in s.

    Raises:
        ValueError, OverflowError: it is not a finite number.
    """
    return bounded_ms(round(float(text) * 1000))


def bounded_ms(time_ms: int) -> int:
    """A time that fits the array of times."""
    return max(-TIME_MAX_MS, min(TIME_MAX_MS, time_ms))
