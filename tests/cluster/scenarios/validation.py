"""Values that upstream refuses, one request each, with its messages."""

from typing import Any

from tests.cluster.scenarios.manifests import (
    APPS,
    BATCH,
    CORE,
    HPA_V1,
    HPA_V2,
    NETWORKING,
    config_map,
    deployment,
    hpa,
    obj,
    pod,
    pods_metric,
    resource_metric,
    service,
    template,
    workload,
)
from tests.cluster.steps import Http, Step

MERGE = "application/merge-patch+json"
LONG = "x" * 254


def _container(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "i", **fields}]


def _pods(**bodies: dict[str, Any]) -> list[Step]:
    """Pods whose spec is wrong in one way each, named after it."""
    return [Http("POST", f"{CORE}/pods", pod(name.replace("_", "-"), **spec)) for name, spec in bodies.items()]


def _hpas(**specs: dict[str, Any]) -> list[Step]:
    return [Http("POST", HPA_V2, hpa(name.replace("_", "-"), **spec)) for name, spec in specs.items()]


def _services(**specs: dict[str, Any]) -> list[Step]:
    return [Http("POST", f"{CORE}/services", service(name.replace("_", "-"), **spec)) for name, spec in specs.items()]


def _deployments(**specs: dict[str, Any]) -> list[Step]:
    return [
        Http("POST", f"{APPS}/deployments", deployment(name.replace("_", "-"), **spec)) for name, spec in specs.items()
    ]


def _cron(name: str, **spec: Any) -> Step:
    job = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": _container()}}}}
    body = {"schedule": "* * * * *", "jobTemplate": job, **spec}
    return Http("POST", f"{BATCH}/cronjobs", obj("CronJob", name, "batch/v1", spec=body))


def _ingress(name: str, **spec: Any) -> Step:
    return Http("POST", f"{NETWORKING}/ingresses", obj("Ingress", name, "networking.k8s.io/v1", spec=spec))


def _selecting(selector: dict[str, Any]) -> dict[str, Any]:
    metric = {"name": "x", "selector": selector}
    return {"type": "External", "external": {"metric": metric, "target": {"type": "Value", "value": "1"}}}


_BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
_TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}

SCENARIOS: dict[str, list[Step]] = {
    "invalid-meta": [
        Http("POST", f"{CORE}/configmaps", config_map("Upper")),
        Http("POST", f"{CORE}/configmaps", config_map("under_score")),
        Http("POST", f"{CORE}/configmaps", config_map(LONG)),
        Http("POST", f"{CORE}/services", service("1digit")),
        Http("POST", f"{CORE}/services", service("x" * 64)),
        Http("POST", "/api/v1/namespaces", obj("Namespace", "has.dot")),
        Http("POST", f"{CORE}/configmaps", config_map("labels", {"a b": "c"})),
        Http("POST", f"{CORE}/configmaps", config_map("labels", {"a": "c d"})),
        Http("POST", f"{CORE}/configmaps", config_map("labels", {"x/y/z": "c"})),
        Http("POST", f"{CORE}/configmaps", config_map("labels", {"a": "x" * 64})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "n", metadata={"annotations": {"a b": "c"}})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "n", metadata={"ownerReferences": [{"kind": "X"}]})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "n", metadata={"generateName": "Bad-"})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "keys", data={"bad key": "x"})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "keys", data={"..": "y"})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "both", data={"a": "x"}, binaryData={"a": "eA=="})),
        Http("POST", f"{CORE}/configmaps", obj("ConfigMap", "fixed", data={"a": "x"}, immutable=True)),
        Http("PATCH", f"{CORE}/configmaps/fixed", {"data": {"a": "y"}}, MERGE),
        Http("PATCH", f"{CORE}/configmaps/fixed", {"immutable": False}, MERGE),
        Http("POST", f"{CORE}/secrets", obj("Secret", "tls", type="kubernetes.io/tls", data={})),
        Http("POST", f"{CORE}/secrets", obj("Secret", "dock", type="kubernetes.io/dockerconfigjson", data={})),
        Http("POST", f"{CORE}/secrets", obj("Secret", "plain", stringData={"a": "b"})),
        Http("PATCH", f"{CORE}/secrets/plain", {"type": "other"}, MERGE),
        Http("POST", f"{CORE}/configmaps", config_map("meta")),
        Http("PATCH", f"{CORE}/configmaps/meta", {"metadata": {"labels": {"a": "-"}}}, MERGE),
        Http("PATCH", f"{CORE}/configmaps/meta", {"metadata": {"uid": "other"}}, MERGE),
        Http("PATCH", f"{CORE}/configmaps/meta", {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}, MERGE),
        Http("PATCH", f"{CORE}/configmaps/meta", {"metadata": {"generation": 7}}, MERGE),
        Http("PATCH", f"{CORE}/configmaps/meta", {"metadata": {"namespace": "other"}}, MERGE),
    ],
    "invalid-pods": [
        *_pods(
            none={"containers": []},
            nameless={"containers": [{"image": "i"}]},
            imageless={"containers": [{"name": "c"}]},
            upper={"containers": [{"name": "C", "image": "i"}]},
            twice={"containers": _container() * 2},
            init_twice={"containers": _container(), "initContainers": _container()},
            port_range={"containers": _container(ports=[{"containerPort": 70000}])},
            port_twice={
                "containers": _container(ports=[{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}])
            },
            port_name={"containers": _container(ports=[{"containerPort": 80, "name": "Much_Too_Long_A_Name"}])},
            protocol={"containers": _container(ports=[{"containerPort": 80, "protocol": "ICMP"}])},
            env_name={"containers": _container(env=[{"name": "A=B"}])},
            env_both={
                "containers": _container(
                    env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
                )
            },
            env_field={
                "containers": _container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nosuch"}}}])
            },
            env_empty={"containers": _container(env=[{"name": "A", "valueFrom": {}}])},
            over_limit={"containers": _container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})},
            negative={"containers": _container(resources={"requests": {"cpu": "-1"}})},
            pull={"containers": _container(imagePullPolicy="Sometimes")},
            restart={"containers": _container(), "restartPolicy": "Sometimes"},
            dns={"containers": _container(), "dnsPolicy": "Nowhere"},
            grace={"containers": _container(), "terminationGracePeriodSeconds": -1},
            deadline={"containers": _container(), "activeDeadlineSeconds": 0},
            mount_nosuch={"containers": _container(volumeMounts=[{"name": "v", "mountPath": "/v"}])},
            mount_twice={
                "containers": _container(volumeMounts=[{"name": "v", "mountPath": "/v"}] * 2),
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            mount_pathless={
                "containers": _container(volumeMounts=[{"name": "v"}]),
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            volume_two={
                "containers": _container(),
                "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}],
            },
            volume_twice={"containers": _container(), "volumes": [{"name": "v", "emptyDir": {}}] * 2},
            volume_none={"containers": _container(), "volumes": [{"name": "v"}]},
            volume_items={
                "containers": _container(),
                "volumes": [{"name": "v", "configMap": {"name": "x", "items": [{"key": "a", "path": "../b"}]}}],
            },
            probe_empty={"containers": _container(livenessProbe={})},
            probe_two={"containers": _container(livenessProbe={"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}})},
            probe_numbers={
                "containers": _container(
                    readinessProbe={"httpGet": {"port": 80}, "periodSeconds": -1, "timeoutSeconds": -1}
                )
            },
            probe_success={"containers": _container(livenessProbe={"httpGet": {"port": 80}, "successThreshold": 2})},
            probe_port={"containers": _container(readinessProbe={"httpGet": {"port": "BAD_PORT"}})},
            node={"containers": _container(), "nodeSelector": {"a b": "c"}},
            toleration={"containers": _container(), "tolerations": [{"operator": "Exists", "value": "x"}]},
            affinity={
                "containers": _container(),
                "affinity": {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
                },
            },
            hook={"containers": _container(lifecycle={"preStop": {}})},
            hostname={"containers": _container(), "hostname": "Not_A_Label"},
            account={"containers": _container(), "serviceAccountName": "nosuch"},
            priority={"containers": _container(), "priorityClassName": "nosuch"},
        ),
        Http("POST", f"{CORE}/pods", pod("good")),
        Http("PATCH", f"{CORE}/pods/good", {"spec": {"containers": [{"name": "web", "image": "other"}]}}, MERGE),
        Http("PATCH", f"{CORE}/pods/good", {"spec": {"restartPolicy": "Never"}}, MERGE),
        Http("PATCH", f"{CORE}/pods/good", {"spec": {"activeDeadlineSeconds": 60}}, MERGE),
        Http("PATCH", f"{CORE}/pods/good", {"spec": {"nodeName": "n"}}, MERGE),
    ],
    "invalid-workloads": [
        *_deployments(
            negative={"replicas": -1},
            mismatch={"selector": {"matchLabels": {"app": "other"}}},
            empty_selector={"selector": {}},
            no_selector={"selector": None},
            bad_selector={"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
            bad_operator={"selector": {"matchExpressions": [{"key": "app", "operator": "Near", "values": ["x"]}]}},
            strategy={"strategy": {"type": "Sideways"}},
            recreate={"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            both_zero={"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            percent={"strategy": {"rollingUpdate": {"maxUnavailable": "110%"}}},
            not_percent={"strategy": {"rollingUpdate": {"maxSurge": "many"}}},
            deadline={"progressDeadlineSeconds": 5, "minReadySeconds": 10},
            history={"revisionHistoryLimit": -1},
            never={"template": {**template("never"), "spec": {"restartPolicy": "Never", "containers": _container()}}},
            empty={"template": {"metadata": {"labels": {"app": "empty"}}, "spec": {"containers": []}}},
        ),
        Http("POST", f"{APPS}/deployments", obj("Deployment", "bare", "apps/v1", spec={})),
        Http("POST", f"{APPS}/deployments", obj("Deployment", "barer", "apps/v1")),
        Http("POST", f"{APPS}/deployments", deployment("good")),
        Http("PATCH", f"{APPS}/deployments/good", {"spec": {"selector": {"matchLabels": {"app": "new"}}}}, MERGE),
        Http(
            "PATCH",
            f"{APPS}/deployments/good",
            {"spec": {"selector": {"matchLabels": {"b": "new"}}, "template": {"metadata": {"labels": {"b": "new"}}}}},
            MERGE,
        ),
        Http("POST", f"{APPS}/statefulsets", workload("StatefulSet", "policy", podManagementPolicy="Never")),
        Http("POST", f"{APPS}/statefulsets", workload("StatefulSet", "update", updateStrategy={"type": "Now"})),
        Http("POST", f"{APPS}/statefulsets", workload("StatefulSet", "good", serviceName="s")),
        Http("PATCH", f"{APPS}/statefulsets/good", {"spec": {"serviceName": "other"}}, MERGE),
        Http("POST", f"{APPS}/daemonsets", workload("DaemonSet", "update", updateStrategy={"type": "Now"})),
        Http("POST", f"{APPS}/replicasets", workload("ReplicaSet", "negative", replicas=-2)),
        Http(
            "POST",
            f"{BATCH}/jobs",
            obj("Job", "always", "batch/v1", spec={"template": {"spec": {"containers": _container()}}}),
        ),
        Http(
            "POST",
            f"{BATCH}/jobs",
            obj(
                "Job",
                "negative",
                "batch/v1",
                spec={
                    "completions": -1,
                    "parallelism": -1,
                    "backoffLimit": -1,
                    "template": {"spec": {"restartPolicy": "Never", "containers": _container()}},
                },
            ),
        ),
        _cron("schedule", schedule="every minute"),
        _cron("empty", schedule=""),
        _cron("zone", timeZone="Nowhere/Town"),
        _cron("policy", concurrencyPolicy="Maybe"),
        _cron("a-name-that-is-much-too-long-for-a-cron-job-which-appends-a-time"),
    ],
    "invalid-hpas": [
        *_hpas(
            above={"minReplicas": 9},
            zero={"minReplicas": 0},
            no_max={"maxReplicas": 0},
            no_target={"scaleTargetRef": {}},
            bad_target={"scaleTargetRef": {**_TARGET, "name": "a/b"}},
            no_kind={"scaleTargetRef": {"name": "x"}},
            type_={"metrics": [{"type": "Nosuch"}]},
            typeless={"metrics": [{}]},
            sourceless={"metrics": [{"type": "Pods"}]},
            two={"metrics": [{**resource_metric("cpu", 50), "pods": pods_metric("x", "1")["pods"]}]},
            targetless={"metrics": [{"type": "Resource", "resource": {"name": "cpu"}}]},
            zero_percent={"metrics": [resource_metric("cpu", 0)]},
            negative={"metrics": [pods_metric("x", "-1")]},
            unparsed={"metrics": [pods_metric("x", "lots")]},
            nameless={"metrics": [pods_metric("", "1")]},
            slashed={"metrics": [pods_metric("a/b", "1")]},
            both_targets={
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 50, "averageValue": "1"},
                        },
                    }
                ]
            },
            pods_utilization={
                "metrics": [
                    {
                        "type": "Pods",
                        "pods": {"metric": {"name": "x"}, "target": {"type": "Utilization", "averageUtilization": 1}},
                    }
                ]
            },
            object_={
                "metrics": [
                    {"type": "Object", "object": {"metric": {"name": "x"}, "target": {"type": "Value", "value": "1"}}}
                ]
            },
            external={
                "metrics": [{"type": "External", "external": {"metric": {"name": "x"}, "target": {"type": "Value"}}}]
            },
            container={
                "metrics": [
                    {
                        "type": "ContainerResource",
                        "containerResource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 5},
                        },
                    }
                ]
            },
            window={"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
            window_negative={"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1}}},
            policy_value={"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}}},
            policy_period={
                "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}
            },
            policy_type={"behavior": {"scaleUp": {"policies": [{"type": "Nodes", "value": 1, "periodSeconds": 15}]}}},
            policy_none={"behavior": {"scaleUp": {"policies": []}}},
            select={"behavior": {"scaleUp": {"selectPolicy": "Most"}}},
            tolerance={"behavior": {"scaleUp": {"tolerance": "-1"}}},
            version={"scaleTargetRef": {**_TARGET, "apiVersion": "a/b/c"}},
            core={"scaleTargetRef": {**_TARGET, "apiVersion": "v1"}},
            selector={  # which only its reader refuses
                "metrics": [_selecting({"matchExpressions": [{"key": "a b", "operator": "Near"}]})],
            },
        ),
        *(
            Http("POST", HPA_V1, {**hpa(name, **spec), "apiVersion": "autoscaling/v1"})
            for name, spec in {
                "v1-zero-percent": {"targetCPUUtilizationPercentage": 0},
                "v1-negative-percent": {"targetCPUUtilizationPercentage": -5},
                "v1-zero": {"minReplicas": 0},
                "v1-no-max": {"maxReplicas": 0},
            }.items()
        ),
    ],
    "invalid-services": [
        *_services(
            portless={"ports": []},
            port_zero={"ports": [{"port": 0}]},
            port_big={"ports": [{"port": 70000}]},
            nameless={"ports": [{"port": 80}, {"port": 81}]},
            same_name={"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]},
            same_port={"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
            protocol={"ports": [{"port": 80, "protocol": "ICMP"}]},
            target={"ports": [{"port": 80, "targetPort": "Bad_Name"}]},
            node_port={"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
            cluster_node_port={"ports": [{"port": 80, "nodePort": 30080}]},
            type_={"type": "Mesh"},
            cluster_ip={"clusterIP": "1.2.3.400"},
            outside={"clusterIP": "192.0.2.1"},
            external_name={"type": "ExternalName", "ports": None},
            affinity={"sessionAffinity": "Cookie"},
            policy={"type": "LoadBalancer", "externalTrafficPolicy": "Everywhere"},
            selector={"selector": {"a b": "c"}},
        ),
        Http("POST", f"{CORE}/services", service("good"), save="good"),
        Http(
            "PATCH", f"{CORE}/services/good", {"spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"]}}, MERGE
        ),
        Http("PATCH", f"{CORE}/services/good", {"spec": {"type": "NodePort"}}, MERGE),
        Http("PATCH", f"{CORE}/services/good", {"spec": {"type": "ClusterIP"}}, MERGE),
        _ingress("empty"),
        _ingress("backendless", rules=[{"http": {"paths": [{"path": "/", "pathType": "Prefix"}]}}]),
        _ingress("typeless", rules=[{"http": {"paths": [{"path": "/", "backend": _BACKEND}]}}]),
        _ingress("relative", rules=[{"http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": _BACKEND}]}}]),
        _ingress("host", rules=[{"host": "1.2.3.4"}]),
        _ingress("host-upper", rules=[{"host": "Example.com"}]),
        _ingress("tls", defaultBackend=_BACKEND, tls=[{"hosts": ["*.*.example.com"]}]),
        Http(
            "POST",
            f"{CORE}/persistentvolumeclaims",
            obj("PersistentVolumeClaim", "sizeless", spec={"accessModes": ["ReadWriteOnce"]}),
        ),
        Http(
            "POST",
            f"{CORE}/persistentvolumeclaims",
            obj("PersistentVolumeClaim", "modeless", spec={"resources": {"requests": {"storage": "1Gi"}}}),
        ),
        Http(
            "POST",
            "/apis/policy/v1/namespaces/$NS/poddisruptionbudgets",
            obj("PodDisruptionBudget", "both", "policy/v1", spec={"minAvailable": 1, "maxUnavailable": 1}),
        ),
        Http(
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/$NS/roles",
            obj("Role", "verbless", "rbac.authorization.k8s.io/v1", rules=[{"apiGroups": [""], "resources": ["pods"]}]),
        ),
        Http(
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/$NS/rolebindings",
            obj("RoleBinding", "roleless", "rbac.authorization.k8s.io/v1", subjects=[{"kind": "Robot", "name": "x"}]),
        ),
    ],
}
