"""Debian's blackbox exporter beside ours, on the same targets."""

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.real.conftest import eventually
from tests.real.test_nginx import fetch, free_port, running
from tools import debian

pytestmark = pytest.mark.real

CONFIG = """
modules:
  plain: {prober: http, http: {preferred_ip_protocol: ip4}}
  post: {prober: http, http: {method: POST, body: "{}", preferred_ip_protocol: ip4}}
  strict:
    prober: http
    http: {preferred_ip_protocol: ip4, fail_if_body_not_matches_regexp: [absent], valid_status_codes: [200]}
  connect: {prober: tcp, tcp: {preferred_ip_protocol: ip4}}
  banner: {prober: tcp, timeout: 2s, tcp: {preferred_ip_protocol: ip4, query_response: [{expect: "^SSH"}]}}
"""
#: What takes time, and what the newer version of the two has alone.
MEASURED = re.compile(r"probe_(duration_seconds|dns_lookup_time_seconds|http_duration_seconds\{.*|failed_due_to_bytes)")


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(301)
            self.send_header("Location", "/here")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "5")
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.end_headers()
        self.wfile.write(b"hello")

    do_POST = do_GET  # noqa: N815 - the library looks it up by this name

    def log_message(self, *_: object) -> None: ...


def figures(page: str) -> dict[str, float]:
    found = re.findall(r"^(probe_\S+) (\S+)$", page, re.M)
    return {name: float(value) for name, value in found if not MEASURED.fullmatch(name)}


def test_the_stock_exporter_and_ours_find_the_same(tmp_path: Path) -> None:
    config = tmp_path / "blackbox.yml"
    config.write_text(CONFIG)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port, closed, theirs, ours = server.server_port, free_port(), free_port(), free_port()
    flags = ("--config.file", config, "--web.listen-address")
    own = (sys.executable, "-m", "flyball", "exporter", "blackbox", *flags, f"127.0.0.1:{ours}")
    with running(debian.blackbox_exporter(), *flags, f"127.0.0.1:{theirs}"), running(*own):
        eventually(lambda: fetch(f"http://127.0.0.1:{theirs}/-/healthy"))
        eventually(lambda: fetch(f"http://127.0.0.1:{ours}/-/healthy"))
        for module, target in (
            ("plain", f"http://127.0.0.1:{port}/"),
            ("plain", f"127.0.0.1:{port}/moved"),
            ("plain", f"http://127.0.0.1:{port}/missing"),
            ("plain", f"http://127.0.0.1:{closed}/"),
            ("plain", "http://no.such.host.invalid/"),
            ("post", f"http://127.0.0.1:{port}/"),
            ("strict", f"http://127.0.0.1:{port}/"),
            ("connect", f"127.0.0.1:{port}"),
            ("connect", f"127.0.0.1:{closed}"),
            ("banner", f"127.0.0.1:{port}"),
        ):
            query = f"probe?module={module}&target={target}"
            stock, mine = (figures(fetch(f"http://127.0.0.1:{each}/{query}")) for each in (theirs, ours))
            if (module, target) == ("connect", f"127.0.0.1:{closed}"):
                del stock["probe_failed_due_to_regex"]  # from 0.26 on not where nothing was read
            assert mine == stock, (module, target)
    server.shutdown()
