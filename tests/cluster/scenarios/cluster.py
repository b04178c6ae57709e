"""The server itself: discovery, explain, custom resources, namespaces, reviews, nodes."""

from typing import Any

from tests.cluster.scenarios.manifests import AGGREGATED, CORE, TABLE, config_map, deployment, obj
from tests.cluster.steps import Http, Kubectl, Step

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_GROUP = "$NS.example.com"
_WIDGETS = f"/apis/{_GROUP}/v1/namespaces/$NS/widgets"

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "colour": {"type": "string", "default": "red", "enum": ["red", "green"]},
                "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                "replicas": {"type": "integer"},
                "parts": {
                    "type": "array",
                    "maxItems": 2,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                    "items": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {"id": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
                    },
                },
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "x-kubernetes-validations": [
                {"rule": "!has(self.replicas) || self.replicas <= self.size", "message": "replicas may not exceed size"}
            ],
        },
        "status": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "selector": {"type": "string"},
                "phase": {"type": "string"},
            },
        },
    },
}


def _crd(**version: Any) -> dict[str, Any]:
    served = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _SCHEMA},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        **version,
    }
    names = {
        "plural": "widgets",
        "singular": "widget",
        "kind": "Widget",
        "shortNames": ["wd$NS"],
        "categories": ["all"],
    }
    return obj(
        "CustomResourceDefinition",
        f"widgets.{_GROUP}",
        "apiextensions.k8s.io/v1",
        spec={"group": _GROUP, "scope": "Namespaced", "names": names, "versions": [served]},
    )


def _widget(name: str, /, **spec: Any) -> dict[str, Any]:
    return obj("Widget", name, f"{_GROUP}/v1", spec=spec)


def _bad_crd(name: str, **spec: Any) -> Step:
    return Http("POST", _CRDS, {**_crd(), "metadata": {"name": name}, "spec": {**_crd()["spec"], **spec}})


SCENARIOS: dict[str, list[Step]] = {
    "discovery": [
        Http("GET", "/version"),
        Http("GET", "/api"),
        Http("GET", "/api/v1"),
        Http("GET", "/apis/apps"),
        Http("GET", "/apis/apps/v1"),
        Http("GET", "/apis/autoscaling"),
        Http("GET", "/apis/autoscaling/v1"),
        Http("GET", "/apis/autoscaling/v2"),
        Http("GET", "/apis/batch/v1"),
        Http("GET", "/apis/networking.k8s.io/v1"),
        Http("GET", "/apis/policy/v1"),
        Http("GET", "/apis/apiextensions.k8s.io/v1"),
        Http("GET", "/apis/nosuch"),
        Http("GET", "/apis/apps/v2"),
        Http("GET", "/healthz"),
        Http("GET", "/livez"),
        Http("GET", "/readyz"),
        Http("POST", "/version"),
        Http("GET", "/api", accept=AGGREGATED),
        Http("GET", "/apis", accept=AGGREGATED),
        Http("GET", "/apis"),
        Kubectl("api-versions"),
        Kubectl("api-resources"),
        Kubectl("explain deployment.spec.strategy"),
        Kubectl("explain hpa.spec.metrics"),
        Kubectl("explain pod.spec.containers.resources.limits"),
        Kubectl("explain configmap --recursive"),
        Kubectl("explain deployment.spec.nosuch"),
        Kubectl("explain nosuch"),
        Kubectl("explain hpa --api-version=autoscaling/v1"),
        Kubectl("version"),
    ],
    "customs": [
        _bad_crd("wrong.name"),
        _bad_crd(f"widgets.{_GROUP}", versions=[]),
        _bad_crd(f"widgets.{_GROUP}", scope="Global"),
        _bad_crd(f"widgets.{_GROUP}", versions=[{"name": "v1", "served": True, "storage": True}]),
        Kubectl("create -f -", _crd()),
        Kubectl(f"wait crd/widgets.{_GROUP} --for=condition=Established --timeout=20s", quiet=True),
        # what is served right after Established may still lag behind in discovery
        Kubectl(["wait", f"crd/widgets.{_GROUP}", "--for=jsonpath={.status.acceptedNames.kind}=Widget"], quiet=True),
        Http("GET", f"{_CRDS}/widgets.{_GROUP}"),
        Http("GET", f"/apis/{_GROUP}/v1"),
        Http("POST", _WIDGETS, _widget("first", size=3)),
        Http(
            "POST",
            _WIDGETS,
            _widget(
                "full",
                size=3,
                replicas=2,
                parts=[{"id": "a"}, {"id": "b", "weight": 4}],
                port="http",
                free={"x": {"y": 1}},
                map={"a": "b"},
            ),
        ),
        Http("POST", _WIDGETS, _widget("small", size=0)),
        Http("POST", _WIDGETS, _widget("big", size=11)),
        Http("POST", _WIDGETS, _widget("text", size="3")),
        Http("POST", _WIDGETS, _widget("missing")),
        Http("POST", _WIDGETS, obj("Widget", "specless", f"{_GROUP}/v1")),
        Http("POST", _WIDGETS, _widget("enum", size=3, colour="blue")),
        Http("POST", _WIDGETS, _widget("pattern", size=3, name="UPPER")),
        Http("POST", _WIDGETS, _widget("long", size=3, name="abcdefgh")),
        Http("POST", _WIDGETS, _widget("many", size=3, parts=[{"id": "a"}, {"id": "b"}, {"id": "c"}])),
        Http("POST", _WIDGETS, _widget("same", size=3, parts=[{"id": "a"}, {"id": "a"}])),
        Http("POST", _WIDGETS, _widget("rule", size=3, replicas=4)),
        Http("POST", _WIDGETS, _widget("unknown", size=3, nosuch=1)),
        Http("POST", f"{_WIDGETS}?fieldValidation=Strict", _widget("strict", size=3, nosuch=1)),
        Http("POST", _WIDGETS, {**_widget("status", size=3), "status": {"phase": "x"}}),
        Http(
            "PATCH",
            f"{_WIDGETS}/first/status",
            {"spec": {"size": 9}, "status": {"phase": "Done", "replicas": 1}},
            MERGE,
        ),
        Http("PATCH", f"{_WIDGETS}/first", {"spec": {"size": 5}, "status": {"phase": "Changed"}}, MERGE),
        Http("PATCH", f"{_WIDGETS}/first", {"spec": {"size": 50}}, MERGE),
        Http("PATCH", f"{_WIDGETS}/first", {"spec": {"size": 5}}, "application/strategic-merge-patch+json"),
        Http("PUT", f"{_WIDGETS}/first", _widget("first", size=4)),
        Http("GET", f"{_WIDGETS}/full/scale"),
        Http("PATCH", f"{_WIDGETS}/full/scale", {"spec": {"replicas": 3}}, MERGE),
        Http(
            "PATCH",
            f"{_WIDGETS}/full?fieldManager=one",
            {**_widget("full", size=3), "spec": {"parts": [{"id": "c"}]}},
            APPLY,
        ),
        Http("GET", _WIDGETS, accept=TABLE),
        Http("GET", f"{_WIDGETS}?fieldSelector=metadata.name%3Dfirst"),
        Http("GET", f"{_WIDGETS}?fieldSelector=spec.size%3D3"),
        Kubectl(f"get widgets.{_GROUP}"),
        Kubectl(f"get widgets.{_GROUP} -o wide"),
        Kubectl(f"describe widgets.{_GROUP} first"),
        Kubectl("apply -f -", _widget("applied", size=3)),
        Kubectl("apply -f -", _widget("applied", size=3)),
        Kubectl("apply -f -", _widget("applied", size=4, nosuch=1)),
        Kubectl("apply --server-side -f -", _widget("applied", size=5)),
        Kubectl(["scale", f"widgets.{_GROUP}/full", "--replicas=1"]),
        Kubectl(["patch", f"widgets.{_GROUP}", "full", "--type=merge", "-p", '{"spec":{"size":7}}']),
        Kubectl(f"get crd widgets.{_GROUP}"),
        Kubectl("apply -f -", {**_crd(), "spec": {**_crd()["spec"], "scope": "Cluster"}}),
        Kubectl(f"delete crd widgets.{_GROUP} --wait=false"),
        Kubectl(f"wait crd/widgets.{_GROUP} --for=delete --timeout=20s", quiet=True),
        Http("GET", _WIDGETS),
        Http("GET", f"{_CRDS}/widgets.{_GROUP}"),
    ],
    "namespaces": [
        Http("POST", "/api/v1/namespaces", obj("Namespace", "$NS-a", metadata={"labels": {"team": "a"}})),
        Http("GET", "/api/v1/namespaces/$NS-a"),
        Http("GET", "/api/v1/namespaces?labelSelector=team%3Da", accept=TABLE),
        Http("GET", "/api/v1/namespaces?fieldSelector=metadata.name%3D$NS-a,status.phase%3DActive"),
        Http("POST", "/api/v1/namespaces/$NS-a/configmaps", config_map("c")),
        Http("DELETE", "/api/v1/namespaces/$NS-a"),
        Http("GET", "/api/v1/namespaces/$NS-a"),
        Http("POST", "/api/v1/namespaces/$NS-a/configmaps", config_map("d")),
        Http("DELETE", "/api/v1/namespaces/$NS-a"),
        Http("DELETE", "/api/v1/namespaces/default"),
        Http("DELETE", "/api/v1/namespaces/kube-system"),
        Http("DELETE", "/api/v1/namespaces"),
        Http("GET", "/api/v1/namespaces/default"),
        Kubectl("describe namespace $NS"),
    ],
    "reviews": [
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
        ),
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/x"}}},
        ),
        Http("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {}}),
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {"spec": {"user": "nobody", "resourceAttributes": {"verb": "get", "resource": "pods"}}},
        ),
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {
                "spec": {
                    "user": "x",
                    "groups": ["system:masters"],
                    "resourceAttributes": {"verb": "get", "resource": "pods"},
                }
            },
        ),
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {"spec": {"resourceAttributes": {"verb": "get"}}},
        ),
        Http(
            "POST",
            "/apis/authorization.k8s.io/v1/namespaces/$NS/localsubjectaccessreviews",
            {
                "metadata": {"namespace": "$NS"},
                "spec": {
                    "user": "x",
                    "groups": ["system:masters"],
                    "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "$NS"},
                },
            },
        ),
        Http("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "wrong"}}),
        Http("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {}}),
        Http("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}),
        Http("GET", "/apis/authentication.k8s.io/v1/tokenreviews"),
        Http("POST", f"{CORE}/serviceaccounts/default/token", {"spec": {"expirationSeconds": 60}}),
        Http("POST", f"{CORE}/serviceaccounts/nosuch/token", {"spec": {}}),
    ],
    "nodes": [
        Http(
            "POST",
            "/api/v1/nodes",
            obj("Node", "$NS-n1", metadata={"labels": {"node-role.kubernetes.io/worker": "", "zone": "a"}}),
        ),
        Http(
            "PATCH",
            "/api/v1/nodes/$NS-n1/status",
            {
                "status": {
                    "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                    "allocatable": {"cpu": "3900m", "memory": "7Gi", "pods": "110"},
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}],
                    "conditions": [
                        {
                            "type": "Ready",
                            "status": "True",
                            "reason": "R",
                            "message": "m",
                            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                            "lastTransitionTime": "2026-01-01T00:00:00Z",
                        }
                    ],
                    "nodeInfo": {
                        "kubeletVersion": "v1.37.0",
                        "osImage": "os",
                        "kernelVersion": "6",
                        "containerRuntimeVersion": "c://1",
                        "architecture": "amd64",
                        "operatingSystem": "linux",
                        "bootID": "",
                        "machineID": "",
                        "systemUUID": "",
                        "kubeProxyVersion": "",
                    },
                }
            },
            MERGE,
        ),
        Kubectl("get node $NS-n1"),
        Kubectl("get node $NS-n1 -o wide"),
        Kubectl("cordon $NS-n1"),
        Kubectl("get node $NS-n1"),
        Kubectl("uncordon $NS-n1"),
        Kubectl("taint node $NS-n1 dedicated=x:NoSchedule"),
        Kubectl("taint node $NS-n1 dedicated-"),
        Kubectl("label node $NS-n1 disk=ssd"),
        Kubectl("describe node $NS-n1"),
        Http("POST", f"{CORE}/pods", obj("Pod", "p", spec={"containers": [{"name": "c", "image": "i"}]})),
        Http("POST", f"{CORE}/pods/p/binding", {"target": {"kind": "Node", "name": "$NS-n1"}}),
        Http("POST", f"{CORE}/pods/p/binding", {"target": {"kind": "Node", "name": "$NS-n1"}}),
        Http("POST", f"{CORE}/pods/nosuch/binding", {"target": {"kind": "Node", "name": "$NS-n1"}}),
        Http("POST", f"{CORE}/pods/p/binding", {"target": {}}),
        Http("GET", f"{CORE}/pods/p"),
        Http(
            "POST",
            f"{CORE}/pods/p/eviction",
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}},
        ),
        Http(
            "POST",
            f"{CORE}/pods/nosuch/eviction",
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "nosuch"}},
        ),
        Kubectl("delete node $NS-n1"),
        Kubectl("create -f -", deployment("left")),
    ],
}
