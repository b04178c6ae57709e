"""Defaults: the smallest valid object of each kind, as the server answers it; HPA conversions."""

from typing import Any

from tests.cluster.scenarios.manifests import (
    APPS,
    BATCH,
    CORE,
    HPA_V1,
    HPA_V2,
    NETWORKING,
    hpa,
    obj,
    pods_metric,
    resource_metric,
    template,
    workload,
)
from tests.cluster.steps import Http, Kubectl, Step

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_STORAGE = "/apis/storage.k8s.io/v1"
_JOB = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_BACKEND = {"service": {"name": "web", "port": {"number": 80}}}

_FULL_POD = {
    "initContainers": [
        {"name": "init", "image": "busybox", "command": ["true"]},
        {"name": "side", "image": "busybox:latest", "restartPolicy": "Always"},
    ],
    "containers": [
        {
            "name": "web",
            "image": "nginx:1.27",
            "ports": [{"name": "http", "containerPort": 80}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            ],
            "readinessProbe": {"httpGet": {"port": "http"}},
            "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 3},
            "startupProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
            "securityContext": {"runAsUser": 1},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}, {"name": "scratch", "mountPath": "/tmp"}],
        },
        {"name": "plain", "image": "registry.example:5000/a/b"},
    ],
    "volumes": [
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": "/x"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "p"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ],
}


def _post(path: str, body: dict[str, Any]) -> Step:
    return Http("POST", path, body)


SCENARIOS: dict[str, list[Step]] = {
    "defaults": [
        _post(f"{CORE}/pods", obj("Pod", "small", spec={"containers": [{"name": "c", "image": "nginx"}]})),
        _post(f"{CORE}/pods", obj("Pod", "full", spec=_FULL_POD)),
        _post(
            f"{CORE}/pods",
            obj(
                "Pod",
                "guaranteed",
                spec={
                    "hostNetwork": True,
                    "containers": [
                        {
                            "name": "c",
                            "image": "i@sha256:" + "0" * 64,
                            "ports": [{"containerPort": 80}],
                            "resources": {"limits": {"cpu": 1, "memory": "1.5Gi"}},
                        }
                    ],
                },
            ),
        ),
        _post(f"{APPS}/deployments", workload("Deployment", "web", pod=template("web", **_FULL_POD))),
        _post(f"{APPS}/deployments", workload("Deployment", "recreated", replicas=0, strategy={"type": "Recreate"})),
        _post(f"{APPS}/deployments", workload("Deployment", "surging", strategy={"rollingUpdate": {"maxSurge": 2}})),
        _post(f"{APPS}/replicasets", workload("ReplicaSet", "web")),
        _post(
            f"{APPS}/statefulsets",
            workload(
                "StatefulSet",
                "web",
                serviceName="web",
                volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": _CLAIM}],
            ),
        ),
        _post(f"{APPS}/daemonsets", workload("DaemonSet", "web")),
        _post(f"{APPS}/controllerrevisions", obj("ControllerRevision", "web-1", "apps/v1", revision=1, data={"a": 1})),
        _post(f"{BATCH}/jobs", obj("Job", "once", "batch/v1", spec=_JOB)),
        _post(
            f"{BATCH}/cronjobs",
            obj("CronJob", "often", "batch/v1", spec={"schedule": "*/5 * * * *", "jobTemplate": {"spec": _JOB}}),
        ),
        _post(
            f"{CORE}/replicationcontrollers", obj("ReplicationController", "old", spec={"template": template("old")})
        ),
        _post(f"{CORE}/services", obj("Service", "plain", spec={"ports": [{"port": 80}]})),
        _post(f"{CORE}/services", obj("Service", "headless", spec={"clusterIP": "None", "selector": {"a": "b"}})),
        _post(
            f"{CORE}/services",
            obj("Service", "node", spec={"type": "NodePort", "ports": [{"port": 80, "targetPort": "http"}]}),
        ),
        _post(f"{CORE}/services", obj("Service", "balanced", spec={"type": "LoadBalancer", "ports": [{"port": 80}]})),
        _post(
            f"{CORE}/services", obj("Service", "named", spec={"type": "ExternalName", "externalName": "example.com"})
        ),
        _post(
            f"{CORE}/services",
            obj("Service", "sticky", spec={"sessionAffinity": "ClientIP", "ports": [{"port": 53, "protocol": "UDP"}]}),
        ),
        _post(
            f"{CORE}/endpoints",
            obj("Endpoints", "e", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]),
        ),
        _post(
            "/apis/discovery.k8s.io/v1/namespaces/$NS/endpointslices",
            obj(
                "EndpointSlice",
                "e",
                "discovery.k8s.io/v1",
                addressType="IPv4",
                endpoints=[{"addresses": ["10.0.0.1"]}],
                ports=[{"port": 80}],
            ),
        ),
        _post(f"{CORE}/configmaps", obj("ConfigMap", "c", data={"a": "b"}, binaryData={"b": "AAE="})),
        _post(f"{CORE}/secrets", obj("Secret", "s", data={"a": "YQ=="}, stringData={"b": "text"})),
        _post(f"{CORE}/serviceaccounts", obj("ServiceAccount", "sa")),
        _post(f"{CORE}/persistentvolumeclaims", obj("PersistentVolumeClaim", "p", spec=_CLAIM)),
        _post(
            "/api/v1/persistentvolumes",
            obj(
                "PersistentVolume",
                "$NS",
                spec={"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}},
            ),
        ),
        _post(
            f"{_STORAGE}/storageclasses", obj("StorageClass", "$NS", "storage.k8s.io/v1", provisioner="example.com/p")
        ),
        _post(f"{CORE}/resourcequotas", obj("ResourceQuota", "q", spec={"hard": {"count/secrets": "9"}})),
        _post(
            f"{CORE}/limitranges",
            obj("LimitRange", "l", spec={"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}),
        ),
        _post("/api/v1/nodes", obj("Node", "$NS-node")),
        _post(
            "/api/v1/nodes",
            obj("Node", "$NS-node2", spec={"podCIDR": "10.0.0.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]}),
        ),
        _post(
            f"{NETWORKING}/ingresses",
            obj(
                "Ingress",
                "i",
                "networking.k8s.io/v1",
                spec={
                    "rules": [
                        {
                            "host": "a.example",
                            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": _BACKEND}]},
                        }
                    ]
                },
            ),
        ),
        _post(
            "/apis/networking.k8s.io/v1/ingressclasses",
            obj("IngressClass", "$NS", "networking.k8s.io/v1", spec={"controller": "example.com/c"}),
        ),
        _post(
            f"{NETWORKING}/networkpolicies",
            obj(
                "NetworkPolicy",
                "n",
                "networking.k8s.io/v1",
                spec={"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]},
            ),
        ),
        _post(
            "/apis/policy/v1/namespaces/$NS/poddisruptionbudgets",
            obj(
                "PodDisruptionBudget",
                "b",
                "policy/v1",
                spec={"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}},
            ),
        ),
        _post(
            f"{_RBAC}/namespaces/$NS/roles",
            obj(
                "Role",
                "r",
                "rbac.authorization.k8s.io/v1",
                rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
            ),
        ),
        _post(
            f"{_RBAC}/namespaces/$NS/rolebindings",
            obj(
                "RoleBinding",
                "r",
                "rbac.authorization.k8s.io/v1",
                roleRef={"kind": "Role", "name": "r"},
                subjects=[{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "sa"}],
            ),
        ),
        _post(f"{_RBAC}/clusterroles", obj("ClusterRole", "$NS", "rbac.authorization.k8s.io/v1", rules=[])),
        _post(
            "/apis/scheduling.k8s.io/v1/priorityclasses", obj("PriorityClass", "$NS", "scheduling.k8s.io/v1", value=7)
        ),
        _post("/apis/node.k8s.io/v1/runtimeclasses", obj("RuntimeClass", "$NS", "node.k8s.io/v1", handler="h")),
        _post(
            "/apis/coordination.k8s.io/v1/namespaces/$NS/leases",
            obj("Lease", "l", "coordination.k8s.io/v1", spec={"holderIdentity": "me", "leaseDurationSeconds": 15}),
        ),
        _post(
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            obj(
                "ValidatingWebhookConfiguration",
                "$NS",
                "admissionregistration.k8s.io/v1",
                webhooks=[
                    {
                        "name": "a.example.com",
                        "clientConfig": {"service": {"namespace": "$NS", "name": "s"}},
                        "admissionReviewVersions": ["v1"],
                        "sideEffects": "None",
                    }
                ],
            ),
        ),
        _post(
            "/apis/apiregistration.k8s.io/v1/apiservices",
            obj(
                "APIService",
                "v1.$NS.example.com",
                "apiregistration.k8s.io/v1",
                spec={
                    "group": "$NS.example.com",
                    "version": "v1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 10,
                    "service": {"namespace": "$NS", "name": "s"},
                },
            ),
        ),
        _post("/api/v1/namespaces", obj("Namespace", "$NS-other")),
    ],
    "hpas": [
        _post(HPA_V2, hpa("bare")),
        _post(HPA_V2, hpa("cpu", minReplicas=2, metrics=[resource_metric("cpu", 50)])),
        _post(HPA_V2, hpa("pods", metrics=[pods_metric("http_requests", "1500m"), resource_metric("memory", 70)])),
        _post(
            HPA_V2,
            hpa(
                "shaped",
                metrics=[
                    {
                        "type": "External",
                        "external": {
                            "metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}},
                            "target": {"type": "AverageValue", "averageValue": "30"},
                        },
                    },
                    {
                        "type": "Object",
                        "object": {
                            "metric": {"name": "o"},
                            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
                            "target": {"type": "Value", "value": "2k"},
                        },
                    },
                    {
                        "type": "ContainerResource",
                        "containerResource": {
                            "name": "cpu",
                            "container": "c",
                            "target": {"type": "Utilization", "averageUtilization": 60},
                        },
                    },
                ],
                behavior={
                    "scaleDown": {
                        "stabilizationWindowSeconds": 60,
                        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
                        "selectPolicy": "Min",
                    },
                    "scaleUp": {"stabilizationWindowSeconds": 0},
                },
            ),
        ),
        *(Http("GET", f"{HPA_V1}/{name}") for name in ("bare", "cpu", "pods", "shaped")),
        _post(
            HPA_V1,
            obj(
                "HorizontalPodAutoscaler",
                "first",
                "autoscaling/v1",
                spec={
                    "maxReplicas": 4,
                    "targetCPUUtilizationPercentage": 80,
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "first"},
                },
            ),
        ),
        _post(
            HPA_V1,
            obj(
                "HorizontalPodAutoscaler",
                "simple",
                "autoscaling/v1",
                spec={
                    "maxReplicas": 4,
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "first"},
                },
            ),
        ),
        Http("GET", f"{HPA_V2}/first"),
        Http("GET", f"{HPA_V2}/simple"),
        Http(
            "PATCH",
            f"{HPA_V2}/pods/status",
            {
                "status": {
                    "observedGeneration": 1,
                    "currentReplicas": 2,
                    "desiredReplicas": 3,
                    "lastScaleTime": "2026-01-01T00:00:00Z",
                    "currentMetrics": [
                        {
                            "type": "Pods",
                            "pods": {"metric": {"name": "http_requests"}, "current": {"averageValue": "1234m"}},
                        },
                        {
                            "type": "Resource",
                            "resource": {
                                "name": "memory",
                                "current": {"averageUtilization": 41, "averageValue": "100Mi"},
                            },
                        },
                    ],
                    "conditions": [
                        {
                            "type": "AbleToScale",
                            "status": "True",
                            "reason": "ReadyForNewScale",
                            "message": "m",
                            "lastTransitionTime": "2026-01-01T00:00:00Z",
                        }
                    ],
                }
            },
            "application/merge-patch+json",
        ),
        Http("GET", f"{HPA_V1}/pods"),
        Http("PATCH", f"{HPA_V1}/shaped", {"spec": {"maxReplicas": 9}}, "application/merge-patch+json"),
        Http("GET", f"{HPA_V2}/shaped"),
        Http(
            "PATCH", f"{HPA_V1}/first", {"spec": {"targetCPUUtilizationPercentage": 65}}, "application/merge-patch+json"
        ),
        Http("GET", f"{HPA_V2}/first"),
        Kubectl("get hpa"),
        Kubectl("get hpa -o wide"),
        Kubectl("describe hpa pods"),
        Kubectl("describe hpa shaped"),
        Kubectl("get hpa.v1.autoscaling cpu -o yaml"),
        Kubectl("apply -f -", hpa("cpu", minReplicas=3, metrics=[resource_metric("cpu", 60)])),
    ],
}
