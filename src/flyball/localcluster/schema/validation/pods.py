"""Pods and pod templates."""

from __future__ import annotations

import re
from typing import Any

from flyball.localcluster.schema import quantity
from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import (
    FORBIDDEN,
    NOT_FOUND,
    Cause,
    Object,
    duplicate,
    invalid,
    quoted,
    required,
    unsupported,
)
from flyball.localcluster.schema.validation.names import label_name_problems, subdomain_problems
from flyball.localcluster.schema.validation.placement import check_placement
from flyball.localcluster.schema.validation.volumes import (
    ENVIRONMENT_FIELDS,
    check_field_reference,
    check_volumes,
)

_ENV_NAME = re.compile(r"[ -<>-~]+")
_PORT_NAME = re.compile(r"[-a-z0-9]+")


_ENV_WORDS = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def check_port_number(value: Any, field: str) -> list[Cause]:
    if not isinstance(value, int) or not 1 <= value <= 65535:
        return [invalid(field, value, "must be between 1 and 65535, inclusive")]
    return []


def _port_name_problems(text: str) -> list[str]:
    problems = []
    if len(text) > 15:
        problems.append("must be no more than 15 characters")
    if not _PORT_NAME.fullmatch(text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text[:1] == "-" or text[-1:] == "-":
        problems.append("must not begin or end with a hyphen")
    return problems


PROTOCOLS = ("SCTP", "TCP", "UDP")


def check_int_or_port(value: Any, field: str) -> list[Cause]:
    if isinstance(value, str):
        return [invalid(field, value, one) for one in _port_name_problems(value)]
    return check_port_number(value, field)


def check_non_negative(value: Any, field: str) -> list[Cause]:
    if isinstance(value, int) and value < 0:
        return [invalid(field, value, "must be greater than or equal to 0")]
    return []


def _handler(holder: Object, field: str) -> list[Cause]:
    """What a probe or a lifecycle hook does."""
    actions = [name for name in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if holder.get(name) is not None]
    causes = [Cause(f"{field}.{one}", FORBIDDEN, "may not specify more than 1 handler type") for one in actions[1:]]
    for name in actions[:1]:
        action, where = holder[name], f"{field}.{name}"
        if name == "exec" and not action.get("command"):
            causes.append(required(f"{where}.command"))
        if name == "httpGet" and not action.get("path", "/"):
            causes.append(required(f"{where}.path"))
        if name in ("httpGet", "tcpSocket"):
            causes += check_int_or_port(action.get("port", 0), f"{where}.port")
        scheme = action.get("scheme")
        if scheme and scheme not in ("HTTP", "HTTPS"):
            causes.append(unsupported(f"{where}.scheme", scheme, ("HTTP", "HTTPS")))
    return causes if actions else [required(field, "must specify a handler type")]


def _probe(probe: Any, field: str, startup_or_liveness: bool) -> list[Cause]:
    if not isinstance(probe, dict):
        return []
    causes = _handler(probe, field)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes += check_non_negative(probe.get(name), f"{field}.{name}")
    if startup_or_liveness and probe.get("successThreshold") not in (None, 0, 1):
        causes.append(invalid(f"{field}.successThreshold", probe["successThreshold"], "must be 1"))
    return causes


def _resources(resources: Any, field: str) -> list[Cause]:
    if not isinstance(resources, dict):
        return []
    causes = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for part, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            where = f"{field}.{part}[{name}]"
            try:
                value = quantity.parse(amount)
            except ValueError as error:
                causes.append(invalid(where, amount, str(error)))
                continue
            if value < 0:
                causes.append(invalid(where, str(amount), "must be greater than or equal to 0"))
            if (
                "/" not in name
                and name not in ("cpu", "memory", "ephemeral-storage")
                and not name.startswith("hugepages-")
            ):
                causes.append(invalid(where, name, "must be a standard resource for containers"))
    for name, amount in requests.items():
        if name in limits:
            try:
                above = quantity.parse(amount) > quantity.parse(limits[name])
            except ValueError:
                continue
            if above:
                causes.append(
                    invalid(
                        f"{field}.requests",
                        str(amount),
                        f"must be less than or equal to {name} limit of {limits[name]}",
                    )
                )
    return causes


def _env(env: Any, field: str) -> list[Cause]:
    causes = []
    for index, one in enumerate(env or ()):
        where = f"{field}[{index}]"
        name = one.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
        elif not _ENV_NAME.fullmatch(name):
            causes.append(invalid(f"{where}.name", name, _ENV_WORDS))
        source = one.get("valueFrom")
        if isinstance(source, dict):
            chosen = [key for key, value in source.items() if value is not None]
            if not chosen:
                causes.append(
                    invalid(
                        f"{where}.valueFrom",
                        "",
                        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or "
                        "`fileKeyRef`",
                    )
                )
            elif len(chosen) > 1:
                causes.append(invalid(f"{where}.valueFrom", "", "may not have more than one field specified at a time"))
            if one.get("value"):
                causes.append(invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
            for key in ("configMapKeyRef", "secretKeyRef"):
                if isinstance(source.get(key), dict) and not source[key].get("key"):
                    causes.append(required(f"{where}.valueFrom.{key}.key"))
            if isinstance(source.get("fieldRef"), dict):
                causes += check_field_reference(source["fieldRef"], ENVIRONMENT_FIELDS, f"{where}.valueFrom.fieldRef")
    return causes


def _container(container: Object, field: str, names: set[str], volumes: set[str], init: bool) -> list[Cause]:
    causes = []
    name = container.get("name") or ""
    if not name:
        causes.append(required(f"{field}.name"))
    else:
        causes += [invalid(f"{field}.name", name, one) for one in label_name_problems(name)]
        if name in names:
            causes.append(duplicate(f"{field}.name", name))
        names.add(name)
    image = container.get("image") or ""
    if not image:
        causes.append(required(f"{field}.image"))
    elif image != image.strip():
        causes.append(invalid(f"{field}.image", image, "must not have leading or trailing whitespace"))
    policy = container.get("imagePullPolicy")
    if policy and policy not in ("Always", "IfNotPresent", "Never"):
        causes.append(unsupported(f"{field}.imagePullPolicy", policy, ("Always", "IfNotPresent", "Never")))
    seen: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        where = f"{field}.ports[{index}]"
        if port.get("name"):
            problems = _port_name_problems(port["name"])
            causes += [invalid(f"{where}.name", port["name"], one) for one in problems]
            if not problems and port["name"] in seen:
                causes.append(duplicate(f"{where}.name", port["name"]))
            seen.add(port["name"])
        if not port.get("containerPort"):
            causes.append(required(f"{where}.containerPort"))
        else:
            causes += check_port_number(port["containerPort"], f"{where}.containerPort")
        if port.get("hostPort"):
            causes += check_port_number(port["hostPort"], f"{where}.hostPort")
        protocol = port.get("protocol", "TCP")
        if protocol not in PROTOCOLS:
            causes.append(unsupported(f"{where}.protocol", protocol, PROTOCOLS))
    causes += _env(container.get("env"), f"{field}.env")
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.get("name"):
            causes.append(required(f"{where}.name"))
        elif mount["name"] not in volumes:
            causes.append(Cause(f"{where}.name", NOT_FOUND, quoted(mount["name"])))
        path = mount.get("mountPath") or ""
        if not path:
            causes.append(required(f"{where}.mountPath"))
        elif path in mounted:
            causes.append(invalid(f"{where}.mountPath", path, "must be unique"))
        mounted.add(path)
    causes += _resources(container.get("resources"), f"{field}.resources")
    hooks = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        if isinstance(hooks.get(hook), dict):
            causes += _handler(hooks[hook], f"{field}.lifecycle.{hook}")
    sidecar = container.get("restartPolicy") == "Always"
    if not init or sidecar:
        causes += _probe(container.get("livenessProbe"), f"{field}.livenessProbe", True)
        causes += _probe(container.get("readinessProbe"), f"{field}.readinessProbe", False)
        causes += _probe(container.get("startupProbe"), f"{field}.startupProbe", True)
    else:
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(probe) is not None:
                causes.append(
                    Cause(
                        f"{field}.{probe}", FORBIDDEN, "may not be set for init containers without restartPolicy=Always"
                    )
                )
    return causes


def check_pod_spec(spec: Any, field: str) -> list[Cause]:
    spec = spec if isinstance(spec, dict) else {}
    causes, volumes = check_volumes(spec.get("volumes"), f"{field}.volumes")
    names: set[str] = set()
    containers = spec.get("containers") or []
    if not containers:
        causes.append(required(f"{field}.containers"))
    for index, one in enumerate(containers):
        causes += _container(one, f"{field}.containers[{index}]", names, volumes, init=False)
    for index, one in enumerate(spec.get("initContainers") or ()):
        causes += _container(one, f"{field}.initContainers[{index}]", names, volumes, init=True)
    for name, allowed in (
        ("restartPolicy", ("Always", "OnFailure", "Never")),
        ("dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")),
    ):
        if spec.get(name) and spec[name] not in allowed:
            causes.append(unsupported(f"{field}.{name}", spec[name], allowed, in_order=True))
    deadline = spec.get("activeDeadlineSeconds")
    if isinstance(deadline, int) and deadline < 1:
        causes.append(
            invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
        )
    causes += check_placement(spec, field)
    for name in ("serviceAccountName", "nodeName", "priorityClassName"):
        if spec.get(name):
            causes += [invalid(f"{field}.{name}", spec[name], one) for one in subdomain_problems(spec[name])]
    if spec.get("hostname"):
        causes += [invalid(f"{field}.hostname", spec["hostname"], one) for one in label_name_problems(spec["hostname"])]
    return causes


_POD_MUTABLE = ("activeDeadlineSeconds", "schedulingGates")


_EPHEMERAL_NEVER = (
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "startupProbe",
)


def _ephemeral(spec: Object, old: Object) -> list[Cause]:
    """The containers that were added while the pod runs: they are none that others rely on, and stay as they are."""
    field, causes = "spec.ephemeralContainers", []
    others = [one.get("name") for group in ("containers", "initContainers") for one in spec.get(group) or ()]
    names, added = set(others), spec.get("ephemeralContainers") or ()
    _, volumes = check_volumes(spec.get("volumes"), "spec.volumes")
    for index, one in enumerate(added):
        at, target, name = f"{field}[{index}]", one.get("targetContainerName"), one.get("name")
        if name in names:
            causes.append(duplicate(f"{at}.name", name))
        causes += _container(one, at, set(), volumes, init=False)
        names.add(name)
        if target and target not in others:
            causes.append(Cause(f"{at}.targetContainerName", NOT_FOUND, quoted(target)))
        forbidden = [key for key in _EPHEMERAL_NEVER if one.get(key)]
        causes += [Cause(f"{at}.{key}", FORBIDDEN, "cannot be set for an Ephemeral Container") for key in forbidden]
    now = {one.get("name"): one for one in added}
    for one in old.get("ephemeralContainers") or ():
        if now.get(one["name"]) != one:
            what = "changed" if one["name"] in now else "removed"
            text = f'existing ephemeral containers "{one["name"]}" may not be {what}\n'
            causes.append(Cause(field, FORBIDDEN, text))
    return causes


def check_pod(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    causes = check_pod_spec(obj.get("spec"), "spec")
    if old is not None and (obj["spec"].get("ephemeralContainers") or old["spec"].get("ephemeralContainers")):
        causes += _ephemeral(obj["spec"], old["spec"])
    if old is not None and not causes:
        new_spec, old_spec = dict(obj.get("spec") or {}), dict(old.get("spec") or {})
        new_tolerations, old_tolerations = (one.pop("tolerations", None) or () for one in (new_spec, old_spec))
        only_added = all(one in new_tolerations for one in old_tolerations)
        if len(new_spec.get("containers") or ()) != len(old_spec.get("containers") or ()):
            return [Cause("spec.containers", FORBIDDEN, "pod updates may not add or remove containers")]
        if not only_added or _frozen_pod(new_spec) != _frozen_pod(old_spec):
            causes.append(
                Cause(
                    "spec",
                    FORBIDDEN,
                    "pod updates may not change fields other than `spec.containers[*].image`,"
                    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
                    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 "
                    "if it was previously negative)",
                )
            )
    return causes


def _frozen_pod(spec: Object) -> Object:
    """What an update of a pod must leave alone; resources change by the resize subresource, seen here too."""
    kept = {key: value for key, value in spec.items() if key not in _POD_MUTABLE and key != "ephemeralContainers"}
    for group in ("containers", "initContainers"):
        if kept.get(group):
            kept[group] = [
                {key: value for key, value in one.items() if key not in ("image", "resources")} for one in kept[group]
            ]
    return kept
