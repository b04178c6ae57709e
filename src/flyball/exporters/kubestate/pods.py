"""Families of Pods."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flyball.exporters.kubestate.families import (
    Family,
    Kind,
    Object,
    Pairs,
    Series,
    at,
    info,
    one_of,
    own_labels,
    owners,
    resources,
    statuses,
    text,
    time,
    unix_s,
)
from flyball.kube.kinds import PODS

REASONS = (
    "Evicted",
    "NodeAffinity",
    "NodeLost",
    "PreemptionByScheduler",
    "SchedulingGated",
    "Shutdown",
    "TerminationByKubelet",
    "UnexpectedAdmissionError",
)
DISRUPTIONS = (
    "PreemptionByScheduler",
    "DeletionByTaintManager",
    "EvictionByEvictionAPI",
    "DeletionByPodGC",
    "TerminationByKubelet",
)


def _created_by(pod: Object) -> Series:
    owners_of = pod["metadata"].get("ownerReferences") or ()
    controller: Mapping[str, str] = next((one for one in owners_of if one.get("controller")), {})
    labels = (
        ("host_ip", text(at(pod, "status.hostIP"))),
        ("pod_ip", text(at(pod, "status.podIP"))),
        ("node", text(at(pod, "spec.nodeName"))),
        ("created_by_kind", controller.get("kind", "")),
        ("created_by_name", controller.get("name", "")),
        ("priority_class", text(at(pod, "spec.priorityClassName"))),
        ("host_network", text(bool(at(pod, "spec.hostNetwork")))),
    )
    return [(labels, 1.0)]


def _conditions(pod: Object, kind: str) -> list[Mapping[str, Any]]:
    return [one for one in at(pod, "status.conditions") or () if one["type"] == kind]


def _condition(kind: str) -> Callable[[Object], Series]:
    return lambda pod: [one for found in _conditions(pod, kind) for one in statuses(found["status"], "condition")]


def _since(kind: str, status: str) -> Callable[[Object], Series]:
    """When the condition became this."""

    def series(pod: Object) -> Series:
        found = [one for one in _conditions(pod, kind) if one["status"] == status]
        return [((), unix_s(one["lastTransitionTime"])) for one in found if one.get("lastTransitionTime")]

    return series


def _reasons(pod: Object) -> Iterator[tuple[Pairs, float]]:
    own = at(pod, "status.reason") or ""
    told = {own, *(one.get("reason") for one in at(pod, "status.conditions") or ())}
    told |= {at(one, "state.terminated.reason") for one in at(pod, "status.containerStatuses") or ()}
    for reason in REASONS:
        if reason in told:
            yield (("reason", reason),), 1.0
    if own and own not in REASONS:
        yield (("reason", "Other"),), 1.0


def _disruptions(pod: Object) -> Series:
    found = [one.get("reason", "") for one in _conditions(pod, "DisruptionTarget")]
    return [((("reason", reason if reason in DISRUPTIONS else "Other"),), 1.0) for reason in found]


def _completion(pod: Object) -> Series:
    ends = [at(one, "state.terminated.finishedAt") for one in at(pod, "status.containerStatuses") or ()]
    last = max((unix_s(one) for one in ends if one), default=0.0)
    return [((), last)] if last > 0 else ()


def _unschedulable(pod: Object) -> Series:
    return [((), 1.0) for one in _conditions(pod, "PodScheduled") if one["status"] == "False"]


def _addresses(pod: Object) -> Iterator[tuple[Pairs, float]]:
    for one in at(pod, "status.podIPs") or ():
        try:
            address: Any = ipaddress.ip_address(one["ip"])
        except ValueError:
            continue
        family = "4" if address.version == 4 or address.ipv4_mapped else "6"
        yield (("ip", one["ip"]), ("ip_family", family)), 1.0


def _tolerations(pod: Object) -> Series:
    fields = ("key", "operator", "value", "effect")
    found: dict[Pairs, float] = {}  # the same one twice is one series
    for one in at(pod, "spec.tolerations") or ():
        labels = tuple((field, str(one.get(field, ""))) for field in fields)
        found[(*labels, ("toleration_seconds", text(one.get("tolerationSeconds"))))] = 1.0
    return list(found.items())


def _claims(value: Callable[[Mapping[str, Any]], float]) -> Callable[[Object], Series]:
    """A series a volume that is a claim, or an ephemeral one with a claim of its own."""

    def series(pod: Object) -> Iterator[tuple[Pairs, float]]:
        for volume in at(pod, "spec.volumes") or ():
            claim = volume.get("persistentVolumeClaim")
            if claim:
                name, ephemeral = claim.get("claimName", ""), "false"
            elif volume.get("ephemeral") is not None:
                name, ephemeral = f"{pod['metadata']['name']}-{volume['name']}", "true"
            else:
                continue
            yield (
                (("volume", volume["name"]), ("persistentvolumeclaim", name), ("ephemeral", ephemeral)),
                value(claim or {}),
            )

    return series


def _resource_claims(pod: Object) -> Iterator[tuple[Pairs, float]]:
    resolved = {one["name"]: one.get("resourceClaimName") for one in at(pod, "status.resourceClaimStatuses") or ()}
    for one in at(pod, "spec.resourceClaims") or ():
        claim, template = one.get("resourceClaimName"), one.get("resourceClaimTemplateName")
        if claim is not None or template is not None:
            name = claim if claim is not None else resolved.get(one["name"])
            yield (
                (
                    ("claim_name", one["name"]),
                    ("resourceclaim_name", text(name)),
                    ("resourceclaim_template_name", text(template)),
                ),
                1.0,
            )


def _set(label: str, path: str) -> Callable[[Object], Series]:
    """1 with the text at a path, nothing while it is empty."""
    return lambda obj: [(((label, at(obj, path)),), 1.0)] if at(obj, path) else ()


def _overhead(name: str) -> Callable[[Object], Series]:
    return lambda pod: [((), value) for labels, value in resources(at(pod, "spec.overhead")) if labels[0][1] == name]


def _statuses(path: str, each: Callable[[Mapping[str, Any]], Series]) -> Callable[[Object], Series]:
    """Series of container statuses, each with its container's name."""

    def series(pod: Object) -> Iterator[tuple[Pairs, float]]:
        for one in at(pod, path) or ():
            for labels, value in each(one):
                yield (("container", one["name"]), *labels), value

    return series


def _container_info(init: bool) -> Callable[[Object], Series]:
    specs, found = (
        ("spec.initContainers", "status.initContainerStatuses")
        if init
        else ("spec.containers", "status.containerStatuses")
    )

    def series(pod: Object) -> Iterator[tuple[Pairs, float]]:
        named = {one["name"]: one for one in at(pod, found) or ()}
        for container in at(pod, specs) or ():
            status = named.get(container["name"])
            if status is not None:
                labels = (
                    ("container", container["name"]),
                    ("image_spec", container.get("image", "")),
                    ("image", status.get("image", "")),
                    ("image_id", status.get("imageID", "")),
                    ("container_id", status.get("containerID", "")),
                )
                yield (*labels, *((("restart_policy", container.get("restartPolicy", "")),) if init else ())), 1.0

    return series


def _amounts(path: str, field: str) -> Callable[[Object], Series]:
    def series(pod: Object) -> Iterator[tuple[Pairs, float]]:
        node = text(at(pod, "spec.nodeName"))
        for container in at(pod, path) or ():
            yield from resources(
                at(container, f"resources.{field}"), (("container", container["name"]), ("node", node))
            )

    return series


def _when(*paths: str) -> Callable[[Mapping[str, Any]], Series]:
    """The first time that is there."""
    return lambda one: [((), unix_s(found)) for found in [at(one, path) for path in paths] if found][:1]


def _reason(path: str) -> Callable[[Mapping[str, Any]], Series]:
    return lambda one: [((("reason", at(one, path).get("reason", "")),), 1.0)] if at(one, path) is not None else ()


def _exit_code(one: Mapping[str, Any]) -> Series:
    ended = at(one, "lastState.terminated")
    return [((), float(ended.get("exitCode", 0)))] if ended is not None else ()


def _is(state: str) -> Callable[[Mapping[str, Any]], Series]:
    return lambda one: [((), float(at(one, f"state.{state}") is not None))]


def _of_containers(init: bool) -> tuple[Family, ...]:
    prefix = "kube_pod_init_container" if init else "kube_pod_container"
    what = "init container" if init else "container"
    path = "status.initContainerStatuses" if init else "status.containerStatuses"
    specs = "spec.initContainers" if init else "spec.containers"

    def each(name: str, about: str, series: Callable[[Mapping[str, Any]], Series]) -> Family:
        return Family(f"{prefix}_{name}", about.format(what), _statuses(path, series))

    return (
        Family(f"{prefix}_info", f"The {what}s of a pod, with their images.", _container_info(init)),
        Family(f"{prefix}_resource_requests", f"What a {what} requests.", _amounts(specs, "requests")),
        Family(f"{prefix}_resource_limits", f"The limits of a {what}.", _amounts(specs, "limits")),
        each(
            "state_started",
            "When the {} started.",
            _when("state.running.startedAt", "state.terminated.startedAt"),
        ),
        each("status_waiting", "Whether the {} waits.", _is("waiting")),
        each("status_waiting_reason", "Why the {} waits.", _reason("state.waiting")),
        each("status_running", "Whether the {} runs.", _is("running")),
        each("status_terminated", "Whether the {} has ended.", _is("terminated")),
        each("status_terminated_reason", "Why the {} has ended.", _reason("state.terminated")),
        each("status_last_terminated_reason", "Why the {} ended last.", _reason("lastState.terminated")),
        each("status_last_terminated_exitcode", "With which code the {} ended last.", _exit_code),
        each("status_last_terminated_timestamp", "When the {} ended last.", _when("lastState.terminated.finishedAt")),
        each("status_ready", "Whether the {} is ready.", lambda one: [((), float(one.get("ready", False)))]),
        Family(
            f"{prefix}_status_restarts_total",
            f"Restarts of the {what}.",
            _statuses(path, lambda one: [((), float(one.get("restartCount", 0)))]),
            "counter",
        ),
    )


KIND = Kind(
    PODS,
    own_labels(("namespace", "namespace"), ("pod", "name"), ("uid", "uid")),
    (
        Family("kube_pod_info", "Where a pod runs and what made it.", _created_by),
        Family("kube_pod_ips", "Addresses of a pod.", _addresses),
        Family("kube_pod_owner", "Owners of a pod.", owners()),
        Family("kube_pod_created", "When the pod was created, in unix seconds.", time("metadata.creationTimestamp")),
        Family("kube_pod_deletion_timestamp", "When the pod is to be gone.", time("metadata.deletionTimestamp")),
        Family("kube_pod_start_time", "When the node took the pod.", time("status.startTime")),
        Family("kube_pod_completion_time", "When the last container ended.", _completion),
        Family("kube_pod_restart_policy", "The pod's restart policy.", info(("type", "spec.restartPolicy"))),
        Family("kube_pod_scheduler", "The pod's scheduler.", info(("name", "spec.schedulerName"))),
        Family("kube_pod_service_account", "The pod's account.", info(("service_account", "spec.serviceAccountName"))),
        Family(
            "kube_pod_runtimeclass_name_info", "The pod's class.", _set("runtimeclass_name", "spec.runtimeClassName")
        ),
        Family("kube_pod_resourceclaim_info", "Resource claims of the pod.", _resource_claims),
        Family("kube_pod_overhead_cpu_cores", "Cores for running the pod itself.", _overhead("cpu")),
        Family("kube_pod_overhead_memory_bytes", "Memory for running the pod itself.", _overhead("memory")),
        Family("kube_pod_tolerations", "Tolerations of the pod.", _tolerations),
        Family("kube_pod_spec_volumes_persistentvolumeclaims_info", "Claims the pod mounts.", _claims(lambda _: 1.0)),
        Family(
            "kube_pod_spec_volumes_persistentvolumeclaims_readonly",
            "Whether a claim is mounted read-only.",
            _claims(lambda claim: float(claim.get("readOnly", False))),
        ),
        Family(
            "kube_pod_status_phase",
            "The pod's phase.",
            one_of("phase", "status.phase", ("Pending", "Succeeded", "Failed", "Unknown", "Running")),
        ),
        Family(
            "kube_pod_status_qos_class",
            "The pod's quality of service.",
            one_of("qos_class", "status.qosClass", ("BestEffort", "Burstable", "Guaranteed")),
        ),
        Family("kube_pod_status_ready", "Whether the pod is ready.", _condition("Ready")),
        Family("kube_pod_status_scheduled", "Whether the pod has a node.", _condition("PodScheduled")),
        Family("kube_pod_status_reason", "Why the pod is as it is.", _reasons),
        Family("kube_pod_status_disruption_reason", "Why the pod is being disrupted.", _disruptions),
        Family("kube_pod_status_unschedulable", "The pod finds no node.", _unschedulable),
        Family("kube_pod_status_ready_time", "Since when the pod is ready.", _since("Ready", "True")),
        Family("kube_pod_status_initialized_time", "When init containers were done.", _since("Initialized", "True")),
        Family(
            "kube_pod_status_container_ready_time", "When containers were ready.", _since("ContainersReady", "True")
        ),
        Family("kube_pod_status_scheduled_time", "When the pod got its node.", _since("PodScheduled", "True")),
        Family("kube_pod_status_unscheduled_time", "When the pod found no node.", _since("PodScheduled", "False")),
        *_of_containers(init=False),
        *_of_containers(init=True),
    ),
)
