"""Tokens of service accounts: signed JSON Web Tokens that the API server gives out and knows again.

They are signed with a key derived from the cluster's own secret (HS256), so nobody else can make or check them.
"""

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from flyball.localcluster import failures
from flyball.localcluster.storage import Storage

Object = dict[str, Any]

ISSUER = "https://kubernetes.default.svc"
STORE = "/serviceaccounts"
EXPIRATION_S = 3600
EXPIRATION_MIN_S = 600
EXPIRATION_MAX_S = 1 << 32
_HEADER = msgspec.json.encode({"alg": "HS256", "typ": "JWT"})


@dataclass(frozen=True, slots=True)
class User:
    """Who a request comes from."""

    name: str
    uid: str
    groups: tuple[str, ...]


class TokenAuthority:
    """Gives out tokens for service accounts and says whose a token is."""

    def __init__(self, storage: Storage, secret: bytes) -> None:
        self._storage = storage
        self._key = hashlib.sha256(b"service account tokens\0" + secret).digest()

    def request(self, account: Object, asked: Object, now_ms: int) -> tuple[str, int]:
        """A token for the account, and when it ends (ms); ``asked`` is the TokenRequest's spec.

        Raises:
            ApiFailure: 422, the asked-for time is too short or too long.
        """
        seconds = asked.get("expirationSeconds") or EXPIRATION_S
        problem = ""
        if seconds < EXPIRATION_MIN_S:
            problem = "may not specify a duration less than 10 minutes"
        elif seconds > EXPIRATION_MAX_S:
            problem = "may not specify a duration larger than 2^32 seconds"
        if problem:
            message = f"Invalid value: {seconds}: {problem}"
            cause = {"reason": "FieldValueInvalid", "message": message, "field": "spec.expirationSeconds"}
            raise failures.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
        metadata, now_s = account["metadata"], now_ms // 1000
        about: Object = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        bound = asked.get("boundObjectRef")
        if bound:
            about[str(bound.get("kind", "")).lower()] = {"name": bound.get("name"), "uid": bound.get("uid")}
        claims = {
            "aud": asked.get("audiences") or [ISSUER],
            "exp": now_s + seconds,
            "iat": now_s,
            "nbf": now_s,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "kubernetes.io": about,
        }
        signed = _text(_HEADER) + "." + _text(msgspec.json.encode(claims))
        return signed + "." + _text(self._signature(signed)), (now_s + seconds) * 1000

    def user_of(self, token: str, now_ms: int) -> User | None:
        """Whose token it is; None when it is not ours, has ended, or its account is gone."""
        signed, _, signature = token.rpartition(".")
        try:
            if not hmac.compare_digest(_bytes(signature), self._signature(signed)):
                return None
            claims = msgspec.json.decode(_bytes(signed.partition(".")[2]))
            about = claims["kubernetes.io"]
            namespace, account = about["namespace"], about["serviceaccount"]
            found = self._storage.get(STORE, namespace, account["name"])
            if claims["exp"] * 1000 <= now_ms or found is None or found.object["metadata"]["uid"] != account["uid"]:
                return None
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError):
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], account["uid"], groups)

    def _signature(self, signed: str) -> bytes:
        return hmac.new(self._key, signed.encode(), hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
