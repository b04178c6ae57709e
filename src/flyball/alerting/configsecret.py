"""The configuration that the operator wrote for the embedded cluster's Alertmanager.

The Secret ``flyball-system/flyball-alertmanager-generated`` holds ``alertmanager.yaml`` and, beside it, the files that
it names by relative paths: templates and secrets. On a cluster the pods of ``flyball alertmanager`` mount it.
"""

import base64
import gzip
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flyball.alerting.config import Config, parse_config
from flyball.alerting.loading import prepare
from flyball.alerting.templates import Templates
from flyball.errors import ConfigError
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import SECRETS

log = logging.getLogger(__name__)

NAMESPACE = "flyball-system"
SECRET_NAME = "flyball-alertmanager-generated"
SECRET_KEY = "alertmanager.yaml"


def nobody() -> Config:
    """The configuration where there is none: alerts are shown, and nobody is told."""
    return parse_config("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n", "the default configuration")


class ConfigSecret:
    """Watches the Secret. A configuration that is wrong leaves the last one in force.

    Args:
        directory: where the files are written.
    """

    def __init__(self, client: KubeClient, directory: Path) -> None:
        self._directory = directory
        self._informer: Informer[dict[str, Any]] = Informer(
            client, SECRETS, NAMESPACE, field_selector=f"metadata.name={SECRET_NAME}"
        )

    async def run(self, changed: Callable[[Config, Templates], None], refused: Callable[[], None]) -> None:
        """Calls ``changed`` with each configuration that can be used, ``refused`` after one that cannot."""

        def read(_change: str, _old: object, secret: dict[str, Any] | None) -> None:
            try:
                changed(*self._read((secret or {}).get("data") or {}))
            except (ConfigError, ValueError, OSError, EOFError) as exc:
                log.error("alertmanager_config_refused secret=%s/%s error=%s", NAMESPACE, SECRET_NAME, exc)
                refused()

        self._informer.add_handler(read)
        await self._informer.run()

    def _read(self, data: Mapping[str, str]) -> tuple[Config, Templates]:
        files = {name: base64.b64decode(text) for name, text in data.items()}
        if packed := files.pop(f"{SECRET_KEY}.gz", b""):
            files[SECRET_KEY] = gzip.decompress(packed)
        if SECRET_KEY not in files:
            return nobody(), Templates()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._directory.iterdir():
            if path.name not in files:
                path.unlink()
        for name, body in files.items():
            if "/" in name or name in (".", ".."):
                raise ConfigError(f'secret {NAMESPACE}/{SECRET_NAME}: "{name}" is not a file\'s name')
            part = self._directory / f".{name}.part"
            part.touch(mode=0o600)
            part.write_bytes(body)
            part.rename(self._directory / name)
        return prepare(files[SECRET_KEY], SECRET_KEY, self._directory)
