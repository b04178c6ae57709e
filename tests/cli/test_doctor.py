"""The walk of doctor against a cluster and a Prometheus made of dictionaries, one fault at a time."""

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from flyball.cli.chain import Chain
from flyball.errors import KubeApiError, UpstreamError
from flyball.kube import kinds

METRIC = "webapp_requests_per_second"
POD = {
    "metadata": {"name": "webapp-1", "namespace": "default", "labels": {"app": "webapp"}},
    "spec": {"containers": [{"name": "web", "resources": {}}]},
    "status": {"phase": "Running", "podIP": "127.10.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
}
HPA = {
    "metadata": {"name": "webapp", "namespace": "default"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "webapp"},
        "metrics": [
            {
                "type": "Pods",
                "pods": {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "20"}},
            }
        ],
    },
    "status": {"desiredReplicas": 1, "conditions": [{"type": "ScalingActive", "status": "True", "reason": "Valid"}]},
}


class World:
    """A healthy chain; each test breaks one link."""

    def __init__(self) -> None:
        self.hpa: dict[str, Any] = copy.deepcopy(HPA)
        self.pods: list[dict[str, Any]] = [copy.deepcopy(POD)]
        self.deployment: dict[str, Any] | None = {
            "metadata": {"generation": 1},
            "spec": {"replicas": 1},
            "status": {"readyReplicas": 1, "observedGeneration": 1},
        }
        self.service = {
            "metadata": {"name": "webapp", "labels": {"app": "webapp"}},
            "spec": {"selector": {"app": "webapp"}, "ports": [{"name": "http"}]},
        }
        self.monitor = {
            "metadata": {"name": "webapp"},
            "spec": {"selector": {"matchLabels": {"app": "webapp"}}, "endpoints": [{"port": "http"}]},
        }
        self.available = "True"
        self.registered = [f"pods/{METRIC}"]
        self.values: list[dict[str, Any]] = [{"value": "5"}]
        self.targets: list[dict[str, Any]] | None = [
            {"labels": {"pod": "webapp-1"}, "health": "up", "scrapeUrl": "http://127.10.0.1:8000/metrics"}
        ]
        self.rules: list[dict[str, Any]] = []
        self.switches: list[str] = []

    # the Kubernetes side
    async def resources(self, _: str) -> list[tuple[Any, frozenset[str]]]:
        return [(kinds.DEPLOYMENTS, frozenset())]

    async def get(self, resource: Any, name: str, namespace: str | None = None, subresource: str | None = None) -> Any:
        if resource == kinds.API_SERVICES:
            condition = {"type": "Available", "status": self.available, "message": "connection refused"}
            return {"status": {"conditions": [condition]}}
        if self.deployment is None:
            raise KubeApiError(404, "NotFound", f'deployments.apps "{name}" not found')
        if subresource == "scale":
            return {"spec": {"replicas": self.deployment["spec"]["replicas"]}, "status": {"selector": "app=webapp"}}
        return self.deployment

    async def list(self, resource: Any, namespace: str | None = None, **_: str) -> list[dict[str, Any]]:
        return {kinds.PODS: self.pods, kinds.SERVICES: [self.service], kinds.SERVICE_MONITORS: [self.monitor]}[resource]

    async def raw_get(self, path: str, parameters: dict[str, str] | None = None) -> bytes:
        if path.endswith(("v1beta1", "v1beta2")):
            return json.dumps({"resources": [{"name": name} for name in self.registered]}).encode()
        return json.dumps({"items": self.values}).encode()


class Prometheus:
    url = "http://prometheus"

    def __init__(self, world: World) -> None:
        self.world = world

    async def get(self, path: str, **parameters: str) -> Any:
        if path == "/api/v1/targets":
            if self.world.targets is None:
                raise UpstreamError("connection refused")
            return {"data": {"activeTargets": self.world.targets}}
        if path == "/api/flyball/v1/rules":
            return {"rules": self.world.rules, "compatibility": self.world.switches}
        return {"data": []}


def walk(world: World) -> Any:
    return asyncio.run(Chain(world, Prometheus(world), world.hpa).walk())  # type: ignore[arg-type]


def _no_pods(world: World) -> None:
    world.pods = []


def _not_ready(world: World) -> None:
    world.pods[0]["status"]["conditions"][0]["status"] = "False"
    world.pods[0]["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]


def _no_workload(world: World) -> None:
    world.deployment = None


def _paused(world: World) -> None:
    assert world.deployment
    world.deployment["spec"]["replicas"] = 0


def _no_monitor(world: World) -> None:
    world.targets, world.values = [], []
    world.monitor["spec"]["selector"] = {"matchLabels": {"app": "other"}}


def _wrong_port_name(world: World) -> None:
    world.targets, world.values = [], []
    world.monitor["spec"]["endpoints"] = [{"port": "web"}]


def _target_down(world: World) -> None:
    assert world.targets
    world.targets[0].update(health="down", lastError="connection refused")


def _no_prometheus(world: World) -> None:
    world.targets = None


def _adapter_dead(world: World) -> None:
    world.available = "False"


def _rule_without_series(world: World) -> None:
    world.registered = []
    rule = "ConfigMap default/webapp: rules[0]"
    world.rules = [{"rule": rule, "seriesQuery": "webapp_request_total", "seriesMatched": 0}]


def _rule_refused(world: World) -> None:
    world.registered = []
    world.rules = [{"rule": "ConfigMap default/webapp", "error": "rules[0].metricsQuery: missing"}]


def _misspelt_metric(world: World) -> None:
    world.registered = ["pods/webapp_request_per_second"]


def _no_value(world: World) -> None:
    world.values = []


def _inactive(world: World) -> None:
    world.hpa["status"]["conditions"][0].update(status="False", reason="AmbiguousSelector", message="two HPAs")


def _no_request(world: World) -> None:
    target = {"type": "Utilization", "averageUtilization": 50}
    world.hpa["spec"]["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def test_a_healthy_chain_has_no_broken_link() -> None:
    assert walk(World()).broken is None


@pytest.mark.parametrize(
    ("fault", "link", "words"),
    [
        (_no_workload, "workload", "not found"),
        (_paused, "workload", "0 replicas"),
        (_no_pods, "pod", "no pod matches"),
        (_not_ready, "pod", "CrashLoopBackOff"),
        (_no_request, "pod", "requests no cpu"),
        (_no_monitor, "exporter", "selects Service webapp"),
        (_wrong_port_name, "exporter", "asks for port web"),
        (_no_prometheus, "scrape", "connection refused"),
        (_target_down, "scrape", "connection refused"),
        (_adapter_dead, "metrics API", "connection refused"),
        (_rule_without_series, "series", "matches no series"),
        (_rule_refused, "rule", "metricsQuery"),
        (_misspelt_metric, "rule", "does not list"),
        (_no_value, "metrics API", "has no value"),
        (_inactive, "hpa", "AmbiguousSelector"),
    ],
)
def test_the_first_broken_link_is_named_with_a_remedy(fault: Callable[[World], None], link: str, words: str) -> None:
    world = World()
    fault(world)
    broken = walk(world).broken
    assert broken is not None
    assert (broken.link, words in broken.what) == (link, True), broken
    assert broken.remedy


def test_values_that_another_exporter_gives_for_the_pods_are_as_good() -> None:
    world = World()
    world.targets = []
    diagnosis = walk(world)
    assert diagnosis.broken is None
    assert "another exporter" in next(finding.what for finding in diagnosis.findings if finding.link == "exporter")


def test_an_api_service_that_may_not_be_read_is_not_a_broken_one() -> None:
    class Restricted(World):
        async def get(self, resource: Any, *names: Any, **options: Any) -> Any:
            if resource == kinds.API_SERVICES:
                raise KubeApiError(403, "Forbidden", "cannot get apiservices")
            return await super().get(resource, *names, **options)

    diagnosis = walk(Restricted())
    assert diagnosis.broken is None and None in {finding.ok for finding in diagnosis.findings}


def test_switches_that_make_numbers_of_nothing_are_shown() -> None:
    world = World()
    world.switches = ["nanIsZero"]
    diagnosis = walk(world)
    assert diagnosis.broken is None
    assert "compatibility switches are on: nanIsZero" in [finding.what for finding in diagnosis.findings]


def _by_keda(world: World) -> None:
    selector = {"matchLabels": {"scaledobject.keda.sh/name": "orders"}}
    target = {"type": "AverageValue", "averageValue": "5"}
    external = {"metric": {"name": "s0-prometheus", "selector": selector}, "target": target}
    world.hpa["spec"]["metrics"] = [{"type": "External", "external": external}]
    world.registered = ["externalmetrics"]


def test_kedas_metrics_are_listed_nowhere_and_yet_served() -> None:
    world = World()
    _by_keda(world)
    assert walk(world).broken is None
    world.values = []
    broken = walk(world).broken
    assert broken is not None and "kubectl describe scaledobject -n default orders" in broken.remedy
