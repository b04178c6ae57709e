"""Go's text/template: prometheus-adapter's queries, the annotations of alerts, the texts of notifications.

Supported: fields, chains, methods, variables, pipelines, parentheses, string, raw string, number and boolean literals,
``if``/``else if``/``else``, ``range`` (with ``else``, ``break``, ``continue``), ``with``, ``define``, ``template``,
``block``, ``end``, comments, trim markers, and the functions of ``gofunctions`` with those that the caller adds. Values
are str, int, float, bool, list, ``dict`` (a map: a missing key is ""), ``Struct`` (a missing field is an error) and
``Methods``. Printing follows Go: ``[a b]``, ``map[k:v]``.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyball.model.gofunctions import (
    FUNCTIONS,
    Methods,
    SafeHtml,
    Struct,
    TemplateError,
    escape_html,
    format_scientific,
    go_quote,
    go_string,
    truth,
)

_OUTPUT_LIMIT = 1_000_000
_DEPTH_LIMIT = 100

_TOKEN = re.compile(
    r"\s+|(?P<string>\"(?:[^\"\\\n]|\\.)*\")|(?P<raw>`[^`]*`)|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<declare>:=)|(?P<assign>=)"
    r"|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))|(?P<comma>,)"
    r"|(?P<variable>\$\w*)|(?P<field>\.\w*)|(?P<word>[A-Za-z_]\w*)"
)


_LAZY = frozenset({"and", "or"})


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
    kind: str  # text, print, if, range, with, template, break, continue
    text: str = ""
    pipe: _Pipe | None = None
    body: list["_Node"] = field(default_factory=list)
    orelse: list["_Node"] = field(default_factory=list)


class _Break(Exception):  # noqa: N818
    pass


class _Continue(Exception):  # noqa: N818
    pass


def _tokens(action: str, where: str) -> list[_Token]:
    found, at, spaced = [], 0, True
    while at < len(action):
        match = _TOKEN.match(action, at)
        if match is None:
            raise TemplateError(f'unexpected "{action[at]}" in {where}')
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

    def __init__(self, template: "Template", action: str) -> None:
        self.template, self.variables = template, template.variables
        self.where = f'"{template.shown(action)}"'
        self.tokens, self.at = _tokens(action, self.where), 0

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
                raise TemplateError(f"unclosed parenthesis in {self.where}")
            self.at += 1
        elif token is not None:
            raise TemplateError(f'unexpected "{token.text}" in {self.where}')
        if declares:
            self.variables.update(names)
        elif names and names[0] not in self.variables:
            raise TemplateError(f'undefined variable "{names[0]}" in {self.where}')
        return _Pipe(names, declares, commands)

    def command(self) -> list[_Operand]:
        operands: list[_Operand] = []
        while (token := self.peek()) is not None and token.kind not in ("pipe", "close"):
            operands.append(self.operand())
        if not operands:
            raise TemplateError(f"missing value in {self.where}")
        return operands

    def operand(self) -> _Operand:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "string":
            return _Operand("literal", _unquote(token.text))
        if token.kind == "raw":
            return _Operand("literal", token.text[1:-1])
        if token.kind == "number":
            is_float = not token.text.lstrip("+-").isdigit()
            return _Operand("literal", float(token.text) if is_float else int(token.text))
        if token.kind == "word":
            if token.text in ("true", "false"):
                return _Operand("literal", token.text == "true")
            if token.text == "nil":
                return _Operand("literal", None)
            if token.text in self.template.functions or token.text in _LAZY:
                return _Operand("call", token.text)
            known = ", ".join(sorted([*self.template.functions, *_LAZY]))
            raise TemplateError(f'function "{token.text}" not defined in {self.where}; known are {known}')
        if token.kind == "field":
            return _Operand("dot", None, self.chain(token.text))
        if token.kind == "variable":
            if token.text != "$" and token.text not in self.variables:
                raise TemplateError(f'undefined variable "{token.text}" in {self.where}')
            return _Operand("variable", token.text, self.chain("."))
        if token.kind == "open":
            return _Operand("pipe", self.pipe(inner=True), self.chain("."))
        raise TemplateError(f'unexpected "{token.text}" in {self.where}')

    def chain(self, first: str) -> tuple[str, ...]:
        fields = [first[1:]] if len(first) > 1 else []
        while (token := self.peek()) is not None and token.kind == "field" and not token.spaced and len(token.text) > 1:
            fields.append(token.text[1:])
            self.at += 1
        return tuple(fields)


def _split(text: str, opening: str, closing: str) -> Iterator[tuple[bool, str]]:
    """Yields (is action, text); trim markers are applied and comments dropped."""
    at, trim_next = 0, False
    while True:
        start = text.find(opening, at)
        literal = text[at:] if start < 0 else text[at:start]
        if trim_next:
            literal = literal.lstrip(" \t\r\n")
        if start < 0:
            yield False, literal
            return
        body_at = start + len(opening)
        if text[body_at : body_at + 1] == "-" and text[body_at + 1 : body_at + 2].isspace():
            literal = literal.rstrip(" \t\r\n")
            body_at += 2
        yield False, literal
        end = _action_end(text, body_at, opening, closing)
        action = text[body_at:end]
        at = end + len(closing)
        trim_next = action.endswith("-") and action[-2:-1].isspace()
        if trim_next:
            action = action[:-1]
        if not (action.strip().startswith("/*") and action.strip().endswith("*/")):
            yield True, action.strip()


def _action_end(text: str, at: int, opening: str, closing: str) -> int:
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
        elif text.startswith(closing, at):
            return at
        at += 1
    raise TemplateError(f'unclosed action "{opening}{text[start : start + 40]}"; close it with "{closing}"')


class Template:
    """A parsed template.

    Args:
        delimiters: around actions; the default is prometheus-adapter's.
        functions: added to Go's own.
        variables: names that ``render`` is given values for, such as ``$labels``.
        named: templates by name, which ``template`` finds; what the text defines is added to them.

    Raises:
        TemplateError: it does not parse.
    """

    def __init__(
        self,
        text: str,
        *,
        delimiters: tuple[str, str] = ("<<", ">>"),
        functions: Mapping[str, Callable[..., Any]] | None = None,
        variables: Collection[str] = (),
        named: dict[str, list[_Node]] | None = None,
    ) -> None:
        self.text = text
        self.functions = {**FUNCTIONS, **(functions or {})}
        self.variables = set(variables)
        self.named = {} if named is None else named
        self._delimiters = delimiters
        self._parts = list(_split(text, *delimiters))
        self._at = 0
        self._loops = 0
        self._nodes, end = self._block()
        if end:
            raise TemplateError(f'unexpected "{self.shown(end)}"')

    def shown(self, action: str) -> str:
        """An action as it stands in the text."""
        return action.join(self._delimiters)

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
            if keyword in ("else", "end"):
                return nodes, text
            if keyword in ("break", "continue"):
                if not self._loops:
                    raise TemplateError(f'"{self.shown(text)}" outside of a range')
                nodes.append(_Node(keyword))
            elif keyword in ("if", "range", "with"):
                nodes.append(self._control(keyword, text[len(keyword) :]))
            elif keyword in ("define", "template", "block"):
                name, data = self._name(text, text[len(keyword) :])
                if keyword != "template":
                    self._define(name, text)
                if keyword != "define":
                    nodes.append(_Node("template", name, self._pipe(data) if data else None))
            else:
                nodes.append(_Node("print", pipe=self._pipe(text)))
        return nodes, ""

    def _name(self, action: str, rest: str) -> tuple[str, str]:
        """The quoted name that ``define``, ``template`` and ``block`` begin with, and what follows it."""
        found = re.match(r"\s*(\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`)\s*", rest)
        if found is None:
            raise TemplateError(f'a quoted name is missing in "{self.shown(action)}"')
        quoted = found.group(1)
        return _unquote(quoted) if quoted[0] == '"' else quoted[1:-1], rest[found.end() :]

    def _define(self, name: str, action: str) -> None:
        variables, loops = self.variables, self._loops
        self.variables, self._loops = set(), 0
        body, end = self._block()
        if end != "end":
            raise TemplateError(f'"{self.shown(action)}" is not closed; add "{self.shown("end")}"')
        self.variables, self._loops = variables, loops
        if body or name not in self.named:  # an empty one does not hide another, as in Go
            self.named[name] = body

    def _pipe(self, text: str, *, two_names: bool = False) -> _Pipe:
        return _Action(self, text).pipe(two_names=two_names)

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
                raise TemplateError(f'unexpected "{rest}" in "{self.shown(end)}"')
            node.orelse, end = self._block()
        if end != "end":
            raise TemplateError(f'"{self.shown(keyword + condition)}" is not closed; add "{self.shown("end")}"')
        return node

    def render(
        self,
        data: Any,
        variables: Mapping[str, Any] | None = None,
        *,
        html: bool = False,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> str:
        """Executes the template; ``variables`` has a value for each name announced.

        Args:
            html: escape what is printed, as html/template does between tags.
            functions: these in place of those of the same names.

        Raises:
            TemplateError: an unknown field or template, a bad argument, or more than 1 MB of output.
        """
        run = _Run({**self.functions, **(functions or {})}, self.named, {"$": data, **(variables or {})}, html=html)
        run.nodes(self._nodes, data)
        return "".join(run.out)


class _Run:
    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        named: Mapping[str, list[_Node]],
        variables: dict[str, Any],
        *,
        html: bool,
    ) -> None:
        self.functions, self.named, self.variables, self.html = functions, named, variables, html
        self.out: list[str] = []
        self.size = self.depth = 0

    def emit(self, text: str) -> None:
        self.size += len(text)
        if self.size > _OUTPUT_LIMIT:
            raise TemplateError(f"the rendered text is larger than {_OUTPUT_LIMIT} characters")
        self.out.append(text)

    def nodes(self, nodes: Sequence[_Node], dot: Any) -> None:
        for node in nodes:
            if node.kind == "text":
                self.emit(node.text)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            elif node.kind == "template":
                self.template(node, dot)
            else:
                self.action(node, dot)

    def template(self, node: _Node, dot: Any) -> None:
        """Another template, which sees nothing but its data."""
        if node.text not in self.named:
            raise TemplateError(f'template "{node.text}" is not defined')
        if self.depth >= _DEPTH_LIMIT:
            raise TemplateError(f'template "{node.text}" calls itself more than {_DEPTH_LIMIT} times deep')
        data = self.pipe(node.pipe, dot) if node.pipe is not None else None
        outer, self.variables = self.variables, {"$": data}
        self.depth += 1
        self.nodes(self.named[node.text], data)
        self.depth -= 1
        self.variables = outer

    def action(self, node: _Node, dot: Any) -> None:
        pipe = node.pipe
        assert pipe is not None
        value = self.pipe(pipe, dot, bind=node.kind != "range")
        if node.kind == "print":
            if not pipe.names:
                text = go_string(value)
                self.emit(escape_html(text) if self.html and not isinstance(value, SafeHtml) else text)
        elif node.kind == "if":
            self.nodes(node.body if truth(value) else node.orelse, dot)
        elif node.kind == "with":
            self.nodes(node.body, value) if truth(value) else self.nodes(node.orelse, dot)
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
            given = (*(self.operand(operand, dot) for operand in operands[1:]), *piped)
            return self.operand(first, dot, given)
        if first.value in _LAZY:
            if len(operands) == 1 and not piped:
                raise TemplateError(f"{first.value} needs an argument")
            value: Any = None
            for operand in operands[1:]:
                value = self.operand(operand, dot)
                if truth(value) == (first.value == "or"):
                    return value
            return piped[0] if piped else value
        args = [self.operand(operand, dot) for operand in operands[1:]]
        try:
            return self.functions[first.value](*args, *piped)
        except (TypeError, ValueError, OverflowError, AttributeError) as exc:
            raise TemplateError(f"{first.value}: {exc}") from exc

    def operand(self, operand: _Operand, dot: Any, given: tuple[Any, ...] = ()) -> Any:
        """Its value; ``given`` are arguments for a method, which only the last field can be."""
        if operand.kind == "literal":
            value = operand.value
        elif operand.kind == "call":
            return self.command([operand], dot, ())
        elif operand.kind == "dot":
            value = dot
        elif operand.kind == "variable":
            value = self.variables[operand.value]
        else:
            value = self.pipe(operand.value, dot)
        for name in operand.fields[:-1]:
            value = _field(value, name, ())
        if operand.fields:
            return _field(value, operand.fields[-1], given)
        if given:
            raise TemplateError("a value cannot be given arguments; only functions can")
        return value


def _field(value: Any, name: str, given: tuple[Any, ...]) -> Any:
    if isinstance(value, Methods) and name in value.METHODS:
        try:
            return value.METHODS[name](value, *given)
        except (TypeError, ValueError, OverflowError, AttributeError) as exc:
            raise TemplateError(f".{name}: {exc}") from exc
    if given:
        raise TemplateError(f".{name} is not a method and cannot be given arguments")
    if isinstance(value, Struct):
        if name not in value:
            raise TemplateError(f"no field .{name}; known are " + ", ".join(f".{known}" for known in value))
        return value[name]
    if isinstance(value, Mapping):
        return value.get(name, "")
    raise TemplateError(f"no field .{name} in {go_string(value)}")


__all__ = ["Struct", "Template", "TemplateError", "format_scientific", "go_quote", "go_string"]
