"""Signals that are pushed one by one: the Pushgateway's HTTP interface and statsd over UDP.

A push is a sample of the moment in which it arrives. Whoever waits for it is told its series' name at once.
"""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Counter, Gauge
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from flyball import clock
from flyball.errors import ConfigError, ScrapeError, StoreError
from flyball.exposition import Format, format_of, parse, parse_series
from flyball.exposition.statsd import parse_line
from flyball.model.labels import METRIC_NAME, Labels, labels_of
from flyball.web.receiving import Appender

log = logging.getLogger(__name__)

BODY_MAX = 1 << 20
SERIES_MAX = 10_000  # of statsd, which remembers their sums
_FALLBACK = "PrometheusText0.0.4"  # what curl --data-binary sends is of no metrics type
_FLUSH_S = 0.01  # statsd lines that arrive within are one sample of their series
_REPEAT_S = 5.0  # between two samples of a series that nobody pushes: a counter that stands still is a rate of zero
_FORGET_S = 600.0

_LINES = Counter("flyball_statsd_lines", "statsd lines, by what became of them.", ["result"])
_HELD = Gauge("flyball_statsd_series", "Series whose sums statsd remembers; limited to 10000.")

Sample = tuple[Labels, int, float]


class Announced:
    """An ``Appender`` that tells the ``(namespace, metric name)`` of what it took."""

    def __init__(self, appender: Appender, told: Callable[[str, str], None]) -> None:
        self._appender, self._told = appender, told

    @property
    def late_samples(self) -> int:
        return self._appender.late_samples

    def append_all(self, samples: Sequence[Sample]) -> int:
        taken = self._appender.append_all(samples)
        if taken:
            for namespace, name in {_names(labels) for labels, _, _ in samples}:
                self._told(namespace, name)
        return taken


def _names(labels: Labels) -> tuple[str, str]:
    found = dict(labels)
    return found.get("namespace", ""), found[METRIC_NAME]


def push_routes(appender: Appender) -> list[BaseRoute]:
    """``PUT`` and ``POST /metrics/job/JOB{/LABEL/VALUE}``, as the Pushgateway has them."""

    async def push(request: Request) -> Response:
        if not same_origin(request):
            return PlainTextResponse("pages of other origins may not push\n", 403)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_MAX:
                return PlainTextResponse(f"the body is larger than {BODY_MAX} bytes; push less at once\n", 413)
        try:
            group = grouping(request.path_params["group"])
            format_ = format_of(request.headers.get("content-type"), fallback=_FALLBACK)
            appender.append_all(_samples(body, format_, group, clock.now_ms()))
        except (ScrapeError, ConfigError) as exc:
            return PlainTextResponse(f"{exc}\n", 400)
        except StoreError as exc:
            return PlainTextResponse(f"{exc}\n", 503)
        return Response(status_code=200)

    return [Route("/metrics/job/{group:path}", push, methods=["PUT", "POST"])]


def same_origin(request: Request) -> bool:
    """Whether a request comes from no web page, or from one that we served."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def grouping(path: str) -> dict[str, str]:
    """The labels of ``JOB/LABEL/VALUE/...``; ``LABEL@base64`` for values that a path cannot hold.

    Raises:
        ConfigError: a label without a value, or one that is not base64.
    """
    parts = ["job", *path.split("/")]
    if len(parts) % 2:
        raise ConfigError(f'the path "/metrics/job/{path[:100]}" has a label without a value')
    labels = {}
    for name, value in zip(parts[::2], parts[1::2], strict=True):
        if name.endswith("@base64"):
            try:
                value = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError) as exc:
                raise ConfigError(f'label "{name}": "{value[:50]}" is not base64 of UTF-8 text') from exc
        labels[name.removesuffix("@base64")] = value
    return {name: value for name, value in labels.items() if value}


def _samples(body: bytes, format_: Format, group: dict[str, str], now_ms: int) -> list[Sample]:
    found = parse(body, format_)
    if found.times_ms is not None:
        raise ScrapeError("pushed metrics must not have timestamps: a push is a sample of now")
    return [
        (labels_of({**parse_series(text, type_), **group}), now_ms, value)
        for text, type_, value in zip(found.series, found.types, found.values.tolist(), strict=True)
    ]


class Statsd(asyncio.DatagramProtocol):
    """Sums counters and remembers gauges, and appends what changed."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._values: dict[Labels, tuple[float, float]] = {}  # (value, changed at)
        self._changed: set[Labels] = set()
        self._loop = asyncio.get_running_loop()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for line in data.decode(errors="replace").splitlines():
            if line.strip():
                self._take(line.strip())

    def _take(self, line: str) -> None:
        try:
            changes = parse_line(line)
        except ScrapeError as exc:
            _LINES.labels("refused").inc()
            log.debug("%s", exc)
            return
        now_s = clock.monotonic_s()
        for series, value, add in changes:
            known = self._values.get(series)
            if known is None and len(self._values) >= SERIES_MAX:
                _LINES.labels("over the limit").inc()
                return
            if known is None and add:
                # begins at zero, so that its first increment counts in a rate
                self._appender.append_all([(series, clock.now_ms() - 1, 0.0)])
            self._values[series] = ((known[0] if add and known else 0.0) + value, now_s)
            if not self._changed:
                self._loop.call_later(_FLUSH_S, self._flush)
            self._changed.add(series)
        _LINES.labels("taken").inc()

    def _flush(self) -> None:
        self._append(self._changed)
        self._changed = set()

    def _append(self, series: "set[Labels]") -> None:
        now_ms = clock.now_ms()
        try:
            self._appender.append_all([(labels, now_ms, self._values[labels][0]) for labels in series])
        except StoreError as exc:
            log.warning("statsd_not_stored error=%s", exc)

    async def run(self, host: str, port: int) -> None:
        """Listens until cancelled; a port that is taken is another statsd's, and ours stays off."""
        try:
            transport, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        except OSError as exc:
            log.warning("statsd_off listen=%s:%s/udp error=%s", host, port, exc.strerror)
            return
        try:
            while True:
                await asyncio.sleep(_REPEAT_S)
                oldest_s = clock.monotonic_s() - _FORGET_S
                self._values = {labels: entry for labels, entry in self._values.items() if entry[1] >= oldest_s}
                _HELD.set(len(self._values))
                self._append(set(self._values) - self._changed)
        finally:
            transport.close()
