"""The API server's own series."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

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
