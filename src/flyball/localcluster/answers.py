"""The ways a stored object is answered: as it is, converted, as a Table or as metadata; and what handlers share."""

import hashlib
import json
from typing import Any

from flyball.clock import now_ms
from flyball.localcluster import failures
from flyball.localcluster.convert import convert
from flyball.localcluster.managedfields import UPDATE, Writer, manager_name
from flyball.localcluster.registry import Served
from flyball.localcluster.requests import Request, encode
from flyball.localcluster.storage import Record, Storage
from flyball.localcluster.tables import partial, table_of, wants

Object = dict[str, Any]


def present(served: Served, record: Record) -> bytes:
    """The record's bytes in the served version; the stored bytes themselves where that is the stored version."""
    if served.kind == served.storage:
        return record.encoded
    return encode(convert(record.object, served.group_version))


async def answer_record(request: Request, served: Served, record: Record) -> None:
    if wants(request.accept):
        await answer_object(request, served, 200, record.object)
    else:
        await request.answer(200, present(served, record))


async def answer_object(request: Request, served: Served, code: int, stored: Object) -> None:
    """The object, or its Table or metadata when the client prefers that; ``stored`` is in the storage version."""
    form = wants(request.accept)
    obj = convert(stored, served.group_version)
    if form == "Table":
        rv = stored["metadata"].get("resourceVersion", "")
        body = table_of(served, [obj], now_ms(), {"resourceVersion": rv}, request.param("includeObject"))
        await request.answer_object(code, body)
    elif form:
        await request.answer_object(code, partial(obj))
    else:
        await request.answer_object(code, obj)


async def answer_written(storage: Storage, request: Request, served: Served, code: int, stored: Object) -> None:
    """An object as it was just written: the stored bytes, where those are what the client asked for."""
    metadata = stored["metadata"]
    record = storage.get(served.store, metadata.get("namespace", ""), metadata["name"])
    if record is not None and record.is_of(stored) and not wants(request.accept):
        await request.answer(code, present(served, record))
    else:  # a dry run, or a Table
        await answer_object(request, served, code, stored)


async def until_gone(receive: Any, then: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            then()
            return


def only_get(request: Request) -> None:
    if request.method != "GET":
        raise failures.method_not_allowed()


def is_dry_run(request: Request) -> bool:
    values = request.params.get("dryRun") or []
    if any(value not in ("All", "") for value in values):
        cause = {
            "reason": "FieldValueNotSupported",
            "message": f'Unsupported value: {json.dumps(values)}: supported values: "All"',
            "field": "dryRun",
        }
        raise failures.invalid("meta.k8s.io", "CreateOptions", "", [cause])
    return "All" in values


def writer_of(request: Request, served: Served, subresource: str = "") -> Writer:
    """Who a request other than an apply writes for."""
    name = manager_name(request.param("fieldManager"), request.headers.get("user-agent", ""))
    return Writer(name, UPDATE, served.group_version, subresource)


def hash_text(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32].upper()
