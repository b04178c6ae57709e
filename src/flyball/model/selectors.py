"""Label selectors: kubectl's strings (``a=b,c in (x,y),!d``) and the API's LabelSelector objects."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.errors import QueryError

_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|\(|\)|,|<|>)|([^\s=!(),<>]+))")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NAME_MAX, _PREFIX_MAX = 63, 253

_OBJECT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. ``operator`` is one of ``= != in notin exists ! gt lt``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """An absent label satisfies ``!=``, ``notin`` and ``!`` alone, as in Kubernetes."""
        value = labels.get(self.key)
        match self.operator:
            case "=" | "in":
                return value is not None and value in self.values
            case "!=" | "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        if value is None or not _INTEGER.fullmatch(value):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "gt" else int(value) < bound

    def __str__(self) -> str:
        match self.operator:
            case "=" | "!=":
                return f"{self.key}{self.operator}{self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
        return f"{self.key}{'>' if self.operator == 'gt' else '<'}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements at once; with none it matches everything. NOTHING matches no label set."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set satisfies every requirement."""
        return not self.nothing and all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        """False only for the selector of everything."""
        return self.nothing or bool(self.requirements)

    def __str__(self) -> str:
        """The string form, which parses back; NOTHING has none and prints as a condition no label set meets."""
        if self.nothing:
            return "!nothing,nothing"
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def parse_selector(text: str) -> Selector:
    """The selector of a ``labelSelector`` parameter; an empty text matches everything.

    Raises:
        QueryError: the text is not a selector, in the API server's words.
    Source: k8s.io/apimachinery pkg/labels/selector.go, Parser.
    """
    return Selector(tuple(sorted(_Parser(text).parse(), key=lambda requirement: requirement.key)))


def selector_of(spec: Mapping[str, Any] | None) -> Selector:
    """The selector of a LabelSelector object: null selects nothing, ``{}`` everything.

    Raises:
        QueryError: an operator, key or value is not valid.
    Source: k8s.io/apimachinery pkg/apis/meta/v1/helpers.go, LabelSelectorAsSelector.
    """
    if spec is None:
        return NOTHING
    found = [_requirement(key, "=", (value,)) for key, value in (spec.get("matchLabels") or {}).items()]
    for expression in spec.get("matchExpressions") or []:
        operator = expression.get("operator", "")
        if operator not in _OBJECT_OPERATORS:
            raise QueryError(f'"{operator}" is not a valid label selector operator')
        key, values = expression.get("key", ""), tuple(expression.get("values") or ())
        found.append(_requirement(key, _OBJECT_OPERATORS[operator], values))
    return Selector(tuple(sorted(found, key=lambda requirement: requirement.key)))


def selector_of_labels(labels: Mapping[str, str] | None) -> Selector:
    """The selector of a plain map, as Services have: null and ``{}`` select nothing."""
    if not labels:
        return NOTHING
    return Selector(tuple(Requirement(key, "=", (value,)) for key, value in sorted(labels.items())))


def _requirement(key: str, operator: str, values: tuple[str, ...]) -> Requirement:
    if message := label_key_error(key):
        raise QueryError(f'key: Invalid value: "{key}": {message}')
    if operator in ("in", "notin") and not values:
        raise QueryError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in ("exists", "!") and values:
        raise QueryError(
            f"values: Invalid value: {_go_list(values)}: values set must be empty for exists and does not exist"
        )
    if operator in ("gt", "lt") and not _INTEGER.fullmatch(values[0]):
        raise QueryError(
            f"values[0]: Invalid value: \"{values[0]}\": for 'Gt', 'Lt' operators, the value must be an integer"
        )
    for index, value in enumerate(values):
        if message := label_value_error(value):
            raise QueryError(f'values[{index}][{key}]: Invalid value: "{value}": {message}')
    if operator in ("in", "notin"):
        values = tuple(sorted(set(values)))
    return Requirement(key, operator, values)


def _go_list(values: tuple[str, ...]) -> str:
    return "[" + ",".join(f'"{value}"' for value in values) + "]"


def label_key_error(key: str) -> str:
    """What is wrong with a label's name, in the API server's words; ``""`` when nothing is."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return _NAME_RULE_WITH_PREFIX
    if slash:
        if not prefix:
            return "prefix part must be non-empty"
        if len(prefix) > _PREFIX_MAX:
            return f"prefix part must be no more than {_PREFIX_MAX} characters"
        if not _DNS.fullmatch(prefix):
            return f"prefix part {_DNS_RULE}"
    if not name:
        return f"name part must be non-empty; name part {_NAME_RULE}"
    if len(name) > _NAME_MAX:
        return f"name part must be no more than {_NAME_MAX} characters"
    if not _NAME.fullmatch(name):
        return f"name part {_NAME_RULE}"
    return ""


def label_value_error(value: str) -> str:
    """What is wrong with a label's value, in the API server's words; ``""`` when nothing is."""
    if len(value) > _NAME_MAX:
        return f"must be no more than {_NAME_MAX} characters"
    if value and not _NAME.fullmatch(value):
        return _VALUE_RULE
    return ""


_NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_NAME_RULE_WITH_PREFIX = (
    "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' "
    "(e.g. 'example.com/MyName')"
)
_DNS_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


class _Parser:
    """Recursive descent over the tokens; error texts as in upstream's Parser."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = [symbol or word for symbol, word in _TOKEN.findall(text)] + [""]
        self._at = 0

    def parse(self) -> list[Requirement]:
        found: list[Requirement] = []
        while self._peek():
            if not self._is_word(self._peek()) and self._peek() != "!":
                raise self._error(f"found '{self._peek()}', expected: !, identifier, or 'end of string'")
            found.append(self._one())
            after = self._next()
            if after == "":
                break
            if after != ",":
                raise self._error(f"found '{after}', expected: ',' or 'end of string'")
            if not self._is_word(self._peek()) and self._peek() != "!":
                raise self._error(f"found '{self._peek()}', expected: identifier after ','")
        return found

    def _one(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return self._made(self._key(), "!", ())
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return self._made(key, "exists", ())
        self._next()
        if operator in ("=", "=="):
            return self._made(key, "=", (self._exact(),))
        if operator == "!=":
            return self._made(key, "!=", (self._exact(),))
        if operator in (">", "<"):
            return self._made(key, "gt" if operator == ">" else "lt", (self._exact(),))
        if operator in ("in", "notin"):
            return self._made(key, operator, self._set())
        raise self._error(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _made(self, key: str, operator: str, values: tuple[str, ...]) -> Requirement:
        try:
            return _requirement(key, operator, values)
        except QueryError as exc:
            raise self._error(str(exc)) from exc

    def _key(self) -> str:
        word = self._next()
        if not self._is_word(word):
            raise self._error(f"found '{word}', expected: identifier")
        return word

    def _exact(self) -> str:
        if self._peek() in ("", ","):
            return ""  # "a=" selects the empty value
        word = self._next()
        if not self._is_word(word):
            raise self._error(f"found '{word}', expected: identifier")
        return word

    def _set(self) -> tuple[str, ...]:
        if (opening := self._next()) != "(":
            raise self._error(f"found '{opening}' expected: '('")
        values: list[str] = []
        empty_allowed = True
        while True:
            token = self._next()
            if self._is_word(token):
                if not empty_allowed:
                    raise self._error(f"found '{token}', expected: ',' or ')'")
                values.append(token)
                empty_allowed = False
            elif token in (",", ")"):
                if empty_allowed:
                    values.append("")  # "a in (,)" and "a in ()" name the empty value
                empty_allowed = True
                if token == ")":
                    return tuple(values)
            else:
                raise self._error(f"found '{token}', expected: ',', or identifier")

    def _peek(self) -> str:
        return self._tokens[self._at]

    def _next(self) -> str:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    @staticmethod
    def _is_word(token: str) -> bool:
        return bool(token) and token not in ("=", "==", "!=", "!", "(", ")", ",", "<", ">")

    @staticmethod
    def _error(detail: str) -> QueryError:
        return QueryError(f"unable to parse requirement: {detail}")
