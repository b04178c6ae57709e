"""Alertmanagers as processes, ours and the real one, and a server that collects what receivers are told."""

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def eventually(check: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        problem: Any = None
        try:
            if answer := check():
                return answer
        except (OSError, AssertionError, LookupError, ValueError) as exc:
            problem = exc
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {problem}"
        time.sleep(0.05)


@dataclass
class Collector:
    """What was posted, by path. ``answer`` may refuse: it is given the path and returns a status and headers."""

    told: dict[str, list[Any]] = field(default_factory=dict)
    answer: Callable[[str], tuple[int, dict[str, str], bytes]] = lambda path: (200, {}, b"")
    url: str = ""
    headers: list[Mapping[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.append(self.headers)  # type: ignore[arg-type]
            status, headers, said = collector.answer(self.path)
            if status == 200:
                collector.told.setdefault(self.path, []).append(json.loads(body))
            with contextlib.suppress(ConnectionError):  # who asked may have been killed
                self.send_response(status)
                for name, value in {"Content-Length": str(len(said)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Program:
    """A running Alertmanager."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def post_plain(self, path: str) -> int:
        """The status of an empty POST."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, b""), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            return exc.code

    def page(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def program(command: list[str], directory: Path, config: str, *flags: str, port: int = 0) -> Iterator[Program]:
    """Starts one and waits until it is ready; its configuration and data are in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "alertmanager.yml").write_text(config)
    port = port or free_port()
    log = directory / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [
                *command,
                f"--config.file={directory / 'alertmanager.yml'}",
                f"--storage.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                *flags,
            ],
            stdout=out,
            stderr=out,
        )
    found = Program(f"http://127.0.0.1:{port}", process, log)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            with urllib.request.urlopen(found.url + "/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)

        eventually(ready)
        yield found
    finally:
        found.kill()


OURS = [sys.executable, "-m", "flyball", "alertmanager"]


def real(name: str) -> str:
    """The path of ``alertmanager`` or ``amtool``; built once."""
    built = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "alertmanager.py")], check=True, capture_output=True, text=True
    )
    return next(line for line in built.stdout.split() if line.endswith(f"/{name}"))
