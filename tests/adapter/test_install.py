"""flyball install: every object is taken by the API server, and permits the adapter's calls and no more."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flyball.adapter.manifests import Installation, manifests
from flyball.cli.install import command
from flyball.errors import ConfigError
from flyball.kube import KubeClient
from flyball.kube.applying import apply
from flyball.localcluster import ApiServer
from flyball.model.prometheusconfig import parse_prometheus_config

from .world import DEADLINE_S


def by_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [obj for obj in objects if obj["kind"] == kind]


@pytest.mark.parametrize(
    "arguments", [[], ["--resource-metrics", "--described", "jobs.batch"], ["--standalone"], ["all"]]
)
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


def printed(*arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def test_every_part_but_those_that_read_the_host_passes_the_restricted_standard_in_its_namespace() -> None:
    objects = printed("all")
    standards = {
        item["metadata"]["name"]: item["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for item in by_kind(objects, "Namespace")
    }
    assert standards == {
        "flyball-system": "restricted",
        "flyball-node-exporter": "privileged",
        "flyball-agent": "privileged",
    }
    workloads = [item for kind in ("Deployment", "StatefulSet", "DaemonSet") for item in by_kind(objects, kind)]
    assert len(workloads) == 9
    for item in workloads:
        pod = item["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod)
        mounted = [volume["hostPath"]["path"] for volume in pod.get("volumes", ()) if "hostPath" in volume]
        assert standards[item["metadata"]["namespace"]] == ("privileged" if mounted else "restricted")
    for role in by_kind(objects, "ClusterRole") + by_kind(objects, "Role"):
        assert not any("*" in rule["verbs"] or "*" in rule["apiGroups"] for rule in role["rules"])
    policies = {item["metadata"]["name"] for item in by_kind(objects, "NetworkPolicy")}
    assert policies == {item["metadata"]["name"] for item in workloads}


def test_parts_that_are_named_together_find_each_other() -> None:
    def arguments_of(objects: list[dict[str, Any]], kind: str, name: str) -> list[str]:
        (found,) = (item for item in by_kind(objects, kind) if item["metadata"]["name"] == name)
        arguments: list[str] = found["spec"]["template"]["spec"]["containers"][0]["args"]
        return arguments

    def receiver_of(objects: list[dict[str, Any]]) -> str:
        (found,) = (item for item in by_kind(objects, "Secret") if item["metadata"]["name"] == "flyball-agent")
        parsed, errors = parse_prometheus_config(found["stringData"]["agent.yml"])
        assert not errors and not parsed.jobs
        return parsed.remote_write[0].url

    def config_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
        (found,) = (item for item in by_kind(objects, "ConfigMap") if item["metadata"]["name"] == "flyball-server")
        parsed, errors = parse_prometheus_config(found["data"]["prometheus.yml"])
        jobs = {job.job_name for job in parsed.jobs} - {"flyball", "kubernetes-pods", "kubernetes-service-endpoints"}
        urls = [url for one in parsed.alertmanagers for url in one.urls()]
        assert not errors
        return {"urls": urls, "more": jobs, "late_ms": parsed.out_of_order_ms}

    alone, together = printed("server"), printed("all", "--namespace", "metrics")
    assert config_of(alone) == {"urls": [], "more": {"kubelet"}, "late_ms": 0}
    url = "http://flyball-alertmanager-{}.flyball-alertmanager-peers.metrics.svc:9093/api/v2/alerts"
    assert config_of(together) == {"urls": [url.format(0)], "more": set(), "late_ms": 4 * 3_600_000}
    replicated = printed("server", "alertmanager", "--replicas=2", "--namespace=metrics")
    assert config_of(replicated) == {"urls": [url.format(0), url.format(1)], "more": {"kubelet"}, "late_ms": 0}
    (alertmanager,) = (
        item for item in by_kind(replicated, "StatefulSet") if item["metadata"]["name"] == "flyball-alertmanager"
    )
    assert (alertmanager["spec"]["replicas"], alertmanager["spec"]["serviceName"]) == (2, "flyball-alertmanager-peers")
    peer = "--cluster.peer=flyball-alertmanager-peers.metrics.svc:9094"
    assert peer in arguments_of(replicated, "StatefulSet", "flyball-alertmanager")
    write = "--web.enable-remote-write-receiver"
    assert write in arguments_of(together, "StatefulSet", "flyball-server")
    assert write not in arguments_of(alone, "StatefulSet", "flyball-server")
    assert receiver_of(together) == "http://flyball-server.metrics.svc:9090/api/v1/write"
    assert "--no-node.figures" in arguments_of(together, "DaemonSet", "flyball-agent")
    agent = printed("agent", "--prometheus-url=http://mimir:8080/", "--namespace=nodes")
    assert receiver_of(agent) == "http://mimir:8080/api/v1/write"
    assert "--no-node.figures" not in arguments_of(agent, "DaemonSet", "flyball-agent")
    assert {item["metadata"].get("namespace") for item in by_kind(agent, "DaemonSet")} == {"nodes"}
    assert not [item for item in arguments_of(alone, "StatefulSet", "flyball-server") if "operator" in item]
    assert "--operator-namespace=metrics" in arguments_of(together, "StatefulSet", "flyball-server")
    url = "--prometheus-url=http://flyball-server.metrics.svc:9090"
    assert url in arguments_of(together, "Deployment", "flyball-adapter")
    arguments = arguments_of(printed("adapter", "--argument=--default-rules"), "Deployment", "flyball-adapter")
    assert arguments[-1] == "--default-rules" and arguments[0] == "adapter"


def test_an_option_of_another_part_and_one_that_may_mean_several_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("rules: []\n")
    for arguments, message in (
        (("autoscaler", "--standalone"), "--standalone belongs to adapter"),
        (("server", "--replicas", "2"), "--replicas belongs to adapter or autoscaler or operator or alertmanager"),
        (("server", "alertmanager", "--config", str(file)), "--config may mean server or alertmanager"),
        (("server", "operator", "--argument=--x"), "--argument may mean server or operator"),
    ):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_metrics_server_keeps_its_group_unless_asked() -> None:
    groups = {item["spec"]["group"] for item in by_kind(manifests(Installation()), "APIService")}
    assert groups == {"custom.metrics.k8s.io", "external.metrics.k8s.io"}
