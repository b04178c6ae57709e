"""Pod addresses on this machine's loopback."""

import contextlib
import json
import time
import zlib
from pathlib import Path

from flyball.errors import ConfigError
from flyball.localcluster.node import procfs

API_SERVER_IP = "127.11.0.1"
"""Where pods find the API server; it is among ``localcluster.pki.ADDRESSES``."""


_LOOK_AGAIN_S = 5.0  # the kernel's list is long, and slow to get, where many connections have just ended


class Addresses:
    """POD_IPs, ``127.10.x.y``: no two pods alike, each remembered for its pod's life, a used one resting longest."""

    def __init__(self, path: Path, port_offset: int) -> None:
        self._path = path
        # Another embedded cluster on this machine (it must have another offset) starts elsewhere.
        self._next = (zlib.crc32(str(path).encode()) % 250 + 1) * 256 + 2 if port_offset else 2
        self.taken: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self._looked_s = -_LOOK_AGAIN_S
        with contextlib.suppress(OSError, ValueError, KeyError):
            stored = json.loads(path.read_text())
            self._next = int(stored["next"])
            self.taken = {str(uid): str(ip) for uid, ip in stored["taken"].items()}

    def of(self, uid: str) -> str:
        """The pod's address, allocated on first use.

        Raises:
            ConfigError: all are taken.
        """
        if uid in self.taken:
            return self.taken[uid]
        if time.monotonic() >= self._looked_s + _LOOK_AGAIN_S:
            self._elsewhere, self._looked_s = procfs.listening_hosts("127.10."), time.monotonic()
        used = self._elsewhere | set(self.taken.values())
        for _ in range(65536):
            number = self._next
            self._next = number + 1 if number < 65534 else 2
            ip = f"127.10.{number // 256}.{number % 256}"
            if number % 256 not in (0, 255) and ip not in used:
                self.taken[uid] = ip
                self._save()
                return ip
        raise ConfigError("all pod addresses of 127.10.0.0/16 are taken; delete pods")

    def release(self, uid: str) -> None:
        if self.taken.pop(uid, None) is not None:
            self._save()

    def keep(self, uids: set[str]) -> None:
        """Forgets all others, but for those of nodes."""
        self.taken = {uid: ip for uid, ip in self.taken.items() if uid in uids or uid.startswith("node/")}

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"next": self._next, "taken": self.taken}))
        fresh.replace(self._path)
