"""Monitors become scrape jobs: which targets they keep, and the labels those get. Order as prometheus-operator's."""

import base64
from typing import Any

import pytest

from flyball.errors import ConfigError
from flyball.model.scrapeconfigs import ScrapeConfig, parse_scrape_config
from flyball.operator.assets import Objects, ReadAssets
from flyball.operator.generation import generate
from flyball.relabel import relabel

TARGET = {
    "__address__": "127.10.0.1:8000",
    "__meta_kubernetes_namespace": "shop",
    "__meta_kubernetes_service_name": "web",
    "__meta_kubernetes_service_label_app": "web",
    "__meta_kubernetes_service_labelpresent_app": "true",
    "__meta_kubernetes_service_label_app_kubernetes_io_name": "front",
    "__meta_kubernetes_service_labelpresent_app_kubernetes_io_name": "true",
    "__meta_kubernetes_endpointslice_port_name": "http",
    "__meta_kubernetes_endpointslice_address_target_kind": "Pod",
    "__meta_kubernetes_endpointslice_address_target_name": "web-1",
    "__meta_kubernetes_pod_name": "web-1",
    "__meta_kubernetes_pod_phase": "Running",
    "__meta_kubernetes_pod_container_name": "app",
    "__meta_kubernetes_pod_container_port_name": "http",
    "__meta_kubernetes_pod_container_port_number": "8000",
    "__meta_kubernetes_pod_label_app": "web",
    "__meta_kubernetes_pod_labelpresent_app": "true",
    "__meta_kubernetes_pod_label_tier": "edge",
}


def job_of(monitor: dict[str, Any], secrets: Objects | None = None) -> ScrapeConfig:
    """The one job of a monitor, as the engine reads it.

    Raises:
        ConfigError: the monitor is refused.
    """
    kind = "ServiceMonitor" if "endpoints" in monitor["spec"] else "PodMonitor"
    generated = generate({kind: [monitor]}, {}, ReadAssets(secrets or {}, {}))
    for why in generated.refused.values():
        raise ConfigError(why)
    (job,) = generated.config["scrape_configs"]
    return parse_scrape_config(job)


def service_monitor(endpoint: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    body = {"selector": {"matchLabels": {"app": "web"}}, "endpoints": [endpoint or {"port": "http"}], **spec}
    return {"metadata": {"namespace": "shop", "name": "web"}, "spec": body}


def pod_monitor(endpoint: dict[str, Any], **spec: Any) -> dict[str, Any]:
    body = {"selector": {"matchLabels": {"app": "web"}}, "podMetricsEndpoints": [endpoint], **spec}
    return {"metadata": {"namespace": "shop", "name": "web"}, "spec": body}


def labels_of(monitor: dict[str, Any], **changed: str) -> dict[str, str] | None:
    """What the one job of a ServiceMonitor makes of the target; nothing when it drops it."""
    found = relabel({**TARGET, **changed}, job_of(monitor).relabel_configs)
    return None if found is None else {name: v for name, v in found.items() if not name.startswith("__")}


def test_the_target_of_a_service_monitor_carries_the_labels_that_upstream_gives() -> None:
    assert labels_of(service_monitor()) == {
        "namespace": "shop",
        "service": "web",
        "pod": "web-1",
        "container": "app",
        "job": "web",
        "endpoint": "http",
    }


def test_the_rules_stand_in_the_order_of_upstreams_golden_file() -> None:
    """promcfg_test.go, SettingHonorLabels, without its three sharding rules."""
    monitor = service_monitor({"port": "web", "honorLabels": True}, targetLabels=["example", "env"])
    job = job_of(monitor)
    assert job.honor_labels
    rules = [(rule.action, rule.source_labels[-1] if rule.source_labels else "", rule.target_label)
             for rule in job.relabel_configs]  # fmt: skip
    meta = "__meta_kubernetes_"
    assert rules == [
        ("replace", "job", "__tmp_prometheus_job_name"),
        ("keep", f"{meta}service_labelpresent_app", ""),
        ("keep", f"{meta}endpointslice_port_name", ""),
        ("replace", f"{meta}endpointslice_address_target_name", "node"),
        ("replace", f"{meta}endpointslice_address_target_name", "pod"),
        ("replace", f"{meta}namespace", "namespace"),
        ("replace", f"{meta}service_name", "service"),
        ("replace", f"{meta}pod_name", "pod"),
        ("replace", f"{meta}pod_container_name", "container"),
        ("drop", f"{meta}pod_phase", ""),
        ("replace", f"{meta}service_label_example", "example"),
        ("replace", f"{meta}service_label_env", "env"),
        ("replace", f"{meta}service_name", "job"),
        ("replace", "", "endpoint"),
    ]


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "we"}}, False),
        ({"matchLabels": {"app.kubernetes.io/name": "front"}}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "absent", "operator": "NotIn", "values": [""]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "absent", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_the_selector_decides(selector: dict[str, Any], kept: bool) -> None:
    assert (labels_of(service_monitor(selector=selector)) is not None) is kept


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        ({"port": "http"}, True),
        ({"port": "metrics"}, False),
        ({"targetPort": "http"}, True),
        ({"targetPort": 8000}, True),
        ({"targetPort": 8001}, False),
    ],
)
def test_the_port_decides(endpoint: dict[str, Any], kept: bool) -> None:
    assert (labels_of(service_monitor(endpoint)) is not None) is kept


def test_an_ended_pod_is_no_target_unless_asked_for() -> None:
    ended = {"__meta_kubernetes_pod_phase": "Succeeded"}
    assert labels_of(service_monitor(), **ended) is None
    assert labels_of(service_monitor({"port": "http", "filterRunning": False}), **ended) is not None


def test_labels_of_services_and_pods_are_taken_over_and_the_user_has_the_last_word() -> None:
    relabelings = [
        {
            "sourceLabels": ["tier"],
            "targetLabel": "tier",
            "regex": "(.*)",
            "replacement": "from-$1",
            "action": "Replace",
        },
        {"regex": "container", "action": "labeldrop"},
    ]
    found = labels_of(
        service_monitor(
            {"port": "http", "relabelings": relabelings},
            targetLabels=["app.kubernetes.io/name"],
            podTargetLabels=["tier", "absent"],
            jobLabel="app.kubernetes.io/name",
        )
    )
    assert found is not None
    assert found["app_kubernetes_io_name"] == found["job"] == "front"
    assert found["tier"] == "from-edge"
    assert "absent" not in found and "container" not in found


def test_a_pod_monitor_finds_pods_by_their_ports() -> None:
    for endpoint in ({"port": "http"}, {"portNumber": 8000}, {"targetPort": "http"}):
        job = job_of(pod_monitor(endpoint))
        assert job.job_name == "podMonitor/shop/web/0"
        assert [sd.role for sd in job.kubernetes_sd_configs] == ["pod"]
        found = relabel(TARGET, job.relabel_configs)
        assert found is not None
        assert (found["job"], found["pod"], found["container"]) == ("shop/web", "web-1", "app")
        named = endpoint.get("port") or endpoint.get("targetPort")
        assert found.get("endpoint") == named  # a number alone gives none, as upstream


@pytest.mark.parametrize(
    ("space", "expected"),
    [({}, ("shop",)), ({"any": True}, ()), ({"matchNames": ["a", "b"]}, ("a", "b"))],
)
def test_namespaces(space: dict[str, Any], expected: tuple[str, ...]) -> None:
    job = job_of(service_monitor(namespaceSelector=space))
    assert [sd.namespaces for sd in job.kubernetes_sd_configs] == [expected]


def test_limits_times_and_credentials() -> None:
    data = {key: base64.b64encode(key.encode()).decode() for key in ("user", "password", "ca")}
    endpoint = {
        "port": "http",
        "path": "/m",
        "scheme": "HTTPS",
        "interval": "5s",
        "params": {"a": ["1", "2"]},
        "basicAuth": {"username": {"name": "s", "key": "user"}, "password": {"name": "s", "key": "password"}},
        "tlsConfig": {"ca": {"secret": {"name": "s", "key": "ca"}}, "serverName": "web"},
    }
    job = job_of(service_monitor(endpoint, sampleLimit=7, bodySizeLimit="1KB"), {("shop", "s"): data})
    assert (job.scrape_interval_ms, job.scrape_timeout_ms) == (5000, 5000)
    assert (job.scheme, job.metrics_path, job.params) == ("https", "/m", {"a": ("1", "2")})
    assert (job.sample_limit, job.body_size_limit_bytes) == (7, 1024)
    http = job.http
    assert http.basic_auth is not None and http.tls is not None
    assert (http.basic_auth.username, http.basic_auth.password, http.tls.ca) == ("user", "password", "ca")


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        (service_monitor(selector=None), "spec.selector: is missing"),
        (service_monitor(endpoints=[]), "spec.endpoints: is empty"),
        (service_monitor({"port": "a", "interval": "5x"}), r"endpoints\[0\].interval.*5x"),
        (service_monitor({"port": "a", "interval": "1s", "scrapeTimeout": "2s"}), "scrapeTimeout.*above the interval"),
        (service_monitor({"port": "a", "proxyUrl": "socks5://p"}), "proxy_url: is not the URL of an http proxy"),
        (service_monitor({"port": "a", "relabelings": [{"regexp": "a"}]}), r'relabelings\[0\]: unknown field "regexp"'),
        (service_monitor({"port": "a", "relabelings": [{"regex": "("}]}), r"endpoints\[0\].relabelings"),
        (service_monitor(sampleLimit=-1), 'sampleLimit: "-1"'),
        (
            service_monitor(selector={"matchExpressions": [{"key": "a", "operator": "Is"}]}),
            r'matchExpressions\[0\].operator: "Is"',
        ),
        (
            service_monitor({"port": "a", "authorization": {"credentials": {"name": "s", "key": "k"}}}),
            "authorization.credentials: there is no Secret shop/s",
        ),
    ],
)
def test_an_error_names_the_object_the_field_and_the_value(monitor: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"ServiceMonitor shop/web: .*{words}"):
        job_of(monitor)
