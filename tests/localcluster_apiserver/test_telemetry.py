"""The series of the API server and of what asks it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flyball.localcluster.durations import ClientSeries
from flyball.localcluster.metricspage import MetricsPage
from flyball.localcluster.telemetry import Telemetry, about


@pytest.mark.parametrize(
    ("method", "path", "params", "verb", "group", "resource", "subresource", "scope"),
    [
        ("GET", "api/v1/pods", {}, "LIST", "", "pods", "", "cluster"),
        ("GET", "api/v1/namespaces/a/pods", {}, "LIST", "", "pods", "", "namespace"),
        ("GET", "api/v1/namespaces/a/pods", {"watch": ["true"]}, "WATCH", "", "pods", "", "namespace"),
        ("GET", "api/v1/namespaces/a", {}, "GET", "", "namespaces", "", "resource"),
        ("GET", "api/v1/namespaces/a/pods/p/log", {}, "GET", "", "pods", "log", "resource"),
        ("POST", "apis/apps/v1/namespaces/a/deployments", {}, "POST", "apps", "deployments", "", "resource"),
        (
            "DELETE",
            "apis/apps/v1/namespaces/a/deployments",
            {},
            "DELETECOLLECTION",
            "apps",
            "deployments",
            "",
            "namespace",
        ),
        ("PUT", "apis/apps/v1/namespaces/a/deployments/d/scale", {}, "PUT", "apps", "deployments", "scale", "resource"),
        ("POST", "api/v1/namespaces/a/pods/p/exec", {}, "CONNECT", "", "pods", "exec", "resource"),
        ("GET", "apis", {}, "GET", "", "", "", "cluster"),
        ("GET", "version", {}, "GET", "", "", "", ""),
    ],
)
def test_what_a_request_is_about(
    method: str,
    path: str,
    params: dict[str, list[str]],
    verb: str,
    group: str,
    resource: str,
    subresource: str,
    scope: str,
) -> None:
    found = about(method, path.split("/"), params)
    assert (found.verb, found.group, found.resource, found.subresource, found.scope) == (
        verb,
        group,
        resource,
        subresource,
        scope,
    )


def test_an_applied_patch_has_a_verb_of_its_own() -> None:
    path = ["api", "v1", "namespaces", "a", "configmaps", "c"]
    assert about("PATCH", path, {}, "application/apply-patch+yaml").verb == "APPLY"
    assert about("PATCH", path, {}, "application/merge-patch+json").verb == "PATCH"


def test_the_page_counts_times_and_shows_what_is_under_way() -> None:
    telemetry = Telemetry({"git_version": "v1"}, lambda: {"/pods": 3, "apps/deployments": 2}, lambda: {"v1.x": True})
    listing = about("GET", ["api", "v1", "pods"], {})
    watching = about("GET", ["api", "v1", "pods"], {"watch": ["1"]})
    for duration_s in (0.001, 0.3, 90.0):
        telemetry.began(listing)
        telemetry.ended(listing, 200, duration_s)
    telemetry.began(watching)
    telemetry.began(listing)

    series = {
        (sample.name, sample.labels.get("verb", ""), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(telemetry.exposition().decode())
        for sample in family.samples
    }
    assert series["apiserver_request_total", "LIST", ""] == 3
    buckets = [
        series["apiserver_request_duration_seconds_bucket", "LIST", le] for le in ("0.005", "0.4", "60.0", "+Inf")
    ]
    assert buckets == [1, 2, 2, 3]
    assert series["apiserver_request_sli_duration_seconds_count", "LIST", ""] == 3
    assert series["apiserver_longrunning_requests", "WATCH", ""] == 1
    assert ("apiserver_request_duration_seconds_count", "WATCH", "") not in series
    text = telemetry.exposition().decode()
    assert 'apiserver_current_inflight_requests{request_kind="readOnly"} 1.0' in text
    assert 'apiserver_storage_objects{resource="deployments.apps"} 2.0' in text
    assert 'aggregator_unavailable_apiservice{name="v1.x"} 1.0' in text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/metrics", [(b"authorization", b"Bearer right")], 200),
        ("/metrics", [(b"authorization", b"Bearer wrong")], 401),
        ("/metrics", [], 401),
        ("/metrics/slis", [(b"authorization", b"bearer right")], 200),
        ("/healthz", [], 200),
        ("/else", [(b"authorization", b"Bearer right")], 404),
    ],
)
def test_the_series_of_a_component_are_for_who_has_the_token(
    tmp_path: Path, path: str, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    (tmp_path / "token").write_text("right\n")
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    page = MetricsPage(lambda: b"a 1\n", tmp_path / "token")
    asyncio.run(page({"type": "http", "path": path, "headers": headers}, None, send))
    assert sent[0]["status"] == status
    assert sent[1]["body"] == b"a 1\n" or path != "/metrics" or status != 200


def test_a_client_counts_what_it_asked_and_what_was_not_answered() -> None:
    series = ClientSeries("127.0.0.1:6443")
    for code in ("200", "200", "<error>"):
        series.answered("GET", code, 0.02)
    found = {
        (sample.name, sample.labels.get("code")): sample.value
        for family in series.collect()
        for sample in family.samples
    }
    assert found["rest_client_requests_total", "200"] == 2 and found["rest_client_requests_total", "<error>"] == 1
    assert found["rest_client_request_duration_seconds_count", None] == 3
