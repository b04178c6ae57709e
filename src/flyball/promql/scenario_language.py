"""The language of Prometheus' promqltest scenarios: ``load``, ``eval``, ``expect``, ``clear``.

Format: promql/promqltest/README.md of Prometheus.
"""

import re
from dataclasses import dataclass, field

from flyball.errors import FlyballError, QueryError
from flyball.model.durations import parse_duration_ms
from flyball.model.frames import STALE
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import Labels, MatchType, labels_of
from flyball.promql.features import SCENARIOS
from flyball.promql.histograms import combine
from flyball.promql.parser import parse
from flyball.promql.syntax import StringLiteral, VectorSelector, unwrap

_EVAL = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+(instant|range)\s+(.*)", re.S)
_INSTANT = re.compile(r"(?:at\s+(\S+)\s+)?(.*)", re.S)
_RANGE = re.compile(r"from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)\s+(.*)", re.S)
_EXPECT_RANGE = re.compile(r"range vector\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)")
# No hexadecimal numbers: in ``0x10`` the x repeats, as in Prometheus' own lexer.
_NUM = r"[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)"
_ITEM = re.compile(
    rf"""\s*(?:(?P<word>_|stale)
    |\{{\{{(?P<first>.*?)\}}\}}(?:(?P<grow>[-+])\{{\{{(?P<second>.*?)\}}\}})?
    |(?P<value>{_NUM})(?:(?P<sign>[-+])(?P<step>{_NUM}))?
    )(?:x(?P<times>[0-9]+))?(?=\s|$)""",
    re.I | re.X,
)
_FIELD = re.compile(r"([a-z_]+):(\[[^\]]*\]|\S+)")
_START = re.compile(r"([-+]?\d+[a-z]*?)(?:([-+]\d+[a-wyz]*?))?(?:x(\d+))?")
_DEFAULTS = ("schema", "sum", "count", "z_bucket", "z_bucket_w")
_HINTS = {
    "unknown": ResetHint.UNKNOWN,
    "reset": ResetHint.RESET,
    "not_reset": ResetHint.NOT_RESET,
    "gauge": ResetHint.GAUGE,
}


class ScenarioError(QueryError):
    """A scenario file is not in the language."""


@dataclass(frozen=True, slots=True)
class Point:
    """A sample; ``value`` None is no sample. ``hint_given``: the histogram's reset hint was written down."""

    value: float | Histogram | None
    hint_given: bool = False


@dataclass(frozen=True, slots=True)
class SeriesLine:
    """A series and its points; ``starts_ms`` are start timestamps before each point's time, None where unknown."""

    labels: Labels
    points: list[Point]
    starts_ms: list[int | None] = field(default_factory=list)


@dataclass(slots=True)
class Load:
    step_ms: int
    with_nhcb: bool
    series: list[SeriesLine] = field(default_factory=list)


@dataclass(slots=True)
class Eval:
    """One ``eval`` command. ``messages`` are (kind, msg or regex, text); ``grid`` the times of a range vector."""

    line: int
    query: str
    start_ms: int
    end_ms: int
    step_ms: int
    flags: set[str] = field(default_factory=set)
    messages: list[tuple[str, str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    string: str | None = None
    grid: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Clear:
    pass


Command = Load | Eval | Clear


def commands(text: str) -> list[Command]:
    """The commands of a file.

    Raises:
        ScenarioError: a line is not in the language; the message names it.
    """
    lines = [("" if line.strip().startswith("#") else line.strip()) for line in text.split("\n")]
    found: list[Command] = []
    at = 0
    while at < len(lines):
        head, first = lines[at], at + 1
        at += 1
        if not head:
            continue
        body: list[str] = []
        if not head.startswith("clear"):
            while at < len(lines) and lines[at]:
                body.append(lines[at])
                at += 1
        try:
            found.append(_command(head, body, first))
        except (FlyballError, ValueError) as exc:
            raise ScenarioError(f"line {first}: {exc}") from exc
    return found


def _command(head: str, body: list[str], line: int) -> Command:
    if head.startswith("clear"):
        return Clear()
    if head.startswith("load"):
        return _load(head, body)
    if head.startswith("eval"):
        return _eval(head, body, line)
    raise ScenarioError(f'"{head}" is not a command; write load, eval or clear')


def _load(head: str, body: list[str]) -> Load:
    words = head.split()
    command = Load(duration(words[1]), words[0] == "load_with_nhcb")
    starts: list[int | None] = []
    for line in body:
        series, items = split_line(line)
        if series.endswith("@st"):
            starts = _start_timestamps(items)
            continue
        command.series.append(SeriesLine(labels_in(series), points_in(items), starts))
        starts = []
    return command


def _eval(head: str, body: list[str], line: int) -> Eval:
    found = _EVAL.fullmatch(head)
    if found is None:
        raise ScenarioError(f'"{head}" is not an eval command')
    flag, kind, rest = found.groups()
    if kind == "instant":
        parts = _INSTANT.fullmatch(rest)
        assert parts is not None
        at = duration(parts.group(1) or "0")
        command = Eval(line, parts.group(2), at, at, 0)
    else:
        parts = _RANGE.fullmatch(rest)
        if parts is None:
            raise ScenarioError(f'"{head}" has no "from ... to ... step ..."')
        start, end, step = (duration(parts.group(i)) for i in (1, 2, 3))
        command = Eval(line, parts.group(4), start, end, step)
    if flag:
        command.flags.add(flag)
    for text in body:
        if text.startswith("expect "):
            _expectation(command, text[7:].strip())
        elif text.startswith("expected_fail_"):
            how = "msg" if "message" in text.split()[0] else "regex"
            command.messages.append(("fail", how, text.split(None, 1)[1]))
        else:
            command.lines.append(text)
    return command


def _expectation(command: Eval, text: str) -> None:
    if text.startswith("string"):
        literal = unwrap(parse(text[6:].strip()))
        assert isinstance(literal, StringLiteral)
        command.string = literal.value
    elif text.startswith("range vector"):
        found = _EXPECT_RANGE.fullmatch(text)
        if found is None:
            raise ScenarioError(f'"{text}" has no "from ... to ... step ..."')
        start, end, step = (duration(part) for part in found.groups())
        command.grid = (start, end, step)
    else:
        kind, _, rest = text.partition(" ")
        command.flags.add(kind)
        how, colon, message = rest.strip().partition(":")
        if colon:
            command.messages.append((kind, how, message.strip()))


# --- parts of lines


def duration(text: str) -> int:
    """A duration with an optional sign, or seconds, ms."""
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("-+")
    try:
        return sign * round(float(text) * 1000)
    except ValueError:
        return sign * parse_duration_ms(text)


def split_line(line: str) -> tuple[str, str]:
    """The series and the items behind it."""
    depth, quoted, at = 0, "", 0
    if line[0] != "{" and re.match(r"[^\s{]+\s", line):
        head, rest = line.split(None, 1)
        if not rest.startswith("{") or rest.startswith("{{"):
            return head, rest
    while at < len(line):
        ch = line[at]
        if quoted:
            if ch == "\\":
                at += 1
            elif ch == quoted:
                quoted = ""
        elif ch in "\"'`":
            quoted = ch
        elif ch == "{":
            depth += 1
        elif ch == "}":
            depth -= 1
            if depth == 0:
                end = at + (4 if line.startswith("@st", at + 1) else 1)
                return line[:end], line[end:]
        elif ch in " \t" and depth == 0 and not line[at:].lstrip().startswith("{"):
            return line[:at], line[at:]
        at += 1
    return line, ""


def labels_in(text: str) -> Labels:
    """The label set of a series as it is written."""
    text = text.strip()
    if re.sub(r"\s", "", text) == "{}":
        return ()
    expr = unwrap(parse(text, SCENARIOS))
    if not isinstance(expr, VectorSelector):
        raise ScenarioError(f"not a series: {text}")
    return labels_of((m.name, m.value) for m in expr.matchers if m.type is MatchType.EQUAL)


def parse_series(text: str) -> Labels:
    """The labels of ``name{label="value"}``.

    Raises:
        QueryError: it is not one.
    """
    return labels_in(text)


def parse_values(text: str) -> list[tuple[int, float | Histogram]]:
    """``1+1x3 _ stale`` as (step, value); steps without a point are left out.

    Raises:
        QueryError: it is not in that form.
    """
    return [(step, point.value) for step, point in enumerate(points_in(text)) if point.value is not None]


def points_in(text: str) -> list[Point]:
    """The points of a line of items such as ``1 2+3x4 _x2 stale {{count:1}}x3``."""
    out: list[Point] = []
    at = 0
    while text[at:].strip():
        found = _ITEM.match(text, at)
        if found is None:
            raise ScenarioError(f"not a sample: {text[at:].split()[0]}")
        at = found.end()
        times = int(found["times"] or 0)
        if found["word"]:
            out += [Point(None if found["word"] == "_" else float(STALE))] * (times or 1)
        elif found["first"] is not None:
            out += _histograms(found["first"], found["grow"], found["second"], times)
        else:
            value = float(found["value"])
            grow = 0.0 if found["step"] is None else float(found["step"]) * (-1 if found["sign"] == "-" else 1)
            for _ in range(times + 1):
                out.append(Point(value))
                value += grow
    return out


def _histograms(first: str, grow: str | None, second: str | None, times: int) -> list[Point]:
    h, given = _histogram(first)
    if second is None:
        return [Point(h, given)] * (times + 1)
    step, given = _histogram(second)
    out = [Point(h, given)]
    for _ in range(times):
        h = combine(h, step, -1 if grow == "-" else 1).value
        out.append(Point(h, given))
    return out


def _histogram(text: str) -> tuple[Histogram, bool]:
    fields = dict(_FIELD.findall(text))

    def numbers(key: str) -> list[float]:
        return [float(word) for word in fields.get(key, "[]").strip("[]").split()]

    def side(key: str, offset: str) -> dict[int, float]:
        return dict(enumerate(numbers(key), int(fields.get(offset, 0))))

    schema, total, count, zero_count, zero_width = (float(fields.get(key, 0)) for key in _DEFAULTS)
    h = Histogram(
        schema=int(schema),
        count=count,
        sum=total,
        zero_threshold=zero_width,
        zero_count=zero_count,
        positive=side("buckets", "offset"),
        negative=side("n_buckets", "n_offset"),
        custom_values=tuple(numbers("custom_values")),
        hint=_HINTS[fields.get("counter_reset_hint", "unknown")],
    )
    return h, "counter_reset_hint" in fields


def _start_timestamps(text: str) -> list[int | None]:
    out: list[int | None] = []
    for item in text.split():
        if item.startswith("_"):
            out += [None] * int(item[2:] or 1)
            continue
        found = _START.fullmatch(item)
        if found is None:
            raise ScenarioError(f"not a start timestamp: {item}")
        value, grow = duration(found[1]), duration(found[2] or "0")
        for _ in range(int(found[3] or 0) + 1):
            out.append(value)
            value += grow
    return out
