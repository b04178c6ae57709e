"""The two control planes to compare: a real one (etcd, kube-apiserver, kube-controller-manager) and the embedded one.

Both are context managers with ``base`` (https URL), ``token`` and ``ca`` (file), in a directory of their own and on
free ports.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.cluster import build

from flyball.localcluster import ApiServer, pki

START_S = 120.0
STOP_S = 10.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RealControlPlane:
    """etcd and kube-apiserver; with ``controllers`` also kube-controller-manager and kube-scheduler.

    Args:
        api_flags: of kube-apiserver, after ours, so that they win.
        controller_flags: of kube-controller-manager, likewise.
    """

    def __init__(
        self,
        directory: Path,
        *,
        controllers: bool = False,
        api_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.controllers = controllers
        self._api_flags, self._controller_flags = api_flags, controller_flags
        self.port = free_port()
        self.base = f"https://127.0.0.1:{self.port}"
        self.ca = directory / "pki" / "ca.crt"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        pki.ensure(self.directory, 0)
        self.token = pki.token(self.directory)
        self._write_keys()
        try:
            client, peer = free_port(), free_port()
            self._start(
                "etcd",
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            )
            self._start_api_server(client)
            self._wait_ready()
            if self.controllers:
                self.start_controllers()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.directory / "sa.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.directory / "sa.pub").write_bytes(public)
        (self.directory / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')

    def _start_api_server(self, etcd_port: int) -> None:
        keys = self.directory / "pki"
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={keys / 'apiserver.crt'}",
            f"--tls-private-key-file={keys / 'apiserver.key'}",
            f"--client-ca-file={keys / 'ca.crt'}",
            f"--requestheader-client-ca-file={keys / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={keys / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={keys / 'front-proxy-client.key'}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self.directory / 'sa.pub'}",
            f"--service-account-signing-key-file={self.directory / 'sa.key'}",
            *self._api_flags,
        )

    def start_controllers(self) -> None:
        """What ``controllers`` starts, now."""
        kubeconfig = self.directory / "kubeconfig"
        write_kubeconfig(kubeconfig, self.base, self.token, self.ca)
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--root-ca-file={self.ca}",
            f"--service-account-private-key-file={self.directory / 'sa.key'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--node-monitor-grace-period=24h",  # nodes are fake and renew no lease
            *self._controller_flags,
        )
        self._start("kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0")

    def _start(self, program: str, *arguments: str) -> None:
        with (self.directory / f"{program}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [build.build(program), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _wait_ready(self) -> None:
        tls = ssl.create_default_context(cafile=str(self.ca))
        deadline = time.monotonic() + START_S
        while True:
            problem = ""
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=5)
            try:
                connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self.token}"})
                answer = connection.getresponse()
                problem = answer.read().decode()
                if answer.status == 200:
                    return
            except OSError as exc:
                problem = str(exc)
            finally:
                connection.close()
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"the control plane is not ready: {problem}; ended: {ended}\n{self.logs()}")
            time.sleep(0.2)

    def pid(self, program: str) -> int:
        """The process id of one of the programs."""
        return next(process.pid for process in self._processes if program in str(process.args[0]))

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.directory.glob("*.log"))

    def _stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        self._processes.clear()


class EmbeddedControlPlane:
    """Our API server, in a thread with its own event loop."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "pki" / "ca.crt"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded API server", daemon=True)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self._server = ApiServer(self.directory, port=0)
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(60)
        self.token = pki.token(self.directory)
        self.base = f"https://127.0.0.1:{self._server.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


ControlPlane = RealControlPlane | EmbeddedControlPlane


def write_kubeconfig(path: Path, server: str, token: str = "", ca: Path | None = None) -> None:
    cluster = {"server": server, **({"certificate-authority": str(ca)} if ca else {})}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": token} if token else {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
