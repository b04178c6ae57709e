"""What ``kubectl get`` prints: upstream's printer columns, rendered on the server.

Ages are whole-second differences to ``now_ms`` in upstream's short form. Cells are strings or integers; absent values
print as upstream prints them (``<none>``, ``<unknown>``), never as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from flyball.localcluster.schema import quantity
from flyball.localcluster.schema.kinds import Kind

Object = dict[str, Any]
Cell = str | int
Row = list[Cell]


def human_duration(seconds: float) -> str:
    """Upstream's ``duration.HumanDuration``: two units at most ("9m5s", "3h", "2d4h"); ``seconds`` may be negative."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    if hours < 24 * 365 * 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def _time_s(stamp: Any) -> float | None:
    if not isinstance(stamp, str) or not stamp:
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None


def _since(stamp: Any, now_ms: int) -> str:
    at = _time_s(stamp)
    return "<unknown>" if at is None else human_duration(now_ms / 1000 - at)


def _age(obj: Object, now_ms: int) -> str:
    return _since(_get(obj, "metadata", "creationTimestamp"), now_ms)


def _get(obj: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(name)
    return obj


def _list(obj: Any, *path: str) -> list[Any]:
    found = _get(obj, *path)
    return found if isinstance(found, list) else []


def _int(obj: Any, *path: str) -> int:
    """An integer that upstream prints as 0 when absent (Go's zero value in a status)."""
    found = _get(obj, *path)
    return found if isinstance(found, int) else 0


def _text(obj: Any, *path: str, absent: str = "<none>") -> str:
    found = _get(obj, *path)
    return absent if found is None or found == "" else str(found)


def _name(obj: Object) -> str:
    return str(_get(obj, "metadata", "name") or "")


def _selector(selector: Any) -> str:
    """A LabelSelector or a plain map, as ``metav1.FormatLabelSelector`` prints it."""
    if not isinstance(selector, dict):
        return "<none>"
    plain = selector
    expressions: list[Any] = []
    if "matchLabels" in selector or "matchExpressions" in selector:
        plain, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    parts = [(str(key), f"{key}={value}") for key, value in plain.items()]
    for one in expressions:
        key, values = str(one.get("key")), ",".join(sorted(map(str, one.get("values") or [])))
        shape = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append((key, shape.get(str(one.get("operator")), key)))
    return ",".join(text for _, text in sorted(parts)) or "<none>"


def _containers(spec: Any) -> tuple[str, str]:
    containers = [c for c in _list(spec, "containers") if isinstance(c, dict)]
    return ",".join(str(c.get("name", "")) for c in containers), ",".join(str(c.get("image", "")) for c in containers)


# --- one function per kind ------------------------------------------------------------------------------------------


def _condition(obj: Object, kind: str) -> Object | None:
    for one in _list(obj, "status", "conditions"):
        if isinstance(one, dict) and one.get("type") == kind:
            return one
    return None


def _pod_initialised(obj: Object) -> bool:
    condition = _condition(obj, "Initialized")
    return condition is not None and condition.get("status") == "True"


def _exit_reason(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _pod(obj: Object, now_ms: int) -> Row:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reason = str(status.get("reason") or status.get("phase") or "")
    restarts = sidecar_restarts = 0
    last_restart: float | None = None
    last_sidecar_restart: float | None = None
    total, ready = len(_list(spec, "containers")), 0
    if any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in _list(status, "conditions")
    ):
        reason = "SchedulingGated"
    sidecars = {c.get("name") for c in _list(spec, "initContainers") if c.get("restartPolicy") == "Always"}
    total += len(sidecars)
    initialising = False
    for index, one in enumerate(_list(status, "initContainerStatuses")):
        state = one.get("state") or {}
        sidecar = one.get("name") in sidecars
        restarts += _int(one, "restartCount")
        finished = _time_s(_get(one, "lastState", "terminated", "finishedAt"))
        if finished is not None:
            last_restart = max(last_restart or finished, finished)
        if sidecar:
            if finished is not None:
                last_sidecar_restart = max(last_sidecar_restart or finished, finished)
            sidecar_restarts += _int(one, "restartCount")
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
            reason = f"Init:{index}/{len(_list(spec, 'initContainers'))}"
        initialising = True
        break
    if not initialising or _pod_initialised(obj):
        restarts, last_restart = sidecar_restarts, last_sidecar_restart
        running = False
        for one in reversed(_list(status, "containerStatuses")):
            state = one.get("state") or {}
            restarts += _int(one, "restartCount")
            finished = _time_s(_get(one, "lastState", "terminated", "finishedAt"))
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
            pod_ready = _condition(obj, "Ready")
            reason = "Running" if pod_ready and pod_ready.get("status") == "True" else "NotReady"
    if _get(obj, "metadata", "deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    restart_text = str(restarts)
    if restarts and last_restart is not None:
        restart_text = f"{restarts} ({human_duration(now_ms / 1000 - last_restart)} ago)"
    ips = [p.get("ip") for p in _list(status, "podIPs") if p.get("ip")]
    gates = _list(spec, "readinessGates")
    passed = 0
    for gate in gates:
        met = _condition(obj, str(gate.get("conditionType")))
        passed += met is not None and met.get("status") == "True"
    return [
        _name(obj),
        f"{ready}/{total}",
        reason,
        restart_text,
        _age(obj, now_ms),
        str(ips[0]) if ips else _text(status, "podIP"),
        _text(spec, "nodeName"),
        _text(status, "nominatedNodeName"),
        f"{passed}/{len(gates)}" if gates else "<none>",
    ]


def _deployment(obj: Object, now_ms: int) -> Row:
    names, images = _containers(_get(obj, "spec", "template", "spec"))
    status = obj.get("status")
    return [
        _name(obj),
        f"{_int(status, 'readyReplicas')}/{_int(obj, 'spec', 'replicas')}",
        _int(status, "updatedReplicas"),
        _int(status, "availableReplicas"),
        _age(obj, now_ms),
        names,
        images,
        _selector(_get(obj, "spec", "selector")),
    ]


def _replica_set(obj: Object, now_ms: int) -> Row:
    names, images = _containers(_get(obj, "spec", "template", "spec"))
    return [
        _name(obj),
        _int(obj, "spec", "replicas"),
        _int(obj, "status", "replicas"),
        _int(obj, "status", "readyReplicas"),
        _age(obj, now_ms),
        names,
        images,
        _selector(_get(obj, "spec", "selector")),
    ]


def _stateful_set(obj: Object, now_ms: int) -> Row:
    names, images = _containers(_get(obj, "spec", "template", "spec"))
    ready = f"{_int(obj, 'status', 'readyReplicas')}/{_int(obj, 'spec', 'replicas')}"
    return [_name(obj), ready, _age(obj, now_ms), names, images]


def _daemon_set(obj: Object, now_ms: int) -> Row:
    names, images = _containers(_get(obj, "spec", "template", "spec"))
    status = obj.get("status")
    return [
        _name(obj),
        _int(status, "desiredNumberScheduled"),
        _int(status, "currentNumberScheduled"),
        _int(status, "numberReady"),
        _int(status, "updatedNumberScheduled"),
        _int(status, "numberAvailable"),
        _selector(_get(obj, "spec", "template", "spec", "nodeSelector")),
        _age(obj, now_ms),
        names,
        images,
        _selector(_get(obj, "spec", "selector")),
    ]


def _job(obj: Object, now_ms: int) -> Row:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    succeeded = _int(status, "succeeded")
    if spec.get("completions") is not None:
        done = f"{succeeded}/{spec['completions']}"
    elif _int(spec, "parallelism") > 1:
        done = f"{succeeded}/1 of {spec['parallelism']}"
    else:
        done = f"{succeeded}/1"
    started, finished = _time_s(status.get("startTime")), _time_s(status.get("completionTime"))
    lasted = "" if started is None else human_duration((finished if finished is not None else now_ms / 1000) - started)
    held = {str(c.get("type")) for c in _list(status, "conditions") if c.get("status") == "True"}
    if "Complete" in held:
        state = "Complete"
    elif "Failed" in held:
        state = "Failed"
    elif _get(obj, "metadata", "deletionTimestamp"):
        state = "Terminating"
    elif "Suspended" in held:
        state = "Suspended"
    elif "FailureTarget" in held:
        state = "FailureTarget"
    elif "SuccessCriteriaMet" in held:
        state = "SuccessCriteriaMet"
    else:
        state = "Running"
    names, images = _containers(_get(spec, "template", "spec"))
    return [_name(obj), state, done, lasted, _age(obj, now_ms), names, images, _selector(spec.get("selector"))]


def _cron_job(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    last = _get(obj, "status", "lastScheduleTime")
    names, images = _containers(_get(spec, "jobTemplate", "spec", "template", "spec"))
    return [
        _name(obj),
        _text(spec, "schedule"),
        _text(spec, "timeZone"),
        "True" if spec.get("suspend") else "False",
        len(_list(obj, "status", "active")),
        _since(last, now_ms) if last else "<none>",
        _age(obj, now_ms),
        names,
        images,
        _selector(_get(spec, "jobTemplate", "spec", "selector")),
    ]


def _service(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    kind = str(spec.get("type") or "ClusterIP")
    ports = []
    for port in _list(spec, "ports"):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port.get('port')}{node}/{port.get('protocol') or 'TCP'}")
    outside = [str(ip) for ip in _list(spec, "externalIPs")]
    if kind == "ExternalName":
        external = _text(spec, "externalName")
    elif kind == "LoadBalancer":
        ingress = _list(obj, "status", "loadBalancer", "ingress")
        found = [str(i.get("ip") or i.get("hostname")) for i in ingress] + outside
        external = ",".join(found) or "<pending>"
    else:
        external = ",".join(outside) or "<none>"
    ips = _list(spec, "clusterIPs")
    address = str(ips[0]) if ips else _text(spec, "clusterIP")
    return [
        _name(obj),
        kind,
        address,
        external,
        ",".join(ports) or "<none>",
        _age(obj, now_ms),
        _selector(spec.get("selector")),
    ]


def _node(obj: Object, now_ms: int) -> Row:
    status = obj.get("status") or {}
    ready = _condition(obj, "Ready")
    state = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    if _get(obj, "spec", "unschedulable"):
        state += ",SchedulingDisabled"
    roles = set()
    for key, value in (_get(obj, "metadata", "labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/") and len(key) > len("node-role.kubernetes.io/"):
            roles.add(key.split("/", 1)[1])
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    addresses = {str(a.get("type")): str(a.get("address")) for a in reversed(_list(status, "addresses"))}
    info = status.get("nodeInfo") or {}
    return [
        _name(obj),
        state,
        ",".join(sorted(roles)) or "<none>",
        _age(obj, now_ms),
        _text(info, "kubeletVersion", absent=""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        _text(info, "osImage", absent="<unknown>"),
        _text(info, "kernelVersion", absent="<unknown>"),
        _text(info, "containerRuntimeVersion", absent="<unknown>"),
    ]


def _event(obj: Object, now_ms: int) -> Row:
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
        _since(last, now_ms),
        str(obj.get("type") or ""),
        str(obj.get("reason") or ""),
        named,
        str(target.get("fieldPath") or ""),
        ", ".join(filter(None, (component, source.get("host")))),
        str(message).strip(),
        _since(first, now_ms),
        int(count),
        _name(obj),
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
    now = _get(current.get(_SOURCES.get(kind, "")), "current") or {}
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


def _hpa(obj: Object, now_ms: int) -> Row:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reference = f"{_get(spec, 'scaleTargetRef', 'kind')}/{_get(spec, 'scaleTargetRef', 'name')}"
    metrics = _list(spec, "metrics")
    if "targetCPUUtilizationPercentage" in spec and not metrics:  # autoscaling/v1
        known = status.get("currentCPUUtilizationPercentage")
        parts = [f"cpu: {'<unknown>' if known is None else f'{known}%'}/{spec['targetCPUUtilizationPercentage']}%"]
    else:
        current = _list(status, "currentMetrics")
        # Upstream pairs metrics and statuses by position; a status of another type is no status of this metric.
        parts = []
        for index, metric in enumerate(metrics):
            seen = current[index] if index < len(current) else {}
            parts.append(_hpa_metric(metric, seen if seen.get("type") == metric.get("type") else {}))
    shown = ", ".join(parts[:2]) + (f" + {len(parts) - 2} more..." if len(parts) > 2 else "")
    least = spec.get("minReplicas")
    return [
        _name(obj),
        reference,
        shown or "<none>",
        "<unset>" if least is None else str(least),
        _int(spec, "maxReplicas"),
        _int(status, "currentReplicas"),
        _age(obj, now_ms),
    ]


def _endpoints(obj: Object, now_ms: int) -> Row:
    found = []
    for subset in _list(obj, "subsets"):
        ports = _list(subset, "ports")
        for address in _list(subset, "addresses"):
            found += [f"{address.get('ip')}:{port.get('port')}" for port in ports] or [str(address.get("ip"))]
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [_name(obj), text or "<none>", _age(obj, now_ms)]


def _endpoint_slice(obj: Object, now_ms: int) -> Row:
    ports = ["*" if p.get("port") is None else str(p["port"]) for p in _list(obj, "ports")]
    addresses = [str(a) for one in _list(obj, "endpoints") for a in _list(one, "addresses")]

    def cut(items: list[str]) -> str:
        return ",".join(items[:3]) + (f" + {len(items) - 3} more..." if len(items) > 3 else "")

    return [
        _name(obj),
        str(obj.get("addressType") or ""),
        cut(ports) or "<unset>",
        cut(addresses) or "<unset>",
        _age(obj, now_ms),
    ]


def _ingress(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    hosts = [str(r.get("host")) for r in _list(spec, "rules") if r.get("host")]
    text = ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")
    ingress = _list(obj, "status", "loadBalancer", "ingress")
    address = ",".join(str(i.get("ip") or i.get("hostname") or "") for i in ingress)
    ports = "80, 443" if spec.get("tls") else "80"
    return [_name(obj), _text(spec, "ingressClassName"), text or "*", address, ports, _age(obj, now_ms)]


def _claim(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    bound = bool(spec.get("volumeName"))
    phase = "Terminating" if _get(obj, "metadata", "deletionTimestamp") else _text(obj, "status", "phase", absent="")
    size = _get(obj, "status", "capacity", "storage")
    return [
        _name(obj),
        phase,
        str(spec.get("volumeName") or ""),
        _amount(size) if bound and size is not None else "",
        _modes(_list(obj, "status", "accessModes")) if bound else "",
        str(spec.get("storageClassName") or ""),
        _text(spec, "volumeAttributesClassName", absent="<unset>"),
        _age(obj, now_ms),
        _text(spec, "volumeMode", absent="<unset>"),
    ]


def _modes(modes: list[Any]) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(str(m), str(m)) for m in modes)


def _volume(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef")
    size = _get(spec, "capacity", "storage")
    phase = "Terminating" if _get(obj, "metadata", "deletionTimestamp") else _text(obj, "status", "phase", absent="")
    return [
        _name(obj),
        "" if size is None else _amount(size),
        _modes(_list(spec, "accessModes")),
        str(spec.get("persistentVolumeReclaimPolicy") or ""),
        phase,
        f"{claim.get('namespace')}/{claim.get('name')}" if isinstance(claim, dict) else "",
        str(spec.get("storageClassName") or ""),
        _text(spec, "volumeAttributesClassName", absent="<unset>"),
        _text(obj, "status", "reason", absent=""),
        _age(obj, now_ms),
        _text(spec, "volumeMode", absent="<unset>"),
    ]


def _storage_class(obj: Object, now_ms: int) -> Row:
    marks = _get(obj, "metadata", "annotations") or {}
    name = _name(obj)
    if marks.get("storageclass.kubernetes.io/is-default-class") == "true":
        name += " (default)"
    return [
        name,
        str(obj.get("provisioner") or ""),
        str(obj.get("reclaimPolicy") or "Delete"),
        str(obj.get("volumeBindingMode") or "Immediate"),
        "true" if obj.get("allowVolumeExpansion") else "false",
        _age(obj, now_ms),
    ]


def _disruption_budget(obj: Object, now_ms: int) -> Row:
    return [
        _name(obj),
        _text(obj, "spec", "minAvailable", absent="N/A"),
        _text(obj, "spec", "maxUnavailable", absent="N/A"),
        _int(obj, "status", "disruptionsAllowed"),
        _age(obj, now_ms),
    ]


def _api_service(obj: Object, now_ms: int) -> Row:
    service = _get(obj, "spec", "service")
    named = f"{service.get('namespace')}/{service.get('name')}" if isinstance(service, dict) else "Local"
    condition = _condition(obj, "Available")
    if condition is None:
        available = "Unknown"
    elif condition.get("status") == "True":
        available = "True"
    else:
        available = f"{condition.get('status')} ({condition.get('reason')})"
    return [_name(obj), named, available, _age(obj, now_ms)]


def _binding(obj: Object, now_ms: int) -> Row:
    role = obj.get("roleRef") or {}
    by: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in _list(obj, "subjects"):
        kind, name = str(subject.get("kind")), str(subject.get("name"))
        by.setdefault(kind, []).append(f"{subject.get('namespace')}/{name}" if kind == "ServiceAccount" else name)
    return [
        _name(obj),
        f"{role.get('kind')}/{role.get('name')}",
        _age(obj, now_ms),
        ", ".join(by["User"]),
        ", ".join(by["Group"]),
        ", ".join(by["ServiceAccount"]),
    ]


def _created(obj: Object, _now_ms: int) -> Row:
    return [_name(obj), _text(obj, "metadata", "creationTimestamp", absent="<unknown>")]


def _quota(obj: Object, now_ms: int) -> Row:
    def lines(wanted: bool) -> str:
        hard, used = _get(obj, "status", "hard") or {}, _get(obj, "status", "used") or {}
        return ", ".join(
            f"{key}: {used.get(key, 0)}/{hard[key]}" for key in sorted(hard) if key.startswith("limits.") is wanted
        )

    return [_name(obj), lines(False), lines(True), _age(obj, now_ms)]


def _crd_webhooks(obj: Object, now_ms: int) -> Row:
    return [_name(obj), len(_list(obj, "webhooks")), _age(obj, now_ms)]


def _network_policy(obj: Object, now_ms: int) -> Row:
    return [_name(obj), _selector(_get(obj, "spec", "podSelector")), _age(obj, now_ms)]


def _replication_controller(obj: Object, now_ms: int) -> Row:
    return _replica_set(obj, now_ms)


def _with_age(*cells: Callable[[Object], Cell]) -> Callable[[Object, int], Row]:
    return lambda obj, now_ms: [_name(obj), *(cell(obj) for cell in cells), _age(obj, now_ms)]


_WORKLOAD = "*Containers *Images *Selector"
# Column names by kind; "_" stands for a space, "*" marks -o wide, "#" an integer column.
_PRINTERS: dict[tuple[str, str], tuple[str, Callable[[Object, int], Row]]] = {
    ("", "Pod"): ("Name Ready Status Restarts Age *IP *Node *Nominated_Node *Readiness_Gates", _pod),
    ("apps", "Deployment"): (f"Name Ready #Up-to-date #Available Age {_WORKLOAD}", _deployment),
    ("apps", "ReplicaSet"): (f"Name #Desired #Current #Ready Age {_WORKLOAD}", _replica_set),
    ("", "ReplicationController"): (f"Name #Desired #Current #Ready Age {_WORKLOAD}", _replication_controller),
    ("apps", "StatefulSet"): ("Name Ready Age *Containers *Images", _stateful_set),
    ("apps", "DaemonSet"): (
        f"Name #Desired #Current #Ready #Up-to-date #Available Node_Selector Age {_WORKLOAD}",
        _daemon_set,
    ),
    ("apps", "ControllerRevision"): (
        "Name Controller #Revision Age",
        _with_age(
            lambda o: next(
                (
                    f"{str(r.get('kind')).lower()}.{str(r.get('apiVersion')).split('/')[0]}/{r.get('name')}"
                    for r in _list(o, "metadata", "ownerReferences")
                    if r.get("controller")
                ),
                "<none>",
            ),
            lambda o: _int(o, "revision"),
        ),
    ),
    ("batch", "Job"): (f"Name Status Completions Duration Age {_WORKLOAD}", _job),
    ("batch", "CronJob"): (f"Name Schedule Timezone Suspend #Active Last_Schedule Age {_WORKLOAD}", _cron_job),
    ("", "Service"): ("Name Type Cluster-IP External-IP Port(s) Age *Selector", _service),
    ("", "Node"): (
        "Name Status Roles Age Version *Internal-IP *External-IP *OS-Image *Kernel-Version *Container-Runtime",
        _node,
    ),
    ("", "Namespace"): ("Name Status Age", _with_age(lambda o: _text(o, "status", "phase", absent=""))),
    ("", "ConfigMap"): (
        "Name #Data Age",
        _with_age(lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ())),
    ),
    ("", "Secret"): (
        "Name Type #Data Age",
        _with_age(lambda o: str(o.get("type") or "Opaque"), lambda o: len(o.get("data") or ())),
    ),
    ("", "ServiceAccount"): ("Name #Secrets Age", _with_age(lambda o: len(_list(o, "secrets")))),
    ("", "Event"): ("Last_Seen Type Reason Object *Subobject *Source Message *First_Seen *#Count *Name", _event),
    ("events.k8s.io", "Event"): (
        "Last_Seen Type Reason Object *Subobject *Source Message *First_Seen *#Count *Name",
        _event,
    ),
    ("", "Endpoints"): ("Name Endpoints Age", _endpoints),
    ("", "PersistentVolumeClaim"): (
        "Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age *VolumeMode",
        _claim,
    ),
    ("", "PersistentVolume"): (
        "Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age "
        "*VolumeMode",
        _volume,
    ),
    ("", "ResourceQuota"): ("Name Request Limit Age", _quota),
    ("", "LimitRange"): ("Name Created_At", _created),
    ("autoscaling", "HorizontalPodAutoscaler"): ("Name Reference Targets MinPods #MaxPods #Replicas Age", _hpa),
    ("discovery.k8s.io", "EndpointSlice"): ("Name AddressType Ports Endpoints Age", _endpoint_slice),
    ("networking.k8s.io", "Ingress"): ("Name Class Hosts Address Ports Age", _ingress),
    ("networking.k8s.io", "IngressClass"): (
        "Name Controller Parameters Age",
        _with_age(
            lambda o: _text(o, "spec", "controller"),
            lambda o: (
                "<none>"
                if not _get(o, "spec", "parameters")
                else f"{_get(o, 'spec', 'parameters', 'kind')}/{_get(o, 'spec', 'parameters', 'name')}"
            ),
        ),
    ),
    ("networking.k8s.io", "NetworkPolicy"): ("Name Pod-Selector Age", _network_policy),
    ("coordination.k8s.io", "Lease"): (
        "Name Holder Age",
        _with_age(lambda o: _text(o, "spec", "holderIdentity", absent="")),
    ),
    ("policy", "PodDisruptionBudget"): (
        "Name Min_Available Max_Unavailable #Allowed_Disruptions Age",
        _disruption_budget,
    ),
    ("apiregistration.k8s.io", "APIService"): ("Name Service Available Age", _api_service),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): ("Name Created_At", _created),
    ("storage.k8s.io", "StorageClass"): (
        "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age",
        _storage_class,
    ),
    ("scheduling.k8s.io", "PriorityClass"): (
        "Name #Value Global-Default Age PreemptionPolicy",
        lambda o, now: [
            _name(o),
            _int(o, "value"),
            "true" if o.get("globalDefault") else "false",
            _age(o, now),
            _text(o, "preemptionPolicy"),
        ],
    ),
    ("rbac.authorization.k8s.io", "Role"): ("Name Created_At", _created),
    ("rbac.authorization.k8s.io", "ClusterRole"): ("Name Created_At", _created),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("Name Role Age *Users *Groups *ServiceAccounts", _binding),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("Name Role Age *Users *Groups *ServiceAccounts", _binding),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): ("Name #Webhooks Age", _crd_webhooks),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): ("Name #Webhooks Age", _crd_webhooks),
    ("node.k8s.io", "RuntimeClass"): ("Name Handler Age", _with_age(lambda o: _text(o, "handler", absent=""))),
}
_DEFAULT = ("Name Age", _with_age())


def columns(kind: Kind) -> list[dict[str, Any]]:
    """The ``columnDefinitions`` of a kind's Table; priority 1 means only with ``-o wide``."""
    return _columns(_PRINTERS.get((kind.group, kind.kind), _DEFAULT)[0])


def _columns(text: str) -> list[dict[str, Any]]:
    made = []
    for word in text.split():
        wide, word = word.startswith("*"), word.removeprefix("*")
        number, word = word.startswith("#"), word.removeprefix("#")
        name = word.replace("_", " ")
        form = "name" if name == "Name" else ("date" if name == "Created At" else "")
        made.append(
            {
                "name": name,
                "type": "integer" if number else "string",
                "format": form,
                "description": "",
                "priority": int(wide),
            }
        )
    return made


def table(kind: Kind, objects: Sequence[Object], now_ms: int) -> tuple[list[dict[str, Any]], list[Row]]:
    """(column definitions, one list of cells per object in the given order).

    ``now_ms`` is Unix milliseconds. Kinds without a printer of their own get NAME and AGE. The caller wraps each list
    of cells as ``{"cells": ..., "object": ...}``.
    """
    text, row = _PRINTERS.get((kind.group, kind.kind), _DEFAULT)
    return _columns(text), [row(obj, now_ms) for obj in objects]
