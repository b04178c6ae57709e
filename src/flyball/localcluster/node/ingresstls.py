"""The certificates of Ingresses: which Secret's a host is served with, by the name in the client's hello (SNI)."""

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from flyball import clock
from flyball.http import certificates
from flyball.http.server import serving_context
from flyball.localcluster.node.volumes import object_values

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name of a Secret."""

OWN_NAME = "flyball-ingress"
OWN_DAYS = 365
ANY = ""


def wanted(ingresses: Iterable[Object]) -> dict[str, Key]:
    """Host -> the Secret that the Ingresses name for it, the first one's where they disagree.

    A ``tls`` part without hosts is for every host (``ANY``).
    """
    found: dict[str, Key] = {}
    for ingress in ingresses:
        namespace = ingress["metadata"].get("namespace") or "default"
        for part in (ingress.get("spec") or {}).get("tls") or []:
            if part.get("secretName"):
                for host in part.get("hosts") or [ANY]:
                    found.setdefault(host.lower(), (namespace, part["secretName"]))
    return found


def secret_of(hosts: Mapping[str, Key], host: str) -> Key | None:
    """The Secret of the host itself, else of its wildcard (one label), else of every host."""
    name = host.lower().rstrip(".")
    for one in (name, f"*.{name.partition('.')[2]}", ANY):
        if one in hosts:
            return hosts[one]
    return None


class IngressCertificates:
    """Follows Secrets; ``context`` serves each host with its own certificate, and strangers with one made here."""

    def __init__(self) -> None:
        self.hosts: dict[str, Key] = {}
        self._contexts: dict[Key, ssl.SSLContext] = {}
        self._problems: dict[Key, str] = {}
        self._own: ssl.SSLContext | None = None

    def observe(self, change: str, secret: Object) -> None:
        """A Secret of type kubernetes.io/tls was added, changed or removed."""
        key = (secret["metadata"].get("namespace") or "default", secret["metadata"]["name"])
        self._contexts.pop(key, None)
        self._problems.pop(key, None)
        if change == "DELETED":
            return
        values = object_values("Secret", secret)
        try:
            self._contexts[key] = serving_context(values.get("tls.crt", b""), values.get("tls.key", b""))
        except (ssl.SSLError, ValueError) as exc:
            self._problems[key] = f"its tls.crt and tls.key do not serve ({exc})"

    def problem(self, key: Key) -> str:
        """Why a Secret cannot be served with; "" when it can."""
        return (
            ""
            if key in self._contexts
            else self._problems.get(key, "there is no such Secret of type kubernetes.io/tls")
        )

    @property
    def context(self) -> ssl.SSLContext:
        """For the listener."""
        if self._own is None:
            now_ms = clock.now_ms()
            authority = certificates.authority(f"{OWN_NAME}-ca", OWN_DAYS, now_ms)
            pair = certificates.leaf(authority, OWN_NAME, OWN_DAYS, now_ms, names=["localhost"])
            self._own = serving_context(pair.certificate_pem.encode(), pair.key_pem.encode())
            self._own.sni_callback = self._choose
        return self._own

    def _choose(self, connection: ssl.SSLObject, host: str | None, _context: ssl.SSLContext) -> None:
        key = secret_of(self.hosts, host or "")
        if key is not None and key in self._contexts:
            connection.context = self._contexts[key]
