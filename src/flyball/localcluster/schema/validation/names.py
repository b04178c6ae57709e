"""Names, labels, annotations, selectors, owner references: what all kinds share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flyball.localcluster.schema.kinds import Kind
from flyball.localcluster.schema.validation.causes import FORBIDDEN, TOO_LONG, Cause, Object, invalid, required

_LABEL_FORM = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_FORM = rf"{_LABEL_FORM}(\.{_LABEL_FORM})*"
_QUALIFIED_FORM = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE_FORM = f"({_QUALIFIED_FORM})?"
_CONFIG_KEY_FORM = "[-._a-zA-Z0-9]+"
_DNS1035_FORM = "[a-z]([-a-z0-9]*[a-z0-9])?"
_DNS1035 = re.compile(_DNS1035_FORM)
_WILDCARD_FORM = rf"\*\.{_SUBDOMAIN_FORM}"
_WILDCARD = re.compile(_WILDCARD_FORM)
_LABEL = re.compile(_LABEL_FORM)
_SUBDOMAIN = re.compile(_SUBDOMAIN_FORM)
_QUALIFIED = re.compile(_QUALIFIED_FORM)
_VALUE = re.compile(_VALUE_FORM)
CONFIG_KEY = re.compile(_CONFIG_KEY_FORM)


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
_WILDCARD_WORDS = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    f"regex used for validation is '{_WILDCARD_FORM}')"
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
CONFIG_KEY_WORDS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    f"'key-name', regex used for validation is '{_CONFIG_KEY_FORM}')"
)


def too_long(most: int) -> str:
    return f"must be no more than {most} characters"


def label_name_problems(text: str) -> list[str]:
    problems = [too_long(63)] if len(text) > 63 else []
    if not _LABEL.fullmatch(text):
        problems.append("must not contain dots" if _SUBDOMAIN.fullmatch(text) else _LABEL_WORDS)
    return problems


def dns1035_problems(text: str) -> list[str]:
    return ([too_long(63)] if len(text) > 63 else []) + ([] if _DNS1035.fullmatch(text) else [_DNS1035_WORDS])


def wildcard_problems(text: str) -> list[str]:
    """A host that stands for all below it (``*.example.com``)."""
    problems = [too_long(253)] if len(text) > 253 else []
    return problems if _WILDCARD.fullmatch(text) else [*problems, _WILDCARD_WORDS]


def subdomain_problems(text: str) -> list[str]:
    return ([too_long(253)] if len(text) > 253 else []) + ([] if _SUBDOMAIN.fullmatch(text) else [_SUBDOMAIN_WORDS])


def path_segment_problems(text: str) -> list[str]:
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in text]


def qualified_problems(text: str) -> list[str]:
    """A label or annotation key: an optional subdomain, a slash, a name."""
    prefix, slash, name = text.rpartition("/")
    problems = []
    if slash:
        if "/" in prefix:
            return [
                f"a valid label key {_QUALIFIED_WORDS} with an optional DNS subdomain prefix and '/' (e.g. "
                "'example.com/MyName')"
            ]
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += [f"prefix part {one}" for one in subdomain_problems(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append(f"name part {too_long(63)}")
    if not _QUALIFIED.fullmatch(name):
        problems.append(f"name part {_QUALIFIED_WORDS}")
    return problems


def label_value_problems(text: str) -> list[str]:
    return (["must be no more than 63 bytes"] if len(text) > 63 else []) + (
        [] if _VALUE.fullmatch(text) else [_VALUE_WORDS]
    )


def check_labels(labels: Any, field: str) -> list[Cause]:
    causes = []
    for key, value in (labels or {}).items():
        causes += [invalid(field, key, one) for one in qualified_problems(str(key))]
        causes += [invalid(field, value, one) for one in label_value_problems(str(value))]
    return causes


def check_selector(selector: Any, field: str) -> list[Cause]:
    """A LabelSelector."""
    causes = check_labels((selector or {}).get("matchLabels"), f"{field}.matchLabels")
    for index, one in enumerate((selector or {}).get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        operator, values = one.get("operator"), one.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
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
            causes.append(invalid(f"{where}.operator", operator, "not a valid selector operator"))
        causes += [
            invalid(f"{where}.key", one.get("key"), text) for text in qualified_problems(str(one.get("key") or ""))
        ]
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


_LABEL_NAMED = {("", "Namespace"), ("", "Service")}
_PATH_NAMED = {"rbac.authorization.k8s.io"}


def _name_rule(kind: Kind) -> Callable[[str], list[str]]:
    if (kind.group, kind.kind) in _LABEL_NAMED:
        return label_name_problems
    if kind.group in _PATH_NAMED:
        return path_segment_problems
    return subdomain_problems


_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def _finalizer_problems(text: str, field: str) -> list[Cause]:
    causes = [invalid(field, text, one) for one in qualified_problems(text)]
    if not causes and "/" not in text and text not in _STANDARD_FINALIZERS:
        causes.append(invalid(field, text, "name is neither a standard finalizer name nor is it fully qualified"))
    return causes


_CHECKED = ("labels", "annotations", "finalizers", "ownerReferences")


def check_metadata(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """What equals ``old``, the stored object, was found right before."""
    metadata = obj.get("metadata") or {}
    before = (old or {}).get("metadata") or {}
    causes = []
    name, prefix = metadata.get("name") or "", metadata.get("generateName") or ""
    rule = _name_rule(kind)
    if not name and not prefix:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif name and old is None and not prefix:
        causes += [invalid("metadata.name", name, one) for one in rule(name)]
    elif prefix and old is None:
        causes += [invalid("metadata.generateName", prefix, one) for one in rule(prefix.rstrip("-") or "a")]
    namespace = metadata.get("namespace") or ""
    if kind.namespaced and namespace != before.get("namespace"):
        causes += [
            invalid("metadata.namespace", namespace, one)
            for one in (label_name_problems(namespace) if namespace else [])
        ]
    elif namespace and not kind.namespaced:
        causes.append(Cause("metadata.namespace", FORBIDDEN, "not allowed on this type"))
    new = {name: metadata[name] for name in _CHECKED if name in metadata and metadata[name] != before.get(name)}
    causes += check_labels(new.get("labels"), "metadata.labels")
    size = 0
    for key, value in (new.get("annotations") or {}).items():
        causes += [invalid("metadata.annotations", key, one) for one in qualified_problems(str(key).lower())]
        size += len(str(key)) + len(str(value))
    if size > 256 * 1024:
        causes.append(Cause("metadata.annotations", TOO_LONG, "may not be more than 262144 bytes"))
    for index, finalizer in enumerate(new.get("finalizers") or ()):
        causes += _finalizer_problems(str(finalizer), f"metadata.finalizers[{index}]")
    for index, owner in enumerate(new.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                causes.append(required(f"metadata.ownerReferences[{index}].{field}", "must not be empty"))
    if sum(1 for owner in new.get("ownerReferences") or () if owner.get("controller")) > 1:
        causes.append(
            invalid(
                "metadata.ownerReferences",
                metadata["ownerReferences"],
                "Only one reference can have Controller set to true",
            )
        )
    if old is not None:
        for field in ("name", "namespace", "uid"):
            if metadata.get(field) and before.get(field) and metadata[field] != before[field]:
                causes.append(invalid(f"metadata.{field}", metadata[field], "field is immutable"))
    return causes
