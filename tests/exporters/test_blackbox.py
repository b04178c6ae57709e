"""Probes of real listeners, and what makes them fail."""

import asyncio
import gzip
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from flyball.errors import ConfigError
from flyball.exporters.blackbox.exporter import Blackbox, probe
from flyball.exporters.blackbox.findings import Findings
from flyball.exporters.blackbox.modules import Module, parse_modules
from flyball.exporters.blackbox.tcp import expand

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def module(text: str) -> Module:
    return parse_modules(f"modules: {{m: {text}}}", "blackbox.yml")["m"]


@asynccontextmanager
async def listening(answer: Answering, tls: ssl.SSLContext | None = None) -> Any:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(*responses: bytes) -> Answering:
    """Answers with these in turn, the last one again and again."""
    left = list(responses)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return answer


def response(body: bytes = b"hello", status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def probed(target: str, how: Module, answer: Answering, timeout_s: float = 10) -> tuple[dict[str, float], str]:
    """Gauges of a probe of ``target``, in which PORT stands for the listener's; and its story."""

    async def main() -> Findings:
        findings = Findings()
        async with listening(answer) as port:
            await probe(target.replace("PORT", str(port)), how, findings, timeout_s)
        return findings

    findings = asyncio.run(main())
    gauges = {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(findings.exposition())
        for sample in family.samples
    }
    return gauges, "\n".join(findings.lines)


def test_a_page_that_answers() -> None:
    page = response(Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
    found, _ = probed("127.0.0.1:PORT/x", module("{prober: http}"), http(page))
    assert found["probe_success"] == 1
    assert found["probe_http_status_code"] == 200 and found["probe_http_version"] == 1.1
    assert found["probe_http_content_length"] == found["probe_http_uncompressed_body_length"] == 5
    assert found["probe_http_last_modified_timestamp_seconds"] == 1445412480
    assert found["probe_ip_protocol"] == 4 and found["probe_http_ssl"] == 0
    phases = [found[f"probe_http_duration_seconds|{p}"] for p in ("resolve", "connect", "processing", "transfer")]
    assert all(phase > 0 for phase in phases) and found["probe_http_duration_seconds|tls"] == 0


@pytest.mark.parametrize(
    ("http_module", "page", "why"),
    [
        ("{}", response(status="500 No"), "the status is 500, not 2xx"),
        ("{valid_status_codes: [204]}", response(), "the status is 200, not 204"),
        ("{valid_http_versions: [HTTP/1.0]}", response(), "the version is HTTP/1.1"),
        ("{fail_if_not_ssl: true}", response(), "not over TLS"),
        ("{fail_if_body_matches_regexp: [h.l]}", response(), 'the body matches "h.l"'),
        ("{fail_if_body_not_matches_regexp: [bye]}", response(), 'does not match "bye"'),
        ("{fail_if_header_matches: [{header: X-A, regexp: b}]}", response(X_A="abc"), "the header X-A matches"),
        ("{fail_if_header_not_matches: [{header: X-A, regexp: z}]}", response(X_A="abc"), "X-A does not match"),
        ("{fail_if_header_not_matches: [{header: X-B, regexp: z}]}", response(), "there is no header X-B"),
        ("{body_size_limit: 4B}", response(), "larger than 4 bytes"),
        ("{compression: gzip}", response(), "not compressed by gzip"),
        ("{}", b"nonsense\r\n\r\n", "no HTTP answer"),
        ("{}", b"", "no HTTP answer"),
    ],
)
def test_what_makes_a_page_fail(http_module: str, page: bytes, why: str) -> None:
    found, story = probed("http://127.0.0.1:PORT", module(f"{{prober: http, http: {http_module}}}"), http(page))
    assert found["probe_success"] == 0 and why in story
    assert found["probe_failed_due_to_regex"] == float("match" in why or "there is no header" in why)


def test_what_a_module_allows() -> None:
    missing = "fail_if_header_matches: [{header: X, regexp: a, allow_missing: true}]"
    how = f"{{prober: http, http: {{valid_status_codes: [404], {missing}}}}}"
    found, _ = probed("http://127.0.0.1:PORT", module(how), http(response(status="404 Not Found")))
    assert found["probe_success"] == 1
    packed = gzip.compress(b"x" * 1000)
    found, _ = probed(
        "http://127.0.0.1:PORT", module("{prober: http, http: {compression: gzip}}"), http(response(packed))
    )
    assert found["probe_http_uncompressed_body_length"] == 1000 and found["probe_success"] == 1


def test_a_bomb_is_not_unpacked() -> None:
    packed = gzip.compress(bytes(8 << 20))
    how = module("{prober: http, http: {compression: gzip, body_size_limit: 1MB}}")
    found, story = probed("http://127.0.0.1:PORT", how, http(response(packed)))
    assert found["probe_success"] == 0 and "larger than 1048576 bytes" in story


def test_redirects_are_followed_and_counted() -> None:
    moved = response(b"", "302 Found", Location="/there")
    found, story = probed("http://127.0.0.1:PORT/", module("{prober: http}"), http(moved, response()))
    assert (found["probe_http_redirects"], found["probe_success"]) == (1, 1) and "/there: 200" in story
    found, _ = probed("http://127.0.0.1:PORT/", module("{prober: http, http: {follow_redirects: false}}"), http(moved))
    assert (found["probe_http_status_code"], found["probe_success"]) == (302, 0)
    found, story = probed("http://127.0.0.1:PORT/", module("{prober: http}"), http(moved))
    assert found["probe_success"] == 0 and "more than 10 redirects" in story


def test_a_target_that_hangs_ends_with_the_time_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    found, story = probed("http://127.0.0.1:PORT", module("{prober: http}"), silent, timeout_s=0.05)
    assert found["probe_success"] == 0 and "no end within 0.05 s" in story


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "http://[::1", "http://", "ftp://x", "http://127.0.0.1:99999", "http://a b"]
)
def test_targets_that_cannot_be_probed(target: str) -> None:
    found, _ = probed(target, module("{prober: http}"), http(response()))
    assert found["probe_success"] == 0


CONVERSATION = """{prober: tcp, tcp: {query_response: [
  {expect: "^220 (\\\\w+)", send: "EHLO ${1}", labels: [{name: host, value: "${1}"}]}, {expect: "^250"}]}}"""


def test_a_conversation_in_lines() -> None:
    heard = []

    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"banner\r\n220 mx ready\r\n")
        heard.append(await reader.readline())
        writer.write(b"250 hello\r\n")
        await writer.drain()

    found, _ = probed("127.0.0.1:PORT", module(CONVERSATION), mail)
    assert found["probe_success"] == 1 and heard == [b"EHLO mx\n"]
    assert found["probe_expect_info|mx"] == 1 and found["probe_failed_due_to_regex"] == 0

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0\r\n")

    found, story = probed("127.0.0.1:PORT", module(CONVERSATION), other)
    assert found["probe_success"] == 0 and found["probe_failed_due_to_regex"] == 1 and "no line matches" in story
    found, story = probed("nowhere", module("{prober: tcp}"), other)
    assert found["probe_success"] == 0 and '"nowhere" is not host:port' in story


def test_groups_are_expanded_as_in_go() -> None:
    import re2

    found = re2.search(rb"(?P<word>\w+) (\d+)", b"a 1")
    assert expand(b"$word ${2} $$ ${9} $none", found) == b"a 1 $  "


def test_a_question_to_a_name_server() -> None:
    import dns.message
    import dns.rrset

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            query = dns.message.from_wire(data)
            reply = dns.message.make_response(query)
            if str(query.question[0].name) == "here.test.":
                reply.answer.append(dns.rrset.from_text("here.test.", 60, "IN", "A", "192.0.2.1", "192.0.2.2"))
            else:
                reply.set_rcode(3)
            self.transport.sendto(reply.to_wire(), address)

    async def ask(how: str) -> Findings:
        loop, findings = asyncio.get_running_loop(), Findings()
        transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        await probe(f"127.0.0.1:{port}", module(f"{{prober: dns, dns: {how}}}"), findings, 5)
        transport.close()
        return findings

    a = "query_name: here.test, query_type: A, validate_answer_rrs: "
    good = asyncio.run(ask(f"{{{a}{{fail_if_not_matches_regexp: ['\\t192[.]0']}}}}"))
    assert "probe_success 1" in good.exposition() and "probe_dns_answer_rrs 2" in good.exposition()
    missing = asyncio.run(ask("{query_name: gone.test, query_type: A}"))
    assert "probe_success 0" in missing.exposition() and "the answer is NXDOMAIN" in missing.lines[-1]
    unlike = asyncio.run(ask(f"{{{a}{{fail_if_matches_regexp: ['[.]2$']}}}}"))
    assert "probe_success 0" in unlike.exposition() and "matches" in unlike.lines[-1]


def test_the_configuration_of_kube_prometheus_is_read(shared: Path) -> None:
    import yaml

    manifest = yaml.safe_load((shared / "kube-prometheus/blackboxExporter-configuration.yaml").read_text())
    modules = parse_modules(manifest["data"]["config.yml"], "config.yml")
    assert set(modules) == {"http_2xx", "http_post_2xx", "irc_banner", "pop3s_banner", "ssh_banner", "tcp_connect"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modules: {a: {prober: icmp}}", 'modules: a: prober: "icmp" is not served here'),
        ("modules: {a: {prober: http, http: {valid_code: [1]}}}", 'a: http: unknown field "valid_code"'),
        (
            "modules: {a: {prober: http, http: {fail_if_body_matches_regexp: ['(']}}}",
            'fail_if_body_matches_regexp: "\\("',
        ),
        ("modules: {a: {prober: dns}}", "query_name: is missing"),
        ("modules: {a: {prober: http, http: {enable_http3: true}}}", "enable_http3: is not supported"),
    ],
)
def test_a_wrong_module_names_the_field(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_modules(text, "blackbox.yml")


def test_the_exporter_answers_and_reloads(tmp_path: Path) -> None:
    file = tmp_path / "blackbox.yml"
    file.write_text("modules: {up: {prober: tcp}}")
    client = TestClient(Blackbox(file).app())
    assert client.get("/probe?target=127.0.0.1:1&module=none").status_code == 400
    assert client.get("/probe?module=up").status_code == 400
    page = client.get("/probe?target=127.0.0.1:1&module=up")
    assert page.status_code == 200 and "probe_success 0" in page.text
    assert "cannot connect to 127.0.0.1:1" in client.get("/probe?target=127.0.0.1:1&module=up&debug=true").text
    file.write_text("modules: {up: {prober: none}}")
    assert client.post("/-/reload").status_code == 500
    assert "blackbox_exporter_config_last_reload_successful 0.0" in client.get("/metrics").text
    assert client.get("/probe?target=127.0.0.1:1&module=up").status_code == 200
    file.write_text("modules: {other: {prober: tcp}}")
    assert client.post("/-/reload").status_code == 200
    assert client.get("/probe?target=127.0.0.1:1&module=up").status_code == 400
