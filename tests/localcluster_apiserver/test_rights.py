"""Rights by roles and bindings: requests, reviews and acting for another."""

from pathlib import Path
from typing import Any

import pytest
from tests.localcluster_apiserver.support import CMS, PODS, Client, config_map, run

from flyball.localcluster.rights import Act, acts_of, rule_allows
from flyball.localcluster.workloads.clusterroles import aggregated

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1"


def role(name: str, *rules: Any, kind: str = "Role") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name}, "rules": list(rules)}


def binding(name: str, role_name: str, *subjects: Any, kind: str = "Role") -> dict[str, Any]:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role_name}
    return {"metadata": {"name": name}, "roleRef": ref, "subjects": list(subjects)}


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}


USER = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}


def test_a_user_may_what_its_roles_say_and_nothing_else(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        for name in ("mine", "other"):
            await api("POST", CMS, config_map(name))
        path = f"{RBAC}/namespaces/default"
        reader = role("reader", rule("get", "configmaps", resourceNames=["mine"]), rule("list watch", "pods"))
        await api("POST", f"{path}/roles", reader)
        await api("POST", f"{path}/rolebindings", binding("reads", "reader", USER))
        as_jane = {"Impersonate-User": "jane"}

        assert (await api("GET", f"{CMS}/mine", **as_jane))[0] == 200
        assert (await api("GET", PODS, **as_jane))[0] == 200
        code, body = await api("GET", f"{CMS}/other", **as_jane)
        assert code == 403
        assert body["message"] == (
            'configmaps "other" is forbidden: User "jane" cannot get resource "configmaps" in API group "" '
            'in the namespace "default"'
        )
        assert body["details"] == {"name": "other", "kind": "configmaps"}
        code, body = await api("GET", "/apis/apps/v1/deployments", **as_jane)
        assert code == 403
        assert body["message"].endswith('cannot list resource "deployments" in API group "apps" at the cluster scope')
        code, body = await api("GET", "/metrics", **as_jane)
        assert (code, body["message"]) == (403, 'forbidden: User "jane" cannot get path "/metrics"')
        assert (await api("GET", "/apis", **as_jane))[0] == 200, "discovery is everybody's"
        _, body = await api("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, **as_jane)
        assert body["status"]["userInfo"] == {"username": "jane", "groups": ["system:authenticated"]}
        code, body = await api("GET", PODS, **as_jane, **{"Impersonate-Group": "system:masters"})
        assert code == 200, "the administrator may act for any group"

        attributes = {"verb": "list", "resource": "pods", "namespace": "default"}
        ask = {"spec": {"resourceAttributes": attributes}}
        _, body = await api("POST", f"{REVIEWS}/selfsubjectaccessreviews", ask, **as_jane)
        why = 'RBAC: allowed by RoleBinding "reads/default" of Role "reader" to User "jane"'
        assert body["status"] == {"allowed": True, "reason": why}
        of_john = {"spec": {"user": "john", "resourceAttributes": attributes}}
        _, body = await api("POST", f"{REVIEWS}/subjectaccessreviews", of_john)
        assert body["status"] == {"allowed": False}
        _, body = await api("POST", f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, **as_jane)
        assert {"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["pods"]} in body["status"]["resourceRules"]
        assert any("/api/*" in one["nonResourceURLs"] for one in body["status"]["nonResourceRules"])
        assert not body["status"]["incomplete"]

        await api("DELETE", f"{path}/roles/reader")
        _, body = await api("POST", f"{REVIEWS}/selfsubjectaccessreviews", ask, **as_jane)
        assert body["status"] == {
            "allowed": False,
            "reason": 'rbac: RBAC: role.rbac.authorization.k8s.io "reader" not found',
        }

    run(tmp_path, steps)


def test_acting_for_another_is_a_right_of_its_own(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
        _, made = await api("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {}})
        admin, api.token = api.token, made["status"]["token"]
        code, body = await api("GET", PODS, **{"Impersonate-User": "jane"})
        assert code == 403
        assert body["message"] == (
            'users "jane" is forbidden: User "system:serviceaccount:default:robot" cannot impersonate resource "users" '
            'in API group "" at the cluster scope'
        )
        api.token = admin
        subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "default"}
        await api("POST", f"{RBAC}/clusterrolebindings", binding("root", "cluster-admin", subject, kind="ClusterRole"))
        api.token = made["status"]["token"]
        assert (await api("GET", PODS))[0] == 200
        assert (await api("GET", PODS, **{"Impersonate-User": "jane"}))[0] == 403, "now it is jane who may not"

    run(tmp_path, steps)


class Asked:
    content_type = ""

    def __init__(self, method: str, path: str, **params: str) -> None:
        self.method, self.raw_path = method, path
        self.segments = [part for part in path.split("/") if part]
        self.params = {name: [value] for name, value in params.items()}

    def param(self, name: str) -> str:
        return self.params.get(name, [""])[0]


@pytest.mark.parametrize(
    ("asked", "acts"),
    [
        (Asked("GET", "/api/v1/namespaces"), [Act("list", "", "namespaces")]),
        (Asked("GET", "/api/v1/namespaces/n"), [Act("get", "", "namespaces", "n", "n")]),
        (Asked("PUT", "/api/v1/namespaces/n/finalize"), [Act("update", "", "namespaces/finalize", "n", "n")]),
        (Asked("GET", "/apis/apps/v1/deployments", watch="1"), [Act("watch", "apps", "deployments")]),
        (Asked("GET", "/api/v1/pods", fieldSelector="metadata.name=a"), [Act("list", "", "pods", "", "a")]),
        (Asked("DELETE", "/api/v1/namespaces/n/pods"), [Act("deletecollection", "", "pods", "n")]),
        (Asked("PATCH", "/apis/apps/v1/namespaces/n/deployments/d/scale"),
         [Act("patch", "apps", "deployments/scale", "n", "d")]),
        (Asked("POST", "/api/v1/namespaces/n/pods/p/exec"), [Act("create", "", "pods/exec", "n", "p")]),
        (Asked("GET", "/api/v1/namespaces/n/pods/p/exec"),
         [Act("get", "", "pods/exec", "n", "p"), Act("create", "", "pods/exec", "n", "p")]),
        (Asked("POST", "/x/y"), [Act("create", path="/x/y")]),
    ],
)  # fmt: skip
def test_what_a_request_does(asked: Any, acts: list[Act]) -> None:
    assert acts_of(asked) == acts


def test_stars_cover_groups_resources_and_paths() -> None:
    assert rule_allows(rule("*", "*/scale", "*"), Act("update", "apps", "deployments/scale"))
    assert not rule_allows(rule("*", "*/scale", "*"), Act("update", "apps", "deployments"))
    assert not rule_allows(rule("get", "pods"), Act("get", "", "pods/log"))
    assert not rule_allows(rule("get", "*", resourceNames=["a"]), Act("get", "", "pods"))
    assert rule_allows({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}, Act("get", path="/healthz/etcd"))
    assert not rule_allows({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}, Act("get", path="/healthz/etcd"))


def test_a_role_of_roles_has_the_rules_of_all_that_it_chooses() -> None:
    def labelled(name: str, *rules: Any, **labels: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": labels}, "rules": list(rules)}

    first, second = rule("get", "pods"), rule("get", "widgets", "example.com")
    view = labelled("view") | {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}}
    others = [labelled("b", second, first, to="view"), labelled("a", first, to="view"), labelled("c", rule("get", "x"))]
    assert aggregated(view, [view, *others]) == [first, second]
