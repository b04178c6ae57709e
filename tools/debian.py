"""Programs of Debian packages: fetched, unpacked beside each other, never installed.

Run as ``python tools/debian.py PACKAGE usr/bin/PROGRAM``: prints the program's path.
"""

import os
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyball" / "debian"


def program(package: str, path: str) -> Path:
    """A file of a package, such as ``usr/sbin/nginx``; needs apt and its archive at the first call.

    Raises:
        CalledProcessError: apt cannot fetch it.
    """
    found = CACHE / package / path
    if not found.exists():
        directory = CACHE / package
        directory.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
        subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL)
        archive = next(directory.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", str(archive), str(directory)], check=True)
        archive.unlink()
    return found


def nginx() -> Path:
    return program("nginx", "usr/sbin/nginx")


def nginx_exporter() -> Path:
    return program("prometheus-nginx-exporter", "usr/bin/prometheus-nginx-exporter")


def blackbox_exporter() -> Path:
    return program("prometheus-blackbox-exporter", "usr/bin/prometheus-blackbox-exporter")


if __name__ == "__main__":
    print(program(*sys.argv[1:3]))
