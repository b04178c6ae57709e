"""Subresources that do something of their own: scale, binding, eviction."""

from typing import Any

import msgspec

from flyball.clock import now_ms, rfc3339
from flyball.localcluster import eviction as eviction_rules
from flyball.localcluster import failures, patching
from flyball.localcluster.answers import answer_object, is_dry_run, writer_of
from flyball.localcluster.objects import Objects
from flyball.localcluster.registry import Served
from flyball.localcluster.requests import PATCH_TYPES, Request
from flyball.localcluster.schema import Kind

Object = dict[str, Any]

_SCALE_KIND = Kind("autoscaling", "v1", "Scale", "scales", "scale")
_SCALE = Served(_SCALE_KIND, _SCALE_KIND)
_SCALABLE = frozenset({"apps/deployments", "apps/replicasets", "apps/statefulsets", "/replicationcontrollers"})


async def answer_scale(objects: Objects, request: Request, served: Served, namespace: str, name: str) -> None:
    record = objects.get(served, namespace, name)
    if request.method == "GET":
        await answer_object(request, _SCALE, 200, scale_of(served, record.object))
        return
    current = scale_of(served, record.object)
    if request.method == "PUT":
        scale = await request.object()
    elif request.method == "PATCH":
        how = PATCH_TYPES.get(request.content_type)
        if how not in ("json", "merge", "strategic"):
            raise failures.unsupported_media_type(list(PATCH_TYPES)[:3])
        try:
            patch = msgspec.json.decode(await request.body())
        except msgspec.DecodeError as exc:
            raise failures.bad_request(f"error decoding patch: {exc}") from exc
        scale = patching.json_patch(current, patch) if how == "json" else patching.merge_patch(current, patch)
    else:
        raise failures.method_not_allowed()
    record = objects.get(served, namespace, name)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if not isinstance(replicas, int) or replicas < 0:
        cause = {
            "reason": "FieldValueInvalid",
            "message": f"Invalid value: {replicas}: must be greater than or equal to 0",
            "field": "spec.replicas",
        }
        raise failures.invalid("autoscaling", "Scale", name, [cause])
    obj = record.copy()
    given = (scale.get("metadata") or {}).get("resourceVersion")
    if given and request.method == "PUT" and given != obj["metadata"]["resourceVersion"]:
        raise failures.conflict(served.kind.group, served.kind.plural, name)
    _set_path(obj, served.scale_paths()[0], replicas)
    updated = objects.update(
        Served(served.storage, served.storage, served.crd_version),
        namespace,
        name,
        obj,
        writer=writer_of(request, served, "scale"),
        dry_run=is_dry_run(request),
    )
    await answer_object(request, _SCALE, 200, scale_of(served, updated))


async def answer_binding(objects: Objects, request: Request, served: Served, namespace: str, name: str) -> None:
    if request.method != "POST":
        raise failures.method_not_allowed()
    binding = await request.object()
    if (binding.get("metadata") or {}).get("name") != name:
        raise failures.bad_request("name in URL does not match name in Binding object")
    target = (binding.get("target") or {}).get("name")
    if not target:
        cause = {"reason": "FieldValueRequired", "message": "Required value", "field": "target.name"}
        raise failures.invalid("", "Binding", name, [cause])
    obj = objects.get(served, namespace, name).copy()
    spec = obj.setdefault("spec", {})
    if spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
        raise failures.conflict("", "pods/binding", name, why)
    if obj["metadata"].get("deletionTimestamp"):
        raise failures.conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if not is_dry_run(request):
        spec["nodeName"] = target
        conditions = [
            c for c in (obj.setdefault("status", {}).get("conditions") or []) if c.get("type") != "PodScheduled"
        ]
        conditions.append(
            {
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": rfc3339(now_ms()),
            }
        )
        obj["status"]["conditions"] = conditions
        obj["status"].pop("nominatedNodeName", None)
        objects.storage.put(served.store, namespace, name, obj)
    await request.answer_object(
        201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    )


async def answer_eviction(objects: Objects, request: Request, served: Served, namespace: str, name: str) -> None:
    if request.method != "POST":
        raise failures.method_not_allowed()
    eviction = await request.object()
    options = eviction.get("deleteOptions") or {}
    dry_run = is_dry_run(request) or bool(options.get("dryRun"))
    eviction_rules.allow(objects.storage, objects.get(served, namespace, name).object, dry_run=dry_run)
    objects.delete(served, namespace, name, dict(options), dry_run=dry_run)
    await request.answer_object(
        201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    )


def _path(text: str) -> list[str]:
    return [part for part in text.lstrip(".").split(".") if part]


def _get_path(obj: Any, text: str) -> Any:
    for part in _path(text):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _set_path(obj: Object, text: str, value: Any) -> None:
    parts = _path(text)
    for part in parts[:-1]:
        obj = obj.setdefault(part, {})
    obj[parts[-1]] = value


def scale_of(served: Served, obj: Object) -> Object:
    """autoscaling/v1 Scale of a scalable object (storage version)."""
    spec_path, status_path, selector_path = served.scale_paths()
    metadata = obj["metadata"]
    kept = {
        k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if k in metadata
    }
    status: Object = {"replicas": _get_path(obj, status_path) or 0}
    if served.store in _SCALABLE:
        selector = selector_text((obj.get("spec") or {}).get("selector"))
    else:
        selector = str(_get_path(obj, selector_path) or "") if selector_path else ""
    if selector:
        status["selector"] = selector
    replicas = _get_path(obj, spec_path)
    spec = {} if replicas is None else {"replicas": replicas}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept, "spec": spec, "status": status}


def selector_text(selector: Any) -> str:
    """A LabelSelector (or a plain label map) as a selector string, keys in order."""
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))
    terms = [(k, f"{k}={v}") for k, v in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression.get("key", ""), expression.get("operator")
        values = ",".join(sorted(expression.get("values") or []))
        text = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
        }
        terms.append((key, text.get(str(operator), key)))
    return ",".join(term for _, term in sorted(terms))
