"""The part of Go's text/template that prometheus-adapter rules use, with the delimiters ``<<`` and ``>>``.

Supported: fields, chains, variables, pipelines, parentheses, string, raw string, integer and boolean literals,
``if``/``else if``/``else``, ``range`` (with ``else``, ``break``, ``continue``), ``with``, ``end``, comments, trim
markers, and the functions below. Values are str, int, bool, list, ``dict`` (a map: a missing key is "") and
``Struct`` (a missing field is an error). Printing follows Go: ``[a b]``, ``map[k:v]``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyball.errors import ConfigError

_OUTPUT_LIMIT = 1_000_000


class Struct(dict[str, Any]):
    """A Go struct: its field names are fixed."""


class TemplateError(ConfigError):
    """The template does not parse, or failed while it ran."""


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_TOKEN = re.compile(
    r"\s+|(?P<string>\"(?:[^\"\\\n]|\\.)*\")|(?P<raw>`[^`]*`)|(?P<number>[+-]?\d+)|(?P<declare>:=)|(?P<assign>=)"
    r"|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))|(?P<comma>,)"
    r"|(?P<variable>\$\w*)|(?P<field>\.\w*)|(?P<word>[A-Za-z_]\w*)"
)


def go_quote(text: str) -> str:
    """``%q``: a double-quoted Go string, which is also a PromQL string."""
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    return "".join([*out, '"'])


def go_string(value: Any) -> str:
    """``%v``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{go_string(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(go_string(item) for item in value) + "]"
    return str(value)


def _truth(value: Any) -> bool:
    return bool(value)


def _printf(pattern: str, *args: Any) -> str:
    left = list(args)

    def verb(match: re.Match[str]) -> str:
        flags, kind = match.group(1), match.group(2)
        if kind == "%":
            return "%"
        if not left:
            return f"%!{kind}(MISSING)"
        value = left.pop(0)
        if kind == "q":
            if isinstance(value, (list, tuple)):
                text = "[" + " ".join(go_quote(go_string(item)) for item in value) + "]"
            else:
                text = go_quote(go_string(value))
        elif kind in "vs" or (kind == "t" and isinstance(value, bool)):
            text = go_string(value)
        elif kind in "dxXo" and isinstance(value, int) and not isinstance(value, bool):
            return ("%" + flags + kind) % value
        else:
            return f"%!{kind}({type(value).__name__}={go_string(value)})"
        return ("%" + flags.replace("0", "", 1 if flags.startswith("0") else 0) + "s") % text

    text = re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])", verb, pattern)
    if left:
        text += "%!(EXTRA " + ", ".join(f"{type(v).__name__}={go_string(v)}" for v in left) + ")"
    return text


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}; the list has {len(value)} elements")
            value = value[key] if not isinstance(value, str) else ord(value[key])
        else:
            raise TemplateError(f"cannot index {go_string(value)} with {go_string(key)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= start <= end <= len(value):
        raise TemplateError(f"slice {start}:{end} is out of range; the value has {len(value)} elements")
    return value[start:end]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq needs at least two arguments")
    for other in others:
        if type(first) is not type(other):
            raise TemplateError(f"eq cannot compare {go_string(first)} with {go_string(other)}: different types")
    return any(first == other for other in others)


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (Mapping, list, tuple)):
        return len(value)
    raise TemplateError(f"len of {go_string(value)}, which has no length")


def _print(*args: Any) -> str:
    parts: list[str] = []
    for i, arg in enumerate(args):
        if i and not isinstance(arg, str) and not isinstance(args[i - 1], str):
            parts.append(" ")
        parts.append(go_string(arg))
    return "".join(parts)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "printf": _printf,
    "print": _print,
    "println": lambda *args: " ".join(go_string(arg) for arg in args) + "\n",
    "index": _index,
    "slice": _slice,
    "len": _len,
    "not": lambda value: not _truth(value),
    "eq": _equal,
    "ne": lambda a, b: not _equal(a, b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
_LAZY = frozenset({"and", "or"})
_KEYWORDS = frozenset({"if", "else", "end", "range", "with", "break", "continue"})
_REFUSED = frozenset({"define", "template", "block"})


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    spaced: bool  # whether white space stands before it: ``$x.A`` is a chain, ``$x .A`` two arguments


@dataclass(slots=True)
class _Operand:
    kind: str  # literal, dot, variable, call, pipe
    value: Any = None
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class _Pipe:
    names: tuple[str, ...]
    declares: bool
    commands: list[list[_Operand]]


@dataclass(slots=True)
class _Node:
    kind: str  # text, print, if, range, with, break, continue
    text: str = ""
    pipe: _Pipe | None = None
    body: list["_Node"] = field(default_factory=list)
    orelse: list["_Node"] = field(default_factory=list)


class _Break(Exception):  # noqa: N818
    pass


class _Continue(Exception):  # noqa: N818
    pass


def _tokens(action: str) -> list[_Token]:
    found, at, spaced = [], 0, True
    while at < len(action):
        match = _TOKEN.match(action, at)
        if match is None:
            raise TemplateError(f'unexpected "{action[at]}" in "<<{action}>>"')
        if match.lastgroup is None:
            spaced = True
        else:
            found.append(_Token(match.lastgroup, match.group(), spaced))
            spaced = False
        at = match.end()
    return found


def _unquote(text: str) -> str:
    simple = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

    def one(match: re.Match[str]) -> str:
        body = match.group(1)
        if body[0] in "xuU":
            return chr(int(body[1:], 16))
        if body not in simple:
            raise TemplateError(f"unknown escape \\{body} in {text}")
        return simple[body]

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, text[1:-1])


class _Action:
    """Parses one action's pipeline."""

    def __init__(self, tokens: list[_Token], variables: set[str], source: str) -> None:
        self.tokens, self.at, self.variables, self.source = tokens, 0, variables, source

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def pipe(self, *, inner: bool = False, two_names: bool = False) -> _Pipe:
        names: tuple[str, ...] = ()
        declares = False
        kinds = [token.kind for token in self.tokens[self.at : self.at + 4]]
        if kinds[:2] in (["variable", "declare"], ["variable", "assign"]):
            names, declares = (self.tokens[self.at].text,), kinds[1] == "declare"
            self.at += 2
        elif two_names and kinds == ["variable", "comma", "variable", "declare"]:
            names, declares = (self.tokens[self.at].text, self.tokens[self.at + 2].text), True
            self.at += 4
        commands = [self.command()]
        while (token := self.peek()) is not None and token.kind == "pipe":
            self.at += 1
            commands.append(self.command())
        token = self.peek()
        if inner:
            if token is None or token.kind != "close":
                raise TemplateError(f'unclosed parenthesis in "<<{self.source}>>"')
            self.at += 1
        elif token is not None:
            raise TemplateError(f'unexpected "{token.text}" in "<<{self.source}>>"')
        if declares:
            self.variables.update(names)
        elif names and names[0] not in self.variables:
            raise TemplateError(f'undefined variable "{names[0]}" in "<<{self.source}>>"')
        return _Pipe(names, declares, commands)

    def command(self) -> list[_Operand]:
        operands: list[_Operand] = []
        while (token := self.peek()) is not None and token.kind not in ("pipe", "close"):
            operands.append(self.operand())
        if not operands:
            raise TemplateError(f'missing value in "<<{self.source}>>"')
        return operands

    def operand(self) -> _Operand:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "string":
            return _Operand("literal", _unquote(token.text))
        if token.kind == "raw":
            return _Operand("literal", token.text[1:-1])
        if token.kind == "number":
            return _Operand("literal", int(token.text))
        if token.kind == "word":
            if token.text in ("true", "false"):
                return _Operand("literal", token.text == "true")
            if token.text == "nil":
                return _Operand("literal", None)
            if token.text in _FUNCTIONS or token.text in _LAZY:
                return _Operand("call", token.text)
            raise TemplateError(
                f'function "{token.text}" not defined in "<<{self.source}>>"; known are '
                + ", ".join(sorted([*_FUNCTIONS, *_LAZY]))
            )
        if token.kind == "field":
            return _Operand("dot", None, self.chain(token.text))
        if token.kind == "variable":
            if token.text != "$" and token.text not in self.variables:
                raise TemplateError(f'undefined variable "{token.text}" in "<<{self.source}>>"')
            return _Operand("variable", token.text, self.chain("."))
        if token.kind == "open":
            return _Operand("pipe", self.pipe(inner=True), self.chain("."))
        raise TemplateError(f'unexpected "{token.text}" in "<<{self.source}>>"')

    def chain(self, first: str) -> tuple[str, ...]:
        fields = [first[1:]] if len(first) > 1 else []
        while (token := self.peek()) is not None and token.kind == "field" and not token.spaced and len(token.text) > 1:
            fields.append(token.text[1:])
            self.at += 1
        return tuple(fields)


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """Yields (is action, text); trim markers are applied and comments dropped."""
    at, trim_next = 0, False
    while True:
        start = text.find("<<", at)
        literal = text[at:] if start < 0 else text[at:start]
        if trim_next:
            literal = literal.lstrip(" \t\r\n")
        if start < 0:
            yield False, literal
            return
        body_at = start + 2
        if text[body_at : body_at + 1] == "-" and text[body_at + 1 : body_at + 2].isspace():
            literal = literal.rstrip(" \t\r\n")
            body_at += 2
        yield False, literal
        end = _action_end(text, body_at)
        action = text[body_at:end]
        at = end + 2
        trim_next = action.endswith("-") and action[-2:-1].isspace()
        if trim_next:
            action = action[:-1]
        if not (action.strip().startswith("/*") and action.strip().endswith("*/")):
            yield True, action.strip()


def _action_end(text: str, at: int) -> int:
    start, quote = at, ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in '"`':
            quote = char
        elif text.startswith(">>", at):
            return at
        at += 1
    raise TemplateError(f'unclosed action "<<{text[start : start + 40]}"; close it with ">>"')


class Template:
    """A parsed template.

    Raises:
        TemplateError: it does not parse.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._variables: set[str] = set()
        self._parts = list(_split(text))
        self._at = 0
        self._loops = 0
        self._nodes, end = self._block()
        if end:
            raise TemplateError(f'unexpected "<<{end}>>"')

    def _block(self) -> tuple[list[_Node], str]:
        nodes: list[_Node] = []
        while self._at < len(self._parts):
            is_action, text = self._parts[self._at]
            self._at += 1
            if not is_action:
                if text:
                    nodes.append(_Node("text", text))
                continue
            word = re.match(r"[a-z]+", text)
            keyword = word.group() if word else ""
            if keyword in _REFUSED:
                raise TemplateError(f'"{keyword}" is not supported in "<<{text}>>"; write the query out')
            if keyword in ("else", "end"):
                return nodes, text
            if keyword in ("break", "continue"):
                if not self._loops:
                    raise TemplateError(f'"<<{text}>>" outside of a range')
                nodes.append(_Node(keyword))
            elif keyword in ("if", "range", "with"):
                nodes.append(self._control(keyword, text[len(keyword) :]))
            else:
                nodes.append(_Node("print", pipe=self._pipe(text)))
        return nodes, ""

    def _pipe(self, text: str, *, two_names: bool = False) -> _Pipe:
        return _Action(_tokens(text), self._variables, text).pipe(two_names=two_names)

    def _control(self, keyword: str, condition: str) -> _Node:
        node = _Node(keyword, pipe=self._pipe(condition, two_names=keyword == "range"))
        self._loops += keyword == "range"
        node.body, end = self._block()
        self._loops -= keyword == "range"
        if end.startswith("else"):
            rest = end[4:].strip()
            word = rest.split(None, 1)[0] if rest else ""
            if word in ("if", "with"):
                node.orelse = [self._control(word, rest[len(word) :])]  # consumes the shared end
                return node
            if rest:
                raise TemplateError(f'unexpected "{rest}" in "<<{end}>>"')
            node.orelse, end = self._block()
        if end != "end":
            raise TemplateError(f'"<<{keyword}{condition}>>" is not closed; add "<<end>>"')
        return node

    def render(self, data: Mapping[str, Any]) -> str:
        """Executes the template.

        Raises:
            TemplateError: an unknown field, a bad argument, or more than 1 MB of output.
        """
        run = _Run(data)
        run.nodes(self._nodes, data)
        return "".join(run.out)


class _Run:
    def __init__(self, root: Any) -> None:
        self.variables: dict[str, Any] = {"$": root}
        self.out: list[str] = []
        self.size = 0

    def emit(self, text: str) -> None:
        self.size += len(text)
        if self.size > _OUTPUT_LIMIT:
            raise TemplateError(f"the rendered query is larger than {_OUTPUT_LIMIT} characters")
        self.out.append(text)

    def nodes(self, nodes: Sequence[_Node], dot: Any) -> None:
        for node in nodes:
            if node.kind == "text":
                self.emit(node.text)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            else:
                self.action(node, dot)

    def action(self, node: _Node, dot: Any) -> None:
        pipe = node.pipe
        assert pipe is not None
        value = self.pipe(pipe, dot, bind=node.kind != "range")
        if node.kind == "print":
            if not pipe.names:
                self.emit(go_string(value))
        elif node.kind == "if":
            self.nodes(node.body if _truth(value) else node.orelse, dot)
        elif node.kind == "with":
            self.nodes(node.body, value) if _truth(value) else self.nodes(node.orelse, dot)
        else:
            self.loop(node, pipe, value, dot)

    def loop(self, node: _Node, pipe: _Pipe, value: Any, dot: Any) -> None:
        items: list[tuple[Any, Any]]
        if isinstance(value, Mapping):
            items = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, (list, tuple)):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(i, i) for i in range(value)]
        elif value is None:
            items = []
        else:
            raise TemplateError(f"range cannot go over {go_string(value)}")
        for key, item in items:
            if len(pipe.names) == 2:
                self.variables[pipe.names[0]], self.variables[pipe.names[1]] = key, item
            elif pipe.names:
                self.variables[pipe.names[0]] = item
            try:
                self.nodes(node.body, item)
            except _Continue:
                continue
            except _Break:
                break
        if not items:
            self.nodes(node.orelse, dot)

    def pipe(self, pipe: _Pipe, dot: Any, *, bind: bool = True) -> Any:
        value: Any = None
        for i, command in enumerate(pipe.commands):
            value = self.command(command, dot, (value,) if i else ())
        if bind and pipe.names:
            self.variables[pipe.names[0]] = value
        return value

    def command(self, operands: list[_Operand], dot: Any, piped: tuple[Any, ...]) -> Any:
        first = operands[0]
        if first.kind != "call":
            if len(operands) > 1 or piped:
                raise TemplateError("a value cannot be given arguments; only functions can")
            return self.operand(first, dot)
        if first.value in _LAZY:
            if len(operands) == 1 and not piped:
                raise TemplateError(f"{first.value} needs an argument")
            value: Any = None
            for operand in operands[1:]:
                value = self.operand(operand, dot)
                if _truth(value) == (first.value == "or"):
                    return value
            return piped[0] if piped else value
        args = [self.operand(operand, dot) for operand in operands[1:]]
        try:
            return _FUNCTIONS[first.value](*args, *piped)
        except (TypeError, ValueError, AttributeError) as exc:
            raise TemplateError(f"{first.value}: {exc}") from exc

    def operand(self, operand: _Operand, dot: Any) -> Any:
        if operand.kind == "literal":
            return operand.value
        if operand.kind == "call":
            return self.command([operand], dot, ())
        if operand.kind == "dot":
            value = dot
        elif operand.kind == "variable":
            value = self.variables[operand.value]
        else:
            value = self.pipe(operand.value, dot)
        for name in operand.fields:
            if isinstance(value, Struct):
                if name not in value:
                    raise TemplateError(f"no field .{name}; known are " + ", ".join(f".{known}" for known in value))
                value = value[name]
            elif isinstance(value, Mapping):
                value = value.get(name, "")
            else:
                raise TemplateError(f"no field .{name} in {go_string(value)}")
        return value
