"""Changes: client-side apply, the four kinds of patch, server-side apply, strict fields, subresources."""

from tests.cluster.scenarios.manifests import APPS, CORE, config_map, deployment, obj, service, template
from tests.cluster.steps import Http, Kubectl, Step

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_TWO = template(
    "web",
    containers=[
        {
            "name": "web",
            "image": "nginx:1.27",
            "ports": [{"containerPort": 80}, {"containerPort": 443}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        },
        {"name": "side", "image": "busybox:1"},
    ],
    tolerations=[{"key": "a", "operator": "Exists"}],
)
_WEB = f"{APPS}/deployments/web"
_SSA = "fieldManager=one"


def _pod_spec(spec: object) -> object:
    return {"spec": {"template": {"spec": spec}}}


def _applied(**data: str) -> object:
    return config_map("applied", **data)


SCENARIOS: dict[str, list[Step]] = {
    "apply": [
        Kubectl("apply -f -", [deployment("web"), service("web"), config_map("settings", a="1")]),
        Kubectl("apply -f -", [deployment("web"), service("web"), config_map("settings", a="1")]),
        Kubectl("apply -f -", [deployment("web", replicas=3), config_map("settings", b="2")]),
        Kubectl("get deployment web -o yaml"),
        Kubectl("get configmap settings -o json"),
        Kubectl("diff -f -", deployment("web", replicas=4)),
        Kubectl("apply -f - -o yaml", deployment("web", paused=True)),
        Kubectl("apply view-last-applied deployment web"),
        Kubectl("replace -f -", config_map("settings", c="3")),
        Kubectl("replace -f -", config_map("nosuch", c="3")),
        Kubectl("create -f -", config_map("settings", c="3")),
        Kubectl("edit configmap settings"),
        Kubectl("apply -f -", config_map("settings", d="4")),
        Kubectl("apply -f -", {**deployment("web"), "spec": {**deployment("web")["spec"], "replicaz": 1}}),
        Kubectl("apply --validate=warn -f -", {**config_map("settings", d="5"), "datum": {"x": "y"}}),
        Kubectl("apply --validate=ignore -f -", {**config_map("settings", d="6"), "datum": {"x": "y"}}),
        Kubectl("apply -f -", obj("Nosuch", "x", "example.com/v1")),
        Kubectl("apply -f -", deployment("web", selector={"matchLabels": {"app": "other"}})),
        Kubectl("delete deployment web --cascade=orphan --wait=false"),
        Kubectl("delete service web"),
    ],
    "patches": [
        Http("POST", f"{APPS}/deployments", deployment("web", pod=_TWO)),
        Http("PATCH", _WEB, _pod_spec({"containers": [{"name": "web", "image": "nginx:1.28"}]}), STRATEGIC),
        Http(
            "PATCH",
            _WEB,
            _pod_spec({"containers": [{"name": "web", "env": [{"name": "B", "$patch": "delete"}]}]}),
            STRATEGIC,
        ),
        Http(
            "PATCH",
            _WEB,
            _pod_spec({"$setElementOrder/containers": [{"name": "side"}, {"name": "web"}]}),
            STRATEGIC,
        ),
        Http("PATCH", _WEB, _pod_spec({"containers": [{"name": "side", "$patch": "delete"}]}), STRATEGIC),
        Http("PATCH", _WEB, _pod_spec({"tolerations": [{"key": "b", "operator": "Exists"}]}), STRATEGIC),
        Http("PATCH", _WEB, {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}, STRATEGIC),
        Http("PATCH", _WEB, _pod_spec({"containers": [{"image": "nameless"}]}), STRATEGIC),
        Http("PATCH", _WEB, {"spec": {"template": {"$patch": "replace"}}}, STRATEGIC),
        Http("PATCH", _WEB, {"metadata": {"labels": {"team": "a", "gone": None}}}, STRATEGIC),
        Http("PATCH", _WEB, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/y"]}}, STRATEGIC),
        Http("PATCH", _WEB, {"spec": {"replicas": 4}}, MERGE),
        Http("PATCH", _WEB, {"spec": {"replicas": "four"}}, MERGE),
        Http("PATCH", _WEB, {"spec": {"replicas": None}}, MERGE),
        Http("PATCH", _WEB, {"spec": {"replicaz": 1}}, MERGE),
        Http("PATCH", f"{_WEB}?fieldValidation=Strict", {"spec": {"replicaz": 1}}, MERGE),
        Http("PATCH", _WEB, {"metadata": {"name": "other"}}, MERGE),
        Http("PATCH", _WEB, {"metadata": {"resourceVersion": "1"}}, MERGE),
        Http("PATCH", _WEB, {"status": {"replicas": 9}}, MERGE),
        Http("PATCH", f"{_WEB}/status", {"spec": {"replicas": 9}, "status": {"replicas": 2}}, MERGE),
        Http("PATCH", _WEB, "not json", MERGE),
        Http("PATCH", _WEB, "not json", JSON_PATCH),
        Http("PATCH", _WEB, "not json", STRATEGIC),
        Http("PATCH", _WEB, [{"op": "fly", "path": "/spec"}], JSON_PATCH),
        Http("PATCH", _WEB, [{"op": "replace", "path": "/spec/nosuch/x", "value": 1}], JSON_PATCH),
        Http("PATCH", _WEB, {"spec": {"$patch": "nosuch"}}, STRATEGIC),
        Http("PATCH", _WEB, "[]", MERGE),
        Http("PATCH", _WEB, [{"op": "remove", "path": "/metadata/labels/team"}], JSON_PATCH),
        Http("PATCH", _WEB, [{"op": "remove", "path": "/metadata/labels/team"}], JSON_PATCH),
        Http("PATCH", _WEB, [{"op": "test", "path": "/spec/replicas", "value": 7}], JSON_PATCH),
        Http(
            "PATCH",
            _WEB,
            [{"op": "add", "path": "/metadata/annotations", "value": {"a~b": "1", "c/d": "2"}}],
            JSON_PATCH,
        ),
        Http("PATCH", _WEB, [{"op": "replace", "path": "/metadata/annotations/c~1d", "value": "3"}], JSON_PATCH),
        Http(
            "PATCH",
            _WEB,
            [{"op": "move", "from": "/metadata/annotations/a~0b", "path": "/metadata/annotations/e"}],
            JSON_PATCH,
        ),
        Http(
            "PATCH",
            _WEB,
            [{"op": "copy", "from": "/metadata/annotations/e", "path": "/metadata/annotations/f"}],
            JSON_PATCH,
        ),
        Http("PATCH", _WEB, [{"op": "jump", "path": "/spec"}], JSON_PATCH),
        Http("PATCH", _WEB, {"op": "remove"}, JSON_PATCH),
        Http("PATCH", _WEB, {"spec": {}}, "application/json"),
        Http("PATCH", f"{APPS}/deployments/nosuch", {"spec": {}}, MERGE),
        Http("GET", _WEB),
        Kubectl(["patch", "deployment", "web", "-p", '{"spec":{"replicas":4}}']),
        Kubectl(["patch", "deployment", "web", "-p", '{"spec":{"replicas":4}}']),
        Kubectl(["patch", "deployment", "web", "--type=merge", "-p", '{"spec":{"replicas":5}}']),
        Kubectl(["patch", "deployment", "web", "--type=json", "-p", '[{"op":"remove","path":"/spec/nosuch"}]']),
        Kubectl(["patch", "deployment", "web", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":6}}']),
    ],
    "scale": [
        Http("POST", f"{APPS}/deployments", deployment("web")),
        Http("GET", f"{_WEB}/scale", save="scale"),
        Http("PUT", f"{_WEB}/scale", {"metadata": {"name": "web", "namespace": "$NS"}, "spec": {"replicas": 5}}),
        Http(
            "PUT",
            f"{_WEB}/scale",
            {
                "metadata": {"name": "web", "resourceVersion": "${scale.metadata.resourceVersion}"},
                "spec": {"replicas": 6},
            },
        ),
        Http("PATCH", f"{_WEB}/scale", {"spec": {"replicas": 7}}, MERGE),
        Http("PATCH", f"{_WEB}/scale", {"spec": {"replicas": -1}}, MERGE),
        Http("PATCH", f"{_WEB}/scale", {"spec": {"replicas": 8}}, STRATEGIC),
        Http("GET", f"{APPS}/deployments/nosuch/scale"),
        Http("GET", f"{_WEB}/scale", accept="application/json;as=Table;v=v1;g=meta.k8s.io"),
        Http("GET", _WEB),
        Kubectl("scale deployment web --replicas=3"),
        Kubectl("scale deployment web --replicas=4 --current-replicas=9"),
        Kubectl("scale deployment nosuch --replicas=3"),
        Kubectl("get deployment web --subresource=scale"),
    ],
    "strict": [
        Http("POST", f"{CORE}/configmaps?fieldValidation=Strict", {**config_map("s"), "extra": 1, "more": 2}),
        Http(
            "POST",
            f"{CORE}/configmaps?fieldValidation=Strict",
            '{"metadata":{"name":"d","name":"d"},"data":{"a":"1","a":"2"}}',
        ),
        Http("POST", f"{CORE}/configmaps?fieldValidation=Warn", {**config_map("w"), "extra": 1}),
        Http("POST", f"{CORE}/configmaps?fieldValidation=Ignore", {**config_map("i"), "extra": 1}),
        Http("POST", f"{CORE}/configmaps?fieldValidation=Loose", config_map("l")),
        Http("POST", f"{CORE}/configmaps", {**config_map("t"), "data": {"a": 1}}),
        Http("POST", f"{CORE}/configmaps", {**config_map("t"), "data": ["a"]}),
        Http("POST", f"{CORE}/configmaps", {**config_map("t"), "metadata": {"name": "t", "labels": {"a": True}}}),
        Http("POST", f"{CORE}/configmaps", {**config_map("t"), "metadata": "t"}),
        Http("POST", f"{CORE}/configmaps", {**config_map("t"), "Data": {"a": "1"}}),
        Http("POST", f"{APPS}/deployments", deployment("t", replicas="2")),
        Http("POST", f"{APPS}/deployments", deployment("t", replicas=2.5)),
        Http(
            "POST",
            f"{APPS}/deployments?fieldValidation=Strict",
            deployment(
                "t", pod=template("t", containers=[{"name": "c", "imagee": "x", "ports": [{"containerport": 1}]}])
            ),
        ),
        Http("POST", f"{APPS}/deployments", deployment("t", pod=template("t", containers={"name": "c"}))),
        Http(
            "POST",
            f"{APPS}/deployments",
            deployment(
                "t",
                pod=template("t", containers=[{"name": "c", "image": "x", "resources": {"limits": {"cpu": "lots"}}}]),
            ),
        ),
        Http("POST", f"{CORE}/secrets", obj("Secret", "t", data={"a": "not base64!"})),
    ],
    "serverside": [
        Http("PATCH", f"{CORE}/configmaps/applied", _applied(a="1", b="2"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?{_SSA}", _applied(a="1", b="2"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?{_SSA}", _applied(a="1", b="2"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?{_SSA}", _applied(a="1"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?fieldManager=two", _applied(a="9", c="3"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?fieldManager=two&force=true", _applied(a="9", c="3"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?{_SSA}", _applied(d="4"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?fieldManager=editor", {"data": {"a": "10"}}, MERGE),
        Http("PATCH", f"{CORE}/configmaps/applied?fieldManager=two", _applied(a="11"), APPLY),
        Http(
            "PATCH",
            f"{CORE}/configmaps/applied?{_SSA}&fieldValidation=Strict",
            {**config_map("applied"), "x": 1},
            APPLY,
        ),
        Http("PATCH", f"{CORE}/configmaps/other?{_SSA}", _applied(a="1"), APPLY),
        Http("PATCH", f"{CORE}/configmaps/applied?{_SSA}", {"data": {"a": "1"}}, APPLY),
        Http("PATCH", f"{APPS}/deployments/web?{_SSA}", deployment("web", pod=_TWO), APPLY),
        Http(
            "PATCH",
            f"{APPS}/deployments/web?fieldManager=scaler",
            {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}},
            APPLY,
        ),
        Http(
            "PATCH",
            f"{APPS}/deployments/web?fieldManager=scaler&force=true",
            {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}},
            APPLY,
        ),
        Http("PATCH", f"{APPS}/deployments/web?{_SSA}", deployment("web", pod=template("web")), APPLY),
        Http("PATCH", f"{APPS}/deployments/web/scale?fieldManager=third", {"spec": {"replicas": 6}}, MERGE),
        Http("GET", f"{APPS}/deployments/web"),
        Kubectl("apply --server-side -f -", config_map("kube", a="1")),
        Kubectl("apply --server-side -f -", config_map("kube", a="1")),
        Kubectl("apply --server-side --field-manager=rival -f -", config_map("kube", a="2")),
        Kubectl("apply --server-side --field-manager=rival --force-conflicts -f -", config_map("kube", a="2")),
        Kubectl("get configmap kube -o yaml --show-managed-fields"),
        Kubectl("apply -f -", config_map("moved", a="1", b="2")),
        Kubectl("apply --server-side -f -", config_map("moved", a="1")),
        Kubectl("get configmap moved -o yaml --show-managed-fields"),
        Kubectl("diff --server-side -f -", config_map("moved", a="5")),
    ],
}
