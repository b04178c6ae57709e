"""OpenTelemetry traces of requests and of the queries behind them: optional, and nothing at all until ``start``.

kube-apiserver's own spans are continued: it passes ``traceparent`` on to an aggregated API server.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flyball import __version__
from flyball.errors import ConfigError

_tracer: Any = None


def start(endpoint: str) -> "Tracing":
    """Sends spans to an OTLP/HTTP collector from now on, such as http://otel-collector:4318.

    Raises:
        ConfigError: the endpoint is no URL, or OpenTelemetry is not installed.
    """
    global _tracer
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f'--otlp-endpoint "{endpoint}" is not a URL; write one like http://otel-collector:4318')
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise ConfigError("--otlp-endpoint needs OpenTelemetry; pip install 'flyball[otel]'") from exc
    provider = TracerProvider(
        resource=Resource.create({"service.name": "flyball-adapter", "service.version": __version__})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    _tracer = provider.get_tracer("flyball")
    return Tracing(provider)


class Tracing:
    """What ``start`` began."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def stop(self) -> None:
        """Sends what is left. Blocks for as long as that takes."""
        global _tracer
        _tracer = None
        self._provider.shutdown()


@contextmanager
def request_span(path: str, headers: Iterable[tuple[str, str]]) -> Iterator[Any]:
    """The span of a request, a child of the one that its headers name; None while nothing is traced."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    attributes = {"url.path": path, "http.request.method": "GET"}
    with _tracer.start_as_current_span(
        "metrics request", context=extract(dict(headers)), kind=SpanKind.SERVER, attributes=attributes
    ) as span:
        yield span


@contextmanager
def query_span(rule: str, expr: str) -> Iterator[None]:
    """The span of a query, within the one of the request that asks it."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span("query", attributes={"flyball.rule": rule, "db.query.text": expr}):
        yield
