"""Kinds that are served in two versions: nothing is lost on the way there and back."""

import json
from typing import Any

from flyball.localcluster.convert import convert, hpa_v1_to_v2, hpa_v2_to_v1

BEHAVIOR = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max"},
    "scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "tolerance": "50m"},
}
METRICS = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
    {
        "type": "Object",
        "object": {
            "metric": {"name": "rate"},
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
            "target": {"type": "Value", "value": "2k"},
        },
    },
]


def hpa(**spec: Any) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, **spec},
    }


def test_what_v1_cannot_say_stands_in_annotations_as_upstream_writes_them() -> None:
    made = hpa_v2_to_v1(hpa(metrics=METRICS, behavior=BEHAVIOR))
    assert made["spec"]["targetCPUUtilizationPercentage"] == 70
    annotations = made["metadata"]["annotations"]
    assert annotations["autoscaling.alpha.kubernetes.io/behavior"] == (
        '{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":null,"Tolerance":null},'
        '"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":null,'
        '"Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":60}],"Tolerance":"50m"}}'
    )
    assert json.loads(annotations["autoscaling.alpha.kubernetes.io/metrics"])[0]["object"]["metricName"] == "rate"


def test_there_and_back() -> None:
    back = hpa_v1_to_v2(hpa_v2_to_v1(hpa(metrics=METRICS, behavior=BEHAVIOR)))
    assert back["spec"]["behavior"] == BEHAVIOR
    assert sorted(back["spec"]["metrics"], key=lambda metric: metric["type"]) == sorted(
        METRICS, key=lambda metric: str(metric["type"])
    )
    assert "annotations" not in back["metadata"]


def test_an_alertmanager_config_in_the_newer_version_and_back() -> None:
    old = {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "AlertmanagerConfig",
        "metadata": {"name": "c"},
        "spec": {
            "muteTimeIntervals": [{"name": "night"}],
            "receivers": [{"name": "r", "opsgenieConfigs": [{"updateAlerts": True, "responders": [{"type": "team"}]}]}],
            "route": {
                "receiver": "r",
                "matchers": [{"name": "a", "value": "b", "regex": True}, {"name": "c", "value": "d"}],
                "routes": [
                    {"matchers": [{"name": "e", "value": "f", "matchType": "!="}], "muteTimeIntervals": ["night"]}
                ],
            },
            "inhibitRules": [{"sourceMatch": [{"name": "a", "value": "b", "regex": False}]}],
        },
    }
    new = convert(old, "monitoring.coreos.com/v1beta1")
    assert new["apiVersion"] == "monitoring.coreos.com/v1beta1"
    assert new["spec"] == {
        "timeIntervals": [{"name": "night"}],
        "receivers": [{"name": "r", "opsgenieConfigs": [{"responders": [{"type": "team"}]}]}],
        "route": {
            "receiver": "r",
            "matchers": [{"name": "a", "value": "b", "matchType": "=~"}, {"name": "c", "value": "d", "matchType": "="}],
            "routes": [{"matchers": [{"name": "e", "value": "f", "matchType": "!="}], "muteTimeIntervals": ["night"]}],
        },
        "inhibitRules": [{"sourceMatch": [{"name": "a", "value": "b", "matchType": "="}]}],
    }
    back = convert(new, "monitoring.coreos.com/v1alpha1")
    assert back["spec"] == {
        ("muteTimeIntervals" if key == "timeIntervals" else key): new["spec"][key] for key in new["spec"]
    }
