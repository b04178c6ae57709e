"""A DNS probe: one question to the server that is the target."""

from collections.abc import Sequence
from typing import Any

from flyball import clock
from flyball.exporters.blackbox.findings import Findings, ProbeFailed, resolve
from flyball.exporters.blackbox.modules import DnsModule, RecordChecks

PHASES = "probe_dns_duration_seconds"
TIMEOUT_S = 120.0  # the exporter's own deadline comes first


async def probe_dns(target: str, module: DnsModule, findings: Findings) -> None:
    """Probes ``host`` or ``host:port``.

    Raises:
        ProbeFailed: the answer is not as the module wants it, or there is none.
    """
    import dns.asyncquery
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdataclass
    import dns.rdatatype

    for phase in ("resolve", "connect", "request"):
        findings.set(PHASES, 0, phase=phase)
    for name in ("answer_rrs", "authority_rrs", "additional_rrs", "query_succeeded"):
        findings.set(f"probe_dns_{name}", 0)
    host, port = _host_and_port(target)
    try:
        query = dns.message.make_query(
            dns.name.from_text(module.query_name),
            dns.rdatatype.from_text(module.query_type),
            dns.rdataclass.from_text(module.query_class),
        )
    except dns.exception.DNSException as exc:
        raise ProbeFailed(f"the module asks for what does not exist: {exc}") from exc
    if not module.recursion_desired:
        query.flags &= ~dns.flags.RD
    with findings.phase(PHASES, "resolve"):
        address = await resolve(findings, host, ip4_first=module.ip4_first, ip_fallback=module.ip_fallback)
    ask = dns.asyncquery.tcp if module.transport == "tcp" else dns.asyncquery.udp
    began_s = clock.monotonic_s()
    try:
        response = await ask(query, address, timeout=TIMEOUT_S, port=port)
    except (OSError, dns.exception.DNSException) as exc:
        findings.set(PHASES, clock.monotonic_s() - began_s, phase="request")
        raise ProbeFailed(f"no answer from {address}:{port}: {exc or type(exc).__name__}") from exc
    findings.set(PHASES, response.time, phase="request")
    findings.set(PHASES, max(0.0, clock.monotonic_s() - began_s - response.time), phase="connect")
    sections = {
        "answer": (_records(response.answer), module.answer),
        "authority": (_records(response.authority), module.authority),
        "additional": (_records(response.additional), module.additional),
    }
    for name, (records, _) in sections.items():
        findings.set(f"probe_dns_{name}_rrs", len(records))
    findings.set("probe_dns_query_succeeded", 1)
    if module.query_type == "SOA":
        findings.set("probe_dns_serial", 0)
        for rrset in response.answer:
            for record in rrset:
                if record.rdtype == dns.rdatatype.SOA:
                    findings.set("probe_dns_serial", record.serial)
    rcode = dns.rcode.to_text(response.rcode())
    findings.say(f"{module.query_name} {module.query_type}: {rcode}, {len(sections['answer'][0])} answers")
    if rcode not in module.valid_rcodes:
        raise ProbeFailed(f"the answer is {rcode}, not {', '.join(module.valid_rcodes)}")
    for name, (records, checks) in sections.items():
        if unlike := _unlike(records, checks):
            raise ProbeFailed(f"{name} records: {unlike}")


def _records(rrsets: Sequence[Any]) -> list[str]:
    """Each record as a line of a zone file with tabs, which is what expressions of modules are written for."""
    return ["\t".join(line.split(" ", 4)) for rrset in rrsets for line in rrset.to_text().splitlines()]


def _unlike(records: Sequence[str], checks: RecordChecks) -> str:
    """What the checks say against the records; empty for nothing. Without records only the last kind can fail.

    ``fail_if_all_match`` does what it says; upstream's fails when one does not match.
    """
    for record in records:
        for expression in checks.fail_if_matches:
            if expression.search(record):
                return f'"{record}" matches "{expression.pattern}"'
        for expression in checks.fail_if_not_matches:
            if not expression.search(record):
                return f'"{record}" does not match "{expression.pattern}"'
    for expression in checks.fail_if_all_match:
        if records and all(expression.search(record) for record in records):
            return f'all match "{expression.pattern}"'
    for expression in checks.fail_if_none_matches:
        if not any(expression.search(record) for record in records):
            return f'none matches "{expression.pattern}"'
    return ""


def _host_and_port(target: str) -> tuple[str, int]:
    host, colon, port = target.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return target.strip("[]"), 53
    if not port.isdecimal() or int(port) > 65535:
        raise ProbeFailed(f'"{target}" is not host or host:port')
    return host.strip("[]"), int(port)
