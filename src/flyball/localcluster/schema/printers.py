"""The printed rows of the built-in kinds: one function each, in upstream's order of columns (columns-1.37.json.gz)."""

from collections.abc import Callable
from typing import Any

from flyball.localcluster.schema import quantity
from flyball.localcluster.schema.cells import (
    Cell,
    Object,
    Row,
    age_of,
    condition_of,
    containers_of,
    human_duration,
    int_at,
    list_at,
    name_of,
    selector_text,
    since,
    text_at,
    time_s,
    value_at,
)


def _pod_initialised(obj: Object) -> bool:
    condition = condition_of(obj, "Initialized")
    return condition is not None and condition.get("status") == "True"


def _exit_reason(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def pod(obj: Object, now_ms: int) -> Row:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reason = str(status.get("reason") or status.get("phase") or "")
    restarts = sidecar_restarts = 0
    last_restart: float | None = None
    last_sidecar_restart: float | None = None
    total, ready = len(list_at(spec, "containers")), 0
    if any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in list_at(status, "conditions")
    ):
        reason = "SchedulingGated"
    sidecars = {c.get("name") for c in list_at(spec, "initContainers") if c.get("restartPolicy") == "Always"}
    total += len(sidecars)
    initialising = False
    for index, one in enumerate(list_at(status, "initContainerStatuses")):
        state = one.get("state") or {}
        sidecar = one.get("name") in sidecars
        restarts += int_at(one, "restartCount")
        finished = time_s(value_at(one, "lastState", "terminated", "finishedAt"))
        if finished is not None:
            last_restart = max(last_restart or finished, finished)
        if sidecar:
            if finished is not None:
                last_sidecar_restart = max(last_sidecar_restart or finished, finished)
            sidecar_restarts += int_at(one, "restartCount")
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if isinstance(terminated, dict) and terminated.get("exitCode", 0) == 0:
            continue
        if sidecar and one.get("started") is True:
            if one.get("ready"):
                ready += 1
            continue
        if isinstance(terminated, dict):
            reason = "Init:" + _exit_reason(terminated)
        elif isinstance(waiting, dict) and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{len(list_at(spec, 'initContainers'))}"
        initialising = True
        break
    if not initialising or _pod_initialised(obj):
        restarts, last_restart = sidecar_restarts, last_sidecar_restart
        running = False
        for one in reversed(list_at(status, "containerStatuses")):
            state = one.get("state") or {}
            restarts += int_at(one, "restartCount")
            finished = time_s(value_at(one, "lastState", "terminated", "finishedAt"))
            if finished is not None:
                last_restart = max(last_restart or finished, finished)
            terminated, waiting = state.get("terminated"), state.get("waiting")
            if isinstance(waiting, dict) and waiting.get("reason"):
                reason = str(waiting["reason"])
            elif isinstance(terminated, dict):
                reason = _exit_reason(terminated)
            elif one.get("ready") and "running" in state:
                running = True
                ready += 1
        if reason == "Completed" and running:
            pod_ready = condition_of(obj, "Ready")
            reason = "Running" if pod_ready and pod_ready.get("status") == "True" else "NotReady"
    if value_at(obj, "metadata", "deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    restart_text = str(restarts)
    if restarts and last_restart is not None:
        restart_text = f"{restarts} ({human_duration(now_ms / 1000 - last_restart)} ago)"
    ips = [p.get("ip") for p in list_at(status, "podIPs") if p.get("ip")]
    gates = list_at(spec, "readinessGates")
    passed = 0
    for gate in gates:
        met = condition_of(obj, str(gate.get("conditionType")))
        passed += met is not None and met.get("status") == "True"
    return [
        name_of(obj),
        f"{ready}/{total}",
        reason,
        restart_text,
        age_of(obj, now_ms),
        str(ips[0]) if ips else text_at(status, "podIP"),
        text_at(spec, "nodeName"),
        text_at(status, "nominatedNodeName"),
        f"{passed}/{len(gates)}" if gates else "<none>",
    ]


def deployment(obj: Object, now_ms: int) -> Row:
    names, images = containers_of(value_at(obj, "spec", "template", "spec"))
    status = obj.get("status")
    return [
        name_of(obj),
        f"{int_at(status, 'readyReplicas')}/{int_at(obj, 'spec', 'replicas')}",
        int_at(status, "updatedReplicas"),
        int_at(status, "availableReplicas"),
        age_of(obj, now_ms),
        names,
        images,
        selector_text(value_at(obj, "spec", "selector")),
    ]


def replica_set(obj: Object, now_ms: int) -> Row:
    names, images = containers_of(value_at(obj, "spec", "template", "spec"))
    return [
        name_of(obj),
        int_at(obj, "spec", "replicas"),
        int_at(obj, "status", "replicas"),
        int_at(obj, "status", "readyReplicas"),
        age_of(obj, now_ms),
        names,
        images,
        selector_text(value_at(obj, "spec", "selector")),
    ]


def stateful_set(obj: Object, now_ms: int) -> Row:
    names, images = containers_of(value_at(obj, "spec", "template", "spec"))
    ready = f"{int_at(obj, 'status', 'readyReplicas')}/{int_at(obj, 'spec', 'replicas')}"
    return [name_of(obj), ready, age_of(obj, now_ms), names, images]


def daemon_set(obj: Object, now_ms: int) -> Row:
    names, images = containers_of(value_at(obj, "spec", "template", "spec"))
    status = obj.get("status")
    return [
        name_of(obj),
        int_at(status, "desiredNumberScheduled"),
        int_at(status, "currentNumberScheduled"),
        int_at(status, "numberReady"),
        int_at(status, "updatedNumberScheduled"),
        int_at(status, "numberAvailable"),
        selector_text(value_at(obj, "spec", "template", "spec", "nodeSelector")),
        age_of(obj, now_ms),
        names,
        images,
        selector_text(value_at(obj, "spec", "selector")),
    ]


def job(obj: Object, now_ms: int) -> Row:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    succeeded = int_at(status, "succeeded")
    if spec.get("completions") is not None:
        done = f"{succeeded}/{spec['completions']}"
    elif int_at(spec, "parallelism") > 1:
        done = f"{succeeded}/1 of {spec['parallelism']}"
    else:
        done = f"{succeeded}/1"
    started, finished = time_s(status.get("startTime")), time_s(status.get("completionTime"))
    lasted = "" if started is None else human_duration((finished if finished is not None else now_ms / 1000) - started)
    held = {str(c.get("type")) for c in list_at(status, "conditions") if c.get("status") == "True"}
    if "Complete" in held:
        state = "Complete"
    elif "Failed" in held:
        state = "Failed"
    elif value_at(obj, "metadata", "deletionTimestamp"):
        state = "Terminating"
    elif "Suspended" in held:
        state = "Suspended"
    elif "FailureTarget" in held:
        state = "FailureTarget"
    elif "SuccessCriteriaMet" in held:
        state = "SuccessCriteriaMet"
    else:
        state = "Running"
    names, images = containers_of(value_at(spec, "template", "spec"))
    return [name_of(obj), state, done, lasted, age_of(obj, now_ms), names, images, selector_text(spec.get("selector"))]


def cron_job(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    last = value_at(obj, "status", "lastScheduleTime")
    names, images = containers_of(value_at(spec, "jobTemplate", "spec", "template", "spec"))
    return [
        name_of(obj),
        text_at(spec, "schedule"),
        text_at(spec, "timeZone"),
        "True" if spec.get("suspend") else "False",
        len(list_at(obj, "status", "active")),
        since(last, now_ms) if last else "<none>",
        age_of(obj, now_ms),
        names,
        images,
        selector_text(value_at(spec, "jobTemplate", "spec", "selector")),
    ]


def service(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    kind = str(spec.get("type") or "ClusterIP")
    ports = []
    for port in list_at(spec, "ports"):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port.get('port')}{node}/{port.get('protocol') or 'TCP'}")
    outside = [str(ip) for ip in list_at(spec, "externalIPs")]
    if kind == "ExternalName":
        external = text_at(spec, "externalName")
    elif kind == "LoadBalancer":
        ingress = list_at(obj, "status", "loadBalancer", "ingress")
        found = [str(i.get("ip") or i.get("hostname")) for i in ingress] + outside
        external = ",".join(found) or "<pending>"
    else:
        external = ",".join(outside) or "<none>"
    ips = list_at(spec, "clusterIPs")
    address = str(ips[0]) if ips else text_at(spec, "clusterIP")
    return [
        name_of(obj),
        kind,
        address,
        external,
        ",".join(ports) or "<none>",
        age_of(obj, now_ms),
        selector_text(spec.get("selector")),
    ]


def node(obj: Object, now_ms: int) -> Row:
    status = obj.get("status") or {}
    ready = condition_of(obj, "Ready")
    state = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    if value_at(obj, "spec", "unschedulable"):
        state += ",SchedulingDisabled"
    roles = set()
    for key, value in (value_at(obj, "metadata", "labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/") and len(key) > len("node-role.kubernetes.io/"):
            roles.add(key.split("/", 1)[1])
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    addresses = {str(a.get("type")): str(a.get("address")) for a in reversed(list_at(status, "addresses"))}
    info = status.get("nodeInfo") or {}
    machine = info.get("architecture")
    return [
        name_of(obj),
        state,
        ",".join(sorted(roles)) or "<none>",
        age_of(obj, now_ms),
        text_at(info, "kubeletVersion", absent=""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        text_at(info, "osImage", absent="<unknown>"),
        text_at(info, "kernelVersion", absent="<unknown>") + (f" ({machine})" if machine else ""),
        text_at(info, "containerRuntimeVersion", absent="<unknown>"),
    ]


def event(obj: Object, now_ms: int) -> Row:
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    series = obj.get("series")
    count = obj.get("count") or obj.get("deprecatedCount") or 1
    if isinstance(series, dict):
        last, count = series.get("lastObservedTime") or last, series.get("count") or count
    last = last or obj.get("eventTime") or first
    target = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    named = f"{str(target.get('kind') or '').lower()}/{target.get('name') or ''}"
    message = obj.get("message") or obj.get("note") or ""
    return [
        since(last, now_ms),
        str(obj.get("type") or ""),
        str(obj.get("reason") or ""),
        named,
        str(target.get("fieldPath") or ""),
        ", ".join(filter(None, (component, source.get("host") or obj.get("reportingInstance")))),
        str(message).strip(),
        since(first, now_ms),
        int(count),
        name_of(obj),
    ]


def _amount(value: Any) -> str:
    try:
        return quantity.canonical(value)
    except ValueError:
        return "<unknown>"


_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def _hpa_metric(metric: Object, current: Object) -> str:
    """One ``current/target`` as the server prints it: ``cpu: 32%/50%``, ``<unknown>/10``, ``10500m/10 (avg)``."""
    kind = str(metric.get("type"))
    source = metric.get(_SOURCES.get(kind, "")) or {}
    now = value_at(current.get(_SOURCES.get(kind, "")), "current") or {}
    target = source.get("target") or {}
    average = target.get("averageValue")
    if kind in ("External", "Object"):
        if average is not None:
            value = _amount(now["averageValue"]) if now.get("averageValue") is not None else "<unknown>"
            return f"{value}/{_amount(average)} (avg)"
        value = _amount(now["value"]) if now.get("value") is not None else "<unknown>"
        return f"{value}/{_amount(target.get('value'))}"
    if kind == "Pods":
        value = _amount(now["averageValue"]) if now.get("averageValue") is not None else "<unknown>"
        return f"{value}/{_amount(average)}"
    if kind in ("Resource", "ContainerResource"):
        name = str(source.get("name"))
        if average is not None:
            value = _amount(now["averageValue"]) if now.get("averageValue") is not None else "<unknown>"
            return f"{name}: {value}/{_amount(average)}"
        known = now.get("averageUtilization")
        wanted = target.get("averageUtilization")
        goal = "<auto>" if wanted is None else f"{wanted}%"
        return f"{name}: {'<unknown>' if known is None else f'{known}%'}/{goal}"
    return "<unknown type>"


def hpa(obj: Object, now_ms: int) -> Row:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reference = f"{value_at(spec, 'scaleTargetRef', 'kind')}/{value_at(spec, 'scaleTargetRef', 'name')}"
    metrics = list_at(spec, "metrics")
    if "targetCPUUtilizationPercentage" in spec and not metrics:  # autoscaling/v1
        known = status.get("currentCPUUtilizationPercentage")
        parts = [f"cpu: {'<unknown>' if known is None else f'{known}%'}/{spec['targetCPUUtilizationPercentage']}%"]
    else:
        current = list_at(status, "currentMetrics")
        # Upstream pairs metrics and statuses by position; a status of another type is no status of this metric.
        parts = []
        for index, metric in enumerate(metrics):
            seen = current[index] if index < len(current) else {}
            parts.append(_hpa_metric(metric, seen if seen.get("type") == metric.get("type") else {}))
    shown = ", ".join(parts[:2]) + (f" + {len(parts) - 2} more..." if len(parts) > 2 else "")
    least = spec.get("minReplicas")
    return [
        name_of(obj),
        reference,
        shown or "<none>",
        "<unset>" if least is None else str(least),
        int_at(spec, "maxReplicas"),
        int_at(status, "currentReplicas"),
        age_of(obj, now_ms),
    ]


def endpoints(obj: Object, now_ms: int) -> Row:
    found = []
    for subset in list_at(obj, "subsets"):
        ports = list_at(subset, "ports")
        for address in list_at(subset, "addresses"):
            found += [f"{address.get('ip')}:{port.get('port')}" for port in ports] or [str(address.get("ip"))]
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [name_of(obj), text or "<none>", age_of(obj, now_ms)]


def endpoint_slice(obj: Object, now_ms: int) -> Row:
    ports = ["*" if p.get("port") is None else str(p["port"]) for p in list_at(obj, "ports")]
    addresses = [str(a) for one in list_at(obj, "endpoints") for a in list_at(one, "addresses")]

    def cut(items: list[str]) -> str:
        return ",".join(items[:3]) + (f" + {len(items) - 3} more..." if len(items) > 3 else "")

    return [
        name_of(obj),
        str(obj.get("addressType") or ""),
        cut(ports) or "<unset>",
        cut(addresses) or "<unset>",
        age_of(obj, now_ms),
    ]


def ingress(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    hosts = [str(r.get("host")) for r in list_at(spec, "rules") if r.get("host")]
    text = ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")
    ingress = list_at(obj, "status", "loadBalancer", "ingress")
    address = ",".join(str(i.get("ip") or i.get("hostname") or "") for i in ingress)
    ports = "80, 443" if spec.get("tls") else "80"
    return [name_of(obj), text_at(spec, "ingressClassName"), text or "*", address, ports, age_of(obj, now_ms)]


def persistent_volume_claim(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    bound = bool(spec.get("volumeName"))
    phase = (
        "Terminating" if value_at(obj, "metadata", "deletionTimestamp") else text_at(obj, "status", "phase", absent="")
    )
    size = value_at(obj, "status", "capacity", "storage")
    return [
        name_of(obj),
        phase,
        str(spec.get("volumeName") or ""),
        _amount(size) if bound and size is not None else "",
        _modes(list_at(obj, "status", "accessModes")) if bound else "",
        str(spec.get("storageClassName") or ""),
        text_at(spec, "volumeAttributesClassName", absent="<unset>"),
        age_of(obj, now_ms),
        text_at(spec, "volumeMode", absent="<unset>"),
    ]


def _modes(modes: list[Any]) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(str(m), str(m)) for m in modes)


def persistent_volume(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef")
    size = value_at(spec, "capacity", "storage")
    phase = (
        "Terminating" if value_at(obj, "metadata", "deletionTimestamp") else text_at(obj, "status", "phase", absent="")
    )
    return [
        name_of(obj),
        "" if size is None else _amount(size),
        _modes(list_at(spec, "accessModes")),
        str(spec.get("persistentVolumeReclaimPolicy") or ""),
        phase,
        f"{claim.get('namespace')}/{claim.get('name')}" if isinstance(claim, dict) else "",
        str(spec.get("storageClassName") or ""),
        text_at(spec, "volumeAttributesClassName", absent="<unset>"),
        text_at(obj, "status", "reason", absent=""),
        age_of(obj, now_ms),
        text_at(spec, "volumeMode", absent="<unset>"),
    ]


def storage_class(obj: Object, now_ms: int) -> Row:
    marks = value_at(obj, "metadata", "annotations") or {}
    name = name_of(obj)
    if marks.get("storageclass.kubernetes.io/is-default-class") == "true":
        name += " (default)"
    return [
        name,
        str(obj.get("provisioner") or ""),
        str(obj.get("reclaimPolicy") or "Delete"),
        str(obj.get("volumeBindingMode") or "Immediate"),
        "true" if obj.get("allowVolumeExpansion") else "false",
        age_of(obj, now_ms),
    ]


def disruption_budget(obj: Object, now_ms: int) -> Row:
    return [
        name_of(obj),
        text_at(obj, "spec", "minAvailable", absent="N/A"),
        text_at(obj, "spec", "maxUnavailable", absent="N/A"),
        int_at(obj, "status", "disruptionsAllowed"),
        age_of(obj, now_ms),
    ]


def api_service(obj: Object, now_ms: int) -> Row:
    service = value_at(obj, "spec", "service")
    named = f"{service.get('namespace')}/{service.get('name')}" if isinstance(service, dict) else "Local"
    condition = condition_of(obj, "Available")
    if condition is None:
        available = "Unknown"
    elif condition.get("status") == "True":
        available = "True"
    else:
        available = f"{condition.get('status')} ({condition.get('reason')})"
    return [name_of(obj), named, available, age_of(obj, now_ms)]


def role_binding(obj: Object, now_ms: int) -> Row:
    role = obj.get("roleRef") or {}
    by: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in list_at(obj, "subjects"):
        kind, name = str(subject.get("kind")), str(subject.get("name"))
        by.setdefault(kind, []).append(f"{subject.get('namespace')}/{name}" if kind == "ServiceAccount" else name)
    return [
        name_of(obj),
        f"{role.get('kind')}/{role.get('name')}",
        age_of(obj, now_ms),
        ", ".join(by["User"]),
        ", ".join(by["Group"]),
        ", ".join(by["ServiceAccount"]),
    ]


def created_at(obj: Object, _now_ms: int) -> Row:
    return [name_of(obj), text_at(obj, "metadata", "creationTimestamp", absent="<unknown>")]


def resource_quota(obj: Object, now_ms: int) -> Row:
    def lines(wanted: bool) -> str:
        hard, used = value_at(obj, "status", "hard") or {}, value_at(obj, "status", "used") or {}
        return ", ".join(
            f"{key}: {used.get(key, 0)}/{hard[key]}" for key in sorted(hard) if key.startswith("limits.") is wanted
        )

    return [name_of(obj), lines(False), lines(True), age_of(obj, now_ms)]


def webhooks(obj: Object, now_ms: int) -> Row:
    return [name_of(obj), len(list_at(obj, "webhooks")), age_of(obj, now_ms)]


def network_policy(obj: Object, now_ms: int) -> Row:
    return [name_of(obj), selector_text(value_at(obj, "spec", "podSelector")), age_of(obj, now_ms)]


def with_age(*cells: Callable[[Object], Cell]) -> Callable[[Object, int], Row]:
    return lambda obj, now_ms: [name_of(obj), *(cell(obj) for cell in cells), age_of(obj, now_ms)]


def custom_resource_definition(obj: Object, _now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    versions = [
        f"{v.get('name')}(storage)" if v.get("storage") else str(v.get("name")) for v in list_at(spec, "versions")
    ]
    established = condition_of(obj, "Established")
    return [
        name_of(obj),
        text_at(spec, "scope", absent=""),
        ",".join(versions),
        text_at(obj, "metadata", "creationTimestamp", absent="<unknown>"),
        text_at(spec, "group", absent=""),
        text_at(spec, "names", "kind", absent=""),
        ",".join(map(str, list_at(spec, "names", "shortNames"))),
        established is not None and established.get("status") == "True",
    ]


def controller_revision(obj: Object, now_ms: int) -> Row:
    owner = next((r for r in list_at(obj, "metadata", "ownerReferences") if r.get("controller")), None)
    named = "<none>"
    if owner is not None:
        group = str(owner.get("apiVersion")).rpartition("/")[0]
        named = f"{str(owner.get('kind')).lower()}{'.' + group if group else ''}/{owner.get('name')}"
    return [name_of(obj), named, int_at(obj, "revision"), age_of(obj, now_ms)]


def ingress_class(obj: Object, now_ms: int) -> Row:
    parameters = value_at(obj, "spec", "parameters")
    named = f"{parameters.get('kind')}/{parameters.get('name')}" if parameters else "<none>"
    return [name_of(obj), text_at(obj, "spec", "controller"), named, age_of(obj, now_ms)]


def priority_class(obj: Object, now_ms: int) -> Row:
    return [
        name_of(obj),
        int_at(obj, "value"),
        bool(obj.get("globalDefault")),
        age_of(obj, now_ms),
        text_at(obj, "preemptionPolicy"),
    ]
