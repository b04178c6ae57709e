"""The Prometheus text format, 0.0.4 and 1.0.0 (quoted UTF-8 names): body to series texts, values and times.

Labels are not parsed here: a series is identified by its text as written, and ``parse_series`` turns the
text into labels once, when it is new.
"""

import re
from collections.abc import Container

import numpy as np

from flyball.exposition.layout import bounded_ms, build_layout
from flyball.exposition.parsed import KNOWN_TYPES, NO_TIME, Exposition, Metadata, Samples
from flyball.exposition.series import SHOWN_MAX, line_error, shown, unescaped

_SERIES = (
    rb"[ \t]*+((?:[a-zA-Z_:][a-zA-Z0-9_:]*+)?+"
    rb'(?:[ \t]*+\{(?:[^"\n}]++|"(?:[^"\\\n]++|\\.)*+")*+\}[ \t]*+|[ \t]++))'
)
_LINE = re.compile(_SERIES + rb"([^ \t\n]++)(?:[ \t]++([-+]?[0-9]++))?+[ \t\r]*+(?:\n|\Z)")
_HEX_FLOAT = re.compile(rb"[-+]?0[xX][0-9a-fA-F.]+[pP][-+]?[0-9]+")
_COMMENT_NAME = re.compile(rb'"((?:[^"\\\n]|\\.)*)"|([^ \t\n]+)')


def parse_text(body: bytes, known: Container[bytes] = ()) -> Exposition:
    """Every sample of the body, in order.

    Args:
        known: series texts that were well formed in an earlier scrape; their lines are not looked at again.

    Raises:
        ScrapeError: a line is malformed; names its number and text.
    """
    line_match = _LINE.match
    series: list[bytes] = []
    types: list[str] = []
    values: list[float] = []
    times: list[int] = []
    offsets: list[int] = []
    metadata: dict[str, Metadata] = {}
    timed = False
    type_ = ""
    position = 0
    for line in body.split(b"\n"):
        end = position + len(line)
        text, _, word = line.rpartition(b" ")
        time: bytes | None = None
        if text not in known:
            stripped = line.strip(b" \t\r")
            if not stripped or stripped.startswith(b"#"):
                if stripped:
                    type_ = _comment(stripped, metadata, type_, body, position)
                position = end + 1
                continue
            found = line_match(body, position)
            if found is None:
                raise line_error(
                    body, position, "is not a sample: expected a name, labels in {}, a value and perhaps a time"
                )
            text, word, time = found.groups()
            text = text.rstrip(b" \t")
            offsets.append(found.start(2))
        else:
            offsets.append(end - len(word))
        try:
            values.append(_value(word))
        except ValueError:
            raise line_error(body, position, f'has the value "{shown(word)}", which is not a number') from None
        series.append(text)
        types.append(type_)
        times.append(NO_TIME if time is None else bounded_ms(int(time[:24])))
        timed = timed or time is not None
        position = end + 1
    times_ms = np.array(times, dtype=np.int64) if timed else None
    return Exposition(
        series=series,
        types=types,
        samples=Samples(np.array(values, dtype=np.float64), times_ms, []),
        metadata=metadata,
        layout=build_layout(body, offsets, times_ms),
    )


def _value(word: bytes) -> float:
    try:
        if b"_" in word:
            raise ValueError
        return float(word)
    except ValueError:
        if not _HEX_FLOAT.fullmatch(word):
            raise
        try:
            return float.fromhex(word.decode())
        except OverflowError as exc:
            raise ValueError(exc) from None


def _comment(line: bytes, metadata: dict[str, Metadata], type_: str, body: bytes, position: int) -> str:
    """Takes up a comment; returns the type in force from here on."""
    parts = line[1:].lstrip(b" \t").split(None, 1)
    if len(parts) < 2 or parts[0] not in (b"HELP", b"TYPE", b"UNIT"):
        return type_
    found = _COMMENT_NAME.match(parts[1])
    if found is None:
        return type_
    try:
        name = unescaped(found[1].decode()) if found[1] is not None else found[2].decode()
        rest = parts[1][found.end() :].strip(b" \t").decode()
    except UnicodeDecodeError:
        raise line_error(body, position, "is not UTF-8") from None
    before = metadata.get(name, Metadata())
    if parts[0] == b"HELP":
        metadata[name] = before._replace(help=rest.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\"))
    elif parts[0] == b"UNIT":
        metadata[name] = before._replace(unit=rest)
    else:
        type_ = "unknown" if rest == "untyped" else rest
        if type_ not in KNOWN_TYPES:
            raise line_error(body, position, f'has the type "{rest[:SHOWN_MAX]}", which is not a metric type')
        metadata[name] = before._replace(type=type_)
    return type_
