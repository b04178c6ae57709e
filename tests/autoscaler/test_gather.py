"""Reading through the metrics APIs: paths, parameters, shapes and the texts of failures."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from flyball import clock
from flyball.autoscaler.gather import Gatherer, _duration_ms
from flyball.errors import KubeApiError
from flyball.kube import KubeClient
from flyball.scaling import PodReading, Reading, spec_from_hpa

_spec = importlib.util.spec_from_file_location("flyball_tests_autoscaler_fake", Path(__file__).with_name("cluster.py"))
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
FakeCluster = _module.FakeCluster

AT = "2026-01-01T00:00:00Z"
AT_MS = clock.parse_rfc3339_ms(AT)
CUSTOM = "/apis/custom.metrics.k8s.io"


def read(fake: Any, *metrics: dict[str, Any]) -> list[Reading]:
    obj = {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"scaleTargetRef": {"kind": "D", "name": "d"}, "maxReplicas": 5, "metrics": list(metrics)},
    }
    gatherer = Gatherer(cast(KubeClient, fake), clock, 0.2)
    return list(asyncio.run(gatherer.readings(spec_from_hpa(obj), "app=web")))


def fake_with(version: str = "v1beta2", **answers: Any) -> Any:
    fake = FakeCluster()
    fake.answers[CUSTOM] = {
        "versions": [{"version": "v1beta1"}, {"version": "v1beta2"}],
        "preferredVersion": {"version": version},
    }
    fake.answers.update(answers)
    return fake


def pods(selector: dict[str, Any] | None = None) -> dict[str, Any]:
    metric = {"name": "rps"} if selector is None else {"name": "rps", "selector": selector}
    return {"type": "Pods", "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "1"}}}


def described(kind: str, api_version: str, name: str = "web") -> dict[str, Any]:
    target = {"type": "Value", "value": "1"}
    ref = {"kind": kind, "apiVersion": api_version, "name": name}
    return {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": ref, "target": target}}


def external(selector: dict[str, Any] | None = None) -> dict[str, Any]:
    metric = {"name": "q"} if selector is None else {"name": "q", "selector": selector}
    return {"type": "External", "external": {"metric": metric, "target": {"type": "Value", "value": "1"}}}


def resource(name: str = "cpu", container: str = "") -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": 50}
    if container:
        return {
            "type": "ContainerResource",
            "containerResource": {"name": name, "container": container, "target": target},
        }
    return {"type": "Resource", "resource": {"name": name, "target": target}}


@pytest.mark.parametrize(("version", "window"), [("v1beta2", {"windowSeconds": 30}), ("v1beta1", {"window": 30})])
def test_pods(version: str, window: dict[str, int]) -> None:
    path = f"{CUSTOM}/{version}/namespaces/shop/pods/*/rps"
    items = [
        {"describedObject": {"name": "p0"}, "timestamp": AT, "value": "1500m", **window},
        {"describedObject": {"name": "p1"}, "timestamp": AT, "value": "1n"},
    ]
    fake = fake_with(version, **{path: {"items": items}})
    (reading,) = read(fake, pods({"matchLabels": {"verb": "GET"}}))
    assert reading.pods == {"p0": PodReading(1500, AT_MS, 30_000), "p1": PodReading(1, AT_MS, 0)}
    assert reading.at_ms == AT_MS
    assert fake.raw[-1] == (path, {"labelSelector": "app=web", "metricLabelSelector": "verb=GET"})


def test_object_paths() -> None:
    answer = {"items": [{"describedObject": {}, "timestamp": AT, "value": "7"}]}
    fake = fake_with(
        **{
            f"{CUSTOM}/v1beta2/namespaces/shop/services/web/hits": answer,
            f"{CUSTOM}/v1beta2/namespaces/shop/metrics/hits": answer,
            f"{CUSTOM}/v1beta2/namespaces/shop/ingresses.networking.k8s.io/web/hits": answer,
            f"{CUSTOM}/v1beta2/namespaces/shop/gears.acme.io/web/hits": answer,
            "/apis/acme.io": {"versions": [{"groupVersion": "acme.io/v2"}]},
            "/apis/acme.io/v2": {
                "resources": [
                    {"name": "gears/status", "kind": "Gear"},
                    {"name": "gears", "kind": "Gear", "namespaced": True},
                ]
            },
        }
    )
    found = read(
        fake,
        described("Service", "v1"),
        described("Namespace", "v1", "ignored"),
        described("Ingress", "networking.k8s.io/v1"),
        described("Gear", "acme.io/v1"),
        described("Nothing", "acme.io/v1"),
    )
    assert [reading.values for reading in found] == [(7000,)] * 4 + [()]
    assert found[4].error == (
        "unable to fetch metrics from custom metrics API: unable to map kind Nothing.acme.io to resource: "
        'no matches for kind "Nothing" in group "acme.io"'
    )


def test_external() -> None:
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/q"
    items = [{"value": "1500m", "timestamp": AT}, {"value": "2", "timestamp": AT}]
    fake = fake_with(**{path: {"items": items}})
    (reading,) = read(fake, external({"matchLabels": {"a": "b"}}))
    assert (reading.values, reading.at_ms) == ((1500, 2000), AT_MS)
    assert fake.raw[-1] == (path, {"labelSelector": "a=b"})


def test_resource_and_container() -> None:
    path = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"

    def item(name: str, *containers: tuple[str, dict[str, str]]) -> dict[str, Any]:
        found = [{"name": container, "usage": usage} for container, usage in containers]
        return {"metadata": {"name": name}, "timestamp": AT, "window": "1m0s", "containers": found}

    items = [
        item("p0", ("a", {"cpu": "1000001n"}), ("b", {"cpu": "1n"})),  # each container rounds up
        item("p1", ("a", {"cpu": "5m"}), ("b", {"memory": "1Ki"})),  # any container without it: missing
        item("p2"),
    ]
    fake = fake_with(**{path: {"items": items}})
    cpu, one, memory = read(fake, resource(), resource(container="a"), resource("memory"))
    assert cpu.pods == {"p0": PodReading(3, AT_MS, 60_000)}
    assert {name: sample.value for name, sample in one.pods.items()} == {"p0": 2, "p1": 5}
    assert memory.pods == {}
    assert fake.raw == [(path, {"labelSelector": "app=web"})]  # once for all of them


def test_texts_of_failures() -> None:
    fake = FakeCluster()  # no metrics API at all
    found = read(fake, pods(), external(), resource())
    assert [reading.error for reading in found] == [
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered",
        "unable to fetch metrics from external metrics API: the server could not find the requested resource",
        "unable to fetch metrics from resource metrics API: the server could not find the requested resource",
    ]
    empty = fake_with(
        **{
            f"{CUSTOM}/v1beta2/namespaces/shop/pods/*/rps": {"items": []},
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/q": {"items": []},
            "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods": {"items": []},
        }
    )
    assert [reading.error for reading in read(empty, pods(), external(), resource())] == [
        f"no metrics returned from {api} metrics API" for api in ("custom", "external", "resource")
    ]


def test_odd_answers_are_failures_and_never_zero() -> None:
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/q"
    for answer in (
        {"items": [{"value": "NaN"}]},
        {"items": [{}]},
        {"items": [{"value": "1", "timestamp": "?"}]},
        [1],
        5,
    ):
        (reading,) = read(fake_with(**{path: answer}), external())
        assert reading.values == ()
        assert reading.error.startswith("unable to fetch metrics from external metrics API: ")
    (down,) = read(fake_with(**{path: KubeApiError(503, "ServiceUnavailable", "no backend")}), external())
    assert down.error == "unable to fetch metrics from external metrics API: no backend"
    (hanging,) = read(fake_with(**{path: lambda: asyncio.sleep(60)}), external())
    assert hanging.error == "unable to fetch metrics from external metrics API: no answer within 0.2 s"


def test_a_wrong_metric_selector() -> None:
    (reading,) = read(fake_with(), pods({"matchExpressions": [{"key": "a", "operator": "Like"}]}))
    assert reading.selector_error == '"Like" is not a valid label selector operator'


@pytest.mark.parametrize(
    ("text", "ms"), [("1m0s", 60_000), ("30s", 30_000), ("1.5s", 1500), ("5m0s", 300_000), ("", 0)]
)
def test_go_durations(text: str, ms: int) -> None:
    assert _duration_ms(text) == ms
