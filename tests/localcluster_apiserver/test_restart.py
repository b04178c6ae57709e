"""What a stopped API server knew, the next one on the same directory knows."""

import asyncio
from pathlib import Path

from flyball.kube import KubeClient
from flyball.kube.kinds import API_SERVICES, CONFIG_MAPS, CRDS
from flyball.localcluster.server import ApiServer

API_SERVICE = {
    "metadata": {"name": "v1beta1.custom.metrics.k8s.io"},
    "spec": {
        "group": "custom.metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"namespace": "default", "name": "adapter", "port": 443},
        "insecureSkipTLSVerify": True,
    },
}
DEFINITION = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_objects_definitions_and_registered_servers_survive(tmp_path: Path) -> None:
    async def session(first: bool) -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        try:
            written = (tmp_path / "data" / "kubeconfig").read_text().replace(":6443", f":{server.port}")
            (tmp_path / "kubeconfig").write_text(written)
            async with await KubeClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
                if first:
                    await client.create(API_SERVICES, API_SERVICE)
                    await client.create(CRDS, DEFINITION)
                    await client.create(CONFIG_MAPS, {"metadata": {"name": "kept"}, "data": {"a": "b"}}, "default")
                else:
                    assert (await client.get(API_SERVICES, "v1beta1.custom.metrics.k8s.io"))["spec"] == API_SERVICE[
                        "spec"
                    ]
                    assert (await client.get(CONFIG_MAPS, "kept", "default"))["data"] == {"a": "b"}
                    assert b'"things"' in await client.raw_get("/apis/example.com/v1")
        finally:
            await server.close()

    asyncio.run(session(first=True))
    asyncio.run(session(first=False))
