"""What two API servers answered, compared: volatile values made equal, the rest as readable differences."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
PLAIN_TIME = re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4}( UTC)?")
TOKEN = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")
QUOTED_VERSION = re.compile(r'(resourceVersion\\?": ?\\?"|Resource Version: +|in record \()\d+')
LONG_TIME = re.compile(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}")
AGE = re.compile(r"(?<![\w.])(\d+[ywdhms]){1,2}(?![\w.])")
CLUSTER_IP = re.compile(r"\b(10\.96|127\.11)\.\d+\.\d+\b")
DIFF_NAME = re.compile(r"/tmp/(LIVE|MERGED)-\d+")
NODE_PORT = re.compile(r"\b(3[0-2]\d{3})(?=/(TCP|UDP)|\b$)")
TOKEN_VOLUME = re.compile(r"kube-api-access-\w{5}")
STALE_VERSION = re.compile(r"(too old resource version: |resource version: )\d+( \(\d+\)|, current: \d+)")
SERVER = re.compile(r"127\.0\.0\.1:\d{4,5}")
IN_YAML = re.compile(r"(resourceVersion: )\"?\d+\"?|(resourceVersion\"?: )\"\d+\"")
VERSION_KEYS = frozenset({"resourceVersion", "continue"})
ABSENT = "<absent>"


def text_of(text: str) -> str:
    """A text without ids, times, addresses and versions."""
    text = UID.sub("<uid>", text)
    for times in (TIME, LONG_TIME, PLAIN_TIME):
        text = times.sub("<time>", text)
    text = QUOTED_VERSION.sub(r"\1<version>", TOKEN.sub("<token>", text))
    text = CLUSTER_IP.sub("<cluster ip>", text)
    text = TOKEN_VOLUME.sub("kube-api-access-<random>", text)
    text = SERVER.sub("<server>", text)
    text = IN_YAML.sub(lambda m: f"{m[1] or m[2]}<version>", text)
    return STALE_VERSION.sub(r"\1<version>", text)


def normal(value: Any, key: str = "", in_table: bool = False) -> Any:
    """A JSON value without what no two servers can agree on."""
    if isinstance(value, dict):
        found = {}
        for name, item in value.items():
            found[UID.sub("<uid>", name)] = normal(item, name, in_table or name == "rows")
        if value.get("generateName") and isinstance(value.get("name"), str):
            found["name"] = f"{value['generateName']}<random>"
        return found
    if isinstance(value, list):
        if key == "managedFields":  # in the order of seconds, which two runs do not share
            value = sorted(value, key=lambda one: (one["operation"], one["manager"], one.get("subresource", "")))
        return [normal(item, key, in_table) for item in value]
    if key == "nodePort" and value:
        return "<node port>"
    if isinstance(value, str):
        if key in VERSION_KEYS and value not in ("", "0"):
            return f"<{key}>"
        value = text_of(value)
        if in_table:
            value = NODE_PORT.sub("<node port>", AGE.sub("<age>", value))
    return value


def normal_output(text: str) -> list[str]:
    """kubectl's lines: ages, versions and column widths made equal."""
    text = DIFF_NAME.sub(r"/tmp/\1", text)
    text = NODE_PORT.sub("<node port>", AGE.sub("<age>", text_of(text)))
    return [
        re.sub(r" {2,}", "  ", line).rstrip() if not line.startswith(" ") else line.rstrip()
        for line in text.splitlines()
    ]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the real server (``real``) and the embedded one (``ours``) differ."""

    step: str
    path: str
    real: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.step}\n    {self.path}\n      real: {_short(self.real)}\n      ours: {_short(self.ours)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 600 else f"{text[:600]} ... ({len(text)} characters)"


def compare(step: str, real: Any, ours: Any, path: str = "") -> Iterator[Difference]:
    """Differences of two normal values, leaf by leaf."""
    if isinstance(real, dict) and isinstance(ours, dict):
        for key in [*real, *(k for k in ours if k not in real)]:
            yield from compare(step, real.get(key, ABSENT), ours.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(real, list) and isinstance(ours, list) and _names(real) != _names(ours) and _names(real + ours):
        one, other = ({_name(item): item for item in items} for items in (real, ours))
        yield from compare(step, one, other, path)
    elif isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        for index, (one, other) in enumerate(zip(real, ours, strict=True)):
            yield from compare(step, one, other, f"{path}[{index}]")
    elif real != ours:
        yield Difference(step, path, real, ours)


def _name(item: Any) -> str:
    """What a list's element is called, in lists of resources, groups and objects."""
    if not isinstance(item, dict):
        return ""
    metadata = item.get("metadata")
    names = (item.get("name"), item.get("resource"), item.get("subresource"), (metadata or {}).get("name"))
    return next((name for name in names if name and isinstance(name, str)), "")


def _names(items: list[Any]) -> set[str]:
    """The elements' names; empty when one has none."""
    found = {_name(item) for item in items}
    return set() if "" in found else found


def compare_output(step: str, stream: str, real: str, ours: str) -> Iterator[Difference]:
    """kubectl's words: one difference, which shows only the lines that differ."""
    one, other = normal_output(real), normal_output(ours)
    if one != other:
        marked = [line for line in difflib.ndiff(one, other) if line[:2] in ("- ", "+ ")]
        missing, extra = ([line[2:] for line in marked if line[0] == sign] for sign in "-+")
        yield Difference(step, stream, "\n            ".join(missing) or ABSENT, "\n            ".join(extra) or ABSENT)


def compare_exchange(step: str, real: dict[str, Any], ours: dict[str, Any]) -> list[Difference]:
    """Status, media type, warnings and body of two answers to the same request.

    Answers of another kind are one difference: an error on one side says little field by field.
    """
    one, other = _kind_of(real), _kind_of(ours)
    if one != other:
        return [Difference(step, "answer", f"{one}{_message(real)}", f"{other}{_message(ours)}")]
    fields = ("type", "warnings", "response")
    found = [
        difference
        for field in fields
        for difference in compare(step, normal(real.get(field, ABSENT)), normal(ours.get(field, ABSENT)), field)
    ]
    # A Status' message repeats its causes.
    told = [d for d in found if d.path == "response.message"]
    return told if told and one.endswith(" Status") else found


def _kind_of(exchange: dict[str, Any]) -> str:
    response = exchange.get("response")
    kind = response.get("kind", "") if isinstance(response, dict) else type(response).__name__
    return f"{exchange['status']} {kind}"


def _message(exchange: dict[str, Any]) -> str:
    response = exchange.get("response")
    message = response.get("message", "") if isinstance(response, dict) else ""
    return f": {text_of(str(message))}" if message else ""


@dataclass(frozen=True)
class Known:
    """A difference that is meant, or not mended yet: globs of a step and a path, and the reason."""

    step: str
    path: str
    reason: str

    def covers(self, difference: Difference) -> bool:
        return bool(self._step.match(difference.step) and self._path.match(difference.path))

    @cached_property
    def _step(self) -> re.Pattern[str]:
        return _glob(self.step)

    @cached_property
    def _path(self) -> re.Pattern[str]:
        return _glob(self.path)


def _glob(text: str) -> re.Pattern[str]:
    """``*`` matches anything; brackets and question marks are themselves, since steps and paths hold them."""
    return re.compile(".*".join(map(re.escape, text.split("*"))) + r"\Z", re.DOTALL)


def known_differences() -> list[Known]:
    found = yaml.safe_load((Path(__file__).parent / "differences.yaml").read_text())
    return [
        Known(step, path, entry["reason"])
        for entry in found
        for step in _list(entry.get("step", "*"))
        for path in _list(entry.get("path", "*"))
    ]


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


SEEN: set[Known] = set()  # in this process, for the summary of what differences.yaml could lose


def sort_out(found: list[Difference], known: list[Known]) -> tuple[list[Difference], dict[Known, int]]:
    """The new differences, and how often each known one was seen."""
    new = []
    seen: dict[Known, int] = {}
    for difference in found:
        reason = next((k for k in known if k.covers(difference)), None)
        if reason is None:
            new.append(difference)
        else:
            seen[reason] = seen.get(reason, 0) + 1
    SEEN.update(seen)
    return new, seen
