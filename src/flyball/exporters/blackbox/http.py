"""An HTTP probe: each phase is timed, redirects are followed one by one."""

import asyncio
import contextlib
import ssl
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from flyball import __version__
from flyball.errors import UpstreamError
from flyball.exporters.blackbox.findings import Findings, ProbeFailed, resolve, tell_tls
from flyball.exporters.blackbox.modules import HeaderMatch, HttpModule, TcpModule
from flyball.http.calling import authorization
from flyball.http.client import tls_context
from flyball.model.clients import HttpClientConfig

REDIRECTS_MAX = 10
PIECE_BYTES = 64 << 10
PHASES = "probe_http_duration_seconds"
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(slots=True)
class Answer:
    """One response; ``body`` is as it came, unless it was chunked."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    over_tls: bool

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def probe_http(target: str, module: HttpModule, findings: Findings, hostname: str = "") -> None:
    """Probes a URL, or ``host[:port][/path]`` over plain HTTP.

    Args:
        hostname: sent as Host in place of the URL's.

    Raises:
        ProbeFailed: the target is not as the module wants it.
    """
    for name in ("content_length", "uncompressed_body_length", "redirects", "ssl", "status_code", "version"):
        findings.set(f"probe_http_{name}", 0)
    findings.set("probe_failed_due_to_regex", 0)
    for phase in ("resolve", "connect", "tls", "processing", "transfer"):
        findings.set(PHASES, 0, phase=phase)
    url = target if target.startswith(("http://", "https://")) else f"http://{target}"
    method, body, redirects = module.method, module.body, 0
    while True:
        answer = await _ask(url, method, body, module, findings, hostname if redirects == 0 else "")
        findings.say(f"{method} {url}: {answer.status}")
        location = answer.header("location")
        if answer.status not in _REDIRECTS or location is None or not module.follow_redirects:
            break
        redirects += 1
        findings.set("probe_http_redirects", redirects)
        if redirects > REDIRECTS_MAX:
            raise ProbeFailed(f"more than {REDIRECTS_MAX} redirects")
        url = urljoin(url, location)
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method, body = "GET", b""
    _judge(answer, module, findings)


async def _ask(url: str, method: str, body: bytes, module: HttpModule, findings: Findings, hostname: str) -> Answer:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ProbeFailed(f'"{url}": {exc}') from exc
    if parts.scheme not in ("http", "https") or not host:
        raise ProbeFailed(f'"{url}" is not a URL that can be probed')
    headers = _request_headers(parts, module, hostname)
    with findings.phase(PHASES, "resolve"):
        address = await resolve(findings, host, ip4_first=module.ip4_first, ip_fallback=module.ip_fallback)
    over_tls = parts.scheme == "https"
    port = port or (443 if over_tls else 80)
    try:
        with findings.phase(PHASES, "connect"):
            reader, writer = await asyncio.open_connection(address, port)
    except OSError as exc:
        raise ProbeFailed(f"cannot connect to {address}:{port}: {exc}") from exc
    with contextlib.closing(writer):
        if over_tls:
            name = module.tls.server_name or headers["Host"].rpartition(":")[0] or headers["Host"]
            try:
                with findings.phase(PHASES, "tls"):
                    await writer.start_tls(tls_of(module), server_hostname=name)
            except (OSError, ssl.SSLError) as exc:
                raise ProbeFailed(f"no TLS with {host}: {exc}") from exc
            tell_tls(findings, writer.get_extra_info("ssl_object"), with_cipher=True)
        target = parts.path or "/"
        answer = await _exchange(
            reader,
            writer,
            method,
            f"{target}?{parts.query}" if parts.query else target,
            headers,
            body,
            module,
            findings,
        )
        answer.over_tls = over_tls
        return answer


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
    module: HttpModule,
    findings: Findings,
) -> Answer:
    connection = h11.Connection(h11.CLIENT)

    async def next_event() -> h11.Event | type[h11.PAUSED]:
        while True:
            event = connection.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            connection.receive_data(await reader.read(PIECE_BYTES))

    try:
        with findings.phase(PHASES, "processing"):
            request = h11.Request(method=method, target=target, headers=list(headers.items()))
            writer.write(connection.send(request) or b"")
            if body:
                writer.write(connection.send(h11.Data(data=body)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            while not isinstance(response := await next_event(), h11.Response):
                if isinstance(response, h11.ConnectionClosed):
                    raise ProbeFailed("the server closed the connection without an answer")
        received = []
        size = 0
        with findings.phase(PHASES, "transfer"):
            while isinstance(event := await next_event(), h11.Data):
                received.append(bytes(event.data))
                size += len(event.data)
                if size > module.body_size_limit_bytes:
                    raise ProbeFailed(f"the body is larger than {module.body_size_limit_bytes} bytes")
    except (h11.ProtocolError, OSError) as exc:
        raise ProbeFailed(f"no HTTP answer: {exc}") from exc
    version = f"HTTP/{response.http_version.decode()}"
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]
    return Answer(response.status_code, version, pairs, b"".join(received), over_tls=False)


def _judge(answer: Answer, module: HttpModule, findings: Findings) -> None:
    """Sets the gauges of the last answer and compares it with what the module wants."""
    findings.set("probe_http_status_code", answer.status)
    findings.set("probe_http_version", float(answer.version.removeprefix("HTTP/")))
    findings.set("probe_http_ssl", answer.over_tls)
    declared = answer.header("content-length")
    findings.set("probe_http_content_length", int(declared) if declared and declared.isdigit() else -1)
    with contextlib.suppress(TypeError, ValueError):
        modified = parsedate_to_datetime(answer.header("last-modified") or "")
        findings.set("probe_http_last_modified_timestamp_seconds", modified.timestamp())
    body = _decompressed(answer.body, module)
    findings.set("probe_http_uncompressed_body_length", len(body))
    good = answer.status in module.valid_status_codes if module.valid_status_codes else 200 <= answer.status < 300
    if not good:
        wanted = ", ".join(map(str, module.valid_status_codes)) or "2xx"
        raise ProbeFailed(f"the status is {answer.status}, not {wanted}")
    unlike = _unlike(answer, body, module)
    if unlike:
        findings.set("probe_failed_due_to_regex", 1)
        raise ProbeFailed(unlike)
    if module.valid_http_versions and answer.version not in module.valid_http_versions:
        raise ProbeFailed(f"the version is {answer.version}, not {', '.join(module.valid_http_versions)}")
    if module.fail_if_ssl and answer.over_tls:
        raise ProbeFailed("the final request was over TLS")
    if module.fail_if_not_ssl and not answer.over_tls:
        raise ProbeFailed("the final request was not over TLS")


def _unlike(answer: Answer, body: bytes, module: HttpModule) -> str:
    """What an expression of the module says against the answer; empty for nothing."""

    def values(match: HeaderMatch) -> list[str]:
        return [value for name, value in answer.headers if name == match.header.lower()]

    for match in module.fail_if_header_matches:
        found = values(match)
        if not found and not match.allow_missing:
            return f"there is no header {match.header}"
        if any(match.regexp.search(value) for value in found):
            return f'the header {match.header} matches "{match.regexp.pattern}"'
    for match in module.fail_if_header_not_matches:
        found = values(match)
        if not found and not match.allow_missing:
            return f"there is no header {match.header}"
        if found and not any(match.regexp.search(value) for value in found):
            return f'the header {match.header} does not match "{match.regexp.pattern}"'
    for expression in module.fail_if_body_matches:
        if expression.search(body):
            return f'the body matches "{expression.pattern}"'
    for expression in module.fail_if_body_not_matches:
        if not expression.search(body):
            return f'the body does not match "{expression.pattern}"'
    return ""


def _decompressed(body: bytes, module: HttpModule) -> bytes:
    """The body; a compression that the module names is expected.

    Raises:
        ProbeFailed: the body is not so compressed, or too large when it is unpacked.
    """
    limit = module.body_size_limit_bytes
    if module.compression in ("", "identity") or not body:
        return body
    try:
        if module.compression == "br":
            import cramjam

            unpacked = bytes(cramjam.brotli.decompress(body))
        else:
            unpacker = zlib.decompressobj(31 if module.compression == "gzip" else -15)
            unpacked = unpacker.decompress(body, limit + 1)
    except Exception as exc:  # each library has an error of its own
        raise ProbeFailed(f"the body is not compressed by {module.compression}: {exc}") from exc
    if len(unpacked) > limit:
        raise ProbeFailed(f"the body is larger than {limit} bytes")
    return unpacked


def _request_headers(parts: SplitResult, module: HttpModule, hostname: str) -> dict[str, str]:
    given = {name.lower(): value for name, value in module.headers.items()}
    default = parts.netloc.rpartition("@")[2]
    headers = {
        "Host": hostname or given.pop("host", "") or default,
        "User-Agent": f"flyball/{__version__}",
        "Connection": "close",
    }
    if module.compression and "accept-encoding" not in given:
        headers["Accept-Encoding"] = module.compression
    if module.body:
        headers["Content-Length"] = str(len(module.body))
    try:
        headers |= authorization(HttpClientConfig(module.authorization, module.basic_auth))
    except UpstreamError as exc:
        raise ProbeFailed(str(exc)) from exc
    for name, value in given.items():
        headers[name.title()] = value
    return headers


def tls_of(module: HttpModule | TcpModule) -> ssl.SSLContext:
    """A module's ``tls_config``.

    Raises:
        ProbeFailed: a file cannot be read.
    """
    try:
        return tls_context(module.tls)
    except (OSError, ssl.SSLError) as exc:
        raise ProbeFailed(f"tls_config: {exc}") from exc
