"""Certificates: authorities of our own and what they sign. Values in, values out; others keep them.

Keys are P-256. The time is an argument; a certificate is valid from an hour before it, since clocks differ.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Certificate = x509.Certificate


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of_pem(cls, certificate: str | bytes, key: str | bytes) -> Self:
        """The first certificate of a text, and its key.

        Raises:
            ValueError: they are no PEM, of another kind, or do not belong together.
        """
        try:
            found = certificates_of(certificate)[0]
            private = serialization.load_pem_private_key(_bytes(key), None)
        except (UnsupportedAlgorithm, IndexError, TypeError) as exc:
            raise ValueError(f"the certificate or the key cannot be read: {exc}") from exc
        if not isinstance(private, ec.EllipticCurvePrivateKey) or found.public_key() != private.public_key():
            raise ValueError("the key is not the certificate's")
        return cls(found, private)

    @property
    def certificate_pem(self) -> str:
        return pem_of(self.certificate)

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


def authority(common_name: str, days: int, now_ms: int) -> Pair:
    """A new authority, which signs leaves and no further authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
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
    builder = _builder(name, name, key, days, now_ms)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Pair(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def leaf(
    issuer: Pair,
    common_name: str,
    days: int,
    now_ms: int,
    *,
    organization: str = "",
    names: Iterable[str] = (),
    client: bool = False,
) -> Pair:
    """A new certificate of an authority.

    Args:
        organization: the subject's, which Kubernetes reads as a group.
        names: DNS names and addresses; with them it serves.
        client: whether it shows who asks.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [_general_name(name) for name in names]
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] * client + [ExtendedKeyUsageOID.SERVER_AUTH] * bool(alternatives)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = (
        _builder(_name(common_name, organization), issuer.certificate.subject, key, days, now_ms)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(issuer_id, critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Pair(builder.sign(issuer.key, hashes.SHA256()), key)


def certificates_of(pem: str | bytes) -> list[Certificate]:
    """Every certificate of a text.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    return x509.load_pem_x509_certificates(_bytes(pem))


def of_der(der: bytes) -> Certificate:
    """A certificate as TLS shows it.

    Raises:
        ValueError: it cannot be read.
    """
    return x509.load_der_x509_certificate(der)


def pem_of(certificate: Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def names_of(certificate: Certificate) -> list[str]:
    """The DNS names and addresses that it serves, sorted."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return sorted(str(name.value) for name in names)


def validity_ms(certificate: Certificate) -> tuple[int, int]:
    """From when to when it is valid, in ms since the epoch."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return round(begins.timestamp() * 1000), round(ends.timestamp() * 1000)


def left_ms(certificate: Certificate, now_ms: int) -> int:
    """How long it is still valid; 0 or less when it no longer is."""
    return validity_ms(certificate)[1] - now_ms


def is_signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether the authority's key signed it, under the authority's name."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, now_ms: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_ms) - dt.timedelta(hours=1))
        .not_valid_after(_time(now_ms) + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str, organization: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _time(now_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).replace(microsecond=0)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
