"""The layout cache: from one scrape to the next a body's lines begin as they did and only the values change.

A layout is the beginning of every line. Lines that still begin so are cut there, and what is left are the values:
four passes that all run in C (``split``, ``removeprefix``, ``join``, ``float``) instead of a parser. Where numba is
installed (the extra ``fast``) and somebody scrapes enough to ask for it, ``linescan`` does so in one, with the same
results.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any

import msgspec
import numpy as np

from flyball.exposition.parsed import NO_TIME, TIME_MAX_MS, Exemplar, Samples
from flyball.model.frames import Floats, Times

_NUMBERS = msgspec.json.Decoder(list[float])

#: Reads the part of an OpenMetrics line behind " # "; None when it is not an exemplar.
ReadExemplar = Callable[[bytes], Exemplar | None]
_scan: Any = None


def load_compiled() -> None:
    """From now on values are read by a compiled pass, if numba is installed. Takes about a second, more where it was
    never compiled, and over 100 MB."""
    global _scan
    if _scan is None and importlib.util.find_spec("numba") is not None:
        _scan = importlib.import_module("flyball.exposition.linescan").scan


@dataclass(frozen=True, eq=False)
class Layout:
    """A body's shape: everything but the values, times and exemplars of its samples.

    Attributes:
        prefixes: what each line begins with: a sample's up to its value, any other line whole.
        is_sample: whether each line is a sample.
        is_other: the opposite.
        others: the lines that are no samples.
        size: bytes of all prefixes and line ends.
        count: number of samples.
        timed: which samples carry a time; None when none does.
        read_exemplar: set for OpenMetrics, whose times are in s.
        reshape: what becomes of the samples once they are read.
    """

    prefixes: list[bytes]
    is_sample: list[bool]
    is_other: list[bool]
    others: list[bytes]
    size: int
    count: int
    timed: list[bool] | None
    read_exemplar: ReadExemplar | None
    reshape: Callable[[Samples], Samples] | None = None

    @cached_property
    def tables(self) -> tuple[Any, Any, Any]:
        """The prefixes as ``linescan`` takes them."""
        ends = np.cumsum([len(prefix) for prefix in self.prefixes], dtype=np.int64)
        return np.frombuffer(b"".join(self.prefixes), np.uint8), ends, np.array(self.is_sample)


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
    is_other = [not sample for sample in is_sample]
    return Layout(
        prefixes=prefixes,
        is_sample=is_sample,
        is_other=is_other,
        others=list(compress(prefixes, is_other)),
        size=sum(map(len, prefixes)) + len(prefixes) - 1,
        count=len(offsets),
        timed=None if times_ms is None else [time != NO_TIME for time in times_ms.tolist()],
        read_exemplar=read_exemplar,
    )


def parse_values(layout: Layout, body: bytes) -> Samples | None:
    """The values of a body with this layout, or None when it has another one and must be parsed in full."""
    samples = _read(layout, body)
    return layout.reshape(samples) if layout.reshape is not None and samples is not None else samples


def _read(layout: Layout, body: bytes) -> Samples | None:
    if _scan is not None and layout.timed is None:
        found = _scanned(layout, body)
        if found is not _UNSURE:
            return found
    lines = body.split(b"\n")
    if len(lines) != len(layout.prefixes) or list(compress(lines, layout.is_other)) != layout.others:
        return None
    rest = compress(map(bytes.removeprefix, lines, layout.prefixes), layout.is_sample)
    text = b",".join(rest)
    # A line that begins otherwise is still whole in the text, which makes it too long.
    if len(text) - (layout.count - 1) + layout.size != len(body):
        return None
    strict = layout.read_exemplar is not None
    if strict and (b"\t" in text or b"\r" in text):
        return None
    exemplars: list[tuple[int, Exemplar]] = []
    try:
        if layout.timed is None and not (strict and (b"#" in text or b" " in text)):
            return Samples(_floats(text, layout.count), None)
        words = list(compress(map(bytes.removeprefix, lines, layout.prefixes), layout.is_sample))
        if layout.read_exemplar is not None and b"#" in text:
            for index, word in enumerate(words):
                if b"#" in word:
                    words[index], _, example = word.partition(b" # ")
                    exemplar = layout.read_exemplar(example)
                    if exemplar is None:
                        return None
                    exemplars.append((index, exemplar))
        if strict and [word.count(b" ") for word in words] != (layout.timed or [False] * layout.count):
            return None  # OpenMetrics has one space before a time and no other
        if layout.timed is None:
            return Samples(_floats(b",".join(words), layout.count), None, exemplars)
        return _timed(layout, words, exemplars)
    except (ValueError, OverflowError):
        return None


#: Stands for a body of which the compiled pass cannot say whether it has the layout.
_UNSURE = Samples(np.empty(0), None)


def _scanned(layout: Layout, body: bytes) -> Samples | None:
    """As ``_read``, or ``_UNSURE``."""
    values, odd = np.empty(layout.count), np.empty((layout.count, 3), np.int64)
    count = _scan(np.frombuffer(body, np.uint8), *layout.tables, values, odd)
    if count < 0:
        return None
    if count:
        words = [body[start:end] for _, start, end in odd[:count].tolist()]
        text = b",".join(words)
        if layout.read_exemplar is not None and any(byte in text for byte in (b" ", b"#", b"\t", b"\r")):
            return _UNSURE
        try:
            values[odd[:count, 0]] = _floats(text, count)
        except (ValueError, OverflowError):
            return None
    return Samples(values, None)


def _floats(text: bytes, count: int) -> Floats:
    """The numbers between commas; most are a JSON list, which msgspec reads at twice the speed of ``float``.

    Raises:
        ValueError: there are others than ``count``, or something is not a number.
    """
    if b"-0," not in text and not text.endswith(b"-0"):  # JSON's integer -0 has no sign
        try:
            return _counted(_NUMBERS.decode(b"[" + text + b"]"), count)
        except msgspec.DecodeError:  # NaN, +Inf, 01, .5
            pass
    if b"_" in text:  # float() would read 1_000
        raise ValueError(text)
    return _counted(list(map(float, text.split(b","))), count)


def _counted(numbers: list[float], count: int) -> Floats:
    if len(numbers) != count:  # a word has a comma
        raise ValueError(count)
    return np.fromiter(numbers, np.float64, count)


def _timed(layout: Layout, words: list[bytes], exemplars: list[tuple[int, Exemplar]]) -> Samples | None:
    parts = [word.split() for word in words]
    if [len(part) - 1 for part in parts] != layout.timed:
        return None
    values = _floats(b",".join([part[0] for part in parts]), layout.count)
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
