"""Server, operator, alertmanager and exporters on a real control plane: their pods are let in by the pod security
standard of their namespaces, and the programs make the calls that their roles grant, and no others."""

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.adapter.on_cluster import (
    DEADLINE_S,
    SYSTEM,
    Call,
    apply_part,
    audited_plane,
    call_of,
    container_arguments,
    fake_nodes,
    granted,
    program,
    run,
)
from tests.cluster.control_plane import free_port, write_kubeconfig
from tools.kubectl import find

from flyball.cli.install import command as install
from flyball.kube import KubeClient
from flyball.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, EVENTS, PODS, STATEFUL_SETS

pytestmark = pytest.mark.cluster
PARTS = ("operator", "server", "alertmanager", "agent", "node-exporter", "kube-state-metrics", "blackbox-exporter")
#: What is asked of kubelets, not of the API server.
ELSEWHERE = {("", "nodes/metrics", "get")}


def monitor(name: str, **endpoint: Any) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": "web"}}, "endpoints": [{"port": "http", **endpoint}]}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


SELECTS = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "Prometheus",
    "metadata": {"name": "k8s", "namespace": "default"},
    "spec": {
        f"{kind}{what}": {}
        for kind in ("serviceMonitor", "podMonitor", "probe", "scrapeConfig", "rule")
        for what in ("Selector", "NamespaceSelector")
    },
}
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "login", "namespace": "default"},
    "stringData": {"user": "u", "password": "p"},
}
LOGIN = {"username": {"name": "login", "key": "user"}, "password": {"name": "login", "key": "password"}}
BUNDLE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "default"}}
AUTHORITY = {"ca": {"configMap": {"name": "ca", "key": "ca.crt"}}}


def others() -> list[dict[str, Any]]:
    """An object of each other kind that the operator tells what became of it."""
    head = {"apiVersion": "monitoring.coreos.com/v1", "metadata": {"name": "one", "namespace": "default"}}
    rules = {"groups": [{"name": "g", "rules": [{"record": "taken", "expr": "1"}]}]}
    return [
        {**head, "kind": "PodMonitor", "spec": {"selector": {}, "podMetricsEndpoints": [{"port": "http"}]}},
        {
            **head,
            "kind": "Probe",
            "spec": {"prober": {"url": "b:1"}, "targets": {"staticConfig": {"static": ["http://x"]}}},
        },
        {
            **head,
            "apiVersion": "monitoring.coreos.com/v1alpha1",
            "kind": "ScrapeConfig",
            "spec": {"staticConfigs": [{"targets": ["127.0.0.1:1"]}]},
        },
        {**head, "kind": "PrometheusRule", "spec": rules},
    ]


def test_pods_are_let_in_and_calls_are_those_that_the_roles_grant(tmp_path: Path, shared: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    setup = next(iter(sorted(shared.glob("kube-prometheus/**/setup"))))

    async def kubectl(*arguments: str, stdin: str | None = None) -> str:
        code, out, err = await run(find(), *arguments, home=tmp_path, kubeconfig=kubeconfig, stdin=stdin)
        assert code == 0, err
        return out

    async def applied(*objects: dict[str, Any]) -> None:
        await kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def used(name: str) -> set[Call]:
        events = map(json.loads, (tmp_path / "audit.log").read_text().splitlines())
        user = f"system:serviceaccount:{SYSTEM}:flyball-{name}"
        own = [event for event in events if event["user"].get("username") == user]
        refused = {
            (event["verb"], event["requestURI"])
            for event in own
            if event["annotations"].get("authorization.k8s.io/decision") != "allow"
        }
        assert not refused
        return {call for call in map(call_of, own) if call[1]}

    async def main() -> None:
        await kubectl("apply", "--server-side", "-f", str(setup))
        await kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        await apply_part(tmp_path, *PARTS)
        objects = list(yaml.safe_load_all(CliRunner().invoke(install, PARTS).stdout))
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(await KubeClient.from_kubeconfig(kubeconfig))
            await stack.enter_async_context(fake_nodes(client))
            await until(lambda: everywhere(client), "the pods of every part")

            async def started(name: str, kind: Any, *replaced: tuple[str, str], more: tuple[str, ...] = ()) -> None:
                arguments, own = await container_arguments(tmp_path, f"flyball-{name}", kind)
                for old, new in replaced:
                    arguments = [item.replace(old, new) for item in arguments]
                command = ("/usr/bin/env", f"KUBECONFIG={own}", sys.executable, "-m", "flyball", *arguments, *more)
                await stack.enter_async_context(program(tmp_path / f"{name}.log", *command))

            config = await client.get(CONFIG_MAPS, "flyball-server", SYSTEM)
            (tmp_path / "prometheus.yml").write_text(config["data"]["prometheus.yml"])
            port = free_port()
            files = (("/etc/flyball/", f"{tmp_path}/"), ("/var/lib/flyball", f"{tmp_path}/data"))
            await started("server", STATEFUL_SETS, *files, ("0.0.0.0:9090", f"127.0.0.1:{port}"))
            await started("operator", DEPLOYMENTS, ("0.0.0.0:8080", "127.0.0.1:0"))
            await started(
                "kube-state-metrics", DEPLOYMENTS, more=("--host=127.0.0.1", "--port=0", "--telemetry-port=0")
            )

            def asked(path: str) -> Any:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
                    return json.load(answer)["data"]

            async def pools(wanted: set[str]) -> bool:
                found = set((await asyncio.to_thread(asked, "scrape_pools"))["scrapePools"])
                assert wanted <= found, found
                return True

            good = monitor("good", basicAuth=LOGIN, tlsConfig=AUTHORITY)
            await applied(SELECTS, SECRET, {**BUNDLE, "data": {"ca.crt": ""}}, good, *others())
            await until(lambda: pools({"flyball", "serviceMonitor/default/good/0"}), "the jobs")

            async def recorded() -> Any:
                return (await asyncio.to_thread(asked, "query?query=taken"))["result"]

            await until(recorded, "the rule")
            bad, name = monitor("bad", interval="1s", scrapeTimeout="5s"), "serviceMonitor/default/bad/0"
            await applied(bad)  # refused, with an Event, which is counted the second time
            await until(lambda: told(client, "bad"), "an Event")
            await applied(monitor("bad"))
            await until(lambda: pools({name}), "the job that is right now")
            await applied(bad)
            large = [{"record": f"r{number}", "expr": "1", "labels": {"a": "x" * 200}} for number in range(1500)]
            rules = [{**others()[3], "metadata": {"name": f"l{n}", "namespace": "default"}} for n in range(2)]
            for rule in rules:
                rule["spec"] = {"groups": [{"name": "g", "rules": large}]}
                await kubectl("create", "-f", "-", stdin=json.dumps(rule))

            async def packed(count: int) -> bool:
                selector = "flyball.dev/rulefiles=true"
                return len(await client.list(CONFIG_MAPS, SYSTEM, label_selector=selector)) == count

            await until(lambda: packed(2), "two ConfigMaps of rules")
            await kubectl("delete", "prometheusrule", "l0", "l1")
            await until(lambda: packed(1), "one ConfigMap of rules")
            for name in ("operator", "server", "kube-state-metrics"):

                async def all_used(name: str = name) -> bool:
                    expected = granted(objects, f"flyball-{name}") - ELSEWHERE
                    assert used(name) == expected, (used(name) - expected, expected - used(name))
                    return True

                await until(all_used, f"the calls of {name}")

    with audited_plane(tmp_path) as plane:
        write_kubeconfig(kubeconfig, plane.base, plane.token, plane.ca)
        asyncio.run(main())


async def told(client: KubeClient, name: str) -> bool:
    """Whether there is an Event about an object."""
    return any(event["involvedObject"]["name"] == name for event in await client.list(EVENTS, "default"))


async def everywhere(client: KubeClient) -> bool:
    """Whether every part has its pods, on two nodes where it is meant for all."""
    found: dict[str, int] = {}
    for pod in await client.list(PODS):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        found[component] = found.get(component, 0) + 1
    assert found == {**dict.fromkeys(PARTS, 1), "operator": 2, "node-exporter": 2, "agent": 2}, found
    return True


async def until(check: Callable[[], Awaitable[Any]], what: str) -> None:
    """Waits for a true answer."""
    last: Any = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    if last := await check():
                        return
                except Exception as exc:  # whatever is not ready yet fails in its own way
                    last = exc
                await asyncio.sleep(0.2)
    raise AssertionError(f"{what}: not within {DEADLINE_S:.0f} s; the last answer was {last!r}")
