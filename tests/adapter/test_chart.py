"""The Helm chart: written from the same manifests, and what the real helm makes of it."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.adapter.on_cluster import run as run_command

from flyball.cli.install import command as install
from flyball.kube import KubeClient
from flyball.kube.kinds import API_SERVICES, DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS
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
    for name, text in tool("chart").files().items():
        assert (ROOT / name).read_text() == text, f"run python tools/chart.py: {name} is old"


@pytest.fixture(scope="module")
def helm() -> Path:
    command = [sys.executable, str(ROOT / "tools" / "helm.py")]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@pytest.mark.peer
def test_lint_and_refused_values(helm: Path) -> None:
    subprocess.run([str(helm), "lint", "--strict", str(CHART)], check=True, capture_output=True)
    for wrong in (
        *("adapter.replicas=0", "adapter.nothing=1", "adapter.prometheusUrl=ftp://x", "autoscaler.replicas=0"),
        *("server.storage=big", "server.rules.a=1", "nodeExporter.replicas=1", "alertmanager.config=", "tracing=true"),
    ):
        command = [str(helm), "template", "x", str(CHART), "--set", wrong]
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0, wrong


@pytest.mark.peer
def test_everything_on_is_what_install_prints(helm: Path) -> None:
    command = [str(helm), "template", "flyball", str(CHART), "--namespace=flyball-system", "--kube-version=1.37.1"]
    rendered = by_name(subprocess.run([*command, *everything()], check=True, capture_output=True, text=True).stdout)
    printed = by_name(CliRunner().invoke(install, ["all", "--namespace=flyball-system"]).stdout)
    text = json.dumps([printed[key] for key in printed])  # a release has one namespace; two parts have their own
    for part in ("node-exporter", "agent"):
        text = text.replace(f'"namespace": "flyball-{part}"', '"namespace": "flyball-system"')
    assert rendered == named(json.loads(text))


def by_name(text: str) -> dict[tuple[str, str], Any]:
    """The objects of manifests, but for what helm makes in its own way."""
    elsewhere = ("Namespace", "CustomResourceDefinition")
    return named([obj for obj in yaml.safe_load_all(text) if obj and obj["kind"] not in elsewhere])


def named(objects: list[Any]) -> dict[tuple[str, str], Any]:
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}


def everything() -> list[str]:
    """The flags that switch every part on."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return [f"--set={part}.enabled=true" for part, chosen in values.items() if isinstance(chosen, dict)]


@pytest.mark.peer
def test_install_upgrade_roll_back_and_uninstall(helm: Path, tmp_path: Path) -> None:
    async def main() -> None:
        server = ApiServer(tmp_path / "data", port=0)
        await server.start()
        text = (tmp_path / "data/kubeconfig").read_text().replace(":6443", f":{server.port}")
        (tmp_path / "kubeconfig").write_text(text)
        try:
            await lifecycle(helm, tmp_path)
        finally:
            await server.close()

    asyncio.run(main())
    assert yaml.safe_load((CHART / "values.yaml").read_text())["adapter"]["enabled"]


async def lifecycle(helm: Path, directory: Path) -> None:
    """A release from its installation to its end, on the cluster of ``directory/kubeconfig``."""
    namespace = ("--namespace", "metrics")

    async def run(*arguments: str) -> str:
        code, out, err = await run_command(
            str(helm), *arguments, *namespace, home=directory, kubeconfig=directory / "kubeconfig"
        )
        assert code == 0, out + err
        return out

    async with await KubeClient.from_kubeconfig(directory / "kubeconfig") as client:

        async def ours() -> dict[str, Any]:
            services = await client.list(API_SERVICES)
            return {item["metadata"]["name"]: item for item in services if item["spec"].get("service")}

        async def workloads() -> set[str]:
            kinds = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS)
            return {item["metadata"]["name"] for kind in kinds for item in await client.list(kind, "metrics")}

        async def container() -> Any:
            deployment = await client.get(DEPLOYMENTS, "fly-adapter", "metrics")
            return deployment["spec"]["replicas"], deployment["spec"]["template"]["spec"]["containers"][0]["args"]

        output = await run("install", "fly", str(CHART), "--create-namespace")
        assert "The metrics APIs are served by fly-adapter in metrics" in output
        names = {"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"}
        assert set(await ours()) == names
        first = await container()
        assert first[0] == 2
        url = "http://thanos.monitoring:9090"
        changes = ("--set", "adapter.replicas=3", "--set", f"adapter.prometheusUrl={url}")
        changes += ("--set", "adapter.resourceMetrics=true")
        output = await run("upgrade", "fly", str(CHART), *everything(), *changes)
        assert "The Prometheus API is at http://fly-server.metrics.svc:9090" in output
        replicas, arguments = await container()
        assert replicas == 3 and f"--prometheus-url={url}" in arguments
        assert set(await ours()) == names | {"v1beta1.metrics.k8s.io"}
        deployed = ("adapter", "autoscaler", "operator", "kube-state-metrics", "blackbox-exporter")
        assert await workloads() == {
            f"fly-{part}" for part in (*deployed, "server", "alertmanager", "agent", "node-exporter")
        }
        await run("upgrade", "fly", str(CHART), "--reuse-values", "--set", "adapter.apiServices=false")
        assert not await ours() and (await container())[0] == 3
        await run("rollback", "fly", "1")
        assert await workloads() == {"fly-adapter"}
        assert await container() == first and set(await ours()) == names
        await run("uninstall", "fly")
        assert not await ours() and not await workloads()
