"""Manifests that several scenarios use."""

from typing import Any

Object = dict[str, Any]

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

CORE = "/api/v1/namespaces/$NS"
APPS = "/apis/apps/v1/namespaces/$NS"
BATCH = "/apis/batch/v1/namespaces/$NS"
NETWORKING = "/apis/networking.k8s.io/v1/namespaces/$NS"
HPA_V1 = "/apis/autoscaling/v1/namespaces/$NS/horizontalpodautoscalers"
HPA_V2 = "/apis/autoscaling/v2/namespaces/$NS/horizontalpodautoscalers"


def obj(kind: str, name: str, api_version: str = "v1", metadata: Object | None = None, **fields: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **(metadata or {})}, **fields}


def config_map(name: str, labels: Object | None = None, **data: str) -> Object:
    return obj("ConfigMap", name, metadata={"labels": labels} if labels else None, data=data)


def template(app: str, **spec: Any) -> Object:
    spec = {"containers": [{"name": "web", "image": "nginx:1.27"}], **spec}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def workload(kind: str, name: str, *, pod: Object | None = None, **spec: Any) -> Object:
    body = {"selector": {"matchLabels": {"app": name}}, "template": pod or template(name), **spec}
    return obj(kind, name, "apps/v1", spec=body)


def deployment(name: str, **spec: Any) -> Object:
    return workload("Deployment", name, **{"replicas": 2, **spec})


def pod(name: str, labels: Object | None = None, **spec: Any) -> Object:
    spec = {"containers": [{"name": "web", "image": "nginx:1.27"}], **spec}
    return obj("Pod", name, metadata={"labels": labels} if labels else None, spec=spec)


def service(name: str, **spec: Any) -> Object:
    return obj("Service", name, spec={"selector": {"app": name}, "ports": [{"port": 80}], **spec})


def hpa(name: str, **spec: Any) -> Object:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return obj(
        "HorizontalPodAutoscaler", name, "autoscaling/v2", spec={"scaleTargetRef": target, "maxReplicas": 5, **spec}
    )


def resource_metric(name: str, utilization: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def pods_metric(name: str, average: str) -> Object:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}
