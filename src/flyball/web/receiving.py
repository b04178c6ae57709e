"""Samples that others push: remote write 1.0 and OTLP. What is answered with success is in the store."""

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flyball import clock
from flyball.errors import ScrapeError, StoreError
from flyball.exposition.remotewrite import KnownSeries, parse_write_request
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels, labels_of
from flyball.web.answers import error

#: Of one request, compressed and decompressed.
BODY_MAX = 32 << 20
DECOMPRESSED_MAX = 128 << 20
#: Labels of so many series are remembered by their bytes.
KNOWN_MAX = 500_000
#: A sample may be this far ahead.
AHEAD_MAX_MS = 600_000
_PROTOBUF, _JSON = "application/x-protobuf", "application/json"

_RECEIVED = Counter("flyball_received_samples", "Samples that were pushed, by protocol.", ["protocol"])
_REFUSED = Counter("flyball_received_samples_refused", "Pushed samples that were not taken.", ["protocol", "reason"])


class Appender(Protocol):
    """The way into the store; used from the event loop only."""

    def append_all(self, samples: Sequence[tuple[Labels, int, float]]) -> int: ...
    @property
    def late_samples(self) -> int: ...


class Store(Protocol):
    """Takes what comes with samples; used from the event loop only."""

    def append_histograms(self, samples: Sequence[tuple[Labels, int, Histogram]]) -> int: ...
    def append_exemplars(self, found: Sequence[tuple[Labels, Labels, float, int]]) -> None: ...
    def describe(self, found: Mapping[str, tuple[str, str, str]]) -> None: ...


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Receiver:
    """The handlers of ``/api/v1/write`` and ``/api/v1/otlp/v1/metrics``; both arguments end in one head."""

    def __init__(self, appender: Appender, store: Store) -> None:
        self._appender, self._store = appender, store
        self._known: KnownSeries = {}

    def routes(self, *, remote_write: bool, otlp: bool) -> list[BaseRoute]:
        """The routes of what is switched on; the others say how."""
        writing = self.write if remote_write else _off("remote write receiver", "--web.enable-remote-write-receiver")
        exporting = self.otlp if otlp else _off("OTLP receiver", "--web.enable-otlp-receiver")
        return [
            Route("/api/v1/write", writing, methods=["POST"]),
            Route("/api/v1/otlp/v1/metrics", exporting, methods=["POST"]),
        ]

    async def write(self, request: Request) -> Response:
        """Remote write 1.0: 204, or 400 for what would be refused again and 503 for what may be sent again."""
        try:
            kind = request.headers.get("content-type", "application/x-protobuf")
            if "io.prometheus.write.v2" in kind:
                raise _RefusedError(415, "remote write 2.0 is not taken; send prometheus.WriteRequest")
            packed = await _body(request)
            if request.headers.get("content-encoding", "snappy") != "snappy":
                raise _RefusedError(415, "the Content-Encoding must be snappy")
            found = await asyncio.to_thread(lambda: parse_write_request(unsnappy(packed), self._known))
            if len(self._known) > KNOWN_MAX:
                self._known = {}
            taken, dropped = self._append("remote write", found.samples, found.histograms, found.ended)
            self._store.append_exemplars(
                [
                    (labels, labels_of(exemplar.labels), exemplar.value, exemplar.time_ms or clock.now_ms())
                    for labels, exemplar in found.exemplars
                ]
            )
            self._store.describe(found.metadata)
        except _RefusedError as exc:
            return error(exc.status, "bad_data", str(exc))
        except ScrapeError as exc:
            return error(400, "bad_data", str(exc))
        except StoreError as exc:
            return error(503, "unavailable", str(exc))
        headers = {"X-Prometheus-Remote-Write-Samples-Written": str(taken)}
        if dropped:
            answer = error(400, "bad_data", f"not taken: {'; '.join(dropped)}; the rest is stored")
            answer.headers.update(headers)
            return answer
        return Response(status_code=204, headers=headers)

    async def otlp(self, request: Request) -> Response:
        """OTLP over HTTP, in protobuf or JSON."""
        from flyball.exposition.otlp import parse_otlp

        try:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in (_PROTOBUF, _JSON):
                raise _RefusedError(415, f"the Content-Type must be {_PROTOBUF} or {_JSON}")
            body = await _body(request)
            encoding = request.headers.get("content-encoding", "")
            if encoding == "gzip":
                body = _gunzip(body)
            elif encoding:
                raise _RefusedError(415, f'the Content-Encoding "{encoding}" is not supported; send gzip')
            samples, refused = await asyncio.to_thread(parse_otlp, body, json=kind == _JSON)
            _, dropped = self._append("OTLP", samples)
        except _RefusedError as exc:
            return error(exc.status, "bad_data", str(exc))
        except ScrapeError as exc:
            return error(400, "bad_data", str(exc))
        except StoreError as exc:
            return error(503, "unavailable", str(exc))
        if refused or dropped:
            return error(400, "bad_data", f"not taken: {'; '.join([*refused[:20], *dropped])}; the rest is stored")
        return Response(b"{}" if kind == _JSON else b"", media_type=kind)

    def _append(
        self,
        protocol: str,
        samples: Sequence[tuple[Labels, int, float]],
        histograms: Sequence[tuple[Labels, int, Histogram]] = (),
        ended: Sequence[tuple[Labels, int, float]] = (),
    ) -> tuple[int, list[str]]:
        """(samples taken, why others were not). A sample that is there already was sent again: that is no error."""
        limit = clock.now_ms() + AHEAD_MAX_MS
        floats = [sample for sample in samples if sample[1] <= limit]
        natives = [sample for sample in histograms if sample[1] <= limit]
        ahead = len(samples) - len(floats) + len(histograms) - len(natives)
        before = self._appender.late_samples
        taken = self._appender.append_all(floats)
        if natives:
            taken += self._store.append_histograms(natives)
        if ended:
            taken += self._appender.append_all([sample for sample in ended if sample[1] <= limit])
        late = self._appender.late_samples - before
        _RECEIVED.labels(protocol).inc(taken)
        said = []
        for count, reason in ((ahead, "too far ahead"), (late, "out of order")):
            if count:
                _REFUSED.labels(protocol, reason).inc(count)
                said.append(f"{count} samples {reason}")
        return taken, said


def _off(what: str, flag: str) -> Callable[[Request], object]:
    async def endpoint(_: Request) -> Response:
        return error(404, "not_found", f"the {what} is off; start with {flag}")

    return endpoint


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_MAX:
            raise _RefusedError(413, f"the body is larger than the limit of {BODY_MAX} bytes; send smaller batches")
        chunks.append(chunk)
    return b"".join(chunks)


def unsnappy(packed: bytes) -> bytes:
    """Snappy's block format, which begins with the length that it claims.

    Raises:
        ScrapeError: it is not snappy, or claims too much.
    """
    import cramjam  # here: 10 ms that few processes need

    claimed = shift = 0
    for byte in packed[:6]:
        claimed |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    if claimed > DECOMPRESSED_MAX or claimed > 64 * len(packed) + 64:
        raise ScrapeError(f"the snappy body claims {claimed} bytes, more than it can hold or is allowed")
    try:
        return bytes(cramjam.snappy.decompress_raw(packed))
    except (cramjam.DecompressionError, ValueError) as exc:
        raise ScrapeError(f"the body is not snappy: {exc}") from exc


def _gunzip(packed: bytes) -> bytes:
    inflate = zlib.decompressobj(31)
    try:
        body = inflate.decompress(packed, DECOMPRESSED_MAX + 1)
    except zlib.error as exc:
        raise ScrapeError(f"the body is not gzip: {exc}") from exc
    if len(body) > DECOMPRESSED_MAX:
        raise ScrapeError(f"the body is larger than the limit of {DECOMPRESSED_MAX} bytes; send smaller batches")
    if not inflate.eof:
        raise ScrapeError("the gzip body was cut short")
    return body
