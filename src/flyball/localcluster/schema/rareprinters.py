"""Rows of the kinds on which nothing here acts: devices, drivers, flow control, admission policies, certificates."""

from __future__ import annotations

from typing import Any

from flyball.localcluster.schema.cells import (
    Object,
    Row,
    age_of,
    containers_of,
    human_duration,
    int_at,
    list_at,
    name_of,
    selector_text,
    text_at,
    value_at,
)


def pod_template(obj: Object, _now_ms: int) -> Row:
    names, images = containers_of(value_at(obj, "template", "spec"))
    return [name_of(obj), names, images, selector_text(value_at(obj, "template", "metadata", "labels") or {})]


def admission_policy(obj: Object, now_ms: int) -> Row:
    rules = list_at(obj, "spec", "validations") or list_at(obj, "spec", "mutations")
    kind = value_at(obj, "spec", "paramKind")
    shown = "<unset>" if kind is None else f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}"
    return [name_of(obj), len(rules), shown, age_of(obj, now_ms)]


def admission_policy_binding(obj: Object, now_ms: int) -> Row:
    reference = value_at(obj, "spec", "paramRef")
    shown = "<unset>"
    if reference is not None and reference.get("name"):
        shown = f"{reference.get('namespace') or '*'}/{reference['name']}"
    return [name_of(obj), text_at(obj, "spec", "policyName", absent=""), shown, age_of(obj, now_ms)]


def signing_request(obj: Object, now_ms: int) -> Row:
    types = {one.get("type") for one in list_at(obj, "status", "conditions")}
    state = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    state += ",Failed" if "Failed" in types else ""
    state += ",Issued" if value_at(obj, "status", "certificate") else ""
    seconds = value_at(obj, "spec", "expirationSeconds")
    duration = "<none>" if seconds is None else human_duration(seconds)
    requestor = text_at(obj, "spec", "username", absent="")
    return [name_of(obj), age_of(obj, now_ms), text_at(obj, "spec", "signerName"), requestor, duration, state]


def trust_bundle(obj: Object, _now_ms: int) -> Row:
    return [name_of(obj), text_at(obj, "spec", "signerName")]


def pod_certificate_request(obj: Object, _now_ms: int) -> Row:
    state = "Pending"
    for one in list_at(obj, "status", "conditions"):
        if one.get("type") in ("Issued", "Denied", "Failed"):
            state = one["type"]
    spec = [
        text_at(obj, "spec", name, absent="") for name in ("podName", "serviceAccountName", "nodeName", "signerName")
    ]
    return [name_of(obj), *spec, state, selector_text(value_at(obj, "spec", "unverifiedUserAnnotations") or {})]


def flow_schema(obj: Object, now_ms: int) -> Row:
    dangling = [one.get("status", "?") for one in list_at(obj, "status", "conditions") if one.get("type") == "Dangling"]
    return [
        name_of(obj),
        text_at(obj, "spec", "priorityLevelConfiguration", "name", absent=""),
        int_at(obj, "spec", "matchingPrecedence"),
        text_at(obj, "spec", "distinguisherMethod", "type"),
        age_of(obj, now_ms),
        dangling[0] if dangling else "?",
    ]


def priority_level(obj: Object, now_ms: int) -> Row:
    limited = value_at(obj, "spec", "limited") or {}
    queuing = value_at(limited, "limitResponse", "queuing") or {}
    return [
        name_of(obj),
        text_at(obj, "spec", "type", absent=""),
        limited.get("nominalConcurrencyShares", "<none>"),
        *(queuing.get(name, "<none>") for name in ("queues", "handSize", "queueLengthLimit")),
        age_of(obj, now_ms),
    ]


def ip_address(obj: Object, now_ms: int) -> Row:
    parent = value_at(obj, "spec", "parentRef")
    shown = "<none>"
    if parent is not None:
        resource = ".".join(filter(None, (parent.get("resource"), parent.get("group")))).lower()
        shown = "/".join(filter(None, (resource, parent.get("namespace"), parent.get("name"))))
    return [name_of(obj), shown, age_of(obj, now_ms)]


def service_range(obj: Object, now_ms: int) -> Row:
    return [name_of(obj), ",".join(list_at(obj, "spec", "cidrs")), age_of(obj, now_ms)]


def device_taint_rule(obj: Object, now_ms: int) -> Row:
    taint: Any = value_at(obj, "spec", "taint") or {}
    shown = [text_at(taint, name, absent="") for name in ("key", "value", "effect", "timeAdded")]
    return [name_of(obj), *shown, age_of(obj, now_ms)]


def resource_claim(obj: Object, now_ms: int) -> Row:
    gone = bool(value_at(obj, "metadata", "deletionTimestamp"))
    states = ["deleted"] if gone else []
    if value_at(obj, "status", "allocation") is not None:
        states += ["allocated"] + (["reserved"] if list_at(obj, "status", "reservedFor") else [])
    elif not gone:
        states.append("pending")
    return [name_of(obj), ",".join(states), age_of(obj, now_ms)]


def resource_slice(obj: Object, now_ms: int) -> Row:
    spec = [text_at(obj, "spec", *path, absent="") for path in (("nodeName",), ("driver",), ("pool", "name"))]
    return [name_of(obj), *spec, age_of(obj, now_ms)]


def csi_driver(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    requests = spec.get("tokenRequests")
    return [
        name_of(obj),
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        "<unset>" if requests is None else ",".join(one.get("audience", "") for one in requests),
        spec.get("requiresRepublish", False),
        ",".join(spec.get("volumeLifecycleModes") or ()) or "<none>",
        age_of(obj, now_ms),
    ]


def volume_attachment(obj: Object, now_ms: int) -> Row:
    spec = obj.get("spec") or {}
    return [
        name_of(obj),
        spec.get("attacher", ""),
        text_at(spec, "source", "persistentVolumeName", absent=""),
        spec.get("nodeName", ""),
        bool(value_at(obj, "status", "attached")),
        age_of(obj, now_ms),
    ]
