"""Label and field selectors as the Kubernetes API takes them in ``labelSelector=`` and ``fieldSelector=``."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flyball.errors import QueryError

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

_TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|[^\s=!(),<>]+|<|>)")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")


def parse_labels(text: str) -> Predicate | None:
    """The predicate over an object's labels; None for an empty selector, which everything matches.

    Raises:
        QueryError: the selector is malformed.
    """
    if not text.strip():
        return None
    tokens = _tokens(text)
    checks: list[Predicate] = []
    position = 0
    while True:
        check, position = _requirement(tokens, position)
        checks.append(check)
        if position >= len(tokens):
            break
        if tokens[position] != ",":
            raise QueryError(f"found '{tokens[position]}', expected: ',' or 'end of string'")
        position += 1
    if len(checks) == 1:
        return checks[0]
    return lambda labels: all(check(labels) for check in checks)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(text):
        if text[position:].isspace():
            break
        found = _TOKEN.match(text, position)
        if not found:
            raise _wrong(f'unexpected "{text[position]}"')
        tokens.append(found.group(1))
        position = found.end()
    return tokens


def _wrong(why: str) -> QueryError:
    return QueryError(f"unable to parse requirement: {why}")


def _key(token: str) -> str:
    if not _KEY.match(token):
        raise _wrong(
            f'<nil>: Invalid value: "{token}": name part must consist of alphanumeric characters, '
            "'-', '_' or '.', and must start and end with an alphanumeric character",
        )
    return token


def _requirement(tokens: list[str], at: int) -> tuple[Predicate, int]:
    def token(index: int) -> str:
        return tokens[index] if index < len(tokens) else ""

    if token(at) == "!":
        key = _key(token(at + 1))
        return (lambda labels: key not in labels), at + 2
    key = _key(token(at))
    operator = token(at + 1)
    if operator in ("=", "==", "!="):
        value, end = "", at + 2
        if token(end) not in (",", ""):
            value, end = token(end), end + 1
        if not _VALUE.match(value):
            raise _wrong(
                f'values[0][{key}]: Invalid value: "{value}": a valid label must be an empty string or '
                "consist of alphanumeric characters, '-', '_' or '.'",
            )
        if operator == "!=":
            return (lambda labels: labels.get(key) != value), end
        return (lambda labels: labels.get(key) == value), end
    if operator in ("in", "notin"):
        values, end = _values(tokens, at + 2)
        if operator == "in":
            return (lambda labels: labels.get(key) in values), end
        return (lambda labels: labels.get(key) not in values), end
    if operator in ("<", ">"):
        try:
            bound = int(token(at + 2))
        except ValueError:
            raise _wrong("for 'Gt', 'Lt' operators, the value must be an integer") from None
        sign = 1 if operator == ">" else -1
        return (lambda labels: _is_number(labels.get(key)) and (int(labels[key]) - bound) * sign > 0), at + 3
    if operator not in (",", ""):
        raise _wrong(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
    return (lambda labels: key in labels), at + 1


def _is_number(value: str | None) -> bool:
    return value is not None and value.lstrip("-").isdigit()


def _values(tokens: list[str], at: int) -> tuple[frozenset[str], int]:
    if at >= len(tokens) or tokens[at] != "(":
        raise _wrong("expected: '('")
    values: set[str] = set()
    at += 1
    expects_value = True
    while at < len(tokens) and tokens[at] != ")":
        if tokens[at] == ",":
            if expects_value:
                values.add("")
            expects_value = True
        else:
            values.add(tokens[at])
            expects_value = False
        at += 1
    if at >= len(tokens):
        raise _wrong("expected: ')'")
    if expects_value:
        values.add("")
    return frozenset(values), at + 1


_ANY = frozenset({"metadata.name", "metadata.namespace"})
_EVENT_FIELDS = frozenset(
    f"{parent}.{field}"
    for parent in ("involvedObject", "regarding")
    for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
) | {"reason", "reportingComponent", "reportingController", "source", "type"}
_FIELDS: dict[str, frozenset[str]] = {
    "/pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        }
    ),
    "/events": _EVENT_FIELDS,
    "/nodes": frozenset({"spec.unschedulable"}),
    "/namespaces": frozenset({"status.phase"}),
    "/secrets": frozenset({"type"}),
    "/services": frozenset({"spec.clusterIP", "spec.type"}),
    "/replicationcontrollers": frozenset({"status.replicas"}),
    "apps/replicasets": frozenset({"status.replicas"}),
    "batch/jobs": frozenset({"status.successful"}),
}


def parse_fields(
    text: str, store: str, is_builtin: bool = True, more: frozenset[str] = frozenset()
) -> Callable[[Mapping[str, Any]], bool] | None:
    """The predicate over a stored object of ``store`` (a kind's key, ``/pods``); None when everything matches.

    ``more`` are the fields by which a custom resource may be selected besides.

    Raises:
        QueryError: malformed, or a field this kind cannot be selected by.
    """
    if not text.strip():
        return None
    allowed = _ANY | more | _FIELDS.get(store, frozenset())
    checks: list[tuple[tuple[str, ...], str, bool]] = []
    for term in _terms(text):
        negated = "!=" in term
        if negated:
            field, value = term.split("!=", 1)
        elif "==" in term:
            field, value = term.split("==", 1)
        elif "=" in term:
            field, value = term.split("=", 1)
        else:
            raise QueryError(f"invalid selector: '{text}'; can't understand '{term}'")
        if field not in allowed:
            if store in _FIELDS or not is_builtin:
                raise QueryError(f"field label not supported: {field}")
            raise QueryError(
                f'"{field}" is not a known field selector: only ' + ", ".join(f'"{name}"' for name in sorted(allowed))
            )
        checks.append((_stored_path(field), value, negated))
    return lambda obj: all((_text(obj, path) == value) != negated for path, value, negated in checks)


def _terms(text: str) -> list[str]:
    """Comma-separated terms; backslash escapes a comma, an equals sign or itself."""
    terms, current, escaped = [], "", False
    for char in text:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(current)
            current = ""
        else:
            current += char
    terms.append(current)
    return [term.strip() for term in terms if term.strip()]


def _stored_path(field: str) -> tuple[str, ...]:
    """Events are stored in their core form: ``regarding`` there is ``involvedObject``."""
    if field == "reportingController":
        return ("reportingComponent",)
    if field == "source":
        return ("source", "component")
    parts = field.split(".")
    if parts[0] == "regarding":
        parts[0] = "involvedObject"
    return tuple(parts)


def _text(obj: Any, path: tuple[str, ...]) -> str:
    for part in path:
        obj = obj.get(part) if isinstance(obj, Mapping) else None
    if obj is None:
        return (
            "false"
            if path[-1] in ("unschedulable", "hostNetwork")
            else "0"
            if path[0] == "status" and path[-1] in ("replicas", "successful")
            else ""
        )
    if isinstance(obj, bool):
        return "true" if obj else "false"
    return str(obj)
