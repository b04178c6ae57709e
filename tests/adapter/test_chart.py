"""The Helm chart: written from the same manifests, and what the real helm makes of it."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyball.kube import KubeClient
from flyball.kube.kinds import API_SERVICES, DEPLOYMENTS
from flyball.localcluster import ApiServer

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "flyball"


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_chart_is_written_from_the_manifests() -> None:
    for name, text in tool("chart").FILES.items():
        assert (ROOT / name).read_text() == text(), f"run python tools/chart.py: {name} is old"


@pytest.fixture(scope="module")
def helm() -> Path:
    command = [sys.executable, str(ROOT / "tools" / "helm.py")]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@pytest.mark.peer
def test_lint_and_refused_values(helm: Path) -> None:
    subprocess.run([str(helm), "lint", "--strict", str(CHART)], check=True, capture_output=True)
    for wrong in ("adapter.replicas=0", "adapter.nothing=1", "adapter.prometheusUrl=ftp://x"):
        command = [str(helm), "template", "x", str(CHART), "--set", wrong]
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0, wrong


@pytest.mark.peer
def test_install_upgrade_roll_back_and_uninstall(helm: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "kubeconfig")}

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(helm), *arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    async def main() -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        text = (tmp_path / "data/kubeconfig").read_text().replace(":6443", f":{server.port}")
        (tmp_path / "kubeconfig").write_text(text)
        namespace = ("--namespace", "metrics")
        try:
            async with await KubeClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
                output = await run("install", "fly", str(CHART), *namespace, "--create-namespace")
                assert "The metrics APIs are served by fly-adapter in metrics" in output
                names = {item["metadata"]["name"] for item in await client.list(API_SERVICES)}
                assert {"v1beta1.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"} <= names
                assert "v1beta1.metrics.k8s.io" not in names
                url = "http://thanos.monitoring:9090"
                changes = ("--set", "adapter.replicas=3", "--set", f"adapter.prometheusUrl={url}")
                await run("upgrade", "fly", str(CHART), *namespace, *changes, "--set", "adapter.resourceMetrics=true")
                deployment = await client.get(DEPLOYMENTS, "fly-adapter", "metrics")
                assert deployment["spec"]["replicas"] == 3
                container = deployment["spec"]["template"]["spec"]["containers"][0]
                assert f"--prometheus-url={url}" in container["args"]
                await run("rollback", "fly", "1", *namespace)
                deployment = await client.get(DEPLOYMENTS, "fly-adapter", "metrics")
                assert deployment["spec"]["replicas"] == 2
                await run("uninstall", "fly", *namespace)
                assert not [d for d in await client.list(DEPLOYMENTS) if d["metadata"]["namespace"] == "metrics"]
        finally:
            await server.close()

    asyncio.run(main())
    assert yaml.safe_load((CHART / "values.yaml").read_text())["adapter"]["enabled"]
