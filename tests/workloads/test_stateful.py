"""StatefulSets with their claims, and DaemonSets, on the embedded API server."""

from flyball.errors import KubeApiError
from flyball.kube.kinds import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STATEFUL_SETS,
)

from .cluster import add_node, run, until


def stateful_set(replicas=3, image="one", **spec):
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", image, volumeMounts=[{"name": "data", "mountPath": "/data"}]),
            "volumeClaimTemplates": [claim],
            **spec,
        },
    }


def template(app, image, **container):
    spec = {"containers": [{"name": "main", "image": image, **container}]}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


async def rolled(client, replicas=3):
    """The set once its rollout is complete."""

    async def check():
        found = await client.get(STATEFUL_SETS, "db", "default")
        status = found.get("status") or {}
        fine = (
            status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("replicas", 0) == status.get("readyReplicas", 0) == replicas
            and status.get("currentRevision") == status.get("updateRevision")
        )
        return found if fine else None

    return await until(check)


async def images(client, app="db"):
    pods = await client.list(PODS, "default", f"app={app}")
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods}


def test_replicas_start_and_stop_in_order_with_stable_names_and_volumes(tmp_path):
    async def body(client, node):
        order = []

        def watch(change, old, new):
            if change == "ADDED":
                before = [p for p in node.pods.cache.values() if p["metadata"]["uid"] != new["metadata"]["uid"]]
                ready = all(
                    any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
                    for p in before
                )
                order.append(("up", new["metadata"]["name"], ready))
            elif change == "DELETED":
                order.append(("down", old["metadata"]["name"], True))

        node.pods.add_handler(watch)
        await client.create(STATEFUL_SETS, stateful_set())
        found = await rolled(client)
        assert order == [("up", f"db-{n}", True) for n in range(3)]
        pod = await client.get(PODS, "db-1", "default")
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
        assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
        assert pod["metadata"]["labels"]["controller-revision-hash"] == found["status"]["currentRevision"]
        assert pod["spec"]["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
        claim = await client.get(PERSISTENT_VOLUME_CLAIMS, "data-db-1", "default")
        assert claim["status"]["phase"] == "Bound"
        assert claim["spec"]["storageClassName"] == "standard"
        assert claim["spec"]["volumeName"] == f"pvc-{claim['metadata']['uid']}"
        volume = await client.get(PERSISTENT_VOLUMES, claim["spec"]["volumeName"])
        assert volume["status"]["phase"] == "Bound"
        directory = tmp_path / "volumes" / claim["spec"]["volumeName"]
        assert volume["spec"]["hostPath"]["path"] == str(directory) and directory.is_dir()

        order.clear()
        await client.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, "default", "scale")
        await rolled(client, 1)
        assert order == [("down", "db-2", True), ("down", "db-1", True)]
        # The volumes stay, and a replica that returns finds its own again.
        assert (await client.get(PERSISTENT_VOLUME_CLAIMS, "data-db-1", "default"))["spec"] == claim["spec"]
        await client.delete(PERSISTENT_VOLUME_CLAIMS, "data-db-2", "default")

        async def reclaimed():
            return {v["spec"]["claimRef"]["name"] for v in await client.list(PERSISTENT_VOLUMES)} == {
                "data-db-0",
                "data-db-1",
            }

        await until(reclaimed)
        assert len(list((tmp_path / "volumes").iterdir())) == 2

    run(tmp_path, body)


def test_a_rollout_goes_downwards_to_the_partition_and_an_undo_takes_the_old_revision_up(tmp_path):
    async def body(client, node):
        await client.create(STATEFUL_SETS, stateful_set())
        first = (await rolled(client))["status"]["currentRevision"]
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
        change = {"spec": {"template": template("db", "two"), "updateStrategy": rolling}}
        await client.patch(STATEFUL_SETS, "db", change, "default")

        async def upper_two():
            status = (await client.get(STATEFUL_SETS, "db", "default"))["status"]
            return status if status.get("updatedReplicas") == 2 and status.get("readyReplicas") == 3 else None

        status = await until(upper_two)
        assert await images(client) == {"db-0": "one", "db-1": "two", "db-2": "two"}
        assert (status["currentRevision"], status["currentReplicas"]) == (first, 1)
        # A replica below the partition that is lost returns as it was.
        lost = (await client.get(PODS, "db-0", "default"))["metadata"]["uid"]
        await client.delete(PODS, "db-0", "default")

        async def back():
            try:
                return (await client.get(PODS, "db-0", "default"))["metadata"]["uid"] != lost
            except KubeApiError:
                return False

        await until(back)
        assert (await images(client))["db-0"] == "one"
        await client.patch(
            STATEFUL_SETS, "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}, "default"
        )
        await rolled(client)
        assert set((await images(client)).values()) == {"two"}

        revisions = {r["metadata"]["name"]: r for r in await client.list(CONTROLLER_REVISIONS, "default")}
        assert sorted(r["revision"] for r in revisions.values()) == [1, 2]
        await client.patch(STATEFUL_SETS, "db", {"spec": {"template": stateful_set()["spec"]["template"]}}, "default")
        found = await rolled(client)
        assert found["status"]["currentRevision"] == first
        assert set((await images(client)).values()) == {"one"}
        assert (await client.get(CONTROLLER_REVISIONS, first, "default"))["revision"] == 3

    run(tmp_path, body)


def test_on_delete_replaces_only_what_is_deleted(tmp_path):
    async def body(client, node):
        await client.create(STATEFUL_SETS, stateful_set(2, updateStrategy={"type": "OnDelete"}))
        await rolled(client, 2)
        await client.patch(STATEFUL_SETS, "db", {"spec": {"template": template("db", "two")}}, "default")

        async def observed():
            found = await client.get(STATEFUL_SETS, "db", "default")
            return found["status"]["observedGeneration"] == found["metadata"]["generation"]

        await until(observed)
        await client.delete(PODS, "db-0", "default")

        async def mixed():
            return await images(client) == {"db-0": "two", "db-1": "one"}

        await until(mixed)

    run(tmp_path, body)


def daemon_set(image="one", **pod):
    made = template("agent", image)
    made["spec"].update(pod)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": made},
    }


async def placed(client, count):
    async def check():
        found = await client.get(DAEMON_SETS, "agent", "default")
        status = found.get("status") or {}
        names = ("desiredNumberScheduled", "currentNumberScheduled", "numberAvailable", "updatedNumberScheduled")
        pods = await client.list(PODS, "default", "app=agent")
        fine = status.get("observedGeneration") == found["metadata"]["generation"]
        if fine and {status.get(name, 0) for name in names} == {count} and len(pods) == count:
            return ({pod["spec"].get("nodeName"): pod for pod in pods},)
        return None

    return (await until(check))[0]


def test_daemons_follow_nodes_taints_and_a_new_template(tmp_path):
    async def body(client, node):
        taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
        await add_node(client, "c", taints=[taint])
        await client.create(DAEMON_SETS, daemon_set())
        assert set(await placed(client, 2)) == {"a", "b"}
        await add_node(client, "d")
        pods = await placed(client, 3)
        assert set(pods) == {"a", "b", "d"}
        assert pods["d"]["metadata"]["labels"]["controller-revision-hash"]
        # A daemon stays on a node that is cordoned; one that runs where it must not is taken away.
        await client.patch(NODES, "a", {"spec": {"unschedulable": True}})
        await client.patch(NODES, "b", {"spec": {"taints": [{**taint, "effect": "NoExecute"}]}})
        assert set(await placed(client, 2)) == {"a", "d"}
        await client.patch(DAEMON_SETS, "agent", {"spec": {"template": template("agent", "two")}}, "default")
        pods = await placed(client, 2)
        assert {pod["spec"]["containers"][0]["image"] for pod in pods.values()} == {"two"}
        await client.patch(
            DAEMON_SETS, "agent", {"spec": {"template": {"spec": {"nodeSelector": {"no": "way"}}}}}, "default"
        )
        await placed(client, 0)

    run(tmp_path, body, nodes=("a", "b"))
