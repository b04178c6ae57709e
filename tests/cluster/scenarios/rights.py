"""Who may give what: roles and bindings written by those who are no administrators, and what a node may."""

from typing import Any

from tests.cluster.scenarios.manifests import CORE, config_map, obj
from tests.cluster.steps import Http, Kubectl, Step

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
_GROUP = "rbac.authorization.k8s.io"
_RBAC = f"/apis/{_GROUP}/v1"
_OWN = f"{_RBAC}/namespaces/$NS"


def _rule(verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}


def _role(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "rules": list(rules), **more}


def _binding(name: str, kind: str, role: str, user: str) -> dict[str, Any]:
    ref = {"apiGroup": _GROUP, "kind": kind, "name": role}
    return {"metadata": {"name": name}, "roleRef": ref, "subjects": [{"kind": "User", "name": user}]}


_SEEN = Kubectl("get roles -o name", quiet=True)  # an API server hears of roles by a watch: a moment for that
_JANE = {"user": "jane"}
_JOHN = {"user": "$NS-john"}
_NODE = {"user": "system:node:$NS-n1", "group": "system:nodes"}
_WRITE = "create get list update patch delete"
_GIVEN = [
    _rule(_WRITE, "roles rolebindings", _GROUP),
    _rule("get list", "pods"),
    _rule("get", "configmaps", resourceNames=["a"]),
]
_POD = obj(
    "Pod",
    "user",
    spec={
        "nodeName": "$NS-n1",
        "containers": [
            {
                "name": "web",
                "image": "web",
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "named", "key": "k"}}}],
            }
        ],
        "volumes": [{"name": "s", "secret": {"secretName": "used"}}],
    },
)

SCENARIOS: dict[str, list[Step]] = {
    "escalation": [
        Http("POST", f"{_OWN}/roles", _role("giver", *_GIVEN)),
        Http("POST", f"{_OWN}/rolebindings", _binding("giver", "Role", "giver", "jane")),
        Http("POST", f"{_OWN}/roles", _role("strong", _rule("get", "secrets"))),
        _SEEN,
        Http("POST", f"{_OWN}/roles", _role("fine", _rule("get", "pods")), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("more", _rule("list delete get watch", "pods secrets")), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("all", _rule("*", "*", "*")), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("logs", _rule("get", "pods/log pods")), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("a", _rule("get", "configmaps", resourceNames=["a"])), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("ab", _rule("get", "configmaps", resourceNames=["a", "b"])), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("any", _rule("get", "configmaps")), **_JANE),
        Http("PUT", f"{_OWN}/roles/fine", _role("fine", _rule("get", "secrets")), **_JANE),
        Http("PATCH", f"{_OWN}/roles/fine", {"rules": [_rule("update", "pods")]}, MERGE, **_JANE),
        Http("PATCH", f"{_OWN}/roles/strong", {"metadata": {"labels": {"a": "b"}}}, MERGE, **_JANE),
        Http("PATCH", f"{_OWN}/roles/strong", {"metadata": {"finalizers": ["example.com/a"]}}, MERGE, **_JANE),
        Http("PATCH", f"{_OWN}/roles/strong", {"metadata": {"finalizers": None}}, MERGE, **_JANE),
        Http(
            "PATCH",
            f"{_OWN}/roles/applied?fieldManager=jane",
            {"apiVersion": f"{_GROUP}/v1", "kind": "Role", **_role("applied", _rule("get", "secrets"))},
            APPLY,
            **_JANE,
        ),
        Http("POST", f"{_OWN}/rolebindings", _binding("fine", "Role", "fine", "joe"), **_JANE),
        Http("POST", f"{_OWN}/rolebindings", _binding("strong", "Role", "strong", "joe"), **_JANE),
        Http("POST", f"{_OWN}/rolebindings", _binding("nosuch", "Role", "nosuch", "joe"), **_JANE),
        Http("POST", f"{_OWN}/rolebindings", _binding("nosuch", "ClusterRole", "nosuch", "joe"), **_JANE),
        Http("POST", f"{_OWN}/rolebindings", _binding("every", "ClusterRole", "cluster-admin", "joe"), **_JANE),
        Http("POST", f"{_RBAC}/clusterroles", _role("$NS-any", _rule("get", "pods")), **_JANE),
        # allowed to bind, allowed to escalate
        Http(
            "POST",
            f"{_OWN}/roles",
            _role(
                "binder", _rule("bind", "roles", _GROUP, resourceNames=["strong"]), _rule("escalate", "roles", _GROUP)
            ),
        ),
        Http("POST", f"{_OWN}/rolebindings", _binding("binder", "Role", "binder", "jane")),
        _SEEN,
        Http("POST", f"{_OWN}/rolebindings", _binding("strong", "Role", "strong", "joe"), **_JANE),
        Http("POST", f"{_OWN}/rolebindings", _binding("every", "ClusterRole", "cluster-admin", "joe"), **_JANE),
        Http("POST", f"{_OWN}/roles", _role("all", _rule("*", "*", "*")), **_JANE),
        # cluster-wide
        Http(
            "POST",
            f"{_RBAC}/clusterroles",
            _role("$NS-maker", _rule(_WRITE, "clusterroles clusterrolebindings", _GROUP)),
        ),
        Http("POST", f"{_RBAC}/clusterrolebindings", _binding("$NS-maker", "ClusterRole", "$NS-maker", "$NS-john")),
        Http("POST", f"{_RBAC}/clusterrolebindings", _binding("$NS-gone", "ClusterRole", "$NS-gone", "$NS-john")),
        _SEEN,
        Http(
            "POST",
            f"{_RBAC}/clusterroles",
            _role("$NS-paths", {"verbs": ["get", "post"], "nonResourceURLs": ["/metrics", "/apis/*"]}),
            **_JOHN,
        ),
        Http(
            "POST",
            f"{_RBAC}/clusterroles",
            _role("$NS-sum", aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}),
            **_JOHN,
        ),
        Http("POST", f"{_RBAC}/clusterrolebindings", _binding("$NS-x", "ClusterRole", "cluster-admin", "x"), **_JOHN),
        Http("POST", f"{_RBAC}/clusterrolebindings", _binding("$NS-x", "ClusterRole", "$NS-maker", "x"), **_JOHN),
        Http("GET", f"{CORE}/pods", **_JOHN),
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {"spec": {"user": "$NS-john", "resourceAttributes": {"verb": "get", "resource": "pods"}}},
        ),
        *(
            Http("DELETE", f"{_RBAC}/{plural}/$NS-{name}")
            for plural, name in (
                ("clusterrolebindings", "x"),
                ("clusterrolebindings", "maker"),
                ("clusterrolebindings", "gone"),
                ("clusterroles", "maker"),
            )
        ),
    ],
    "kubelets": [
        Http("POST", f"{CORE}/secrets", {"metadata": {"name": "used"}, "stringData": {"a": "b"}}),
        Http("POST", f"{CORE}/secrets", {"metadata": {"name": "other"}, "stringData": {"a": "b"}}),
        Http("POST", f"{CORE}/configmaps", config_map("named", k="v")),
        Http("GET", f"{CORE}/secrets/used", **_NODE),
        Http("POST", f"{CORE}/pods", _POD),
        _SEEN,
        Http("GET", f"{CORE}/secrets/used", **_NODE),
        Http("GET", f"{CORE}/secrets/other", **_NODE),
        Http("GET", f"{CORE}/secrets", **_NODE),
        Http("GET", "/api/v1/secrets", **_NODE),
        Http("PATCH", f"{CORE}/secrets/used", {"data": None}, MERGE, **_NODE),
        Http("GET", f"{CORE}/configmaps/named", **_NODE),
        Http("GET", f"{CORE}/configmaps/kube-root-ca.crt", **_NODE),
        Http("GET", f"{CORE}/configmaps?fieldSelector=metadata.name%3Dnamed", **_NODE),
        Http("GET", f"{CORE}/serviceaccounts/default", **_NODE),
        Http("POST", f"{CORE}/serviceaccounts/nosuch/token", {"spec": {}}, **_NODE),
        Http("GET", f"{CORE}/pods/user", **_NODE),
        Http("GET", f"{CORE}/pods", **_NODE),
        Http("GET", f"{CORE}/pods?fieldSelector=spec.nodeName%3D$NS-n2", **_NODE),
        Http("GET", f"{CORE}/pods?fieldSelector=spec.nodeName%3D$NS-n1", **_NODE),
        Http("GET", f"{CORE}/pods/user/log", **_NODE),
        Http("PATCH", f"{CORE}/pods/user", {"metadata": {"labels": {"a": "b"}}}, MERGE, **_NODE),
        Http("PATCH", f"{CORE}/pods/user/status", {"status": {"phase": "Running"}}, MERGE, **_NODE),
        Http("GET", "/api/v1/nodes", **_NODE),
        Http("GET", "/api/v1/nodes/$NS-n1", **_NODE),
        Http("GET", "/api/v1/nodes/$NS-n2", **_NODE),
        Http("DELETE", "/api/v1/nodes/$NS-n1", **_NODE),
        Http("GET", f"{CORE}/persistentvolumeclaims/a", **_NODE),
        Http("GET", f"{CORE}/persistentvolumeclaims", **_NODE),
        Http("GET", "/apis/coordination.k8s.io/v1/namespaces/$NS/leases/$NS-n1", **_NODE),
        Http("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/$NS-n1", **_NODE),
        Http("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/$NS-n2", **_NODE),
        Http("GET", "/apis/storage.k8s.io/v1/csinodes", **_NODE),
        Http("GET", f"{CORE}/services", **_NODE),
        Http("DELETE", f"{CORE}/services/a", **_NODE),
        Http("GET", "/apis/apps/v1/namespaces/$NS/deployments", **_NODE),
        Http("GET", f"{CORE}/secrets/used", user="system:node:$NS-n1"),
        Http("GET", f"{CORE}/secrets/used", user="system:node:", group="system:nodes"),
    ],
}
