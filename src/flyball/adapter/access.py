"""Who asks, and whether they may (reference/adapter.md section 2.6, reference/reliability.md section 5).

As every aggregated API server: a user named in headers by a front proxy that shows a certificate of the request-header
authority, with a name that is allowed; else a bearer token that the API server knows; else anonymous. Then, for
everyone but ``system:masters``, the API server is asked whether the user may. Headers without the certificate are air.
"""

import asyncio
import contextlib
import functools
import hmac
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from flyball import clock
from flyball.adapter.documents import Failure
from flyball.adapter.remembered import Remembered
from flyball.errors import FlyballError
from flyball.kube import Informer, KubeClient
from flyball.kube.kinds import CONFIG_MAPS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

log = logging.getLogger(__name__)

AUTHENTICATION_MAP = ("kube-system", "extension-apiserver-authentication")
MASTERS = "system:masters"
PARTITION_GRACE_S = 300.0  # how long a permission outlives its time while nobody can be asked again


@dataclass(frozen=True, slots=True)
class User:
    """Kubernetes' UserInfo."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a decision is made from.

    Attributes:
        headers: (lower-case name, value), in the order they came.
        peer: the verified peer certificate in ssl's dict form, or None; ``peer_der`` the certificate itself.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    peer: Mapping[str, Any] | None = None
    peer_der: bytes | None = None

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def bearer(self) -> str | None:
        """The bearer token, or None without one; an empty one is none."""
        for value in self.values("authorization"):
            if value[:7].lower() == "bearer ":
                return value[7:].strip() or None
        return None


def asked_of(scope: Mapping[str, Any]) -> Asked:
    """From an ASGI scope."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    headers = tuple((key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"])
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.split(b"?")[0].decode("latin-1")
    return Asked(scope.get("method", "GET"), path, headers, tls.get("peercert"), tls.get("der"))


class Access(Protocol):
    """Decides about requests."""

    async def admit(self, asked: Asked) -> User:
        """Who asks, when they may.

        Raises:
            Failure: 401 or 403 with the reason; 500 when nobody can be asked.
        """


class TokenAccess:
    """The embedded cluster's: one token, and the API server's own certificate.

    Args:
        token: a bearer token equal to it may ask; "" turns tokens off.
        front_proxy_names: names (CN) that a verified peer certificate may have. The server must verify it against the
            front-proxy authority and no other.
    """

    def __init__(self, token: str, front_proxy_names: Iterable[str] = ("front-proxy-client",)) -> None:
        self._token, self._names = token, frozenset(front_proxy_names)

    async def admit(self, asked: Asked) -> User:
        if asked.peer and common_names(asked.peer) & self._names:
            return User("system:front-proxy")  # the API server has admitted the user before it passed this on
        if (given := asked.bearer) is not None:
            if self._token and hmac.compare_digest(given.encode(), self._token.encode()):
                return User("flyball:admin")
            raise Failure(401, "Unauthorized: the bearer token is not known here")
        raise Failure(
            403,
            "forbidden: anonymous requests are not answered; ask through the Kubernetes API server, or send its token",
        )


def common_names(peer: Mapping[str, Any]) -> frozenset[str]:
    """The CNs of a certificate in ssl's dict form."""
    return frozenset(value for part in peer.get("subject") or () for key, value in part if key == "commonName")


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """What kube-apiserver publishes about itself as a front proxy. Without a CA nobody is trusted.

    Attributes:
        allowed_names: CNs; empty allows any name that the authority signed.
    """

    ca_pem: str = ""
    allowed_names: tuple[str, ...] = ()
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    def user(self, asked: Asked) -> User | None:
        """The user of the headers, when the peer is the front proxy; its certificate must have been verified."""
        if not self.ca_pem or not asked.peer or not asked.peer_der:
            return None
        names = common_names(asked.peer)
        if self.allowed_names and not names & frozenset(self.allowed_names):
            return None
        if not issued_by(asked.peer_der, self.ca_pem):
            return None  # an open connection outlives the authority that signed its certificate
        name = next((value for header in self.username_headers for value in asked.values(header) if value), "")
        if not name:
            return None
        groups = tuple(value for header in self.group_headers for value in asked.values(header))
        uid = next((value for header in self.uid_headers for value in asked.values(header) if value), "")
        extra: dict[str, list[str]] = {}
        for key, value in asked.headers:
            for prefix in self.extra_prefixes:
                if key.startswith(prefix.lower()):
                    extra.setdefault(unquote(key[len(prefix) :]), []).append(value)
        return User(name, groups, uid, tuple((key, tuple(values)) for key, values in extra.items()))


def front_proxy_of(data: Mapping[str, str]) -> FrontProxy:
    """From the data of the ConfigMap ``kube-system/extension-apiserver-authentication``.

    Raises:
        ValueError: a list in it is not JSON.
    """

    def names(key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        text = data.get(key)
        return default if not text else tuple(msgspec.json.decode(text, type=list[str]))

    base = FrontProxy()
    return FrontProxy(
        data.get("requestheader-client-ca-file", ""),
        names("requestheader-allowed-names", ()),
        names("requestheader-username-headers", base.username_headers),
        names("requestheader-group-headers", base.group_headers),
        names("requestheader-uid-headers", base.uid_headers),
        names("requestheader-extra-headers-prefix", base.extra_prefixes),
    )


def issued_by(der: bytes, ca_pem: str) -> bool:
    """Whether an authority of the bundle signed the certificate, and both are in their time."""
    now_ms = clock.now_ms()
    return any(begins_ms <= now_ms <= ends_ms for begins_ms, ends_ms in _times(der, ca_pem))


@functools.lru_cache(maxsize=64)  # a front proxy shows the same certificate with every request
def _times(der: bytes, ca_pem: str) -> tuple[tuple[float, float], ...]:
    """When a certificate and an authority of the bundle that signed it are both valid: (ms, ms) for each such one."""
    from flyball.http.certificates import certificates_of, is_signed_by, of_der, validity_ms

    try:
        certificate, authorities = of_der(der), certificates_of(ca_pem)
    except ValueError:
        return ()
    begins_ms, ends_ms = validity_ms(certificate)
    both = (validity_ms(authority) for authority in authorities if is_signed_by(certificate, authority))
    return tuple((max(begins_ms, begins), min(ends_ms, ends)) for begins, ends in both)


class FrontProxyWatch:
    """Keeps ``current`` as the cluster publishes it, rotation included.

    Args:
        changed: called with every new state, so that the TLS side can load the authority.
    """

    def __init__(self, client: KubeClient, changed: Callable[[FrontProxy], None] = lambda _: None) -> None:
        namespace, name = AUTHENTICATION_MAP
        self.current = FrontProxy()
        self._changed = changed
        self._informer: Informer[dict[str, Any]] = Informer(
            client, CONFIG_MAPS, namespace, field_selector=f"metadata.name={name}"
        )
        self._informer.add_handler(self._on_change)

    async def run(self) -> None:
        await self._informer.run()

    async def wait_known(self, timeout_s: float) -> None:
        """Returns once the cluster has said whom to trust, or after the time-out, with nobody trusted yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._informer.wait_synced()

    def _on_change(self, _change: str, _old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is None or (new.get("metadata") or {}).get("name") != AUTHENTICATION_MAP[1]:
            return  # deleted: what held before still does
        try:
            found = front_proxy_of(new.get("data") or {})
        except ValueError as exc:
            log.warning("front_proxy_refused config_map=%s/%s error=%s", *AUTHENTICATION_MAP, exc)
            return
        if found != self.current:
            self.current = found
            log.info("front_proxy_changed allowed_names=%s", ",".join(found.allowed_names) or "any")
            self._changed(found)


class DelegatedAccess:
    """A real cluster's: the API server is asked about tokens and permissions.

    Args:
        front_proxy: gives the state in force.
        token_ttl_s, allow_ttl_s, deny_ttl_s: how long answers are remembered. Below the HPA's sync period (15 s) every
            HPA costs a review at every sync.
    """

    def __init__(
        self,
        client: KubeClient,
        front_proxy: Callable[[], FrontProxy],
        *,
        token_ttl_s: float = 10.0,
        allow_ttl_s: float = 30.0,
        deny_ttl_s: float = 10.0,
    ) -> None:
        self._client, self._front_proxy = client, front_proxy
        self._tokens: Remembered[User | None] = Remembered(lambda _: token_ttl_s)
        self._permissions: Remembered[bool] = Remembered(
            lambda allowed: allow_ttl_s if allowed else deny_ttl_s, grace_s=PARTITION_GRACE_S
        )

    def statistics(self) -> dict[str, int]:
        """Reviews asked of the API server."""
        return {"token_reviews": self._tokens.asked, "access_reviews": self._permissions.asked}

    async def admit(self, asked: Asked) -> User:
        user = self._front_proxy().user(asked)
        if user is None and (token := asked.bearer) is not None:
            user = await self._user_of(token)
            if user is None:
                raise Failure(401, "Unauthorized")
        user = user or ANONYMOUS
        if MASTERS in user.groups:
            return user
        attributes = request_attributes(asked.method, asked.path)
        if not await self._may(user, attributes):
            raise Failure(403, f'forbidden: User "{user.name}" cannot {described(attributes)}')
        return user

    async def _user_of(self, token: str) -> User | None:
        async def review() -> User | None:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            status = (await self._client.create(TOKEN_REVIEWS, body)).get("status") or {}
            if not status.get("authenticated"):
                return None
            info = status.get("user") or {}
            extra = tuple((key, tuple(values)) for key, values in sorted((info.get("extra") or {}).items()))
            groups = (*(info.get("groups") or ()), "system:authenticated")
            return User(str(info.get("username", "")), tuple(dict.fromkeys(groups)), str(info.get("uid", "")), extra)

        key = hmac.digest(b"flyball", token.encode(), "sha256")  # the token itself is not kept
        try:
            return await self._tokens.get(key, review)
        except FlyballError as exc:
            raise _cannot_ask(exc) from exc

    async def _may(self, user: User, attributes: Mapping[str, Any]) -> bool:
        async def review() -> bool:
            spec = {
                "user": user.name,
                "groups": list(user.groups),
                "uid": user.uid,
                "extra": {key: list(values) for key, values in user.extra},
                **attributes,
            }
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            status = (await self._client.create(SUBJECT_ACCESS_REVIEWS, body)).get("status") or {}
            return bool(status.get("allowed")) and not status.get("denied")

        key = (user, msgspec.json.encode(attributes))
        try:
            return await self._permissions.get(key, review)
        except FlyballError as exc:
            if self._permissions.expired(key):
                return True  # nobody can be asked; what was allowed a moment ago still is
            raise _cannot_ask(exc) from exc


def _cannot_ask(exc: FlyballError) -> Failure:
    return Failure(500, f"Internal error occurred: the API server cannot be asked who may: {exc}")


def request_attributes(method: str, path: str) -> dict[str, Any]:
    """The attributes of a SubjectAccessReview, as kube-apiserver's RequestInfo reads a path.

    ``pods/*/m`` is get of pods/m named ``*``; a metric of a namespace is get of ``metrics`` named m; an external metric
    is list of m. Other paths are non-resource paths.
    """
    verb = "get" if method in ("GET", "HEAD") else method.lower()
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] != "apis" or len(parts) < 4:
        return {"nonResourceAttributes": {"path": unquote(path), "verb": verb}}
    attributes = {"group": parts[1], "version": parts[2]}
    rest = parts[3:]
    if rest[0] == "namespaces" and len(rest) > 1:
        attributes["namespace"] = rest[1]
        # /namespaces/x is the namespace itself; a third part names a resource in it
        rest = rest[2:] if len(rest) > 2 else rest
    for key, value in zip(("resource", "name", "subresource"), rest, strict=False):
        attributes[key] = value
    attributes["verb"] = "list" if verb == "get" and "name" not in attributes else verb
    return {"resourceAttributes": attributes}


def described(attributes: Mapping[str, Any]) -> str:
    """``get resource "pods/m" in API group "custom.metrics.k8s.io" in the namespace "x"``."""
    if (other := attributes.get("nonResourceAttributes")) is not None:
        return f'{other["verb"]} path "{other["path"]}"'
    found: Mapping[str, str] = attributes["resourceAttributes"]
    shown = found["resource"] + (f"/{found['subresource']}" if found.get("subresource") else "")
    where = f' in the namespace "{found["namespace"]}"' if found.get("namespace") else " at the cluster scope"
    return f'{found["verb"]} resource "{shown}" in API group "{found["group"]}"{where}'
