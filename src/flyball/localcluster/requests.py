"""One HTTP request of the API server, raw ASGI: its path, parameters, body, and the ways to answer it."""

import gzip
import json
import math
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
import yaml

from flyball.errors import ConfigError
from flyball.localcluster import failures, schema
from flyball.model.yaml_loader import load_yaml

Object = dict[str, Any]

BODY_BYTES_MAX = 3 << 20
JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
ACCEPTED = (JSON, YAML, PROTOBUF)
_YAML_TYPES = (YAML, "application/x-yaml", "text/yaml", "text/x-yaml")
_ANY_TYPE = ("*/*", "application/*")
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}

encode = msgspec.json.Encoder().encode
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})


class Request:
    """A request being answered. ``started`` is true once the response's head has gone out, with ``code``."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.method: str = scope["method"]
        raw = scope.get("raw_path") or scope["path"].encode()
        self.raw_path: str = raw.split(b"?")[0].decode("latin-1")
        parts = self.raw_path.split("/")
        self.segments = [unquote(part) if "%" in part else part for part in parts if part]
        self.query: str = scope["query_string"].decode("latin-1")
        self.params = parse_qs(self.query, keep_blank_values=True) if self.query else {}
        self.header_list = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in scope["headers"]]
        self.headers: dict[str, str] = {}
        for name, text in self.header_list:
            self.headers[name] = f"{self.headers[name]}, {text}" if name in self.headers else text
        self.accept = self.headers.get("accept", "")
        self.content_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.receive = receive
        self._send = send
        self.started = False
        self.code = 0
        self.user = self.uid = ""
        self.groups: tuple[str, ...] = ()
        self.warnings: list[str] = []
        self._body: bytes | None = None

    def param(self, name: str, default: str = "") -> str:
        values = self.params.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """A boolean as Go's ParseBool reads it; clients send ``True`` too."""
        return self.param(name) in _TRUE

    def integer(self, name: str) -> int | None:
        text = self.param(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise failures.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None

    def check_accept(self) -> None:
        """
        Raises:
            ApiFailure: 406, the client accepts nothing that there is.
        """
        if not negotiated(self.accept):
            raise failures.not_acceptable(ACCEPTED)

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            ApiFailure: 413 above the limit.
        """
        if self._body is not None:
            return self._body
        chunks, size = [], 0
        if int(self.headers.get("content-length") or 0) > BODY_BYTES_MAX:
            raise _too_large()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client went away")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > BODY_BYTES_MAX:
                raise _too_large()
            chunks.append(chunk)
            if not message.get("more_body"):
                break
        self._body = b"".join(chunks)
        return self._body

    async def object(self, kind: str = "") -> Object:
        """The body as an object, from JSON, YAML or Kubernetes protobuf; ``kind`` is what it should be."""
        return decode(await self.body(), self.content_type, kind)

    async def answer(
        self, code: int, body: bytes, content_type: str = JSON, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        if content_type == JSON and negotiated(self.accept) == YAML:
            body, content_type = dump_yaml(msgspec.json.decode(body)), YAML
        all_headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache, private")]
        all_headers += headers or []
        for warning in self.warnings:
            quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
            all_headers.append((b"warning", f'299 - "{quoted}"'.encode("latin-1", "replace")))
        if len(body) > 131072 and "gzip" in self.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1)
            all_headers.append((b"content-encoding", b"gzip"))
        all_headers.append((b"content-length", str(len(body)).encode()))
        await self.start(code, all_headers)
        await self._send({"type": "http.response.body", "body": body})

    async def answer_object(self, code: int, value: Object) -> None:
        await self.answer(code, encode(value))

    async def answer_nothing(self) -> None:
        """204: there is nothing to say."""
        await self.start(204, [(b"cache-control", b"no-cache, private")])
        await self._send({"type": "http.response.body", "body": b""})

    async def start(self, code: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started, self.code = True, code
        await self._send({"type": "http.response.start", "status": code, "headers": headers})

    async def send(self, message: Any) -> None:
        """A raw ASGI message."""
        if message["type"] == "http.response.start":
            self.started, self.code = True, message["status"]
        await self._send(message)

    async def chunk(self, data: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _too_large() -> failures.ApiFailure:
    return failures.ApiFailure(413, f"Request entity too large: limit is {BODY_BYTES_MAX}")


@lru_cache(256)
def negotiated(accept: str) -> str:
    """The media type of an answer to a client that accepts these, "" for none; protobuf is answered in JSON."""
    for wish in accept.split(",") if accept else [JSON]:
        media_type = wish.partition(";")[0].strip().lower()
        if media_type in (JSON, PROTOBUF, *_ANY_TYPE):
            return JSON
        if media_type == YAML:
            return YAML
    return ""


class _Dumper(yaml.SafeDumper):
    """Quotes as Go's encoder does: double ones for a text that would be read as something else."""


def _text_node(dumper: Any, text: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    is_text = dumper.resolve(yaml.ScalarNode, text, (True, False)) == tag
    node: yaml.ScalarNode = dumper.represent_scalar(tag, text, "|" if "\n" in text else None if is_text else '"')
    return node


_Dumper.add_representer(str, _text_node)


def dump_yaml(value: Any) -> bytes:
    """A value as YAML, keys in order."""
    return yaml.dump(value, Dumper=_Dumper, encoding="utf-8", allow_unicode=True, width=math.inf)


def decode(body: bytes, content_type: str, kind: str = "") -> Object:
    """The object in a request body; ``kind`` is named when it cannot be read.

    Raises:
        ApiFailure: 400 when it cannot be read, 415 for a format that is not known.
        QueryError: a protobuf body that cannot be read.
    """
    if content_type in ("", JSON) or (content_type == YAML and body.lstrip()[:1] == b"{"):
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise _unreadable(kind, body, str(exc)) from exc
    elif content_type in _YAML_TYPES:
        try:
            value = load_yaml(body, "the request body")
        except ConfigError as exc:
            raise failures.bad_request(f"error parsing YAML: {exc}") from exc
    elif content_type == PROTOBUF:
        return schema.decode_protobuf(body)
    else:
        raise failures.unsupported_media_type(ACCEPTED)
    if not isinstance(value, dict):
        raise _unreadable(kind, body, "the body must be an object")
    return value


_SHOWN_BYTES = 30


def _unreadable(kind: str, body: bytes, why: str) -> failures.ApiFailure:
    shown = body[:_SHOWN_BYTES]
    text = shown.decode("utf-8", "replace") if shown[:1] == b"{" else shown.hex()
    text += " ..." if len(body) > _SHOWN_BYTES else ""
    problem = "unexpected end of JSON input" if "truncated" in why else why
    return failures.bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
        f"json parse error: {problem} ({text or '<empty>'})"
    )


_SPACED_COLONS = tuple(f"{space}:".encode() for space in " \t\r\n")


def _count_keys(value: Any) -> int:
    count, items = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:
        if isinstance(item, (dict, list)):
            count += _count_keys(item)
    return count


def duplicate_fields(body: bytes, decoded: Object) -> list[str]:
    """Paths of keys that a JSON body gives twice, as ``duplicate field "spec.replicas"``.

    As many keys in the decoded object as there are colons, or colons after a quote: then none was given twice. Only
    other bodies (a text may hold such a colon) are read again with an eye on each key.
    """
    keys = _count_keys(decoded)
    if body.count(b":") == keys:
        return []
    if body.count(b'":') == keys and not any(one in body for one in _SPACED_COLONS):
        return []
    found: list[str] = []

    class Node(dict[str, Any]):
        repeated: list[str]

    def build(pairs: list[tuple[str, Any]]) -> Node:
        node = Node(pairs)
        seen: set[str] = set()
        node.repeated = []
        for key, _ in pairs:
            if key in seen:
                node.repeated.append(key)
            seen.add(key)
        return node

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Node):
            found.extend(f'duplicate field "{path}{key}"' for key in value.repeated)
            for key, item in value.items():
                walk(item, f"{path}{key}" + ("." if isinstance(item, dict) else ""))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, f"{path}[{index}]" + ("." if isinstance(item, dict) else ""))

    try:
        walk(json.loads(body, object_pairs_hook=build), "")
    except ValueError:
        return []
    return found
