"""The serving certificate: given as files, or from an authority of our own that renews itself.

The API server is told of our authority by the caBundle of our APIServices (``cabundle``), so that nobody has to skip
verification.
"""

import base64
import logging
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from flyball.errors import ConfigError, KubeApiError
from flyball.http import certificates as made
from flyball.http.certificates import Certificate, Pair, certificates_of, left_ms, names_of, pem_of, validity_ms
from flyball.kube import KubeClient
from flyball.kube.kinds import SECRETS

log = logging.getLogger(__name__)

AUTHORITY_DAYS, LEAF_DAYS = 730, 90
DAY_MS = 86_400_000
_FILES = {"authority": "ca.crt", "authority_key": "ca.key", "certificate": "tls.crt", "key": "tls.key"}


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts. ``authority`` is a bundle: the newest authority first, then those whose leaves may still serve."""

    authority: str
    authority_key: str
    certificate: str
    key: str


def renewed(held: Certificates | None, names: Sequence[str], now_ms: int) -> Certificates:
    """What to serve with: ``held``, or what replaces its parts that have less than a third of their life left.

    A new authority is published one call before anything is signed with it, so that every reader of the bundle knows
    it in time.

    Args:
        names: DNS names and addresses of the server.

    Raises:
        ValueError: what is held is no certificate.
    """
    if held is None:
        return signed(_with_authority(None, now_ms), names, now_ms)
    (authority, *_), (leaf, *_) = certificates_of(held.authority), certificates_of(held.certificate)
    if _is_late(authority, now_ms):
        held = _with_authority(held, now_ms)
        return held if left_ms(leaf, now_ms) > 0 else signed(held, names, now_ms)
    return signed(held, names, now_ms) if _is_late(leaf, now_ms) or names_of(leaf) != sorted(names) else held


def signed(held: Certificates, names: Sequence[str], now_ms: int) -> Certificates:
    """With a new serving certificate of the newest authority."""
    pair = made.leaf(Pair.of_pem(held.authority, held.authority_key), "flyball-adapter", LEAF_DAYS, now_ms, names=names)
    return replace(held, certificate=pair.certificate_pem, key=pair.key_pem)


def _is_late(certificate: Certificate, now_ms: int) -> bool:
    begins_ms, ends_ms = validity_ms(certificate)
    return ends_ms - now_ms < (ends_ms - begins_ms) / 3


def _with_authority(held: Certificates | None, now_ms: int) -> Certificates:
    pair = made.authority(f"flyball-adapter-ca-{now_ms // 1000}", AUTHORITY_DAYS, now_ms)
    if held is None:
        return Certificates(pair.certificate_pem, pair.key_pem, "", "")
    before = (pem_of(old) for old in certificates_of(held.authority) if left_ms(old, now_ms) > 0)
    return replace(held, authority="".join((pair.certificate_pem, *before)), authority_key=pair.key_pem)


# -- where they are kept -----------------------------------------------------------------------------------------------


class Keeper(Protocol):
    """Where certificates are kept between runs, and between replicas."""

    async def load(self) -> Certificates | None:
        """What is kept; None at first."""

    async def save(self, certificates: Certificates) -> bool:
        """Keeps them; False when another replica was quicker."""


class DirectoryKeeper:
    """One replica, outside of a cluster."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def load(self) -> Certificates | None:
        try:
            return Certificates(**{field: (self._directory / name).read_text() for field, name in _FILES.items()})
        except FileNotFoundError:
            return None

    async def save(self, certificates: Certificates) -> bool:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for field, name in _FILES.items():
                part = self._directory / f".{name}.part"
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                    file.write(getattr(certificates, field))
                part.replace(self._directory / name)
        except OSError as exc:
            raise ConfigError(
                f"--cert-dir {self._directory}: cannot be written ({exc.strerror}); name another"
            ) from exc
        return True


class SecretKeeper:
    """All replicas of a deployment share a Secret; the first to write it wins."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client, self._namespace, self._name = client, namespace, name
        self._version = ""

    async def load(self) -> Certificates | None:
        try:
            secret = await self._client.get(SECRETS, self._name, self._namespace)
        except KubeApiError as exc:
            if exc.code == 404:
                self._version = ""
                return None
            raise
        self._version = secret["metadata"]["resourceVersion"]
        data = secret.get("data") or {}
        try:
            return Certificates(**{field: base64.b64decode(data[name]).decode() for field, name in _FILES.items()})
        except (KeyError, ValueError):
            return None  # emptied by hand: made anew

    async def save(self, certificates: Certificates) -> bool:
        data = {
            name: base64.b64encode(getattr(certificates, field).encode()).decode() for field, name in _FILES.items()
        }
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
        try:
            if self._version:
                metadata["resourceVersion"] = self._version
                await self._client.update(SECRETS, secret, self._namespace)
            else:
                await self._client.create(SECRETS, secret, self._namespace)
        except KubeApiError as exc:
            if exc.code == 409:
                return False
            raise
        return True


async def keep(keeper: Keeper, names: Sequence[str], now_ms: int) -> Certificates:
    """The certificates to serve with now, renewed and kept where that was due.

    Raises:
        ConfigError, UpstreamError: they cannot be read or kept.
    """
    for _ in range(5):
        held = await keeper.load()
        try:
            wanted = renewed(held, names, now_ms)
        except ValueError as exc:
            log.warning("certificates_made_anew reason=%s", exc)
            wanted = renewed(None, names, now_ms)
        if wanted == held or await keeper.save(wanted):
            return wanted
    raise ConfigError("the serving certificates are written by somebody else all the time; give each adapter a Secret")


# -- the server's side -------------------------------------------------------------------------------------------------


class LiveTLS:
    """A server context whose certificate and client authorities change while it serves.

    ``context`` is given to the server once; each handshake is switched to the newest state.
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, ""
        self.context = self._now = self._new()
        self.context.sni_callback = self._switch

    def set_certificate(self, certificate: str, key: str) -> None:
        """Serves with another certificate from now on."""
        if (certificate, key) != (self._certificate, self._key):
            self._certificate, self._key = certificate, key
            self._now = self._new()

    def set_client_ca(self, pem: str) -> None:
        """Takes client certificates of these authorities from now on; an empty text takes none."""
        if pem != self._client_ca:
            self._client_ca = pem
            self._now = self._new()

    def _switch(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._now

    def _new(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.num_tickets = 0  # a resumed session would carry the peer of an authority that is gone
        context.verify_mode = ssl.CERT_OPTIONAL
        with tempfile.TemporaryDirectory(prefix="flyball-tls-") as folder:  # ssl reads files only
            certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            certificate.write_text(self._certificate)
            key.touch(mode=0o600)
            key.write_text(self._key)
            try:
                context.load_cert_chain(certificate, key)
            except ssl.SSLError as exc:
                raise ConfigError(f"the serving certificate and key do not fit ({exc}); give a pair in PEM") from exc
        if self._client_ca:
            context.load_verify_locations(cadata=self._client_ca)
        return context
