"""``file_sd_configs``: target groups in JSON or YAML files, read again when they change."""

import asyncio
import glob
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import Counter

from flyball.discovery.groups import read_groups
from flyball.errors import ConfigError
from flyball.model.scrapeconfigs import FileSD, TargetGroup

log = logging.getLogger(__name__)

#: Files are looked at so often; ``refresh_interval`` is the upper bound where it is shorter.
_READ_ERRORS = Counter("prometheus_sd_file_read_errors", "Files with target groups that could not be read.")
_LOOK_EVERY_S = 1.0
#: A file may be this large.
_SIZE_MAX = 64 << 20

_Stamp = tuple[int, int, int]


class FileDiscovery:
    """One section. A file that cannot be read keeps the groups it had; a file that is gone has none."""

    def __init__(self, sd: FileSD, what: str, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._sd, self._what = sd, what
        self._look_every_s = min(look_every_s, sd.refresh_interval_ms / 1000)
        self._stamps: dict[str, _Stamp] = {}
        self._groups: dict[str, list[TargetGroup]] = {}

    async def run(self, publish: Callable[[Sequence[TargetGroup]], None]) -> None:
        """Calls ``publish`` with all groups at once and after every change, until cancelled."""
        first = True
        while True:
            if self.look() or first:
                publish([group for groups in self._groups.values() for group in groups])
                first = False
            await asyncio.sleep(self._look_every_s)

    def look(self) -> bool:
        """Reads what changed since the last look; whether anything did."""
        paths = sorted({path for pattern in self._sd.files for path in glob.glob(pattern)})
        changed = False
        for path in [path for path in self._stamps if path not in paths]:
            del self._stamps[path]
            changed |= self._groups.pop(path, None) is not None
        for path in paths:
            try:
                found = Path(path).stat()
                stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                if self._stamps.get(path) == stamp:
                    continue
                self._stamps[path] = stamp
                if found.st_size > _SIZE_MAX:
                    raise ConfigError(f"{path}: {found.st_size} bytes, more than the limit of {_SIZE_MAX}")
                groups = read_groups(Path(path).read_text(), path, path, {"__meta_filepath": path})
            except (OSError, ConfigError, ValueError) as exc:
                log.warning("discovery_failed section=%s file=%s error=%s", self._what, path, exc)
                _READ_ERRORS.inc()
                continue
            changed |= self._groups.get(path) != groups
            self._groups[path] = groups
        return changed
