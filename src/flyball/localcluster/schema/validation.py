"""Whether an object's values are allowed, in upstream's words.

Sources: the ``validation`` packages of Kubernetes 1.37. Causes come in upstream's order, as far as it matters to a
reader; `Cause.message` is one line of the answer kubectl prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flyball.localcluster.schema import quantity
from flyball.localcluster.schema.kinds import Kind

Object = dict[str, Any]

REQUIRED = "Required value"
INVALID = "Invalid value"
DUPLICATE = "Duplicate value"
UNSUPPORTED = "Unsupported value"
FORBIDDEN = "Forbidden"
TOO_LONG = "Too long"
NOT_FOUND = "Not found"

_REASONS = {
    REQUIRED: "FieldValueRequired",
    INVALID: "FieldValueInvalid",
    DUPLICATE: "FieldValueDuplicate",
    UNSUPPORTED: "FieldValueNotSupported",
    FORBIDDEN: "FieldValueForbidden",
    TOO_LONG: "FieldValueTooLong",
    NOT_FOUND: "FieldValueNotFound",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: ``field`` a path, ``type`` upstream's words, ``detail`` what follows them."""

    field: str
    type: str
    detail: str

    @property
    def message(self) -> str:
        """As kubectl prints it: ``spec.replicas: Invalid value: -1: must be greater than or equal to 0``."""
        return f"{self.field}: {self.type}: {self.detail}" if self.detail else f"{self.field}: {self.type}"

    @property
    def reason(self) -> str:
        """The machine word of a Status' cause (``FieldValueRequired``...)."""
        return _REASONS[self.type]


def _quoted(value: Any) -> str:
    """A value as Go prints it in a field error."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        import msgspec

        return msgspec.json.encode(value).decode()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return "null" if value is None else str(value)


def _required(field: str, detail: str = "") -> Cause:
    return Cause(field, REQUIRED, detail)


def _invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, INVALID, f"{_quoted(value)}: {detail}")


def _unsupported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    shown = ", ".join(f'"{one}"' for one in sorted(supported))
    return Cause(field, UNSUPPORTED, f"{_quoted(value)}: supported values: {shown}")


def _duplicate(field: str, value: Any) -> Cause:
    return Cause(field, DUPLICATE, _quoted(value))


# --- names and labels -----------------------------------------------------------------------------------------------

_LABEL_FORM = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_FORM = rf"{_LABEL_FORM}(\.{_LABEL_FORM})*"
_DNS1035_FORM = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED_FORM = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE_FORM = f"({_QUALIFIED_FORM})?"
_CONFIG_KEY_FORM = "[-._a-zA-Z0-9]+"
_LABEL = re.compile(_LABEL_FORM)
_SUBDOMAIN = re.compile(_SUBDOMAIN_FORM)
_DNS1035 = re.compile(_DNS1035_FORM)
_QUALIFIED = re.compile(_QUALIFIED_FORM)
_VALUE = re.compile(_VALUE_FORM)
_CONFIG_KEY = re.compile(_CONFIG_KEY_FORM)
_ENV_NAME = re.compile(r"[ -<>-~]+")
_PORT_NAME = re.compile(r"[-a-z0-9]+")

_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL_FORM}')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN_FORM}')"
)
_DNS1035_WORDS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    f"and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_DNS1035_FORM}')"
)
_QUALIFIED_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED_FORM}')"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE_FORM}')"
)
_CONFIG_KEY_WORDS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    f"'key-name', regex used for validation is '{_CONFIG_KEY_FORM}')"
)
_ENV_WORDS = (
    "a valid environment variable name must consist only of printable ASCII characters other than '=' (e.g. "
    "'my.env-name', or 'MY_ENV.NAME')"
)


def _too_long(most: int) -> str:
    return f"must be no more than {most} characters"


def _label_name(text: str) -> list[str]:
    return ([_too_long(63)] if len(text) > 63 else []) + ([] if _LABEL.fullmatch(text) else [_LABEL_WORDS])


def _subdomain(text: str) -> list[str]:
    return ([_too_long(253)] if len(text) > 253 else []) + ([] if _SUBDOMAIN.fullmatch(text) else [_SUBDOMAIN_WORDS])


def _dns1035(text: str) -> list[str]:
    return ([_too_long(63)] if len(text) > 63 else []) + ([] if _DNS1035.fullmatch(text) else [_DNS1035_WORDS])


def _path_segment(text: str) -> list[str]:
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in text]


def _qualified(text: str) -> list[str]:
    """A label or annotation key: an optional subdomain, a slash, a name."""
    prefix, slash, name = text.rpartition("/")
    problems = []
    if slash:
        if "/" in prefix:
            return [
                f"a qualified name {_QUALIFIED_WORDS} with an optional DNS subdomain prefix and '/' (e.g. "
                "'example.com/MyName')"
            ]
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += [f"prefix part {one}" for one in _subdomain(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append(f"name part {_too_long(63)}")
    if not _QUALIFIED.fullmatch(name):
        problems.append(f"name part {_QUALIFIED_WORDS}")
    return problems


def _label_value(text: str) -> list[str]:
    return ([_too_long(63)] if len(text) > 63 else []) + ([] if _VALUE.fullmatch(text) else [_VALUE_WORDS])


def _labels(labels: Any, field: str) -> list[Cause]:
    causes = []
    for key, value in (labels or {}).items():
        causes += [_invalid(field, key, one) for one in _qualified(str(key))]
        causes += [_invalid(field, value, one) for one in _label_value(str(value))]
    return causes


def _selector(selector: Any, field: str) -> list[Cause]:
    """A LabelSelector."""
    causes = _labels((selector or {}).get("matchLabels"), f"{field}.matchLabels")
    for index, one in enumerate((selector or {}).get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        operator, values = one.get("operator"), one.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(_required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                causes.append(
                    Cause(
                        f"{where}.values",
                        FORBIDDEN,
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    )
                )
        else:
            causes.append(_invalid(f"{where}.operator", operator, "not a valid selector operator"))
        causes += [_invalid(f"{where}.key", one.get("key"), text) for text in _qualified(str(one.get("key") or ""))]
    return causes


def matches(selector: Any, labels: Any) -> bool:
    """Whether a LabelSelector selects these labels."""
    labels = labels or {}
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for one in selector.get("matchExpressions") or ():
        key, values, operator = one.get("key"), one.get("values") or [], one.get("operator")
        held = {
            "In": key in labels and labels[key] in values,
            "NotIn": key not in labels or labels[key] not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held.get(str(operator), False):
            return False
    return True


_LABEL_NAMED = {("", "Namespace")}
_DNS1035_NAMED = {("", "Service")}
_PATH_NAMED = {"rbac.authorization.k8s.io"}


def _name_rule(kind: Kind) -> Callable[[str], list[str]]:
    if (kind.group, kind.kind) in _LABEL_NAMED:
        return _label_name
    if (kind.group, kind.kind) in _DNS1035_NAMED:
        return _dns1035
    if kind.group in _PATH_NAMED:
        return _path_segment
    return _subdomain


def _metadata(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    metadata = obj.get("metadata") or {}
    causes = []
    name, prefix = metadata.get("name") or "", metadata.get("generateName") or ""
    rule = _name_rule(kind)
    if not name and not prefix:
        causes.append(_required("metadata.name", "name or generateName is required"))
    elif name and old is None:
        causes += [_invalid("metadata.name", name, one) for one in rule(name)]
    elif prefix and not name:
        causes += [_invalid("metadata.generateName", prefix, one) for one in rule(prefix.rstrip("-") or "a")]
    namespace = metadata.get("namespace") or ""
    if kind.namespaced:
        causes += [
            _invalid("metadata.namespace", namespace, one) for one in (_label_name(namespace) if namespace else [])
        ]
    elif namespace:
        causes.append(Cause("metadata.namespace", FORBIDDEN, "not allowed on this type"))
    causes += _labels(metadata.get("labels"), "metadata.labels")
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        causes += [_invalid("metadata.annotations", key, one) for one in _qualified(str(key).lower())]
        size += len(str(key)) + len(str(value))
    if size > 256 * 1024:
        causes.append(Cause("metadata.annotations", TOO_LONG, "may not be more than 262144 bytes"))
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                causes.append(
                    _invalid(f"metadata.ownerReferences[{index}].{field}", owner.get(field) or "", "must not be empty")
                )
    if sum(1 for owner in metadata.get("ownerReferences") or () if owner.get("controller")) > 1:
        causes.append(
            _invalid(
                "metadata.ownerReferences",
                metadata["ownerReferences"],
                "Only one reference can have Controller set to true",
            )
        )
    if old is not None:
        before = old.get("metadata") or {}
        for field in ("name", "namespace", "uid"):
            if metadata.get(field) and before.get(field) and metadata[field] != before[field]:
                causes.append(_invalid(f"metadata.{field}", metadata[field], "field is immutable"))
    return causes


# --- pods -----------------------------------------------------------------------------------------------------------


def _port_number(value: Any, field: str) -> list[Cause]:
    if not isinstance(value, int) or not 1 <= value <= 65535:
        return [_invalid(field, value, "must be between 1 and 65535, inclusive")]
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


_PROTOCOLS = ("SCTP", "TCP", "UDP")


def _int_or_port(value: Any, field: str) -> list[Cause]:
    if isinstance(value, str):
        return [_invalid(field, value, one) for one in _port_name_problems(value)]
    return _port_number(value, field)


def _non_negative(value: Any, field: str) -> list[Cause]:
    if isinstance(value, int) and value < 0:
        return [_invalid(field, value, "must be greater than or equal to 0")]
    return []


def _probe(probe: Any, field: str, startup_or_liveness: bool) -> list[Cause]:
    if not isinstance(probe, dict):
        return []
    causes = []
    actions = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(name) is not None]
    if not actions:
        causes.append(_required(field, "must specify a handler type"))
    for extra in actions[1:]:
        causes.append(Cause(f"{field}.{extra}", FORBIDDEN, "may not specify more than 1 handler type"))
    if probe.get("exec") is not None and not probe["exec"].get("command"):
        causes.append(_required(f"{field}.exec.command"))
    for name in ("httpGet", "tcpSocket"):
        if probe.get(name) is not None:
            if "port" not in probe[name]:
                causes.append(_invalid(f"{field}.{name}.port", 0, "must be between 1 and 65535, inclusive"))
            else:
                causes += _int_or_port(probe[name]["port"], f"{field}.{name}.port")
    if probe.get("httpGet") is not None and not probe["httpGet"].get("path", "/"):
        causes.append(_required(f"{field}.httpGet.path"))
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes += _non_negative(probe.get(name), f"{field}.{name}")
    if startup_or_liveness and probe.get("successThreshold") not in (None, 0, 1):
        causes.append(_invalid(f"{field}.successThreshold", probe["successThreshold"], "must be 1"))
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
                causes.append(_invalid(where, amount, str(error)))
                continue
            if value < 0:
                causes.append(_invalid(where, str(amount), "must be greater than or equal to 0"))
            if (
                "/" not in name
                and name not in ("cpu", "memory", "ephemeral-storage")
                and not name.startswith("hugepages-")
            ):
                causes.append(_invalid(where, name, "must be a standard resource for containers"))
    for name, amount in requests.items():
        if name in limits:
            try:
                above = quantity.parse(amount) > quantity.parse(limits[name])
            except ValueError:
                continue
            if above:
                causes.append(
                    _invalid(
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
            causes.append(_required(f"{where}.name"))
        elif not _ENV_NAME.fullmatch(name):
            causes.append(_invalid(f"{where}.name", name, _ENV_WORDS))
        source = one.get("valueFrom")
        if isinstance(source, dict):
            chosen = [key for key, value in source.items() if value is not None]
            if not chosen:
                causes.append(
                    _invalid(
                        f"{where}.valueFrom",
                        "",
                        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or "
                        "`fileKeyRef`",
                    )
                )
            elif len(chosen) > 1:
                causes.append(
                    _invalid(f"{where}.valueFrom", "", "may not have more than one field specified at a time")
                )
            if one.get("value"):
                causes.append(_invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
            for key in ("configMapKeyRef", "secretKeyRef"):
                if isinstance(source.get(key), dict) and not source[key].get("key"):
                    causes.append(_required(f"{where}.valueFrom.{key}.key"))
            if isinstance(source.get("fieldRef"), dict) and not source["fieldRef"].get("fieldPath"):
                causes.append(_required(f"{where}.valueFrom.fieldRef.fieldPath"))
    return causes


def _container(container: Object, field: str, names: set[str], volumes: set[str], init: bool) -> list[Cause]:
    causes = []
    name = container.get("name") or ""
    if not name:
        causes.append(_required(f"{field}.name"))
    else:
        causes += [_invalid(f"{field}.name", name, one) for one in _label_name(name)]
        if name in names:
            causes.append(_duplicate(f"{field}.name", name))
        names.add(name)
    image = container.get("image") or ""
    if not image:
        causes.append(_required(f"{field}.image"))
    elif image != image.strip():
        causes.append(_invalid(f"{field}.image", image, "must not have leading or trailing whitespace"))
    policy = container.get("imagePullPolicy")
    if policy and policy not in ("Always", "IfNotPresent", "Never"):
        causes.append(_unsupported(f"{field}.imagePullPolicy", policy, ("Always", "IfNotPresent", "Never")))
    seen: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        where = f"{field}.ports[{index}]"
        if port.get("name"):
            problems = _port_name_problems(port["name"])
            causes += [_invalid(f"{where}.name", port["name"], one) for one in problems]
            if not problems and port["name"] in seen:
                causes.append(_duplicate(f"{where}.name", port["name"]))
            seen.add(port["name"])
        if not port.get("containerPort"):
            causes.append(_required(f"{where}.containerPort"))
        else:
            causes += _port_number(port["containerPort"], f"{where}.containerPort")
        if port.get("hostPort"):
            causes += _port_number(port["hostPort"], f"{where}.hostPort")
        protocol = port.get("protocol", "TCP")
        if protocol not in _PROTOCOLS:
            causes.append(_unsupported(f"{where}.protocol", protocol, _PROTOCOLS))
    causes += _env(container.get("env"), f"{field}.env")
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.get("name"):
            causes.append(_required(f"{where}.name"))
        elif mount["name"] not in volumes:
            causes.append(Cause(f"{where}.name", NOT_FOUND, _quoted(mount["name"])))
        path = mount.get("mountPath") or ""
        if not path:
            causes.append(_required(f"{where}.mountPath"))
        elif path in mounted:
            causes.append(_invalid(f"{where}.mountPath", path, "must be unique"))
        mounted.add(path)
    causes += _resources(container.get("resources"), f"{field}.resources")
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


def _pod_spec(spec: Any, field: str) -> list[Cause]:
    spec = spec if isinstance(spec, dict) else {}
    causes = []
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        where = f"{field}.volumes[{index}]"
        name = volume.get("name") or ""
        if not name:
            causes.append(_required(f"{where}.name"))
        else:
            causes += [_invalid(f"{where}.name", name, one) for one in _label_name(name)]
            if name in volumes:
                causes.append(_duplicate(f"{where}.name", name))
        volumes.add(name)
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        for extra in sources[1:]:
            causes.append(Cause(f"{where}.{extra}", FORBIDDEN, "may not specify more than 1 volume type"))
        secret = volume.get("secret")
        if isinstance(secret, dict) and not secret.get("secretName"):
            causes.append(_required(f"{where}.secret.secretName"))
        config = volume.get("configMap")
        if isinstance(config, dict) and not config.get("name"):
            causes.append(_required(f"{where}.configMap.name"))
    names: set[str] = set()
    containers = spec.get("containers") or []
    if not containers:
        causes.append(_required(f"{field}.containers"))
    for index, one in enumerate(containers):
        causes += _container(one, f"{field}.containers[{index}]", names, volumes, init=False)
    for index, one in enumerate(spec.get("initContainers") or ()):
        causes += _container(one, f"{field}.initContainers[{index}]", names, volumes, init=True)
    for name, allowed in (
        ("restartPolicy", ("Always", "OnFailure", "Never")),
        ("dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")),
    ):
        if spec.get(name) and spec[name] not in allowed:
            causes.append(_unsupported(f"{field}.{name}", spec[name], allowed))
    causes += _non_negative(spec.get("terminationGracePeriodSeconds"), f"{field}.terminationGracePeriodSeconds")
    deadline = spec.get("activeDeadlineSeconds")
    if isinstance(deadline, int) and deadline < 1:
        causes.append(
            _invalid(f"{field}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
        )
    causes += _labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    for name in ("serviceAccountName", "nodeName", "priorityClassName"):
        if spec.get(name):
            causes += [_invalid(f"{field}.{name}", spec[name], one) for one in _subdomain(spec[name])]
    if spec.get("hostname"):
        causes += [_invalid(f"{field}.hostname", spec["hostname"], one) for one in _label_name(spec["hostname"])]
    return causes


_POD_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName", "schedulingGates")


def _pod(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    causes = _pod_spec(obj.get("spec"), "spec")
    if old is not None and not causes:
        new_spec, old_spec = dict(obj.get("spec") or {}), dict(old.get("spec") or {})
        if len(new_spec.get("containers") or ()) != len(old_spec.get("containers") or ()):
            return [Cause("spec.containers", FORBIDDEN, "pod updates may not add or remove containers")]
        if _frozen_pod(new_spec) != _frozen_pod(old_spec):
            causes.append(
                Cause(
                    "spec",
                    FORBIDDEN,
                    "pod updates may not change fields other than `spec.containers[*].image`, "
                    "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only "
                    "additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 "
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


# --- workloads ------------------------------------------------------------------------------------------------------


def _template(spec: Object, field: str = "spec.template", restart: tuple[str, ...] = ("Always",)) -> list[Cause]:
    template = spec.get("template")
    if not isinstance(template, dict):
        return [_required(field)] if restart != ("Always",) else _pod_spec(None, f"{field}.spec")
    metadata, pod = template.get("metadata") or {}, template.get("spec") or {}
    causes = _labels(metadata.get("labels"), f"{field}.labels")
    causes += _pod_spec(pod, f"{field}.spec")
    policy = pod.get("restartPolicy")
    if policy and policy not in restart and policy in ("Always", "OnFailure", "Never"):
        if restart == ("Always",):
            causes.append(_unsupported(f"{field}.spec.restartPolicy", policy, restart))
        else:
            causes.append(
                Cause(f"{field}.spec.restartPolicy", REQUIRED, 'valid values: "OnFailure", "Never"')
                if policy == "Always"
                else _unsupported(f"{field}.spec.restartPolicy", policy, restart)
            )
    return causes


def _workload(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """Deployments, ReplicaSets, StatefulSets, DaemonSets: selector, template, replicas."""
    spec = obj.get("spec") or {}
    causes = []
    if "replicas" in spec:
        causes += _non_negative(spec["replicas"], "spec.replicas")
    for name in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        causes += _non_negative(spec.get(name), f"spec.{name}")
    selector = spec.get("selector")
    if selector is None:
        causes.append(_required("spec.selector"))
    else:
        causes += _selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.append(_invalid("spec.selector", selector, f"empty selector is invalid for {_plain(kind.kind)}"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if selector and not matches(selector, labels):
        causes.append(_invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    causes += _template(spec)
    if kind.kind == "Deployment":
        causes += _strategy(spec)
    if old is not None:
        before = (old.get("spec") or {}).get("selector")
        if before is not None and selector != before:
            causes.append(_invalid("spec.selector", selector, "field is immutable"))
        if kind.kind == "StatefulSet":
            for name in ("serviceName", "podManagementPolicy", "volumeClaimTemplates"):
                if (old.get("spec") or {}).get(name) != spec.get(name):
                    causes.append(
                        Cause(
                            "spec",
                            FORBIDDEN,
                            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                            "'minReadySeconds' are forbidden",
                        )
                    )
                    break
    return causes


def _plain(kind: str) -> str:
    return {"ReplicaSet": "deployment", "StatefulSet": "statefulset", "DaemonSet": "daemonset"}.get(kind, kind.lower())


def _percent_or_count(value: Any, field: str) -> list[Cause]:
    if isinstance(value, str):
        if not re.fullmatch("[0-9]+%", value):
            return [
                _invalid(
                    field,
                    value,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                    "regex used for validation is '[0-9]+%')",
                )
            ]
        return []
    return _non_negative(value, field)


def _strategy(spec: Object) -> list[Cause]:
    strategy = spec.get("strategy") or {}
    kind, rolling = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate")
    field = "spec.strategy"
    if kind == "Recreate":
        if rolling is not None:
            return [
                Cause(f"{field}.rollingUpdate", FORBIDDEN, "may not be specified when strategy `type` is 'Recreate'")
            ]
        return []
    if kind != "RollingUpdate":
        return [_unsupported(f"{field}.type", kind, ("Recreate", "RollingUpdate"))]
    rolling = rolling or {}
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    causes = _percent_or_count(unavailable, f"{field}.rollingUpdate.maxUnavailable")
    causes += _percent_or_count(surge, f"{field}.rollingUpdate.maxSurge")
    if unavailable in (0, "0%") and surge in (0, "0%"):
        causes.append(
            _invalid(f"{field}.rollingUpdate.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
        )
    if isinstance(unavailable, str) and re.fullmatch("[0-9]+%", unavailable) and int(unavailable[:-1]) > 100:
        causes.append(_invalid(f"{field}.rollingUpdate.maxUnavailable", unavailable, "must not be greater than 100%"))
    progress, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds", 0)
    if isinstance(progress, int) and isinstance(ready, int) and progress <= ready:
        causes.append(_invalid("spec.progressDeadlineSeconds", progress, "must be greater than minReadySeconds"))
    return causes


def _job(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    for name in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        causes += _non_negative(spec.get(name), f"spec.{name}")
    causes += _template(spec, restart=("OnFailure", "Never"))
    if old is not None:
        before = old.get("spec") or {}
        for name in ("selector", "completionMode"):
            if before.get(name) is not None and spec.get(name) != before[name]:
                causes.append(_invalid(f"spec.{name}", spec.get(name), "field is immutable"))
        if not before.get("suspend") and before.get("template") != spec.get("template"):
            causes.append(_invalid("spec.template", spec.get("template"), "field is immutable"))
    return causes


def _cron_job(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    schedule = spec.get("schedule") or ""
    if not schedule:
        causes.append(_required("spec.schedule"))
    elif not schedule.startswith("@") and len(schedule.split()) != 5:
        found = len(schedule.split())
        causes.append(_invalid("spec.schedule", schedule, f"expected exactly 5 fields, found {found}: [{schedule}]"))
    policy = spec.get("concurrencyPolicy")
    if policy and policy not in ("Allow", "Forbid", "Replace"):
        causes.append(_unsupported("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace")))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    causes += _template(job, "spec.jobTemplate.spec.template", ("OnFailure", "Never"))
    return causes


# --- the rest -------------------------------------------------------------------------------------------------------


def _service(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    kind = spec.get("type", "ClusterIP")
    if kind not in types:
        causes.append(_unsupported("spec.type", kind, types))
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and kind != "ExternalName":
        causes.append(_required("spec.ports"))
    if kind == "ExternalName":
        name = spec.get("externalName") or ""
        if not name:
            causes.append(_required("spec.externalName"))
        else:
            causes += [_invalid("spec.externalName", name, one) for one in _subdomain(name.rstrip("."))]
    if headless and kind in ("NodePort", "LoadBalancer"):
        causes.append(_invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    seen_names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name:
            if len(ports) > 1:
                causes.append(_required(f"{where}.name"))
        else:
            causes += [_invalid(f"{where}.name", name, one) for one in _label_name(name)]
            if name in seen_names:
                causes.append(_duplicate(f"{where}.name", name))
            seen_names.add(name)
        causes += _port_number(port.get("port", 0), f"{where}.port")
        protocol = port.get("protocol", "TCP")
        if protocol not in _PROTOCOLS:
            causes.append(_unsupported(f"{where}.protocol", protocol, _PROTOCOLS))
        if port.get("targetPort") is not None:
            causes += _int_or_port(port["targetPort"], f"{where}.targetPort")
        if port.get("nodePort"):
            if kind not in ("NodePort", "LoadBalancer"):
                causes.append(Cause(f"{where}.nodePort", FORBIDDEN, f"may not be used when `type` is '{kind}'"))
            else:
                causes += _port_number(port["nodePort"], f"{where}.nodePort")
        key = (protocol, port.get("port"))
        if key in seen:
            causes.append(Cause(where, DUPLICATE, _quoted({"protocol": protocol, "port": port.get("port")})))
        seen.add(key)
    causes += _labels(spec.get("selector"), "spec.selector")
    if spec.get("sessionAffinity") not in (None, "None", "ClientIP"):
        causes.append(_unsupported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
    if old is not None and kind != "ExternalName":
        before = old.get("spec") or {}
        same = before.get("type") == kind
        if same and before.get("clusterIP") and spec.get("clusterIP") and before["clusterIP"] != spec["clusterIP"]:
            causes.append(_invalid("spec.clusterIPs[0]", [spec["clusterIP"]], "may not change once set"))
    return causes


def _keyed(data: Any, field: str) -> list[Cause]:
    causes = []
    for key in data or {}:
        if len(key) > 253:
            causes.append(_invalid(f"{field}[{key}]", key, _too_long(253)))
        if not _CONFIG_KEY.fullmatch(key):
            causes.append(_invalid(f"{field}[{key}]", key, _CONFIG_KEY_WORDS))
        elif key in (".", "..") or key.startswith(".."):
            causes.append(
                _invalid(
                    f"{field}[{key}]",
                    key,
                    f"must not {'be' if key in ('.', '..') else 'start with'} '..'"
                    if key != "."
                    else "must not be '.'",
                )
            )
    return causes


_MOST_BYTES = 1024 * 1024


def _config_map(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    causes = _keyed(data, "data")
    causes += [_invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
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


def _secret(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    import binascii

    causes = _keyed(obj.get("data"), "data")
    for key, value in (obj.get("data") or {}).items():
        try:
            binascii.a2b_base64(str(value), strict_mode=bool(value))
        except binascii.Error:
            causes.append(_invalid(f"data[{key}]", "<secret>", "illegal base64 data"))
    if old is not None:
        if old.get("type") and obj.get("type") != old["type"]:
            causes.append(_invalid("type", obj.get("type"), "field is immutable"))
        if old.get("immutable") and (old.get("data") or {}) != (obj.get("data") or {}):
            causes.append(Cause("data", FORBIDDEN, "field is immutable when `immutable` is set"))
    return causes


def _binding(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    role = obj.get("roleRef") or {}
    causes = []
    if not role.get("name"):
        causes.append(_required("roleRef.name"))
    if role.get("kind") not in ("Role", "ClusterRole"):
        causes.append(_unsupported("roleRef.kind", role.get("kind") or "", ("ClusterRole", "Role")))
    for index, subject in enumerate(obj.get("subjects") or ()):
        if not subject.get("name"):
            causes.append(_required(f"subjects[{index}].name"))
    if old is not None and old.get("roleRef") != obj.get("roleRef"):
        causes.append(_invalid("roleRef", obj.get("roleRef"), "cannot change roleRef"))
    return causes


def _role(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    causes = []
    for index, rule in enumerate(obj.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(_required(f"{where}.verbs", "verbs must contain at least one value"))
        if not rule.get("nonResourceURLs"):
            if not rule.get("apiGroups"):
                causes.append(_required(f"{where}.apiGroups", "resource rules must supply at least one api group"))
            if not rule.get("resources"):
                causes.append(_required(f"{where}.resources", "resource rules must supply at least one resource"))
    return causes


def _disruption_budget(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        causes.append(_invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for name in ("minAvailable", "maxUnavailable"):
        if spec.get(name) is not None:
            causes += _percent_or_count(spec[name], f"spec.{name}")
    return causes + _selector(spec.get("selector"), "spec.selector")


def _ingress(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(_invalid("spec", [], "either `defaultBackend` or `rules` must be specified"))
    for index, rule in enumerate(spec.get("rules") or ()):
        for position, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            where = f"spec.rules[{index}].http.paths[{position}]"
            kind = path.get("pathType")
            if not kind:
                causes.append(_required(f"{where}.pathType", "pathType must be specified"))
            elif kind not in ("Exact", "Prefix", "ImplementationSpecific"):
                causes.append(_unsupported(f"{where}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix")))
            elif kind != "ImplementationSpecific" and not str(path.get("path") or "").startswith("/"):
                causes.append(_invalid(f"{where}.path", path.get("path") or "", "must be an absolute path"))
    return causes


def _api_service(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    group, version = spec.get("group") or "", spec.get("version") or ""
    name = (obj.get("metadata") or {}).get("name") or ""
    causes = []
    if not version:
        causes.append(_required("spec.version"))
    elif name != f"{version}.{group}":
        causes.append(
            _invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: {_quoted(f"{version}.{group}")}')
        )
    for field in ("groupPriorityMinimum", "versionPriority"):
        most = 20000 if field == "groupPriorityMinimum" else 1000
        value = spec.get(field, 0)
        if not isinstance(value, int) or not 0 < value <= most:
            causes.append(_invalid(f"spec.{field}", value, f"must be positive and less than {most}"))
    service = spec.get("service")
    if isinstance(service, dict):
        for field in ("namespace", "name"):
            if not service.get(field):
                causes.append(_required(f"spec.service.{field}"))
        causes += _port_number(service.get("port", 443), "spec.service.port")
        if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
            causes.append(_invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    elif spec.get("caBundle") or spec.get("insecureSkipTLSVerify"):
        name = "caBundle" if spec.get("caBundle") else "insecureSkipTLSVerify"
        causes.append(_invalid(f"spec.{name}", spec[name], "local APIServices may not have this set"))
    return causes


def _definition(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group") or ""
    causes = []
    wanted = f"{names.get('plural') or ''}.{group}"
    name = (obj.get("metadata") or {}).get("name") or ""
    if name != wanted:
        causes.append(_invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        causes.append(_required("spec.group"))
    elif "." not in group:
        causes.append(_invalid("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        causes.append(_unsupported("spec.scope", spec.get("scope") or "", ("Cluster", "Namespaced")))
    versions = spec.get("versions") or []
    if not versions:
        causes.append(_required("spec.versions"))
    if versions and sum(1 for one in versions if one.get("storage")) != 1:
        causes.append(_invalid("spec.versions", versions, "must have exactly one version marked as storage version"))
    for index, one in enumerate(versions):
        if not (one.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(_required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    for field in ("plural", "kind"):
        if not names.get(field):
            causes.append(_required(f"spec.names.{field}"))
    if old is not None and (old.get("spec") or {}).get("scope") not in (None, spec.get("scope")):
        causes.append(_invalid("spec.scope", spec.get("scope"), "field is immutable"))
    return causes


def _lease(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    duration = spec.get("leaseDurationSeconds")
    causes = []
    if isinstance(duration, int) and duration <= 0:
        causes.append(_invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    return causes + _non_negative(spec.get("leaseTransitions"), "spec.leaseTransitions")


def _storage_class(_kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    causes = [] if obj.get("provisioner") else [_required("provisioner")]
    for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if old is not None and (old.get(field) or None) != (obj.get(field) or None):
            causes.append(Cause(field, FORBIDDEN, f"updates to {field} are forbidden."))
    return causes


def _event(_kind: Kind, obj: Object, _old: Object | None) -> list[Cause]:
    target = obj.get("involvedObject") or obj.get("regarding") or {}
    namespace = (obj.get("metadata") or {}).get("namespace")
    if target.get("namespace") and namespace and target["namespace"] != namespace:
        return [_invalid("involvedObject.namespace", target["namespace"], "does not match event.namespace")]
    return []


# --- horizontal pod autoscalers -------------------------------------------------------------------------------------

_METRIC_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_ONE_TO_ZERO = "must specify at least one Object or External metric to support scaling to zero replicas"


def _hpa(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    zero_allowed = old is not None and (old.get("spec") or {}).get("minReplicas") == 0
    floor = 0 if zero_allowed else 1
    if isinstance(least, int) and least < floor:
        causes.append(_invalid("spec.minReplicas", least, f"must be greater than or equal to {floor}"))
    if not isinstance(most, int) or most < 1:
        causes.append(_invalid("spec.maxReplicas", most, "must be greater than 0"))
    if isinstance(least, int) and isinstance(most, int) and most < least:
        causes.append(_invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    causes += _reference(spec.get("scaleTargetRef"), "spec.scaleTargetRef")
    if kind.version == "v1":
        target = spec.get("targetCPUUtilizationPercentage")
        if isinstance(target, int) and target < 1:
            causes.append(_invalid("spec.targetCPUUtilizationPercentage", target, "must be greater than 0"))
        return causes
    metrics = spec.get("metrics") or []
    for index, metric in enumerate(metrics):
        field = f"spec.metrics[{index}]"
        causes += _metric(metric, field)
    if least == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        causes.append(Cause("spec.metrics", FORBIDDEN, _ONE_TO_ZERO))
    behavior = spec.get("behavior")
    if isinstance(behavior, dict):
        for side in ("scaleUp", "scaleDown"):
            if isinstance(behavior.get(side), dict):
                causes += _rules(behavior[side], f"spec.behavior.{side}")
    return causes


def _reference(reference: Any, field: str) -> list[Cause]:
    reference = reference if isinstance(reference, dict) else {}
    causes = []
    for name in ("kind", "name"):
        value = reference.get(name) or ""
        if not value:
            causes.append(_required(f"{field}.{name}"))
        else:
            causes += [_invalid(f"{field}.{name}", value, one) for one in _path_segment(value)]
    return causes


def _metric(metric: Object, field: str) -> list[Cause]:
    kind = metric.get("type") or ""
    if not kind:
        return [_required(f"{field}.type", "must specify a metric source type")]
    if kind not in _METRIC_SOURCES:
        return [_unsupported(f"{field}.type", kind, _METRIC_SOURCES)]
    given = [name for name in sorted(_METRIC_SOURCES.values()) if metric.get(name) is not None]
    wanted = _METRIC_SOURCES[kind]
    if wanted not in given:
        return [_required(f"{field}.{wanted}", "must populate information for the given metric source")]
    causes = [
        Cause(f"{field}.{name}", FORBIDDEN, "must populate the given metric source only")
        for name in given
        if name != wanted
    ]
    source, where = metric[wanted], f"{field}.{wanted}"
    target = source.get("target") or {}
    if kind in ("Resource", "ContainerResource"):
        name = source.get("name") or ""
        causes += [] if name else [_required(f"{where}.name", "must specify a resource name")]
        if kind == "ContainerResource":
            container = source.get("container") or ""
            if not container:
                causes.append(_required(f"{where}.container", "must specify a container"))
            else:
                causes += [_invalid(f"{where}.container", container, one) for one in _label_name(container)]
    else:
        if kind == "Object":
            causes += _reference(source.get("describedObject"), f"{where}.describedObject")
        identifier = source.get("metric") or {}
        name = identifier.get("name") or ""
        if not name:
            causes.append(_required(f"{where}.metric.name", "must specify a metric name"))
        else:
            causes += [_invalid(f"{where}.metric.name", name, one) for one in _path_segment(name)]
        if identifier.get("selector") is not None:
            causes += _selector(identifier["selector"], f"{where}.metric.selector")
    return causes + _target(kind, target, f"{where}.target")


def _target(kind: str, target: Object, field: str) -> list[Cause]:
    causes = []
    form = target.get("type") or ""
    if not form:
        causes.append(_required(f"{field}.type", "must specify a metric target type"))
    elif form not in ("Utilization", "Value", "AverageValue"):
        causes.append(_invalid(f"{field}.type", form, "must be either Utilization, Value, or AverageValue"))
    for name in ("value", "averageValue"):
        amount = target.get(name)
        if amount is not None:
            try:
                positive = quantity.parse(amount) > 0
            except ValueError as error:
                causes.append(_invalid(f"{field}.{name}", amount, str(error)))
                continue
            if not positive:
                causes.append(_invalid(f"{field}.{name}", str(amount), "must be positive"))
    utilization = target.get("averageUtilization")
    if isinstance(utilization, int) and utilization < 1:
        causes.append(_invalid(f"{field}.averageUtilization", utilization, "must be greater than 0"))
    has_value, has_average = target.get("value") is not None, target.get("averageValue") is not None
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and not has_average:
            causes.append(
                _required(f"{field}.averageUtilization", "must set either a target raw value or a target utilization")
            )
        if utilization is not None and has_average:
            causes.append(
                Cause(
                    f"{field}.averageValue",
                    FORBIDDEN,
                    "may not set both a target raw value and a target utilization",
                )
            )
    elif kind == "Pods":
        if not has_average:
            causes.append(_required(f"{field}.averageValue", "must specify a positive target averageValue"))
    elif kind == "Object":
        if not has_value and not has_average:
            causes.append(_required(f"{field}.averageValue", "must set either a target value or averageValue"))
    elif kind == "External":
        if not has_value and not has_average:
            causes.append(
                _required(f"{field}.averageValue", "must set either a target value for metric or a per-pod target")
            )
        if has_value and has_average:
            causes.append(
                Cause(f"{field}.value", FORBIDDEN, "may not set both a target value for metric and a per-pod target")
            )
    return causes


def _rules(rules: Object, field: str) -> list[Cause]:
    causes = []
    window = rules.get("stabilizationWindowSeconds")
    if isinstance(window, int):
        if window < 0:
            causes.append(
                _invalid(f"{field}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
            )
        elif window > 3600:
            causes.append(_invalid(f"{field}.stabilizationWindowSeconds", window, "must be less than or equal to 3600"))
    choice = rules.get("selectPolicy")
    if choice is not None and choice not in ("Max", "Min", "Disabled"):
        causes.append(_unsupported(f"{field}.selectPolicy", choice, ("Disabled", "Max", "Min")))
    policies = rules.get("policies")
    if not policies:
        causes.append(_required(f"{field}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies or ()):
        where = f"{field}.policies[{index}]"
        if policy.get("type") not in ("Pods", "Percent"):
            causes.append(_unsupported(f"{where}.type", policy.get("type") or "", ("Percent", "Pods")))
        value, period = policy.get("value", 0), policy.get("periodSeconds", 0)
        if not isinstance(value, int) or value <= 0:
            causes.append(_invalid(f"{where}.value", value, "must be greater than zero"))
        if not isinstance(period, int) or period <= 0:
            causes.append(_invalid(f"{where}.periodSeconds", period, "must be greater than zero"))
        elif period > 1800:
            causes.append(_invalid(f"{where}.periodSeconds", period, "must be less than or equal to 1800"))
    tolerance = rules.get("tolerance")
    if tolerance is not None:
        try:
            negative = quantity.parse(tolerance) < 0
        except ValueError as error:
            causes.append(_invalid(f"{field}.tolerance", tolerance, str(error)))
        else:
            if negative:
                causes.append(_invalid(f"{field}.tolerance", str(tolerance), "must be greater or equal to zero"))
    return causes


_HANDLERS: dict[tuple[str, str], Callable[[Kind, Object, Object | None], list[Cause]]] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "ConfigMap"): _config_map,
    ("", "Secret"): _secret,
    ("", "Event"): _event,
    ("apps", "Deployment"): _workload,
    ("apps", "ReplicaSet"): _workload,
    ("apps", "StatefulSet"): _workload,
    ("apps", "DaemonSet"): _workload,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): _hpa,
    ("policy", "PodDisruptionBudget"): _disruption_budget,
    ("networking.k8s.io", "Ingress"): _ingress,
    ("apiregistration.k8s.io", "APIService"): _api_service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("coordination.k8s.io", "Lease"): _lease,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("rbac.authorization.k8s.io", "RoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "Role"): _role,
    ("rbac.authorization.k8s.io", "ClusterRole"): _role,
}


def validate(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object's values, after defaulting; empty when it may be stored.

    ``old`` is the stored object on an update, None on a create. JSON types must already be right (`type_errors`).
    """
    if "create" in kind.verbs and "get" not in kind.verbs:
        return []  # review kinds are answered, never stored
    causes = _metadata(kind, obj, old)
    handler = _HANDLERS.get((kind.group, kind.kind))
    return causes + handler(kind, obj, old) if handler is not None else causes
