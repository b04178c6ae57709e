"""The documents of the metrics APIs: discovery, values, tables, failures. Pure: from values to JSON.

Shapes: reference/adapter.md sections 2.3 to 2.5.
"""

import functools
from collections.abc import Sequence
from typing import Any

from flyball import __version__, clock
from flyball.adapter.values import MetricValue, ObjectUsage, Usage
from flyball.errors import FlyballError, NotFoundError, QueryError
from flyball.metricrules import Kind
from flyball.model.quantities import Format, Quantity
from flyball.model.selectors import Selector

CUSTOM = "custom.metrics.k8s.io"
EXTERNAL = "external.metrics.k8s.io"
RESOURCE = "metrics.k8s.io"
GROUPS: dict[str, tuple[str, ...]] = {
    CUSTOM: ("v1beta1", "v1beta2"),  # the first is the preferred one, as upstream
    EXTERNAL: ("v1beta1",),
    RESOURCE: ("v1beta1",),
}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    500: "InternalError",
}


class Failure(Exception):  # noqa: N818
    """An answer that is not 200."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def status(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": _REASONS.get(self.code, "InternalError"),
            "code": self.code,
        }


def failure_of(exc: FlyballError) -> Failure:
    """The answer that tells of an error."""
    if isinstance(exc, NotFoundError):
        return Failure(404, str(exc))
    if isinstance(exc, QueryError):
        return Failure(400, str(exc))
    return Failure(500, f"Internal error occurred: {exc}")


def decimal(milli: int) -> str:
    """A quantity of thousandths, in its canonical form."""
    whole, rest = divmod(milli, 1000)
    if rest:
        return f"{milli}m"
    return str(whole) if whole % 1000 else str(Quantity(milli, -3))


#: The objects of a list share few times.
_time = functools.lru_cache(maxsize=1024)(clock.rfc3339)


def selector_document(selector: Selector) -> dict[str, Any] | None:
    if not selector.requirements:
        return None
    names = {"in": "In", "notin": "NotIn", "exists": "Exists", "!": "DoesNotExist", "!=": "NotIn"}
    labels = {item.key: item.values[0] for item in selector.requirements if item.operator == "="}
    expressions = [
        {"key": item.key, "operator": names.get(item.operator, item.operator)}
        | ({"values": list(item.values)} if item.values else {})
        for item in selector.requirements
        if item.operator != "="
    ]
    return ({"matchLabels": labels} if labels else {}) | ({"matchExpressions": expressions} if expressions else {})


def custom_item(
    version: str, kind: Kind, metric: str, value: MetricValue, selector: dict[str, Any] | None
) -> dict[str, Any]:
    described = {"kind": kind.kind}
    if value.namespace:
        described["namespace"] = value.namespace
    # As upstream, core objects read "/v1".
    described |= {"name": value.name, "apiVersion": f"{kind.group}/{kind.version}"}
    item: dict[str, Any] = {"describedObject": described}
    window = value.window_ms // 1000 if value.window_ms else 0
    if version == "v1beta1":
        item |= {"metricName": metric, "timestamp": _time(value.t_ms // 1000 * 1000)}
        if window:
            item["window"] = window
        return item | {"value": decimal(value.milli), "selector": selector}
    item |= {"metric": {"name": metric, "selector": selector}, "timestamp": _time(value.t_ms // 1000 * 1000)}
    if window:
        item["windowSeconds"] = window
    return item | {"value": decimal(value.milli)}


def external_item(metric: str, value: MetricValue) -> dict[str, Any]:
    """One item of an ExternalMetricValueList."""
    item: dict[str, Any] = {
        "metricName": metric,
        "metricLabels": dict(value.labels),
        "timestamp": _time(value.t_ms // 1000 * 1000),
        "value": decimal(value.milli),
    }
    if value.window_ms:
        item["window"] = value.window_ms // 1000
    return item


def usage_document(usage: Usage) -> dict[str, str]:
    memory = Quantity(usage.memory_milli, -3, Format.BINARY_SI)
    return {"cpu": str(Quantity(usage.cpu_nano, -9)), "memory": str(memory)}


def usage_item(usage: ObjectUsage, is_pod: bool, window: str, now: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "metadata": _metadata(usage, now),
        "timestamp": clock.rfc3339(usage.t_ms),
        "window": window,
    }
    if is_pod:
        item["containers"] = [{"name": name, "usage": usage_document(part)} for name, part in usage.containers]
    else:
        item["usage"] = usage_document(usage.total)
    return item


def _metadata(usage: ObjectUsage, now: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": usage.name}
    if usage.namespace:
        metadata["namespace"] = usage.namespace
    metadata["creationTimestamp"] = now
    if usage.labels:
        metadata["labels"] = usage.labels
    return metadata


def table(usages: Sequence[ObjectUsage], window: str, now: str) -> dict[str, Any]:
    def column(name: str, form: str, description: str = "") -> dict[str, Any]:
        return {"name": name, "type": "string", "format": form, "description": description, "priority": 0}

    rows = []
    for usage in usages:
        shown = usage_document(usage.total)
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": _metadata(usage, now)}
        rows.append({"cells": [usage.name, shown["cpu"], shown["memory"], window], "object": partial})
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            column("Name", "name", "Name of the resource"),
            column("cpu", "quantity"),
            column("memory", "quantity"),
            column("Window", "duration"),
        ],
        "rows": rows,
    }


def go_duration(duration_ms: int) -> str:
    """Go's ``time.Duration`` text: ``5m0s``, ``20s``, ``1.5s``."""
    if duration_ms == 0:
        return "0s"
    hours, rest = divmod(duration_ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def group_document(group: str) -> dict[str, Any]:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in GROUPS[group]]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def resource_document(name: str, namespaced: bool, kind: str, verbs: list[str]) -> dict[str, Any]:
    return {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs}


def aggregated_resources(group: str, version: str, resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Subresources stand below their resource; one that is itself not served has no kind and no verbs."""
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    for item in resources:
        name, slash, subresource = item["name"].partition("/")
        scope = "Namespaced" if item["namespaced"] else "Cluster"
        kind = {"group": group, "version": version, "kind": item["kind"]}
        entry = found.setdefault((name, item["namespaced"]), {"resource": name, "scope": scope})
        if slash:
            entry.setdefault("subresources", []).append(
                {"subresource": subresource, "responseKind": kind, "verbs": item["verbs"]}
            )
        else:
            entry |= {"responseKind": kind, "singularResource": "", "verbs": item["verbs"]}
    return list(found.values())


def openapi(parts: list[str]) -> dict[str, Any]:
    info = {"title": "Flyball metrics APIs", "version": __version__}
    if parts == ["v2"]:
        return {"swagger": "2.0", "info": info, "paths": {}}
    if parts and parts[0] == "v3":
        names = [f"apis/{group}/{version}" for group, versions in GROUPS.items() for version in versions]
        if len(parts) == 1:
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in names}}
        if "/".join(parts[1:]) in names:
            return {"openapi": "3.0.0", "info": info, "paths": {}}
    raise Failure(404, "the server could not find the requested resource")
