"""Questions about users and rights: they are answered and never stored."""

import hmac
from typing import Any

from flyball.localcluster import failures
from flyball.localcluster.registry import Served
from flyball.localcluster.requests import Request

Object = dict[str, Any]

ADMIN, ADMIN_GROUPS = "admin", ("system:masters", "system:authenticated")


async def answer_review(request: Request, served: Served, admin_token: bytes) -> None:
    if request.method != "POST":
        raise failures.method_not_allowed()
    obj = await request.object()
    obj["apiVersion"], obj["kind"] = served.group_version, served.kind.kind
    obj.setdefault("metadata", {})
    plural, spec = served.kind.plural, obj.get("spec") or {}
    if plural == "selfsubjectaccessreviews":
        obj["status"] = {"allowed": True, "reason": "the embedded cluster has one user, its administrator"}
    elif plural in ("subjectaccessreviews", "localsubjectaccessreviews"):
        allowed = spec.get("user") not in (None, "", "system:anonymous")
        obj["status"] = {"allowed": allowed}
        if not allowed:
            obj["status"]["reason"] = "anonymous users may read health and version only"
    elif plural == "selfsubjectrulesreviews":
        every = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        obj["status"] = {
            "resourceRules": [every],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False,
        }
    elif plural == "selfsubjectreviews":
        obj["status"] = {"userInfo": {"username": request.user, "groups": list(request.groups)}}
    elif plural == "tokenreviews":
        token = str(spec.get("token") or "").encode()
        if hmac.compare_digest(token, admin_token):
            user = {"username": ADMIN, "uid": ADMIN, "groups": list(ADMIN_GROUPS)}
            obj["status"] = {"authenticated": True, "user": user, "audiences": spec.get("audiences") or []}
        else:
            obj["status"] = {"authenticated": False, "error": "invalid bearer token"}
    await request.answer_object(201, obj)
