"""Tokens of service accounts: given out, known again, refused when they should be."""

from pathlib import Path
from typing import Any

from tests.localcluster_apiserver.support import Client, run

from flyball.localcluster.storage import Storage
from flyball.localcluster.tokens import TokenAuthority

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}


def review(token: str) -> dict[str, Any]:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}


def test_a_token_opens_the_api_as_its_account_until_the_account_is_gone(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", ACCOUNTS, ACCOUNT)
        status, made = await api("POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 900}})
        assert status == 201 and made["status"]["expirationTimestamp"]
        token, admin = made["status"]["token"], api.token
        _, body = await api("POST", REVIEWS, review(token))
        user = body["status"]["user"]
        assert body["status"]["authenticated"] and user["username"] == "system:serviceaccount:default:robot"
        assert "system:serviceaccounts:default" in user["groups"]
        api.token = token
        assert (await api("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}))[0] == 201
        assert (await api("GET", f"{ACCOUNTS}/robot"))[0] == 403, "nobody gave it that right"
        api.token = token[:-2] + ("aa" if token[-2:] != "aa" else "bb")
        assert (await api("GET", f"{ACCOUNTS}/robot"))[0] == 401
        api.token = admin
        await api("DELETE", f"{ACCOUNTS}/robot")
        await api("POST", ACCOUNTS, ACCOUNT)
        _, body = await api("POST", REVIEWS, review(token))
        assert "authenticated" not in body["status"], "another account of the same name"
        status, body = await api("POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 60}})
        assert status == 422 and body["message"] == (
            'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: '
            "may not specify a duration less than 10 minutes"
        )
        status, body = await api("POST", f"{ACCOUNTS}/none/token", {})
        assert status == 404 and body["message"] == 'serviceaccounts "none" not found'

    run(tmp_path, steps)


def test_tokens_end_and_are_only_known_to_their_own_cluster(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "objects.sqlite")
    account = {"metadata": {"name": "a", "namespace": "n", "uid": "u"}}
    storage.put("/serviceaccounts", "n", "a", account)
    tokens = TokenAuthority(storage, b"secret")
    token, until_ms = tokens.request(account, {}, 1_000_000)
    assert until_ms == 1_000_000 + 3_600_000
    assert tokens.user_of(token, until_ms - 1) is not None and tokens.user_of(token, until_ms) is None
    assert TokenAuthority(storage, b"other").user_of(token, 1_000_000) is None
    for nonsense in ("", "a", "a.b.c", token + "x", "." + token, "\xff.\xff.\xff"):
        assert tokens.user_of(nonsense, 1_000_000) is None
    storage.close()
