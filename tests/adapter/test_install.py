"""flyball install: every object is taken by the API server, and permits the adapter's calls and no more."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flyball.adapter.manifests import Installation, manifests
from flyball.cli.install import command
from flyball.kube import KubeClient
from flyball.kube.applying import apply
from flyball.localcluster import ApiServer

from .world import DEADLINE_S


def by_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [obj for obj in objects if obj["kind"] == kind]


@pytest.mark.parametrize("arguments", [[], ["--resource-metrics", "--described", "jobs.batch"], ["--standalone"]])
def test_the_api_server_takes_every_object_twice(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    objects = list(yaml.safe_load_all(result.stdout))

    async def main() -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text((tmp_path / "data/kubeconfig").read_text().replace(":6443", f":{server.port}"))
        try:
            async with asyncio.timeout(DEADLINE_S), await KubeClient.from_kubeconfig(kubeconfig) as client:
                for obj in (*objects, *objects):
                    await apply(client, obj)
        finally:
            await server.close()

    asyncio.run(main())


def test_nothing_skips_verification_and_no_permission_is_a_wildcard_but_to_read_metrics() -> None:
    objects = manifests(Installation(resource_metrics=True, standalone=True))
    for item in by_kind(objects, "APIService"):
        assert "insecureSkipTLSVerify" not in item["spec"] and item["spec"]["service"]["name"] == "flyball-adapter"
    for role in by_kind(objects, "ClusterRole") + by_kind(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] and "*" not in rule["apiGroups"]
            if "*" in rule["resources"]:  # a metric's name is a resource: the list of them is not known beforehand
                assert rule["apiGroups"][0].endswith("metrics.k8s.io") and rule["verbs"] == ["get", "list"]
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role" and (rule["verbs"] == ["create"] or rule["resourceNames"])
    (deployment,) = by_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_metrics_server_keeps_its_group_unless_asked() -> None:
    groups = {item["spec"]["group"] for item in by_kind(manifests(Installation()), "APIService")}
    assert groups == {"custom.metrics.k8s.io", "external.metrics.k8s.io"}
