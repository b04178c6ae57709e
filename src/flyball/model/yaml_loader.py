"""The one YAML loader: PyYAML's C parser, and only what JSON can say.

Aliases, merge keys, duplicate keys and unknown tags are refused with their line. Keys are text, as they
are written. Scalars follow the Go loaders of Kubernetes and Prometheus rather than PyYAML: ``1e3`` is a
float, ``22:30`` and ``2026-01-02`` are text.
"""

import re
from typing import Any

import yaml

from flyball.errors import ConfigError

#: Nesting deeper than this is refused; Kubernetes objects stay below 30.
DEPTH_MAX = 100
#: A text with fewer of the marks that open a level cannot be so deep that composing it crashes.
SHALLOW_OPENINGS = 2_000

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_BASED_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL_FLOATS = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}

try:
    _Loader: Any = yaml.CSafeLoader
except AttributeError:  # PyYAML built without libyaml
    _Loader = yaml.SafeLoader


def load_yaml(text: str | bytes, what: str = "YAML") -> object:
    """The one document as dict, list, str, int, float, bool or None; an empty text is None.

    Raises:
        ConfigError: the text is not YAML, holds more than one document, or uses what is refused here; the
            message starts with ``what`` and names the line.
    """
    documents = load_all_yaml(text, what)
    if len(documents) > 1:
        raise ConfigError(f"{what}: {len(documents)} documents where one is expected; remove the --- lines")
    return documents[0] if documents else None


def load_all_yaml(text: str | bytes, what: str = "YAML") -> list[object]:
    """Every document; empty documents are left out.

    Raises:
        ConfigError: as for ``load_yaml``.
    """
    documents = []
    try:
        _check_depth(text, what)
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                value = _build(node, what, set(), 0)
                if value is not None:
                    documents.append(value)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigError(f"{what}: {where}{exc.problem or exc.context or 'not YAML'}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{what}: not YAML: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{what}: nested deeper than {DEPTH_MAX} levels") from exc
    return documents


def _check_depth(text: str | bytes, what: str) -> None:
    """Refuses what is nested too deep before libyaml composes it, which does so on the C stack and would crash.

    Only a text with enough openings to be dangerous is read twice.
    """
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if sum(shown.count(opening) for opening in ("[", "{", "- ", "? ", ": ")) < SHALLOW_OPENINGS:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise ConfigError(f"{what}: nested deeper than {DEPTH_MAX} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _build(node: Any, what: str, seen: set[int], depth: int) -> object:
    line = node.start_mark.line + 1
    if id(node) in seen:  # an alias composes to the node of its anchor
        raise ConfigError(f"{what}: line {line}: an alias (*name) refers to this; write the value out instead")
    seen.add(id(node))
    if depth > DEPTH_MAX:
        raise ConfigError(f"{what}: line {line}: nested deeper than {DEPTH_MAX} levels")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, what, line)
    if isinstance(node, yaml.SequenceNode):
        _check_tag(node, "seq", what, line)
        return [_build(item, what, seen, depth + 1) for item in node.value]
    _check_tag(node, "map", what, line)
    mapping: dict[str, object] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{what}: line {key_line}: a key must be text, not a list or mapping")
        if id(key_node) in seen:
            raise ConfigError(f"{what}: line {key_line}: an alias (*name) refers to this; write the value out instead")
        seen.add(id(key_node))
        key = str(key_node.value)
        if key_node.tag == _TAG + "merge":
            raise ConfigError(f"{what}: line {key_line}: merge keys (<<) are not supported; write the fields out")
        if key in mapping:
            raise ConfigError(f'{what}: line {key_line}: the key "{key}" is written twice; remove one')
        mapping[key] = _build(value_node, what, seen, depth + 1)
    return mapping


def _check_tag(node: Any, kind: str, what: str, line: int) -> None:
    if node.tag != _TAG + kind:
        raise ConfigError(f"{what}: line {line}: the tag {node.tag} is not supported; remove it")


def _scalar(node: Any, what: str, line: int) -> object:
    text, tag = str(node.value), node.tag
    if not tag.startswith(_TAG) or tag[len(_TAG) :] not in _SCALAR_TAGS:
        raise ConfigError(f"{what}: line {line}: the tag {tag} is not supported; remove it")
    kind = tag[len(_TAG) :]
    if node.style and kind == "str":
        return text  # quoted or block text is always text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    if kind in ("int", "float"):
        return _number(text)
    if kind == "str" and text[:1] in _NUMBER_START and not _INT.fullmatch(text):
        return _number(text)  # 1e3 and 0o17, which YAML 1.1 takes for text; an int here was tagged !!str
    return text


def _number(text: str) -> object:
    if text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    try:
        if _INT.fullmatch(text):
            return int(text.replace("_", ""))
        if _BASED_INT.fullmatch(text):
            plain = text.replace("_", "").lower()
            sign, digits = (-1, plain[1:]) if plain[0] == "-" else (1, plain.lstrip("+"))
            for prefix, base in (("0b", 2), ("0x", 16), ("0o", 8), ("0", 8)):
                if digits.startswith(prefix):
                    return sign * int(digits[len(prefix) :], base)
        if _FLOAT.fullmatch(text):
            return float(text.replace("_", ""))
    except ValueError:
        pass
    return text


_SCALAR_TAGS = frozenset({"null", "bool", "int", "float", "str", "timestamp", "value", "merge"})
_NUMBER_START = frozenset("+-.0123456789")
