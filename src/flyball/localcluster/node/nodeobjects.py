"""The Node objects by which this machine is known to the cluster. Pure."""

import platform
from collections.abc import Mapping
from typing import Any

import flyball
from flyball.model.quantities import from_milli, parse_quantity

Object = dict[str, Any]

FIRST = "flyball"
FAKE = "kwok.x-k8s.io/node"
"""The annotation of a node whose pods only have a status; its value is ``fake``, as kwok has it."""

_FINE = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


def names(count: int) -> list[str]:
    """``flyball``, ``flyball-2``, ``flyball-3`` ..."""
    return [FIRST, *(f"{FIRST}-{number}" for number in range(2, count + 1))]


def share(capacity: Mapping[str, str], count: int) -> dict[str, str]:
    """An equal part of the machine's cpu and memory for each of several nodes; pods are not divided."""
    if count == 1:
        return dict(capacity)
    cpu = from_milli(parse_quantity(capacity["cpu"]).milli_value() // count)
    memory_kib = parse_quantity(capacity["memory"]).value() // 1024 // count
    return {**capacity, "cpu": str(cpu), "memory": f"{memory_kib}Ki"}


def is_fake(node: Object) -> bool:
    """Whether the node's pods are simulated."""
    return bool((node["metadata"].get("annotations") or {}).get(FAKE) == "fake")


def conditions(now: str, since: str, message: str) -> list[Object]:
    """A healthy node's. ``now`` and ``since`` are RFC 3339."""
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": text,
            "lastHeartbeatTime": now,
            "lastTransitionTime": since,
        }
        for kind, status, reason, text in (*_FINE, ("Ready", "True", "KubeletReady", message))
    ]


def node_object(name: str, port: int, capacity: Mapping[str, str], runtime: str, now: str, since: str) -> Object:
    """A Node whose pods are processes of this machine, with its status."""
    system = platform.uname()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(system.machine, system.machine)
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": system.system.lower(),
        "kubernetes.io/arch": machine,
        "flyball.dev/runtime": runtime,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": f"flyball://{name}"},
        "status": {
            "capacity": dict(capacity),
            "allocatable": dict(capacity),
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "architecture": machine,
                "operatingSystem": system.system.lower(),
                "osImage": f"{system.system} (processes of this machine)",
                "kernelVersion": system.release,
                "kubeletVersion": f"v1.33.0-flyball.{flyball.__version__}",
                "kubeProxyVersion": "",
                "containerRuntimeVersion": f"{runtime}://{flyball.__version__}",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
            "conditions": conditions(now, since, "pods run as processes of this machine"),
        },
    }
