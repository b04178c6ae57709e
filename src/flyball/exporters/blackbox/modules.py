"""The modules of a blackbox_exporter configuration: how a target is probed, and what makes the probe fail.

Facts: blackbox_exporter 0.28, CONFIGURATION.md. Fields that need what is not here (HTTP/3, CEL) are refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2

from flyball.model.clients import (
    Authorization,
    BasicAuth,
    TLSConfig,
    read_authorization,
    read_basic_auth,
    read_http_headers,
    read_tls,
)
from flyball.model.durations import parse_duration_ms
from flyball.model.reader import Reader, mapping_of, text_mapping_of
from flyball.model.yaml_loader import load_yaml

#: Without ``body_size_limit`` a body may be this large.
BODY_SIZE_LIMIT_DEFAULT_BYTES = 64 << 20

_QUIET = re2.Options()
_QUIET.log_errors = False


_NO_TLS = TLSConfig()


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A header's value against an expression that may match anywhere."""

    header: str
    regexp: Any
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class HttpModule:
    """One request, its redirects followed, and what its answer must be like."""

    ip4_first: bool = False
    ip_fallback: bool = True
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    valid_status_codes: tuple[int, ...] = ()
    valid_http_versions: tuple[str, ...] = ()
    follow_redirects: bool = True
    fail_if_ssl: bool = False
    fail_if_not_ssl: bool = False
    fail_if_body_matches: tuple[Any, ...] = ()
    fail_if_body_not_matches: tuple[Any, ...] = ()
    fail_if_header_matches: tuple[HeaderMatch, ...] = ()
    fail_if_header_not_matches: tuple[HeaderMatch, ...] = ()
    compression: str = ""
    body_size_limit_bytes: int = BODY_SIZE_LIMIT_DEFAULT_BYTES
    authorization: Authorization | None = None
    basic_auth: BasicAuth | None = None
    tls: TLSConfig = _NO_TLS


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a conversation: wait for a line, send a line with ``${1}`` of it, begin TLS."""

    expect: Any = None
    expect_bytes: bytes = b""
    labels: tuple[tuple[str, str], ...] = ()
    send: str = ""
    starttls: bool = False


@dataclass(frozen=True, slots=True)
class TcpModule:
    """A connection and a conversation over it."""

    ip4_first: bool = False
    ip_fallback: bool = True
    steps: tuple[Step, ...] = ()
    with_tls: bool = False
    tls: TLSConfig = _NO_TLS


@dataclass(frozen=True, slots=True)
class RecordChecks:
    """What records of one section of a DNS answer make the probe fail."""

    fail_if_matches: tuple[Any, ...] = ()
    fail_if_all_match: tuple[Any, ...] = ()
    fail_if_not_matches: tuple[Any, ...] = ()
    fail_if_none_matches: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsModule:
    """One question to the server that is the target."""

    query_name: str
    query_type: str = "ANY"
    query_class: str = "IN"
    ip4_first: bool = False
    ip_fallback: bool = True
    transport: str = "udp"
    recursion_desired: bool = True
    valid_rcodes: tuple[str, ...] = ("NOERROR",)
    answer: RecordChecks = RecordChecks()
    authority: RecordChecks = RecordChecks()
    additional: RecordChecks = RecordChecks()


@dataclass(frozen=True, slots=True)
class Module:
    """``timeout_ms`` 0 leaves it to the scrape's time-out."""

    probe: HttpModule | TcpModule | DnsModule
    timeout_ms: int = 0


#: Without a configuration file.
DEFAULT = {"http_2xx": Module(HttpModule())}


def parse_modules(text: str, file: str) -> dict[str, Module]:
    """The modules of a file.

    Raises:
        ConfigError: names file, module, field, value and remedy.
    """
    loaded = load_yaml(text, file)
    reader = Reader(mapping_of(loaded or {}, file), file)
    modules = mapping_of(reader.take("modules") or {}, f"{file}: modules")
    reader.finish()
    return {str(name): _module(value, f"{file}: modules: {name}") for name, value in modules.items()}


def _module(value: object, what: str) -> Module:
    reader = Reader(mapping_of(value, what), what)
    prober = reader.text("prober", "")
    timeout = reader.take("timeout")
    parse: Callable[[Reader], HttpModule | TcpModule | DnsModule] | None = _PROBERS.get(prober)
    if parse is None:
        raise reader.error("prober", f'"{prober}" is not served here; write one of {", ".join(_PROBERS)}')
    section = Reader(mapping_of(reader.take(prober) or {}, f"{what}: {prober}"), f"{what}: {prober}")
    found = parse(section)
    section.finish()
    for other in ("http", "tcp", "dns", "icmp", "grpc", "unix"):
        reader.take(other)  # one anchor may serve several modules: what is not the prober's says nothing
    reader.finish()
    return Module(found, parse_duration_ms(str(timeout)) if timeout else 0)


def _http(reader: Reader) -> HttpModule:
    for name in (
        "enable_http3",
        "fail_if_body_json_matches_cel",
        "fail_if_body_json_not_matches_cel",
        "proxy_url",
        "oauth2",
    ):
        if reader.take(name):
            raise reader.error(name, "is not supported; remove it")
    for name in ("skip_resolve_phase_with_proxy", "enable_http2", "no_proxy", "proxy_from_environment"):
        reader.take(name)
    codes = reader.take("valid_status_codes") or ()
    versions = reader.texts("valid_http_versions")
    body_file = reader.text("body_file", "")
    body = reader.text("body", "").encode()
    if body_file:
        if body:
            raise reader.error("body_file", "and body are both set; keep one")
        with open(body_file, "rb") as file:
            body = file.read()
    headers = text_mapping_of(reader.take("headers") or {}, f"{reader.what}: headers")
    headers |= dict(read_http_headers(reader))
    no_follow = reader.take("no_follow_redirects")
    follow = reader.flag("follow_redirects", True)
    compression = reader.text("compression", "")
    if compression not in ("", "identity", "gzip", "deflate", "br"):
        raise reader.error("compression", f'"{compression}" is not known; write gzip, deflate, br or identity')
    return HttpModule(
        **_protocol(reader),
        method=reader.text("method", "GET") or "GET",
        headers=headers,
        body=body,
        valid_status_codes=tuple(int(code) for code in codes),
        valid_http_versions=versions,
        follow_redirects=follow if no_follow is None else not no_follow,
        fail_if_ssl=reader.flag("fail_if_ssl", False),
        fail_if_not_ssl=reader.flag("fail_if_not_ssl", False),
        fail_if_body_matches=_expressions(reader, "fail_if_body_matches_regexp"),
        fail_if_body_not_matches=_expressions(reader, "fail_if_body_not_matches_regexp"),
        fail_if_header_matches=reader.items("fail_if_header_matches", _header_match),
        fail_if_header_not_matches=reader.items("fail_if_header_not_matches", _header_match),
        compression=compression,
        body_size_limit_bytes=reader.size("body_size_limit") or BODY_SIZE_LIMIT_DEFAULT_BYTES,
        authorization=read_authorization(reader),
        basic_auth=reader.nested("basic_auth", read_basic_auth),
        tls=reader.nested("tls_config", read_tls) or _NO_TLS,
    )


def _tcp(reader: Reader) -> TcpModule:
    _no_source(reader)
    return TcpModule(
        **_protocol(reader),
        steps=reader.items("query_response", _step),
        with_tls=reader.flag("tls", False),
        tls=reader.nested("tls_config", read_tls) or _NO_TLS,
    )


def _dns(reader: Reader) -> DnsModule:
    _no_source(reader)
    if reader.take("dns_over_tls"):
        raise reader.error("dns_over_tls", "is not supported; remove it")
    reader.take("tls_config")
    name, transport = reader.text("query_name", ""), reader.text("transport_protocol", "udp")
    if not name:
        raise reader.error("query_name", "is missing; write the name to ask for")
    if transport not in ("udp", "tcp"):
        raise reader.error("transport_protocol", f'"{transport}" is not one; write udp or tcp')
    return DnsModule(
        query_name=name,
        query_type=reader.text("query_type", "ANY").upper(),
        query_class=reader.text("query_class", "IN").upper(),
        **_protocol(reader),
        transport=transport,
        recursion_desired=reader.flag("recursion_desired", True),
        valid_rcodes=reader.texts("valid_rcodes") or ("NOERROR",),
        answer=reader.nested("validate_answer_rrs", _checks) or RecordChecks(),
        authority=reader.nested("validate_authority_rrs", _checks) or RecordChecks(),
        additional=reader.nested("validate_additional_rrs", _checks) or RecordChecks(),
    )


_PROBERS: Mapping[str, Callable[[Reader], HttpModule | TcpModule | DnsModule]] = {
    "http": _http,
    "tcp": _tcp,
    "dns": _dns,
}


def _protocol(reader: Reader) -> dict[str, bool]:
    preferred = reader.text("preferred_ip_protocol", "ip6") or "ip6"
    if preferred not in ("ip4", "ip6"):
        raise reader.error("preferred_ip_protocol", f'"{preferred}" is not one; write ip4 or ip6')
    return {"ip4_first": preferred == "ip4", "ip_fallback": reader.flag("ip_protocol_fallback", True)}


def _no_source(reader: Reader) -> None:
    if reader.take("source_ip_address"):
        raise reader.error("source_ip_address", "is not supported; remove it")


def _expressions(reader: Reader, name: str) -> tuple[Any, ...]:
    return tuple(_expression(reader, name, text) for text in reader.texts(name))


def _expression(reader: Reader, name: str, text: str) -> Any:
    try:
        return re2.compile(text, _QUIET)
    except re2.error as exc:
        raise reader.error(name, f'"{text}" does not compile; mend the expression') from exc


def _header_match(value: object, what: str) -> HeaderMatch:
    reader = Reader(mapping_of(value, what), what)
    header, regexp = reader.text("header", ""), reader.text("regexp", "")
    if not header or not regexp:
        raise reader.error("header", "and regexp are both needed")
    found = HeaderMatch(header, _expression(reader, "regexp", regexp), reader.flag("allow_missing", False))
    reader.finish()
    return found


def _step(value: object, what: str) -> Step:
    reader = Reader(mapping_of(value, what), what)
    expect = reader.text("expect", "")
    labels = reader.take("labels") or ()
    found = Step(
        expect=_expression(reader, "expect", expect) if expect else None,
        expect_bytes=reader.text("expect_bytes", "").encode(),
        labels=tuple((str(item["name"]), str(item["value"])) for item in labels),
        send=reader.text("send", ""),
        starttls=reader.flag("starttls", False),
    )
    reader.finish()
    return found


def _checks(reader: Reader) -> RecordChecks:
    return RecordChecks(
        _expressions(reader, "fail_if_matches_regexp"),
        _expressions(reader, "fail_if_all_match_regexp"),
        _expressions(reader, "fail_if_not_matches_regexp"),
        _expressions(reader, "fail_if_none_matches_regexp"),
    )
