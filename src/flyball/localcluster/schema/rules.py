"""Rules of structural schemas in CEL (``x-kubernetes-validations``), where the optional package cel-python is there.

Without it, and where a rule uses what only Kubernetes' own CEL library has, a rule is published but not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from flyball.localcluster.schema.validation.causes import DUPLICATE, FORBIDDEN, INVALID, REQUIRED, Cause, quoted

Node = dict[str, Any]

_RULES = "x-kubernetes-validations"
_TYPES = {
    "FieldValueDuplicate": DUPLICATE,
    "FieldValueForbidden": FORBIDDEN,
    "FieldValueInvalid": INVALID,
    "FieldValueRequired": REQUIRED,
}
_ABSENT: Any = object()


def broken(schema: Node, obj: Any, old: Any = None) -> Iterator[Cause]:
    """The rules that an object breaks. Rules about ``oldSelf`` hold between an object and the one it replaces."""
    yield from _broken(schema, obj, _ABSENT if old is None else old, "")


def _broken(node: Node, value: Any, old: Any, path: str) -> Iterator[Cause]:
    for rule in node.get(_RULES) or ():
        text = str(rule.get("rule") or "")
        is_transition = "oldSelf" in text
        if is_transition and old is _ABSENT:
            continue
        before = old if is_transition else None
        if _evaluate(text, value, before) is False:
            message = _evaluate(str(rule.get("messageExpression") or ""), value, before) or rule.get("message")
            message = str(message or f"failed rule: {text}").strip()
            kind = _TYPES.get(str(rule.get("reason")), INVALID)
            if kind in (INVALID, DUPLICATE) and not isinstance(value, (dict, list)):
                message = f"{quoted(value)}: {message}"
            yield Cause((path + (rule.get("fieldPath") or "")).removeprefix(".") or "<nil>", kind, message)
    if isinstance(value, dict):
        properties, extra = node.get("properties") or {}, node.get("additionalProperties")
        for name, item in value.items():
            child = properties.get(name, extra)
            if isinstance(child, dict):
                before = old.get(name, _ABSENT) if isinstance(old, dict) else _ABSENT
                yield from _broken(child, item, before, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for index, item in enumerate(value):
            yield from _broken(node["items"], item, _ABSENT, f"{path}[{index}]")


@cache
def _cel() -> Any:
    """The package, None when it is not installed. It takes half a second to load, so only rules load it."""
    try:
        import celpy
    except ImportError:
        return None
    return celpy


@lru_cache(1024)
def _program(text: str) -> Any:
    """A rule ready to run, None when it cannot be read."""
    cel = _cel()
    environment = cel.Environment()
    try:
        return environment.program(environment.compile(text))
    except (cel.CELParseError, cel.CELEvalError, ValueError, NotImplementedError):
        return None


def problem(text: str) -> str:
    """Why a rule cannot be read, "" when it can or nobody here can say."""
    cel = _cel()
    if cel is None:
        return ""
    try:
        cel.Environment().compile(text)
    except cel.CELParseError as exc:
        return f"ERROR: <input>: Syntax error: {str(exc).splitlines()[0]}"
    return ""


def _evaluate(text: str, value: Any, old: Any) -> bool | str | None:
    """Whether the rule holds, or the message it makes; None when that cannot be said here."""
    cel = _cel()
    program = _program(text) if cel is not None and text else None
    if program is None:
        return None
    variables = {"self": cel.json_to_cel(value)}
    if old is not None:
        variables["oldSelf"] = cel.json_to_cel(old)
    try:
        found = program.evaluate(variables)
        return str(found) if isinstance(found, str) else bool(found)
    except (cel.CELEvalError, ValueError, TypeError, KeyError):
        return None
