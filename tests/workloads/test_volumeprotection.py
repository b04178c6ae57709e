"""Claims that pods use, and volumes that are bound, wait until nobody needs them."""

from flyball.kube.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from flyball.localcluster.workloads.objects import condition, is_terminating
from flyball.localcluster.workloads.volumeprotection import holds, unused_condition

from .cluster import run, until


def claim(name="disk"):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def pod(claim="disk", **status):
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "one"}], "volumes": volumes},
        "status": status,
    }


def test_only_a_pod_with_a_node_holds_a_claim_and_an_ended_one_still_does():
    placed = pod(phase="Succeeded")
    assert not holds(placed, ("default", "disk"))
    placed["spec"]["nodeName"] = "flyball"
    assert holds(placed, ("default", "disk")) and not holds(placed, ("default", "other"))
    assert unused_condition([placed])["status"] == "True"
    assert unused_condition([pod(phase="Running")])["status"] == "False"


async def current(client, resource, name, namespace=None):
    found = [item for item in await client.list(resource, namespace) if item["metadata"]["name"] == name]
    return found[0] if found else None


def test_a_claim_goes_after_its_pod_and_a_volume_after_its_claim(tmp_path):
    async def body(client, node):
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim())
        await client.create(PODS, pod())

        async def used():
            found = await current(client, PERSISTENT_VOLUME_CLAIMS, "disk", "default")
            return found if (condition(found, "Unused") or {}).get("status") == "False" else None

        bound = await until(used)
        assert bound["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        volume = bound["spec"]["volumeName"]
        directory = tmp_path / "volumes" / volume
        (directory / "kept").write_text("data")
        await client.delete(PERSISTENT_VOLUMES, volume)
        await client.delete(PERSISTENT_VOLUME_CLAIMS, "disk", "default")
        for resource, name, namespace in (
            (PERSISTENT_VOLUMES, volume, None),
            (PERSISTENT_VOLUME_CLAIMS, "disk", "default"),
        ):
            assert is_terminating(await current(client, resource, name, namespace))

        async def running():
            found = await current(client, PODS, "user", "default")
            return (found.get("status") or {}).get("phase") == "Running"

        await until(running)
        assert (directory / "kept").read_text() == "data"
        await client.delete(PODS, "user", "default")

        async def gone():
            return not await client.list(PERSISTENT_VOLUME_CLAIMS) and not await client.list(PERSISTENT_VOLUMES)

        await until(gone)
        assert not directory.exists()

    run(tmp_path, body)


def test_an_unused_claim_goes_at_once(tmp_path):
    async def body(client, node):
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim())

        async def unused():
            found = await current(client, PERSISTENT_VOLUME_CLAIMS, "disk", "default")
            return (condition(found, "Unused") or {}).get("status") == "True"

        await until(unused)
        await client.delete(PERSISTENT_VOLUME_CLAIMS, "disk", "default")

        async def gone():
            return not await client.list(PERSISTENT_VOLUME_CLAIMS)

        await until(gone)

    run(tmp_path, body)
