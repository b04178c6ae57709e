"""Which ways of isolating a pod this machine offers: probed once, at the start of the node."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from flyball.localcluster.node import podnet

MOUNT, PLAIN = "mount", "plain"
"""Namespaces of each container's own for mounts and the host's name, and none: the label ``flyball.dev/runtime``."""

PROBE_TIMEOUT_S = 10.0
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); import podroot; podroot.enter(sys.argv[2], [], 'probe')"


def probe(directory: Path) -> str:
    """The best runtime that works here. ``$FLYBALL_RUNTIME`` may ask for a lesser one.

    Args:
        directory: one of ours, in which an empty directory is made for the attempt.
    """
    if os.environ.get("FLYBALL_RUNTIME") == PLAIN or not sys.platform.startswith("linux") or not entering():
        return PLAIN
    empty = directory / "probe"
    empty.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(Path(__file__).parent), str(empty)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return PLAIN
    return MOUNT if done.returncode == 0 else PLAIN


def gives_addresses() -> bool:
    """Whether any program can be given the pod's address where it listens on every one (see ``podnet``)."""
    found: list[int] = []
    # A filter binds the thread that sets it, for as long as it lives.
    trial = threading.Thread(target=lambda: found.append(podnet.install(True)), name="probe")
    trial.start()
    trial.join()
    if not found or found[0] < 0:
        return False
    copy = podnet.take(os.getpid(), found[0])
    for fd in (found[0], copy):
        with contextlib.suppress(OSError):
            os.close(fd)
    return copy >= 0


def entering(pid: int | None = None) -> list[str]:
    """The words before a command that runs it in a container's namespaces; empty when nsenter is not installed."""
    program = shutil.which("nsenter")
    if program is None:
        return []
    words = [program, "-m", "-u", "-r", "-w", *([] if os.getuid() == 0 else ["-U", "--preserve-credentials"])]
    return words if pid is None else [*words, "-t", str(pid), "--"]
