"""The chart and the kustomization on a real API server."""

import asyncio
from pathlib import Path

import pytest
from tests.adapter.on_cluster import NAME, SYSTEM, run
from tests.adapter.test_chart import ROOT, helm, lifecycle
from tests.cluster.control_plane import write_kubeconfig
from tests.cluster.fixtures import real_control_plane
from tools.kubectl import find

from flyball.kube import KubeClient
from flyball.kube.kinds import API_SERVICES, DEPLOYMENTS

pytestmark = pytest.mark.cluster
__all__ = ["helm"]  # the fixture


def test_the_chart_and_the_kustomization_come_and_go(helm: Path, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"

    async def kubectl(*arguments: str) -> str:
        code, out, err = await run(find(), *arguments, home=tmp_path, kubeconfig=kubeconfig)
        assert code == 0, err
        return out

    async def main() -> None:
        await lifecycle(helm, tmp_path)
        await kubectl("apply", "-k", str(ROOT / "deploy" / "autoscaler"))
        folder = str(ROOT / "deploy" / "adapter")
        for _ in range(2):
            await kubectl("apply", "-k", folder)
        async with await KubeClient.from_kubeconfig(kubeconfig) as client:
            deployment = await client.get(DEPLOYMENTS, NAME, SYSTEM)
            assert deployment["metadata"]["generation"] == 1  # the second time changed nothing
            await kubectl("delete", "-k", folder, "--wait=false")
            assert not [item for item in await client.list(API_SERVICES) if item["spec"].get("service")]

    with real_control_plane(tmp_path / "plane") as plane:
        write_kubeconfig(kubeconfig, plane.base, plane.token, plane.ca)
        asyncio.run(main())
