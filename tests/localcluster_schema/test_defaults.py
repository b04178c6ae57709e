"""Defaults: upstream's values, applied once and for all."""

import copy
from typing import Any

import pytest

from flyball.localcluster import schema


def defaulted(group: str, version: str, name: str, obj: dict[str, Any]) -> dict[str, Any]:
    kind = schema.find_kind(group, version, name)
    assert kind is not None
    made = copy.deepcopy(obj)
    schema.default(kind, made)
    again = copy.deepcopy(made)
    schema.default(kind, again)
    assert again == made, "defaulting twice changes nothing"
    assert schema.validate_fields(kind, made) == []
    assert schema.type_errors(kind, made) == []
    return made


def contains(whole: Any, part: Any) -> bool:
    """Whether ``whole`` still says everything that ``part`` said."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


CONTAINER = {"name": "app", "image": "registry:5000/team/app"}


def test_deployment() -> None:
    obj = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [CONTAINER]}}}}
    made = defaulted("apps", "v1", "Deployment", obj)
    assert contains(made, obj)
    spec = made["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert spec["template"]["spec"] == {
        "containers": [
            {
                **CONTAINER,
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler",
        "securityContext": {},
    }


def test_zero_replicas_and_recreate_are_kept() -> None:
    spec = defaulted("apps", "v1", "Deployment", {"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}})["spec"]
    assert spec["replicas"] == 0
    assert spec["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("nginx@sha256:0123", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    made = defaulted("", "v1", "Pod", {"spec": {"containers": [{"name": "a", "image": image}]}})
    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_requests_come_from_limits_in_pods_only() -> None:
    pod = {
        "spec": {
            "containers": [
                {**CONTAINER, "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "100m"}}}
            ]
        }
    }
    resources = defaulted("", "v1", "Pod", pod)["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}
    made = defaulted("apps", "v1", "ReplicaSet", {"spec": {"template": pod}})
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "100m"}


def test_pod_parts() -> None:
    pod = {
        "spec": {
            "serviceAccountName": "robot",
            "containers": [
                {
                    **CONTAINER,
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
                }
            ],
            "volumes": [{"name": "c", "configMap": {"name": "c"}}, {"name": "scratch"}],
        }
    }
    made = defaulted("", "v1", "Pod", pod)
    assert contains(made, pod)
    spec, container = made["spec"], made["spec"]["containers"][0]
    assert spec["serviceAccount"] == "robot"
    assert spec["enableServiceLinks"] is True
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["env"][0]["valueFrom"]["fieldRef"] == {"apiVersion": "v1", "fieldPath": "status.podIP"}
    assert container["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "periodSeconds": 2,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert spec["volumes"] == [
        {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
        {"name": "scratch", "emptyDir": {}},
    ]


def test_nulls_vanish_from_structs() -> None:
    made = defaulted("", "v1", "ConfigMap", {"metadata": {"name": "x", "creationTimestamp": None}, "data": {"a": None}})
    assert made == {"metadata": {"name": "x"}, "data": {"a": ""}}


def test_a_null_in_a_list_of_objects_is_an_empty_object() -> None:
    made = defaulted("", "v1", "Pod", {"metadata": {"name": "x"}, "spec": {"containers": [None]}})
    kind = schema.find_kind("", "v1", "Pod")
    assert kind is not None
    assert [cause.message for cause in schema.validate(kind, made, None)] == [
        "spec.containers[0].name: Required value",
        "spec.containers[0].image: Required value",
    ]


def test_service() -> None:
    spec = defaulted("", "v1", "Service", {"spec": {"ports": [{"port": 80}, {"port": 1, "targetPort": "x"}]}})["spec"]
    assert spec == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [
            {"port": 80, "targetPort": 80, "protocol": "TCP"},
            {"port": 1, "targetPort": "x", "protocol": "TCP"},
        ],
    }
    node = defaulted("", "v1", "Service", {"spec": {"type": "NodePort", "clusterIP": "127.11.0.9"}})["spec"]
    assert node["externalTrafficPolicy"] == "Cluster"
    assert node["clusterIPs"] == ["127.11.0.9"]


def test_hpa_v2_without_and_with_behavior() -> None:
    spec = defaulted("autoscaling", "v2", "HorizontalPodAutoscaler", {"spec": {"maxReplicas": 5}})["spec"]
    assert spec["minReplicas"] == 1
    assert spec["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
    ]
    assert "behavior" not in spec
    behavior = defaulted(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 5, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}},
    )["spec"]["behavior"]
    assert behavior["scaleUp"] == {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    }
    assert behavior["scaleDown"] == {
        "selectPolicy": "Disabled",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }


def test_hpa_keeps_the_user_s_own_policies_and_v1_target() -> None:
    policies = [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    made = defaulted(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 5, "behavior": {"scaleUp": {"policies": policies, "tolerance": 0}}}},
    )
    up = made["spec"]["behavior"]["scaleUp"]
    assert (up["policies"], up["tolerance"]) == (policies, "0")
    v1 = defaulted("autoscaling", "v1", "HorizontalPodAutoscaler", {"spec": {"maxReplicas": 5}})["spec"]
    assert (v1["minReplicas"], v1["targetCPUUtilizationPercentage"]) == (1, 80)


def test_other_kinds() -> None:
    secret = defaulted("", "v1", "Secret", {"stringData": {"user": "ada"}, "data": {"old": "eA=="}})
    assert secret == {"metadata": {}, "type": "Opaque", "data": {"old": "eA==", "user": "YWRh"}}
    namespace = defaulted("", "v1", "Namespace", {"metadata": {"name": "team"}})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    job = defaulted("batch", "v1", "Job", {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}})["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (1, 1, 6)
    assert job["completionMode"] == "NonIndexed"
    queue = defaulted("batch", "v1", "Job", {"spec": {"parallelism": 4, "template": {}}})["spec"]
    assert "completions" not in queue, "a work queue has no completions"
    crd = defaulted(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        {"spec": {"names": {"kind": "Widget", "plural": "widgets"}}},
    )
    assert crd["spec"]["names"] == {
        "kind": "Widget",
        "plural": "widgets",
        "singular": "widget",
        "listKind": "WidgetList",
    }
    service = defaulted("apiregistration.k8s.io", "v1", "APIService", {"spec": {"service": {"name": "a"}}})
    assert service["spec"]["service"]["port"] == 443
    policy = defaulted("networking.k8s.io", "v1", "NetworkPolicy", {"spec": {"egress": [{"ports": [{"port": 53}]}]}})
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
