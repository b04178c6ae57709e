"""Questions about users and rights: they are answered and never stored."""

import hmac
from typing import Any

from flyball.clock import now_ms, rfc3339
from flyball.localcluster import failures
from flyball.localcluster.registry import Served
from flyball.localcluster.requests import Request
from flyball.localcluster.rights import AUTHENTICATED, MASTERS, Act, Rights
from flyball.localcluster.tokens import EXPIRATION_S, ISSUER, TokenAuthority, User

Object = dict[str, Any]

ADMIN, ADMIN_GROUPS = "admin", (MASTERS, AUTHENTICATED)


async def answer_review(
    request: Request, served: Served, tokens: TokenAuthority, rights: Rights, admin_token: bytes
) -> None:
    if request.method != "POST":
        raise failures.method_not_allowed()
    obj = await request.object()
    obj["apiVersion"], obj["kind"] = served.group_version, served.kind.kind
    obj.setdefault("metadata", {})
    plural, spec = served.kind.plural, obj.get("spec") or {}
    if plural in ("selfsubjectaccessreviews", "subjectaccessreviews", "localsubjectaccessreviews"):
        _check_access_review(served, spec)
        who, groups = request.user, request.groups
        if plural != "selfsubjectaccessreviews":
            who, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
        allowed, why = rights.allows(who, groups, Act.reviewed(spec))
        obj["status"] = {"allowed": allowed} | ({"reason": why} if why else {})
    elif plural == "selfsubjectrulesreviews":
        obj["status"] = _rules_status(rights, request.user, request.groups, str(spec.get("namespace") or ""))
    elif plural == "selfsubjectreviews":
        obj["metadata"]["creationTimestamp"] = rfc3339(now_ms())
        user = {"username": request.user, "uid": request.uid, "groups": list(request.groups)}
        obj["status"] = {"userInfo": {key: value for key, value in user.items() if value}}
    elif plural == "tokenreviews":
        token = str(spec.get("token") or "")
        if not token:
            raise failures.bad_request("token is required for TokenReview in authentication")
        is_admin = hmac.compare_digest(token.encode(), admin_token)
        owner = User(ADMIN, ADMIN, ADMIN_GROUPS) if is_admin else tokens.user_of(token, now_ms())
        if owner is not None:
            user = {"username": owner.name, "uid": owner.uid, "groups": list(owner.groups)}
            obj["status"] = {"authenticated": True, "user": user, "audiences": spec.get("audiences") or [ISSUER]}
        else:
            obj["status"] = {"user": {}, "error": "invalid bearer token"}
    await request.answer_object(201, obj)


def _rules_status(rights: Rights, user: str, groups: tuple[str, ...], namespace: str) -> Object:
    """
    Raises:
        ApiFailure: 400, rules are asked for without a namespace.
    """
    if not namespace:
        raise failures.bad_request("no namespace on request")
    status: Object = {"resourceRules": [], "nonResourceRules": [], "incomplete": False}
    problems = []
    for rule, source in rights.rules(user, groups, namespace):
        if rule is None:
            problems.append(source)
        elif rule.get("nonResourceURLs"):
            status["nonResourceRules"].append(rule)
        else:
            status["resourceRules"].append(rule)
    return status | ({"evaluationError": ", ".join(problems)} if problems else {})


async def answer_token_request(request: Request, account: Object, tokens: TokenAuthority) -> None:
    """A token for a service account.

    Raises:
        ApiFailure: it asks for a time that is not given.
    """
    if request.method != "POST":
        raise failures.method_not_allowed()
    asked = await request.object()
    spec = {
        "audiences": [ISSUER],
        "expirationSeconds": EXPIRATION_S,
        "boundObjectRef": None,
        **(asked.get("spec") or {}),
    }
    token, until_ms = tokens.request(account, spec, now_ms())
    metadata = {key: account["metadata"][key] for key in ("name", "namespace")}
    metadata["creationTimestamp"] = rfc3339(now_ms())
    await request.answer_object(
        201,
        {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": metadata,
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": rfc3339(until_ms)},
        },
    )


def _check_access_review(served: Served, spec: Object) -> None:
    """Who asks, and about what, must be said.

    Raises:
        ApiFailure: 422, it is not.
    """
    causes = []
    if bool(spec.get("resourceAttributes")) == bool(spec.get("nonResourceAttributes")):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append({"reason": "FieldValueInvalid", "message": f"Invalid value: null: {text}", "field": "spec"})
    is_own = served.kind.plural == "selfsubjectaccessreviews"
    if not is_own and not spec.get("user") and not spec.get("groups"):
        text = 'Invalid value: "": at least one of user or group must be specified'
        causes.append({"reason": "FieldValueInvalid", "message": text, "field": "spec.user"})
    if causes:
        raise failures.invalid(served.kind.group, "", "", causes)
