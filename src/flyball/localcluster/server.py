"""The API server as one part that starts and stops."""

import sys
from pathlib import Path

from flyball.http.server import LOOPBACK_HOSTS, Server, ServerTLS, serve
from flyball.localcluster import pki
from flyball.localcluster.apiserver import Application
from flyball.localcluster.spdytunnel import SpdyTunnel
from flyball.localcluster.storage import Storage

HOSTS = frozenset({*LOOPBACK_HOSTS, "kubernetes", "kubernetes.default", "kubernetes.default.svc"})


def addresses() -> tuple[str, ...]:
    """Where the API is served; elsewhere than on Linux 127.0.0.1 is all there is.

    Pods ask at the second: a pod that itself listens on the port means itself by localhost.
    """
    return pki.ADDRESSES if sys.platform.startswith("linux") else pki.ADDRESSES[:1]


class ApiServer:
    """The Kubernetes API on 127.0.0.1:6443 (plus the offset), over TLS, with its objects in the data directory.

    Attributes: ``port`` once started.
    """

    def __init__(self, data_dir: Path, port_offset: int = 0, *, port: int | None = None) -> None:
        """``port`` overrides 6443 + offset; 0 takes a free one."""
        self._data_dir = data_dir
        self._port_offset = port_offset
        self.port = pki.API_PORT + port_offset if port is None else port
        self._storage: Storage | None = None
        self._application: Application | None = None
        self._servers: list[Server] = []

    async def start(self) -> None:
        """Makes certificates where missing, opens the objects, listens.

        Raises:
            ConfigError: the data directory or the port cannot be used, or another process uses them.
            StoreError: the objects cannot be read.
        """
        pki.ensure(self._data_dir, self._port_offset)
        self._storage = Storage(self._data_dir / "control" / "objects.sqlite")
        try:
            self._application = Application(self._data_dir, self._storage, port_offset=self._port_offset)
            tls = ServerTLS(self._data_dir / "pki" / "apiserver.crt", self._data_dir / "pki" / "apiserver.key")
            for host in addresses():
                server = await serve(
                    self._application,
                    host=host,
                    port=self.port,
                    tls=tls,
                    allowed_hosts=HOSTS,
                    name="Kubernetes API server",
                    upgrades={b"spdy/3.1": SpdyTunnel},
                )
                self._servers.append(server)
                self.port = server.port
            self._application.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends open watches, stops listening, closes the objects."""
        if self._storage is not None:
            self._storage.end_subscriptions()
        for server in self._servers:
            await server.close()
        if self._application is not None:
            await self._application.close()
        if self._storage is not None:
            self._storage.close()
        self._servers.clear()
        self._application = self._storage = None

    def statistics(self) -> dict[str, int]:
        return self._application.statistics() if self._application is not None else {}
