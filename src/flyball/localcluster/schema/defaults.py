"""Defaults that upstream's API server writes into objects, by hand, for the kinds that act.

Sources: the ``SetDefaults_*`` functions of Kubernetes 1.37's API packages; for HPAs also the reference notes on
autoscaling. Everything is in place and idempotent.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from typing import Any

from flyball.localcluster.schema import goform
from flyball.localcluster.schema.kinds import Kind

Object = dict[str, Any]


def default(kind: Kind, obj: Object, old: Object | None = None) -> None:
    """Bring an object into the form that is stored: as Go would write it, defaults filled in.

    ``old`` is the stored object that it replaces.
    """
    goform.normalise(kind, obj, old)
    handler = _HANDLERS.get((kind.group, kind.kind))
    if handler is _pod and old is not None and obj.get("spec") is old.get("spec"):
        handler = _pod_status  # by far the most frequent write, and the spec is the stored one itself
    if handler is not None:
        handler(obj, kind.version)


def _set(obj: Object, **values: Any) -> None:
    """Fill in absent fields. A falsy enum text ("") counts as absent, as in Go."""
    for name, value in values.items():
        if name not in obj or obj[name] is None or (obj[name] == "" and isinstance(value, str)):
            obj[name] = value


def _child(obj: Object, name: str) -> Object:
    """The object under ``name``, made when absent."""
    child = obj.get(name)
    if not isinstance(child, dict):
        child = obj[name] = {}
    return child


def _dicts(obj: Any, name: str) -> list[Object]:
    """The objects in the list ``name``; empty when absent."""
    items = obj.get(name) if isinstance(obj, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


# --- pods -----------------------------------------------------------------------------------------------------------

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def _pull_policy(image: str) -> str:
    """Always for no tag or ``latest``, as upstream; a digest counts as pinned."""
    if "@" in image:
        return "IfNotPresent"
    last = image.rsplit("/", 1)[-1]
    tag = last.split(":", 1)[1] if ":" in last else "latest"
    return "Always" if tag == "latest" else "IfNotPresent"


def _http_get(action: Any) -> None:
    if isinstance(action, dict):
        _set(action, path="/", scheme="HTTP")


def _container(container: Object) -> None:
    _set(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    image = container.get("image")
    _set(container, imagePullPolicy=_pull_policy(image if isinstance(image, str) else ""))
    for port in _dicts(container, "ports"):
        _set(port, protocol="TCP")
    for name in _PROBES:
        probe = container.get(name)
        if isinstance(probe, dict):
            for field, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                if not probe.get(field):
                    probe[field] = value
            _http_get(probe.get("httpGet"))
            if isinstance(probe.get("grpc"), dict):
                probe["grpc"].setdefault("service", "")
    lifecycle = container.get("lifecycle")
    if isinstance(lifecycle, dict):
        for hook in ("postStart", "preStop"):
            if isinstance(lifecycle.get(hook), dict):
                _http_get(lifecycle[hook].get("httpGet"))
    for env in _dicts(container, "env"):
        source = env.get("valueFrom")
        if isinstance(source, dict):
            if isinstance(source.get("fieldRef"), dict):
                _set(source["fieldRef"], apiVersion="v1")
            if isinstance(source.get("resourceFieldRef"), dict):
                _set(source["resourceFieldRef"], divisor="0")


_VOLUME_MODES = ("configMap", "secret", "downwardAPI", "projected")
_VOLUME_SOURCES = (
    "hostPath",
    "emptyDir",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "projected",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "csi",
    "ephemeral",
    "image",
)


def _field_refs(items: list[Object]) -> None:
    for item in items:
        if isinstance(item.get("fieldRef"), dict):
            _set(item["fieldRef"], apiVersion="v1")
        if isinstance(item.get("resourceFieldRef"), dict):
            _set(item["resourceFieldRef"], divisor="0")


def _volume(volume: Object) -> None:
    if not any(volume.get(source) is not None for source in _VOLUME_SOURCES):
        volume["emptyDir"] = {}
    for name in _VOLUME_MODES:
        source = volume.get(name)
        if isinstance(source, dict):
            _set(source, defaultMode=0o644)
            _field_refs(_dicts(source, "items"))
            for part in _dicts(source, "sources"):
                if isinstance(part.get("serviceAccountToken"), dict):
                    _set(part["serviceAccountToken"], expirationSeconds=3600)
                if isinstance(part.get("downwardAPI"), dict):
                    _field_refs(_dicts(part["downwardAPI"], "items"))
    if isinstance(volume.get("hostPath"), dict):
        _set(volume["hostPath"], type="")
    ephemeral = volume.get("ephemeral")
    if isinstance(ephemeral, dict) and isinstance(ephemeral.get("volumeClaimTemplate"), dict):
        _claim_spec(_child(ephemeral["volumeClaimTemplate"], "spec"))


def _pod_spec(spec: Object) -> None:
    _set(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        terminationGracePeriodSeconds=30,
        schedulerName="default-scheduler",
        securityContext={},
    )
    account, deprecated = spec.get("serviceAccountName"), spec.get("serviceAccount")
    if account or deprecated:  # the deprecated alias is always written beside the field
        spec["serviceAccountName"] = spec["serviceAccount"] = account or deprecated
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in _dicts(spec, group):
            _container(container)
    for volume in _dicts(spec, "volumes"):
        _volume(volume)
    for spread in _dicts(spec, "topologySpreadConstraints"):
        _set(spread, whenUnsatisfiable="DoNotSchedule")


def _template(holder: Object) -> None:
    """A pod template; upstream writes an explicit null creationTimestamp there, which readers must not depend on."""
    template = holder.get("template")
    if isinstance(template, dict):
        _set(template, metadata={}, spec={})
        if isinstance(template["spec"], dict):
            _pod_spec(template["spec"])


def _pod(obj: Object, version: str) -> None:
    spec = _child(obj, "spec")
    _pod_spec(spec)
    _set(spec, enableServiceLinks=True)
    spec["terminationGracePeriodSeconds"] = abs(max(-1, spec["terminationGracePeriodSeconds"]))
    for group in ("initContainers", "containers"):  # these two only in pods, never in templates
        for container in _dicts(spec, group):
            resources = container["resources"]
            limits = resources.get("limits") if isinstance(resources, dict) else None
            if isinstance(limits, dict) and limits:
                requests = _child(resources, "requests")
                for name, amount in limits.items():
                    requests.setdefault(name, amount)
            if spec.get("hostNetwork") is True:
                for port in _dicts(container, "ports"):
                    if not port.get("hostPort") and "containerPort" in port:
                        port["hostPort"] = port["containerPort"]
    _pod_status(obj, version)


def _pod_status(obj: Object, _version: str) -> None:
    status = _child(obj, "status")
    _set(status, phase="Pending")
    for condition in _dicts(status, "conditions"):
        condition.setdefault("lastProbeTime", None)
    address, addresses = status.get("podIP"), _dicts(status, "podIPs")
    if address and (not addresses or addresses[0].get("ip") != address):
        status["podIPs"] = [{"ip": address}]


def _pod_template(obj: Object, _version: str) -> None:
    _template(obj)


# --- workloads ------------------------------------------------------------------------------------------------------


def _labels_from_template(obj: Object) -> None:
    """ReplicationControllers take labels and selector from the template."""
    spec = obj["spec"]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = _child(obj, "metadata")
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)


def _replication_controller(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _labels_from_template(obj)
    _set(spec, replicas=1)
    _template(spec)


def _deployment(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = _child(spec, "strategy")
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(_child(strategy, "rollingUpdate"), maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replica_set(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, replicas=1)
    _template(spec)


def _stateful_set(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, podManagementPolicy="OrderedReady", replicas=1, revisionHistoryLimit=10)
    strategy = _child(spec, "updateStrategy")
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(_child(strategy, "rollingUpdate"), partition=0, maxUnavailable=1)
    retention = _child(spec, "persistentVolumeClaimRetentionPolicy")
    _set(retention, whenDeleted="Retain", whenScaled="Retain")
    _template(spec)
    for claim in _dicts(spec, "volumeClaimTemplates"):
        _set(claim, apiVersion="v1", kind="PersistentVolumeClaim")
        _claim(claim, "v1")


def _daemon_set(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, revisionHistoryLimit=10)
    strategy = _child(spec, "updateStrategy")
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(_child(strategy, "rollingUpdate"), maxUnavailable=1, maxSurge=0)
    _template(spec)


def _job_spec(spec: Object) -> None:
    if spec.get("completions") is None and spec.get("parallelism") is None:
        _set(spec, completions=1, parallelism=1)
    _set(spec, parallelism=1, completionMode="NonIndexed", suspend=False, manualSelector=False)
    if spec.get("backoffLimitPerIndex") is None:
        _set(spec, backoffLimit=6)
    else:
        _set(spec, backoffLimit=2**31 - 1)
    policy = spec.get("podFailurePolicy")
    _set(spec, podReplacementPolicy="Failed" if policy else "TerminatingOrFailed")
    for rule in _dicts(policy, "rules"):
        for condition in _dicts(rule, "onPodConditions"):
            _set(condition, status="True")
    _template(spec)


def _job(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _job_spec(spec)
    metadata = _child(obj, "metadata")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)


def _cron_job(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(
        spec,
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )
    template = _child(spec, "jobTemplate")
    _template(_child(template, "spec"))


# --- the rest -------------------------------------------------------------------------------------------------------


def _service(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, sessionAffinity="None", type="ClusterIP")
    if spec["sessionAffinity"] == "ClientIP":
        config = _child(_child(spec, "sessionAffinityConfig"), "clientIP")
        _set(config, timeoutSeconds=10800)
    for port in _dicts(spec, "ports"):
        _set(port, protocol="TCP")
        target = port.get("targetPort")
        if (target is None or target in (0, "")) and "port" in port:
            port["targetPort"] = port["port"]
    kind = spec["type"]
    if kind != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster")
        if spec.get("clusterIP"):
            _set(spec, clusterIPs=[spec["clusterIP"]])
    if kind in ("NodePort", "LoadBalancer"):
        _set(spec, externalTrafficPolicy="Cluster")
    if kind == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)
        _ingress_points(obj)


def _ingress_points(obj: Object) -> None:
    for point in _dicts((obj.get("status") or {}).get("loadBalancer"), "ingress"):
        if point.get("ip"):
            _set(point, ipMode="VIP")


def _endpoints(obj: Object, _version: str) -> None:
    for subset in _dicts(obj, "subsets"):
        for port in _dicts(subset, "ports"):
            _set(port, protocol="TCP")


def _endpoint_slice(obj: Object, _version: str) -> None:
    obj.setdefault("endpoints", [])
    obj.setdefault("ports", [])
    for port in _dicts(obj, "ports"):
        port.setdefault("name", "")
        _set(port, protocol="TCP")


def _secret(obj: Object, _version: str) -> None:
    text = obj.pop("stringData", None)
    if isinstance(text, dict):
        data = _child(obj, "data")
        for key, value in text.items():
            data[key] = b2a_base64(str(value).encode(), newline=False).decode()
    _set(obj, type="Opaque")


def _namespace(obj: Object, _version: str) -> None:
    metadata = _child(obj, "metadata")
    if metadata.get("name"):
        _child(metadata, "labels")["kubernetes.io/metadata.name"] = metadata["name"]


def _node(obj: Object, _version: str) -> None:
    spec, status = _child(obj, "spec"), _child(obj, "status")
    if spec.get("podCIDR"):  # the plural is always written beside the field
        _set(spec, podCIDRs=[spec["podCIDR"]])
    if "capacity" in status:
        _set(status, allocatable=dict(status["capacity"]))


def _claim_spec(spec: Object) -> None:
    _set(spec, volumeMode="Filesystem")


def _claim(obj: Object, _version: str) -> None:
    _claim_spec(_child(obj, "spec"))
    _set(_child(obj, "status"), phase="Pending")


def _volume_object(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if isinstance(spec.get("hostPath"), dict):
        _set(spec["hostPath"], type="")
    _set(_child(obj, "status"), phase="Pending")


_UP_POLICIES = (
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
)
_DOWN_POLICIES = ({"type": "Percent", "value": 100, "periodSeconds": 15},)


def _hpa(obj: Object, version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, minReplicas=1)
    if version == "v1":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if "autoscaling.alpha.kubernetes.io/metrics" not in annotations:
            _set(spec, targetCPUUtilizationPercentage=80)
        _set(_child(obj, "status"), currentReplicas=0, desiredReplicas=0)
        return
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if isinstance(behavior, dict):
        # With a behavior present both sides are written out, as upstream; a side's own lists replace whole lists.
        for side, window, policies in (("scaleUp", 0, _UP_POLICIES), ("scaleDown", None, _DOWN_POLICIES)):
            rules = _child(behavior, side)
            if window is not None:
                _set(rules, stabilizationWindowSeconds=window)
            _set(rules, selectPolicy="Max")
            if rules.get("policies") is None:
                rules["policies"] = [dict(policy) for policy in policies]


def _network_policy(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for side in ("ingress", "egress"):
        for rule in _dicts(spec, side):
            for port in _dicts(rule, "ports"):
                _set(port, protocol="TCP")


def _api_service(obj: Object, _version: str) -> None:
    service = _child(obj, "spec").get("service")
    if isinstance(service, dict):
        _set(service, port=443)


def _definition(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    names = _child(spec, "names")
    name = names.get("kind")
    if isinstance(name, str) and name:
        _set(names, singular=name.lower(), listKind=name + "List")
    _set(_child(spec, "conversion"), strategy="None")


def _storage_class(obj: Object, _version: str) -> None:
    _set(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _webhooks(obj: Object, _version: str) -> None:
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for hook in _dicts(obj, "webhooks"):
        _set(hook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        _set(hook, namespaceSelector={}, objectSelector={})
        if mutating:
            _set(hook, reinvocationPolicy="Never")
        for rule in _dicts(hook, "rules"):
            _set(rule, scope="*")
        service = (hook.get("clientConfig") or {}).get("service")
        if isinstance(service, dict):
            _set(service, port=443)


def _match(resources: Any) -> None:
    """What an admission policy looks at."""
    if isinstance(resources, dict):
        _set(resources, namespaceSelector={}, objectSelector={}, matchPolicy="Equivalent")
        for name in ("resourceRules", "excludeResourceRules"):
            for rule in _dicts(resources, name):
                _set(rule, scope="*")


def _admission_policy(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(spec, failurePolicy="Fail")
    _match(spec.get("matchConstraints"))


def _admission_policy_binding(obj: Object, _version: str) -> None:
    _match(_child(obj, "spec").get("matchResources"))


def _device_requests(spec: Any) -> None:
    for request in _dicts((spec or {}).get("devices"), "requests"):
        for one in (request.get("exactly"), *_dicts(request, "firstAvailable")):
            if isinstance(one, dict):
                _set(one, allocationMode="ExactCount")
                if one["allocationMode"] == "ExactCount" and not one.get("count"):
                    one["count"] = 1


def _resource_claim(obj: Object, _version: str) -> None:
    _device_requests(obj.get("spec"))


def _resource_claim_template(obj: Object, _version: str) -> None:
    _device_requests(_child(obj, "spec").get("spec"))


def _priority_level(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    if isinstance(spec.get("exempt"), dict):
        _set(spec["exempt"], nominalConcurrencyShares=0, lendablePercent=0)
    limited = spec.get("limited")
    if isinstance(limited, dict):
        _set(limited, nominalConcurrencyShares=30, lendablePercent=0)
        queuing = _child(limited, "limitResponse").get("queuing")
        for name, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
            if isinstance(queuing, dict) and not queuing.get(name):
                queuing[name] = value


def _flow_schema(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    spec["matchingPrecedence"] = spec.get("matchingPrecedence") or 1000


def _binding(obj: Object, _version: str) -> None:
    group = "rbac.authorization.k8s.io"
    if isinstance(obj.get("roleRef"), dict):
        _set(obj["roleRef"], apiGroup=group)
    for subject in _dicts(obj, "subjects"):
        if subject.get("kind") in ("User", "Group"):
            _set(subject, apiGroup=group)


def _priority_class(obj: Object, _version: str) -> None:
    _set(obj, preemptionPolicy="PreemptLowerPriority")


def _csi_driver(obj: Object, _version: str) -> None:
    spec = _child(obj, "spec")
    _set(
        spec,
        attachRequired=True,
        podInfoOnMount=False,
        storageCapacity=False,
        fsGroupPolicy="ReadWriteOnceWithFSType",
        volumeLifecycleModes=["Persistent"],
        requiresRepublish=False,
        seLinuxMount=False,
        preventPodSchedulingIfMissing=False,
    )


def _limit_range(obj: Object, _version: str) -> None:
    for item in _dicts(_child(obj, "spec"), "limits"):
        if item.get("type") == "Container":
            limits = item.get("default") or item.get("max") or {}
            if limits:
                item["default"] = {**(item.get("max") or {}), **(item.get("default") or {})}
                item["defaultRequest"] = {**item["default"], **(item.get("defaultRequest") or {})}


_HANDLERS: dict[tuple[str, str], Callable[[Object, str], None]] = {
    ("", "Pod"): _pod,
    ("", "PodTemplate"): _pod_template,
    ("", "ReplicationController"): _replication_controller,
    ("", "Service"): _service,
    ("", "Endpoints"): _endpoints,
    ("", "Secret"): _secret,
    ("", "Namespace"): _namespace,
    ("", "Node"): _node,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume_object,
    ("", "LimitRange"): _limit_range,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): _hpa,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("apiregistration.k8s.io", "APIService"): _api_service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("storage.k8s.io", "CSIDriver"): _csi_driver,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): _admission_policy,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): _admission_policy_binding,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): _admission_policy,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): _admission_policy_binding,
    ("resource.k8s.io", "ResourceClaim"): _resource_claim,
    ("resource.k8s.io", "ResourceClaimTemplate"): _resource_claim_template,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): _priority_level,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): _flow_schema,
    ("rbac.authorization.k8s.io", "RoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _binding,
}
