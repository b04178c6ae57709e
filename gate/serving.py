"""A real ``flyball server`` beside targets that the gate plays, and what the server costs."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from gate.report import demand

MIB = 1 << 20


class Server:
    """One process, with its files in ``directory``."""

    def __init__(self, directory: Path, config: str, *flags: str) -> None:
        (directory / "prometheus.yml").write_text(config)
        self.log = directory / "log"
        command = [sys.executable, "-m", "flyball", "server", "--config.file=prometheus.yml"]
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0", *flags], cwd=directory, stderr=stderr
            )
        self._process = psutil.Process(self.process.pid)
        until(lambda: "ready at" in self.log.read_text() or self.process.poll() is not None, 30, "no start")
        demand("ready at" in self.log.read_text(), self.log.read_text()[-2000:])
        self.url = self.log.read_text().split("ready at ")[1].split()[0]

    def ask(self, path: str, timeout_s: float = 60.0, **form: str) -> tuple[int, Any]:
        """(status, JSON) of a form that is posted, or of a GET without one."""
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with urllib.request.urlopen(self.url + path, data, timeout=timeout_s) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            return exc.code, json.loads(exc.read())

    def values(self, query: str, label: str = "instance") -> dict[str, float]:
        """The instant vector by one label."""
        status, body = self.ask("/api/v1/query", query=query)
        demand(status == 200, f"{query}: {body}")
        return {item["metric"].get(label, ""): float(item["value"][1]) for item in body["data"]["result"]}

    def rss(self) -> int:
        return int(self._process.memory_info().rss)

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def serving(directory: Path, config: str, *flags: str) -> Iterator[Server]:
    server = Server(directory, config, *flags)
    try:
        yield server
    finally:
        server.stop()


def until(condition: Callable[[], object], limit_s: float, message: str) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        demand(time.monotonic() < end_s, message)
        time.sleep(0.02)


#: ``(path, writer)``: answers one request.
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


class Targets:
    """Many targets behind one port, told apart by the path ``/NAME``. Runs in a thread of its own."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self.port = 0
        #: name -> times of its requests (monotonic, s)
        self.asked: dict[str, list[float]] = {}

    def __enter__(self) -> "Targets":
        import threading

        started = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)

            async def start() -> None:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
                self.port = self._server.sockets[0].getsockname()[1]
                started.set()

            self._loop.run_until_complete(start())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            mine = asyncio.current_task()
            tasks = [task for task in asyncio.all_tasks() if task is not mine]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                name = request.split(b" ", 2)[1].decode()[1:]
                self.asked.setdefault(name, []).append(time.monotonic())
                await self._answer(name, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled at the end: asyncio would print a traceback for each connection
        finally:
            writer.close()

    def groups(self, names: list[str]) -> str:
        """The targets as a ``file_sd`` file."""
        return json.dumps(
            [
                {"targets": [f"127.0.0.1:{self.port}"], "labels": {"__metrics_path__": f"/{name}", "instance": name}}
                for name in names
            ]
        )


def page(body: bytes, *headers: str, content_type: str = "text/plain; version=0.0.4") -> bytes:
    """A whole answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
