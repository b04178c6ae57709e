"""Pieces of the text exposition format."""

from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def labels_text(labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """``{a="b"}``, or nothing."""
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    inside = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)
    return f"{{{inside}}}" if inside else ""


def number_text(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
