"""The other kinds, each in a function of its own."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import (
    FORBIDDEN,
    TOO_LONG,
    Cause,
    Object,
    duplicate,
    invalid,
    quoted,
    required,
    unsupported,
)
from flyball.localcluster.schema.validation.names import (
    CONFIG_KEY,
    CONFIG_KEY_WORDS,
    check_labels,
    check_selector,
    label_name_problems,
    subdomain_problems,
    too_long,
    wildcard_problems,
)
from flyball.localcluster.schema.validation.pods import (
    PROTOCOLS,
    check_int_or_port,
    check_non_negative,
    check_port_number,
)
from flyball.localcluster.schema.validation.workloads import check_percent_or_count

# How upstream shows a port that stands twice: its internal type with only the two fields that must differ.
_SAME_PORT = {"Name": "", "Protocol": "", "AppProtocol": None, "Port": 0, "TargetPort": 0, "NodePort": 0}


def check_service(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    kind = spec.get("type", "ClusterIP")
    is_outside = kind in ("NodePort", "LoadBalancer")
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and kind != "ExternalName":
        causes.append(required("spec.ports"))
    if kind == "ExternalName":
        name = spec.get("externalName") or ""
        if not name:
            causes.append(required("spec.externalName"))
        else:
            causes += [invalid("spec.externalName", name, one) for one in subdomain_problems(name.rstrip("."))]
    if headless and is_outside:
        causes.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    seen_names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name:
            if len(ports) > 1:
                causes.append(required(f"{where}.name"))
        else:
            causes += [invalid(f"{where}.name", name, one) for one in label_name_problems(name)]
            if name in seen_names:
                causes.append(duplicate(f"{where}.name", name))
            seen_names.add(name)
        causes += check_port_number(port.get("port", 0), f"{where}.port")
        protocol = port.get("protocol", "TCP")
        if protocol not in PROTOCOLS:
            causes.append(unsupported(f"{where}.protocol", protocol, PROTOCOLS))
        if port.get("targetPort") is not None:
            causes += check_int_or_port(port["targetPort"], f"{where}.targetPort")
        if port.get("nodePort"):
            if not is_outside:
                causes.append(Cause(f"{where}.nodePort", FORBIDDEN, f"may not be used when `type` is '{kind}'"))
            else:
                causes += check_port_number(port["nodePort"], f"{where}.nodePort")
        key = (protocol, port.get("port"))
        if key in seen:
            causes.append(duplicate(where, _SAME_PORT | {"Protocol": protocol, "Port": port.get("port")}))
        seen.add(key)
    causes += check_labels(spec.get("selector"), "spec.selector")
    if kind not in types:
        causes.append(unsupported("spec.type", kind, types))
    outside = spec.get("externalTrafficPolicy")
    if outside is not None and not is_outside:
        why = "may only be set for externally-accessible services"
        causes.append(invalid("spec.externalTrafficPolicy", outside, why))
    elif outside not in (None, "Cluster", "Local"):
        causes.append(unsupported("spec.externalTrafficPolicy", outside, ("Cluster", "Local")))
    if spec.get("sessionAffinity") not in (None, "None", "ClientIP"):
        causes.append(unsupported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
    if old is not None and kind != "ExternalName":
        before = old.get("spec") or {}
        same = before.get("type") == kind
        if same and before.get("clusterIP") and spec.get("clusterIP") and before["clusterIP"] != spec["clusterIP"]:
            causes.append(invalid("spec.clusterIPs[0]", [spec["clusterIP"]], "may not change once set"))
    return causes


def _keyed(data: Any, field: str) -> list[Cause]:
    causes = []
    for key in data or {}:
        if len(key) > 253:
            causes.append(invalid(f"{field}[{key}]", key, too_long(253)))
        if not CONFIG_KEY.fullmatch(key):
            causes.append(invalid(f"{field}[{key}]", key, CONFIG_KEY_WORDS))
        elif key in (".", "..") or key.startswith(".."):
            causes.append(
                invalid(
                    f"{field}[{key}]",
                    key,
                    f"must not {'be' if key in ('.', '..') else 'start with'} '..'"
                    if key != "."
                    else "must not be '.'",
                )
            )
    return causes


_MOST_BYTES = 1024 * 1024


def check_config_map(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    causes = _keyed(data, "data")
    causes += [invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
    causes += _keyed(binary, "binaryData")
    size = sum(len(str(value).encode()) for value in data.values()) + sum(len(str(v)) * 3 // 4 for v in binary.values())
    if size > _MOST_BYTES:
        causes.append(Cause("", TOO_LONG, f"may not be more than {_MOST_BYTES} bytes"))
    if old is not None and old.get("immutable"):
        if not obj.get("immutable"):
            causes.append(Cause("immutable", FORBIDDEN, "field is immutable when `immutable` is set"))
        for name in ("data", "binaryData"):
            if (old.get(name) or {}) != (obj.get(name) or {}):
                causes.append(Cause(name, FORBIDDEN, "field is immutable when `immutable` is set"))
    return causes


_SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def check_secret(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    causes = _keyed(obj.get("data"), "data")
    for key in _SECRET_KEYS.get(str(obj.get("type")), ()):
        if key not in (obj.get("data") or {}):
            causes.append(required(f"data[{key}]"))
    if old is not None:
        if old.get("type") and obj.get("type") != old["type"]:
            causes.append(invalid("type", obj.get("type"), "field is immutable"))
        if old.get("immutable") and (old.get("data") or {}) != (obj.get("data") or {}):
            causes.append(Cause("data", FORBIDDEN, "field is immutable when `immutable` is set"))
    return causes


def check_signing_request(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    request = (obj.get("spec") or {}).get("request") or ""
    if _pem_blocks(b64decode(request), "CERTIFICATE REQUEST"):
        return []
    return [invalid("spec.request", request, "PEM block type must be CERTIFICATE REQUEST")]


def check_trust_bundle(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    if _pem_blocks(((obj.get("spec") or {}).get("trustBundle") or "").encode(), "CERTIFICATE"):
        return []
    return [invalid("spec.trustBundle", "<value omitted>", "at least one trust anchor must be provided")]


def _pem_blocks(text: bytes, kind: str) -> int:
    return text.count(f"-----BEGIN {kind}-----".encode())


_SUBJECTS = ("ServiceAccount", "User", "Group")


def check_binding(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    role = obj.get("roleRef") or {}
    causes = []
    if role.get("kind") not in ("Role", "ClusterRole"):
        causes.append(unsupported("roleRef.kind", role.get("kind") or "", ("Role", "ClusterRole"), in_order=True))
    for index, subject in enumerate(obj.get("subjects") or ()):
        if subject.get("kind") not in _SUBJECTS:
            causes.append(unsupported(f"subjects[{index}].kind", subject.get("kind") or "", _SUBJECTS, in_order=True))
        if not subject.get("name"):
            causes.append(required(f"subjects[{index}].name"))
    if not role.get("name"):
        causes.append(required("roleRef.name"))
    if old is not None and old.get("roleRef") != obj.get("roleRef"):
        causes.append(invalid("roleRef", obj.get("roleRef"), "cannot change roleRef"))
    return causes


def check_role(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    causes = []
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{where}.verbs"))
        if not rule.get("nonResourceURLs"):
            if not rule.get("apiGroups"):
                causes.append(required(f"{where}.apiGroups", "resource rules must supply at least one api group"))
            if not rule.get("resources"):
                causes.append(required(f"{where}.resources", "resource rules must supply at least one resource"))
    return causes


_BUDGET_FIELDS = ("minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy")


def check_disruption_budget(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        shown = {name[:1].upper() + name[1:]: spec.get(name) for name in _BUDGET_FIELDS}
        causes.append(invalid("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
    for name in ("minAvailable", "maxUnavailable"):
        if spec.get(name) is not None:
            causes += check_percent_or_count(spec[name], f"spec.{name}")
    return causes + check_selector(spec.get("selector"), "spec.selector")


def check_ingress(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(invalid("spec", None, "either `defaultBackend` or `rules` must be specified"))
    for index, rule in enumerate(spec.get("rules") or ()):
        causes += _host(rule.get("host") or "", f"spec.rules[{index}].host")
        for position, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            where = f"spec.rules[{index}].http.paths[{position}]"
            kind = path.get("pathType")
            if not kind:
                causes.append(required(f"{where}.pathType", "pathType must be specified"))
            elif kind not in ("Exact", "Prefix", "ImplementationSpecific"):
                causes.append(unsupported(f"{where}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix")))
            elif kind != "ImplementationSpecific" and not str(path.get("path") or "").startswith("/"):
                causes.append(invalid(f"{where}.path", path.get("path") or "", "must be an absolute path"))
            backend = path.get("backend") or {}
            if not backend.get("service") and not backend.get("resource"):
                causes.append(invalid(f"{where}.backend", "", "resource or service backend is required"))
    return causes + _secured_hosts(spec)


def _secured_hosts(spec: Object) -> list[Cause]:
    causes = []
    for index, one in enumerate(spec.get("tls") or ()):
        for position, host in enumerate(one.get("hosts") or ()):
            problems = wildcard_problems(host) if "*" in host else subdomain_problems(host)
            causes += [invalid(f"spec.tls[{index}].hosts[{position}]", host, text) for text in problems]
    return causes


def _host(host: str, field: str) -> list[Cause]:
    if not host:
        return []
    if "*" in host:
        return [invalid(field, host, one) for one in wildcard_problems(host)]
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", host):
        return [invalid(field, host, "must be a DNS name, not an IP address")]
    return [invalid(field, host, one) for one in subdomain_problems(host)]


def check_claim(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    """PersistentVolumeClaims."""
    spec = obj.get("spec") or {}
    causes = []
    if not spec.get("accessModes"):
        causes.append(required("spec.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        causes.append(required("spec.resources[storage]"))
    return causes


def check_api_service(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    group, version = spec.get("group") or "", spec.get("version") or ""
    name = (obj.get("metadata") or {}).get("name") or ""
    causes = []
    if not version:
        causes.append(required("spec.version"))
    elif name != f"{version}.{group}":
        causes.append(
            invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: {quoted(f"{version}.{group}")}')
        )
    for field in ("groupPriorityMinimum", "versionPriority"):
        most = 20000 if field == "groupPriorityMinimum" else 1000
        value = spec.get(field, 0)
        if not isinstance(value, int) or not 0 < value <= most:
            causes.append(invalid(f"spec.{field}", value, f"must be positive and less than {most}"))
    service = spec.get("service")
    if isinstance(service, dict):
        for field in ("namespace", "name"):
            if not service.get(field):
                causes.append(required(f"spec.service.{field}"))
        causes += check_port_number(service.get("port", 443), "spec.service.port")
        if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
            causes.append(invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    elif spec.get("caBundle") or spec.get("insecureSkipTLSVerify"):
        name = "caBundle" if spec.get("caBundle") else "insecureSkipTLSVerify"
        causes.append(invalid(f"spec.{name}", spec[name], "local APIServices may not have this set"))
    return causes


def check_lease(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    duration = spec.get("leaseDurationSeconds")
    causes = []
    if isinstance(duration, int) and duration <= 0:
        causes.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    return causes + check_non_negative(spec.get("leaseTransitions"), "spec.leaseTransitions")


def check_storage_class(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    causes = [] if obj.get("provisioner") else [required("provisioner")]
    for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if old is not None and (old.get(field) or None) != (obj.get(field) or None):
            causes.append(Cause(field, FORBIDDEN, f"updates to {field} are forbidden."))
    return causes
