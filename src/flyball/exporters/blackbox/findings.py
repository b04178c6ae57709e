"""What one probe found out: gauges under blackbox_exporter's names, and the story of it."""

import asyncio
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flyball import clock
from flyball.errors import FlyballError
from flyball.exporters.text import labels_text, number_text

_HELP = {
    "probe_success": "Displays whether or not the probe was a success",
    "probe_duration_seconds": "Returns how long the probe took to complete in seconds",
    "probe_dns_lookup_time_seconds": "Returns the time taken for probe dns lookup in seconds",
    "probe_ip_protocol": "Specifies whether probe ip protocol is IP4 or IP6",
    "probe_ip_addr_hash": "Specifies the hash of IP address. It's useful to detect if the IP address changes.",
    "probe_failed_due_to_regex": "Indicates if probe failed due to regex",
    "probe_failed_due_to_bytes": "Indicates if probe failed due to bytes",
    "probe_expect_info": "Explicit content matched",
    "probe_http_duration_seconds": "Duration of http request by phase, summed over all redirects",
    "probe_http_content_length": "Length of http content response",
    "probe_http_uncompressed_body_length": "Length of uncompressed response body",
    "probe_http_redirects": "The number of redirects",
    "probe_http_ssl": "Indicates if SSL was used for the final redirect",
    "probe_http_status_code": "Response HTTP status code",
    "probe_http_version": "Returns the version of HTTP of the probe response",
    "probe_http_last_modified_timestamp_seconds": "Returns the Last-Modified HTTP response header in unixtime",
    "probe_ssl_earliest_cert_expiry": "Returns last SSL chain expiry in unixtime",
    "probe_ssl_last_chain_expiry_timestamp_seconds": "Returns last SSL chain expiry in timestamp",
    "probe_ssl_last_chain_info": "Contains SSL leaf certificate information",
    "probe_tls_version_info": "Returns the TLS version used or NaN when unknown",
    "probe_tls_cipher_info": "Returns the TLS cipher negotiated during handshake",
    "probe_dns_duration_seconds": "Duration of DNS request by phase",
    "probe_dns_answer_rrs": "Returns number of entries in the answer resource record list",
    "probe_dns_authority_rrs": "Returns number of entries in the authority resource record list",
    "probe_dns_additional_rrs": "Returns number of entries in the additional resource record list",
    "probe_dns_query_succeeded": "Displays whether or not the query was executed successfully",
    "probe_dns_serial": "Returns the serial number of the zone",
}
_TLS_VERSIONS = {"TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1", "TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3"}


class ProbeFailed(FlyballError):  # noqa: N818 - a finding, not a fault of ours
    """The target is not as it must be; the text says how."""


class Findings:
    """Gauges by name and labels, and lines of what happened, in order."""

    def __init__(self) -> None:
        self._gauges: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        self.lines: list[str] = []

    def set(self, name: str, value: float, **labels: str) -> None:
        self._gauges.setdefault(name, {})[tuple(labels.items())] = float(value)

    def add(self, name: str, value: float, **labels: str) -> None:
        held = self._gauges.setdefault(name, {})
        held[tuple(labels.items())] = held.get(tuple(labels.items()), 0.0) + value

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def phase(self, name: str, phase: str) -> Iterator[None]:
        """Adds the time that the block takes, also when it fails."""
        began_s = clock.monotonic_s()
        try:
            yield
        finally:
            self.add(name, clock.monotonic_s() - began_s, phase=phase)

    def exposition(self) -> str:
        """The text format, families in order of name."""
        lines = []
        for name, series in sorted(self._gauges.items()):
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels_text(labels)} {number_text(value)}" for labels, value in series.items()]
        return "\n".join(lines) + "\n"


async def resolve(findings: Findings, host: str, *, ip4_first: bool, ip_fallback: bool) -> str:
    """The address to probe, of the preferred family where there is one.

    Raises:
        ProbeFailed: the name has no address, or none of the one family that may be used.
    """
    began_s = clock.monotonic_s()
    findings.set("probe_ip_protocol", 0)
    findings.set("probe_ip_addr_hash", 0)
    wanted = socket.AF_INET if ip4_first else socket.AF_INET6
    try:
        family = socket.AF_UNSPEC if ip_fallback else wanted
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ProbeFailed(f'"{host}" has no {"IPv4 " if ip4_first else ""}address: {exc}') from exc
    finally:
        findings.set("probe_dns_lookup_time_seconds", clock.monotonic_s() - began_s)
    best = next((one for one in found if one[0] == wanted), found[0])
    address = ipaddress.ip_address(best[4][0])
    findings.set("probe_ip_protocol", address.version)
    findings.set("probe_ip_addr_hash", _fnv1a(address.packed))
    findings.say(f"{host} is {address}")
    return str(address)


def tell_tls(findings: Findings, connection: ssl.SSLObject, *, with_cipher: bool) -> None:
    """Gauges of a TLS connection: its certificates' ends, the leaf, version and cipher.

    The chain that was verified is not to be had before Python 3.13; the one that was sent stands for it.
    """
    from cryptography import x509

    leaf_der = connection.getpeercert(binary_form=True)
    if leaf_der is None:
        return
    chain = [x509.load_der_x509_certificate(der) for der in _chain(connection, leaf_der)]
    leaf = chain[0]
    earliest_s = min(one.not_valid_after_utc.timestamp() for one in chain)
    findings.set("probe_ssl_earliest_cert_expiry", earliest_s)
    verified = connection.context.verify_mode != ssl.CERT_NONE
    # Go's zero time, when nothing was verified
    findings.set("probe_ssl_last_chain_expiry_timestamp_seconds", earliest_s if verified else -62135596800)
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        alternatives = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        alternatives = []
    serial = leaf.serial_number
    findings.set(
        "probe_ssl_last_chain_info",
        1,
        fingerprint_sha256=hashlib.sha256(leaf_der).hexdigest(),
        subject=leaf.subject.rfc4514_string(),
        issuer=leaf.issuer.rfc4514_string(),
        subjectalternative=",".join(alternatives),
        serialnumber=serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex(),
    )
    findings.set("probe_tls_version_info", 1, version=_TLS_VERSIONS.get(connection.version() or "", "unknown"))
    cipher = connection.cipher()
    if with_cipher and cipher is not None:
        findings.set("probe_tls_cipher_info", 1, cipher=cipher[0])


def _chain(connection: Any, leaf_der: bytes) -> list[bytes]:
    get = getattr(connection, "get_unverified_chain", None)  # Python 3.13
    return list(get()) if get is not None else [leaf_der]


def _fnv1a(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value
