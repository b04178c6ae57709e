"""Prometheus' promqltest scenarios (``load``, ``eval``, ``expect``) on an in-memory storage; floats only.

Format: reference/tsdb.md section 5. Evals over native histograms are skipped and counted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flyball.errors import FlyballError, QueryError
from flyball.model.durations import parse_duration_ms
from flyball.model.frames import ABSENT, STALE, Frame
from flyball.model.labels import METRIC_NAME, Labels, Matcher, MatchType, labels_of
from flyball.promql.engine import Options, evaluate
from flyball.promql.parser import parse
from flyball.promql.syntax import Expr, NumberLiteral, StringLiteral, Unary, VectorSelector, unwrap
from flyball.promql.values import Matrix, Scalar, String, Value, Vector, almost_equal, at_instant

EPSILON = 1e-6
_EVAL = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+(instant|range)\s+(.*)", re.S)
_INSTANT = re.compile(r"(?:at\s+(\S+)\s+)?(.*)", re.S)
_RANGE = re.compile(r"from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)\s+(.*)", re.S)
# No hexadecimal numbers: in ``0x10`` the x repeats, as in Prometheus' own lexer.
_NUM = r"[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)"
_ITEM = re.compile(rf"(?:(_|stale)(?:x(\d+))?|({_NUM})(?:([-+])({_NUM}))?(?:x(\d+))?)", re.I)


class MemoryStorage:
    """Series in memory: a frame for each, on one grid of times."""

    def __init__(self) -> None:
        self.series: dict[Labels, dict[int, float]] = {}
        self._frames: dict[Labels, Frame] = {}

    def add(self, labels: Labels, at_ms: int, value: float) -> None:
        self.series.setdefault(labels, {})[at_ms] = value
        self._frames.pop(labels, None)

    def _frame(self, labels: Labels) -> Frame:
        if labels not in self._frames:
            points = sorted(self.series[labels].items())
            times = np.array([at for at, _ in points], np.int64)[:, None]
            bits = np.array([value for _, value in points])[:, None]
            self._frames[labels] = Frame((labels,), times, np.zeros(1, np.int32), bits)
        return self._frames[labels]

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """Matching series as one frame on the union of their times."""
        found = [
            self._frame(labels)
            for labels in self.series
            if (pairs := dict(labels)) is not None and all(m.matches(pairs.get(m.name, "")) for m in matchers)
        ]
        if not found:
            return []
        times = np.unique(np.concatenate([frame.times_ms[:, 0] for frame in found]))
        times = times[(times > start_ms) & (times <= end_ms)]
        values = np.full((times.size, len(found)), ABSENT)
        for column, frame in enumerate(found):
            own = frame.times_ms[:, 0]
            keep = (own > start_ms) & (own <= end_ms)
            values[np.searchsorted(times, own[keep]), column] = frame.values[keep, 0]
        labels = tuple(frame.labels[0] for frame in found)
        return [Frame(labels, times[:, None], np.zeros(len(found), np.int32), values)]


@dataclass(slots=True)
class Eval:
    """One ``eval`` command."""

    line: int
    query: str
    start_ms: int
    end_ms: int
    step_ms: int
    flags: set[str] = field(default_factory=set)
    messages: list[tuple[str, str, str]] = field(default_factory=list)  # (kind, msg or regex, text)
    lines: list[str] = field(default_factory=list)
    string: str | None = None


@dataclass(slots=True)
class Outcome:
    """What a file gave. ``failures`` are (line, query, reason)."""

    passed: int = 0
    skipped: int = 0
    failures: list[tuple[int, str, str]] = field(default_factory=list)


class _MismatchError(Exception):
    pass


class _SkipError(Exception):
    pass


def _duration(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("-+")
    try:
        return sign * round(float(text) * 1000)
    except ValueError:
        return sign * parse_duration_ms(text)


def _split(line: str) -> tuple[str, str]:
    """The series and the items behind it."""
    depth, quoted, at = 0, "", 0
    if line[0] != "{" and "{" in line and re.match(r"[^\s{]+\s", line):
        head, _, rest = line.partition(" ") if " " in line.split("\t")[0] else line.partition("\t")
        if not rest.lstrip().startswith("{") or rest.lstrip().startswith("{{"):
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
                return line[: at + 1], line[at + 1 :]
        elif ch in " \t" and depth == 0 and not line[at:].lstrip().startswith("{"):
            return line[:at], line[at:]
        at += 1
    return line, ""


def _labels(text: str) -> Labels:
    text = text.strip()
    if re.sub(r"\s", "", text) == "{}":
        return ()
    expr = unwrap(parse(text))
    if not isinstance(expr, VectorSelector):
        raise _MismatchError(f"not a series: {text}")
    return labels_of((m.name, m.value) for m in expr.matchers if m.type is MatchType.EQUAL)


def _items(text: str) -> list[float]:
    """The points, ABSENT where there is none.

    Raises:
        _SkipError: there are native histograms.
    """
    if "{{" in text:
        raise _SkipError("native histograms")
    out: list[float] = []
    for item in text.split():
        found = _ITEM.fullmatch(item)
        if found is None:
            raise _MismatchError(f"not a sample: {item}")
        word, blanks, first, sign, step, times = found.groups()
        if word:
            out += [ABSENT if word == "_" else STALE] * int(blanks or 1)
            continue
        value = float(first)
        grow = 0.0 if step is None else float(step) * (-1 if sign == "-" else 1)
        for _ in range(int(times or 0) + 1):
            out.append(value)
            value += grow
    return out


def parse_series(text: str) -> Labels:
    """The labels of ``name{label="value"}``.

    Raises:
        QueryError: it is not one.
    """
    try:
        return _labels(text)
    except _MismatchError as exc:
        raise QueryError(str(exc)) from exc


def parse_values(text: str) -> list[tuple[int, float]]:
    """``1+1x3 _ stale`` as (step, value); steps without a point are left out.

    Raises:
        QueryError: it is not in that form, or has native histograms.
    """
    try:
        return [(step, value) for step, value in enumerate(_items(text)) if not _absent(value)]
    except (_MismatchError, _SkipError) as exc:
        raise QueryError(str(exc)) from exc


def _absent(value: float) -> bool:
    return bool(np.float64(value).view(np.uint64) == np.float64(ABSENT).view(np.uint64))


class Runner:
    """Runs one file."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.histograms: set[Labels] = set()  # series that were not loaded
        self.outcome = Outcome()
        self.options = Options(delayed_name_removal=True)

    def run(self, text: str) -> Outcome:
        lines = [("" if line.strip().startswith("#") else line.strip()) for line in text.split("\n")]
        at = 0
        while at < len(lines):
            head, first = lines[at], at + 1
            at += 1
            if not head:
                continue
            body = []
            if not head.startswith("clear"):
                while at < len(lines) and lines[at]:
                    body.append(lines[at])
                    at += 1
            if head.startswith("clear"):
                self.storage, self.histograms = MemoryStorage(), set()
            elif head.startswith("load"):
                self.load(head, body)
            elif head.startswith("eval"):
                self.evaluate(head, body, first)
        return self.outcome

    def load(self, head: str, body: list[str]) -> None:
        words = head.split()
        step = _duration(words[1])
        for line in body:
            series, items = _split(line)
            if "@st" in series or items.strip().startswith("@st"):
                continue
            try:
                points = _items(items)
            except _SkipError:
                self.histograms.add(_labels(series))
                continue
            labels = _labels(series)
            if words[0] != "load":  # load_with_nhcb: the classic series as histograms, too
                bare = {name: value for name, value in labels if name != "le"}
                bare[METRIC_NAME] = re.sub("_(bucket|count|sum)$", "", bare.get(METRIC_NAME, ""))
                self.histograms.add(labels_of(bare.items()))
            for i, value in enumerate(points):
                if not _absent(value):
                    self.storage.add(labels, i * step, value)

    def evaluate(self, head: str, body: list[str], line: int) -> None:
        try:
            self.check(self.command(head, body, line))
            self.outcome.passed += 1
        except _SkipError:
            self.outcome.skipped += 1
        except (_MismatchError, FlyballError, ValueError, AssertionError, IndexError) as exc:
            self.outcome.failures.append((line, head, f"{type(exc).__name__}: {exc}"))

    def touches_histogram(self, expr: Expr) -> bool:
        """Whether the answer may need a series that was not loaded."""
        for selector in (node for node in expr.walk() if isinstance(node, VectorSelector)):
            for labels in self.histograms:
                pairs = dict(labels)
                if all(m.matches(pairs.get(m.name, "")) for m in selector.matchers):
                    return True
        return False

    def command(self, head: str, body: list[str], line: int) -> Eval:
        found = _EVAL.fullmatch(head)
        if found is None:
            raise _MismatchError("not an eval command")
        flag, kind, rest = found.groups()
        if kind == "instant":
            parts = _INSTANT.fullmatch(rest)
            assert parts is not None
            at = _duration(parts.group(1) or "0")
            command = Eval(line, parts.group(2), at, at, 0)
        else:
            parts = _RANGE.fullmatch(rest)
            assert parts is not None
            start, end, step = (_duration(parts.group(i)) for i in (1, 2, 3))
            command = Eval(line, parts.group(4), start, end, step)
        if flag:
            command.flags.add(flag)
        for text in body:
            if text.startswith("expect "):
                self.expectation(command, text[7:].strip())
            elif text.startswith("expected_fail_"):
                how = "msg" if "message" in text.split()[0] else "regex"
                command.messages.append(("fail", how, text.split(None, 1)[1]))
            else:
                command.lines.append(text)
        return command

    def expectation(self, command: Eval, text: str) -> None:
        if text.startswith("string"):
            literal = unwrap(parse(text[6:].strip()))
            assert isinstance(literal, StringLiteral)
            command.string = literal.value
        elif text.startswith("range vector"):
            found = re.fullmatch(r"range vector from (\S+) to (\S+) step (\S+)", text)
            assert found is not None
            command.flags.add("matrix:" + ":".join(str(_duration(part)) for part in found.groups()))
        else:
            kind, _, rest = text.partition(" ")
            command.flags.add(kind)
            rest = rest.strip()
            for how in ("msg", "regex"):
                if rest.startswith(how + ":"):
                    command.messages.append((kind, how, rest[len(how) + 1 :].strip()))

    def check(self, command: Eval) -> None:
        if any("{{" in line or "{count:" in line for line in command.lines):
            raise _SkipError("native histograms")
        try:
            expr = parse(command.query)
            if parse(str(expr)) != expr:
                raise _MismatchError(f"printed as {expr}, which does not parse back")
            if self.touches_histogram(expr):
                raise _SkipError("native histograms")
            value = evaluate(
                expr,
                self.storage,
                command.start_ms,
                command.end_ms,
                command.step_ms,
                options=self.options,
                text=command.query,
            )
        except FlyballError as exc:
            if "fail" not in command.flags:
                raise
            self.check_messages("fail", [str(exc)], command)
            return
        if "fail" in command.flags:
            raise _MismatchError("succeeded, a failure was expected")
        for kind, notes in (("warn", value.warnings), ("info", value.infos)):
            if kind in command.flags and not notes:
                raise _MismatchError(f"no {kind} annotation")
            if "no_" + kind in command.flags and notes:
                raise _MismatchError(f"unexpected {kind}: {notes}")
            self.check_messages(kind, list(notes), command)
        self.compare(value, command)
        if command.step_ms == 0 and isinstance(value, Vector) and "ordered" not in command.flags:
            self.as_range(command, value)

    def as_range(self, command: Eval, value: Vector) -> None:
        """The same as the middle step of a range query."""
        if re.search(r"\b(start|end|range|step)\(", command.query):
            return
        at, minute = command.start_ms, 60_000
        expr = parse(command.query)
        again = evaluate(expr, self.storage, at - minute, at + minute, minute, options=self.options)
        assert isinstance(again, Matrix)
        self.same(at_instant(value, at), at_instant(again, at))

    def check_messages(self, kind: str, notes: list[str], command: Eval) -> None:
        wanted = [(how, text) for k, how, text in command.messages if k == kind]
        for note in notes if wanted else []:
            if not any(text in note if how == "msg" else re.search(text, note) for how, text in wanted):
                raise _MismatchError(f'{kind} "{note}" was not expected')

    def compare(self, value: Value, command: Eval) -> None:
        if isinstance(value, String):
            if value.text != command.string:
                raise _MismatchError(f'"{value.text}", expected "{command.string}"')
            return
        if isinstance(value, Scalar):
            literal = unwrap(parse(command.lines[0]))
            sign = 1.0
            if isinstance(literal, Unary):
                sign, literal = (-1.0 if literal.op == "-" else 1.0), literal.expr
            assert isinstance(literal, NumberLiteral)
            if not almost_equal(float(value.values[0]), sign * literal.value, EPSILON):
                raise _MismatchError(f"{value.values[0]}, expected {command.lines[0]}")
            return
        assert isinstance(value, Matrix)
        grid = [command.start_ms]
        if command.step_ms:
            grid = list(range(command.start_ms, command.end_ms + 1, command.step_ms))
        for flag in command.flags:
            if flag.startswith("matrix:"):
                start, end, step = map(int, flag.split(":")[1:])
                grid = list(range(start, end + 1, step))
        expected: dict[Labels, list[float]] = {}
        for line in command.lines:
            series, items = _split(line)
            points = _items(items)
            if len(points) > len(grid):
                raise _MismatchError(f"{len(points)} points in a line, {len(grid)} steps")
            expected[_labels(series)] = points
        if "ordered" in command.flags and list(value.labels) != list(expected):
            raise _MismatchError(f"order {value.labels}, expected {list(expected)}")
        for k, at in enumerate(grid):
            wanted = {s: p[k] for s, p in expected.items() if k < len(p) and not _absent(p[k])}
            there = at in value.times_ms.tolist()
            self.same(wanted, at_instant(value, at) if there else {}, f"at {at} ms ")
        extra = set(value.times_ms.tolist()) - set(grid)
        if extra and value.labels:
            raise _MismatchError(f"points at {sorted(extra)}")

    def same(self, wanted: dict[Labels, float], found: dict[Labels, float], where: str = "") -> None:
        if wanted.keys() != found.keys():
            raise _MismatchError(f"{where}series {sorted(found)}, expected {sorted(wanted)}")
        for series, number in wanted.items():
            if not almost_equal(found[series], number, EPSILON):
                raise _MismatchError(f"{where}{series} is {found[series]}, expected {number}")


def run(text: str) -> Outcome:
    """Runs the text of one scenario file."""
    return Runner().run(text)


__all__ = ["METRIC_NAME", "MemoryStorage", "Outcome", "Runner", "replace", "run"]
