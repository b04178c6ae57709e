"""The autoscaler on a real control plane, installed by its own manifests, reading our adapter behind the API server."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.adapter.on_cluster import (
    SYSTEM,
    Call,
    Installed,
    apply_part,
    call_of,
    container_arguments,
    granted,
    installed,
    program,
)
from tests.cluster.test_adapter import HIGH, LOW, METRICS, Object, prometheus, workload

from flyball.autoscaler.manifests import Installation, manifests

pytestmark = pytest.mark.cluster
__all__ = ["prometheus"]  # the fixture
NAME = "flyball-autoscaler"
#: Kind of the target -> whose metric its Governor has; the exporter knows loads by these names.
GOVERNED = {"Deployment": "by-pods", "StatefulSet": "by-external", "ReplicaSet": "by-resource"}


def governor(kind: str, name: str) -> Object:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
        "minReplicas": 1,
        "maxReplicas": 6,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        "metrics": [METRICS[name]],
    }
    return {"apiVersion": "flyball.dev/v1alpha1", "kind": "Governor", "metadata": {"name": name}, "spec": spec}


def target(kind: str, name: str) -> Object:
    found = {**workload(name), "kind": kind}
    if kind == "StatefulSet":
        found["spec"] = {**found["spec"], "serviceName": name, "podManagementPolicy": "Parallel"}
    return found


def test_governors_of_every_kind_scale_with_the_permissions_of_its_calls(tmp_path: Path, prometheus: Path) -> None:
    async def all_at(found: Installed, replicas: int) -> None:
        async def there() -> bool:
            states = {}
            for kind, name in GOVERNED.items():
                text = await found.kubectl("get", kind.lower(), name, "-o", "json")
                states[kind] = json.loads(text)["status"].get("readyReplicas")
            assert set(states.values()) == {replicas}, states
            return True

        await found.until(there, f"{replicas} replicas everywhere", 120)

    async def main() -> None:
        async with installed(tmp_path / "plane", prometheus) as found:
            await apply_part(found.directory, "autoscaler")
            arguments, kubeconfig = await container_arguments(found.directory, NAME)
            arguments = [item.replace("/var/lib/flyball", str(found.directory)) for item in arguments]
            command = (sys.executable, "-m", "flyball", *arguments, f"--kubeconfig={kubeconfig}", "--port=0")
            found.exporter.load = dict.fromkeys(GOVERNED.values(), LOW)
            items = [make(kind, name) for kind, name in GOVERNED.items() for make in (target, governor)]
            manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            await found.kubectl("apply", "-f", "-", stdin=manifest)
            period = "--horizontal-pod-autoscaler-sync-period=1s"
            async with program(found.directory / "autoscaler.log", *command, period):
                for load, replicas in ((LOW, 1), (HIGH, 4), (LOW, 1)):
                    found.exporter.load = dict.fromkeys(GOVERNED.values(), load)
                    await all_at(found, replicas)
            used = {_generic(call_of(event)) for event in found.audited(f"system:serviceaccount:{SYSTEM}:{NAME}")}
            assert {call for call in used if call[1]} == granted(manifests(Installation()), NAME)

    asyncio.run(main())


def _generic(call: Call) -> Call:
    """A metric's name is a resource; roles name them all."""
    group, resource, verb = call
    return (group, "*", verb) if group in ("custom.metrics.k8s.io", "external.metrics.k8s.io") and resource else call
