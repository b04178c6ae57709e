"""A running Flyball and the stock kubectl, for the tests marked ``real``."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

PORTS = (6443, 6444, 9090, 9093, 10249, 10250, 10257, 10259)
ROOT = Path(__file__).parents[2]


def free_offset() -> int:
    for offset in range(20_000 + os.getpid() % 1000, 50_000, 1_000):
        with contextlib.ExitStack() as stack:
            try:
                for port in PORTS:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return offset
    raise AssertionError("no free ports")


def eventually(check: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first truthy answer; the last failure is what the test shows."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer = check()
            if answer:
                return answer
            problem: Any = f"still {answer!r}"
        except (AssertionError, KeyError, IndexError, ValueError, OSError, subprocess.CalledProcessError) as exc:
            problem = f"{exc} {getattr(exc, 'stderr', '')}"
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {problem}")
        time.sleep(0.1)


@dataclass
class Flyball:
    """One ``flyball up`` with its own data directory and ports."""

    data_dir: Path
    kubectl_path: str
    offset: int = field(default_factory=free_offset)
    process: subprocess.Popen[str] | None = None

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{9090 + self.offset}"

    def start(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flyball", "up", "--data-dir", str(self.data_dir)),
                *("--port-offset", str(self.offset), *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                return
        raise AssertionError("".join(lines) + self.logs())

    def logs(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-3000:]}" for p in (self.data_dir / "logs").glob("*.log"))

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        answer = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(self.data_dir / "kubeconfig"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(self.data_dir)},
        )
        if check and answer.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {answer.stderr}{answer.stdout}")
        return answer.stdout if check else answer.stdout + answer.stderr

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def flyball(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flyball", *arguments], capture_output=True, text=True, timeout=120
        )

    def child_pids(self) -> dict[str, int]:
        """The three processes by name; not their own children, which look alike until they run a program."""
        found = {}
        for child in psutil.Process(self.process.pid).children() if self.process is not None else ():
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if "process" in words:
                    found[words[words.index("process") + 1]] = child.pid
        return found


@pytest.fixture(scope="session")
def kubectl_path() -> str:
    path = os.environ.get("FLYBALL_KUBECTL") or shutil.which("kubectl")
    if not path:
        pytest.skip("kubectl not found (make test-real builds it)")
    return path


@pytest.fixture(scope="module")
def flyball(tmp_path_factory: pytest.TempPathFactory, kubectl_path: str) -> Iterator[Flyball]:
    """One cluster a file, with the webapp example applied."""
    cluster = Flyball(tmp_path_factory.mktemp("flyball") / "data", kubectl_path)
    cluster.start("-f", str(ROOT / "examples/webapp/manifests"))
    yield cluster
    cluster.stop()
