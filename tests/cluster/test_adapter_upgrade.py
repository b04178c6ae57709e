"""docs/prometheus-adapter.md, run as it stands: from a real prometheus-adapter 0.12 to ours, back, and over again."""

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.adapter.on_cluster import (
    CONFIG,
    ROOT,
    SYSTEM,
    Exporter,
    audited_plane,
    container_command,
    end,
    fake_nodes,
    metric_server,
    program,
    run,
)
from tests.adapter.record import binary
from tests.cluster.control_plane import write_kubeconfig
from tests.cluster.test_adapter import METRICS, hpa, prometheus, workload
from tools.kubectl import find

from flyball import clock
from flyball.kube import KubeClient

pytestmark = pytest.mark.cluster
__all__ = ["prometheus"]  # the fixture
APP = "by-pods"
VALUE = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests"
DEADLINE_S = 60.0


def steps() -> dict[str, str]:
    """Heading -> its commands."""
    found: dict[str, str] = {}
    text = (ROOT / "docs" / "prometheus-adapter.md").read_text()
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        found[section.splitlines()[0]] = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    return found


def old_manifests(config: str) -> list[dict[str, Any]]:
    """prometheus-adapter as it is usually installed, verification skipped."""
    labels = {"app.kubernetes.io/name": "prometheus-adapter"}
    place = {"namespace": "monitoring", "labels": labels}
    container = {"name": "adapter", "image": "prometheus-adapter"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    reader = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "custom-metrics-server-resources"}
    hpa_account = {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
    rule = {"apiGroups": ["custom.metrics.k8s.io", "external.metrics.k8s.io"], "resources": ["*"], "verbs": ["*"]}
    rbac = "rbac.authorization.k8s.io/v1"
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "adapter-config", **place},
            "data": {"config.yaml": config},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "prometheus-adapter", **place},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "prometheus-adapter", **place},
            "spec": {"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
        },
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": reader["name"]}, "rules": [rule]},
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "hpa-controller-custom-metrics"},
            "roleRef": reader,
            "subjects": [hpa_account],
        },
    ]
    for group in ("custom.metrics.k8s.io", "external.metrics.k8s.io"):
        spec = {
            "group": group,
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": "monitoring", "name": "prometheus-adapter"},
        }
        api = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
        objects.append({**api, "metadata": {"name": f"v1beta1.{group}"}, "spec": spec})
    return objects


def test_the_upgrade_guide(tmp_path: Path, prometheus: Path) -> None:
    home, kubeconfig = tmp_path, tmp_path / "kubeconfig"
    guide = steps()

    async def kubectl(*arguments: str, stdin: str | None = None) -> str:
        code, out, err = await run(find(), *arguments, stdin=stdin, home=home, kubeconfig=kubeconfig)
        assert code == 0, err
        return out

    async def follow(heading: str, url: str) -> str:
        script = f"set -eu\ncd {home}\nexport PROMETHEUS_URL={url}\n{guide[heading]}"
        code, out, err = await run("sh", "-c", script, home=home, kubeconfig=kubeconfig)
        assert code == 0, f"{heading}\n{out}\n{err}"
        return out + err

    async def served_by(namespace: str) -> None:
        """The one pod's value comes, from the adapter of a namespace, within the deadline."""
        until_s, last = clock.monotonic_s() + DEADLINE_S, ""
        while clock.monotonic_s() < until_s:
            api_service = json.loads(await kubectl("get", "apiservice", "v1beta1.custom.metrics.k8s.io", "-o", "json"))
            code, out, last = await run(find(), "get", "--raw", VALUE, home=home, kubeconfig=kubeconfig)
            if code == 0 and api_service["spec"]["service"]["namespace"] == namespace:
                if [item["value"] for item in json.loads(out)["items"]] == ["8"]:
                    return
                last = out
            await asyncio.sleep(0.5)
        raise AssertionError(f"not served by {namespace}: {last}")

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(await KubeClient.from_kubeconfig(kubeconfig))
            exporter = Exporter(await stack.enter_async_context(fake_nodes(client)), {APP: 8.0})
            port = await stack.enter_async_context(exporter.serving())
            _, url = await stack.enter_async_context(metric_server(home, prometheus, port))
            config = CONFIG.split("resourceRules:")[0]  # metrics.k8s.io stays metrics-server's in this guide
            (home / "prometheus-adapter.yaml").write_text(yaml.safe_dump_all(map(_copied, old_manifests(config))))
            await kubectl("apply", "-f", str(home / "prometheus-adapter.yaml"))
            apps = json.dumps({"apiVersion": "v1", "kind": "List", "items": [workload(APP), hpa(APP, METRICS[APP])]})
            await kubectl("apply", "-f", "-", stdin=apps)
            service = json.loads(
                await kubectl("-n", "monitoring", "get", "service", "prometheus-adapter", "-o", "json")
            )
            (home / "old-config.yaml").write_text(config)
            given = ("--lister-kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig")
            command = [
                *(str(binary()), "--config", str(home / "old-config.yaml"), "--prometheus-url", url),
                *("--bind-address", service["spec"]["clusterIP"], "--secure-port", "443"),
                *("--cert-dir", str(home / "old"), "--metrics-relist-interval", "2s", "--metrics-max-age", "1m"),
                *(word for flag in given for word in (flag, str(kubeconfig))),
            ]
            old = await stack.enter_async_context(program(home / "old.log", *command))
            await served_by("monitoring")
            assert "2 rules" in (said := await follow("1. Look before you move", url)) or "3 rules" in said, said
            await follow("2. Install beside the old one", url)
            await served_by("monitoring")
            await stack.enter_async_context(program(home / "adapter.log", *await container_command(home)))
            await follow("3. Take over", url)
            await served_by(SYSTEM)
            assert "first broken link" not in await follow("4. See that it works", url)
            await follow("5. Undo", url)
            await served_by("monitoring")
            await follow("3. Take over", url)
            await end(old)
            await follow("6. Clean up", url)
            await served_by(SYSTEM)

    with audited_plane(tmp_path / "plane") as plane:
        write_kubeconfig(kubeconfig, plane.base, plane.token, plane.ca)
        asyncio.run(main())


def _copied(obj: dict[str, Any]) -> Any:
    """Without shared parts, which YAML would write as aliases."""
    return json.loads(json.dumps(obj))
