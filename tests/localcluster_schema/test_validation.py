"""Validation in upstream's words."""

import copy
from typing import Any

import pytest

from flyball.localcluster import schema
from flyball.localcluster.schema import quantity


def problems(group: str, version: str, name: str, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    kind = schema.find_kind(group, version, name)
    assert kind is not None
    made = copy.deepcopy(obj)
    made.setdefault("metadata", {"name": "web"})
    schema.default(kind, made)
    if old is not None:
        old = copy.deepcopy(old)
        old.setdefault("metadata", {"name": "web"})
        schema.default(kind, old)
    return [cause.message for cause in schema.validate(kind, made, old)]


def deployment(**container: Any) -> dict[str, Any]:
    return {
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "nginx", **container}]},
            },
        }
    }


def hpa(metrics: list[Any] | None = None, **spec: Any) -> dict[str, Any]:
    made = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5, **spec}
    if metrics is not None:
        made["metrics"] = metrics
    return {"spec": made}


def hpa_problems(obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return problems("autoscaling", "v2", "HorizontalPodAutoscaler", obj, old)


def test_good_objects_have_no_causes() -> None:
    assert problems("apps", "v1", "Deployment", deployment()) == []
    assert hpa_problems(hpa()) == []
    assert problems("", "v1", "Service", {"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}) == []


def test_cause_has_upstream_s_machine_word() -> None:
    kind = schema.find_kind("", "v1", "ConfigMap")
    assert kind is not None
    (cause,) = schema.validate(kind, {"metadata": {}}, None)
    assert (cause.field, cause.type, cause.reason) == ("metadata.name", "Required value", "FieldValueRequired")
    assert cause.message == "metadata.name: Required value: name or generateName is required"


@pytest.mark.parametrize("name", ["Web", "web_", "-web", "web.", "a" * 254])
def test_bad_names(name: str) -> None:
    found = problems("", "v1", "ConfigMap", {"metadata": {"name": name}})
    assert found
    assert found[0].startswith(f'metadata.name: Invalid value: "{name}": ')


def test_name_words_and_stricter_kinds() -> None:
    (words,) = problems("", "v1", "ConfigMap", {"metadata": {"name": "Web"}})
    assert words == (
        'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
        "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
        "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )
    assert problems("", "v1", "Namespace", {"metadata": {"name": "a.b"}})
    assert problems("rbac.authorization.k8s.io", "v1", "ClusterRole", {"metadata": {"name": "system:Any"}}) == []


def test_labels() -> None:
    bad = {"metadata": {"name": "x", "labels": {"a/b/c": "x", "ok": "not ok"}}}
    found = problems("", "v1", "ConfigMap", bad)
    assert len(found) == 2
    assert found[0].startswith('metadata.labels: Invalid value: "a/b/c": ')
    assert found[1].startswith('metadata.labels: Invalid value: "not ok": a valid label must be an empty string')


def test_deployment_selector() -> None:
    obj = deployment()
    obj["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    assert problems("apps", "v1", "Deployment", obj) == [
        'spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`'
    ]
    del obj["spec"]["selector"]
    assert problems("apps", "v1", "Deployment", obj) == [
        "spec.selector: Required value",
        'spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`',
    ]
    new = deployment()
    new["spec"]["selector"] = {"matchLabels": {"app": "x"}}
    new["spec"]["template"]["metadata"]["labels"] = {"app": "x"}
    assert problems("apps", "v1", "Deployment", new, deployment()) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable'
    ]


def test_deployment_values() -> None:
    obj = deployment()
    obj["spec"]["replicas"] = -1
    assert problems("apps", "v1", "Deployment", obj) == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    ]
    obj = deployment()
    obj["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    assert problems("apps", "v1", "Deployment", obj) == [
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'
    ]
    obj = deployment()
    obj["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}
    assert problems("apps", "v1", "Deployment", obj) == [
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
    ]


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"image": ""}, "image: Required value"),
        ({"name": ""}, "name: Required value"),
        (
            {"ports": [{"containerPort": 70000}]},
            "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}},
            'resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1',
        ),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}, 'volumeMounts[0].name: Not found: "v"'),
        ({"readinessProbe": {"periodSeconds": 1}}, "readinessProbe: Required value: must specify a handler type"),
        (
            {"imagePullPolicy": "Sometimes"},
            'imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"',
        ),
        (
            {"env": [{"name": "a=b"}]},
            'env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII '
            "characters other than '='",
        ),
    ],
)
def test_containers(container: dict[str, Any], words: str) -> None:
    assert problems("apps", "v1", "Deployment", deployment(**container)) == [
        f"spec.template.spec.containers[0].{words}"
    ]


def test_a_pod_needs_containers_and_its_spec_is_frozen() -> None:
    assert problems("", "v1", "Pod", {"spec": {}}) == ["spec.containers: Required value"]
    pod = {"spec": {"containers": [{"name": "a", "image": "x:1"}]}}
    newer = {"spec": {"containers": [{"name": "a", "image": "x:2"}]}}
    assert problems("", "v1", "Pod", newer, pod) == []
    changed = {"spec": {"containers": [{"name": "a", "image": "x:1", "command": ["sh"]}]}}
    (words,) = problems("", "v1", "Pod", changed, pod)
    assert words.startswith("spec: Forbidden: pod updates may not change fields other than")


def test_a_job_s_template_is_frozen_unless_suspended() -> None:
    def job(image: str, **spec: Any) -> dict[str, Any]:
        pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": image}]}
        return {"spec": {"template": {"spec": pod}, **spec}}

    assert problems("batch", "v1", "Job", job("x:1"), job("x:1")) == []
    (words,) = problems("batch", "v1", "Job", job("x:2"), job("x:1"))
    assert words.startswith("spec.template: Invalid value: ") and words.endswith(": field is immutable")
    assert problems("batch", "v1", "Job", job("x:2"), job("x:1", suspend=True)) == []


def test_services() -> None:
    assert problems("", "v1", "Service", {"spec": {}}) == ["spec.ports: Required value"]
    assert problems("", "v1", "Service", {"spec": {"clusterIP": "None"}}) == []
    two = {"spec": {"ports": [{"port": 80}, {"name": "Bad", "port": 0}]}}
    found = problems("", "v1", "Service", two)
    assert found[0] == "spec.ports[0].name: Required value"
    assert found[1].startswith('spec.ports[1].name: Invalid value: "Bad": a lowercase RFC 1123 label')
    assert found[2] == "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive"
    assert problems("", "v1", "Service", {"spec": {"ports": [{"port": 80, "nodePort": 30080}]}}) == [
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"
    ]


def test_config_map_keys_and_immutability() -> None:
    (words,) = problems("", "v1", "ConfigMap", {"data": {"a b": "x"}})
    assert words.startswith('data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric')
    assert problems("", "v1", "ConfigMap", {"data": {"..": "x"}})
    old = {"data": {"a": "1"}, "immutable": True}
    assert problems("", "v1", "ConfigMap", {"data": {"a": "2"}, "immutable": True}, old) == [
        "data: Forbidden: field is immutable when `immutable` is set"
    ]


def resource(**target: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def external(name: str = "q", **target: Any) -> dict[str, Any]:
    return {"type": "External", "external": {"metric": {"name": name}, "target": target}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"minReplicas": 6}, "maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"),
        ({"minReplicas": -1}, "minReplicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment"}}, "scaleTargetRef.name: Required value"),
        (
            {"scaleTargetRef": {"kind": "Deployment", "name": "x"}},
            'scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group',
        ),
        (
            {"scaleTargetRef": {"apiVersion": "x/v1", "kind": "A/B", "name": "x"}},
            "scaleTargetRef.kind: Invalid value: \"A/B\": may not contain '/'",
        ),
        (
            {"metrics": [{"type": "Nope"}]},
            'metrics[0].type: Unsupported value: "Nope": supported values: "ContainerResource", "External", "Object", '
            '"Pods", "Resource"',
        ),
        (
            {"metrics": [{"type": "Pods"}]},
            "metrics[0].pods: Required value: must populate information for the given metric source",
        ),
        (
            {"metrics": [{**resource(type="Utilization", averageUtilization=50), "pods": {}}]},
            "metrics[0].pods: Forbidden: must populate the given metric source only",
        ),
        (
            {"metrics": [resource(type="Utilization", averageUtilization=0)]},
            "metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
        ),
        (
            {"metrics": [resource(type="Utilization", averageUtilization=5, averageValue="1")]},
            "metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target "
            "utilization",
        ),
        (
            {"metrics": [resource(type="Share", averageUtilization=5)]},
            'metrics[0].resource.target.type: Invalid value: "Share": must be either Utilization, Value, or '
            "AverageValue",
        ),
        (
            {"metrics": [external("a/b", type="Value", value="1")]},
            "metrics[0].external.metric.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            {"metrics": [external(type="Value", value="1", averageValue="1")]},
            "metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod "
            "target",
        ),
        (
            {"metrics": [external(type="Value", value="-1")]},
            'metrics[0].external.target.value: Invalid value: "-1": must be positive',
        ),
        (
            {"metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue"}}}]},
            "metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
        ),
        (
            {
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
            "metrics[0].containerResource.container: Required value: must specify a container",
        ),
        (
            {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}},
            "behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        ),
        (
            {"behavior": {"scaleUp": {"policies": []}}},
            "behavior.scaleUp.policies: Required value: must specify at least one Policy",
        ),
        (
            {"behavior": {"scaleDown": {"selectPolicy": "Any"}}},
            'behavior.scaleDown.selectPolicy: Unsupported value: "Any": supported values: "Disabled", "Max", "Min"',
        ),
        (
            {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}},
            "behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ),
        (
            {"behavior": {"scaleDown": {"tolerance": "-1m"}}},
            'behavior.scaleDown.tolerance: Invalid value: "-1m": must be greater than or equal to 0',
        ),
    ],
)
def test_hpa(spec: dict[str, Any], words: str) -> None:
    assert hpa_problems(hpa(**spec)) == [f"spec.{words}"]


def test_hpa_without_a_maximum_breaks_both_rules_about_it() -> None:
    assert hpa_problems(hpa(maxReplicas=0)) == [
        "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
        "spec.maxReplicas: Required value",
    ]


def test_hpa_zero_needs_an_object_or_external_metric() -> None:
    old = hpa([external(type="Value", value="1")], minReplicas=0)
    assert hpa_problems(old) == []
    assert hpa_problems(old, old) == []
    new = hpa([resource(type="Utilization", averageUtilization=50)], minReplicas=0)
    assert hpa_problems(new, old) == [
        "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero "
        "replicas"
    ]


@pytest.mark.parametrize("tolerance", ["0", "0.05", "10"])
def test_hpa_tolerance_has_no_upper_limit(tolerance: str) -> None:
    assert hpa_problems(hpa(behavior={"scaleUp": {"tolerance": tolerance}})) == []


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1Gi", "1Gi"),
        ("1024Mi", "1Gi"),
        ("10500m", "10500m"),
        ("1500", "1500"),
        ("2000", "2k"),
        ("1e3", "1e3"),
        ("0", "0"),
        ("-2", "-2"),
        ("0.0000000001", "1n"),
        (1, "1"),
    ],
)
def test_quantities_print_as_upstream(text: object, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize("text", ["", "lots", "1 Gi", "1gi", "--1", "1e", True, ".", "1mm"])
def test_bad_quantities(text: object) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        quantity.parse(text)
