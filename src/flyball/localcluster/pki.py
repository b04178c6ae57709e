"""The embedded cluster's own certificate authorities, leaf certificates, admin token and kubeconfig."""

import base64
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from flyball.clock import now_ms
from flyball.errors import ConfigError
from flyball.http import certificates
from flyball.http.certificates import Pair, is_signed_by, left_ms, names_of

API_PORT = 6443
CONTEXT = "flyball"
CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_BEFORE_DAYS = 30
DAY_MS = 86_400_000
ADDRESSES = ("127.0.0.1", "127.11.0.1")
DNS_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "flyball-embedded-adapter.flyball-system.svc",
    "flyball",
)
# name, issuing CA, common name, is a server too
_LEAFS = (
    ("apiserver", "ca", "kube-apiserver", True),
    ("front-proxy-client", "front-proxy-ca", "front-proxy-client", False),
    ("adapter", "ca", "flyball-adapter", True),
    ("node", "ca", "system:node:flyball", True),
)


def ensure(data_dir: Path, port_offset: int) -> None:
    """Makes whatever of ``data_dir/pki`` and ``data_dir/kubeconfig`` is missing, damaged or close to its end.

    Certificate authorities live 10 years, leaf certificates one; a leaf with less than 30 days left, or one that its
    authority did not sign or that has other names, is made anew. The token is made once. Idempotent, and safe when
    several processes call it.

    Args:
        port_offset: added to 6443 in the kubeconfig's server address.

    Raises:
        ConfigError: the directory cannot be written.
    """
    pki = data_dir / "pki"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        pki.mkdir(mode=0o700, exist_ok=True)
        with _locked(pki / ".lock"):
            authorities = {name: _authority(pki, name) for name in ("ca", "front-proxy-ca")}
            for name, authority, common_name, is_server in _LEAFS:
                _leaf(pki, name, authorities[authority], common_name, is_server)
            _token_and_kubeconfig(data_dir, port_offset)
    except OSError as exc:
        raise ConfigError(
            f"data directory {data_dir}: cannot keep certificates in it ({exc.strerror or exc}); "
            "make it writable, or name another with --data-dir"
        ) from exc


def token(data_dir: Path) -> str:
    """The admin bearer token that the API server and the node accept.

    Raises:
        ConfigError: it has not been made, or cannot be read.
    """
    path = data_dir / "pki" / "token"
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; start the cluster once to make it") from exc


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, so that a reader or a kill in between never meets half a key."""
    part = path.with_name(path.name + ".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(handle, mode)
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(path)


def _load(pki: Path, name: str) -> Pair | None:
    """The pair from disk, or None when it is missing, unreadable as PEM, ending soon, or does not belong together."""
    try:
        pair = Pair.of_pem((pki / f"{name}.crt").read_bytes(), (pki / f"{name}.key").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return pair if left_ms(pair.certificate, now_ms()) >= RENEW_BEFORE_DAYS * DAY_MS else None


def _save(pki: Path, name: str, pair: Pair) -> Pair:
    _write(pki / f"{name}.key", pair.key_pem.encode(), 0o600)
    _write(pki / f"{name}.crt", pair.certificate_pem.encode(), 0o644)
    return pair


def _authority(pki: Path, name: str) -> Pair:
    return _load(pki, name) or _save(pki, name, certificates.authority(f"flyball-{name}", CA_DAYS, now_ms()))


def _leaf(pki: Path, name: str, authority: Pair, common_name: str, is_server: bool) -> None:
    found = _load(pki, name)
    names = (*DNS_NAMES, *ADDRESSES) if is_server else ()
    if (
        found
        and is_signed_by(found.certificate, authority.certificate)
        and names_of(found.certificate) == sorted(names)
    ):
        return
    group = "system:nodes" if name == "node" else ""
    pair = certificates.leaf(authority, common_name, LEAF_DAYS, now_ms(), organization=group, names=names, client=True)
    _save(pki, name, pair)


def _token_and_kubeconfig(data_dir: Path, port_offset: int) -> None:
    path = data_dir / "pki" / "token"
    if not path.exists() or not path.read_text(encoding="ascii").strip():
        _write(path, secrets.token_urlsafe(32).encode() + b"\n", 0o600)
    ca = (data_dir / "pki" / "ca.crt").read_bytes()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": CONTEXT,
                "cluster": {
                    "server": f"https://127.0.0.1:{API_PORT + port_offset}",
                    "certificate-authority-data": base64.b64encode(ca).decode(),
                },
            }
        ],
        "users": [{"name": CONTEXT, "user": {"token": path.read_text(encoding="ascii").strip()}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}}],
        "current-context": CONTEXT,
    }
    text = yaml.safe_dump(config, sort_keys=False).encode()
    target = data_dir / "kubeconfig"
    if not target.exists() or target.read_bytes() != text:
        _write(target, text, 0o600)
