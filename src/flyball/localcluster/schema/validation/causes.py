"""Wrong fields, in upstream's words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

REQUIRED = "Required value"
INVALID = "Invalid value"
DUPLICATE = "Duplicate value"
UNSUPPORTED = "Unsupported value"
FORBIDDEN = "Forbidden"
TOO_LONG = "Too long"
NOT_FOUND = "Not found"
TOO_MANY = "Too many"
INVALID_TYPE = "Invalid type"

_REASONS = {
    REQUIRED: "FieldValueRequired",
    INVALID: "FieldValueInvalid",
    DUPLICATE: "FieldValueDuplicate",
    UNSUPPORTED: "FieldValueNotSupported",
    FORBIDDEN: "FieldValueForbidden",
    TOO_LONG: "FieldValueTooLong",
    NOT_FOUND: "FieldValueNotFound",
    TOO_MANY: "FieldValueTooMany",
    INVALID_TYPE: "FieldValueTypeInvalid",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: ``field`` a path, ``type`` upstream's words, ``detail`` what follows them."""

    field: str
    type: str
    detail: str

    @property
    def body(self) -> str:
        """As a Status' cause says it: ``Invalid value: -1: must be greater than or equal to 0``."""
        words = INVALID if self.type == INVALID_TYPE else self.type  # two reasons, the same words
        return f"{words}: {self.detail}" if self.detail else words

    @property
    def message(self) -> str:
        """As kubectl prints it, the field before the body."""
        return f"{self.field}: {self.body}"

    @property
    def reason(self) -> str:
        """The machine word of a Status' cause (``FieldValueRequired``...)."""
        return _REASONS[self.type]


def quoted(value: Any) -> str:
    """A value as Go prints it in a field error."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        import msgspec

        return msgspec.json.encode(value).decode()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return "null" if value is None else str(value)


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, REQUIRED, detail)


def invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, INVALID, f"{quoted(value)}: {detail}")


def unsupported(field: str, value: Any, supported: Iterable[str], *, in_order: bool = False) -> Cause:
    """``in_order``: the words are shown as given, as upstream's newer checks do."""
    shown = ", ".join(f'"{one}"' for one in (supported if in_order else sorted(supported)))
    return Cause(field, UNSUPPORTED, f"{quoted(value)}: supported values: {shown}")


def duplicate(field: str, value: Any) -> Cause:
    return Cause(field, DUPLICATE, quoted(value))
