"""Printer columns."""

from typing import Any

import pytest

from flyball.localcluster import schema

NOW = 1_700_000_000_000
STAMP = "2023-11-14T22:08:20Z"  # 5 minutes before NOW


def row(group: str, version: str, name: str, obj: dict[str, Any]) -> dict[str, Any]:
    """Column name -> cell."""
    kind = schema.find_kind(group, version, name)
    assert kind is not None
    obj.setdefault("metadata", {}).update(name="web", creationTimestamp=STAMP)
    columns, rows = schema.table(kind, [obj], NOW)
    (cells,) = rows
    assert len(cells) == len(columns)
    for column, cell in zip(columns, cells, strict=True):
        assert isinstance(cell, int) if column["type"] == "integer" else isinstance(cell, str | int), column
    return {column["name"]: cell for column, cell in zip(columns, cells, strict=True)}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (10860, "3h1m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (691200, "8d"),
        (63072000, "2y"),
        (63158400, "2y1d"),
        (252288000, "8y"),
    ],
)
def test_human_duration(seconds: int, text: str) -> None:
    assert schema.human_duration(seconds) == text


@pytest.mark.parametrize("kind", schema.KINDS, ids=lambda k: f"{k.group}.{k.kind}")
def test_every_kind_prints_an_empty_object(kind: schema.Kind) -> None:
    columns, rows = schema.table(kind, [{}, {"metadata": {"name": "x"}, "spec": {}, "status": {}}], NOW)
    more = 1 if kind.kind == "IPAddress" else 0  # upstream prints its age without a column
    assert [len(cells) - more for cells in rows] == [len(columns)] * 2
    assert {column["priority"] for column in columns} <= {0, 1}


def pod(status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "a"}, {"name": "b"}], **spec}, "status": status}


def test_running_pod_with_restarts() -> None:
    statuses = [
        {
            "name": "a",
            "ready": True,
            "restartCount": 2,
            "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2023-11-14T22:12:20Z"}},
        },
        {"name": "b", "ready": False, "restartCount": 1, "state": {"running": {}}},
    ]
    cells = row(
        "",
        "v1",
        "Pod",
        pod({"phase": "Running", "podIP": "127.10.0.2", "containerStatuses": statuses}, nodeName="flyball"),
    )
    assert cells == {
        "Name": "web",
        "Ready": "1/2",
        "Status": "Running",
        "Restarts": "3 (60s ago)",
        "Age": "5m",
        "IP": "127.10.0.2",
        "Node": "flyball",
        "Nominated Node": "<none>",
        "Readiness Gates": "<none>",
    }


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            "CrashLoopBackOff",
        ),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}, "ExitCode:3"),
        (
            {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9, "exitCode": 137}}}]},
            "Signal:9",
        ),
        (
            {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]},
            "Completed",
        ),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, "Init:0/1"),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
            },
            "Init:Error",
        ),
    ],
)
def test_pod_status(status: dict[str, Any], text: str) -> None:
    assert row("", "v1", "Pod", pod(status, initContainers=[{"name": "i"}]))["Status"] == text


def test_deleted_pod_is_terminating() -> None:
    obj = pod({"phase": "Running"})
    obj["metadata"] = {"deletionTimestamp": STAMP}
    assert row("", "v1", "Pod", obj)["Status"] == "Terminating"


def test_deployment() -> None:
    obj = {
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}},
        },
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
    }
    assert row("apps", "v1", "Deployment", obj) == {
        "Name": "web",
        "Ready": "2/3",
        "Up-to-date": 3,
        "Available": 2,
        "Age": "5m",
        "Containers": "a,b",
        "Images": "x,y",
        "Selector": "app=web",
    }


def metric(kind: str, field: str, name: str, **target: Any) -> dict[str, Any]:
    if kind == "Resource":
        return {"type": kind, field: {"name": name, "target": target}}
    return {"type": kind, field: {"metric": {"name": name}, "target": target}}


CPU = metric("Resource", "resource", "cpu", type="Utilization", averageUtilization=50)
PODS = metric("Pods", "pods", "rps", type="AverageValue", averageValue="10")
EXTERNAL = metric("External", "external", "queue", type="AverageValue", averageValue="30")


@pytest.mark.parametrize(
    ("metrics", "current", "text"),
    [
        (
            [CPU],
            [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 32}}}],
            "cpu: 32%/50%",
        ),
        (
            [CPU],
            [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 0}}}],
            "cpu: 0%/50%",
        ),
        ([CPU], [], "cpu: <unknown>/50%"),
        ([PODS], [{"type": "Pods", "pods": {"current": {"averageValue": "10500m"}}}], "10500m/10"),
        ([PODS], [], "<unknown>/10"),
        ([EXTERNAL], [{"type": "External", "external": {"current": {"averageValue": "7"}}}], "7/30 (avg)"),
        ([CPU, PODS, EXTERNAL, PODS], [], "cpu: <unknown>/50%, <unknown>/10 + 2 more..."),
        ([PODS], [{"type": "Resource", "resource": {"current": {"averageValue": "9"}}}], "<unknown>/10"),
    ],
)
def test_hpa_targets(metrics: list[Any], current: list[Any], text: str) -> None:
    obj = {
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": metrics,
        },
        "status": {"currentReplicas": 4, "currentMetrics": current},
    }
    assert row("autoscaling", "v2", "HorizontalPodAutoscaler", obj) == {
        "Name": "web",
        "Reference": "Deployment/web",
        "Targets": text,
        "MinPods": "1",
        "MaxPods": 10,
        "Replicas": 4,
        "Age": "5m",
    }


def test_event() -> None:
    cells = row(
        "",
        "v1",
        "Event",
        {
            "type": "Normal",
            "reason": "Scaled",
            "message": "up\n",
            "count": 3,
            "firstTimestamp": STAMP,
            "lastTimestamp": "2023-11-14T22:13:10Z",
            "involvedObject": {"kind": "Deployment", "name": "web"},
            "source": {"component": "hpa"},
        },
    )
    assert (cells["Last Seen"], cells["Object"], cells["Message"]) == ("10s", "deployment/web", "up")
    assert (cells["First Seen"], cells["Count"], cells["Source"]) == ("5m", 3, "hpa")


def test_service_node_and_api_service() -> None:
    spec = {
        "type": "NodePort",
        "clusterIP": "127.11.0.1",
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}],
    }
    cells = row("", "v1", "Service", {"spec": spec})
    assert (cells["Port(s)"], cells["External-IP"], cells["Selector"]) == ("80:30080/TCP", "<none>", "<none>")
    node = row(
        "",
        "v1",
        "Node",
        {
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.37.0"}},
        },
    )
    assert (node["Status"], node["Roles"], node["Version"]) == ("Ready", "control-plane", "v1.37.0")
    served = row(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        {
            "spec": {"service": {"namespace": "a", "name": "b"}},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]},
        },
    )
    assert (served["Service"], served["Available"]) == ("a/b", "False (MissingEndpoints)")


def test_unknown_age_is_not_zero() -> None:
    kind = schema.find_kind("", "v1", "ConfigMap")
    assert kind is not None
    assert schema.table(kind, [{"metadata": {"name": "x"}}], NOW)[1] == [["x", 0, "<unknown>"]]
