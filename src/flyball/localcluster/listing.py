"""Lists: selected, paged, as objects, Tables or metadata."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flyball.clock import now_ms
from flyball.errors import QueryError
from flyball.localcluster import failures, selectors
from flyball.localcluster.answers import present
from flyball.localcluster.convert import convert
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.registry import Served
from flyball.localcluster.requests import Request, encode
from flyball.localcluster.storage import Expired, Record, Storage
from flyball.localcluster.tables import partial, table_of, wants

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """A request's label and field selectors; None where there is none."""

    labels: Callable[[Mapping[str, str]], bool] | None
    fields: Callable[[Mapping[str, Any]], bool] | None

    @property
    def is_everything(self) -> bool:
        return self.labels is None and self.fields is None

    def matches(self, record: Record) -> bool:
        return (self.labels is None or self.labels(record.object["metadata"].get("labels") or {})) and (
            self.fields is None or self.fields(record.object)
        )


def selection(request: Request, served: Served, fields: str) -> Selection:
    """The selection a request asks for.

    Raises:
        ApiFailure: 400, a selector is malformed or selects by an unknown field.
    """
    try:
        labels = selectors.parse_labels(request.param("labelSelector"))
    except QueryError as exc:
        raise failures.bad_request(str(exc)) from exc
    try:
        chosen = selectors.parse_fields(fields, served.store, not served.is_custom, served.selectable_fields)
        return Selection(labels, chosen)
    except QueryError as exc:
        raise failures.bad_request(str(exc)) from exc


async def answer_list(storage: Storage, request: Request, served: Served, namespace: str) -> None:
    check_options(request, watching=False)
    chosen = selection(request, served, request.param("fieldSelector"))
    limit = max(0, request.integer("limit") or 0)
    asked = resource_version(request)
    if asked > storage.revision:
        message = f"Timeout: Too large resource version: {asked}, current: {storage.revision}"
        details = {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
        raise ApiFailure(504, message, details=details)
    if request.param("resourceVersionMatch") == "Exact" and 0 < asked < storage.revision:
        raise Expired("The provided resource version is too old to be listed exactly")
    revision, start = storage.revision, None
    token = request.param("continue")
    if token:
        revision, start = _continue_position(token)
        if revision < storage.compacted:
            raise Expired("The provided continue parameter is too old to display a consistent list result.")
    found: list[Record] = []
    more: tuple[str, str] | None = None
    remaining = 0
    for key in storage.keys(served.store):
        if (namespace and key[0] != namespace) or (start is not None and key <= start):
            continue
        record = storage.get(served.store, *key)
        assert record is not None
        if not chosen.matches(record):
            continue
        if limit and len(found) >= limit:
            remaining += 1
            continue
        found.append(record)
        more = key
    form = wants(request.accept)
    metadata: Object = {"resourceVersion": str(revision)}
    if served.is_custom and not form:  # a list of custom resources always says where it goes on
        metadata = {"continue": "", **metadata}
    if remaining and more is not None:
        metadata["continue"] = _continue_token(revision, more)
        if chosen.is_everything:
            metadata["remainingItemCount"] = remaining
    if form == "Table":
        objects = [convert(record.object, served.group_version) for record in found]
        body = encode(table_of(served, objects, now_ms(), metadata, request.param("includeObject")))
    elif form:
        items = [partial(record.object) for record in found]
        kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        body = encode({**kind, "metadata": metadata, "items": items})
    else:
        head = {"kind": served.kind.list_kind, "apiVersion": served.group_version, "metadata": metadata}
        body = b"".join((encode(head)[:-1], b',"items":[', b",".join(present(served, r) for r in found), b"]}"))
    await request.answer(200, body)


def resource_version(request: Request, *, watching: bool = False) -> int:
    """The version a list or watch asks for, 0 for none.

    Raises:
        ApiFailure: 400 (of a watch 500), it is no number.
    """
    text = request.param("resourceVersion")
    if not text.isdigit() and text:
        why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        if watching:
            raise ApiFailure(500, why, reason="")
        raise failures.bad_request(f"invalid resource version: {why}")
    return int(text or 0)


def check_options(request: Request, *, watching: bool) -> None:
    """
    Raises:
        ApiFailure: 422, the options of a list or a watch do not go together.
    """
    match, initial = request.param("resourceVersionMatch"), request.param("sendInitialEvents")
    if not match and not initial:
        return
    name = "resourceVersionMatch"
    causes = []

    def forbid(when: object, why: str, field: str = name) -> None:
        if when:
            causes.append({"reason": "FieldValueForbidden", "message": f"Forbidden: {why}", "field": field})

    allowed = ("NotOlderThan",) if watching else ("Exact", "NotOlderThan", "")
    if watching:
        needed = f"sendInitialEvents requires setting {name} to NotOlderThan"
        forbid(initial and match != "NotOlderThan", needed)
        forbid(match and not initial, f"{name} is forbidden for watch unless sendInitialEvents is provided")
    else:
        forbid(
            match and not request.param("resourceVersion"),
            f"{name} is forbidden unless resourceVersion is provided",
        )
    forbid(match and request.param("continue"), f"{name} is forbidden when continue is provided")
    if match and match not in allowed:
        shown = ", ".join(f'"{one}"' for one in allowed)
        message = f'Unsupported value: "{match}": supported values: {shown}'
        causes.append({"reason": "FieldValueNotSupported", "message": message, "field": name})
    if not watching:
        exact = match == "Exact" and request.param("resourceVersion") == "0"
        forbid(exact, f'{name} "exact" is forbidden for resourceVersion "0"')
        forbid(initial, "sendInitialEvents is forbidden for list", "sendInitialEvents")
    if causes:
        raise failures.invalid("meta.k8s.io", "ListOptions", "", causes)


def _continue_token(revision: int, key: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(encode({"v": "meta.k8s.io/v1", "rv": revision, "start": list(key)})).decode()


def _continue_position(token: str) -> tuple[int, tuple[str, str]]:
    try:
        value = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()))
        namespace, name = value["start"]
        return int(value["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError, msgspec.MsgspecError) as exc:
        raise failures.bad_request(f"invalid continue token: continue key is not valid: {exc}") from exc
