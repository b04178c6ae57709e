"""The API over real TLS, with plain HTTP requests as kubectl sends them."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.localcluster_apiserver.support import (
    AGGREGATED,
    CMS,
    DEPLOYMENTS,
    PODS,
    TABLE,
    Client,
    cluster,
    config_map,
    deployment,
    pod,
    run,
)

from flyball.http.server import ServerTLS, serve
from flyball.localcluster.aggregation import STORE, Aggregator, Backend
from flyball.localcluster.storage import Storage

Object = dict[str, Any]


MERGE = "application/merge-patch+json"


def test_only_the_token_opens_more_than_health_and_version(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        token, api.token = api.token, "wrong"
        status, body = await api("GET", CMS)
        assert (status, body["reason"]) == (401, "Unauthorized")
        async with api.session.get(api.base + "/version") as response:
            assert response.status == 200
            assert "+flyball" in (await response.json())["gitVersion"]
        async with api.session.get(api.base + "/api") as response:
            assert response.status == 401
        api.token = token
        status, _ = await api("GET", CMS, Host="evil.example")
        assert status == 421

    run(tmp_path, steps)


def test_create_read_update_delete_in_upstreams_words(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        status, made = await api("POST", CMS, config_map("a", k="1"))
        assert status == 201 and made["metadata"]["uid"] and made["metadata"]["creationTimestamp"]
        status, body = await api("POST", CMS, config_map("a"))
        assert (status, body["reason"], body["message"]) == (409, "AlreadyExists", 'configmaps "a" already exists')
        made["data"]["k"] = "2"
        status, second = await api("PUT", f"{CMS}/a", made)
        assert status == 200 and int(second["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        status, body = await api("PUT", f"{CMS}/a", {**made, "data": {"k": "3"}})
        assert status == 409 and "the object has been modified" in body["message"]
        status, same = await api("PUT", f"{CMS}/a", second)
        assert same["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"], "nothing changed"
        status, body = await api("GET", f"{CMS}/zzz")
        assert (status, body["message"]) == (404, 'configmaps "zzz" not found')
        assert body["details"] == {"name": "zzz", "kind": "configmaps"}
        status, body = await api("DELETE", f"{CMS}/a", {"preconditions": {"uid": "other"}})
        assert status == 409 and "the UID in the precondition (other) does not match" in body["message"]
        status, body = await api("DELETE", f"{CMS}/a")
        assert (status, body["status"]) == (200, "Success")
        status, body = await api("POST", "/api/v1/namespaces/nope/configmaps", config_map("a"))
        assert (status, body["message"]) == (404, 'namespaces "nope" not found')
        status, body = await api("POST", CMS, {**config_map("x"), "metadata": {"generateName": "gen-"}})
        assert status == 201 and len(body["metadata"]["name"]) == 9
        status, _ = await api("POST", CMS, b"{" + b" " * (3 << 20))
        assert status == 413
        status, _ = await api("POST", CMS, b"x", type="text/csv")
        assert status == 415

    run(tmp_path, steps)


def test_generation_counts_spec_changes_and_status_is_apart(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        _, made = await api("POST", DEPLOYMENTS, {**deployment("w"), "status": {"replicas": 9}})
        assert made["metadata"]["generation"] == 1 and not made.get("status")
        made["status"] = {"replicas": 1}
        made["spec"]["replicas"] = 7
        _, after = await api("PUT", f"{DEPLOYMENTS}/w/status", made)
        assert after["status"]["replicas"] == 1 and after["spec"]["replicas"] == 1
        assert after["metadata"]["generation"] == 1
        body = {"spec": {"replicas": 3}, "status": {"replicas": 5}}
        _, after = await api("PATCH", f"{DEPLOYMENTS}/w", body, type=MERGE)
        assert (after["spec"]["replicas"], after["status"]["replicas"], after["metadata"]["generation"]) == (3, 1, 2)
        _, scale = await api("GET", f"{DEPLOYMENTS}/w/scale")
        assert scale["spec"] == {"replicas": 3} and scale["status"] == {"replicas": 1, "selector": "app=w"}
        _, scale = await api("PATCH", f"{DEPLOYMENTS}/w/scale", {"spec": {"replicas": 4}}, type=MERGE)
        assert scale["kind"] == "Scale" and scale["spec"]["replicas"] == 4
        _, body = await api("GET", f"{DEPLOYMENTS}/w")
        assert (body["spec"]["replicas"], body["metadata"]["generation"]) == (4, 3)
        status, body = await api("PATCH", f"{DEPLOYMENTS}/w", {"spec": {"replicas": -1}}, type=MERGE)
        assert status == 422 and "spec.replicas" in body["message"] and body["details"]["causes"]
        strategic = "application/strategic-merge-patch+json"
        env = {"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}}}}
        _, body = await api("PATCH", f"{DEPLOYMENTS}/w", env, type=strategic)
        (container,) = body["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "python" and container["env"] == [{"name": "A", "value": "1"}]

    run(tmp_path, steps)


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        status, _ = await api("POST", f"{CMS}?dryRun=All", config_map("a"))
        assert status == 201
        assert (await api("GET", f"{CMS}/a"))[0] == 404
        await api("POST", CMS, config_map("a", k="1"))
        _, body = await api("PATCH", f"{CMS}/a?dryRun=All", {"data": {"k": "2"}}, type=MERGE)
        assert body["data"] == {"k": "2"}
        assert (await api("DELETE", f"{CMS}/a?dryRun=All"))[0] == 200
        assert (await api("GET", f"{CMS}/a"))[1]["data"] == {"k": "1"}

    run(tmp_path, steps)


def test_unknown_fields_are_refused_warned_about_or_dropped(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        wrong = deployment("w")
        wrong["spec"]["replicaz"] = 1
        status, body = await api("POST", f"{DEPLOYMENTS}?fieldValidation=Strict", wrong)
        assert status == 400 and 'strict decoding error: unknown field "spec.replicaz"' in body["message"]
        status, body = await api("POST", f"{DEPLOYMENTS}?fieldValidation=Warn", wrong)
        assert status == 201 and "replicaz" not in body["spec"]
        assert "replicaz" in api.headers["Warning"]

    run(tmp_path, steps)


def test_lists_page_select_and_print_as_tables(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        for name, tier in (("a", "x"), ("b", "y"), ("c", "x")):
            await api("POST", PODS, pod(name, tier=tier))
        _, body = await api("GET", f"{PODS}?labelSelector=tier%20in%20(x)")
        assert [i["metadata"]["name"] for i in body["items"]] == ["a", "c"] and body["kind"] == "PodList"
        _, body = await api("GET", f"{PODS}?fieldSelector=metadata.name%3Db,status.phase%3DPending")
        assert [i["metadata"]["name"] for i in body["items"]] == ["b"]
        status, body = await api("GET", f"{PODS}?fieldSelector=spec.color%3Dred")
        assert status == 400 and "spec.color" in body["message"]
        _, first = await api("GET", f"{PODS}?limit=2")
        assert len(first["items"]) == 2 and first["metadata"]["remainingItemCount"] == 1
        _, rest = await api("GET", f"{PODS}?limit=2&continue={first['metadata']['continue']}")
        assert [i["metadata"]["name"] for i in rest["items"]] == ["c"] and "continue" not in rest["metadata"]
        _, table = await api("GET", PODS, Accept=TABLE)
        assert table["kind"] == "Table" and [r["cells"][0] for r in table["rows"]] == ["a", "b", "c"]
        assert table["columnDefinitions"][0]["name"] == "Name"
        await api("DELETE", f"{PODS}?labelSelector=tier%3Dx")
        _, body = await api("GET", "/api/v1/pods")
        assert [i["metadata"]["name"] for i in body["items"]] == ["b"]

    run(tmp_path, steps)


def test_watch_resumes_across_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as api:
            _, made = await api("POST", CMS, config_map("a", k="1"))
            await api("PATCH", f"{CMS}/a", {"data": {"k": "2"}}, type=MERGE)
            await api("DELETE", f"{CMS}/a")
        async with cluster(tmp_path) as api:
            rv = made["metadata"]["resourceVersion"]
            async with api.watch(f"{CMS}?watch=1&resourceVersion={rv}") as event:
                change, gone = await event(), await event()
                assert (change["type"], change["object"]["data"]) == ("MODIFIED", {"k": "2"})
                assert gone["type"] == "DELETED"
                assert int(gone["object"]["metadata"]["resourceVersion"]) > int(rv) + 1
                await api("POST", CMS, config_map("live"))
                assert (await event())["object"]["metadata"]["name"] == "live"

    asyncio.run(main())


def test_watch_semantics(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", PODS, pod("a", on="yes"))
        path = f"{PODS}?watch=True&labelSelector=on%3Dyes&allowWatchBookmarks=true&sendInitialEvents=true"
        async with api.watch(path + "&resourceVersionMatch=NotOlderThan") as event:
            assert (await event())["type"] == "ADDED"
            mark = await event()
            assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            for value, expected in (("no", "DELETED"), ("yes", "ADDED")):
                await api("PATCH", f"{PODS}/a", {"metadata": {"labels": {"on": value}}}, type=MERGE)
                assert (await event())["type"] == expected
            await api("PATCH", f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}}, type=MERGE)
            assert (await event())["type"] == "MODIFIED"
        async with api.watch(f"{PODS}?watch=true&resourceVersion=99999") as event:
            error = await event()
            assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
        async with api.watch(f"{PODS}?watch=true", Accept=TABLE) as event:
            assert (await event())["object"]["columnDefinitions"]
            await api("POST", PODS, pod("b"))
            second = (await event())["object"]
            assert len(second["rows"]) == 1 and not second["columnDefinitions"]
        async with api.watch(f"{PODS}?watch=true&resourceVersion=0&timeoutSeconds=1") as event:
            assert [(await event())["type"] for _ in range(3)] == ["ADDED", "ADDED", "END"]

    run(tmp_path, steps)


def test_pods_end_gracefully_and_finalizers_hold(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", PODS, pod("a"))
        binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "flyball"}}
        assert (await api("POST", f"{PODS}/a/binding", binding))[0] == 201
        _status, body = await api("DELETE", f"{PODS}/a", {"propagationPolicy": "Background"})
        assert body["metadata"]["deletionTimestamp"] and body["metadata"]["deletionGracePeriodSeconds"] == 30
        await api("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
        assert (await api("GET", f"{PODS}/a"))[0] == 404
        held = config_map("held")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await api("POST", CMS, held)
        _, body = await api("DELETE", f"{CMS}/held")
        assert (await api("GET", f"{CMS}/held"))[1]["metadata"]["deletionTimestamp"]
        await api("PATCH", f"{CMS}/held", {"metadata": {"finalizers": None}}, type=MERGE)
        assert (await api("GET", f"{CMS}/held"))[0] == 404

    run(tmp_path, steps)


def test_discovery_and_openapi(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        _, body = await api("GET", "/apis", Accept=AGGREGATED)
        assert "as=APIGroupDiscoveryList" in api.headers["Content-Type"]
        apps = next(i for i in body["items"] if i["metadata"]["name"] == "apps")
        entry = next(r for r in apps["versions"][0]["resources"] if r["resource"] == "deployments")
        assert entry["shortNames"] == ["deploy"] and {s["subresource"] for s in entry["subresources"]} == {
            "scale",
            "status",
        }
        _, body = await api("GET", "/apis")
        assert body["kind"] == "APIGroupList"
        _, body = await api("GET", "/apis/autoscaling")
        assert body["preferredVersion"]["version"] == "v2"
        _, body = await api("GET", "/api/v1")
        assert any(r["name"] == "pods/log" for r in body["resources"])
        _, index = await api("GET", "/openapi/v3")
        link = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        _, document = await api("GET", link)
        assert any("deployments" in path for path in document["paths"])
        assert (await api("GET", "/apis/nope/v1/things"))[0] == 404

    run(tmp_path, steps)


def test_custom_resources_come_and_go(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            "subresources": {
                "status": {},
                "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.n"},
            },
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
        }
        names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]}
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
        }
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        status, made = await api("POST", crds, crd)
        assert status == 201, made
        assert {c["type"] for c in made["status"]["conditions"]} == {"NamesAccepted", "Established"}
        widgets = "/apis/example.com/v1/namespaces/default/widgets"
        widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 2}}
        assert (await api("POST", widgets, widget))[0] == 201
        _, table = await api("GET", widgets, Accept=TABLE)
        assert table["rows"][0]["cells"] == ["w", 2]
        _, scale = await api("GET", f"{widgets}/w/scale")
        assert scale["spec"]["replicas"] == 2
        status, _ = await api("PATCH", f"{widgets}/w", {}, type="application/strategic-merge-patch+json")
        assert status == 415
        await api("PATCH", f"{widgets}/w", {"metadata": {"finalizers": ["example.com/hold"]}}, type=MERGE)
        await api("POST", widgets, {**widget, "metadata": {"name": "free"}})
        status, going = await api("DELETE", f"{crds}/widgets.example.com")
        assert status == 200 and going["status"]["conditions"][-1]["type"] == "Terminating"
        _, left = await api("GET", widgets)
        assert [one["metadata"]["name"] for one in left["items"]] == ["w"], "the held one stays, the free one is gone"
        status, refused = await api("POST", widgets, {**widget, "metadata": {"name": "late"}})
        assert status == 403 and "terminating" in refused["message"]
        await api("PATCH", f"{widgets}/w", {"metadata": {"finalizers": None}}, type=MERGE)
        assert (await api("GET", f"{crds}/widgets.example.com"))[0] == 404, "the last object takes its definition along"
        assert (await api("GET", widgets))[0] == 404

    run(tmp_path, steps)


def test_answers_come_in_the_form_that_the_client_accepts(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", CMS, config_map("a", number="1", text="plain: no", lines="x\ny\n"))
        status, text = await api("GET", f"{CMS}/a", Accept="application/yaml")
        assert status == 200 and api.headers["Content-Type"] == "application/yaml"
        assert 'number: "1"' in text and "text: 'plain: no'" in text and "lines: |\n" in text
        changed = text.replace("plain: no", "other").encode()
        status, body = await api("PUT", f"{CMS}/a", changed, type="application/yaml")
        assert status == 200 and body["data"] == {"number": "1", "text": "other", "lines": "x\ny\n"}
        assert (await api("GET", f"{CMS}/a", Accept="text/csv"))[0] == 406
        assert (await api("POST", CMS, b"a,b", type="text/csv"))[0] == 415
        status, text = await api("GET", "/apis/nosuch.example/v1/things")
        assert (status, text) == (404, "404 page not found\n")
        assert (await api("GET", "/apis/apps/v9/deployments"))[1]["kind"] == "Status"

    run(tmp_path, steps)


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        for query, field in (
            ("resourceVersionMatch=Exact", "resourceVersionMatch"),
            ("resourceVersionMatch=Sometimes&resourceVersion=1", "resourceVersionMatch"),
            ("sendInitialEvents=true", "sendInitialEvents"),
            ("watch=1&sendInitialEvents=true", "resourceVersionMatch"),
            ("watch=1&resourceVersionMatch=NotOlderThan", "resourceVersionMatch"),
        ):
            status, body = await api("GET", f"{CMS}?{query}")
            assert (status, body["details"]["causes"][0]["field"]) == (422, field), query
        doubled = b'{"metadata": {"name": "d", "name": "d"}, "data": {"a": "1", "a": "2"}}'
        status, body = await api("POST", f"{CMS}?fieldValidation=Strict", doubled)
        assert status == 400 and body["message"].endswith('duplicate field "metadata.name", duplicate field "data.a"')
        secret = {"metadata": {"name": "s"}, "data": {"a": "not base64!"}}
        _, body = await api("POST", "/api/v1/namespaces/default/secrets", secret)
        assert body["message"].endswith("illegal base64 data at input byte 3")

    run(tmp_path, steps)


def test_new_events_are_complete_and_written_once(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        new, old = "/apis/events.k8s.io/v1/namespaces/default/events", "/api/v1/namespaces/default/events"
        event = {
            "metadata": {"name": "e"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "example.com/c",
            "reportingInstance": "c-1",
            "action": "Acting",
            "reason": "Because",
            "type": "Normal",
        }
        for missing in ("eventTime", "reportingController", "reportingInstance", "action", "reason"):
            status, body = await api("POST", new, {key: value for key, value in event.items() if key != missing})
            fields = {cause["field"] for cause in body["details"]["causes"]} if status == 422 else set()
            assert missing in fields, (missing, body)
        assert (await api("POST", new, event))[0] == 201
        status, body = await api("PATCH", f"{new}/e", {"reason": "Otherwise"}, type=MERGE)
        assert status == 422 and body["details"]["causes"][0]["field"] == "reason"
        await api("POST", old, {"metadata": {"name": "short"}, "involvedObject": {"namespace": "default"}})
        assert "reportingController" not in (await api("GET", f"{new}/short"))[1]

    run(tmp_path, steps)


def test_services_get_addresses_and_node_ports(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        path = "/api/v1/namespaces/default/services"
        spec = {"type": "LoadBalancer", "selector": {"a": "b"}, "ports": [{"port": 80}]}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}
        _, made = await api("POST", path, body)
        assert made["spec"]["clusterIP"].startswith("127.11.") and made["spec"]["ports"][0]["nodePort"] >= 30000
        _, again = await api("PUT", f"{path}/s", body)
        assert again["spec"]["clusterIP"] == made["spec"]["clusterIP"]
        assert again["spec"]["ports"][0]["nodePort"] == made["spec"]["ports"][0]["nodePort"]
        _, other = await api("POST", path, {**body, "metadata": {"name": "t"}})
        assert other["spec"]["clusterIP"] != made["spec"]["clusterIP"]

    run(tmp_path, steps)


def test_a_dead_aggregated_server_is_503_for_its_paths_only(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        spec = {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta1",
            "service": {"namespace": "flyball-system", "name": "dead", "port": 1},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        name = "v1beta1.custom.metrics.k8s.io"
        body = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": name},
            "spec": spec,
        }
        path = "/apis/apiregistration.k8s.io/v1/apiservices"
        status, made = await api("POST", path, body)
        assert status == 201, made
        for _ in range(200):
            _, found = await api("GET", f"{path}/{name}")
            conditions = (found.get("status") or {}).get("conditions") or []
            if conditions:
                break
            await asyncio.sleep(0.02)
        assert (conditions[0]["type"], conditions[0]["status"]) == ("Available", "False")
        status, answer = await api("GET", "/apis/custom.metrics.k8s.io/v1beta1")
        assert (status, answer["reason"]) == (503, "ServiceUnavailable")
        assert (await api("GET", "/apis", Accept=AGGREGATED))[0] == 200
        assert (await api("GET", CMS))[0] == 200

    run(tmp_path, steps)


def test_an_aggregated_server_whose_endpoint_comes_during_a_look_is_looked_at_again_at_once(tmp_path: Path) -> None:
    service = {"namespace": "default", "name": "late", "port": 443}
    spec = {"group": "x.example.com", "version": "v1", "service": service}
    slices, states = "discovery.k8s.io/endpointslices", []
    storage = Storage(tmp_path / "objects.sqlite")
    storage.put(STORE, "", "v1.x.example.com", {"metadata": {"name": "v1.x.example.com"}, "spec": spec})

    class Late(Aggregator):
        async def _fetch_listing(self, backend: Backend) -> Object:
            if not storage.keys(slices):
                storage.put(slices, "default", "late-1", {"metadata": {"name": "late-1", "namespace": "default"}})
                raise OSError("nobody listens")
            return {"resources": []}

    async def story() -> None:
        passed = asyncio.Event()

        def status(_name: str, status: Object) -> None:
            states.append(status["conditions"][0]["status"])
            if states[-1] == "True":
                passed.set()

        aggregator = Late(storage, tmp_path, lambda: None, status)
        aggregator.start()
        await passed.wait()
        assert (states, aggregator.probes, aggregator.failures) == (["False", "True"], 2, 1)
        await aggregator.close()

    with mock.patch("flyball.localcluster.aggregation.RETRY_EVERY_S", 3600.0):
        asyncio.run(asyncio.wait_for(story(), 30))
    storage.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_hpa_is_served_in_both_versions(tmp_path: Path, version: str) -> None:
    async def steps(api: Client) -> None:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}
        hpa: Object = {
            "apiVersion": "autoscaling/v1",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "w"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 40},
        }
        path = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
        assert (await api("POST", path.format("v1"), hpa))[0] == 201
        _, body = await api("GET", path.format(version) + "/w")
        assert body["apiVersion"] == f"autoscaling/{version}"
        if version == "v1":
            assert body["spec"]["targetCPUUtilizationPercentage"] == 40 and "metrics" not in body["spec"]
        else:
            metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 40}}
            assert body["spec"]["metrics"] == [{"type": "Resource", "resource": metric}]

    run(tmp_path, steps)


@pytest.mark.parametrize("defined", [False, True])
def test_an_alertmanager_config_is_served_in_both_versions_with_and_without_its_definition(
    tmp_path: Path, defined: bool
) -> None:
    async def steps(api: Client) -> None:
        if defined:
            anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            names = {
                "plural": "alertmanagerconfigs",
                "kind": "AlertmanagerConfig",
                "listKind": "AlertmanagerConfigList",
            }
            crd = {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": "alertmanagerconfigs.monitoring.coreos.com"},
                "spec": {
                    "group": "monitoring.coreos.com",
                    "names": {**names, "singular": "alertmanagerconfig"},
                    "scope": "Namespaced",
                    "conversion": {
                        "strategy": "Webhook",
                        "webhook": {
                            "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/convert"}},
                            "conversionReviewVersions": ["v1"],
                        },
                    },
                    "versions": [
                        {"name": "v1alpha1", "served": True, "storage": True, "schema": anything},
                        {"name": "v1beta1", "served": True, "storage": False, "schema": anything},
                    ],
                },
            }
            assert (await api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd))[0] == 201
        config: Object = {
            "apiVersion": "monitoring.coreos.com/v1beta1",
            "kind": "AlertmanagerConfig",
            "metadata": {"name": "c"},
            "spec": {"route": {"receiver": "r"}, "receivers": [{"name": "r"}], "timeIntervals": [{"name": "night"}]},
        }
        path = "/apis/monitoring.coreos.com/{}/namespaces/default/alertmanagerconfigs"
        assert (await api("POST", path.format("v1beta1"), config))[0] == 201
        _, old = await api("GET", path.format("v1alpha1") + "/c")
        assert old["apiVersion"] == "monitoring.coreos.com/v1alpha1"
        assert old["spec"]["muteTimeIntervals"] == [{"name": "night"}] and "timeIntervals" not in old["spec"]
        _, new = await api("GET", path.format("v1beta1"))
        assert new["items"][0]["spec"] == config["spec"]

    run(tmp_path, steps)


def test_an_aggregated_server_is_reached_as_the_front_proxy_and_may_not_redirect(tmp_path: Path) -> None:
    async def backend(scope: Any, receive: Any, send: Any) -> None:
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        certificate = scope.get("extensions", {}).get("tls", {}).get("peercert")
        body: Object = {"kind": "APIResourceList", "groupVersion": "x.example.com/v1", "resources": []}
        status, extra = 200, []
        if scope["path"].endswith("/away"):
            status, extra = 302, [(b"location", b"https://127.0.0.1:1/")]
        elif scope["path"].endswith("/who"):
            body = {
                "user": headers.get("x-remote-user"),
                "auth": headers.get("authorization"),
                "peer": str(certificate),
            }
        else:
            body["resources"] = [
                {
                    "name": "pods/rate",
                    "namespaced": True,
                    "kind": "MetricValueList",
                    "singularName": "",
                    "verbs": ["get"],
                }
            ]
        head = [(b"content-type", b"application/json"), *extra]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def steps(api: Client) -> None:
        pki_dir = tmp_path / "pki"
        tls = ServerTLS(pki_dir / "adapter.crt", pki_dir / "adapter.key", pki_dir / "front-proxy-ca.crt")
        server = await serve(backend, port=0, tls=tls, allowed_hosts=None)
        try:
            spec = {
                "group": "x.example.com",
                "version": "v1",
                "service": {"namespace": "flyball-system", "name": "flyball-embedded-adapter", "port": server.port},
                "caBundle": base64.b64encode((pki_dir / "ca.crt").read_bytes()).decode(),
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            }
            body = {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": "v1.x.example.com"},
                "spec": spec,
            }
            await api("POST", "/apis/apiregistration.k8s.io/v1/apiservices", body)
            for _ in range(250):
                _, found = await api("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.x.example.com")
                conditions = (found.get("status") or {}).get("conditions") or [{}]
                if conditions[0].get("status") == "True":
                    break
                await asyncio.sleep(0.02)
            assert conditions[0].get("reason") == "Passed", conditions
            status, who = await api("GET", "/apis/x.example.com/v1/who", **{"X-Remote-User": "mallory"})
            assert status == 200 and who["user"] == "admin" and who["auth"] is None
            assert "front-proxy-client" in who["peer"]
            status, _answer = await api("GET", "/apis/x.example.com/v1/away")
            assert status == 503 and "Location" not in api.headers
            _, groups = await api("GET", "/apis", Accept=AGGREGATED)
            group = next(g for g in groups["items"] if g["metadata"]["name"] == "x.example.com")
            assert group["versions"][0]["resources"][0]["subresources"][0]["subresource"] == "rate"
            _, groups = await api("GET", "/apis")
            assert "x.example.com" in [g["name"] for g in groups["groups"]]
        finally:
            await server.close()

    run(tmp_path, steps)


def test_containers_are_added_to_a_pod_that_runs_and_stay_as_they_are(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", PODS, pod("p"))
        path, kind = f"{PODS}/p/ephemeralcontainers", "application/strategic-merge-patch+json"

        def adding(name: str, **more: Any) -> Any:
            return {"spec": {"ephemeralContainers": [{"name": name, "image": "busybox", **more}]}}

        code, body = await api("PATCH", path, adding("debug", targetContainerName="c", stdin=True), type=kind)
        assert code == 200
        assert body["metadata"]["generation"] == 2
        assert body["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "Always"
        code, body = await api("PATCH", path, adding("second"), type=kind)
        assert [one["name"] for one in body["spec"]["ephemeralContainers"]] == ["second", "debug"]
        for patch, said in (
            (adding("debug", image="other"), 'existing ephemeral containers "debug" may not be changed'),
            (adding("c"), 'spec.ephemeralContainers[0].name: Duplicate value: "c"'),
            (adding("x", targetContainerName="no"), 'targetContainerName: Not found: "no"'),
            (adding("x", ports=[{"containerPort": 1}]), "ports: Forbidden: cannot be set for an Ephemeral Container"),
        ):
            code, body = await api("PATCH", path, patch, type=kind)
            assert (code, said in body["message"]) == (422, True), body["message"]
        code, body = await api("GET", path)
        assert (code, len(body["spec"]["ephemeralContainers"])) == (200, 2)

    run(tmp_path, steps)
