"""Server-side apply and managedFields over HTTP, as ``kubectl apply --server-side`` uses them."""

import json
from pathlib import Path
from typing import Any

from tests.localcluster_apiserver.support import DEPLOYMENTS, Client, config_map, deployment, run

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


def web(**spec: Any) -> Object:
    made = deployment("web")
    del made["spec"]["replicas"]
    made["spec"].update(spec)
    return made


async def apply(api: Client, obj: Object, manager: str = "kubectl", *, force: bool = False, query: str = "") -> Any:
    plural = {"Deployment": DEPLOYMENTS, "ConfigMap": "/api/v1/namespaces/default/configmaps"}[obj["kind"]]
    path = f"{plural}/{obj['metadata']['name']}?fieldManager={manager}&force={str(force).lower()}{query}"
    return await api("PATCH", path, obj, type=APPLY)


def managers(obj: Object) -> dict[tuple[str, str, str], Object]:
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields") or []
    }


def test_apply_creates_then_changes_nothing_then_removes_what_was_dropped(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        config = config_map("a", kept="1", dropped="2")
        status, made = await apply(api, config)
        assert status == 201
        assert managers(made) == {("kubectl", "Apply", ""): {"f:data": {"f:dropped": {}, "f:kept": {}}}}
        status, again = await apply(api, config)
        assert status == 200 and again == made, "nothing changed, so nothing was written"
        await api("PATCH", "/api/v1/namespaces/default/configmaps/a", {"data": {"other": "3"}}, type=MERGE)
        _, after = await apply(api, config_map("a", kept="1"))
        assert after["data"] == {"kept": "1", "other": "3"}, "another manager's field stays"

    run(tmp_path, steps)


def test_a_conflict_names_managers_and_fields_and_force_takes_them(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await apply(api, web(replicas=2), "one")
        await api("PATCH", f"{DEPLOYMENTS}/web/scale?fieldManager=hpa", {"spec": {"replicas": 5}}, type=MERGE)
        status, body = await apply(api, web(replicas=2), "one")
        assert (status, body["reason"]) == (409, "Conflict")
        assert body["message"] == (
            'Apply failed with 1 conflict: conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas'
        )
        assert body["details"]["causes"] == [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "hpa" with subresource "scale" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
        image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}}
        path = f"{DEPLOYMENTS}/web?fieldManager=set"
        await api("PATCH", path, image, type="application/strategic-merge-patch+json")
        _, body = await apply(api, web(replicas=2), "two")
        assert body["message"] == (
            'Apply failed with 2 conflicts: conflicts with "hpa" with subresource "scale" using apps/v1:\n'
            '- .spec.replicas\nconflicts with "set" using apps/v1:\n'
            '- .spec.template.spec.containers[name="c"].image'
        )
        status, body = await apply(api, web(replicas=2), "one", force=True)
        assert status == 200 and body["spec"]["replicas"] == 2
        assert set(managers(body)) == {("one", "Apply", "")}
        _, shared = await apply(api, web(replicas=2), "two")
        assert set(managers(shared)) == {("one", "Apply", ""), ("two", "Apply", "")}, "equal values are shared"
        _, given_up = await apply(api, web(), "one")
        assert given_up["spec"]["replicas"] == 2, "the other owner keeps it"
        _, gone = await apply(api, web(), "two")
        assert gone["spec"]["replicas"] == 1, "no owner left: the default comes back"

    run(tmp_path, steps)


def test_updates_own_what_they_change(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        path = "/api/v1/namespaces/default/configmaps"
        _, made = await api("POST", f"{path}?fieldManager=maker", config_map("a", x="1", y="1"))
        assert managers(made) == {("maker", "Update", ""): {"f:data": {".": {}, "f:x": {}, "f:y": {}}}}
        made["data"] = {"x": "2", "z": "1"}
        _, after = await api("PUT", f"{path}/a", made, **{"User-Agent": "editor/v1 (linux)"})
        assert managers(after) == {
            ("maker", "Update", ""): {"f:data": {}},
            ("editor", "Update", ""): {"f:data": {"f:x": {}, "f:z": {}}},
        }
        made = after
        made["metadata"]["managedFields"] = [{}]
        _, cleared = await api("PUT", f"{path}/a", made)
        assert "managedFields" not in cleared["metadata"]

    run(tmp_path, steps)


def test_kubectl_takes_over_from_its_own_client_side_apply(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        made = web(replicas=2)
        annotation = "kubectl.kubernetes.io/last-applied-configuration"
        sent = json.loads(json.dumps(made))
        sent["metadata"]["annotations"] = {annotation: json.dumps(made)}
        await api("POST", f"{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply", sent)
        status, body = await apply(api, web(replicas=3), "someone")
        assert status == 409, body
        status, body = await apply(api, web(replicas=3))
        assert status == 200 and body["spec"]["replicas"] == 3
        assert json.loads(body["metadata"]["annotations"][annotation])["spec"]["replicas"] == 3

    run(tmp_path, steps)


def test_apply_refuses_what_it_cannot_place(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        status, body = await api("PATCH", f"{DEPLOYMENTS}/web", web(), type=APPLY)
        assert status == 422 and body["message"] == (
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
        status, body = await apply(api, web(replicaz=2))
        assert (status, body["message"]) == (
            500,
            "failed to create typed patch object (/web; apps/v1, Kind=Deployment): "
            ".spec.replicaz: field not declared in schema",
        )
        status, body = await apply(api, {**web(), "metadata": {"name": "web", "managedFields": [{"manager": "x"}]}})
        assert (status, body["message"]) == (400, "metadata.managedFields must be nil")
        status, _ = await apply(api, web(), query="&dryRun=All")
        assert status == 201 and (await api("GET", f"{DEPLOYMENTS}/web"))[0] == 404

    run(tmp_path, steps)


def test_status_is_applied_apart(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await apply(api, {**web(replicas=2), "status": {"replicas": 9}})
        status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 1}}
        path = f"{DEPLOYMENTS}/web/status?fieldManager=controller"
        _, body = await api("PATCH", path, {**status, "spec": {"replicas": 7}}, type=APPLY)
        assert (body["spec"]["replicas"], body["status"]) == (2, {"replicas": 1})
        assert managers(body)["controller", "Apply", "status"] == {"f:status": {"f:replicas": {}}}

    run(tmp_path, steps)
