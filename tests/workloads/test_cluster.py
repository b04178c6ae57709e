"""Deployments, Services and namespaces on the embedded API server."""

import asyncio

from flyball.errors import KubeApiError
from flyball.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from flyball.localcluster import workloads
from flyball.localcluster.workloads import statistics

from .cluster import add_node, deployment, run, settled, until


def test_a_deployment_becomes_pods_and_follows_its_size(tmp_path):
    async def body(client, node):
        await client.create(DEPLOYMENTS, deployment())
        found = await settled(client)
        conditions = {c["type"]: (c["status"], c["reason"]) for c in found["status"]["conditions"]}
        assert conditions == {
            "Available": ("True", "MinimumReplicasAvailable"),
            "Progressing": ("True", "NewReplicaSetAvailable"),
        }
        assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
        pods = await client.list(PODS, "default", "app=web")
        assert {pod["spec"]["nodeName"] for pod in pods} == {"flyball"}
        assert node.most == 3
        scale = {"spec": {"replicas": 5}}
        await client.patch(DEPLOYMENTS, "web", scale, "default", "scale")
        await settled(client, replicas=5)
        await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}}, "default")
        await settled(client, replicas=1)
        assert node.most == 5
        assert len(await client.list(REPLICA_SETS, "default")) == 1
        reasons = {event["reason"] for event in await client.list(EVENTS, "default")}
        assert {"ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete", "Scheduled"} <= reasons
        (running,) = workloads._running
        said = running.scheduler_page().decode()
        assert 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 5.0' in said
        assert 'scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"} 5.0' in said
        said = running.controllers_page().decode()
        assert 'workqueue_depth{name="replicaset' in said and 'rest_client_requests_total{code="201",host="127.' in said

    run(tmp_path, body)


def test_a_new_template_rolls_within_its_bounds_and_an_undo_takes_the_old_set_up_again(tmp_path):
    async def body(client, node):
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        await client.create(DEPLOYMENTS, deployment(replicas=4, strategy=rolling))
        await settled(client, replicas=4)
        first = (await client.list(REPLICA_SETS, "default"))[0]["metadata"]["name"]
        template = deployment(image="two")["spec"]["template"]
        await client.patch(DEPLOYMENTS, "web", {"spec": {"template": template}}, "default")
        await settled(client, replicas=4)
        assert node.most <= 5
        sets = {item["metadata"]["name"]: item for item in await client.list(REPLICA_SETS, "default")}
        assert len(sets) == 2
        assert sets[first]["spec"]["replicas"] == 0
        template = deployment(image="one")["spec"]["template"]
        await client.patch(DEPLOYMENTS, "web", {"spec": {"template": template}}, "default")
        found = await settled(client, replicas=4)
        assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        sets = {item["metadata"]["name"]: item for item in await client.list(REPLICA_SETS, "default")}
        assert sets[first]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        assert sets[first]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
        assert len(sets) == 2

    run(tmp_path, body)


def test_a_template_that_never_gets_ready_leaves_the_old_pods_serving(tmp_path):
    async def body(client, node):
        node.broken_images.add("bad")
        await client.create(DEPLOYMENTS, deployment(replicas=4))
        await settled(client, replicas=4)
        template = deployment(image="bad")["spec"]["template"]
        await client.patch(DEPLOYMENTS, "web", {"spec": {"template": template}}, "default")

        async def stuck():
            found = await client.get(DEPLOYMENTS, "web", "default")
            return (found.get("status") or {}).get("updatedReplicas") == 2

        await until(stuck)
        await asyncio.sleep(0.3)
        found = await client.get(DEPLOYMENTS, "web", "default")
        assert found["status"]["availableReplicas"] == 3  # 25 % of 4 may be missing
        assert node.most <= 5

    run(tmp_path, body)


def test_recreate_never_runs_two_templates_at_once(tmp_path):
    async def body(client, node):
        await client.create(DEPLOYMENTS, deployment(replicas=2, strategy={"type": "Recreate"}))
        await settled(client, replicas=2)
        together = []

        def watch(change, old, new):
            images = {pod["spec"]["containers"][0]["image"] for pod in node.pods.cache.values()}
            together.append(len(images))

        node.pods.add_handler(watch)
        template = deployment(image="two")["spec"]["template"]
        await client.patch(DEPLOYMENTS, "web", {"spec": {"template": template}}, "default")
        await settled(client, replicas=2)
        assert max(together) == 1

    run(tmp_path, body)


def test_deleting_a_deployment_takes_its_sets_and_pods_along_and_orphaning_leaves_them(tmp_path):
    async def body(client, node):
        await client.create(DEPLOYMENTS, deployment("gone", 2))
        await client.create(DEPLOYMENTS, deployment("deep", 2))
        await client.create(DEPLOYMENTS, deployment("kept", 2))
        for name in ("gone", "deep", "kept"):
            await settled(client, name, 2)
        await client.delete(DEPLOYMENTS, "gone", "default")
        await client.delete(DEPLOYMENTS, "deep", "default", "Foreground")
        await client.delete(DEPLOYMENTS, "kept", "default", "Orphan")

        async def only_kept():
            deployments = await client.list(DEPLOYMENTS, "default")
            pods = await client.list(PODS, "default")
            sets = await client.list(REPLICA_SETS, "default")
            names = {item["metadata"]["labels"]["app"] for item in (*pods, *sets)}
            return not deployments and names == {"kept"} and len(pods) == 2 and len(sets) == 1

        await until(only_kept)
        assert not (await client.list(REPLICA_SETS, "default"))[0]["metadata"].get("ownerReferences")

    run(tmp_path, body)


def test_a_service_lists_its_ready_pods(tmp_path):
    async def body(client, node):
        node.broken_images.add("bad")
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
        }
        await client.create(SERVICES, service)
        await client.create(DEPLOYMENTS, deployment(replicas=2))
        await settled(client, replicas=2)

        async def ready(count):
            slices = await client.list(ENDPOINT_SLICES, "default", "kubernetes.io/service-name=web")
            found = [e for s in slices for e in s.get("endpoints") or [] if e["conditions"]["ready"]]
            return slices if len(found) == count else None

        slices = await until(lambda: ready(2))
        assert len(slices) == 1
        assert slices[0]["ports"] == [{"name": "web", "protocol": "TCP", "port": 8000}]
        subset = (await client.get(ENDPOINTS, "web", "default"))["subsets"][0]
        assert len(subset["addresses"]) == 2
        pod = (await client.list(PODS, "default", "app=web"))[0]
        change = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await client.patch(PODS, pod["metadata"]["name"], change, "default", "status")
        await until(lambda: ready(1))
        await client.delete(SERVICES, "web", "default")

        async def gone():
            slices = await client.list(ENDPOINT_SLICES, "default", "kubernetes.io/service-name=web")
            names = [item["metadata"]["name"] for item in await client.list(ENDPOINTS, "default")]
            return not slices and "web" not in names

        await until(gone)

    run(tmp_path, body)


def test_a_namespace_is_provided_for_and_emptied(tmp_path):
    async def body(client, node):
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})

        async def provided():
            try:
                ca = await client.get(CONFIG_MAPS, "kube-root-ca.crt", "shop")
                await client.get(SERVICE_ACCOUNTS, "default", "shop")
            except KubeApiError:
                return None
            return ca

        ca = await until(provided)
        assert ca["data"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
        wanted = deployment(replicas=2)
        wanted["metadata"]["namespace"] = "shop"
        await client.create(DEPLOYMENTS, wanted)

        async def running():
            return len(await client.list(PODS, "shop")) == 2

        await until(running)
        await client.delete(NAMESPACES, "shop")

        async def gone():
            return "shop" not in [item["metadata"]["name"] for item in await client.list(NAMESPACES)]

        await until(gone)
        assert not await client.list(PODS, "shop")

    run(tmp_path, body)


def test_a_namespace_says_what_keeps_it(tmp_path):
    async def body(client, node):
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        metadata = {"name": "kept", "namespace": "shop", "finalizers": ["example.com/keep"]}
        await client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        await client.delete(NAMESPACES, "shop")

        async def told():
            status = (await client.get(NAMESPACES, "shop")).get("status") or {}
            return {c["type"]: c["message"] for c in status.get("conditions") or [] if c["status"] == "True"}

        assert await until(told) == {
            "NamespaceContentRemaining": "Some resources are remaining: configmaps. has 1 resource instances",
            "NamespaceFinalizersRemaining": "Some content in the namespace has finalizers remaining: "
            "example.com/keep in 1 resource instances",
        }
        await client.patch(CONFIG_MAPS, "kept", {"metadata": {"finalizers": None}}, "shop")

        async def gone():
            return "shop" not in [item["metadata"]["name"] for item in await client.list(NAMESPACES)]

        await until(gone)

    run(tmp_path, body)


def test_a_pod_that_no_node_will_have_says_why_and_goes_when_one_will(tmp_path):
    async def body(client, node):
        await client.patch(NODES, "flyball", {"spec": {"unschedulable": True}})
        await asyncio.sleep(0.1)
        await client.create(DEPLOYMENTS, deployment(replicas=1))

        async def told():
            events = await client.list(EVENTS, "default")
            return [event["message"] for event in events if event["reason"] == "FailedScheduling"]

        assert (await until(told))[0] == (
            "0/1 nodes are available: 1 node(s) were unschedulable. "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        await client.patch(NODES, "flyball", {"spec": {"unschedulable": None}})
        await settled(client, replicas=1)
        assert statistics()[0]["controllers"]

    run(tmp_path, body)


def test_a_replication_controller_keeps_its_size_adopts_by_labels_and_is_scaled(tmp_path):
    async def body(client, node):
        template = deployment()["spec"]["template"]
        orphan = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "orphan", "labels": {"app": "web"}},
            "spec": template["spec"],
        }
        await client.create(PODS, orphan, "default")
        spec = {"replicas": 2, "template": template}  # its selector is the template's labels
        await client.create(REPLICATION_CONTROLLERS, {"metadata": {"name": "old"}, "spec": spec}, "default")

        async def ready(count):
            found = await client.get(REPLICATION_CONTROLLERS, "old", "default")
            status = found.get("status") or {}
            return status if (status.get("replicas"), status.get("readyReplicas")) == (count, count) else None

        status = await until(lambda: ready(2))
        assert (status["availableReplicas"], status["fullyLabeledReplicas"]) == (2, 2)
        pods = await client.list(PODS, "default")
        assert len(pods) == 2 and "orphan" in {pod["metadata"]["name"] for pod in pods}
        assert {pod["metadata"]["ownerReferences"][0]["kind"] for pod in pods} == {"ReplicationController"}
        scale = await client.get(REPLICATION_CONTROLLERS, "old", "default", "scale")
        assert scale["status"] == {"replicas": 2, "selector": "app=web"}
        scale["spec"]["replicas"] = 3
        await client.update(REPLICATION_CONTROLLERS, scale, "default", "scale")
        await until(lambda: ready(3))
        await client.delete(REPLICATION_CONTROLLERS, "old", "default")

        async def gone():
            return not await client.list(PODS, "default")

        await until(gone)

    run(tmp_path, body)


def test_an_important_pod_sends_a_lesser_one_away_and_takes_its_place(tmp_path):
    def one(name, priority_class):
        requests = {"requests": {"cpu": "1"}}
        container = {"name": "main", "image": "one", "resources": requests}
        spec = {"containers": [container], "priorityClassName": priority_class, "terminationGracePeriodSeconds": 0}
        return {"metadata": {"name": name}, "spec": {**spec, "nodeSelector": {"small": "yes"}}}

    async def body(client, node):
        await add_node(client, "small", {"small": "yes"}, cpu="1", pods="10")
        for name, value in (("low", 1), ("high", 1000)):
            await client.create(PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value})
        await client.create(PODS, one("lesser", "low"), "default")

        async def runs(name):
            found = [pod for pod in await client.list(PODS, "default") if pod["metadata"]["name"] == name]
            return found and found[0].get("status", {}).get("phase") == "Running" and found[0]

        await until(lambda: runs("lesser"))
        await client.create(PODS, one("important", "high"), "default")
        important = await until(lambda: runs("important"))
        assert important["spec"]["nodeName"] == "small"
        assert "nominatedNodeName" not in important["status"]
        assert not await runs("lesser")

        async def told():
            found = {event["reason"]: event for event in await client.list(EVENTS, "default")}
            return "Preempted" in found and found["Preempted"]

        event = await until(told)
        assert event["involvedObject"]["name"] == "lesser"
        assert event["message"].endswith("on node small")

    run(tmp_path, body)
