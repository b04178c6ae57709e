"""Reads the protobuf bodies that ``kubectl create``, ``autoscale`` and ``auth can-i`` send.

kubectl does not fall back to JSON, so a server must read them; answers may always be JSON. The field table is
generated (``tools/schema/protobuf_fields.py``). Kubernetes' protobuf writes every non-pointer field, empty or not, so
an empty value is dropped exactly where Go's JSON would omit it.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from flyball.errors import QueryError
from flyball.localcluster.schema import fields

MAGIC = b"k8s\x00"
_MAX_DEPTH = 60
_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_MISSING = object()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """A request body (magic, then ``runtime.Unknown``) as the JSON-shaped object of its kind.

    Raises QueryError for bytes that are no such envelope, are cut short, or name a kind without a field table.
    """
    if not body.startswith(MAGIC):
        raise QueryError(
            f"the body starts with {body[:4]!r}, not with {MAGIC!r}: it is no Kubernetes protobuf envelope"
        )
    api_version = kind = encoding = content_type = ""
    raw = b""
    for number, value in _wire(memoryview(body)[len(MAGIC) :]):
        if number == 1:
            for inner, text in _wire(_bytes(value)):
                if inner == 1:
                    api_version = _string(text)
                elif inner == 2:
                    kind = _string(text)
        elif number == 2:
            raw = bytes(_bytes(value))
        elif number == 3:
            encoding = _string(value)
        elif number == 4:
            content_type = _string(value)
    if encoding:
        raise QueryError(f"the body's contentEncoding is {encoding!r}; send it unencoded")
    if content_type == "application/json":
        obj = _json(raw)
        if not isinstance(obj, dict):
            raise QueryError("the protobuf envelope holds JSON that is no object")
        return obj
    message = _message_name(api_version, kind)
    if message is None:
        raise QueryError(
            f'no kind "{kind}" is registered for version "{api_version}" in protobuf; send it as application/json'
        )
    found = _message(message, memoryview(raw), 0)
    return {"apiVersion": api_version, "kind": kind, **found}


def _message_name(api_version: str, kind: str) -> str | None:
    table = fields.go_fields()
    for package in (table["packages"].get(api_version), _META.rstrip(".")):
        if package is not None and f"{package}.{kind}" in table["messages"]:
            return f"{package}.{kind}"
    return None


# --- the wire -------------------------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise QueryError(f"the protobuf body is damaged: a number at byte {at} has no end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _wire(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, integer or bytes) of one message; fixed-width values come as bytes."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise QueryError(f"the protobuf body is damaged: field {number} has wire type {wire}")
        if at + length > size:
            raise QueryError(
                f"the protobuf body is cut short: field {number} wants {length} bytes, {size - at} are left"
            )
        yield number, data[at : at + length]
        at += length


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise QueryError("the protobuf body is damaged: a number stands where text or a message belongs")
    return value


def _string(value: int | memoryview) -> str:
    try:
        return bytes(_bytes(value)).decode()
    except UnicodeDecodeError as error:
        raise QueryError(f"the protobuf body holds text that is not UTF-8: {error}") from None


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise QueryError("the protobuf body is damaged: bytes stand where a number belongs")
    return value - 2**64 if value >= 2**63 else value


def _real(value: int | memoryview) -> float:
    import struct

    data = bytes(_bytes(value))
    return float(struct.unpack("<d" if len(data) == 8 else "<f", data)[0])


# --- messages -------------------------------------------------------------------------------------------------------


def _json(data: bytes) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise QueryError(f"the protobuf body embeds JSON that does not parse: {error}") from None


def _numbered(data: memoryview) -> dict[int, int | memoryview]:
    return dict(_wire(data))


def _time(data: memoryview, micro: bool) -> Any:
    if not data:
        return _MISSING  # Go's zero time, null in JSON
    found = _numbered(data)
    seconds, nanos = _integer(found.get(1, 0)), _integer(found.get(2, 0))
    try:
        at = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise QueryError(f"the protobuf body holds a time that no calendar has: {seconds} s") from None
    text = at.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{text}.{nanos // 1000:06d}Z" if micro else f"{text}Z"


def _int_or_string(data: memoryview) -> Any:
    found = _numbered(data)
    return _string(found.get(3, memoryview(b""))) if found.get(1) == 1 else _integer(found.get(2, 0))


def _raw(data: memoryview) -> Any:
    raw = bytes(_bytes(_numbered(data).get(1, memoryview(b""))))
    return _json(raw) if raw else _MISSING


def _items(data: memoryview) -> Any:
    return [_string(value) for number, value in _wire(data) if number == 1]


def _span(data: memoryview) -> Any:
    """metav1.Duration as Go writes it, good to the nanosecond ("1m30s")."""
    nanos = _integer(_numbered(data).get(1, 0))
    if nanos == 0:
        return "0s"
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    hours, rest = divmod(rest, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    seconds = f"{rest // 10**9}.{rest % 10**9:09d}".rstrip("0").rstrip(".")
    return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


_SPECIAL: dict[str, Callable[[memoryview], Any]] = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": lambda data: (
        _string(_numbered(data).get(1, memoryview(b""))) or "0"
    ),
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    _META + "Time": lambda data: _time(data, micro=False),
    _META + "MicroTime": lambda data: _time(data, micro=True),
    _META + "Duration": _span,
    _META + "FieldsV1": _raw,
    _META + "Verbs": _items,
    "k8s.io.apimachinery.pkg.runtime.RawExtension": _raw,
    "k8s.io.api.authentication.v1.ExtraValue": _items,
    "k8s.io.api.authorization.v1.ExtraValue": _items,
    "k8s.io.api.certificates.v1.ExtraValue": _items,
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON": _raw,
}


def _value(kind: str, value: int | memoryview, depth: int) -> Any:
    if kind == "string":
        return _string(value)
    if kind == "bool":
        return _integer(value) != 0
    if kind in ("int32", "int64", "uint32", "uint64"):
        return _integer(value)
    if kind == "bytes":
        return b2a_base64(bytes(_bytes(value)), newline=False).decode()
    if kind in ("double", "float"):
        return _real(value)
    data = _bytes(value)
    special = _SPECIAL.get(kind)
    return special(data) if special is not None else _message(kind, data, depth + 1)


def _packed(kind: str, data: memoryview, depth: int) -> Iterator[Any]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield _value(kind, number, depth)


_NUMBERS = ("int32", "int64", "uint32", "uint64", "bool")


def _message(name: str, data: memoryview, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise QueryError(f"the protobuf body nests deeper than {_MAX_DEPTH} messages")
    table: dict[str, list[str]] = fields.go_fields()["messages"].get(name, {})
    out: dict[str, Any] = {}
    for number, value in _wire(data):
        field = table.get(str(number))
        if field is None:
            continue  # a newer client's field, dropped as Go does
        key, kind, flags = field
        if "m" in flags:
            _entry(out.setdefault(key, {}), kind, _bytes(value), depth)
        elif "r" in flags:
            items = out.setdefault(key, [])
            if kind in _NUMBERS and not isinstance(value, int):
                items.extend(_packed(kind, value, depth))
            else:
                items.append(_value(kind, value, depth))
        elif "i" in flags:
            out.update(_message(kind, _bytes(value), depth + 1))
        else:
            found = _value(kind, value, depth)
            if found is _MISSING or ("o" in flags and found in ("", 0, False) and not isinstance(found, dict)):
                continue
            out[key] = found
    return out


def _entry(target: dict[str, Any], kinds: str, data: memoryview, depth: int) -> None:
    key_kind, value_kind = kinds.split(",")
    parts = _numbered(data)
    key = _value(key_kind, parts.get(1, memoryview(b"")), depth)
    absent: int | memoryview = 0 if value_kind in _NUMBERS else memoryview(b"")
    target[str(key)] = _value(value_kind, parts.get(2, absent), depth)
