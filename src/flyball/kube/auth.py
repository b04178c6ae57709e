"""Credentials of a user: fixed, read from a file that rotates, or printed by an exec plugin."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from flyball import clock
from flyball.errors import ConfigError, UpstreamError

TOKEN_FILE_MAX_AGE_S = 10.0
EXEC_TIMEOUT_S = 120.0
EXEC_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request carries: headers, and a client certificate as PEM text with its key."""

    headers: Mapping[str, str] = field(default_factory=dict)
    certificate_pem: str = ""
    key_pem: str = ""


class Credentials(Protocol):
    """Where credentials come from."""

    async def current(self) -> Credential:
        """The credential to use now.

        Raises:
            ConfigError: it cannot be had until the user mends something.
            UpstreamError: the plugin failed; a later try may work.
        """

    def reject(self) -> None:
        """The server answered 401: what was given last must not be given again without a fresh look."""


class FixedCredentials:
    """A credential that never changes."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def current(self) -> Credential:
        return self._credential

    def reject(self) -> None:
        """A fixed credential has no fresher form."""


class TokenFileCredentials:
    """A bearer token in a file; the kubelet rotates it, so it is read again every few seconds and after a 401."""

    def __init__(self, path: Path, base: Credential | None = None) -> None:
        self._path = path
        self._base = base or Credential()
        self._token = ""
        self._read_at_s: float | None = None

    async def current(self) -> Credential:
        if self._read_at_s is None or clock.monotonic_s() - self._read_at_s >= TOKEN_FILE_MAX_AGE_S:
            try:
                token = self._path.read_text().strip()
            except OSError as exc:
                if not self._token:
                    raise ConfigError(f"token file {self._path}: {exc.strerror}; check the path and its mode") from exc
            else:
                # A file caught half-way through its rotation may be empty; the last token is the better guess.
                self._token = token or self._token
            if not self._token:
                raise ConfigError(f"token file {self._path} is empty; write a bearer token into it")
            self._read_at_s = clock.monotonic_s()
        headers = {**self._base.headers, "Authorization": f"Bearer {self._token}"}
        return Credential(headers, self._base.certificate_pem, self._base.key_pem)

    def reject(self) -> None:
        self._read_at_s = None


class _ExecStatus(msgspec.Struct, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: str = ""


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    status: _ExecStatus | None = None


class ExecCredentials:
    """A credential plugin of client.authentication.k8s.io v1 or v1beta1.

    Args:
        spec: the ``exec`` object of the kubeconfig user.
        directory: what a relative command path is relative to (the kubeconfig's folder).
        cluster: ``spec.cluster`` for plugins that ask for it by ``provideClusterInfo``.
        base: headers that every request of this user carries.

    Raises:
        ConfigError: the spec is not one that can be run.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        directory: Path,
        cluster: Mapping[str, Any] | None = None,
        base: Credential | None = None,
    ) -> None:
        self._api_version = str(spec.get("apiVersion") or "")
        if self._api_version not in EXEC_API_VERSIONS:
            raise ConfigError(
                f'exec plugin: apiVersion "{self._api_version}" is not supported; use {" or ".join(EXEC_API_VERSIONS)}'
            )
        command = str(spec.get("command") or "")
        if not command:
            raise ConfigError("exec plugin: command is missing; name the program to run")
        if "/" in command and not os.path.isabs(command):
            command = str(directory / command)
        self._argv = [command, *(str(arg) for arg in spec.get("args") or [])]
        self._environment = {str(item["name"]): str(item["value"]) for item in spec.get("env") or []}
        self._hint = str(spec.get("installHint") or "")
        self._interactive = str(spec.get("interactiveMode") or "IfAvailable")
        self._cluster = dict(cluster or {}) if spec.get("provideClusterInfo") else None
        self._base = base or Credential()
        self._credential: Credential | None = None
        self._expires_ms: int | None = None
        self._lock = asyncio.Lock()
        self.runs = 0

    async def current(self) -> Credential:
        async with self._lock:
            expired = self._expires_ms is not None and clock.now_ms() >= self._expires_ms
            if self._credential is None or expired:
                self._credential, self._expires_ms = self._parse(await self._run())
            return self._credential

    def reject(self) -> None:
        self._credential = None

    async def _run(self) -> bytes:
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if self._interactive == "Always" and not terminal:
            raise ConfigError(
                f"exec plugin {self._argv[0]} needs a terminal (interactiveMode: Always); run it from one"
            )
        interactive = terminal and self._interactive != "Never"
        spec: dict[str, Any] = {"interactive": interactive}
        if self._cluster is not None:
            spec["cluster"] = self._cluster
        info = {"apiVersion": self._api_version, "kind": "ExecCredential", "spec": spec}
        environment = {**os.environ, **self._environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        self.runs += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=None if interactive else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=None if interactive else asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as exc:
            hint = f" {self._hint}" if self._hint else " Install it or mend the command in the kubeconfig."
            raise ConfigError(f"exec plugin {self._argv[0]} cannot be run: {exc.strerror}.{hint}") from exc
        try:
            async with asyncio.timeout(EXEC_TIMEOUT_S):
                output, complaint = await process.communicate()
        except TimeoutError as exc:
            raise UpstreamError(f"exec plugin {self._argv[0]} gave no answer in {EXEC_TIMEOUT_S:.0f} s") from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = (complaint or b"").decode(errors="replace").strip()[-500:]
            raise UpstreamError(f"exec plugin {self._argv[0]} failed with exit code {process.returncode}: {said}")
        return output

    def _parse(self, output: bytes) -> tuple[Credential, int | None]:
        who = f"exec plugin {self._argv[0]}"
        try:
            answer = msgspec.json.decode(output, type=_ExecCredential)
        except msgspec.DecodeError as exc:
            raise UpstreamError(f"{who} did not print an ExecCredential: {exc}") from exc
        if answer.kind != "ExecCredential" or answer.api_version != self._api_version:
            raise ConfigError(
                f"{who} printed {answer.api_version} {answer.kind}, the kubeconfig asks for "
                f"{self._api_version} ExecCredential; make the two agree"
            )
        status = answer.status
        if status is None or not (status.token or status.client_certificate_data):
            raise UpstreamError(f"{who} printed neither a token nor a client certificate")
        if bool(status.client_certificate_data) != bool(status.client_key_data):
            raise UpstreamError(f"{who} printed a client certificate without its key, or the reverse")
        headers = dict(self._base.headers)
        if status.token:
            headers["Authorization"] = f"Bearer {status.token}"
        expires_ms = None
        if status.expiration_timestamp:
            try:
                expires_ms = clock.parse_rfc3339_ms(status.expiration_timestamp)
            except ValueError as exc:
                raise UpstreamError(
                    f'{who} printed expirationTimestamp "{status.expiration_timestamp}", which is not an RFC 3339 time'
                ) from exc
        certificate = status.client_certificate_data or self._base.certificate_pem
        key = status.client_key_data or self._base.key_pem
        return Credential(headers, certificate, key), expires_ms


def basic_header(username: str, password: str) -> str:
    """The value of an ``Authorization: Basic`` header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
