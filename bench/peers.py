"""The servers that ours is measured against, as processes of their own; fetched or built once, nothing installed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyball"
PROMETHEUS_VERSION = "3.14.0"
_SID = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n"


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    version: str
    port: int
    pid: int


def tool(name: str) -> Path:
    """A binary that a tool of ours provides."""
    found = subprocess.run([sys.executable, str(ROOT / "tools" / name)], check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())


def victoria_metrics_binary() -> Path:
    """VictoriaMetrics as Debian's unstable release builds it."""
    path = CACHE / "victoria-metrics" / "usr" / "bin" / "victoria-metrics"
    if not path.exists():
        home = CACHE / "victoria-metrics"
        for part in ("lists/partial", "archives/partial"):
            (home / part).mkdir(parents=True, exist_ok=True)
        (home / "sources.list").write_text(_SID)
        options = [
            f"Dir::Etc::sourcelist={home}/sources.list", "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State::lists={home}/lists", f"Dir::Cache={home}",
        ]  # fmt: skip
        apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
        subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*apt, "download", "victoria-metrics"], check=True, cwd=home, stdout=subprocess.DEVNULL)
        package = next(home.glob("victoria-metrics_*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(home)], check=True)
    return path


def victoria_metrics_version() -> str:
    """Of that binary."""
    return next((CACHE / "victoria-metrics").glob("victoria-metrics_*.deb")).name.split("_")[1].split("+")[0]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_ready(url: str, process: "subprocess.Popen[bytes]", seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")  # type: ignore[str-bytes-safe]
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {seconds:g} s")


@contextlib.contextmanager
def _running(command: list[str], url: str) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_ready(url, process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def prometheus(*flags: str, config: Path | None = None) -> Iterator[Peer]:
    """A Prometheus that takes remote write; with an empty configuration unless there is a file."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="flyball-prometheus-") as directory:
        if config is None:
            config = Path(directory) / "prometheus.yml"
            config.write_text("global: {}\n")
        command = [
            str(tool("prometheus.py")), f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver", *flags,
        ]  # fmt: skip
        with _running(command, f"http://127.0.0.1:{port}/-/ready") as pid:
            yield Peer("prometheus", PROMETHEUS_VERSION, port, pid)


@contextlib.contextmanager
def victoria_metrics() -> Iterator[Peer]:
    """A VictoriaMetrics with its result cache off."""
    port = free_port()
    binary = victoria_metrics_binary()
    with tempfile.TemporaryDirectory(prefix="flyball-victoria-") as directory:
        command = [
            str(binary), f"-storageDataPath={directory}", f"-httpListenAddr=127.0.0.1:{port}",
            "-search.disableCache", "-search.latencyOffset=0s", "-retentionPeriod=1y",
        ]  # fmt: skip
        with _running(command, f"http://127.0.0.1:{port}/health") as pid:
            yield Peer("victoria-metrics", victoria_metrics_version(), port, pid)
