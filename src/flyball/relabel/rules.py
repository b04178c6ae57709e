"""Relabelling as in Prometheus' model/relabel: rules run in order, each sees what the one before left."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import re2

from flyball.model.scrapeconfigs import RelabelConfig

#: A piece of a template: plain text, or the number or name of a capture group.
_Piece = str | tuple[int | str]
_REFERENCE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))", re.ASCII)


def relabel(labels: Mapping[str, str], configs: Sequence[RelabelConfig]) -> dict[str, str] | None:
    """The label set after all rules, or None when a rule drops it. The argument is left as it is.

    An empty value is an absent label, before and after.
    """
    found = {name: value for name, value in labels.items() if value}
    for config in configs:
        if not _apply(found, config):
            return None
    return found


def _apply(labels: dict[str, str], config: RelabelConfig) -> bool:
    action = config.action
    if action == "labelmap":
        regex = _compiled(config.regex)
        for name, value in list(labels.items()):
            match = regex.search(name)
            if match is not None:
                _set(labels, _expand(config.replacement, match), value)
        return True
    if action == "labeldrop" or action == "labelkeep":
        regex = _compiled(config.regex)
        wanted = action == "labelkeep"
        for name in [name for name in labels if (regex.search(name) is not None) is not wanted]:
            del labels[name]
        return True
    source = config.separator.join([labels.get(name, "") for name in config.source_labels])
    match action:
        case "replace":
            match_ = _compiled(config.regex).search(source)
            if match_ is not None:
                target = _expand(config.target_label, match_)
                if target:
                    _set(labels, target, _expand(config.replacement, match_))
        case "keep":
            return _compiled(config.regex).search(source) is not None
        case "drop":
            return _compiled(config.regex).search(source) is None
        case "keepequal":
            return labels.get(config.target_label, "") == source
        case "dropequal":
            return labels.get(config.target_label, "") != source
        case "hashmod":
            digest = hashlib.md5(source.encode(), usedforsecurity=False).digest()
            _set(labels, config.target_label, str(int.from_bytes(digest[8:], "big") % config.modulus))
        case "lowercase":
            _set(labels, config.target_label, source.lower())
        case "uppercase":
            _set(labels, config.target_label, source.upper())
        case _:
            raise ValueError(f'"{action}" is not a relabel action')
    return True


def _set(labels: dict[str, str], name: str, value: str) -> None:
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


@lru_cache(maxsize=4096)
def _compiled(regex: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(f"^(?s:{regex})$", options)


@lru_cache(maxsize=4096)
def _pieces(template: str) -> tuple[_Piece, ...]:
    """Go's template syntax: ``$1``, ``${1}``, ``$name``, ``${name}``, ``$$``; any other ``$`` is text."""
    pieces: list[_Piece] = []
    end = 0
    for found in _REFERENCE.finditer(template):
        pieces.append(template[end : found.start()])
        name = found[1] or found[2]
        if name is None:
            pieces.append("$")
        else:
            pieces.append((int(name),) if name.isdecimal() else (name,))
        end = found.end()
    pieces.append(template[end:])
    return tuple(piece for piece in pieces if piece != "")


def _expand(template: str, match: Any) -> str:
    if "$" not in template:
        return template
    parts = []
    for piece in _pieces(template):
        if isinstance(piece, str):
            parts.append(piece)
            continue
        group = piece[0]
        if isinstance(group, str):
            parts.append(match.groupdict().get(group) or "")
        elif group <= match.re.groups:
            parts.append(match.group(group) or "")
    return "".join(parts)
