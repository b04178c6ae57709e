"""Who may do what, by the roles and bindings of ``rbac.authorization.k8s.io``, and the roles that every cluster has.

Source: kubernetes pkg/registry/rbac/validation/rule.go, plugin/pkg/auth/authorizer/rbac.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flyball.localcluster import failures
from flyball.localcluster.nodeauthorizer import NodeAuthorizer
from flyball.localcluster.requests import Request
from flyball.localcluster.storage import Storage
from flyball.localcluster.telemetry import about

Object = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"
MASTERS, AUTHENTICATED, UNAUTHENTICATED = "system:masters", "system:authenticated", "system:unauthenticated"
ANONYMOUS = "system:anonymous"
SERVICE_ACCOUNT, SERVICE_ACCOUNTS = "system:serviceaccount:", "system:serviceaccounts"
_VERBS = {"POST": "create", "PUT": "update", "APPLY": "patch", "HEAD": "get"}


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody wants to do: to a resource, or else with a path.

    ``resource`` has its subresource with it, as ``pods/log``; ``node`` is the one whose pods alone a list is about.
    """

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    node: str = ""

    @classmethod
    def reviewed(cls, spec: Object) -> "Act":
        """What the spec of an access review asks about."""
        asked = spec.get("resourceAttributes")
        if not asked:
            asked = spec.get("nonResourceAttributes") or {}
            return cls(str(asked.get("verb") or ""), path=str(asked.get("path") or ""))
        resource, sub = str(asked.get("resource") or ""), asked.get("subresource")
        return cls(
            str(asked.get("verb") or ""),
            str(asked.get("group") or ""),
            f"{resource}/{sub}" if sub else resource,
            str(asked.get("namespace") or ""),
            str(asked.get("name") or ""),
        )

    def refusal(self, user: str, why: str = "") -> failures.ApiFailure:
        """403, in upstream's words."""
        why = f": {why}" if why else ""
        if not self.resource:
            text = f'forbidden: User "{user}" cannot {self.verb} path "{self.path}"{why}'
            return failures.ApiFailure(403, text, details={})
        plural = self.resource.partition("/")[0]
        named = failures.qualified(self.group, plural) + (f' "{self.name}"' if self.name else "")
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        text = (
            f'{named} is forbidden: User "{user}" cannot {self.verb} resource "{self.resource}" '
            f'in API group "{self.group}" {where}{why}'
        )
        details = {"name": self.name, "group": self.group, "kind": plural}
        return failures.ApiFailure(403, text, details={key: value for key, value in details.items() if value})


def acts_of(request: Request) -> list[Act]:
    """What a request does; a stream into a pod is a get and a create."""
    segments = request.segments
    what = about(request.method, segments, request.params, request.content_type)
    if not what.resource:
        return [Act(_VERBS.get(request.method, request.method.lower()), path=request.raw_path)]
    rest = segments[2:] if segments[0] == "api" else segments[3:]
    namespace = name = node = ""
    if rest[0] == "watch":
        rest = rest[1:]
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        rest = rest[2:] if len(rest) > 2 and rest[2] not in ("status", "finalize") else rest
    name = rest[1] if len(rest) > 1 else ""
    resource = "/".join([rest[0], *rest[2:3]]) if rest else "namespaces"
    if what.verb == "CONNECT":
        verbs = ["get", "create"] if request.method == "GET" else ["create"]
    elif what.verb in ("LIST", "WATCH") and name == "" and segments[-2:-1] != ["watch"]:
        verbs = [what.verb.lower()]
        selected = request.param("fieldSelector").partition("metadata.name=")[2]
        name = selected if selected.replace("-", "").replace(".", "").isalnum() else ""
        fields = dict(part.replace("==", "=").partition("=")[::2] for part in request.param("fieldSelector").split(","))
        node = fields.get("spec.nodeName", "")
    else:
        verbs = [_VERBS.get(what.verb, what.verb.lower())]
    return [Act(verb, what.group, resource, namespace, name, node=node) for verb in verbs]


def _applies(subject: Object, user: str, groups: tuple[str, ...], namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(name == user)
    if kind == "Group":
        return name in groups
    where = subject.get("namespace") or namespace
    return bool(kind == "ServiceAccount" and where and user == f"{SERVICE_ACCOUNT}{where}:{name}")


def rule_allows(rule: Object, act: Act) -> bool:
    """Whether one rule of a role covers what is done."""
    if not {"*", act.verb} & set(rule.get("verbs") or ()):
        return False
    if not act.resource:
        urls = rule.get("nonResourceURLs") or ()
        return any(url == act.path or (url.endswith("*") and act.path.startswith(url[:-1])) for url in urls)
    wanted = {"*", act.resource}
    if "/" in act.resource:
        wanted.add("*/" + act.resource.partition("/")[2])
    names = rule.get("resourceNames")
    return (
        bool({"*", act.group} & set(rule.get("apiGroups") or ()))
        and bool(wanted & set(rule.get("resources") or ()))
        and (not names or act.name in names)
    )


class Rights:
    """The rights that the stored roles and bindings give."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._nodes = NodeAuthorizer(storage)

    def rules(self, user: str, groups: tuple[str, ...], namespace: str) -> Iterator[tuple[Object | None, str]]:
        """Each rule that holds for the user, with the binding that gives it; without a rule the text is a problem."""
        places = [("ClusterRoleBinding", "clusterrolebindings", "")]
        if namespace:
            places.append(("RoleBinding", "rolebindings", namespace))
        for kind, plural, where in places:
            for record in self._storage.records(f"{GROUP}/{plural}", where):
                binding = record.object
                subjects = binding.get("subjects") or ()
                subject = next((one for one in subjects if _applies(one, user, groups, where)), None)
                if subject is None:
                    continue
                role, name = binding["roleRef"], binding["metadata"]["name"]
                store, at = ("roles", where) if role["kind"] == "Role" else ("clusterroles", "")
                found = self._storage.get(f"{GROUP}/{store}", at, role["name"])
                if found is None:
                    yield None, f'{role["kind"].lower()}.{GROUP} "{role["name"]}" not found'
                    continue
                shown = subject["name"]
                if subject["kind"] == "ServiceAccount":
                    shown += f"/{subject.get('namespace') or where}"
                source = f'{kind} "{name + (f"/{where}" if where else "")}" of {role["kind"]} "{role["name"]}"'
                for rule in found.object.get("rules") or ():
                    yield rule, f'{source} to {subject["kind"]} "{shown}"'

    def allows(self, user: str, groups: tuple[str, ...], act: Act) -> tuple[bool, str]:
        """Whether the user may, and why; masters may everything, and no reason is told."""
        if MASTERS in groups:
            return True, ""
        allowed, unrelated = self._nodes.allows(user, groups, act)
        if allowed:
            return True, ""
        problems = []
        for rule, source in self.rules(user, groups, act.namespace):
            if rule is None:
                problems.append(source)
            elif rule_allows(rule, act):
                return True, f"RBAC: allowed by {source}"
        shown = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        return False, "\n".join(
            filter(None, [unrelated and f"node: {unrelated}", f"rbac: RBAC: {shown}" if problems else ""])
        )

    def demand(self, user: str, groups: tuple[str, ...], *acts: Act) -> None:
        """
        Raises:
            ApiFailure: 403, the user may not.
        """
        for act in acts:
            allowed, why = self.allows(user, groups, act)
            if not allowed:
                raise act.refusal(user, why)

    def impersonate(self, request: Request) -> None:
        """In place: the request is another's whom ``Impersonate-User`` names, where its own user may be that.

        Raises:
            ApiFailure: 403, it may not; 400, groups without a user.
        """
        name = request.headers.get("impersonate-user", "")
        groups = [text for key, text in request.header_list if key == "impersonate-group"]
        if not name:
            if groups:
                raise failures.bad_request("requested [] without impersonating a user")
            return
        acts = [Act("impersonate", resource="groups", name=group) for group in groups]
        if name.startswith(SERVICE_ACCOUNT) and name.count(":") == 3:
            namespace, account = name.split(":")[2:]
            acts.insert(0, Act("impersonate", resource="serviceaccounts", namespace=namespace, name=account))
            groups = groups or [SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}"]
        else:
            acts.insert(0, Act("impersonate", resource="users", name=name))
        self.demand(request.user, request.groups, *acts)
        everyone = UNAUTHENTICATED if name == ANONYMOUS else AUTHENTICATED
        request.user, request.uid, request.groups = name, "", tuple(dict.fromkeys([*groups, everyone]))


# -- what every cluster has ------------------------------------------------------------------------------------------

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")


def _rule(groups: str, resources: str, verbs: tuple[str, ...]) -> Object:
    return {"apiGroups": groups.split(","), "resources": resources.split(), "verbs": list(verbs)}


def _paths(*urls: str, verbs: tuple[str, ...] = ("get",)) -> Object:
    return {"nonResourceURLs": list(urls), "verbs": list(verbs)}


_STREAMED = "pods/attach pods/exec pods/portforward pods/proxy"
_WORKLOADS = "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
_RULES: dict[str, list[Object]] = {
    "cluster-admin": [_rule("*", "*", ("*",)), _paths("*", verbs=("*",))],
    "system:aggregate-to-admin": [
        _rule("authorization.k8s.io", "localsubjectaccessreviews", ("create",)),
        _rule(GROUP, "rolebindings roles", (*_READ, *_WRITE)),
    ],
    "system:aggregate-to-edit": [
        _rule("", f"{_STREAMED} secrets services/proxy", _READ),
        _rule("", "serviceaccounts", ("impersonate",)),
        _rule("", f"pods {_STREAMED}", _WRITE),
        _rule("", "pods/eviction serviceaccounts/token", ("create",)),
        _rule("", "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale", _WRITE),
        _rule("", "secrets serviceaccounts services services/proxy", _WRITE),
        _rule(",events.k8s.io", "events", _WRITE),
        _rule("apps", _WORKLOADS, _WRITE),
        _rule("autoscaling", "horizontalpodautoscalers", _WRITE),
        _rule("batch", "cronjobs jobs", _WRITE),
        _rule("policy", "poddisruptionbudgets", _WRITE),
        _rule("networking.k8s.io", "ingresses networkpolicies", _WRITE),
        _rule("coordination.k8s.io", "leases", (*_READ, *_WRITE)),
    ],
    "system:aggregate-to-view": [
        _rule("", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods", _READ),
        _rule("", "replicationcontrollers replicationcontrollers/scale replicationcontrollers/status", _READ),
        _rule("", "serviceaccounts services services/status bindings limitranges", _READ),
        _rule("", "namespaces namespaces/status pods/log pods/status resourcequotas resourcequotas/status", _READ),
        _rule(",events.k8s.io", "events", _READ),
        _rule("discovery.k8s.io", "endpointslices", _READ),
        _rule("apps", f"controllerrevisions {_WORKLOADS}", _READ),
        _rule("apps", "daemonsets/status deployments/status replicasets/status statefulsets/status", _READ),
        _rule("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", _READ),
        _rule("batch", "cronjobs cronjobs/status jobs jobs/status", _READ),
        _rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", _READ),
        _rule("networking.k8s.io", "ingresses ingresses/status networkpolicies", _READ),
    ],
    "system:auth-delegator": [
        _rule("authentication.k8s.io", "tokenreviews", ("create",)),
        _rule("authorization.k8s.io", "subjectaccessreviews", ("create",)),
    ],
    "system:basic-user": [
        _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ("create",)),
        _rule("authentication.k8s.io", "selfsubjectreviews", ("create",)),
    ],
    "system:discovery": [
        _paths("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_HEALTH),
    ],
    "system:public-info-viewer": [_paths(*_HEALTH)],
    "system:monitoring": [
        _paths("/metrics", "/metrics/slis", "/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"),
        _rule("", "nodes/metrics", ("get",)),
    ],
}
_AGGREGATED = ("admin", "edit", "view")
_PART_OF = {
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
}
_PART_OF |= {"edit": "admin", "view": "edit"}
_BOUND = {
    "cluster-admin": (MASTERS,),
    "system:basic-user": (AUTHENTICATED,),
    "system:discovery": (AUTHENTICATED,),
    "system:public-info-viewer": (AUTHENTICATED, UNAUTHENTICATED),
    "system:monitoring": ("system:monitoring",),
}
_READER = "extension-apiserver-authentication-reader"


def _metadata(name: str, namespace: str = "") -> Object:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    if name in _PART_OF:
        labels[f"{GROUP}/aggregate-to-{_PART_OF[name]}"] = "true"
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    return {"name": name, "labels": labels, "annotations": annotations} | (
        {"namespace": namespace} if namespace else {}
    )


def default_objects() -> Iterator[tuple[str, Object]]:
    """(plural, object) of the roles and bindings that are there from the start."""
    for name, rules in _RULES.items():
        yield "clusterroles", {"metadata": _metadata(name), "rules": rules}
    for name in _AGGREGATED:
        selector = {"matchLabels": {f"{GROUP}/aggregate-to-{name}": "true"}}
        yield "clusterroles", {"metadata": _metadata(name), "aggregationRule": {"clusterRoleSelectors": [selector]}}
    for name, groups in _BOUND.items():
        subjects = [{"kind": "Group", "apiGroup": GROUP, "name": group} for group in groups]
        role = {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}
        yield "clusterrolebindings", {"metadata": _metadata(name), "roleRef": role, "subjects": subjects}
    rule = {**_rule("", "configmaps", _READ), "resourceNames": ["extension-apiserver-authentication"]}
    yield "roles", {"metadata": _metadata(_READER, "kube-system"), "rules": [rule]}
