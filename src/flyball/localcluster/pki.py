"""The embedded cluster's own certificate authorities, leaf certificates, admin token and kubeconfig."""

import base64
import datetime as dt
import fcntl
import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flyball.clock import now_ms
from flyball.errors import ConfigError

API_PORT = 6443
CONTEXT = "flyball"
CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_BEFORE_DAYS = 30
DNS_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "flyball-adapter.flyball-system.svc",
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
    authority did not sign, is made anew. The token is made once. Idempotent, and safe when several processes call it.

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


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(now_ms() / 1000, dt.UTC).replace(microsecond=0)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(pki: Path, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The pair from disk, or None when it is missing, unreadable as PEM, ending soon, or does not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate((pki / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((pki / f"{name}.key").read_bytes(), None)
    except (FileNotFoundError, ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    if certificate.not_valid_after_utc - _now() < dt.timedelta(days=RENEW_BEFORE_DAYS):
        return None
    return certificate, key


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(pki: Path, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    found = _load(pki, name)
    if found:
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"flyball-{name}")
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(subject, subject, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(pki / f"{name}.key", _pem_key(key), 0o600)
    _write(pki / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, key


def _leaf(
    pki: Path,
    name: str,
    authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    common_name: str,
    is_server: bool,
) -> None:
    ca_certificate, ca_key = authority
    found = _load(pki, name)
    if found and _signed_by(found[0], ca_certificate):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(
        _name(common_name, "system:nodes" if name == "node" else None), ca_certificate.subject, key, LEAF_DAYS
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
    )
    if is_server:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "127.11.0.1")]
        names: list[x509.GeneralName] = [x509.DNSName(text) for text in DNS_NAMES]
        builder = builder.add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write(pki / f"{name}.key", _pem_key(key), 0o600)
    _write(pki / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # the library raises several kinds for a foreign or malformed signature; all mean "no"
        return False
    return True


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
