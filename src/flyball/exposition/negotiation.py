"""Which format to ask a target for, and which one it answered with."""

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from flyball.errors import ConfigError, ScrapeError


class Format(StrEnum):
    """The formats that are read here."""

    TEXT = "text"
    OPENMETRICS = "openmetrics"
    PROTOBUF = "protobuf"


_PROTOBUF_TYPE = "application/vnd.google.protobuf"
_PROTOCOLS = {
    "PrometheusProto": (
        f"{_PROTOBUF_TYPE};proto=io.prometheus.client.MetricFamily;encoding=delimited",
        Format.PROTOBUF,
    ),
    "OpenMetricsText1.0.0": ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8", Format.OPENMETRICS),
    "OpenMetricsText0.0.1": ("application/openmetrics-text;version=0.0.1", Format.OPENMETRICS),
    "PrometheusText1.0.0": ("text/plain;version=1.0.0;escaping=allow-utf-8", Format.TEXT),
    "PrometheusText0.0.4": ("text/plain;version=0.0.4", Format.TEXT),
}

#: For jobs that scrape native histograms, which only protobuf carries.
NATIVE_PROTOCOLS = tuple(_PROTOCOLS)
#: Prometheus' own order of preference for the others.
DEFAULT_PROTOCOLS = tuple(name for name, (_, format_) in _PROTOCOLS.items() if format_ is not Format.PROTOBUF)
TEXT_PROTOCOLS = tuple(name for name, (_, format_) in _PROTOCOLS.items() if format_ is Format.TEXT)


@lru_cache(maxsize=64)
def accept_header(protocols: Sequence[str] = DEFAULT_PROTOCOLS) -> str:
    """The Accept header for ``scrape_protocols``; protocols that are not known are left out.

    Raises:
        ConfigError: none of the protocols is read here.
    """
    known = [_PROTOCOLS[name][0] for name in protocols if name in _PROTOCOLS]
    if not known:
        raise ConfigError(
            f'scrape_protocols: none of "{", ".join(protocols)}" is supported; add one of {", ".join(_PROTOCOLS)}'
        )
    weight = len(known) + 2
    parts = [f"{name};q=0.{weight - index}" for index, name in enumerate(known)]
    return ",".join([*parts, f"*/*;q=0.{weight - len(known)}"])


@lru_cache(maxsize=1024)
def format_of(content_type: str | None, fallback: str = "") -> Format:
    """The format of a response; ``fallback`` is the job's ``fallback_scrape_protocol``.

    Raises:
        ScrapeError: the Content-Type is missing or unknown and there is no fallback.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "application/openmetrics-text":
        return Format.OPENMETRICS
    if media_type == _PROTOBUF_TYPE:
        return Format.PROTOBUF
    if media_type == "text/plain":
        return Format.TEXT
    if fallback in _PROTOCOLS:
        return _PROTOCOLS[fallback][1]
    said = f'the Content-Type "{content_type}" is not a metrics format' if content_type else "there is no Content-Type"
    raise ScrapeError(f"{said}; mend the target, or set fallback_scrape_protocol: PrometheusText0.0.4 in the job")
