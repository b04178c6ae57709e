"""Fetches Debian's Prometheus package, unpacks it and prints the binary's path; nothing is installed."""

import os
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyball" / "debian-prometheus"


def binary() -> Path:
    """The binary; needs apt and its archive at the first call."""
    path = CACHE / "usr" / "bin" / "prometheus"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", "prometheus"], check=True, cwd=CACHE, stdout=subprocess.DEVNULL)
        package = next(CACHE.glob("prometheus_*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(CACHE)], check=True)
        package.unlink()
    return path


if __name__ == "__main__":
    print(binary())
